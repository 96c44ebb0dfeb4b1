/*
 * The device core: from the registry's classes to instances on the board. Parses properties, finds the bus a device
 * goes to, wires regions, interrupt lines and locks, and carries the two phases of reset.
 */
#include "board.h"
#include "boot_order.h"

#include <errno.h>
#include <stdlib.h>
#include "vmm/block.h"
#include "vmm/chardev.h"
#include "vmm/pci.h"

struct claim { /* a backend this device uses */
	struct claim *next;
	struct block *block;
	struct chardev *chardev;
};

/* ---- registry ---- */

const struct device_class *device_class_find(const char *name)
{
	for (const struct device_class *const *c = device_registry; *c; c++)
		if (!strcmp((*c)->name, name) || ((*c)->alias && !strcmp((*c)->alias, name)))
			return *c;
	return NULL;
}

static int unknown_class(const char *name, struct err *e)
{
	const char *names[512], *near;
	size_t n = 0;

	for (const struct device_class *const *c = device_registry; *c && n < ARRAY_SIZE(names); c++)
		if ((*c)->user_creatable)
			names[n++] = (*c)->name;
	near = err_nearest(name, names, n);
	return err_set_class(e, ERR_GENERIC, ENODEV, "'%s' is not a valid device model name%s%s%s", name,
			     near ? "; did you mean '" : ", see -device help", near ? near : "", near ? "'?" : "");
}

/* ---- finding devices ---- */

struct device *device_find(struct board *board, const char *id)
{
	for (struct device *d = board->devices; d; d = d->next)
		if (!strcmp(d->id, id))
			return d;
	return NULL;
}

struct device *device_find_class(struct board *board, const char *class_name)
{
	for (struct device *d = board->devices; d; d = d->next)
		if (!strcmp(d->class->name, class_name))
			return d;
	return NULL;
}

struct device *device_next(struct board *board, struct device *prev)
{
	return prev ? prev->next : board->devices;
}

/* ---- buses ---- */

/* Names of the buses the pc board has, and the class that owns each. Devices with buses of their own (virtio-serial,
   USB) are addressed as "ID.0". */
static const struct bus_name {
	const char *name;
	enum device_bus bus;
	const char *owner;
} bus_names[] = {
	{"pci.0", BUS_PCI, "i440FX-pcihost"},
	{"pci", BUS_PCI, "i440FX-pcihost"},
	{"isa.0", BUS_ISA, NULL},
	{"ide.0", BUS_IDE, "piix3-ide"},
	{"ide.1", BUS_IDE, "piix3-ide"},
	{"floppy-bus.0", BUS_FLOPPY, "isa-fdc"},
	{"ps2.0", BUS_PS2, "i8042"},
	{"virtio-serial-bus", BUS_VIRTIO_SERIAL, "virtio-serial-pci"},
	{"i2c", BUS_SMBUS, "PIIX4_PM"},
};

/* What kind of bus a device has for others; NULL: none. */
static const enum device_bus *owns_bus(const struct device *dev)
{
	for (size_t i = 0; i < ARRAY_SIZE(bus_names); i++)
		if (bus_names[i].owner && !strcmp(bus_names[i].owner, dev->class->name))
			return &bus_names[i].bus;
	return NULL;
}

/* The device that owns the bus a new device of class c goes to; NULL without error for buses that need no owner. */
static int find_parent(struct board *b, const struct device_class *c, const char *bus, struct device **parent,
		       struct err *e)
{
	const char *owner = NULL;

