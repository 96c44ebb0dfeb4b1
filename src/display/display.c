/*
 * Front ends by name: what -display, -vnc and the default mean, and which module does it.
 */
#include "vmm/display.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "src/display/modules.h"
#include "vmm/log.h"
#include "vmm/module.h"
#include "vmm/prop.h"

static const struct vnc_module *vnc;
static const struct curses_module *curses;

static int start_curses(struct err *e)
{
	if (!curses)
		curses = module_load("curses", "vmm_module_curses", e);
	if (!curses)
		return err_prefix(e, "-display curses"), -ENOENT;
	return curses->start(console_first(), e);
}

/* Without a word from the user: a VNC server for this host on the first free display, as QEMU without a window does. */
static int start_default(struct err *e)
{
	struct err local = ERR_INIT;

	if (!console_first())
		return 0;
	vnc = module_load("vnc", "vmm_module_vnc", &local);
	if (!vnc) {
		log_info("display", "no screen is shown: %s", local.msg);
		return 0;
	}
	return vnc->start(console_first(), "localhost:0,to=99,id=default", true, e);
}

int display_start(const char *kind, struct err *e)
{
	static const char *const elsewhere[] = {"gtk", "sdl", "egl-headless", "spice-app", "dbus", "cocoa"};

	if (!kind)
		return start_default(e);
	if (!strcmp(kind, "none"))
		return 0;
	if (!strcmp(kind, "curses"))
		return start_curses(e);
	if (!strncmp(kind, "vnc=", 4))
		return vnc_start(kind + 4, e);
	for (size_t i = 0; i < ARRAY_SIZE(elsewhere); i++)
		if (!strncmp(kind, elsewhere[i], strlen(elsewhere[i])))
			return err_set(e, ENOTSUP, "-display %s: not available in vmm; use curses, vnc=HOST:N or none",
				       elsewhere[i]);
	return err_set(e, EINVAL, "-display %s: not known; use curses, vnc=HOST:N or none", kind);
}

static void (*_Atomic event_fn)(void *opaque, const char *name, const char *data_json);
static void *_Atomic event_opaque;

void display_set_event_handler(void (*fn)(void *opaque, const char *name, const char *data_json), void *opaque)
{
	event_fn = NULL; /* never the new function with the old argument */
	event_opaque = opaque;
	event_fn = fn;
}

void display_event(const char *name, const char *data_json)
{
	void (*fn)(void *, const char *, const char *) = event_fn;

	if (fn)
		fn(event_opaque, name, data_json);
}

int vnc_start(const char *spec, struct err *e)
{
	int rc;

	if (!strncmp(spec, "none", 4) && (!spec[4] || spec[4] == ',')) /* "none,audiodev=..." as libvirt has it */
		return 0;
	if (!vnc)
		vnc = module_load("vnc", "vmm_module_vnc", e);
	rc = vnc ? vnc->start(console_first(), spec, false, e) : -ENOENT;
	if (rc < 0)
		err_prefix(e, "-vnc %s", spec);
	return rc;
}

int vnc_set_password(const char *password, struct err *e)
{
	if (!vnc)
		return err_set_class(e, ERR_DEVICE_NOT_ACTIVE, ENODEV, "no VNC server is running");
	return vnc->set_password(password, e);
}

int vnc_expire_password(const char *time, struct err *e)
{
	if (!vnc)
		return err_set_class(e, ERR_DEVICE_NOT_ACTIVE, ENODEV, "no VNC server is running");
	return vnc->expire_password(time, e);
}

int vnc_add_client(int fd, bool skip_auth, struct err *e)
{
	if (vnc)
		return vnc->add_client(fd, skip_auth, e);
	close(fd);
	return err_set_class(e, ERR_DEVICE_NOT_ACTIVE, ENODEV, "no VNC server is running");
}

char *vnc_query(void)
{
	return vnc ? vnc->query() : xstrdup("{\"enabled\":false}");
}

void display_stop(void)
{
	if (vnc)
		vnc->stop();
	if (curses)
		curses->stop();
}
