/*
 * Floppy drive and diskette as the controller sees them: head position, format, change line, write protection.
 * Everything here is called with the controller's lock held.
 */
#ifndef VMM_DEVICES_FLOPPY_H
#define VMM_DEVICES_FLOPPY_H

#include "vmm/block.h"
#include "vmm/device.h"

enum floppy_type { FLOPPY_AUTO, FLOPPY_NONE, FLOPPY_120, FLOPPY_144, FLOPPY_288 }; /* values of drive-type= */
enum floppy_rate { RATE_500K, RATE_300K, RATE_250K, RATE_1M };                     /* as CCR has them */
enum { FLOPPY_SECTOR = 512, FLOPPY_SIZE_CODE = 2, FLOPPY_MAX_SECTORS = 48, FLOPPY_LAST_CYLINDER = 85 };

struct floppy_format {
	uint8_t sectors, cylinders, heads, rate;
	uint8_t type; /* the drive it is made for */
};

struct floppy_drive {
	struct block *block; /* NULL: no drive */
	int type;
	const struct floppy_format *format; /* of the diskette; NULL: none in, or not a format we know */
	uint8_t cylinder;                   /* where the head is */
	bool changed;                       /* the change line: latched until the head steps with a diskette in */
};

/* Put a drive with this backend at d; wanted: FLOPPY_AUTO takes what the image needs (empty: 1.44M). dev: whose id the
   operator uses for media changes, and whose lock. -EINVAL: no diskette is that big. */
int floppy_attach(struct floppy_drive *d, struct device *dev, struct block *block, int wanted, struct err *e);
/* The type byte of CMOS register 10h. */
unsigned floppy_cmos(const struct floppy_drive *d);
bool floppy_write_protected(const struct floppy_drive *d);
/* The change line as DIR shows it. */
bool floppy_change_line(const struct floppy_drive *d);
/* Step the head to a cylinder (clamped to the drive's last). */
void floppy_step_to(struct floppy_drive *d, unsigned cylinder);
/* Whether the ID fields under the head say cylinder c. */
bool floppy_on_cylinder(const struct floppy_drive *d, unsigned c);
/* Byte offset of a sector in the image; UINT64_MAX if the image ends before it. */
uint64_t floppy_offset(const struct floppy_drive *d, unsigned c, unsigned head, unsigned sector);
bool floppy_rate_fits(const struct floppy_drive *d, unsigned rate);

/* isa-fdc: plug a drive into unit 0 or 1 (-1: the first free one). -EBUSY: taken. Returns the unit. */
int fdc_attach_drive(struct device *fdc, int unit, struct device *owner, struct block *block, int type, struct err *e);
void fdc_detach_drive(struct device *fdc, int unit);

#endif
