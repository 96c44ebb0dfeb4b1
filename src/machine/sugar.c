/*
 * Short options: -drive if=ide is a block back end plus an ide-hd or ide-cd, -serial a chardev plus an isa-serial, -vga
 * std a VGA adapter. What was not asked for but every PC has (a serial port, a parallel port, a CD-ROM drive, a screen)
 * is added unless -nodefaults is given.
 */
#include "sugar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vmm/block.h"
#include "vmm/chardev.h"
#include "vmm/fdset.h"
#include "vmm/memory_backend.h"

static int code_of(const struct err *e)
{
	return e && e->code ? -e->code : -EINVAL;
}

static struct device *create(struct board *b, const char *driver, const char *id, struct err *e, const char *fmt, ...)
	VMM_PRINTF(5, 6);

/* Create a device from an option string. */
static struct device *create(struct board *b, const char *driver, const char *id, struct err *e, const char *fmt, ...)
{
	struct device *dev = NULL;
	struct opts o;
	char *text;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		return NULL;
	if (!opts_parse(&o, text, NULL, e)) {
		dev = device_create(b, driver, id, &o, NULL, e);
		opts_free(&o);
	}
	free(text);
	return dev;
}

/* ---- back ends ---- */

static int refuse(const char *option, const char *text, struct err *e)
{
	err_prefix(e, "%s %s", option, text);
	return code_of(e);
}

/* The caller's descriptor stays open for the life of the process: the set owns a duplicate. */
static int add_fd(struct opts *o, struct err *e)
{
	struct {
		int32_t fd, set;
		char *opaque;
	} v;
	const struct prop table[] = {
		{.name = "fd", .type = PROP_I32, .offset = offsetof(__typeof__(v), fd), .def = (uint64_t)-1},
		{.name = "set", .type = PROP_I32, .offset = offsetof(__typeof__(v), set), .def = (uint64_t)-1},
		{.name = "opaque", .type = PROP_STR, .offset = offsetof(__typeof__(v), opaque)},
		PROP_END,
	};
	int r, copy;

	props_default(table, &v);
	r = opts_apply(o, table, &v, "add-fd", e);
	copy = r ? -1 : fcntl(v.fd, F_DUPFD_CLOEXEC, 3);
	if (!r && copy < 0)
		r = err_errno(e, errno, "fd=%d is not an open file descriptor", v.fd);
	if (!r && fdset_add(v.set, copy, v.opaque, e) < 0) {
		close(copy);
		r = code_of(e);
	}
	props_free(table, &v);
	return r;
}

static int open_drive(struct board *b, struct opt_item *i, struct err *e)
{
	struct block *blk;
	struct block_place place;

	if (b->config->snapshot && !opts_get(&i->opts, "snapshot"))
		opts_set(&i->opts, "snapshot", "on");
	blk = block_open(&i->opts, e);
	if (!blk)
		return refuse("-drive", i->text, e);
	place = block_place(blk);
	if ((place.interface == BLOCK_IF_IDE && place.bus > 1) ||
	    (place.interface == BLOCK_IF_FLOPPY && (place.bus > 0 || place.unit > 1))) {
		err_set(e, EINVAL, "machine type does not support if=%s,bus=%d,unit=%d",
			place.interface == BLOCK_IF_IDE ? "ide" : "floppy", place.bus, place.unit);
		return refuse("-drive", i->text, e);
	}
	if (place.interface == BLOCK_IF_NONE || place.interface == BLOCK_IF_IDE || place.interface == BLOCK_IF_FLOPPY)
		return 0;
	err_set(e, EINVAL, "this interface is not offered; vmm has if=ide, if=floppy and if=none (with -device)");
	return refuse("-drive", i->text, e);
}

/* A described machine has its ports; the command line only says where they lead. */
static int open_described_ports(const struct opt_list *list, const char *kind, struct err *e)
{
	unsigned n = 0;

	for (struct opt_item *i = list->first; i; i = i->next, n++) {
		char id[16];
		int r = 0;

		snprintf(id, sizeof(id), strcmp(kind, "debugcon") ? "%s%u" : "%s", kind, n);
		if (!strncmp(i->text, "chardev:", 8))
			r = err_set(
				e, EINVAL,
				"a described machine's port keeps the chardev '%s': give -chardev ...,id=%s instead",
				id, id);
		else if (!chardev_open_legacy(id, strcmp(i->text, "none") ? i->text : "null", e))
			r = code_of(e);
		if (r) {
			err_prefix(e, "-%s %s", kind, i->text);
			return r;
		}
	}
	return 0;
}

