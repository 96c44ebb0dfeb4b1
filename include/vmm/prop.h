/*
 * The one typed property system. A `struct prop` row describes an option: name, type, where it lives in its
 * owner's struct, default, range, help. The command line, `-device X,help`, configuration files, QMP device_add and
 * introspection all read the same rows. Implemented in src/config/.
 */
#ifndef VMM_PROP_H
#define VMM_PROP_H

#include <stdbool.h>
#include <stdio.h>
#include "vmm/err.h"

enum prop_type {
	PROP_BOOL,      /* bool: on|off|yes|no|true|false */
	PROP_U8,        /* uint8_t; decimal, 0x hex; min/max apply to all integers */
	PROP_U16,       /* uint16_t */
	PROP_U32,       /* uint32_t */
	PROP_U64,       /* uint64_t */
	PROP_I32,       /* int32_t */
	PROP_SIZE,      /* uint64_t bytes; suffixes k M G T (powers of 1024) */
	PROP_STR,       /* char *, owned; NULL when unset */
	PROP_ENUM,      /* int: index into values[] */
	PROP_ONOFFAUTO, /* int: 0 off, 1 on, 2 auto */
	PROP_MAC,       /* uint8_t[6] */
	PROP_UUID,      /* uint8_t[16], RFC 4122 byte order */
	PROP_PCI_ADDR,  /* int32_t: device << 3 | function; -1 = any; "5", "0x5", "0x1.0x2" */
	PROP_DRIVE,     /* char *: id or node name of a block device; the device claims it with device_claim_block() */
	PROP_CHARDEV,   /* char *: id of a chardev; claimed with device_claim_chardev() */
	PROP_NETDEV,    /* char *: id of a netdev */
};

struct prop {
	const char *name;
	enum prop_type type;
	size_t offset;             /* of the value in the owner's struct */
	uint64_t def;              /* default of scalar types; for PROP_STR: see def_str */
	const char *def_str;       /* default of string-like types (parsed by the same rules); NULL = unset */
	uint64_t min, max;         /* integers and sizes; 0,0 = the type's own range. PROP_I32: cast to int64_t */
	const char *const *values; /* PROP_ENUM: NULL-terminated names */
	const char *help;          /* one line, no full stop */
	bool internal; /* set by the board table or by sugar, hidden from help and the machine description */
};

#define PROP_END             \
	{                    \
		.name = NULL \
	}
/* PROP(struct uart, irq, PROP_U32, .def = 4, .max = 23, .help = "...") with member == option name */
#define PROP(S, member, ty, ...)                                                          \
	{                                                                                 \
		.name = #member, .type = (ty), .offset = offsetof(S, member), __VA_ARGS__ \
	}
/* option name differs from the member's ("physical-block-size") */
#define PROP_NAMED(S, nm, member, ty, ...)                                             \
	{                                                                              \
		.name = (nm), .type = (ty), .offset = offsetof(S, member), __VA_ARGS__ \
	}

/* Fill obj with the defaults of all rows. Tables end with PROP_END. */
void props_default(const struct prop *table, void *obj);
/* Release what string-like properties own and clear them. */
void props_free(const struct prop *table, void *obj);
const struct prop *prop_find(const struct prop *table, const char *name); /* NULL if unknown */
/* Parse text into the property. -EINVAL with a message naming the property, the bad value and what is allowed. */
int prop_parse(const struct prop *p, void *obj, const char *text, struct err *e);
/* Set by name; an unknown name is refused with the nearest valid one. */
int props_set(const struct prop *table, void *obj, const char *owner, const char *name, const char *text,
	      struct err *e);
/* Current value as text that prop_parse() accepts; malloc'ed. */
char *prop_format(const struct prop *p, const void *obj);
const char *prop_type_name(const struct prop *p); /* "bool", "uint32", "size", "str", "on|off|auto", ... */
/* Aligned, human-readable list of names, types, defaults and help (for `-device X,help`). */
void props_print_help(const struct prop *table, FILE *out);

/*
 * Option strings: "id=x,a=b,flag" as key/value lists, QEMU's rules: ",," is a literal comma, a first bare word is the
 * value of implied_key (if given), a later bare word `foo` is foo=on, `nofoo` is foo=off. A value that starts with '{'
 * as the whole text is JSON (flattened: {"a":{"b":1}} -> a.b=1). Later keys win in opts_get but all are kept.
 */
struct opt {
	char *key;
	char *value;
	bool used; /* set by opts_get*(): what nobody used is refused by name */
};
struct opts {
	size_t n;
	struct opt *v;
};
/* Into o, which may be uninitialised. -EINVAL; o is empty then. */
int opts_parse(struct opts *o, const char *text, const char *implied_key, struct err *e);
void opts_free(struct opts *o);                                    /* zeroed or freed ones are fine */
const char *opts_get(struct opts *o, const char *key);             /* last value, marks used; NULL if absent */
void opts_set(struct opts *o, const char *key, const char *value); /* replaces or appends */
void opts_add(struct opts *o, const char *key, const char *value); /* appends, also beside others of that name: lists */
void opts_del(struct opts *o, const char *key);                    /* all of that name */
char *opts_format(const struct opts *o);                           /* back to "k=v,k2=v2"; malloc'ed */
/* Apply every not yet used option to obj through table; unknown names are refused by name with the nearest one. */
int opts_apply(struct opts *o, const struct prop *table, void *obj, const char *owner, struct err *e);

#endif
