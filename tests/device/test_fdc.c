/* The floppy controller with its DMA channel, from register to image file: what SeaBIOS, DOS and Linux do with them. */
#include "bench.h"
#include "vmm/block.h"
#include "vmm/bytes.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { SRA = 0x3f0, SRB, DOR, TDR, MSR, FIFO, DIR = 0x3f7, CCR = 0x3f7 };
enum { IRQ = 6, BUFFER = 0x20000, IMAGE_144 = 2880 * 512 };
static char image[] = "/tmp/vmm-test-fdc-XXXXXX";
static char *path;

/* An image in which every sector says its own number. */
static char *make_image(size_t size)
{
	uint8_t sector[512];
	int fd;

	strcpy(image, "/tmp/vmm-test-fdc-XXXXXX");
	fd = mkstemp(image);
	ck_assert_int_ge(fd, 0);
	for (size_t i = 0; i < size / 512; i++) {
		memset(sector, (int)(i * 7), sizeof(sector));
		put_le32(sector, (uint32_t)i);
		ck_assert_int_eq(write(fd, sector, sizeof(sector)), sizeof(sector));
	}
	close(fd);
	path = image;
	return image;
}

static void read_image(void *buf, size_t len, off_t at)
{
	FILE *f = fopen(path, "rb");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fseek(f, at, SEEK_SET), 0);
	ck_assert_uint_eq(fread(buf, 1, len, f), len);
	fclose(f);
}

static struct board *board_with(size_t size, const char *more)
{
	char options[256];

	snprintf(options, sizeof(options), "-m 16 -drive file=%s,format=raw,if=floppy%s", make_image(size), more);
	return bench_new(options);
}

static void done(struct board *b)
{
	bench_free(b);
	unlink(path);
}

/* Let commands finish: their delays, the disk, the delays of what follows. */
static void settle(struct board *b)
{
	for (int i = 0; i < 4; i++)
		bench_step(b, NS_PER_MS);
}

static void send(struct board *b, size_t n, const uint8_t *bytes)
{
	for (size_t i = 0; i < n; i++) {
		ck_assert_msg((bench_inb(b, MSR) & 0xc0) == 0x80, "MSR is %#x before byte %zu of command %#x",
			      bench_inb(b, MSR), i, bytes[0]);
		bench_outb(b, FIFO, bytes[i]);
	}
}
#define SEND(b, ...) send(b, sizeof((const uint8_t[]){__VA_ARGS__}), (const uint8_t[]){__VA_ARGS__})

/* Read n result bytes; there must be neither fewer nor more. */
static const uint8_t *results(struct board *b, size_t n)
{
	static uint8_t r[16];

	for (size_t i = 0; i < n; i++) {
		ck_assert_msg((bench_inb(b, MSR) & 0xd0) == 0xd0, "MSR is %#x at result byte %zu", bench_inb(b, MSR),
			      i);
		r[i] = bench_inb(b, FIFO);
	}
	ck_assert_msg((bench_inb(b, MSR) & 0xd0) == 0x80, "MSR is %#x after the result", bench_inb(b, MSR));
	return r;
}

static void ck_status(const uint8_t *r, uint8_t st0, uint8_t st1, uint8_t st2)
{
	ck_assert_msg(r[0] == st0 && r[1] == st1 && r[2] == st2, "status is %02x %02x %02x, not %02x %02x %02x", r[0],
		      r[1], r[2], st0, st1, st2);
}

static void ck_id(const uint8_t *r, uint8_t c, uint8_t h, uint8_t s)
{
	ck_assert_msg(r[3] == c && r[4] == h && r[5] == s && r[6] == 2, "the ID is %u/%u/%u/%u, not %u/%u/%u/2", r[3],
		      r[4], r[5], r[6], c, h, s);
}

/* SeaBIOS: controller on, four SENSE INTERRUPT, SPECIFY with DMA, recalibrate, rate. */
static void power_up(struct board *b, uint8_t rate)
{
	bench_outb(b, DOR, 0x08);
	bench_outb(b, DOR, 0x0c);
	settle(b);
	ck_assert_msg(bench_gsi(b, IRQ), "no interrupt after reset");
	for (unsigned i = 0; i < 4; i++) {
		SEND(b, 0x08);
		ck_assert_uint_eq(results(b, 2)[0], 0xc0 | i);
		ck_assert(!bench_gsi(b, IRQ));
	}
	bench_outb(b, DOR, 0x1c);
	bench_outb(b, CCR, rate);
	SEND(b, 0x03, 0xaf, 0x02);
	SEND(b, 0x07, 0x00);
	settle(b);
	SEND(b, 0x08);
	ck_assert_uint_eq(results(b, 2)[0], 0x20);
}