/* -mem-path is an object as well, by the name that QEMU gives it. */
static int create_memory_file(const struct config *c, struct err *e)
{
	char *text = xasprintf("qom-type=memory-backend-file,id=" MACHINE_RAM_ID ",size=%llu,merge=%s,dump=%s",
			       (unsigned long long)c->memory.size, c->machine.mem_merge ? "on" : "off",
			       c->machine.dump_guest_core ? "on" : "off");
	struct stat st;
	struct opts o;
	int r = 0;

	if (stat(c->mem_path, &st))
		r = err_errno(e, errno, "can't open backing store %s for guest RAM", c->mem_path);
	else if (!S_ISDIR(st.st_mode))
		r = err_set(e, ENOTSUP,
			    "only a directory is offered: for a file with a name say -object "
			    "memory-backend-file,id=ID,size=SIZE,mem-path=%s,share=on -machine memory-backend=ID",
			    c->mem_path);
	if (!r)
		r = opts_parse(&o, text, NULL, e);
	free(text);
	if (!r) {
		opts_set(&o, "mem-path", c->mem_path);
		r = object_add(&o, e);
		opts_free(&o);
	}
	return r ? refuse("-mem-path", c->mem_path, e) : 0;
}

int sugar_create_objects(struct board *b, struct err *e)
{
	if (b->config->mem_prealloc)
		object_default("memory-backend", "prealloc", "on");
	for (struct opt_item *i = b->config->object.first; i; i = i->next)
		if (object_add(&i->opts, e))
			return refuse("-object", i->text, e);
	return b->config->mem_path ? create_memory_file(b->config, e) : 0;
}

int sugar_open_backends(struct board *b, struct err *e)
{
	const struct config *c = b->config;
	int r = 0;

	for (struct opt_item *i = c->add_fd.first; !r && i; i = i->next)
		if (add_fd(&i->opts, e))
			r = refuse("-add-fd", i->text, e);
	for (struct opt_item *i = c->chardev.first; !r && i; i = i->next)
		if (!chardev_open(&i->opts, e))
			r = refuse("-chardev", i->text, e);
	if (!r && c->described)
		r = open_described_ports(&c->serial, "serial", e);
	if (!r && c->described)
		r = open_described_ports(&c->parallel, "parallel", e);
	if (!r && c->described)
		r = open_described_ports(&c->debugcon, "debugcon", e);
	if (!r)
		r = sugar_open_nets(b, e);
	for (struct opt_item *i = c->blockdev.first; !r && i; i = i->next)
		if (!block_open_blockdev(&i->opts, e))
			r = refuse("-blockdev", i->text, e);
	for (struct opt_item *i = c->drive.first; !r && i; i = i->next)
		r = open_drive(b, i, e);
	return r;
}

/* The drive that -drive put at this connector. */
static struct block *drive_at(enum block_interface interface, int bus, int unit)
{
	for (struct block *blk = block_next(NULL); blk; blk = block_next(blk)) {
		struct block_place p = block_place(blk);

		if (p.interface == (int)interface && p.bus == bus && p.unit == unit)
			return blk;
	}
	return NULL;
}

void sugar_fdc_options(struct board *b, struct opts *o)
{
	(void)b;
	for (int unit = 0; unit < 2; unit++) {
		struct block *blk = drive_at(BLOCK_IF_FLOPPY, 0, unit);

		if (blk)
			opts_set(o, unit ? "driveB" : "driveA", block_id(blk));
	}
}

void sugar_rtc_options(struct board *b, struct opts *o)
{
	static const char *const clocks[] = {"host", "rt", "vm"};
	const struct rtc_opts *rtc = &b->config->rtc;

	if (rtc->base)
		opts_set(o, "base", rtc->base);
	opts_set(o, "clock", clocks[rtc->clock]);
	if (rtc->driftfix) /* else a -global counts */
		opts_set(o, "lost_tick_policy", "slew");
}

/* ---- devices ---- */

static bool device_asked_for(const struct board *b, const char *driver)
{
	for (struct opt_item *i = b->config->device.first; i; i = i->next) {
		const char *name = opts_get(&i->opts, "driver");

		if (name && !strcmp(name, driver))
			return true;
	}
	return false;
}

