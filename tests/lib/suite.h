/* How every C test with libcheck ends. */
#ifndef VMM_TEST_SUITE_H
#define VMM_TEST_SUITE_H

#include <check.h>

/* Run these test cases, ended by NULL, as one suite. Returns main()'s value. */
static inline int run_suite(const char *name, TCase *const *cases)
{
	Suite *s = suite_create(name);
	SRunner *r;
	int failed;

	for (; *cases; cases++)
		suite_add_tcase(s, *cases);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}

#endif