/* Channel 2 of the first DMA controller: 44h to memory, 48h from memory, single mode. */
static void dma(struct board *b, uint8_t direction, uint32_t address, uint32_t len)
{
	bench_outb(b, 0x0a, 0x06);
	bench_outb(b, 0x0c, 0x00);
	bench_outb(b, 0x04, (uint8_t)address);
	bench_outb(b, 0x04, (uint8_t)(address >> 8));
	bench_outb(b, 0x81, (uint8_t)(address >> 16));
	bench_outb(b, 0x0c, 0x00);
	bench_outb(b, 0x05, (uint8_t)(len - 1));
	bench_outb(b, 0x05, (uint8_t)((len - 1) >> 8));
	bench_outb(b, 0x0b, direction | 0x02);
	bench_outb(b, 0x0a, 0x02);
}

static void seek(struct board *b, uint8_t cylinder)
{
	SEND(b, 0x0f, 0x00, cylinder);
	settle(b);
	SEND(b, 0x08);
	ck_assert_uint_eq(results(b, 2)[0], 0x20);
}

static void transfer(struct board *b, uint8_t command, uint8_t c, uint8_t h, uint8_t s, uint8_t eot)
{
	SEND(b, command, (uint8_t)(h << 2), c, h, s, 2, eot, 0x1b, 0xff);
	settle(b);
	ck_assert_msg(bench_gsi(b, IRQ), "command %#x did not end", command);
}

static uint32_t sector_at(struct board *b, uint32_t n)
{
	return bench_readl(b, BUFFER + n * 512);
}

START_TEST(reads_by_dma)
{
	struct board *b = board_with(IMAGE_144, "");
	const uint8_t *r;

	power_up(b, 0);
	bench_writel(b, BUFFER + 3 * 512, 0xdeadbeef);
	dma(b, 0x44, BUFFER, 3 * 512);
	transfer(b, 0xe6, 0, 0, 1, 18);
	r = results(b, 7);
	ck_status(r, 0x00, 0, 0);
	ck_id(r, 0, 0, 4);
	ck_assert(!bench_gsi(b, IRQ));
	ck_assert_uint_eq(sector_at(b, 0), 0);
	ck_assert_uint_eq(sector_at(b, 1), 1);
	ck_assert_uint_eq(sector_at(b, 2), 2);
	ck_assert_uint_eq(bench_readb(b, BUFFER + 2 * 512 + 511), 14);
	ck_assert_msg(sector_at(b, 3) == 0xdeadbeef, "more was written than the DMA count allows");
	ck_assert_uint_eq(bench_inb(b, 0x08) & 0x0f, 0x04); /* terminal count, cleared by reading */
	ck_assert_uint_eq(bench_inb(b, 0x08) & 0x0f, 0x00);
	ck_assert_uint_eq(bench_inb(b, 0x0f) & 0x04, 0x04);
	done(b);
}
END_TEST

START_TEST(multi_track_crosses_to_the_other_side)
{
	struct board *b = board_with(IMAGE_144, "");
	const uint8_t *r;

	power_up(b, 0);
	seek(b, 79);
	dma(b, 0x44, BUFFER, 36 * 512);
	transfer(b, 0xe6, 79, 0, 1, 18);
	r = results(b, 7);
	ck_status(r, 0x04, 0, 0);
	ck_id(r, 80, 0, 1);
	for (uint32_t i = 0; i < 36; i++)
		ck_assert_uint_eq(sector_at(b, i), 79 * 36 + i);
	done(b);
}
END_TEST

START_TEST(end_of_track_without_terminal_count)
{
	struct board *b = board_with(IMAGE_144, "");

	power_up(b, 0);
	dma(b, 0x44, BUFFER, 20 * 512);
	transfer(b, 0x66, 0, 0, 17, 18);
	ck_status(results(b, 7), 0x40, 0x80, 0);
	ck_assert_uint_eq(sector_at(b, 1), 17);
	/* EOT past the track: the next sector is not there */
	dma(b, 0x44, BUFFER, 20 * 512);
	transfer(b, 0x66, 0, 0, 18, 20);
	ck_status(results(b, 7), 0x40, 0x04, 0);
	done(b);
}
END_TEST

START_TEST(writes_by_dma)
{
	struct board *b = board_with(IMAGE_144, "");
	uint8_t out[1024], in[1536];

	power_up(b, 0);
	seek(b, 2);
	memset(out, 0xa5, sizeof(out));
	bench_write(b, BUFFER, out, sizeof(out));
	dma(b, 0x48, BUFFER, 700); /* ends in mid-sector: the rest becomes zero */
	transfer(b, 0xc5, 2, 1, 5, 18);
	ck_status(results(b, 7), 0x04, 0, 0);
	read_image(in, sizeof(in), (2 * 36 + 18 + 4) * 512);
	ck_assert_mem_eq(in, out, 700);
	for (unsigned i = 700; i < 1024; i++)
		ck_assert_uint_eq(in[i], 0);
	ck_assert_uint_eq(get_le32(in + 1024), 2 * 36 + 18 + 6);
	done(b);
}
END_TEST

