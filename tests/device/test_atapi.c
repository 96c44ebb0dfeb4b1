/* The CD-ROM drive as Linux's sr and Windows' cdrom drive it: packets by PIO and DMA, media changes, what the disc is.
 */
#include "ide_test.h"

static struct board *b;
static uint8_t reply[128 * 1024];
static uint32_t reply_len;

/* On the second channel, as -cdrom puts it. */
enum { D = SECONDARY };

static void start_board(uint32_t cd_sectors, const char *more)
{
	char opt[256];

	snprintf(opt, sizeof(opt), "-m 16 -drive file=%s,format=raw,media=cdrom,index=2,id=cd%s",
		 make_image(cd_sectors * 4ull, MIN(cd_sectors * 4, 2000u)), more);
	b = bench_new(opt);
	bench_outb(b, DEVICE + D, 0xa0);
}

static void start_empty(void)
{
	b = bench_new("-m 16 -drive media=cdrom,index=2,id=cd");
	bench_outb(b, DEVICE + D, 0xa0);
}

static void send_packet(const uint8_t *cdb, uint16_t limit, bool dma)
{
	bench_outb(b, ERROR + D, dma);
	bench_outb(b, LBA1 + D, (uint8_t)limit);
	bench_outb(b, LBA2 + D, (uint8_t)(limit >> 8));
	bench_outb(b, STATUS + D, 0xa0);
	ck_assert_uint_eq(wait_not_busy(b, 1) & (DRQ | ERR), DRQ);
	ck_assert_uint_eq(bench_inb(b, COUNT + D), 1); /* command, to the drive */
	write_words(b, DATA + D, cdb, 12);
}

/* A packet with PIO data-in of DRQ blocks up to `limit`; returns the final error register (0: good). */
static uint8_t packet_limit(const uint8_t *cdb, uint16_t limit)
{
	uint8_t status;

	reply_len = 0;
	memset(reply, 0xee, sizeof(reply));
	send_packet(cdb, limit, false);
	while ((status = wait_not_busy(b, 1)) & DRQ) {
		uint32_t n = bench_inb(b, LBA1 + D) | (uint32_t)bench_inb(b, LBA2 + D) << 8;

		ck_assert_uint_eq(bench_inb(b, COUNT + D), 2); /* data, to the host */
		ck_assert(bench_gsi(b, 15));
		ck_assert_uint_le(n, limit);
		ck_assert_uint_gt(n, 0);
		bench_inb(b, STATUS + D);
		read_words(b, DATA + D, reply + reply_len, n);
		reply_len += n;
	}
	ck_assert_uint_eq(bench_inb(b, COUNT + D), 3); /* status */
	ck_assert(bench_gsi(b, 15));
	bench_inb(b, STATUS + D);
	ck_assert_uint_eq(!!(status & ERR), bench_inb(b, ERROR + D) != 0);
	return bench_inb(b, ERROR + D);
}

#define PACKET(...) packet_limit((const uint8_t[12]){__VA_ARGS__}, 0xfffe)

/* Key, code and qualifier as one number: 0x63a02. */
static uint32_t sense(void)
{
	ck_assert_uint_eq(PACKET(0x03, 0, 0, 0, 18), 0);
	ck_assert_uint_eq(reply_len, 18);
	ck_assert_uint_eq(reply[0] & 0x7f, 0x70);
	return (uint32_t)reply[2] << 16 | (uint32_t)reply[12] << 8 | reply[13];
}

static uint32_t test_unit_ready(void)
{
	return PACKET(0x00) ? sense() : 0;
}

/* The drive reports the power-on once; drivers loop. */
static void clear_power_on(void)
{
	ck_assert_uint_eq(test_unit_ready(), 0x062900);
}