	*parent = NULL;
	if (bus) {
		const struct bus_name *found = NULL;

		for (size_t i = 0; i < ARRAY_SIZE(bus_names); i++)
			if (!strcmp(bus_names[i].name, bus))
				found = &bus_names[i];
		if (!found) {
			char id[64];
			const char *dot = strrchr(bus, '.');

			snprintf(id, sizeof(id), "%.*s",
				 (int)MIN(dot ? (size_t)(dot - bus) : strlen(bus), sizeof(id) - 1), bus);
			*parent = device_find(b, id);
			if (!*parent || (*parent)->leaving || !owns_bus(*parent))
				return err_set(e, ENODEV, "Bus '%s' not found", bus);
			if (*owns_bus(*parent) != c->bus)
				return err_set(e, EINVAL, "Device '%s' can't go on bus '%s'", c->name, bus);
			return 0;
		}
		if (found->bus != c->bus)
			return err_set(e, EINVAL, "Device '%s' can't go on bus '%s'", c->name, bus);
		owner = found->owner;
	} else {
		for (size_t i = 0; i < ARRAY_SIZE(bus_names); i++)
			if (bus_names[i].bus == c->bus) {
				bus = bus_names[i].name;
				owner = bus_names[i].owner;
				break;
			}
	}
	if (!owner)
		return 0;
	*parent = device_find_class(b, owner);
	if (!*parent)
		return err_set(e, ENODEV, "No '%s' bus found for device '%s'", bus, c->name);
	return 0;
}

/* ---- creation ---- */

bool device_id_taken(struct board *b, const char *id)
{
	return device_find(b, id) || cpu_find(b, id) >= 0;
}

bool device_id_valid(const char *id)
{
	return *id && strlen(id) < sizeof(((struct device *)0)->id) && !strpbrk(id, "/ \t,=");
}

static int choose_id(struct device *dev, const char *id, struct err *e)
{
	struct board *b = dev->board;

	if (id) {
		if (!device_id_valid(id))
			return err_set(e, EINVAL, "Parameter 'id' expects an identifier, not '%s'", id);
		if (device_id_taken(b, id))
			return err_set(e, EEXIST, "Duplicate device ID '%s'", id);
		snprintf(dev->id, sizeof(dev->id), "%s", id);
		dev->user_id = true;
		return 0;
	}
	snprintf(dev->id, sizeof(dev->id), "%.50s", dev->class->name);
	for (unsigned n = 1; device_find(b, dev->id); n++)
		snprintf(dev->id, sizeof(dev->id), "%.50s#%u", dev->class->name, n);
	return 0;
}

/* What stands before the dot of "DRIVER.PROP" names this class; its alias does as well. */
static bool global_is_for(const char *key, const struct device_class *c)
{
	size_t len = strcspn(key, ".");

	return (!strncmp(key, c->name, len) && !c->name[len]) ||
	       (c->alias && !strncmp(key, c->alias, len) && !c->alias[len]);
}

/* -global DRIVER.PROP=VALUE for this class, in command-line order. */
static int apply_globals(struct device *dev, struct err *e)
{
	for (struct opt_item *g = dev->board->config->global.first; g; g = g->next) {
		struct opt *o = g->opts.v; /* one: the command line saw to it */
		int r;

		if (!global_is_for(o->key, dev->class))
			continue;
		o->used = true;
		r = props_set(dev->class->props, dev, dev->class->name, strchr(o->key, '.') + 1, o->value, e);
		if (r) {
			err_prefix(e, "-global %s", g->text);
			return r;
		}
	}
	return 0;
}

static const struct device_class *global_class(const char *key)
{
	const struct device_class *const *c = device_registry;

	while (*c && !global_is_for(key, *c))
		c++;
	return *c;
}

int devices_check_globals(struct board *b, struct err *e)
{
	static const struct prop no_props[] = {PROP_END};

	for (struct opt_item *g = b->config->global.first; g; g = g->next) {
		const struct opt *o = g->opts.v;
		const struct device_class *c = global_class(o->key);
		const struct prop *props = c && c->props ? c->props : no_props;
		const char *name = strchr(o->key, '.') + 1;
		struct err why = ERR_INIT;

		if (o->used)
			continue;
		if (!c) {
			char driver[64];

			snprintf(driver, sizeof(driver), "%.*s", (int)(name - 1 - o->key), o->key);
			unknown_class(driver, &why);
			log_warn("machine", "-global %s has no effect: %s", g->text, why.msg);
		} else if (!prop_find(props, name)) {
			props_set(props, NULL, c->name, name, o->value, e);
			return err_prefix(e, "-global %s", g->text);
		} else if (!c->hotpluggable) { /* else one may come */
			log_warn("machine", "-global %s has no effect: the machine has no %s", g->text, c->name);
		}
	}
	return 0;
}

