/*
 * CMOS RAM: what the board tells the firmware through the battery-backed bytes of the MC146818. The device is
 * src/devices/timer/mc146818rtc.c; src/machine/cmos.c fills in a PC's contents.
 */
#ifndef VMM_CMOS_H
#define VMM_CMOS_H

#include "vmm/device.h"

/* Set byte `index` (0x0e..0x7f: not the clock's own registers) of the board's CMOS RAM. Main thread, after the devices
   exist and before the first reset; the contents survive resets. -ENODEV: no RTC; -EINVAL: bad index. */
int rtc_set_cmos(struct board *board, unsigned index, uint8_t value);

/* The CMOS type of floppy drive `unit` (0 A, 1 B): 0 none, 1 360K, 2 1.2M, 3 720K, 4 1.44M, 5 2.88M. Main thread, after
   the devices exist. */
unsigned floppy_cmos_type(struct board *board, unsigned unit);

/* A hard disk as INT 13h should see it, for the bytes that firmware reads: position n is IDE channel n/2, drive n%2. */
struct cmos_disk {
	uint32_t cylinders, heads, sectors; /* physical geometry; cylinders 0: no disk there */
	uint8_t translation;                /* how firmware maps it: 0 not, 1 LBA-assisted, 2 large, 3 revised ECHS */
};

/* The IDE disk at `position`; false: none there. Main thread, after the devices exist. */
bool ide_cmos_disk(struct board *board, unsigned position, struct cmos_disk *out);

/*
 * Fill in everything a PC's firmware expects: memory sizes and CPU count (from the board), floppy types, equipment,
 * disk types and translation, boot order. boot_order: letters as -boot order= has them (a floppy, c disk, d CD-ROM, n
 * network; at most three count), NULL: "cad". disks may be NULL. Main thread, before the first reset. -EINVAL: a letter
 * firmware does not know.
 */
int cmos_fill(struct board *board, const char *boot_order, const struct cmos_disk disks[4], struct err *e);
/* Letters of a, c, d and n, at most three; NULL: the usual order. */
int cmos_set_boot_order(struct board *b, const char *order, struct err *e);
/* The number of CPUs alone, after a vCPU came or went. Main thread, at reset. */
void cmos_update_cpus(struct board *board);

#endif