START_TEST(waits_for_a_masked_dma_channel)
{
	struct board *b = board_with(IMAGE_144, "");

	power_up(b, 0);
	dma(b, 0x44, BUFFER, 512);
	bench_outb(b, 0x0a, 0x06);
	SEND(b, 0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
	settle(b);
	ck_assert(!bench_gsi(b, IRQ));
	ck_assert_uint_eq(bench_inb(b, MSR), 0x10);
	ck_assert_uint_eq(bench_inb(b, 0x08) & 0x40, 0x40); /* DREQ 2 */
	b = bench_save_load(b);
	bench_outb(b, 0x0a, 0x02);
	settle(b);
	ck_assert(bench_gsi(b, IRQ));
	ck_status(results(b, 7), 0, 0, 0);
	ck_assert_uint_eq(sector_at(b, 0), 0);
	ck_assert_uint_eq(bench_readb(b, BUFFER + 100), 0);
	done(b);
}
END_TEST

START_TEST(programmed_io)
{
	struct board *b = board_with(IMAGE_144, "");
	uint8_t in[512], expect[512];

	power_up(b, 0);
	SEND(b, 0x03, 0xaf, 0x03);
	SEND(b, 0x46, 0, 0, 0, 2, 2, 3, 0x1b, 0xff);
	settle(b);
	for (unsigned i = 0; i < 1024; i++) {
		bench_idle(b);
		ck_assert_msg(bench_inb(b, MSR) == 0xf0, "MSR is %#x at byte %u", bench_inb(b, MSR), i);
		ck_assert(bench_gsi(b, IRQ));
		in[i & 511] = bench_inb(b, FIFO);
		if (i == 300)
			b = bench_save_load(b);
	}
	ck_status(results(b, 7), 0x40, 0x80, 0);
	read_image(expect, 512, 2 * 512);
	ck_assert_mem_eq(in, expect, 512);
	SEND(b, 0x45, 0, 0, 0, 9, 2, 9, 0x1b, 0xff);
	settle(b);
	for (unsigned i = 0; i < 512; i++) {
		ck_assert_uint_eq(bench_inb(b, MSR), 0xb0);
		bench_outb(b, FIFO, (uint8_t)(i * 3));
	}
	settle(b);
	ck_status(results(b, 7), 0x40, 0x80, 0);
	read_image(in, 512, 8 * 512);
	for (unsigned i = 0; i < 512; i++)
		ck_assert_uint_eq(in[i], (uint8_t)(i * 3));
	done(b);
}
END_TEST

START_TEST(errors_say_what_is_wrong)
{
	struct board *b = board_with(IMAGE_144, "");

	power_up(b, 0);
	dma(b, 0x44, BUFFER, 512);
	transfer(b, 0xe6, 5, 0, 1, 18); /* no seek: wrong cylinder */
	ck_status(results(b, 7), 0x40, 0x04, 0x10);
	transfer(b, 0xe6, 0, 0, 19, 19); /* no such sector */
	ck_status(results(b, 7), 0x40, 0x04, 0);
	transfer(b, 0xe6, 0, 0, 0, 18);
	ck_status(results(b, 7), 0x40, 0x04, 0);
	SEND(b, 0xe6, 0x04, 0, 0, 1, 2, 18, 0x1b, 0xff); /* side 1, ID says 0 */
	settle(b);
	ck_status(results(b, 7), 0x44, 0x04, 0);
	SEND(b, 0xe6, 0, 0, 0, 1, 3, 18, 0x1b, 0xff); /* 1024-byte sectors */
	settle(b);
	ck_status(results(b, 7), 0x40, 0x04, 0);
	bench_outb(b, CCR, 2); /* 250 kbit/s */
	transfer(b, 0xe6, 0, 0, 1, 18);
	ck_status(results(b, 7), 0x40, 0x01, 0);
	bench_outb(b, CCR, 0);
	transfer(b, 0xa6, 0, 0, 1, 18); /* FM */
	ck_status(results(b, 7), 0x40, 0x01, 0);
	SEND(b, 0xe6, 0x01, 0, 0, 1, 2, 18, 0x1b, 0xff); /* drive B: there is none */
	settle(b);
	ck_status(results(b, 7), 0x49, 0x01, 0);
	SEND(b, 0x18); /* PART ID: an 82077AA does not know it */
	ck_assert_uint_eq(results(b, 1)[0], 0x80);
	ck_assert_uint_eq(bench_gsi_edges(b, IRQ) > 0, 1);
	done(b);
}
END_TEST

START_TEST(write_protected)
{
	struct board *b = board_with(IMAGE_144, ",readonly=on");

	power_up(b, 0);
	SEND(b, 0x04, 0x00);
	ck_assert_uint_eq(results(b, 1)[0], 0x78);
	dma(b, 0x48, BUFFER, 512);
	transfer(b, 0xc5, 0, 0, 1, 18);
	ck_status(results(b, 7), 0x40, 0x02, 0);
	done(b);
}
END_TEST

START_TEST(seeks_and_track_0)
{
	struct board *b = board_with(IMAGE_144, "");
	const uint8_t *r;

	power_up(b, 0);
	SEND(b, 0x04, 0x00);
	ck_assert_uint_eq(results(b, 1)[0], 0x38);
	SEND(b, 0x0f, 0x00, 40);
	ck_assert_uint_eq(bench_inb(b, MSR), 0x81); /* drive A seeks, the controller is free */
	SEND(b, 0x08);
	ck_assert_uint_eq(results(b, 1)[0], 0x80);
	settle(b);
	ck_assert(bench_gsi(b, IRQ));
	SEND(b, 0x08);
	r = results(b, 2);
	ck_assert_uint_eq(r[0], 0x20);
	ck_assert_uint_eq(r[1], 40);
	ck_assert(!bench_gsi(b, IRQ));
	SEND(b, 0x04, 0x00);
	ck_assert_uint_eq(results(b, 1)[0], 0x28);
	SEND(b, 0xcf, 0x00, 3); /* relative, inwards */
	settle(b);
	SEND(b, 0x08);
	ck_assert_uint_eq(results(b, 2)[1], 43);
	SEND(b, 0x8f, 0x00, 1);
	settle(b);
	SEND(b, 0x08);
	ck_assert_uint_eq(results(b, 2)[1], 42);
	SEND(b, 0x4a, 0x00);
	settle(b);
	r = results(b, 7);
	ck_status(r, 0, 0, 0);
	ck_assert_uint_eq(r[3], 42);
	SEND(b, 0x07, 0x01); /* no drive B: no track 0 signal */
	settle(b);
	SEND(b, 0x08);
	ck_assert_uint_eq(results(b, 2)[0], 0x71);
	done(b);
}
END_TEST

START_TEST(implied_seek)
{
	struct board *b = board_with(IMAGE_144, "");

	power_up(b, 0);
	SEND(b, 0x13, 0x00, 0x57, 0x00);
	dma(b, 0x44, BUFFER, 512);
	transfer(b, 0xe6, 33, 1, 7, 18);
	ck_status(results(b, 7), 0x04, 0, 0);
	ck_assert_uint_eq(sector_at(b, 0), 33 * 36 + 18 + 6);
	done(b);
}
END_TEST

/* Linux get_fdc_version(): an 82077AA. */
START_TEST(linux_identifies_the_chip)
{
	struct board *b = board_with(IMAGE_144, "");
	const uint8_t *r;

	power_up(b, 0);
	SEND(b, 0x10);
	ck_assert_uint_eq(results(b, 1)[0], 0x90);
	SEND(b, 0x13, 0x00, 0x1a, 0x00);
	SEND(b, 0x12, 0x80 | 0x04);
	SEND(b, 0x94);
	ck_assert_uint_eq(results(b, 1)[0], 0x10);
	SEND(b, 0x0e);
	r = results(b, 10);
	ck_assert_uint_eq(r[4], 0xaf);
	ck_assert_uint_eq(r[5], 0x02);
	ck_assert_uint_eq(r[7], 0x84);
	ck_assert_uint_eq(r[8], 0x1a);
	/* locked: CONFIGURE outlives a software reset; with POLL off there is no interrupt */
	bench_outb(b, DOR, 0x00);
	bench_outb(b, DOR, 0x0c);
	settle(b);
	ck_assert(!bench_gsi(b, IRQ));
	SEND(b, 0x0e);
	ck_assert_uint_eq(results(b, 10)[8], 0x1a);
	SEND(b, 0x14);
	ck_assert_uint_eq(results(b, 1)[0], 0x00);
	bench_outb(b, MSR, 0x80); /* DSR: software reset */
	settle(b);
	ck_assert(bench_gsi(b, IRQ));
	SEND(b, 0x0e);
	ck_assert_uint_eq(results(b, 10)[8], 0x20);
	done(b);
}
END_TEST

START_TEST(format_verify_and_scan)
{
	struct board *b = board_with(IMAGE_144, "");
	uint8_t ids[72], sector[512];
	const uint8_t *r;

	power_up(b, 0);
	seek(b, 1);
	for (unsigned i = 0; i < 18; i++) {
		const uint8_t id[4] = {1, 1, (uint8_t)((i * 5) % 18 + 1), 2};

		memcpy(ids + 4 * i, id, 4);
	}
	bench_write(b, BUFFER, ids, sizeof(ids));
	dma(b, 0x48, BUFFER, sizeof(ids));
	SEND(b, 0x4d, 0x04, 2, 18, 0x6c, 0xf6);
	settle(b);
	ck_status(results(b, 7), 0x04, 0, 0);
	for (unsigned i = 0; i < 18; i++) {
		read_image(sector, 512, (36 + 18 + i) * 512);
		ck_assert_uint_eq(sector[0], 0xf6);
		ck_assert_uint_eq(sector[511], 0xf6);
	}
	read_image(sector, 512, 72 * 512);
	ck_assert_uint_eq(get_le32(sector), 72);
	dma(b, 0x48, BUFFER, 36); /* 9 sectors: another layout */
	SEND(b, 0x4d, 0x04, 2, 9, 0x6c, 0xf6);
	settle(b);
	ck_status(results(b, 7), 0x44, 0x04, 0);
	SEND(b, 0xf6, 0x84, 1, 1, 1, 2, 18, 0x1b, 5); /* VERIFY of 5 sectors */
	settle(b);
	r = results(b, 7);
	ck_status(r, 0x04, 0, 0);
	ck_id(r, 1, 1, 6);
	SEND(b, 0x56, 0x04, 1, 1, 1, 2, 18, 0x1b, 0xff); /* to the end of the track */
	settle(b);
	ck_status(results(b, 7), 0x04, 0, 0);
	/* SCAN EQUAL: side 0, sector 4 of cylinder 1 */
	read_image(sector, 512, (36 + 3) * 512);
	bench_write(b, BUFFER, sector, 512);
	for (unsigned i = 1; i < 18; i++)
		bench_write(b, BUFFER + 512 * i, sector, 512);
	dma(b, 0x48, BUFFER, 18 * 512);
	SEND(b, 0x51, 0x00, 1, 0, 1, 2, 18, 0x1b, 1);
	settle(b);
	r = results(b, 7);
	ck_status(r, 0x00, 0, 0x08);
	ck_id(r, 1, 0, 5);
	dma(b, 0x48, BUFFER, 18 * 512);
	SEND(b, 0x51, 0x00, 1, 0, 5, 2, 18, 0x1b, 1);
	settle(b);
	settle(b);
	ck_status(results(b, 7), 0x00, 0, 0x04);
	done(b);
}
END_TEST

START_TEST(deleted_data_and_read_track)
{
	struct board *b = board_with(IMAGE_144, "");

	power_up(b, 0);
	dma(b, 0x44, BUFFER, 1024);
	transfer(b, 0x4c, 0, 0, 3, 18); /* finds the ordinary mark, reads that sector and stops */
	ck_status(results(b, 7), 0x00, 0, 0x40);
	ck_assert_uint_eq(sector_at(b, 0), 2);
	transfer(b, 0x6c, 0, 0, 3, 18); /* skips them all */
	ck_status(results(b, 7), 0x40, 0x04, 0);
	dma(b, 0x44, BUFFER, 4 * 512);
	transfer(b, 0x42, 0, 1, 9, 4); /* READ TRACK starts at the index and says the ID did not match */
	ck_status(results(b, 7), 0x04, 0x04, 0);
	ck_assert_uint_eq(sector_at(b, 0), 18);
	ck_assert_uint_eq(sector_at(b, 3), 21);
	done(b);
}
END_TEST

START_TEST(change_line_and_media_change)
{
	struct board *b = board_with(IMAGE_144, "");
	struct block *blk = block_next(NULL);
	char *first = xstrdup(path), *second;
	struct err e = ERR_INIT;

	power_up(b, 0);
	ck_assert_uint_eq(bench_inb(b, DIR) & 0x80, 0x80); /* until the head steps */
	seek(b, 1);
	ck_assert_uint_eq(bench_inb(b, DIR) & 0x80, 0x00);
	ck_assert_int_eq(block_eject(blk, false, &e), 0);
	ck_assert_uint_eq(bench_inb(b, DIR) & 0x80, 0x80);
	seek(b, 0);
	ck_assert_msg(bench_inb(b, DIR) & 0x80, "the change line of an empty drive stays");
	dma(b, 0x44, BUFFER, 512);
	transfer(b, 0xe6, 0, 0, 1, 18);
	ck_status(results(b, 7), 0x48, 0x01, 0);
	second = make_image(1440 * 512); /* 720K */
	ck_assert_msg(block_change_medium(blk, second, "raw", NULL, false, &e) == 0, "%s", e.msg);
	ck_assert_uint_eq(bench_inb(b, DIR) & 0x80, 0x80);
	transfer(b, 0xe6, 0, 0, 1, 9);
	ck_status(results(b, 7), 0x40, 0x01, 0); /* the rate of the old one */
	bench_outb(b, CCR, 2);
	dma(b, 0x44, BUFFER, 512);
	transfer(b, 0xe6, 0, 1, 2, 9);
	ck_status(results(b, 7), 0x04, 0, 0);
	ck_assert_uint_eq(sector_at(b, 0), 10);
	unlink(first);
	free(first);
	done(b);
}
END_TEST

/* Every format a PC knew: last sector readable, one more not. */
START_TEST(formats)
{
	static const struct {
		unsigned sectors, cylinders, heads, rate, cmos;
	} formats[] = {
		{8, 40, 1, 2, 2},  {9, 40, 1, 1, 2},  {8, 40, 2, 2, 2},  {9, 40, 2, 1, 2},  {9, 80, 2, 2, 4},
		{15, 80, 2, 0, 2}, {18, 80, 2, 0, 4}, {21, 80, 2, 0, 4}, {36, 80, 2, 3, 5},
	};

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		unsigned s = formats[i].sectors, c = formats[i].cylinders, h = formats[i].heads;
		struct board *b = board_with((size_t)s * c * h * 512, "");

		bench_outb(b, 0x70, 0x10);
		ck_assert_uint_eq(bench_inb(b, 0x71), formats[i].cmos << 4);
		bench_outb(b, 0x70, 0x14);
		ck_assert_uint_eq(bench_inb(b, 0x71) & 0x41, 0x01);
		power_up(b, (uint8_t)formats[i].rate);
		seek(b, (uint8_t)(c - 1));
		dma(b, 0x44, BUFFER, 512);
		transfer(b, 0xe6, (uint8_t)(c - 1), (uint8_t)(h - 1), (uint8_t)s, (uint8_t)s);
		ck_status(results(b, 7), (uint8_t)((h - 1) << 2), 0, 0);
		ck_assert_uint_eq(sector_at(b, 0), s * c * h - 1);
		transfer(b, 0xe6, (uint8_t)(c - 1), (uint8_t)(h - 1), (uint8_t)(s + 1), (uint8_t)(s + 1));
		ck_assert_uint_eq(results(b, 7)[1], 0x04);
		done(b);
	}
}
END_TEST

