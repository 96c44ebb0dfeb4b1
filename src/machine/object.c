/* User-creatable objects: see vmm/object.h. Error texts are QEMU 7.2's. */
#include "vmm/object.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

extern const struct object_type memory_backend_file_type, memory_backend_memfd_type, memory_backend_ram_type,
	rng_builtin_type, rng_random_type, secret_type, tls_creds_psk_type, tls_creds_x509_type;

static const struct object_type *const types[] = {
	&memory_backend_file_type, &memory_backend_memfd_type, &memory_backend_ram_type,
	&rng_builtin_type,         &rng_random_type,           &secret_type,
	&tls_creds_psk_type,       &tls_creds_x509_type,
};

static struct object *objects, **objects_tail = &objects;

const struct object_type *object_type_at(size_t i)
{
	return i < ARRAY_SIZE(types) ? types[i] : NULL;
}

const struct object_type *object_type_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(types[i]->name, name))
			return types[i];
	return NULL;
}

struct object *object_find(const char *id)
{
	for (struct object *o = objects; o; o = o->next)
		if (!strcmp(o->id, id))
			return o;
	return NULL;
}

struct object *object_next(struct object *prev)
{
	return prev ? prev->next : objects;
}

static bool id_valid(const char *id)
{
	return ((*id | 32) >= 'a' && (*id | 32) <= 'z') && !strpbrk(id, "/ \t,=") && strlen(id) < 64;
}

static int unknown_type(const char *name, struct err *e)
{
	const char *names[ARRAY_SIZE(types)], *near;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		names[i] = types[i]->name;
	near = err_nearest(name, names, ARRAY_SIZE(types));
	return err_set(e, EINVAL, "invalid object type: %s%s%s%s", name, near ? "; did you mean '" : "",
		       near ? near : "", near ? "'?" : "");
}

static void release(struct object *o)
{
	if (o->type->props)
		props_free(o->type->props, o);
	free(o->id);
	free(o);
}

static struct {
	const char *parent, *name, *value;
} sugar;

void object_default(const char *parent, const char *name, const char *value)
{
	sugar.parent = parent;
	sugar.name = name;
	sugar.value = value;
}

int object_add(struct opts *opts, struct err *e)
{
	static const struct prop none[] = {PROP_END};
	const char *type_name = opts_get(opts, "qom-type"), *id = opts_get(opts, "id");
	const struct object_type *type;
	struct object *o;
	int r;

	if (!type_name)
		return err_set(e, EINVAL, "Parameter 'qom-type' is missing");
	type = object_type_find(type_name);
	if (!type)
		return unknown_type(type_name, e);
	if (!id)
		return err_set(e, EINVAL, "Parameter 'id' is missing");
	if (!id_valid(id))
		return err_set(e, EINVAL, "Parameter 'id' expects an identifier, not '%s'", id);
	if (object_find(id))
		return err_set(e, EEXIST, "attempt to add duplicate property '%s' to object (type 'container')", id);
	if (sugar.parent && type->parent && !strcmp(type->parent, sugar.parent) && !opts_get(opts, sugar.name))
		opts_set(opts, sugar.name, sugar.value);
	o = xzalloc(type->size);
	o->type = type;
	o->id = xstrdup(id);
	props_default(type->props ? type->props : none, o);
	r = opts_apply(opts, type->props ? type->props : none, o, type->name, e);
	if (!r && type->create)
		r = type->create(o, e);
	if (r) {
		release(o);
		return r;
	}
	*objects_tail = o;
	objects_tail = &o->next;
	return 0;
}

static void destroy(struct object *o)
{
	for (struct object **p = &objects; *p; p = &(*p)->next)
		if (*p == o) {
			*p = o->next;
			if (objects_tail == &o->next)
				objects_tail = p;
			break;
		}
	if (o->type->destroy)
		o->type->destroy(o);
	release(o);
}

int object_del(const char *id, struct err *e)
{
	struct object *o = object_find(id);

	if (!o)
		return err_set(e, ENOENT, "object '%s' not found", id);
	if (o->users)
		return err_set(e, EBUSY, "object '%s' is in use, can not be deleted", id);
	destroy(o);
	return 0;
}

void object_del_all(void)
{
	while (objects)
		destroy(objects);
}

struct object *object_claim(const char *id, const char *parent, const char *owner_property, struct err *e)
{
	struct object *o = object_find(id);

	if (!o) {
		err_set_class(e, ERR_DEVICE_NOT_FOUND, ENOENT, "Device '%s' not found", id);
		err_prefix(e, "Property '%s'", owner_property);
		return NULL;
	}
	if (strcmp(o->type->parent, parent)) {
		err_set(e, EINVAL, "Property '%s': '%s' is a %s, not a %s", owner_property, id, o->type->name, parent);
		return NULL;
	}
	o->users++;
	return o;
}

void object_release(struct object *o)
{
	if (o)
		o->users--;
}
