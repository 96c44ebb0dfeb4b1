/* Secrets by id (-object secret, src/machine/secret.c): passwords that others refer to. Main thread. */
#ifndef VMM_SECRET_H
#define VMM_SECRET_H

#include <stddef.h>
#include "vmm/err.h"

/* The secret's bytes, NUL-terminated, valid while the object exists. NULL with a message: no such secret. */
const char *secret_find(const char *id, size_t *len, struct err *e);
/* For a password: refused if it holds NUL bytes. */
const char *secret_text(const char *id, struct err *e);

#endif