/* A 360K diskette in a 1.2M drive: Linux steps twice per cylinder, SeaBIOS once. */
START_TEST(double_stepping)
{
	struct board *b = board_with(720 * 512, "");

	power_up(b, 1);
	for (unsigned step = 1; step <= 2; step++) {
		seek(b, (uint8_t)(7 * step));
		dma(b, 0x44, BUFFER, 512);
		transfer(b, 0xe6, 7, 1, 2, 9);
		ck_status(results(b, 7), 0x04, 0, 0);
		ck_assert_uint_eq(sector_at(b, 0), 7 * 18 + 10);
	}
	done(b);
}
END_TEST

START_TEST(odd_sizes)
{
	struct board *b = board_with(512, ""); /* a boot sector alone */

	power_up(b, 2); /* the smallest format that holds it is 720K */
	dma(b, 0x44, BUFFER, 1024);
	transfer(b, 0xe6, 0, 0, 1, 9);
	ck_status(results(b, 7), 0x40, 0x04, 0); /* the second sector is not in the image */
	ck_assert_uint_eq(sector_at(b, 0), 0);
	done(b);
	{
		char options[128];

		snprintf(options, sizeof(options), "-m 16 -drive file=%s,format=raw,if=floppy", make_image(4 * MIB));
		ck_assert_ptr_nonnull(strstr(bench_new_fails(options), "no diskette"));
		unlink(path);
	}
}
END_TEST