static uint64_t int_prop(const struct device *dev, const char *name)
{
	const struct prop *p = dev->class->props ? prop_find(dev->class->props, name) : NULL;
	const void *v = p ? (const uint8_t *)dev + p->offset : NULL;

	if (!p)
		return 0;
	switch (p->type) {
	case PROP_U8:
		return *(const uint8_t *)v;
	case PROP_U16:
		return *(const uint16_t *)v;
	case PROP_U32:
	case PROP_I32:
		return *(const uint32_t *)v;
	default:
		return *(const uint64_t *)v;
	}
}

static int wire_regions(struct device *dev, struct err *e)
{
	const struct device_class *c = dev->class;

	if (c->n_regions > DEVICE_MAX_REGIONS || c->n_irqs > DEVICE_MAX_IRQS)
		return err_set(e, ENOSPC, "device class %s lists more regions or interrupts than an instance can hold",
			       c->name);
	for (unsigned i = 0; i < c->n_regions; i++) {
		const struct region_desc *d = &c->regions[i];

		dev->regions[i] =
			(struct region){.desc = d, .dev = dev, .base = d->base, .size = d->size, .kind = d->kind};
		if (d->base_prop)
			dev->regions[i].base = int_prop(dev, d->base_prop) + d->base_offset;
	}
	for (unsigned i = 0; i < c->n_irqs; i++) {
		dev->irq[i].fabric = &dev->board->irq;
		if (!c->irq_prop[i])
			continue;
		dev->irq[i].kind = IRQ_GSI;
		dev->irq[i].input = (uint8_t)int_prop(dev, c->irq_prop[i]);
		if (dev->irq[i].input >= N_GSI)
			return err_set(e, EINVAL, "%s: irq %u does not exist (0..%u)", dev->id, dev->irq[i].input,
				       N_GSI - 1);
	}
	return 0;
}

/* Options every device of a bus has; the rest belongs to the class. */
static int take_common_options(struct device *dev, struct opts *o, int32_t *addr, struct err *e)
{
	static const struct prop addr_prop = {.name = "addr", .type = PROP_PCI_ADDR};
	const char *text;

	opts_get(o, "driver");
	opts_get(o, "id");
	text = opts_get(o, "bus");
	dev->bus_id = xstrdup(text);
	*addr = -1;
	if (dev->class->bus == BUS_PCI) {
		opts_get(o, "multifunction");
		text = opts_get(o, "addr");
		if (text)
			return prop_parse(&addr_prop, addr, text, e);
	}
	if (dev->class->bus == BUS_IDE || dev->class->bus == BUS_FLOPPY) {
		text = opts_get(o, "unit");
		dev->unit = -1;
		if (text) {
			char *end;
			unsigned long v = strtoul(text, &end, 0);

			if (*end || !*text || v > 7)
				return err_set(e, EINVAL, "Parameter 'unit' expects a number 0..7, not '%s'", text);
			dev->unit = (int32_t)v;
		}
	}
	return 0;
}

static void free_instance(struct device *dev)
{
	struct claim *claim = dev->machine_private;

	while (claim) {
		struct claim *next = claim->next;

		if (claim->block)
			block_release(claim->block);
		if (claim->chardev)
			chardev_release(claim->chardev);
		free(claim);
		claim = next;
	}
	pci_free(dev);
	if (dev->class->props)
		props_free(dev->class->props, dev);
	free(dev->bus_id);
	pthread_mutex_destroy(&dev->own_lock);
	free(dev);
}

static int configure(struct device *dev, const char *id, struct opts *o, int32_t *addr, struct err *e)
{
	static const struct prop no_props[] = {PROP_END};
	const struct device_class *c = dev->class;
	const struct prop *props = c->props ? c->props : no_props;
	int r;

	props_default(props, dev);
	r = choose_id(dev, id, e);
	if (!r)
		r = take_common_options(dev, o, addr, e);
	if (!r && dev->class->props && !dev->board->building_described)
		r = apply_globals(dev, e);
	if (!r)
		r = opts_apply(o, props, dev, c->name, e);
	return r;
}

