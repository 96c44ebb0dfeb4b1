/* ATA disks through their registers, as libata and BIOSes drive them: probing, PIO, modes, errors, resets, migration.
 */
#include "ide_test.h"

#include <signal.h>
#include <sys/resource.h>

static struct board *board_with_disk(uint64_t sectors, const char *more)
{
	char opt[256];

	snprintf(opt, sizeof(opt), "-m 16 -drive file=%s,format=raw%s", make_image(sectors, MIN(sectors, 600ull)),
		 more);
	return bench_new(opt);
}

static void command(struct board *b, uint8_t code)
{
	bench_outb(b, STATUS, code);
}

/* ata_devchk() and the signature, as libata probes; the absent slave and the empty channel. */
START_TEST(probing)
{
	struct board *b = board_with_disk(2048, "");

	ck_assert_uint_eq(bench_pci_readl(b, IDE_DEVFN, 0), 0x70108086);
	ck_assert_uint_eq(bench_pci_readl(b, IDE_DEVFN, 8) >> 8, 0x010180);
	bench_outb(b, DEVICE, 0xa0);
	bench_outb(b, COUNT, 0x55);
	bench_outb(b, LBA0, 0xaa);
	bench_outb(b, COUNT, 0xaa);
	bench_outb(b, LBA0, 0x55);
	bench_outb(b, COUNT, 0x55);
	bench_outb(b, LBA0, 0xaa);
	ck_assert_uint_eq(bench_inb(b, COUNT), 0x55);
	ck_assert_uint_eq(bench_inb(b, LBA0), 0xaa);
	/* SRST */
	bench_outb(b, CONTROL, 4);
	ck_assert_uint_eq(bench_inb(b, STATUS), BSY);
	bench_outb(b, CONTROL, 0);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC);
	ck_assert_uint_eq(bench_inb(b, ERROR), 1);
	ck_assert_uint_eq(bench_inb(b, COUNT), 1);
	ck_assert_uint_eq(bench_inb(b, LBA0), 1);
	ck_assert_uint_eq(bench_inb(b, LBA1), 0);
	ck_assert_uint_eq(bench_inb(b, LBA2), 0);
	/* No drive 1: drive 0 answers for it with status 0. */
	bench_outb(b, DEVICE, 0xb0);
	ck_assert_uint_eq(bench_inb(b, STATUS), 0);
	command(b, 0xec);
	ck_assert_uint_eq(bench_inb(b, STATUS), 0);
	/* Nothing on the second channel: the bus floats. */
	ck_assert_uint_eq(bench_inb(b, 0x177), 0x7f);
	bench_outb(b, 0x172, 0x55);
	ck_assert_uint_ne(bench_inb(b, 0x172), 0x55);
	bench_free(b);
}
END_TEST

