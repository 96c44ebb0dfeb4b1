/*
 * User-creatable objects: what -object and QMP's object-add make, things that are not devices but that devices refer to
 * by id (random number sources, memory back ends, secrets). Implementation: src/machine/object.c; a type is one struct
 * object_type and its line in the table there. Main thread.
 */
#ifndef VMM_OBJECT_H
#define VMM_OBJECT_H

#include <stdbool.h>
#include "vmm/err.h"
#include "vmm/prop.h"

struct object;

struct object_type {
	const char *name;         /* QEMU's, "rng-random" */
	const char *parent;       /* what it can be used as: "rng-backend", ... */
	const char *summary;      /* one line for -object help */
	size_t size;              /* of the instance; struct object is its first member */
	const struct prop *props; /* NULL: none */
	/* Properties are parsed. May fail; destroy is not called then. NULL: nothing to do. */
	int (*create)(struct object *o, struct err *e);
	void (*destroy)(struct object *o);
	const void *ops; /* what the parent's users call; its type is the parent's business */
};

struct object {
	const struct object_type *type;
	char *id;
	unsigned users; /* by object_claim(); one that is used cannot be deleted */
	struct object *next;
};

/* "qom-type=rng-random,id=rng0,filename=/dev/urandom". -EINVAL, -EEXIST with QEMU's texts. */
int object_add(struct opts *o, struct err *e);
/* From now on a property of all objects of this parent has another default. The strings are kept; one at a time. */
void object_default(const char *parent, const char *name, const char *value);
/* -ENOENT; -EBUSY while it is used. */
int object_del(const char *id, struct err *e);
void object_del_all(void);                                    /* at the end, when no device is left */
struct object *object_find(const char *id);                   /* NULL: none */
struct object *object_next(struct object *prev);              /* in order of creation; NULL starts */
const struct object_type *object_type_at(size_t i);           /* NULL past the end */
const struct object_type *object_type_find(const char *name); /* NULL: unknown */

/* For a user that holds on to it: `parent` is what it has to be. NULL with a message that names owner and property. */
struct object *object_claim(const char *id, const char *parent, const char *owner_property, struct err *e);
void object_release(struct object *o); /* NULL-safe */

#endif