static int create_ide(struct board *b, struct err *e)
{
	for (int n = 0; n < 4; n++) {
		struct block *blk = drive_at(BLOCK_IF_IDE, n / 2, n % 2);

		if (blk && !create(b, block_is_cdrom(blk) ? "ide-cd" : "ide-hd", NULL, e, "bus=ide.%d,unit=%d,drive=%s",
				   n / 2, n % 2, block_id(blk)))
			return refuse("drive", block_id(blk), e);
	}
	if (b->config->nodefaults || drive_at(BLOCK_IF_IDE, 1, 0) || device_asked_for(b, "ide-cd") ||
	    device_asked_for(b, "ide-hd"))
		return 0;
	for (struct block *blk = block_next(NULL); blk; blk = block_next(blk))
		if (block_is_cdrom(blk))
			return 0;
	/* A PC has a CD-ROM drive, so that media can be inserted later. */
	struct opts o = {0};
	struct block *blk;

	opts_set(&o, "if", "ide");
	opts_set(&o, "index", "2");
	opts_set(&o, "media", "cdrom");
	blk = block_open(&o, e);
	opts_free(&o);
	if (!blk || !create(b, "ide-cd", NULL, e, "bus=ide.1,unit=0,drive=%s", block_id(blk)))
		return code_of(e);
	return 0;
}

/* One port per -serial (or -parallel); "none" leaves the position empty. */
static int create_ports(struct board *b, const struct opt_list *list, const char *kind, unsigned max,
			const char *fallback, struct err *e)
{
	struct opt_item only = {.text = (char *)(uintptr_t)fallback};
	struct opt_item *first = list->first;
	unsigned index = 0;

	if (!first && fallback)
		first = &only;
	for (struct opt_item *i = first; i; i = i->next, index++) {
		struct chardev *c;
		char id[32], driver[32];

		if (index >= max)
			return err_set(e, EINVAL, "-%s %s: a PC has at most %u of these ports", kind, i->text, max);
		snprintf(id, sizeof(id), "%s%u", kind, index);
		snprintf(driver, sizeof(driver), "isa-%s", kind);
		if (e)
			e->code = 0;
		c = chardev_open_legacy(id, i->text, e);
		if (!c && e && e->code) {
			err_prefix(e, "-%s %s", kind, i->text);
			return code_of(e);
		}
		if (c && !create(b, driver, NULL, e, "index=%u,chardev=%s", index, chardev_id(c)))
			return code_of(e);
	}
	return 0;
}

static int create_debugcon(struct board *b, struct err *e)
{
	for (struct opt_item *i = b->config->debugcon.first; i; i = i->next) {
		struct chardev *c = chardev_open_legacy("debugcon", i->text, e);

		if (!c) {
			err_prefix(e, "-debugcon %s", i->text);
			return code_of(e);
		}
		if (!create(b, "isa-debugcon", NULL, e, "chardev=%s", chardev_id(c))) /* -global sets iobase */
			return code_of(e);
	}
	return 0;
}

static int create_vga(struct board *b, struct err *e)
{
	const char *vga = b->config->vga;

	if (!vga)
		vga = b->config->nodefaults || device_asked_for(b, "VGA") ? "none" : "std";
	if (strcmp(vga, "none") && !create(b, "VGA", NULL, e, "addr=0x2"))
		return code_of(e);
	return 0;
}

int sugar_create(struct board *b, struct err *e)
{
	const struct config *c = b->config;
	const char *serial = NULL, *parallel = NULL;
	int r;

	if (!c->nodefaults) {
		serial = !c->nographic ? "null" : c->monitor.first ? "stdio" : "mon:stdio";
		parallel = "null";
	}
	if (device_asked_for(b, "isa-serial"))
		serial = NULL;
	if (device_asked_for(b, "isa-parallel"))
		parallel = NULL;
	r = create_vga(b, e);
	if (!r)
		r = create_ports(b, &c->serial, "serial", 4, serial, e);
	if (!r)
		r = create_ports(b, &c->parallel, "parallel", 3, parallel, e);
	if (!r)
		r = create_debugcon(b, e);
	if (!r)
		r = create_ide(b, e);
	if (!r)
		r = sugar_create_nics(b, e);
	return r;
}