START_TEST(reset_in_every_phase)
{
	struct board *b = board_with(IMAGE_144, "");

	power_up(b, 0);
	for (unsigned phase = 0; phase < 4; phase++) {
		dma(b, 0x44, BUFFER, 512);
		if (phase == 0)
			SEND(b, 0xe6, 0, 0);
		else
			SEND(b, 0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
		if (phase == 2)
			clock_manual_step(NS_PER_MS); /* the disk request is on its way */
		else if (phase == 3)
			settle(b);
		bench_outb(b, DOR, 0x18);
		ck_assert_uint_eq(bench_inb(b, MSR), 0);
		ck_assert(!bench_gsi(b, IRQ));
		power_up(b, 0);
		dma(b, 0x44, BUFFER, 512);
		transfer(b, 0xe6, 0, 0, (uint8_t)(phase + 2), 18);
		ck_status(results(b, 7), 0, 0, 0);
		ck_assert_uint_eq(sector_at(b, 0), phase + 1);
	}
	SEND(b, 0xe6, 0, 0);
	bench_reset(b);
	ck_assert_uint_eq(bench_inb(b, MSR), 0);
	power_up(b, 0);
	done(b);
}
END_TEST

START_TEST(state_survives_in_every_phase)
{
	struct board *b = board_with(IMAGE_144, "");

	power_up(b, 0);
	seek(b, 3);
	dma(b, 0x44, BUFFER, 512);
	SEND(b, 0xe6, 0, 3, 0);
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_inb(b, MSR), 0x90);
	SEND(b, 7, 2, 18, 0x1b, 0xff);
	b = bench_save_load(b); /* the head settles */
	settle(b);
	ck_assert(bench_gsi(b, IRQ));
	bench_inb(b, FIFO);
	b = bench_save_load(b); /* in the result phase */
	ck_assert_uint_eq(bench_inb(b, FIFO), 0);
	for (int i = 0; i < 5; i++)
		bench_inb(b, FIFO);
	ck_assert_uint_eq(sector_at(b, 0), 3 * 36 + 6);
	SEND(b, 0x0f, 0x00, 9);
	b = bench_save_load(b); /* in a seek */
	ck_assert_uint_eq(bench_inb(b, MSR), 0x81);
	settle(b);
	SEND(b, 0x08);
	ck_assert_uint_eq(results(b, 2)[1], 9);
	ck_assert_uint_eq(bench_inb(b, DIR) & 0x80, 0);
	done(b);
}
END_TEST

