/*
 * A driver gone mad: random registers, commands, packets, descriptor tables and resets on a disk and a CD-ROM drive,
 * with saving and loading in between. Whatever happened, a software reset brings both drives back, and what they read
 * is right.
 */
#include "ide_test.h"

static uint32_t seed;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)(seed >> 4) * n >> 28);
}

static const uint8_t ata_commands[] = {0x00, 0x06, 0x10, 0x20, 0x24, 0x25, 0x27, 0x29, 0x30, 0x34, 0x35, 0x39, 0x3d,
				       0x40, 0x42, 0x70, 0x90, 0x91, 0xb0, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xce, 0xe0,
				       0xe1, 0xe5, 0xe6, 0xe7, 0xea, 0xec, 0xef, 0xf8, 0xa0, 0xa1, 0x08};
static const uint8_t packets[] = {0x00, 0x03, 0x12, 0x1b, 0x1e, 0x25, 0x28, 0x2b, 0x42, 0x43, 0x46,
				  0x4a, 0x51, 0x52, 0x55, 0x5a, 0xa8, 0xad, 0xb9, 0xbb, 0xbd, 0xbe};

static void random_registers(struct board *b, uint16_t base)
{
	for (int i = 1; i < 6; i++)
		bench_outb(b, base + i, (uint8_t)(rnd(4) ? rnd(4) : rnd(256)));
	bench_outb(b, base + 6, (uint8_t)(0xa0 | rnd(2) << 6 | (rnd(8) ? 0 : 0x10)));
}

static void random_table(struct board *b, uint16_t bm)
{
	uint32_t n = 1 + rnd(20), table = 0x10000 + 8 * rnd(100);

	for (uint32_t i = 0; i < n; i++) {
		uint32_t addr = rnd(16) ? 0x100000 + rnd(0x80000) : rnd(0xffffffff >> 4) << 4;

		bench_writel(b, table + 8 * i, addr);
		bench_writel(b, table + 8 * i + 4,
			     (rnd(3) ? rnd(0x10000) : 512) | (i == n - 1 && rnd(8) ? 0x80000000 : 0));
	}
	bench_outb(b, bm, 0);
	bench_outb(b, bm + 2, (uint8_t)rnd(256));
	bench_outl(b, bm + 4, rnd(32) ? table : rnd(0xffffffff));
}

static void random_packet(struct board *b, uint16_t base)
{
	uint8_t cdb[12] = {packets[rnd(sizeof(packets))]};

	for (int i = 1; i < 12; i++)
		cdb[i] = (uint8_t)(rnd(3) ? 0 : rnd(2) ? rnd(16) : rnd(256));
	bench_outb(b, base + 7, 0xa0);
	for (int i = 0; i < 12; i += 2)
		bench_outw(b, base, get_le16(cdb + i));
}

static void move_data(struct board *b, uint16_t base)
{
	static uint8_t buf[4096];
	uint32_t n = rnd(1024);

	for (uint32_t i = 0; i < n; i++) {
		if (rnd(2))
			bench_inw(b, base);
		else
			bench_outw(b, base, (uint16_t)i);
	}
	put_le32(buf, bench_inl(b, base));
	bench_inb(b, base);
}

static void step(struct board *b)
{
	bool secondary = rnd(2);
	uint16_t base = secondary ? 0x170 : 0x1f0, control = secondary ? 0x376 : 0x3f6, bm = BMBA + (secondary ? 8 : 0);

	switch (rnd(10)) {
	case 0:
		random_registers(b, base);
		break;
	case 1:
	case 2:
		random_registers(b, base);
		bench_outb(b, base + 7, rnd(16) ? ata_commands[rnd(sizeof(ata_commands))] : (uint8_t)rnd(256));
		break;
	case 3:
	case 4:
		bench_outb(b, base + 1, (uint8_t)rnd(2));
		random_packet(b, base);
		break;
	case 5:
		random_table(b, bm);
		/* fall through */
	case 6:
		bench_outb(b, bm, (uint8_t)rnd(16));
		break;
	case 7:
		move_data(b, base);
		break;
	case 8:
		bench_outb(b, control, (uint8_t)(rnd(4) ? 0 : rnd(256)));
		break;
	case 9:
		bench_idle(b);
		bench_inb(b, base + 7);
		break;
	}
}

static void check_alive(struct board *b)
{
	uint8_t buf[512];

	for (int c = 0; c < 2; c++) {
		uint16_t base = c ? 0x170 : 0x1f0, control = c ? 0x376 : 0x3f6;

		bench_outb(b, control, 4);
		bench_outb(b, control, 0);
		wait_not_busy(b, c);
		bench_outb(b, base + 7, c ? 0xa1 : 0xec);
		ck_assert_uint_eq(wait_not_busy(b, c), DRDY | DSC | DRQ);
		read_words(b, base, buf, 512);
		ck_assert_uint_eq(get_le16(buf), c ? 0x85c0 : 0x0040);
		bench_inb(b, base + 7);
	}
	set_lba28(b, 4000, 1, 0);
	bench_outb(b, STATUS, 0x20);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
	read_words(b, DATA, buf, 512);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
}

START_TEST(random_driving)
{
	const char *more = getenv("IDE_MONKEY_STEPS"); /* for long runs with sanitizers */
	int steps = more ? atoi(more) : 6000;
	char opt[256];
	struct board *b;

	seed = 12345u + (uint32_t)_i;
	snprintf(opt, sizeof(opt),
		 "-m 16 -drive file=%s,format=raw,discard=unmap,werror=report,snapshot=on "
		 "-drive file=%s,format=raw,media=cdrom,index=2",
		 make_image(8192, 300), ide_image);
	b = bench_new(opt);
	enable_bus_master(b);
	for (int i = 1; i <= steps; i++) {
		step(b);
		if (i % 1500 == 0) {
			bench_idle(b);
			check_alive(b);
			enable_bus_master(b);
		}
	}
	bench_free(b);
}
END_TEST

/* Without an overlay, so that the image stays the same over save and load. */
START_TEST(random_driving_with_migration)
{
	char opt[256];
	struct board *b;

	seed = 777u + (uint32_t)_i;
	snprintf(opt, sizeof(opt), "-m 16 -drive file=%s,format=raw -drive media=cdrom,index=2", make_image(8192, 300));
	b = bench_new(opt);
	enable_bus_master(b);
	for (int i = 1; i <= 600; i++) {
		step(b);
		if (i % 60 == 0)
			b = bench_save_load(b);
	}
	check_alive(b);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("ide-monkey");

	tcase_add_checked_fixture(t, NULL, remove_image);
	tcase_set_timeout(t, getenv("IDE_MONKEY_STEPS") ? 600 : 60);
	tcase_add_loop_test(t, random_driving, 0, 4);
	tcase_add_loop_test(t, random_driving_with_migration, 0, 2);
	return run_suite("ide-monkey", (TCase *[]){t, NULL});
}