START_TEST(identify)
{
	struct board *b;
	uint8_t p[512], sum = 0;
	char s[64], opt[512];

	snprintf(opt, sizeof(opt),
		 "-m 16 -drive file=%s,format=raw,if=none,id=d -device "
		 "ide-hd,drive=d,serial=SN-42,model=Nice,ver=9z,wwn=0x5000c500a1b2c3d4,rotation_rate=1,"
		 "physical_block_size=4096,bus=ide.0,unit=0",
		 make_image(300000, 1));
	b = bench_new(opt);
	bench_outb(b, DEVICE, 0xa0);
	bench_gsi_edges(b, 14);
	command(b, 0xec);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
	ck_assert(bench_gsi(b, 14));
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC | DRQ); /* acknowledges */
	ck_assert(!bench_gsi(b, 14));
	read_words(b, DATA, p, 512);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	ck_assert_uint_eq(bench_gsi_edges(b, 14), 1);
	identify_string(s, p, 10, 10);
	ck_assert_str_eq(s, "SN-42");
	identify_string(s, p, 23, 4);
	ck_assert_str_eq(s, "9z");
	identify_string(s, p, 27, 20);
	ck_assert_str_eq(s, "Nice");
	ck_assert_uint_eq(get_le32(p + 120), 300000);
	ck_assert_uint_eq(get_le64(p + 200), 300000);
	ck_assert_uint_eq(get_le16(p + 2), 300000 / (16 * 63));
	ck_assert_uint_eq(get_le16(p + 6), 16);
	ck_assert_uint_eq(get_le16(p + 12), 63);
	ck_assert(get_le16(p + 98) & 0x200);                   /* LBA */
	ck_assert_uint_eq(get_le16(p + 166) & 0x0400, 0x0400); /* 48-bit */
	ck_assert_uint_eq(get_le16(p + 176), 0x203f);          /* UDMA 5 */
	ck_assert_uint_eq(get_le16(p + 212), 0x6003);          /* 4 KiB physical */
	ck_assert_uint_eq(get_le16(p + 216), 0x5000);
	ck_assert_uint_eq(get_le16(p + 222), 0xc3d4);
	ck_assert_uint_eq(get_le16(p + 434), 1);
	for (int i = 0; i < 512; i++)
		sum += p[i];
	ck_assert_uint_eq(sum, 0);
	bench_free(b);
}
END_TEST

/* READ SECTORS: one interrupt per sector, before its data; none at the end. */
START_TEST(pio_read)
{
	struct board *b = board_with_disk(2048, "");
	uint8_t buf[512];

	set_lba28(b, 100, 3, 0);
	bench_gsi_edges(b, 14);
	command(b, 0x20);
	for (uint32_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
		ck_assert_uint_eq(bench_gsi_edges(b, 14), 1);
		bench_inb(b, STATUS);
		read_words(b, DATA, buf, 512);
		check_sector(buf, 100 + i);
	}
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	ck_assert_uint_eq(bench_gsi_edges(b, 14), 0);
	ck_assert_uint_eq(bench_inb(b, COUNT), 0);
	ck_assert_uint_eq(bench_inb(b, LBA0), 102);
	/* 32-bit and count 0 = 256 sectors, more than one host request and DRQ block */
	set_lba28(b, 0, 0, 0);
	command(b, 0x20);
	for (uint32_t i = 0; i < 256; i++) {
		ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
		for (int j = 0; j < 512; j += 4)
			put_le32(buf + j, bench_inl(b, DATA));
		check_sector(buf, i);
	}
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	bench_free(b);
}
END_TEST

START_TEST(pio_write_and_multiple)
{
	struct board *b = board_with_disk(2048, "");
	uint8_t buf[16 * 512], got[40 * 512];

	/* WRITE SECTORS: no interrupt for the first block, one after each. */
	set_lba28(b, 1000, 2, 0);
	bench_gsi_edges(b, 14);
	command(b, 0x30);
	for (uint32_t i = 0; i < 2; i++) {
		ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
		ck_assert_uint_eq(bench_gsi_edges(b, 14), i);
		fill_sector(buf, 7000 + i);
		write_words(b, DATA, buf, 512);
		bench_inb(b, STATUS);
	}
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC);
	ck_assert_uint_eq(bench_gsi_edges(b, 14), 1);
	image_read(1000, got, 2);
	check_sector(got, 7000);
	check_sector(got + 512, 7001);
	/* SET MULTIPLE 3 is refused, 8 taken; 20 sectors make blocks of 8, 8 and 4. */
	bench_outb(b, COUNT, 3);
	command(b, 0xc6);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC | ERR);
	ck_assert_uint_eq(bench_inb(b, ERROR), 4);
	set_lba28(b, 0, 1, 0);
	command(b, 0xc4);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC | ERR); /* multiple mode is off now */
	bench_outb(b, COUNT, 8);
	command(b, 0xc6);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	set_lba28(b, 500, 20, 0);
	bench_gsi_edges(b, 14);
	command(b, 0xc5);
	for (uint32_t i = 0; i < 20; i += 8) {
		uint32_t n = MIN(8u, 20 - i);

		ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
		for (uint32_t j = 0; j < n; j++)
			fill_sector(buf + 512 * j, 9000 + i + j);
		write_words(b, DATA, buf, n * 512);
	}
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC);
	image_read(500, got, 20);
	for (uint32_t i = 0; i < 20; i++)
		check_sector(got + 512 * i, 9000 + i);
	set_lba28(b, 500, 20, 0);
	command(b, 0xc4);
	for (uint32_t i = 0; i < 20; i += 8) {
		uint32_t n = MIN(8u, 20 - i);

		ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
		read_words(b, DATA, buf, n * 512);
		for (uint32_t j = 0; j < n; j++)
			check_sector(buf + 512 * j, 9000 + i + j);
	}
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	bench_free(b);
}
END_TEST

