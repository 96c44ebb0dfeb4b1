/*
 * Displays: a console couples one source (a graphics adapter) with any number of sinks (VNC, curses, screendump).
 * Pull model: a sink asks for a refresh at its own pace; the source then renders what changed into the surface. With no
 * sink attached nothing is rendered. Main thread, except where noted.
 */
#ifndef VMM_DISPLAY_H
#define VMM_DISPLAY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "vmm/err.h"

struct console;
struct device;

/* 32-bit XRGB8888, host byte order, stride in bytes. */
struct surface {
	uint32_t width, height, stride;
	uint8_t *data;
};
struct rect {
	int32_t x, y, w, h;
};

/* Text screen: what the adapter shows in a text mode. cells: (attribute << 8 | character), code page 437. */
struct text_screen {
	uint32_t cols, rows;
	const uint16_t *cells;      /* cols * rows */
	int32_t cursor_x, cursor_y; /* -1: hidden */
};

/* The source's side. Called on the main thread with `lock` held. */
struct console_source {
	/* Bring console_surface() up to date and report changed parts with console_damage(). full: redraw everything.
	 */
	void (*refresh)(void *opaque, bool full);
	/* Text mode: fill t and return true (cells valid until the lock is released); graphics mode: false. */
	bool (*text)(void *opaque, struct text_screen *t);
};
/* In create() and destroy(). Never fails; opaque and lock are the source's for as long as the console is there. */
struct console *console_new(const char *id, const struct console_source *src, void *opaque, pthread_mutex_t *lock);
void console_free(struct console *c);
/* Source: set a new size (allocates; bounded to 16384 x 16384 and 256 MiB) or re-use. 0 or -errno. */
int console_resize(struct console *c, uint32_t width, uint32_t height);
struct surface *console_surface(struct console *c); /* the console's; data moves at console_resize() */
/* In refresh(): this part of the surface is new; what is outside it is cut off. */
void console_damage(struct console *c, const struct rect *r);

/* The sink's side. */
struct console_sink {
	void (*resized)(void *opaque, const struct surface *s);
	void (*damaged)(void *opaque, const struct rect *r);
	void *opaque;
	struct console_sink *next;
};
struct console *console_first(void); /* NULL: no graphics adapter */
/* The sink stays its owner's, who takes it out before it goes. resized() and damaged() may be NULL. */
void console_add_sink(struct console *c, struct console_sink *sink);
void console_del_sink(struct console *c, struct console_sink *sink);
/* Render now; calls damaged() of all sinks. */
void console_refresh(struct console *c, bool full);
bool console_text(struct console *c, struct text_screen *t, uint16_t *buf,
		  size_t cells); /* copies under the source's lock */

/* Screenshot. format: "ppm" or "png". Main thread. */
int screendump_write(struct console *c, const char *path, const char *format, struct err *e);
/* The parts of it, to encode and write on another thread. take: main thread, renders and copies the screen. encode: any
   thread, malloc'ed. create: main thread, opens path (/dev/fdset/N, too) without waiting for a pipe's reader; *regular:
   half a picture is to be unlinked. */
struct screenshot;
struct screenshot *screenshot_take(struct console *c, const char *format, struct err *e);
int screenshot_encode(const struct screenshot *s, char **data, size_t *len, struct err *e);
void screenshot_free(struct screenshot *s);
int screenshot_create(const char *path, bool *regular, struct err *e); /* fd or -errno */
/* The text screen as UTF-8 lines, trailing blanks removed; NULL in graphics modes. malloc'ed. */
char *console_text_utf8(struct console *c);

/* Unicode of each code page 437 character as the adapter draws it (controls are glyphs; 0 is a blank). */
extern const uint16_t cp437_to_unicode[256];

/* Front ends chosen on the command line (src/display/): "none", "curses", NULL: the default; VNC: see QEMU's -vnc
   syntax. They load a module: before the sandbox closes. 0 or -errno. */
int display_start(const char *kind, struct err *e);
int vnc_start(const char *spec, struct err *e);
int vnc_set_password(const char *password, struct err *e); /* QMP set_password / change-vnc-password */
/* QMP add_client: serve a connected socket as if it had been accepted. Takes fd in any case. */
int vnc_add_client(int fd, bool skip_auth, struct err *e);
int vnc_expire_password(const char *time, struct err *e); /* QMP expire_password: "now", "never", "+SECONDS", "UNIX" */
char *vnc_query(void);                                    /* QMP query-vnc: a VncInfo object as JSON; malloc'ed */
/* VNC_CONNECTED, VNC_INITIALIZED and VNC_DISCONNECTED go here (data: a JSON object). One handler, set before the front
   ends start or NULL; called on any thread: it must only hand on. display_event() is the front ends' side. */
void display_set_event_handler(void (*fn)(void *opaque, const char *name, const char *data_json), void *opaque);
void display_event(const char *name, const char *data_json);
void display_stop(void); /* restores the terminal */
#endif
