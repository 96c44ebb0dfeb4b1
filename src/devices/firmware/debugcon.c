/*
 * Debug console: what is written to one port appears on a character device. SeaBIOS writes its messages to 0x402, Bochs
 * programs to 0xE9; reading tells that it is there.
 *
 * Source: Bochs' port E9; QEMU's isa-debugcon options. Nothing is left out.
 */
#include "vmm/chardev.h"
#include "vmm/device.h"

#include <errno.h>

struct debugcon {
	struct device dev;
	uint32_t iobase, readback;
	char *chardev;
	struct chardev *chr;
};

/* Nobody waits for the console: what its queue cannot take is lost. */
static void debugcon_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	uint8_t c = value;
	chardev_write(DEVICE(dev, struct debugcon)->chr, &c, 1);
}

static uint32_t debugcon_write_string(struct device *dev, struct region *r, uint64_t offset, const void *buf,
				      unsigned size, uint32_t count)
{
	if (size != 1)
		return 0;
	chardev_write(DEVICE(dev, struct debugcon)->chr, buf, count);
	return count;
}

static uint64_t debugcon_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return DEVICE(dev, struct debugcon)->readback;
}

static const struct region_ops debugcon_ops = {
	.read = debugcon_read, .write = debugcon_write, .write_string = debugcon_write_string, .max_access = 1};
static const struct region_desc debugcon_regions[] = {
	{.name = "debugcon",
	 .space = SPACE_PIO,
	 .base_prop = "iobase",
	 .size = 1,
	 .bar = REGION_NOT_BAR,
	 .ops = &debugcon_ops},
};

/* Input from the peer has nowhere to go. */
static size_t debugcon_can_receive(void *opaque)
{
	return 0;
}

static void debugcon_receive(void *opaque, const uint8_t *buf, size_t len)
{
}

static void debugcon_replaced(void *opaque, struct chardev *by)
{
	struct debugcon *d = opaque;

	device_replace_chardev(&d->dev, d->chr, by);
	d->chr = by;
}

static const struct chardev_frontend debugcon_frontend = {
	.can_receive = debugcon_can_receive, .receive = debugcon_receive, .replaced = debugcon_replaced};

static int debugcon_create(struct device *dev, struct err *e)
{
	struct debugcon *d = DEVICE(dev, struct debugcon);
	if (!d->chardev)
		return err_set(e, EINVAL, "isa-debugcon needs chardev=ID");
	d->chr = device_claim_chardev(dev, d->chardev, e);
	if (!d->chr)
		return -ENODEV;
	chardev_attach(d->chr, &debugcon_frontend, d, dev->lock);
	return 0;
}

static void debugcon_destroy(struct device *dev)
{
	chardev_detach(DEVICE(dev, struct debugcon)->chr);
}

static const struct prop debugcon_props[] = {
	PROP(struct debugcon, iobase, PROP_U32, .def = 0xe9, .max = 0xffff, .help = "port"),
	PROP(struct debugcon, readback, PROP_U32, .def = 0xe9, .max = 0xff, .help = "value the port reads as"),
	PROP(struct debugcon, chardev, PROP_CHARDEV, .help = "where the text goes"),
	PROP_END,
};

DEVICE_CLASS(debugcon) = {
	.name = "isa-debugcon",
	.summary = "debug console on one port",
	.bus = BUS_ISA,
	.category = "Misc",
	.size = sizeof(struct debugcon),
	.user_creatable = true,
	.props = debugcon_props,
	.regions = debugcon_regions,
	.n_regions = ARRAY_SIZE(debugcon_regions),
	.stateless = "it has no registers: a byte written is gone",
	.create = debugcon_create,
	.destroy = debugcon_destroy,
};