START_TEST(lba48_and_native_max)
{
	uint64_t sectors = 0x12345678; /* 149 GB, sparse; beyond 28 bits */
	struct board *b = board_with_disk(sectors, "");
	uint8_t buf[512], got[512];

	fill_sector(buf, 0xabcdef);
	set_lba48(b, sectors - 1, 1);
	command(b, 0x34);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
	write_words(b, DATA, buf, 512);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC);
	image_read(sectors - 1, got, 1);
	check_sector(got, 0xabcdef);
	set_lba48(b, sectors - 1, 1);
	command(b, 0x24);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
	read_words(b, DATA, got, 512);
	check_sector(got, 0xabcdef);
	bench_outb(b, CONTROL, 0x80); /* HOB */
	ck_assert_uint_eq(bench_inb(b, LBA0), 0x12);
	ck_assert_uint_eq(bench_inb(b, COUNT), 0);
	bench_outb(b, CONTROL, 0);
	ck_assert_uint_eq(bench_inb(b, LBA0), 0x77);
	/* one past the end: ID not found */
	set_lba48(b, sectors - 1, 2);
	command(b, 0x24);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | ERR);
	ck_assert_uint_eq(bench_inb(b, ERROR), 0x10);
	command(b, 0x27); /* READ NATIVE MAX ADDRESS EXT */
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC);
	ck_assert_uint_eq(bench_inb(b, LBA0), 0x77);
	bench_outb(b, CONTROL, 0x80);
	ck_assert_uint_eq(bench_inb(b, LBA0), 0x12);
	bench_outb(b, CONTROL, 0);
	bench_outb(b, DEVICE, 0xe0);
	command(b, 0xf8); /* the 28-bit one is clamped */
	ck_assert_uint_eq(bench_inb(b, DEVICE) & 15, 15);
	ck_assert_uint_eq(bench_inb(b, LBA2), 0xff);
	command(b, 0xf9); /* SET MAX: no host protected area */
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC | ERR);
	ck_assert_uint_eq(bench_inb(b, ERROR), 4);
	bench_free(b);
}
END_TEST

START_TEST(chs_addressing)
{
	struct board *b = board_with_disk(2048, "");
	uint8_t buf[512];

	/* Default translation 16 heads, 63 sectors: C 0 H 1 S 1 is LBA 63. */
	bench_outb(b, DEVICE, 0xa1);
	bench_outb(b, COUNT, 1);
	bench_outb(b, LBA0, 1);
	bench_outb(b, LBA1, 0);
	bench_outb(b, LBA2, 0);
	command(b, 0x20);
	wait_not_busy(b, 0);
	read_words(b, DATA, buf, 512);
	check_sector(buf, 63);
	/* INITIALIZE DEVICE PARAMETERS: 4 heads of 17 sectors: C 1 H 2 S 3 = (1*4+2)*17+2. */
	bench_outb(b, COUNT, 17);
	bench_outb(b, DEVICE, 0xa3);
	command(b, 0x91);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	bench_outb(b, DEVICE, 0xa2);
	bench_outb(b, COUNT, 1);
	bench_outb(b, LBA0, 3);
	bench_outb(b, LBA1, 1);
	command(b, 0x20);
	wait_not_busy(b, 0);
	read_words(b, DATA, buf, 512);
	check_sector(buf, 104);
	ck_assert_uint_eq(bench_inb(b, LBA0), 3);
	ck_assert_uint_eq(bench_inb(b, LBA1), 1);
	ck_assert_uint_eq(bench_inb(b, DEVICE) & 15, 2);
	bench_outb(b, LBA0, 0); /* there is no sector 0 */
	command(b, 0x20);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | ERR);
	ck_assert_uint_eq(bench_inb(b, ERROR), 0x10);
	bench_free(b);
}
END_TEST