START_TEST(probing)
{
	uint8_t p[512];
	char s[64];

	start_board(100, "");
	ck_assert_uint_eq(bench_inb(b, LBA1 + D), 0x14);
	ck_assert_uint_eq(bench_inb(b, LBA2 + D), 0xeb);
	ck_assert_uint_eq(bench_inb(b, STATUS + D), 0);
	bench_outb(b, STATUS + D, 0xec); /* IDENTIFY DEVICE: aborted, signature */
	ck_assert_uint_eq(wait_not_busy(b, 1) & ERR, ERR);
	ck_assert_uint_eq(bench_inb(b, ERROR + D), 4);
	ck_assert_uint_eq(bench_inb(b, LBA1 + D), 0x14);
	bench_outb(b, STATUS + D, 0xa1);
	ck_assert_uint_eq(wait_not_busy(b, 1), DRDY | DSC | DRQ);
	read_words(b, DATA + D, p, 512);
	ck_assert_uint_eq(get_le16(p), 0x85c0);
	identify_string(s, p, 27, 20);
	ck_assert_str_eq(s, "VMM DVD-ROM");
	ck_assert_uint_eq(bench_inb(b, STATUS + D), DRDY | DSC);
	bench_outb(b, STATUS + D, 0x08); /* DEVICE RESET */
	ck_assert_uint_eq(wait_not_busy(b, 1), 0);
	ck_assert_uint_eq(bench_inb(b, LBA2 + D), 0xeb);
	bench_free(b);
}
END_TEST

START_TEST(inquiry_and_capacity)
{
	start_board(333, "");
	ck_assert_uint_eq(PACKET(0x12, 0, 0, 0, 36), 0); /* before any attention is cleared */
	ck_assert_uint_eq(reply_len, 36);
	ck_assert_uint_eq(reply[0], 5);
	ck_assert_uint_eq(reply[1], 0x80);
	ck_assert_mem_eq(reply + 8, "VMM     VMM DVD-ROM     1.0 ", 28);
	clear_power_on();
	ck_assert_uint_eq(test_unit_ready(), 0);
	ck_assert_uint_eq(PACKET(0x25), 0);
	ck_assert_uint_eq(get_be32(reply), 332);
	ck_assert_uint_eq(get_be32(reply + 4), 2048);
	ck_assert_uint_eq(PACKET(0x12, 0, 0, 0, 5), 0); /* allocation length cuts, odd length */
	ck_assert_uint_eq(reply_len, 5);
	ck_assert_uint_ne(PACKET(0xdf), 0);
	ck_assert_uint_eq(sense(), 0x052000);
	ck_assert_uint_eq(sense(), 0); /* reported once */
	bench_free(b);
}
END_TEST

static void check_cd_sector(const uint8_t *p, uint32_t lba)
{
	for (uint32_t i = 0; i < 4; i++)
		check_sector(p + 512 * i, lba * 4 + i);
}

START_TEST(reading_by_pio)
{
	static const uint16_t limits[] = {0xfffe, 2048, 4096, 3000, 512, 126};

	start_board(500, "");
	clear_power_on();
	for (size_t l = 0; l < ARRAY_SIZE(limits); l++) {
		ck_assert_uint_eq(packet_limit((uint8_t[12]){0x28, 0, 0, 0, 0, 20, 0, 0, 5}, limits[l]), 0);
		ck_assert_uint_eq(reply_len, 5 * 2048);
		for (uint32_t i = 0; i < 5; i++)
			check_cd_sector(reply + 2048 * i, 20 + i);
	}
	ck_assert_uint_eq(PACKET(0xa8, 0, 0, 0, 0, 1, 0, 0, 0, 30), 0);
	ck_assert_uint_eq(reply_len, 30 * 2048);
	check_cd_sector(reply + 29 * 2048, 30);
	ck_assert_uint_eq(PACKET(0x28, 0, 0, 0, 0, 0, 0, 0, 0), 0); /* nothing */
	ck_assert_uint_eq(reply_len, 0);
	ck_assert_uint_ne(PACKET(0x28, 0, 0, 0, 0x01, 0xf3, 0, 0, 2), 0);
	ck_assert_uint_eq(sense(), 0x052100); /* LBA out of range */
	ck_assert_uint_ne(PACKET(0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 2), 0);
	ck_assert_uint_eq(sense(), 0x052100);
	bench_free(b);
}
END_TEST

static uint8_t dma_packet(const uint8_t *cdb)
{
	uint8_t bm;

	send_packet(cdb, 0, true);
	bench_outb(b, BMBA + 8, 9);
	wait_done(b, 1);
	bm = bench_inb(b, BMBA + 8 + 2) & 7;
	bench_outb(b, BMBA + 8, 0);
	ck_assert_uint_eq(bench_inb(b, COUNT + D), 3);
	bench_inb(b, STATUS + D);
	return bm;
}

