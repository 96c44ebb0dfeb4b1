/*
 * Floppy disk drive: 5.25" 1.2M, 3.5" 1.44M and 3.5" 2.88M drives and the diskette formats PCs used in them, by the
 * size of the image. The class `floppy` is one drive at the controller isa-fdc.
 *
 * Sources: ECMA-54/66/70/78/125 (formats), the 82077AA data sheet for what a controller can see of a drive.
 *
 * Left out is what an image of sectors in order cannot hold: IDs other than those formatting by a PC leaves, deleted
 * data marks, CRC errors. An image of no known size is taken for the smallest format that holds it; sectors past
 * its end are not found.
 */
#include "floppy.h"

#include <errno.h>

static const struct floppy_format formats[] = {
	/* sectors, cylinders, heads, rate, drive; the usual format of a drive first */
	{18, 80, 2, RATE_500K, FLOPPY_144}, /* 1.44M */
	{9, 80, 2, RATE_250K, FLOPPY_144},  /* 720K */
	{20, 80, 2, RATE_500K, FLOPPY_144}, /* 1.6M */
	{21, 80, 2, RATE_500K, FLOPPY_144}, /* 1.68M: DMF */
	{21, 82, 2, RATE_500K, FLOPPY_144}, {21, 83, 2, RATE_500K, FLOPPY_144},
	{22, 80, 2, RATE_500K, FLOPPY_144}, {23, 80, 2, RATE_500K, FLOPPY_144},
	{24, 80, 2, RATE_500K, FLOPPY_144}, {10, 80, 2, RATE_250K, FLOPPY_144}, /* 800K */
	{10, 82, 2, RATE_250K, FLOPPY_144}, {10, 83, 2, RATE_250K, FLOPPY_144},
	{13, 80, 2, RATE_250K, FLOPPY_144}, {14, 80, 2, RATE_250K, FLOPPY_144},
	{36, 80, 2, RATE_1M, FLOPPY_288}, /* 2.88M */
	{39, 80, 2, RATE_1M, FLOPPY_288},   {40, 80, 2, RATE_1M, FLOPPY_288},
	{44, 80, 2, RATE_1M, FLOPPY_288},   {48, 80, 2, RATE_1M, FLOPPY_288},
	{15, 80, 2, RATE_500K, FLOPPY_120}, /* 1.2M */
	{9, 40, 2, RATE_300K, FLOPPY_120},  /* 360K */
	{9, 40, 1, RATE_300K, FLOPPY_120},  /* 180K */
	{8, 40, 2, RATE_250K, FLOPPY_120},  /* 320K */
	{8, 40, 1, RATE_250K, FLOPPY_120},  /* 160K */
	{10, 41, 2, RATE_300K, FLOPPY_120}, {10, 42, 2, RATE_300K, FLOPPY_120},
	{18, 80, 2, RATE_500K, FLOPPY_120},
};
#define LARGEST_IMAGE (48ull * 80 * 2 * FLOPPY_SECTOR)

static uint64_t capacity(const struct floppy_format *f)
{
	return (uint64_t)f->sectors * f->cylinders * f->heads * FLOPPY_SECTOR;
}

/* The format of an image of `size` bytes in a drive of `type` (FLOPPY_AUTO: any). */
static const struct floppy_format *find_format(uint64_t size, int type)
{
	const struct floppy_format *exact = NULL, *holds = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		const struct floppy_format *f = &formats[i];
		bool fits_drive =
			type == FLOPPY_AUTO || type == f->type || (type == FLOPPY_288 && f->type == FLOPPY_144);

		if (capacity(f) == size && (!exact || (exact->type != type && f->type == type)))
			exact = f;
		if (fits_drive && f->cylinders == 80 && capacity(f) > size && (!holds || capacity(f) < capacity(holds)))
			holds = f;
	}
	return exact ? exact : holds;
}

/* What is in the drive now? */
static void look(struct floppy_drive *d)
{
	d->format = block_inserted(d->block) ? find_format(block_size(d->block), d->type) : NULL;
	if (!d->format && block_inserted(d->block))
		log_warn("floppy", "%s: %s has %llu bytes: no diskette is that big; the drive reads nothing",
			 block_id(d->block), block_filename(d->block), (unsigned long long)block_size(d->block));
}

static void media_changed(void *opaque, bool inserted)
{
	struct floppy_drive *d = opaque;

	d->changed = true;
	look(d);
}