START_TEST(simple_commands)
{
	static const struct {
		uint8_t code, features, status;
	} t[] = {
		{0x00, 0, ERR},    /* NOP */
		{0x10, 0, 0},      /* RECALIBRATE */
		{0x70, 0, 0},      /* SEEK */
		{0xe0, 0, 0},      /* STANDBY IMMEDIATE */
		{0xe1, 0, 0},      /* IDLE IMMEDIATE */
		{0xef, 0x02, 0},   /* write cache on */
		{0xef, 0xaa, 0},   /* read-ahead on */
		{0xef, 0x99, ERR}, /* unknown feature */
		{0xe7, 0, 0},      /* FLUSH CACHE */
		{0xea, 0, 0},      /* FLUSH CACHE EXT */
		{0x40, 0, 0},      /* READ VERIFY */
		{0xa0, 0, ERR},    /* PACKET on a disk */
		{0xa1, 0, ERR},    /* IDENTIFY PACKET DEVICE on a disk */
		{0x08, 0, ERR},    /* DEVICE RESET on a disk */
		{0x45, 0x55, ERR}, /* WRITE UNCORRECTABLE */
		{0xf5, 0, ERR},    /* SECURITY FREEZE LOCK */
		{0x1f, 0, ERR},    /* no such command */
	};
	struct board *b = board_with_disk(2048, "");

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		set_lba28(b, 10, 1, 0);
		bench_outb(b, ERROR, t[i].features);
		bench_gsi_edges(b, 14);
		command(b, t[i].code);
		ck_assert_msg(wait_not_busy(b, 0) == (DRDY | DSC | t[i].status), "command %02x: status %02x", t[i].code,
			      bench_inb(b, CONTROL));
		ck_assert_uint_eq(bench_gsi_edges(b, 14), 1);
		ck_assert_uint_eq(bench_inb(b, ERROR), t[i].status ? 4 : 0);
		bench_inb(b, STATUS);
	}
	command(b, 0xe0);
	command(b, 0xe5); /* CHECK POWER MODE: standby */
	ck_assert_uint_eq(bench_inb(b, COUNT), 0);
	command(b, 0xe1);
	command(b, 0xe5);
	ck_assert_uint_eq(bench_inb(b, COUNT), 0xff);
	command(b, 0xe6); /* SLEEP: only a reset wakes it */
	command(b, 0xe5);
	ck_assert_uint_eq(bench_inb(b, STATUS), 0);
	bench_outb(b, CONTROL, 4);
	bench_outb(b, CONTROL, 0);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC);
	/* EXECUTE DEVICE DIAGNOSTIC: code 1 and the signature */
	command(b, 0x90);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC);
	ck_assert_uint_eq(bench_inb(b, ERROR), 1);
	bench_free(b);
}
END_TEST

static void smart(struct board *b, uint8_t feature, uint8_t lba0)
{
	bench_outb(b, DEVICE, 0xa0);
	bench_outb(b, ERROR, feature);
	bench_outb(b, COUNT, 1);
	bench_outb(b, LBA0, lba0);
	bench_outb(b, LBA1, 0x4f);
	bench_outb(b, LBA2, 0xc2);
	command(b, 0xb0);
}