/* Writes beyond `bytes` of a file fail from now on, those of the image included. */
static void limit_files(rlim_t bytes)
{
	struct rlimit limit;

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

START_TEST(host_errors_are_reported)
{
	struct board *b = board_with(IMAGE_144, "");

	power_up(b, 0);
	seek(b, 70);
	dma(b, 0x48, BUFFER, 512);
	limit_files(1000);
	transfer(b, 0xc5, 70, 0, 1, 18);
	limit_files(RLIM_INFINITY);
	ck_status(results(b, 7), 0x40, 0x20, 0x20);
	done(b);
}
END_TEST

START_TEST(host_errors_stop_the_guest_and_are_tried_again)
{
	struct board *b = board_with(IMAGE_144, ",werror=stop");
	struct err e = ERR_INIT;
	uint8_t in[512];

	ck_assert_int_eq(machine_cont(b, &e), 0);
	power_up(b, 0);
	seek(b, 70);
	bench_writel(b, BUFFER, 0xfeedface);
	dma(b, 0x48, BUFFER, 512);
	limit_files(1000);
	SEND(b, 0xc5, 0, 70, 0, 1, 2, 18, 0x1b, 0xff);
	settle(b);
	ck_assert_int_eq(machine_run_state(b), RUN_IO_ERROR);
	ck_assert_msg(!bench_gsi(b, IRQ), "the guest was told of an error it should not see");
	limit_files(RLIM_INFINITY);
	ck_assert_int_eq(machine_cont(b, &e), 0);
	settle(b);
	ck_status(results(b, 7), 0, 0, 0);
	read_image(in, sizeof(in), 70 * 36 * 512);
	ck_assert_uint_eq(get_le32(in), 0xfeedface);
	done(b);
}
END_TEST

START_TEST(no_drives_at_all)
{
	struct board *b = bench_new("-m 16");

	bench_outb(b, DOR, 0x0c);
	settle(b);
	for (unsigned i = 0; i < 4; i++) {
		SEND(b, 0x08);
		results(b, 2);
	}
	SEND(b, 0x4a, 0x00);
	settle(b);
	ck_status(results(b, 7), 0x48, 0x01, 0);
	bench_free(b);
}
END_TEST

/* ---- the DMA controllers by themselves ---- */

START_TEST(dma_registers)
{
	struct board *b = bench_new("-m 16");

	bench_outb(b, 0x0c, 0);
	bench_outb(b, 0x00, 0x34); /* Linux's and the POST's walk over address registers */
	bench_outb(b, 0x00, 0x12);
	ck_assert_uint_eq(bench_inb(b, 0x00), 0x34);
	ck_assert_uint_eq(bench_inb(b, 0x00), 0x12);
	bench_outb(b, 0xd8, 0);
	bench_outb(b, 0xc6, 0x78);
	bench_outb(b, 0xc6, 0x56);
	ck_assert_uint_eq(bench_inb(b, 0xc6), 0x78);
	ck_assert_uint_eq(bench_inb(b, 0xc6), 0x56);
	ck_assert_uint_eq(bench_inb(b, 0x0f), 0xff);
	bench_outb(b, 0x0e, 0);
	ck_assert_uint_eq(bench_inb(b, 0x0f), 0xf0);
	bench_outb(b, 0x0a, 0x06);
	ck_assert_uint_eq(bench_inb(b, 0x0f), 0xf4);
	bench_outb(b, 0x0f, 0x09);
	ck_assert_uint_eq(bench_inb(b, 0x0f), 0xf9);
	bench_outb(b, 0x0d, 0);
	ck_assert_uint_eq(bench_inb(b, 0x0f), 0xff);
	bench_outb(b, 0xd4, 0x01);
	ck_assert_uint_eq(bench_inb(b, 0xde), 0xfd);
	for (uint16_t p = 0x80; p < 0x90; p++)
		bench_outb(b, p, (uint8_t)(p * 3));
	for (uint16_t p = 0x80; p < 0x90; p++)
		ck_assert_uint_eq(bench_inb(b, p), (uint8_t)(p * 3));
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_inb(b, 0x85), (uint8_t)(0x85 * 3));
	ck_assert_uint_eq(bench_inb(b, 0xde), 0xfd);
	bench_free(b);
}
END_TEST