int floppy_attach(struct floppy_drive *d, struct device *dev, struct block *block, int wanted, struct err *e)
{
	/* No tray and no lock: the operator's hand wins. */
	static const struct block_media_ops ops = {.changed = media_changed};
	const struct floppy_format *f = block_inserted(block) ? find_format(block_size(block), wanted) : NULL;

	if (block_inserted(block) && !f)
		return err_set(e, EINVAL,
			       "%s: %s has %llu bytes: no diskette for this drive is that big (at most %llu)", dev->id,
			       block_filename(block), (unsigned long long)block_size(block), LARGEST_IMAGE);
	*d = (struct floppy_drive){.block = block, .format = f, .changed = true};
	d->type = wanted != FLOPPY_AUTO ? wanted : f ? f->type : FLOPPY_144;
	block_set_media_ops(block, &ops, d, dev->lock, dev->id);
	return 0;
}

unsigned floppy_cmos(const struct floppy_drive *d)
{
	if (!d->block)
		return 0;
	switch (d->type) {
	case FLOPPY_120:
		return 2;
	case FLOPPY_144:
		return 4;
	case FLOPPY_288:
		return 5;
	}
	return 0;
}

bool floppy_write_protected(const struct floppy_drive *d)
{
	return d->format && block_readonly(d->block);
}

bool floppy_change_line(const struct floppy_drive *d)
{
	return d->block && (d->changed || !block_inserted(d->block));
}

void floppy_step_to(struct floppy_drive *d, unsigned cylinder)
{
	cylinder = MIN(cylinder, (unsigned)FLOPPY_LAST_CYLINDER);
	if (cylinder != d->cylinder && block_inserted(d->block))
		d->changed = false;
	d->cylinder = (uint8_t)cylinder;
}

/*
 * A 40-cylinder diskette in an 80-cylinder drive: drivers step twice per cylinder if they know the drive, once if they
 * take it for a 40-cylinder one. Both find their sectors.
 */
bool floppy_on_cylinder(const struct floppy_drive *d, unsigned c)
{
	return c < d->format->cylinders && (c == d->cylinder || (d->format->cylinders < 80 && 2 * c == d->cylinder));
}

uint64_t floppy_offset(const struct floppy_drive *d, unsigned c, unsigned head, unsigned sector)
{
	const struct floppy_format *f = d->format;
	uint64_t offset = (((uint64_t)c * f->heads + head) * f->sectors + sector - 1) * FLOPPY_SECTOR;

	return offset + FLOPPY_SECTOR <= block_size(d->block) ? offset : UINT64_MAX;
}

bool floppy_rate_fits(const struct floppy_drive *d, unsigned rate)
{
	if (d->format->cylinders < 80) /* 300 kbit/s in a drive that turns at 360 rpm, 250 at 300 rpm */
		return rate == RATE_300K || rate == RATE_250K;
	return rate == d->format->rate;
}

/* ---- the drive as a device ---- */

struct floppy_device {
	struct device dev;
	char *drive;
	int type;
	int32_t bootindex;
	int unit;
};

static int floppy_create(struct device *dev, struct err *e)
{
	struct floppy_device *f = DEVICE(dev, struct floppy_device);
	struct block *block;

	if (!f->drive)
		return err_set(e, EINVAL,
			       "floppy: the drive= option is missing (an empty drive needs -drive if=none,id=ID)");
	if (dev->unit > 1)
		return err_set(e, EINVAL, "floppy: unit=%d: the controller has units 0 and 1", dev->unit);
	block = device_claim_block(dev, f->drive, e);
	if (!block)
		return -EINVAL;
	f->unit = fdc_attach_drive(dev->parent, dev->unit, dev, block, f->type, e);
	if (f->unit >= 0)
		dev->unit = f->unit;
	return f->unit < 0 ? f->unit : 0;
}

static void floppy_destroy(struct device *dev)
{
	fdc_detach_drive(dev->parent, DEVICE(dev, struct floppy_device)->unit);
}

static const char *const types[] = {"auto", "none", "120", "144", "288", NULL};
static const struct prop floppy_props[] = {
	PROP(struct floppy_device, drive, PROP_DRIVE, .help = "Backend (-drive id=)"),
	PROP_NAMED(struct floppy_device, "drive-type", type, PROP_ENUM, .values = types,
		   .help = "Drive: 120 (5.25\" 1.2M), 144 or 288 (3.5\"); auto: by the image"),
	PROP(struct floppy_device, bootindex, PROP_I32, .def = (uint64_t)-1, .min = (uint64_t)-1, .max = INT32_MAX,
	     .help = "Place in the boot order"),
	PROP_END,
};

DEVICE_CLASS(floppy) = {
	.name = "floppy",
	.summary = "Floppy disk drive",
	.bus = BUS_FLOPPY,
	.category = "Storage",
	.size = sizeof(struct floppy_device),
	.user_creatable = true,
	.props = floppy_props,
	.stateless = "its state is part of the controller's",
	.create = floppy_create,
	.destroy = floppy_destroy,
};