static void smart_page(struct board *b, uint8_t feature, uint8_t lba0, uint8_t *p)
{
	uint8_t sum = 0;

	smart(b, feature, lba0);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
	read_words(b, DATA, p, 512);
	for (int i = 0; i < 512; i++)
		sum += p[i];
	ck_assert_uint_eq(sum, 0);
}

/* What smartctl -a does. */
START_TEST(smart_pages)
{
	struct board *b = board_with_disk(2048, "");
	uint8_t data[512], thresholds[512], log[512];

	smart_page(b, 0xd0, 0, data);
	smart_page(b, 0xd1, 0, thresholds);
	for (int i = 0; data[2 + 12 * i]; i++) {
		ck_assert_uint_eq(data[2 + 12 * i], thresholds[2 + 12 * i]);
		ck_assert_uint_gt(data[5 + 12 * i], thresholds[3 + 12 * i]); /* healthy */
	}
	smart(b, 0xda, 0);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	ck_assert_uint_eq(bench_inb(b, LBA1), 0x4f);
	ck_assert_uint_eq(bench_inb(b, LBA2), 0xc2);
	smart(b, 0xd4, 2); /* extended self-test */
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	smart_page(b, 0xd5, 6, log);
	ck_assert_uint_eq(log[2], 2);
	ck_assert_uint_eq(log[508], 1);
	smart_page(b, 0xd5, 1, log);
	smart(b, 0xd9, 0); /* disable */
	smart(b, 0xd0, 0);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC | ERR);
	smart(b, 0xd8, 0);
	smart_page(b, 0xd0, 0, data);
	bench_free(b);
}
END_TEST

/* nIEN holds the line back, and selecting the other drive takes it off the bus. */
START_TEST(interrupt_gating)
{
	struct board *b = board_with_disk(2048, "");

	bench_outb(b, CONTROL, 2);
	command(b, 0xe7);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC);
	ck_assert(!bench_gsi(b, 14));
	bench_outb(b, CONTROL, 0);
	ck_assert(bench_gsi(b, 14));
	bench_outb(b, DEVICE, 0xb0);
	ck_assert(!bench_gsi(b, 14));
	bench_outb(b, DEVICE, 0xa0);
	ck_assert(bench_gsi(b, 14));
	bench_inb(b, CONTROL); /* the alternate status does not acknowledge */
	ck_assert(bench_gsi(b, 14));
	bench_inb(b, STATUS);
	ck_assert(!bench_gsi(b, 14));
	bench_free(b);
}
END_TEST

START_TEST(reset_in_mid_command)
{
	struct board *b = board_with_disk(2048, "");
	uint8_t buf[512];

	set_lba28(b, 0, 200, 0);
	command(b, 0x20); /* the host read is on its way */
	bench_outb(b, CONTROL, 4);
	bench_outb(b, CONTROL, 0);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC);
	ck_assert_uint_eq(bench_inb(b, ERROR), 1);
	ck_assert_uint_eq(bench_inb(b, COUNT), 1);
	set_lba28(b, 5, 1, 0);
	command(b, 0x20);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
	read_words(b, DATA, buf, 512);
	check_sector(buf, 5);
	/* In the middle of a data phase, and by the machine. */
	set_lba28(b, 5, 2, 0);
	command(b, 0x20);
	wait_not_busy(b, 0);
	read_words(b, DATA, buf, 100);
	bench_reset(b);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	ck_assert(!bench_gsi(b, 14));
	set_lba28(b, 5, 1, 0);
	command(b, 0x20);
	wait_not_busy(b, 0);
	read_words(b, DATA, buf, 512);
	check_sector(buf, 5);
	bench_free(b);
}
END_TEST