START_TEST(reading_by_dma)
{
	struct prd p[] = {{0x100000, 0x3000}, {0x200000, 0x5000}};
	uint8_t buf[0x5000];

	start_board(500, "");
	clear_power_on();
	enable_bus_master(b);
	load_prds(b, 1, p, 2, true);
	ck_assert_uint_eq(dma_packet((uint8_t[12]){0x28, 0, 0, 0, 0, 100, 0, 0, 16}), 4);
	ck_assert_uint_eq(bench_inb(b, ERROR + D), 0);
	bench_read(b, 0x100000, buf, 0x3000);
	for (uint32_t i = 0; i < 6; i++)
		check_cd_sector(buf + 2048 * i, 100 + i);
	bench_read(b, 0x200000, buf, 0x5000);
	for (uint32_t i = 0; i < 10; i++)
		check_cd_sector(buf + 2048 * i, 106 + i);
	/* replies too */
	p[0].len = 8;
	load_prds(b, 1, p, 1, true);
	ck_assert_uint_eq(dma_packet((uint8_t[12]){0x25}), 4);
	bench_read(b, 0x100000, buf, 8);
	ck_assert_uint_eq(get_be32(buf), 499);
	/* and raw sectors */
	p[0].len = 2352 * 2;
	load_prds(b, 1, p, 1, true);
	ck_assert_uint_eq(dma_packet((uint8_t[12]){0xbe, 0, 0, 0, 0, 3, 0, 0, 2, 0xf8}), 4);
	bench_read(b, 0x100000, buf, 2352 * 2);
	check_cd_sector(buf + 2352 + 16, 4);
	bench_free(b);
}
END_TEST

/* READ CD: user data, whole raw sectors with header and codes, and what cannot be. */
START_TEST(read_cd)
{
	start_board(60000, "");
	clear_power_on();
	ck_assert_uint_eq(PACKET(0xbe, 0, 0, 0, 0, 16, 0, 0, 2, 0x10), 0);
	ck_assert_uint_eq(reply_len, 4096);
	check_cd_sector(reply, 16);
	ck_assert_uint_eq(PACKET(0xbe, 2 << 2, 0, 0, 0xc3, 0x50, 0, 0, 1, 0xf8), 0); /* LBA 50000 = 11:08:50 */
	ck_assert_uint_eq(reply_len, 2352);
	ck_assert_mem_eq(reply, "\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\x11\x08\x50\x01", 16);
	ck_assert_uint_eq(PACKET(0xbe, 0, 0, 0, 0, 3, 0, 0, 40, 0xf8), 0); /* more than one chunk */
	ck_assert_uint_eq(reply_len, 40 * 2352);
	ck_assert_uint_eq(PACKET(0xbe, 0, 0, 0, 0, 3, 0, 0, 1, 0x38), 0); /* header, user data, EDC and ECC */
	ck_assert_uint_eq(reply_len, 4 + 2048 + 288);
	check_cd_sector(reply + 4, 3);
	ck_assert_uint_eq(PACKET(0xbe, 0, 0, 0, 0, 3, 0, 0, 1, 0), 0);
	ck_assert_uint_eq(reply_len, 0);
	ck_assert_uint_ne(PACKET(0xbe, 1 << 2, 0, 0, 0, 3, 0, 0, 1, 0xf8), 0); /* CD-DA */
	ck_assert_uint_eq(sense(), 0x056400);
	ck_assert_uint_ne(PACKET(0xbe, 0, 0, 0, 0, 3, 0, 0, 1, 0xf8, 1), 0); /* subchannel */
	ck_assert_uint_eq(sense(), 0x052400);
	ck_assert_uint_eq(PACKET(0xb9, 0, 0, 0, 2, 16, 0, 2, 18, 0x10), 0); /* MSF 0:2:16 to 0:2:18 */
	ck_assert_uint_eq(reply_len, 4096);
	check_cd_sector(reply, 16);
	bench_free(b);
}
END_TEST

/* The codes of a raw sector: parity and CRC must all check (ECMA-130 annex A). */
static uint8_t gf_mul(uint8_t a, uint8_t c)
{
	uint8_t r = 0;

	while (c) {
		if (c & 1)
			r ^= a;
		a = (uint8_t)(a << 1 ^ (a & 0x80 ? 0x1d : 0));
		c >>= 1;
	}
	return r;
}

