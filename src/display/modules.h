/*
 * What the loadable parts of the display room offer: each vmm-NAME.so exports one object, vmm_module_NAME, and is
 * loaded by module_load() when its feature is first used. The modules call back into the executable's exported symbols.
 */
#ifndef DISPLAY_MODULES_H
#define DISPLAY_MODULES_H

#include <stdio.h>
#include "vmm/display.h"

struct png_module {
	int (*write)(FILE *f, const struct surface *s, struct err *e);
};
extern const struct png_module vmm_module_png;

struct curses_module {
	int (*start)(struct console *c, struct err *e);
	void (*stop)(void);
};
extern const struct curses_module vmm_module_curses;

struct vnc_module {
	/* spec: -vnc's argument; announce: print where it listens. console may be NULL: keyboard and a dark screen. */
	int (*start)(struct console *console, const char *spec, bool announce, struct err *e);
	int (*set_password)(const char *password, struct err *e);
	int (*expire_password)(const char *time, struct err *e);
	int (*add_client)(int fd, bool skip_auth, struct err *e); /* takes fd */
	char *(*query)(void);
	void (*stop)(void);
};
extern const struct vnc_module vmm_module_vnc;

#endif