START_TEST(dma_modes)
{
	struct board *b = board_with(IMAGE_144, "");

	power_up(b, 0);
	/* autoinit: the channel is ready again with the same address */
	dma(b, 0x54, BUFFER, 512);
	transfer(b, 0xe6, 0, 0, 1, 18);
	ck_status(results(b, 7), 0, 0, 0);
	ck_assert_uint_eq(bench_inb(b, 0x0f) & 4, 0);
	transfer(b, 0xe6, 0, 0, 6, 18);
	ck_status(results(b, 7), 0, 0, 0);
	ck_assert_uint_eq(sector_at(b, 0), 5);
	/* verify: counts, writes nothing */
	bench_writel(b, BUFFER, 0x11223344);
	dma(b, 0x40, BUFFER, 512);
	transfer(b, 0xe6, 0, 0, 1, 18);
	ck_status(results(b, 7), 0, 0, 0);
	ck_assert_uint_eq(sector_at(b, 0), 0x11223344);
	/* decrement: the sector comes backwards */
	dma(b, 0x64, BUFFER + 511, 512);
	transfer(b, 0xe6, 0, 0, 2, 18);
	ck_status(results(b, 7), 0, 0, 0);
	ck_assert_uint_eq(bench_readb(b, BUFFER + 511), 1);
	ck_assert_uint_eq(bench_readb(b, BUFFER), 7);
	/* 64 KiB wrap within the page */
	dma(b, 0x44, BUFFER + 0xff00, 512);
	transfer(b, 0xe6, 0, 0, 3, 18);
	ck_status(results(b, 7), 0, 0, 0);
	ck_assert_uint_eq(bench_readl(b, BUFFER + 0xff00), 2);
	ck_assert_uint_eq(bench_readb(b, BUFFER + 0xff), 14);
	ck_assert_uint_eq(bench_readb(b, BUFFER + 0x100), 7);
	/* controller disabled: waits */
	dma(b, 0x44, BUFFER, 512);
	bench_outb(b, 0x08, 0x04);
	SEND(b, 0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
	settle(b);
	ck_assert(!bench_gsi(b, IRQ));
	bench_outb(b, 0x08, 0x00);
	settle(b);
	ck_assert(bench_gsi(b, IRQ));
	done(b);
}
END_TEST

/* DMA to where there is no RAM must neither crash nor hang. */
START_TEST(dma_outside_of_ram)
{
	struct board *b = bench_new("-m 1");

	bench_free(b);
	b = board_with(IMAGE_144, " -m 2");
	power_up(b, 0);
	dma(b, 0x44, 0xf00000, 512);
	transfer(b, 0xe6, 0, 0, 1, 18);
	ck_status(results(b, 7), 0, 0, 0);
	done(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("fdc"), *d = tcase_create("8237");

	tcase_add_test(t, reads_by_dma);
	tcase_add_test(t, multi_track_crosses_to_the_other_side);
	tcase_add_test(t, end_of_track_without_terminal_count);
	tcase_add_test(t, writes_by_dma);
	tcase_add_test(t, waits_for_a_masked_dma_channel);
	tcase_add_test(t, programmed_io);
	tcase_add_test(t, errors_say_what_is_wrong);
	tcase_add_test(t, write_protected);
	tcase_add_test(t, seeks_and_track_0);
	tcase_add_test(t, implied_seek);
	tcase_add_test(t, linux_identifies_the_chip);
	tcase_add_test(t, format_verify_and_scan);
	tcase_add_test(t, deleted_data_and_read_track);
	tcase_add_test(t, change_line_and_media_change);
	tcase_add_test(t, formats);
	tcase_add_test(t, double_stepping);
	tcase_add_test(t, odd_sizes);
	tcase_add_test(t, reset_in_every_phase);
	tcase_add_test(t, state_survives_in_every_phase);
	tcase_add_test(t, host_errors_are_reported);
	tcase_add_test(t, host_errors_stop_the_guest_and_are_tried_again);
	tcase_add_test(t, no_drives_at_all);
	tcase_add_test(d, dma_registers);
	tcase_add_test(d, dma_modes);
	tcase_add_test(d, dma_outside_of_ram);
	return run_suite("fdc", (TCase *[]){t, d, NULL});
}