START_TEST(raw_sector_codes)
{
	uint32_t crc = 0;

	start_board(100, "");
	clear_power_on();
	ck_assert_uint_eq(PACKET(0xbe, 0, 0, 0, 0, 7, 0, 0, 1, 0xf8), 0);
	for (int i = 0; i < 2068; i++) { /* data and its EDC: remainder 0 */
		crc ^= reply[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0xd8018001u : 0);
	}
	ck_assert_uint_eq(crc, 0);
	/* P: column n of the two byte planes, 26 symbols; both syndromes are 0. */
	for (int plane = 0; plane < 2; plane++)
		for (int n = 0; n < 43; n++) {
			uint8_t s0 = 0, s1 = 0;

			for (int m = 0; m < 26; m++) {
				uint8_t v = reply[12 + 2 * (43 * m + n) + plane];

				s0 ^= v;
				s1 = gf_mul(s1, 2) ^ v;
			}
			ck_assert_uint_eq(s0, 0);
			ck_assert_uint_eq(s1, 0);
		}
	/* Q: diagonals of 43 symbols and 2 of parity. */
	for (int plane = 0; plane < 2; plane++)
		for (int n = 0; n < 26; n++) {
			uint8_t s0 = 0, s1 = 0;

			for (int m = 0; m < 45; m++) {
				int word = m < 43 ? (44 * m + 43 * n) % 1118 : 1118 + 26 * (m - 43) + n;
				uint8_t v = reply[12 + 2 * word + plane];

				s0 ^= v;
				s1 = gf_mul(s1, 2) ^ v;
			}
			ck_assert_uint_eq(s0, 0);
			ck_assert_uint_eq(s1, 0);
		}
	bench_free(b);
}
END_TEST

START_TEST(toc)
{
	start_board(1000, "");
	clear_power_on();
	ck_assert_uint_eq(PACKET(0x43, 0, 0, 0, 0, 0, 0, 0, 0xff), 0);
	ck_assert_uint_eq(reply_len, 20);
	ck_assert_uint_eq(get_be16(reply), 18);
	ck_assert_mem_eq(reply + 2, "\1\1\0\x14\1\0\0\0\0\0\0\x14\xaa\0", 14);
	ck_assert_uint_eq(get_be32(reply + 16), 1000);
	ck_assert_uint_eq(PACKET(0x43, 2, 0, 0, 0, 0, 0xaa, 0, 0xff), 0); /* lead-out in MSF: 1150 frames = 0:15:25 */
	ck_assert_uint_eq(reply_len, 12);
	ck_assert_mem_eq(reply + 8, "\0\0\x0f\x19", 4);
	ck_assert_uint_eq(PACKET(0x43, 0, 1, 0, 0, 0, 0, 0, 12), 0); /* sessions */
	ck_assert_uint_eq(get_be16(reply), 10);
	ck_assert_uint_eq(get_be32(reply + 8), 0);
	ck_assert_uint_eq(PACKET(0x43, 2, 2, 0, 0, 0, 0, 0, 0xff), 0); /* full TOC */
	ck_assert_uint_eq(reply_len, 48);
	ck_assert_uint_eq(reply[4 + 3], 0xa0);
	ck_assert_uint_eq(reply[4 + 33 + 3], 1);
	ck_assert_uint_ne(PACKET(0x43, 0, 0, 0, 0, 0, 2, 0, 0xff), 0); /* track 2 */
	ck_assert_uint_eq(sense(), 0x052400);
	ck_assert_uint_ne(PACKET(0x43, 0, 5, 0, 0, 0, 0, 0, 0xff), 0); /* CD-TEXT */
	bench_free(b);
}
END_TEST