static int realize(struct device *dev, int32_t addr, struct err *e)
{
	const struct device_class *c = dev->class;
	struct board *b = dev->board;
	int r = wire_regions(dev, e);

	if (r)
		return r;
	if (c->bus == BUS_PCI) {
		r = pci_attach(b->pci_bus, dev, addr, e);
		if (r)
			return r;
	}
	if (c->create) {
		r = c->create(dev, e);
		if (r)
			goto detach;
	}
	if (c->bus == BUS_PCI) {
		r = pci_realize(dev, e);
		if (r) {
			if (c->destroy)
				c->destroy(dev);
			goto detach;
		}
	}
	return 0;
detach:
	if (c->bus == BUS_PCI)
		pci_detach(dev);
	return r;
}

struct device *device_create(struct board *b, const char *driver, const char *id, struct opts *o, struct device *parent,
			     struct err *e)
{
	const struct device_class *c = device_class_find(driver);
	struct opts none = {0};
	struct device *dev;
	int32_t addr = -1;

	if (!c) {
		unknown_class(driver, e);
		return NULL;
	}
	if (!o)
		o = &none;
	dev = xzalloc(c->size);
	dev->class = c;
	dev->board = b;
	dev->unit = -1;
	pthread_mutex_init(&dev->own_lock, NULL);
	dev->lock = &dev->own_lock;
	if (configure(dev, id, o, &addr, e))
		goto fail;
	if (!parent && find_parent(b, c, dev->bus_id, &parent, e))
		goto fail;
	if (c->bus == BUS_PCI && !b->pci_bus) {
		err_set(e, ENODEV, "No 'PCI' bus found for device '%s'", c->name);
		goto fail;
	}
	dev->parent = parent;
	if (c->lock_is_fabric)
		dev->lock = &b->irq.lock;
	else if (parent &&
		 (c->bus == BUS_IDE || c->bus == BUS_FLOPPY || c->bus == BUS_PS2 || c->bus == BUS_VIRTIO_SERIAL))
		dev->lock = parent->lock;
	if (realize(dev, addr, e))
		goto fail;
	*b->devices_tail = dev;
	b->devices_tail = &dev->next;
	return dev;
fail:
	free_instance(dev);
	return NULL;
}

static void unlink_device(struct device *dev)
{
	struct board *b = dev->board;

	for (struct device **p = &b->devices; *p; p = &(*p)->next)
		if (*p == dev) {
			*p = dev->next;
			if (b->devices_tail == &dev->next)
				b->devices_tail = p;
			break;
		}
	if (b->powerdown_dev == dev)
		b->powerdown_dev = NULL;
	if (b->hotplug_dev == dev)
		b->hotplug_dev = NULL;
}

void device_unmap(struct device *dev)
{
	pthread_mutex_lock(dev->lock);
	for (unsigned i = 0; i < dev->class->n_irqs; i++)
		irq_set(&dev->irq[i], false);
	for (unsigned i = 0; i < dev->class->n_regions; i++)
		region_enable(&dev->regions[i], false);
	pthread_mutex_unlock(dev->lock);
	if (dev->pci)
		pci_detach(dev);
}

static void free_ram(const struct device *dev)
{
	for (struct ram_block *rb = dev->board->blocks, *next; rb; rb = next) {
		next = rb->next;
		if (rb->owner == dev)
			ram_block_free(rb);
	}
}

void device_dispose(struct device *dev)
{
	unlink_device(dev);
	if (dev->class->destroy)
		dev->class->destroy(dev);
	for (unsigned i = 0; i < dev->class->n_regions; i++)
		map_forget(dev->board, &dev->regions[i]);
	if (!dev->board->quitting) /* else KVM still has it as a slot */
		free_ram(dev);
	free_instance(dev);
}

/* The machine ends: no vCPU runs any more. */
void device_destroy(struct device *dev)
{
	if (!dev)
		return;
	device_unmap(dev);
	device_dispose(dev);
}

