/*
 * Saved in mid-operation: whatever a device was doing, it does it on in the board its state is loaded into. Each case
 * runs once without a save and then again with one at every step; what the guest sees has to be the same.
 */
#include "ide_test.h"
#include "vmm/bytes.h"

#define MAX_TRACE 4096

static struct board *b;
static uint32_t want[MAX_TRACE], got[MAX_TRACE];
static unsigned n_trace;

static void note(uint32_t v)
{
	ck_assert_uint_lt(n_trace, MAX_TRACE);
	got[n_trace++] = v;
}

/* The steps of a case, saving and loading before step `save` (-1: never). */
static void run(const char *options, void (*start)(int arg), void (*step)(int arg, int n), int arg, int steps, int save)
{
	n_trace = 0;
	b = bench_new(options);
	start(arg);
	for (int n = 0; n < steps; n++) {
		if (n == save) {
			b = bench_save_load(b);
			bench_gsi_edges(b, 0); /* of the new board's power-on */
		}
		step(arg, n);
	}
	bench_free(b);
}

static void same_at_every_step(const char *options, void (*start)(int arg), void (*step)(int arg, int n), int arg,
			       int steps)
{
	unsigned len;

	run(options, start, step, arg, steps, -1);
	len = n_trace;
	memcpy(want, got, sizeof(want));
	for (int save = 0; save < steps; save++) {
		run(options, start, step, arg, steps, save);
		ck_assert_uint_eq(n_trace, len);
		for (unsigned i = 0; i < len; i++)
			ck_assert_msg(got[i] == want[i], "saved before step %d, value %u: 0x%x instead of 0x%x", save,
				      i, got[i], want[i]);
	}
}

/* ---- PIT: every mode, on the interrupt's channel and the one with a gate ---- */

static void pit_start(int mode)
{
	for (unsigned ch = 0; ch <= 2; ch += 2) {
		bench_outb(b, 0x43, (uint8_t)(ch << 6 | 0x30 | mode << 1));
		bench_outb(b, (uint16_t)(0x40 + ch), 0x58);
		bench_outb(b, (uint16_t)(0x40 + ch), 0x02);
	}
	bench_gsi_edges(b, 0);
	bench_outb(b, 0x61, 0);
}

static void pit_step(int mode, int n)
{
	if (n == 2 || n == 7) /* modes 1 and 5 are triggered by the gate, 2 and 3 restarted, 0 and 4 held up */
		bench_outb(b, 0x61, 1);
	if (n == 5)
		bench_outb(b, 0x61, 0);
	if (n == 9) { /* half of a new count, and the other half later */
		bench_outb(b, 0x40, 0x34);
	} else if (n == 10) {
		bench_outb(b, 0x40, 0x01);
	}
	bench_step(b, 137 * 1000);
	note(bench_gsi_edges(b, 0));
	if (mode != 3) /* the square wave falls only when somebody looks: an edge-triggered input does not care */
		note(bench_gsi(b, 0));
	note(bench_inb(b, 0x61) & 0x20);
	for (unsigned ch = 0; ch <= 2; ch += 2) {
		if (ch == 0 && n == 9)
			continue; /* reading would take part in the same flip-flop on some chips */
		bench_outb(b, 0x43, (uint8_t)(0xc0 | 2u << ch)); /* read-back: count and status */
		note(bench_inb(b, (uint16_t)(0x40 + ch)));
		note(bench_inb(b, (uint16_t)(0x40 + ch)));
		note(bench_inb(b, (uint16_t)(0x40 + ch)));
	}
}

START_TEST(pit_in_each_mode)
{
	same_at_every_step("-m 16", pit_start, pit_step, _i, 13);
}
END_TEST

/* ---- RTC: around the update, with its interrupt, and a periodic one ---- */

static uint8_t rtc_in(uint8_t r)
{
	bench_outb(b, 0x70, r);
	return bench_inb(b, 0x71);
}

static void rtc_start(int rate)
{
	bench_outb(b, 0x70, 0x0a);
	bench_outb(b, 0x71, (uint8_t)(0x20 | rate));
	bench_outb(b, 0x70, 0x0b);
	bench_outb(b, 0x71, (uint8_t)(rate ? 0x52 : 0x12));
	rtc_in(0x0c);
	while (!(rtc_in(0x0a) & 0x80)) /* a little before the update */
		bench_step(b, 50 * 1000);
}

static void rtc_step(int rate, int n)
{
	(void)rate;
	(void)n;
	bench_step(b, 61 * 1000);
	note(rtc_in(0x0a));
	note(bench_gsi(b, 8));
	note(rtc_in(0x0c));
	note(rtc_in(0x00));
}

START_TEST(rtc_in_its_update)
{
	same_at_every_step("-m 16 -rtc base=2030-01-02T03:04:05,clock=vm", rtc_start, rtc_step, _i, 12);
}
END_TEST

/* ---- fw_cfg: in the middle of an item ---- */