START_TEST(what_drivers_ask_at_start)
{
	start_board(1000, "");
	clear_power_on();
	ck_assert_uint_eq(PACKET(0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128), 0); /* sr: capabilities */
	ck_assert_uint_eq(reply_len, 30);
	ck_assert_uint_eq(get_be16(reply), 28);
	ck_assert_uint_eq(reply[8] & 0x3f, 0x2a);
	ck_assert_uint_eq(reply[8 + 6] >> 5, 1); /* tray */
	ck_assert_uint_eq(PACKET(0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0), 0);
	ck_assert_uint_eq(reply_len, 8 + 8 + 16 + 22);
	ck_assert_uint_ne(PACKET(0x5a, 0, 0xea, 0, 0, 0, 0, 0, 128), 0); /* saved values */
	ck_assert_uint_eq(sense(), 0x053900);
	ck_assert_uint_ne(PACKET(0x5a, 0, 0x05, 0, 0, 0, 0, 0, 128), 0); /* write parameters: not a writer */
	ck_assert_uint_eq(sense(), 0x052400);
	ck_assert_uint_eq(PACKET(0x46, 0, 0, 0, 0, 0, 0, 0, 0xff), 0); /* GET CONFIGURATION */
	ck_assert_uint_eq(get_be32(reply), reply_len - 4);
	ck_assert_uint_eq(get_be16(reply + 6), 0x0008);
	ck_assert_uint_eq(PACKET(0x46, 2, 0, 0x1e, 0, 0, 0, 0, 0xff), 0); /* just CD read */
	ck_assert_uint_eq(reply_len, 16);
	ck_assert_uint_eq(reply[10] & 1, 1);
	ck_assert_uint_eq(PACKET(0x51, 0, 0, 0, 0, 0, 0, 0, 34), 0); /* READ DISC INFORMATION */
	ck_assert_uint_eq(reply_len, 34);
	ck_assert_uint_eq(reply[2], 0x0e);
	ck_assert_uint_eq(PACKET(0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8), 0); /* MECHANISM STATUS */
	ck_assert_uint_eq(reply_len, 8);
	ck_assert_uint_eq(PACKET(0x42, 2, 0x40, 1, 0, 0, 0, 0, 16), 0); /* READ SUB-CHANNEL */
	ck_assert_uint_eq(reply[1], 0x15);
	ck_assert_uint_eq(PACKET(0xbb, 0, 0xff, 0xff), 0);          /* SET CD SPEED */
	ck_assert_uint_eq(PACKET(0x2b, 0, 0, 0, 0, 10), 0);         /* SEEK */
	ck_assert_uint_ne(PACKET(0xad, 0, 0, 0, 0, 0, 0, 0, 8), 0); /* no DVD */
	ck_assert_uint_eq(sense(), 0x053002);
	ck_assert_uint_ne(PACKET(0x45), 0); /* PLAY AUDIO */
	ck_assert_uint_eq(sense(), 0x052000);
	bench_free(b);
}
END_TEST

START_TEST(dvd)
{
	start_board(1000000, "");
	clear_power_on();
	ck_assert_uint_eq(PACKET(0x46, 0, 0, 0, 0, 0, 0, 0, 8), 0);
	ck_assert_uint_eq(get_be16(reply + 6), 0x0010);
	ck_assert_uint_eq(PACKET(0xad, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x04), 0);
	ck_assert_uint_eq(reply_len, 2052);
	ck_assert_uint_eq(get_be32(reply + 12), 0x030000 + 999999);
	ck_assert_uint_eq(PACKET(0xad, 0, 0, 0, 0, 0, 0, 1, 0, 8), 0);
	ck_assert_uint_eq(reply_len, 8);
	bench_free(b);
}
END_TEST

