/* Inside the reader of Xen's configuration files: xen_syntax.c reads, xen_config.c has the settings, xen_disks.c the
 * devices. */
#ifndef VMM_CTL_XEN_H
#define VMM_CTL_XEN_H

#include "config.h"

enum xen_type { XEN_NONE, XEN_NUMBER, XEN_STRING, XEN_LIST };

struct xen_value {
	enum xen_type type;
	unsigned line, column;
	long long number;
	char *string;
	struct xen_value *items;
	size_t n;
};

struct xen {
	struct guest_config *c;
	struct notes *notes;
	const char *file, *s, *end;
	unsigned line, column, depth;
	/* what several settings say together */
	bool vnc, sdl, vnc_unused, vnc_seen;
	long long vnc_display;
	char *vnc_listen;
};

struct xen_setting {
	const char *name;
	const char *ours; /* for handlers that need no more than a name */
	int (*take)(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e);
	const char *why; /* ignored: the reason */
};

/* ---- xen_syntax.c ---- */
int xen_mistake_at(const struct xen *x, unsigned line, unsigned column, struct err *e, const char *fmt, ...)
	VMM_PRINTF(5, 6);
#define xen_mistake(x, e, ...) xen_mistake_at(x, (x)->line, (x)->column, e, __VA_ARGS__)
#define AT(v)                  (v)->line, (v)->column
/* A word for the person: something was ignored, or taken in another sense. */
void xen_note(struct xen *x, const struct xen_value *v, const char *fmt, ...) VMM_PRINTF(3, 4);
void xen_skip_lines(struct xen *x); /* to the next statement, or the end */
/* One "name = value". The caller frees both, whatever comes back. */
int xen_read_statement(struct xen *x, char **name, struct xen_value *v, struct err *e);
void xen_value_free(struct xen_value *v);

/* ---- xen_config.c ---- */
const char *xen_type_name(enum xen_type t); /* "a number" */
int xen_text(struct xen *x, const char *key, const struct xen_value *v, char **out, struct err *e);
int xen_number(struct xen *x, const char *key, const struct xen_value *v, long long *out, struct err *e);
/* Set our own key; what is wrong is told of Xen's. */
int xen_set(struct xen *x, const char *key, const struct xen_value *v, const char *ours, const char *text,
	    struct err *e);

/* ---- xen_disks.c ---- */
int xen_as_disks(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e);
int xen_as_cdrom(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e);
int xen_as_floppy(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e);
int xen_as_vifs(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e);

#endif
