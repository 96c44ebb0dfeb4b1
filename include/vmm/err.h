/*
 * Errors. A function that can fail returns 0 or -errno. Where a person will read the reason it also takes a
 * `struct err *` (never NULL-checked by callers: passing NULL is allowed and discards the text).
 * A message says what was asked, what is wrong and what to do, in one sentence without a newline.
 */
#ifndef VMM_ERR_H
#define VMM_ERR_H

#include <stdarg.h>
#include "vmm/util.h"

/* QMP's error classes (QEMU's names; qmp-spec "error-class"). Everything but ERR_GENERIC is rare. */
enum err_class {
	ERR_GENERIC,
	ERR_COMMAND_NOT_FOUND,
	ERR_DEVICE_NOT_ACTIVE,
	ERR_DEVICE_NOT_FOUND,
	ERR_KVM_MISSING_CAP,
};

struct err {
	int code;             /* positive errno; 0 = no error recorded */
	enum err_class class; /* what QMP reports */
	char msg[1024];
};

#define ERR_INIT ((struct err){0})

/* Record an error and return -code, so that callers write `return err_set(e, EINVAL, "...", ...)`. code > 0. */
int err_set(struct err *e, int code, const char *fmt, ...) VMM_PRINTF(3, 4);
/* The same with a QMP error class. */
int err_set_class(struct err *e, enum err_class class, int code, const char *fmt, ...) VMM_PRINTF(4, 5);
/* As err_set, with ": strerror(code)" appended. */
int err_errno(struct err *e, int code, const char *fmt, ...) VMM_PRINTF(3, 4);
/* Put "text: " before the message already recorded; returns -e->code. For adding the context an inner call lacks. */
int err_prefix(struct err *e, const char *fmt, ...) VMM_PRINTF(2, 3);
/* "-cpu foo: not known; did you mean 'fox'?": the nearest of n names by edit distance, or NULL if none is near. */
const char *err_nearest(const char *word, const char *const *names, size_t n);

#endif