static void fw_cfg_start(int key)
{
	bench_outw(b, 0x510, (uint16_t)key);
}

static void fw_cfg_step(int key, int n)
{
	(void)key;
	(void)n;
	for (int i = 0; i < 13; i++)
		note(bench_inb(b, 0x511));
}

START_TEST(fw_cfg_in_mid_read)
{
	same_at_every_step("-m 16 -fw_cfg opt/a,string=abcdefghijklmnopqrstuvwxyz", fw_cfg_start, fw_cfg_step, 0x19,
			   12);
}
END_TEST

/* ---- keyboard controller: scan codes queued for both devices ---- */

static void i8042_start(int unused)
{
	(void)unused;
	bench_outb(b, 0x64, 0xa8);
	bench_outb(b, 0x64, 0x60);
	bench_outb(b, 0x60, 0x47);
	bench_outb(b, 0x60, 0xf2); /* keyboard: three bytes of identification */
	bench_outb(b, 0x64, 0xd4);
	bench_outb(b, 0x60, 0xe9); /* mouse: four bytes of status */
}

static void i8042_step(int unused, int n)
{
	(void)unused;
	(void)n;
	note(bench_inb(b, 0x64));
	note(bench_inb(b, 0x60));
	note((uint32_t)bench_gsi(b, 1) | (uint32_t)bench_gsi(b, 12) << 1);
	bench_step(b, 1000 * 1000);
}

START_TEST(i8042_with_bytes_queued)
{
	same_at_every_step("-m 16", i8042_start, i8042_step, 0, 10);
}
END_TEST

/* ---- UART: its FIFO half full, in loopback ---- */

static void uart_start(int unused)
{
	(void)unused;
	bench_outb(b, 0x3fa, 0x81); /* FIFO, interrupt at 8 */
	bench_outb(b, 0x3f9, 0x05);
	bench_outb(b, 0x3fc, 0x1b); /* loopback */
	for (int i = 0; i < 7; i++) {
		bench_outb(b, 0x3f8, (uint8_t)('a' + i));
		bench_step(b, 2000 * 1000);
	}
}

static void uart_step(int unused, int n)
{
	(void)unused;
	note(bench_inb(b, 0x3fd));
	note(bench_inb(b, 0x3fa));
	if (n & 1)
		note(bench_inb(b, 0x3f8));
	else if (n < 8)
		bench_outb(b, 0x3f8, (uint8_t)('A' + n));
	note(bench_inb(b, 0x3fe));
	bench_step(b, 300 * 1000);
}

START_TEST(uart_half_full)
{
	same_at_every_step("-m 16 -serial null", uart_start, uart_step, 0, 16);
}
END_TEST

/* ---- disks ---- */

static char disk_options[128];

static void disk_setup(void)
{
	snprintf(disk_options, sizeof(disk_options), "-m 16 -drive file=%s,format=raw", make_image(600, 600));
}

/* Reading by PIO, the data port in the middle of a sector. */
static void pio_start(int unused)
{
	(void)unused;
	set_lba28(b, 100, 4, 0);
	bench_outb(b, STATUS, 0x20);
}

static void pio_step(int unused, int n)
{
	(void)unused;
	if (n % 4 == 0) {
		struct status_wait w = {b, 0x3f6, BSY, 0};

		bench_wait(b, status_is, &w);
	}
	for (int i = 0; i < 64; i++)
		note(bench_inw(b, DATA));
	note(bench_inb(b, COUNT));
}

START_TEST(pio_in_mid_sector)
{
	disk_setup();
	same_at_every_step(disk_options, pio_start, pio_step, 0, 16);
	remove_image();
}
END_TEST

/* ATAPI, READ(10) of two blocks: the packet half sent, then a block's data half read. On the second channel, as -cdrom
 * puts it. */
static void atapi_start(int unused)
{
	(void)unused;
	bench_outb(b, DEVICE + SECONDARY, 0xa0);
	for (int i = 0; i < 4; i++) { /* the power-on's attention */
		bench_outb(b, STATUS + SECONDARY, 0xa0);
		wait_not_busy(b, 1);
		for (int w = 0; w < 6; w++) /* TEST UNIT READY */
			bench_outw(b, DATA + SECONDARY, 0);
		wait_not_busy(b, 1);
		bench_inb(b, STATUS + SECONDARY);
	}
	bench_outb(b, ERROR + SECONDARY, 0);
	bench_outb(b, LBA1 + SECONDARY, 0x00);
	bench_outb(b, LBA2 + SECONDARY, 0x08); /* 2048 bytes at a time */
	bench_outb(b, STATUS + SECONDARY, 0xa0);
	wait_not_busy(b, 1);
}