START_TEST(no_medium)
{
	start_empty();
	clear_power_on();
	ck_assert_uint_eq(test_unit_ready(), 0x023a01);
	ck_assert_uint_ne(PACKET(0x25), 0);
	ck_assert_uint_eq(sense(), 0x023a01);
	ck_assert_uint_ne(PACKET(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0);
	ck_assert_uint_eq(PACKET(0x46, 0, 0, 0, 0, 0, 0, 0, 8), 0);
	ck_assert_uint_eq(get_be16(reply + 6), 0);      /* no current profile */
	ck_assert_uint_eq(PACKET(0x1b, 0, 0, 0, 2), 0); /* eject: the tray opens empty */
	ck_assert_uint_eq(test_unit_ready(), 0x023a02);
	ck_assert_ptr_nonnull(strstr(bench_event(b, "DEVICE_TRAY_MOVED"), "\"tray-open\": true"));
	bench_free(b);
}
END_TEST

/* Polling as Linux's cdrom_get_media_event() and udisks do: status byte and event code. */
static uint16_t media_event(void)
{
	ck_assert_uint_eq(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0);
	ck_assert_uint_eq(reply_len, 8);
	ck_assert_uint_eq(reply[2], 4);
	return (uint16_t)(reply[4] << 8 | reply[5]);
}

START_TEST(media_change)
{
	char other[80];
	struct block *cd;
	struct err e = ERR_INIT;
	int fd;

	start_board(1000, "");
	cd = block_find("cd");
	clear_power_on();
	ck_assert_uint_eq(test_unit_ready(), 0);
	ck_assert_uint_eq(media_event(), 0x0002);
	snprintf(other, sizeof(other), "%s.two", ide_image);
	fd = open(other, O_RDWR | O_CREAT, 0644);
	ck_assert_int_eq(ftruncate(fd, 77 * 2048), 0);
	close(fd);
	/* the guest locks the tray, the operator has to ask */
	ck_assert_uint_eq(PACKET(0x1e, 0, 0, 0, 1), 0);
	ck_assert_int_eq(block_change_medium(cd, other, "raw", NULL, false, &e), -EINPROGRESS);
	ck_assert_uint_eq(media_event(), 0x0102); /* eject request */
	ck_assert_uint_ne(PACKET(0x1b, 0, 0, 0, 2), 0);
	ck_assert_uint_eq(sense(), 0x055302); /* removal prevented */
	ck_assert_uint_eq(PACKET(0x1e), 0);
	ck_assert_int_eq(block_change_medium(cd, other, "raw", NULL, false, &e), 0);
	/* seen empty once, then attention, then ready */
	ck_assert_uint_eq(media_event(), 0x0302);
	ck_assert_uint_eq(media_event(), 0x0202);
	ck_assert_uint_eq(media_event(), 0x0002);
	ck_assert_uint_eq(test_unit_ready(), 0x023a02);
	ck_assert_uint_eq(test_unit_ready(), 0x062800);
	ck_assert_uint_eq(test_unit_ready(), 0);
	ck_assert_uint_eq(PACKET(0x25), 0);
	ck_assert_uint_eq(get_be32(reply), 76);
	/* eject by the operator, tray stays open; the guest closes it: empty */
	ck_assert_int_eq(block_eject(cd, false, &e), 0);
	ck_assert_uint_eq(test_unit_ready(), 0x023a02);
	ck_assert_uint_eq(PACKET(0x1b, 0, 0, 0, 3), 0);
	ck_assert_uint_eq(test_unit_ready(), 0x023a01);
	ck_assert_int_eq(block_change_medium(cd, ide_image, "raw", NULL, false, &e), 0);
	ck_assert_uint_eq(test_unit_ready(), 0x062800); /* it was seen empty before */
	ck_assert_uint_eq(test_unit_ready(), 0);
	/* the guest ejects and loads the same disc again */
	ck_assert_uint_eq(PACKET(0x1b, 0, 0, 0, 2), 0);
	ck_assert_uint_eq(test_unit_ready(), 0x023a02);
	ck_assert_uint_eq(PACKET(0x1b, 0, 0, 0, 3), 0);
	ck_assert_uint_eq(test_unit_ready(), 0x062800);
	ck_assert_uint_eq(test_unit_ready(), 0);
	unlink(other);
	bench_idle(b); /* events are on their way */
	bench_free(b);
}
END_TEST

/* As libvirt starts a guest with an empty CD-ROM drive, and later puts a disc in. */
START_TEST(device_without_drive)
{
	struct opts o = {0};
	struct err e = ERR_INIT;
	struct block *cd, *disc;

	make_image(400, 400);
	b = bench_new("-m 16 -device ide-cd,bus=ide.1,unit=0,id=ide0-1-0");
	bench_outb(b, DEVICE + D, 0xa0);
	clear_power_on();
	ck_assert_uint_eq(test_unit_ready(), 0x023a01);
	cd = block_next(NULL);
	ck_assert_str_eq(block_qdev_id(cd), "ide0-1-0");
	ck_assert_str_eq(block_id(cd), "");
	ck_assert(block_is_removable(cd) && block_has_tray(cd));
	ck_assert_int_eq(opts_parse(&o, "driver=raw,node-name=disc,read-only=on,file.driver=file", NULL, &e), 0);
	opts_set(&o, "file.filename", ide_image);
	disc = block_open_blockdev(&o, &e);
	opts_free(&o);
	ck_assert_msg(disc != NULL, "%s", e.msg);
	ck_assert_int_eq(block_open_tray(cd, false, &e), 0);
	ck_assert_int_eq(block_insert_medium(cd, "disc", &e), 0);
	ck_assert_int_eq(block_close_tray(cd, &e), 0);
	ck_assert_uint_eq(test_unit_ready(), 0x062800);
	ck_assert_uint_eq(PACKET(0x28, 0, 0, 0, 0, 9, 0, 0, 1), 0);
	check_cd_sector(reply, 9);
	bench_idle(b);
	bench_free(b);
}
END_TEST

START_TEST(read_error)
{
	start_board(500, "");
	clear_power_on();
	ck_assert_int_eq(truncate(ide_image, 22 * 2048), 0);
	ck_assert_uint_ne(PACKET(0x28, 0, 0, 0, 0, 20, 0, 0, 5), 0);
	ck_assert_uint_eq(reply_len, 4096); /* the good ones */
	check_cd_sector(reply + 2048, 21);
	ck_assert_uint_eq(sense(), 0x031100);
	ck_assert_uint_eq(reply[0], 0xf0);
	ck_assert_uint_eq(get_be32(reply + 3), 22);
	bench_free(b);
}
END_TEST

START_TEST(mode_select)
{
	uint8_t list[30] = {[8] = 0x2a, [9] = 20};

	start_board(100, "");
	clear_power_on();
	send_packet((uint8_t[12]){0x55, 0x10, 0, 0, 0, 0, 0, 0, 30}, 0xfffe, false);
	ck_assert_uint_eq(wait_not_busy(b, 1) & DRQ, DRQ);
	ck_assert_uint_eq(bench_inb(b, COUNT + D), 0); /* data, from the host */
	write_words(b, DATA + D, list, 30);
	ck_assert_uint_eq(wait_not_busy(b, 1), DRDY | DSC);
	list[8] = 0x05;
	send_packet((uint8_t[12]){0x55, 0x10, 0, 0, 0, 0, 0, 0, 30}, 0xfffe, false);
	wait_not_busy(b, 1);
	write_words(b, DATA + D, list, 30);
	ck_assert_uint_eq(wait_not_busy(b, 1) & ERR, ERR);
	ck_assert_uint_eq(sense(), 0x052600);
	bench_free(b);
}
END_TEST

/* Saved in the middle of a packet, and of its data. */
START_TEST(save_in_mid_packet)
{
	uint8_t cdb[12] = {0x28, 0, 0, 0, 0, 9, 0, 0, 3}, buf[3 * 2048];

	start_board(100, "");
	clear_power_on();
	bench_outb(b, ERROR + D, 0);
	bench_outb(b, LBA1 + D, 0);
	bench_outb(b, LBA2 + D, 8);
	bench_outb(b, STATUS + D, 0xa0);
	write_words(b, DATA + D, cdb, 6);
	b = bench_save_load(b);
	write_words(b, DATA + D, cdb + 6, 6);
	for (int i = 0; i < 3; i++) {
		wait_not_busy(b, 1);
		read_words(b, DATA + D, buf + 2048 * i, 1000);
		b = bench_save_load(b);
		read_words(b, DATA + D, buf + 2048 * i + 1000, 1048);
	}
	ck_assert_uint_eq(wait_not_busy(b, 1), DRDY | DSC);
	for (uint32_t i = 0; i < 3; i++)
		check_cd_sector(buf + 2048 * i, 9 + i);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("atapi");

	tcase_add_checked_fixture(t, NULL, remove_image);
	tcase_set_timeout(t, 20);
	tcase_add_test(t, probing);
	tcase_add_test(t, inquiry_and_capacity);
	tcase_add_test(t, reading_by_pio);
	tcase_add_test(t, reading_by_dma);
	tcase_add_test(t, read_cd);
	tcase_add_test(t, raw_sector_codes);
	tcase_add_test(t, toc);
	tcase_add_test(t, what_drivers_ask_at_start);
	tcase_add_test(t, dvd);
	tcase_add_test(t, no_medium);
	tcase_add_test(t, media_change);
	tcase_add_test(t, device_without_drive);
	tcase_add_test(t, read_error);
	tcase_add_test(t, mode_select);
	tcase_add_test(t, save_in_mid_packet);
	return run_suite("atapi", (TCase *[]){t, NULL});
}
