/* What the IDE and ATAPI tests share: images with known contents, register access as a driver does it. */
#ifndef IDE_TEST_H
#define IDE_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "vmm/block.h"
#include "vmm/bytes.h"

#define IDE_DEVFN (1 << 3 | 1)
enum {
	DATA = 0x1f0,
	ERROR = 0x1f1,
	COUNT,
	LBA0,
	LBA1,
	LBA2,
	DEVICE,
	STATUS,
	CONTROL = 0x3f6,
	SECONDARY = 0x170 - 0x1f0
};
enum { BSY = 0x80, DRDY = 0x40, DF = 0x20, DSC = 0x10, DRQ = 0x08, ERR = 0x01 };
#define BMBA 0xc000

static char ide_image[64];

static inline void remove_image(void)
{
	unlink(ide_image);
}

/* Sector n holds the 32-bit number n at every 16th byte and a running pattern between. */
static inline void fill_sector(uint8_t *p, uint32_t n)
{
	for (int i = 0; i < 512; i++)
		p[i] = (uint8_t)(i * 7 + n);
	for (int i = 0; i < 512; i += 16)
		put_le32(p + i, n);
}

static inline const char *make_image(uint64_t sectors, uint64_t filled)
{
	uint8_t buf[512];
	int fd;

	snprintf(ide_image, sizeof(ide_image), "ide-test-%d.img", (int)getpid());
	fd = open(ide_image, O_RDWR | O_CREAT | O_TRUNC, 0644);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)(sectors * 512)), 0);
	for (uint32_t i = 0; i < filled; i++) {
		fill_sector(buf, i);
		ck_assert_int_eq(pwrite(fd, buf, 512, (off_t)i * 512), 512);
	}
	close(fd);
	return ide_image;
}

static inline void check_sector(const uint8_t *p, uint32_t n)
{
	uint8_t want[512];

	fill_sector(want, n);
	ck_assert_mem_eq(p, want, 512);
}

static inline void image_read(uint64_t lba, uint8_t *buf, size_t sectors)
{
	int fd = open(ide_image, O_RDONLY);

	ck_assert_int_eq(pread(fd, buf, sectors * 512, (off_t)(lba * 512)), (ssize_t)(sectors * 512));
	close(fd);
}

struct status_wait {
	struct board *b;
	uint16_t port;
	uint8_t mask, want;
};

static inline bool status_is(void *opaque)
{
	struct status_wait *w = opaque;

	return (bench_inb(w->b, w->port) & w->mask) == w->want;
}

/* Poll the alternate status (so that no interrupt is acknowledged) until BSY is clear; returns it. */
static inline uint8_t wait_not_busy(struct board *b, int channel)
{
	struct status_wait w = {b, channel ? 0x376 : 0x3f6, BSY, 0};

	bench_wait(b, status_is, &w);
	return bench_inb(b, w.port);
}

/* Until neither BSY nor DRQ: a DMA or non-data command is over. */
static inline uint8_t wait_done(struct board *b, int channel)
{
	struct status_wait w = {b, channel ? 0x376 : 0x3f6, BSY | DRQ, 0};

	bench_wait(b, status_is, &w);
	return bench_inb(b, w.port);
}

static inline void set_lba28(struct board *b, uint32_t lba, uint8_t count, int drive)
{
	bench_outb(b, DEVICE, (uint8_t)(0xe0 | drive << 4 | (lba >> 24 & 15)));
	bench_outb(b, COUNT, count);
	bench_outb(b, LBA0, (uint8_t)lba);
	bench_outb(b, LBA1, (uint8_t)(lba >> 8));
	bench_outb(b, LBA2, (uint8_t)(lba >> 16));
}

static inline void set_lba48(struct board *b, uint64_t lba, uint16_t count)
{
	bench_outb(b, DEVICE, 0xe0);
	bench_outb(b, COUNT, (uint8_t)(count >> 8));
	bench_outb(b, LBA0, (uint8_t)(lba >> 24));
	bench_outb(b, LBA1, (uint8_t)(lba >> 32));
	bench_outb(b, LBA2, (uint8_t)(lba >> 40));
	bench_outb(b, COUNT, (uint8_t)count);
	bench_outb(b, LBA0, (uint8_t)lba);
	bench_outb(b, LBA1, (uint8_t)(lba >> 8));
	bench_outb(b, LBA2, (uint8_t)(lba >> 16));
}

static inline void read_words(struct board *b, uint16_t port, uint8_t *buf, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 2)
		put_le16(buf + i, bench_inw(b, port));
}

static inline void write_words(struct board *b, uint16_t port, const uint8_t *buf, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 2)
		bench_outw(b, port, get_le16(buf + i));
}

/* Map the bus master registers and allow bus mastering. */
static inline void enable_bus_master(struct board *b)
{
	bench_pci_writel(b, IDE_DEVFN, 0x20, BMBA);
	bench_pci_writew(b, IDE_DEVFN, 4, 5);
}

struct prd {
	uint32_t addr, len; /* len as in the descriptor: 0 = 64 KiB */
};

/* Write a table at 0x10000, end mark on the last entry, and load it. */
static inline void load_prds(struct board *b, int channel, const struct prd *p, int n, bool mark_end)
{
	for (int i = 0; i < n; i++) {
		bench_writel(b, 0x10000 + 8u * i, p[i].addr);
		bench_writel(b, 0x10004 + 8u * i, (p[i].len & 0xffff) | (i == n - 1 && mark_end ? 0x80000000 : 0));
	}
	bench_outb(b, BMBA + 8 * channel, 0);
	bench_outb(b, BMBA + 8 * channel + 2, 6);
	bench_outl(b, BMBA + 8 * channel + 4, 0x10000);
}

static inline void identify_string(char *out, const uint8_t *page, int word, int words)
{
	for (int i = 0; i < words * 2; i++)
		out[i] = (char)page[(word * 2 + i) ^ 1];
	out[words * 2] = '\0';
	for (int i = words * 2 - 1; i >= 0 && out[i] == ' '; i--)
		out[i] = '\0';
}

#endif