/* A device for a guest that runs. */
static int hot_add(struct board *b, const struct device_class *c, struct device *dev, struct err *e)
{
	struct blob order = {0};
	int r = c->wire ? c->wire(dev, e) : 0;

	if (!r)
		r = boot_order_build(b, false, &order, e); /* its bootindex may be another's */
	blob_free(&order);
	if (r) {
		hotplug_withdraw(dev);
		return r;
	}
	device_reset_own(dev);
	device_settle_own(dev);
	hotplug_device_added(dev);
	return 0;
}

int machine_device_add(struct board *b, struct opts *o, struct err *e)
{
	const char *driver = opts_get(o, "driver");
	const struct device_class *c;
	struct device *dev;
	int r;

	if (!driver)
		return err_set(e, EINVAL, "Parameter 'driver' is missing");
	if (b->dirty_log)
		return err_set(e, EBUSY, "device_add not allowed while migrating");
	if (cpu_type_known(driver))
		return cpu_add(b, driver, o, e);
	c = device_class_find(driver);
	if (!c)
		return unknown_class(driver, e);
	if (!c->user_creatable)
		return err_set(e, EINVAL,
			       "Parameter 'driver' expects a pluggable device type: '%s' is part of the board", driver);
	if (b->started) {
		r = hotplug_check(b, c, e);
		if (r)
			return r;
	}
	dev = device_create(b, driver, opts_get(o, "id"), o, NULL, e);
	if (!dev) {
		if (!b->started)
			err_prefix(e, "-device %s", driver);
		return e && e->code ? -e->code : -EINVAL;
	}
	dev->user_made = true;
	return b->started ? hot_add(b, c, dev, e) : 0;
}

/* ---- reset and settle ---- */

void device_reset_own(struct device *dev)
{
	pthread_mutex_lock(dev->lock);
	if (dev->pci)
		pci_function_reset(dev);
	if (dev->class->reset)
		dev->class->reset(dev);
	pthread_mutex_unlock(dev->lock);
}

void device_settle_own(struct device *dev)
{
	const struct device_class *c = dev->class;

	pthread_mutex_lock(dev->lock);
	for (unsigned i = 0; i < c->n_regions; i++)
		if (c->regions[i].bar == REGION_NOT_BAR && !c->regions[i].disabled && !dev->machine_settled)
			region_enable(&dev->regions[i], true);
	dev->machine_settled = true;
	if (dev->pci)
		pci_function_settle(dev);
	if (c->settle)
		c->settle(dev);
	pthread_mutex_unlock(dev->lock);
}

/* ---- services ---- */

void device_timer_init(struct device *dev, struct timer *t, enum clock_kind kind, timer_fn *fn)
{
	timer_init(t, loop_main(), kind, dev->lock, fn, dev);
}

void device_bh_init(struct device *dev, struct bh *bh, loop_post_fn *fn)
{
	bh_init(bh, loop_main(), dev->lock, fn, dev);
}

static struct claim *add_claim(struct device *dev)
{
	struct claim *claim = xzalloc(sizeof(*claim));

	claim->next = dev->machine_private;
	dev->machine_private = claim;
	return claim;
}

struct block *device_claim_block(struct device *dev, const char *id, struct err *e)
{
	struct block *blk;

	if (!block_find(id)) {
		err_set(e, ENOENT, "Property '%s.drive' can't find value '%s'", dev->class->name, id);
		return NULL;
	}
	blk = block_attach(id, dev->id, e);
	if (!blk)
		return NULL;
	add_claim(dev)->block = blk;
	return blk;
}

struct chardev *device_claim_chardev(struct device *dev, const char *id, struct err *e)
{
	struct chardev *c = chardev_claim(id, dev->id, e);

	if (!c) {
		err_prefix(e, "Property '%s.chardev'", dev->class->name);
		return NULL;
	}
	add_claim(dev)->chardev = c;
	return c;
}

void device_replace_chardev(struct device *dev, struct chardev *old, struct chardev *by)
{
	for (struct claim *claim = dev->machine_private; claim; claim = claim->next)
		if (claim->chardev == old)
			claim->chardev = by;
}
