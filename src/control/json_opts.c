/* See json_opts.h. The parser of option strings takes JSON as well: one set of rules for the command line and QMP. */
#include "json_opts.h"

#include <errno.h>
#include <stdlib.h>

int json_to_opts(const json_t *object, struct opts *o, struct err *e)
{
	char *text = json_dumps(object, JSON_COMPACT);
	int r = text ? opts_parse(o, text, NULL, e) : err_set(e, EINVAL, "the arguments cannot be written as JSON");

	free(text);
	return r;
}