static void atapi_step(int unused, int n)
{
	static const uint16_t packet[6] = {0x0028, 0x0000, 0x0500, 0x0000, 0x0002, 0x0000}; /* block 5, two of them */

	(void)unused;
	if (n < 6) {
		note(bench_inb(b, COUNT + SECONDARY));
		bench_outw(b, DATA + SECONDARY, packet[n]);
		return;
	}
	if ((n - 6) % 4 == 0) {
		note(wait_not_busy(b, 1));
		note(bench_inb(b, COUNT + SECONDARY));
		note(bench_inb(b, LBA1 + SECONDARY) | (uint32_t)bench_inb(b, LBA2 + SECONDARY) << 8);
		note(bench_gsi(b, 15));
		bench_inb(b, STATUS + SECONDARY);
	}
	for (int i = 0; i < 256 && n < 14; i++)
		note(bench_inw(b, DATA + SECONDARY));
}

START_TEST(atapi_in_mid_packet)
{
	snprintf(disk_options, sizeof(disk_options), "-m 16 -drive file=%s,format=raw,media=cdrom,index=2",
		 make_image(600, 600));
	same_at_every_step(disk_options, atapi_start, atapi_step, 0, 15);
	ck_assert_uint_ne(got[6] & DRQ, 0); /* there was data, not an error */
	remove_image();
}
END_TEST

/* A transfer that was just started: it ends before the save or after the load, but once and whole. */
START_TEST(dma_in_flight)
{
	struct prd p[2] = {{0x100000, 100 * 512}, {0x140000, 100 * 512}};
	bool write = _i;
	uint8_t sector[512];
	struct status_wait w;

	disk_setup();
	b = bench_new(disk_options);
	enable_bus_master(b);
	for (uint32_t i = 0; write && i < 200; i++) {
		fill_sector(sector, 1000 + i);
		bench_write(b, (i < 100 ? 0x100000u : 0x140000u) + i % 100 * 512, sector, 512);
	}
	load_prds(b, 0, p, 2, true);
	set_lba28(b, 200, 200, 0);
	bench_outb(b, STATUS, write ? 0xca : 0xc8);
	bench_outb(b, BMBA, write ? 1 : 9);
	b = bench_save_load(b);
	w = (struct status_wait){b, 0x3f6, BSY | DRQ, 0};
	bench_wait(b, status_is, &w);
	ck_assert_uint_eq(bench_inb(b, BMBA + 2) & 7, 4);
	ck_assert(bench_gsi(b, 14));
	ck_assert_uint_eq(bench_inb(b, STATUS) & (BSY | DRQ | ERR | DF), 0);
	for (uint32_t i = 0; i < 200; i++) {
		if (write)
			image_read(200 + i, sector, 1);
		else
			bench_read(b, (i < 100 ? 0x100000u : 0x140000u) + i % 100 * 512, sector, 512);
		check_sector(sector, (write ? 1000 : 200) + i);
	}
	bench_free(b);
	remove_image();
}
END_TEST

/* ---- floppy: parameters half sent, the result half read ---- */

static bool fdc_ready(void *opaque)
{
	return bench_inb(opaque, 0x3f4) & 0x80;
}

static void fdc_start(int unused)
{
	(void)unused;
	bench_outb(b, 0x3f2, 0x1c);
	bench_step(b, 1000 * 1000);
	for (int i = 0; i < 4; i++) { /* the drives' attention after the reset */
		bench_outb(b, 0x3f5, 0x08);
		bench_inb(b, 0x3f5);
		bench_inb(b, 0x3f5);
	}
}

static void fdc_step(int unused, int n)
{
	static const uint8_t read_id_and_status[] = {0x04, 0x00, 0xff, 0x10, 0xff, 0x0f,
						     0x00, 0x05, 0xfe, 0x08, 0xff, 0xff};

	(void)unused;
	bench_wait(b, fdc_ready, b);
	note(bench_inb(b, 0x3f4));
	if (read_id_and_status[n] == 0xff) {
		note(bench_inb(b, 0x3f5));
	} else if (read_id_and_status[n] == 0xfe) { /* the head moves */
		bench_step(b, 100 * 1000 * 1000);
		note(bench_gsi(b, 6));
	} else {
		bench_outb(b, 0x3f5, read_id_and_status[n]);
	}
}

START_TEST(fdc_in_mid_command)
{
	same_at_every_step("-m 16", fdc_start, fdc_step, 0, 12);
}
END_TEST

int main(void)
{
	TCase *pit = tcase_create("pit"), *rest = tcase_create("devices");

	tcase_add_loop_test(pit, pit_in_each_mode, 0, 6);
	tcase_add_loop_test(rest, rtc_in_its_update, 0, 2);
	tcase_add_test(rest, fw_cfg_in_mid_read);
	tcase_add_test(rest, i8042_with_bytes_queued);
	tcase_add_test(rest, uart_half_full);
	tcase_add_test(rest, pio_in_mid_sector);
	tcase_add_test(rest, atapi_in_mid_packet);
	tcase_add_loop_test(rest, dma_in_flight, 0, 2);
	tcase_add_test(rest, fdc_in_mid_command);
	tcase_set_timeout(pit, 60);
	tcase_set_timeout(rest, 60);
	return run_suite("midway", (TCase *[]){pit, rest, NULL});
}