/* A machine is saved in the middle of a PIO read, of a PIO write, and with the host request in flight. */
START_TEST(save_in_mid_pio)
{
	struct board *b = board_with_disk(2048, "");
	uint8_t buf[1024], got[1024];

	set_lba28(b, 300, 2, 0);
	command(b, 0x20);
	wait_not_busy(b, 0);
	read_words(b, DATA, buf, 200);
	ck_assert(bench_gsi(b, 14));
	b = bench_save_load(b);
	ck_assert(bench_gsi(b, 14));
	read_words(b, DATA, buf + 200, 824);
	check_sector(buf, 300);
	check_sector(buf + 512, 301);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	set_lba28(b, 1500, 2, 0);
	command(b, 0x30);
	wait_not_busy(b, 0);
	fill_sector(buf, 1);
	fill_sector(buf + 512, 2);
	write_words(b, DATA, buf, 700);
	b = bench_save_load(b);
	write_words(b, DATA, buf + 700, 324);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC);
	image_read(1500, got, 2);
	ck_assert_mem_eq(got, buf, 1024);
	set_lba28(b, 400, 2, 0);
	command(b, 0x20);
	b = bench_save_load(b);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
	read_words(b, DATA, buf, 1024);
	check_sector(buf, 400);
	check_sector(buf + 512, 401);
	bench_free(b);
}
END_TEST

/* The image loses its tail: the sectors before it are read, the first bad one is named. */
START_TEST(read_error)
{
	struct board *b = board_with_disk(2048, "");
	uint8_t buf[512];

	ck_assert_int_eq(truncate(ide_image, 103 * 512), 0);
	set_lba28(b, 100, 8, 0);
	command(b, 0x20);
	for (uint32_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
		read_words(b, DATA, buf, 512);
		check_sector(buf, 100 + i);
	}
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | ERR);
	ck_assert_uint_eq(bench_inb(b, ERROR), 0x40); /* UNC */
	ck_assert_uint_eq(bench_inb(b, LBA0), 103);
	ck_assert_uint_eq(bench_inb(b, COUNT), 5);
	ck_assert_ptr_nonnull(strstr(bench_event(b, "BLOCK_IO_ERROR"), "\"operation\": \"read\""));
	bench_free(b);
}
END_TEST

static bool is_stopped(void *opaque)
{
	return machine_run_state(opaque) == RUN_IO_ERROR;
}

/* rerror=stop: the machine stops, nothing is lost, cont tries again. */
START_TEST(stop_on_error_and_retry)
{
	struct board *b = board_with_disk(2048, ",rerror=stop");
	uint8_t buf[512], sector[512];
	int fd;

	ck_assert_int_eq(machine_cont(b, NULL), 0);
	ck_assert_int_eq(truncate(ide_image, 101 * 512), 0);
	set_lba28(b, 100, 2, 0);
	command(b, 0x20);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
	read_words(b, DATA, buf, 512);
	check_sector(buf, 100);
	bench_wait(b, is_stopped, b);
	ck_assert(bench_inb(b, CONTROL) & BSY);
	fd = open(ide_image, O_WRONLY);
	fill_sector(sector, 101);
	ck_assert_int_eq(pwrite(fd, sector, 512, 101 * 512), 512);
	close(fd);
	ck_assert_int_eq(machine_cont(b, NULL), 0);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
	read_words(b, DATA, buf, 512);
	check_sector(buf, 101);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	bench_free(b);
}
END_TEST

