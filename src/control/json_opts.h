/* A JSON object as the option list that -device, -object ... take. */
#ifndef VMM_CONTROL_JSON_OPTS_H
#define VMM_CONTROL_JSON_OPTS_H

#include <jansson.h>
#include "vmm/prop.h"

/* Values keep their type's text: 5, on, "a,b"; nested members become "a.b". Release with opts_free(). */
int json_to_opts(const json_t *object, struct opts *o, struct err *e);

#endif