/* A full disk in mid-write (here: a file size limit): the machine stops, room is made, cont writes all of it. */
START_TEST(stop_on_write_error_and_retry)
{
	struct board *b = board_with_disk(2048, ",werror=stop");
	struct rlimit limit = {1002 * 512, RLIM_INFINITY};
	uint8_t buf[8 * 512], got[8 * 512];

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(truncate(ide_image, 1000 * 512), 0);
	ck_assert_int_eq(machine_cont(b, NULL), 0);
	bench_event(b, "BLOCK_IO_ERROR");
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	set_lba28(b, 1000, 8, 0);
	command(b, 0x30);
	for (uint32_t i = 0; i < 8; i++) {
		ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | DRQ);
		fill_sector(buf + 512 * i, 4000 + i);
		write_words(b, DATA, buf + 512 * i, 512);
	}
	bench_wait(b, is_stopped, b);
	ck_assert_ptr_nonnull(strstr(bench_event(b, "BLOCK_IO_ERROR"), "\"action\": \"stop\""));
	ck_assert(bench_inb(b, CONTROL) & BSY);
	ck_assert_int_eq(machine_cont(b, NULL), 0); /* too early: it stops again */
	bench_wait(b, is_stopped, b);
	limit.rlim_cur = RLIM_INFINITY;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(truncate(ide_image, 2048 * 512), 0);
	b = bench_save_load(b); /* and the bytes the guest has written travel along */
	ck_assert_int_eq(machine_cont(b, NULL), 0);
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC);
	image_read(1000, got, 8);
	ck_assert_mem_eq(got, buf, sizeof(buf));
	bench_free(b);
}
END_TEST

START_TEST(write_error_is_reported)
{
	struct board *b = board_with_disk(2048, ",werror=report");
	struct rlimit limit = {1001 * 512, RLIM_INFINITY};
	uint8_t buf[512] = {1};

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(truncate(ide_image, 1000 * 512), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	set_lba28(b, 1000, 2, 0);
	command(b, 0x30);
	for (int i = 0; i < 2; i++) {
		wait_not_busy(b, 0);
		write_words(b, DATA, buf, 512);
	}
	ck_assert_uint_eq(wait_not_busy(b, 0), DRDY | DSC | ERR);
	ck_assert_uint_eq(bench_inb(b, ERROR), 4);
	ck_assert_uint_eq(bench_inb(b, LBA0) | bench_inb(b, LBA1) << 8, 1001);
	bench_free(b);
}
END_TEST

START_TEST(refusals)
{
	char opt[256];

	make_image(2048, 1);
	snprintf(opt, sizeof(opt), "-m 16 -drive file=%s,format=raw,readonly=on", ide_image);
	ck_assert_ptr_nonnull(strstr(bench_new_fails(opt), "Block node is read-only"));
	block_close_all();
	snprintf(opt, sizeof(opt), "-m 16 -drive file=%s,format=raw,if=none,id=d -device ide-hd,drive=d,unit=2",
		 ide_image);
	ck_assert_ptr_nonnull(strstr(bench_new_fails(opt), "supports only 2 units"));
	block_close_all();
	snprintf(opt, sizeof(opt), "-m 16 -drive if=none,id=d -device ide-hd,drive=d");
	ck_assert_ptr_nonnull(strstr(bench_new_fails(opt), "drive is empty"));
	block_close_all();
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-m 16 -device ide-hd"), "'drive' is missing"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-m 16 -device ide-hd,drive=nope"), "nope"));
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("ide");

	tcase_add_checked_fixture(t, NULL, remove_image);
	tcase_add_test(t, probing);
	tcase_add_test(t, identify);
	tcase_add_test(t, pio_read);
	tcase_add_test(t, pio_write_and_multiple);
	tcase_add_test(t, lba48_and_native_max);
	tcase_add_test(t, chs_addressing);
	tcase_add_test(t, simple_commands);
	tcase_add_test(t, smart_pages);
	tcase_add_test(t, interrupt_gating);
	tcase_add_test(t, reset_in_mid_command);
	tcase_add_test(t, save_in_mid_pio);
	tcase_add_test(t, read_error);
	tcase_add_test(t, stop_on_error_and_retry);
	tcase_add_test(t, stop_on_write_error_and_retry);
	tcase_add_test(t, write_error_is_reported);
	tcase_add_test(t, refusals);
	return run_suite("ide", (TCase *[]){t, NULL});
}
