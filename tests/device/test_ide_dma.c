/* Bus master DMA: descriptor tables in every shape, transfers, what the status register says, errors, trim, migration.
 */
#include "ide_test.h"

static struct board *b;

static void start_board(uint64_t sectors, const char *more)
{
	char opt[256];

	snprintf(opt, sizeof(opt), "-m 16 -drive file=%s,format=raw%s", make_image(sectors, MIN(sectors, 600ull)),
		 more);
	b = bench_new(opt);
	enable_bus_master(b);
}

/* Issue a DMA command and start the engine; returns the bus master's status once the drive is done. */
static uint8_t run_dma(uint8_t command, bool to_memory)
{
	uint8_t status;

	bench_inb(b, STATUS);
	bench_outb(b, STATUS, command);
	bench_outb(b, BMBA, to_memory ? 9 : 1);
	wait_done(b, 0);
	status = bench_inb(b, BMBA + 2) & 7;
	bench_outb(b, BMBA, 0);
	return status;
}

START_TEST(read_and_write)
{
	struct prd p[] = {{0x100000, 0x1000}, {0x200000, 512}, {0x300000, 0x1000 - 512}};
	uint8_t buf[16 * 512], got[16 * 512];

	start_board(2048, "");
	load_prds(b, 0, p, 3, true);
	set_lba28(b, 40, 16, 0);
	bench_gsi_edges(b, 14);
	ck_assert_uint_eq(run_dma(0xc8, true), 4); /* interrupt, not active, no error */
	ck_assert_uint_eq(bench_gsi_edges(b, 14), 1);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	bench_read(b, 0x100000, buf, 0x1000);
	bench_read(b, 0x200000, buf + 0x1000, 512);
	bench_read(b, 0x300000, buf + 0x1200, 0x1000 - 512);
	for (uint32_t i = 0; i < 16; i++)
		check_sector(buf + 512 * i, 40 + i);
	ck_assert_uint_eq(bench_inb(b, COUNT), 0);
	for (uint32_t i = 0; i < 16; i++)
		fill_sector(buf + 512 * i, 5000 + i);
	bench_write(b, 0x100000, buf, 0x1000);
	bench_write(b, 0x200000, buf + 0x1000, 512);
	bench_write(b, 0x300000, buf + 0x1200, 0x1000 - 512);
	load_prds(b, 0, p, 3, true);
	set_lba48(b, 1500, 16);
	ck_assert_uint_eq(run_dma(0x35, false), 4);
	image_read(1500, got, 16);
	ck_assert_mem_eq(got, buf, sizeof(buf));
	bench_free(b);
}
END_TEST

/* Descriptors of 2, 510, 1022, 6 ... bytes: cut anywhere, at odd host addresses. */
START_TEST(tiny_and_odd_descriptors)
{
	struct prd p[300];
	uint32_t total = 0, addr = 0x100002;
	uint8_t buf[64];
	int n = 0;

	start_board(2048, "");
	while (total < 32 * 512) {
		uint32_t len = n % 3 == 0 ? 2 : n % 3 == 1 ? 510 : 62;

		len = MIN(len, 32 * 512 - total);
		p[n++] = (struct prd){addr, len};
		total += len;
		addr += len + 6;
	}
	load_prds(b, 0, p, n, true);
	set_lba28(b, 7, 32, 0);
	ck_assert_uint_eq(run_dma(0xc8, true), 4);
	total = 0;
	for (int i = 0; i < n; i++) {
		uint8_t want[1024], got[1024];

		fill_sector(want, 7 + total / 512);
		fill_sector(want + 512, 8 + total / 512);
		bench_read(b, p[i].addr, got, p[i].len);
		ck_assert_mem_eq(got, want + total % 512, p[i].len);
		total += p[i].len;
	}
	/* 256 descriptors of 2 bytes are one sector. */
	for (n = 0; n < 256; n++)
		p[n] = (struct prd){0x180000 + 4u * (uint32_t)n, 2};
	load_prds(b, 0, p, 256, true);
	set_lba28(b, 9, 1, 0);
	ck_assert_uint_eq(run_dma(0xc8, true), 4);
	bench_read(b, 0x180000, buf, 2);
	ck_assert_uint_eq(get_le16(buf), 9);
	bench_free(b);
}
END_TEST

/* A length of 0 is 64 KiB; 256 sectors are two of them. */
START_TEST(zero_length_is_64k)
{
	struct prd p[] = {{0x100000, 0}, {0x120000, 0}};
	uint8_t sector[512];

	start_board(2048, "");
	load_prds(b, 0, p, 2, true);
	set_lba28(b, 0, 0, 0);
	ck_assert_uint_eq(run_dma(0xc8, true), 4);
	bench_read(b, 0x10fe00, sector, 512);
	check_sector(sector, 127);
	bench_read(b, 0x120000, sector, 512);
	check_sector(sector, 128);
	bench_read(b, 0x12fe00, sector, 512);
	check_sector(sector, 255);
	bench_free(b);
}
END_TEST

/* The three rows of the data sheet's status table. */
START_TEST(table_length_against_transfer)
{
	struct prd exact = {0x100000, 1024}, shorter = {0x100000, 0x10}, longer = {0x100000, 4096};

	start_board(2048, "");
	load_prds(b, 0, &exact, 1, true);
	set_lba28(b, 0, 2, 0);
	ck_assert_uint_eq(run_dma(0xc8, true), 4);
	/* Too short: inactive, no interrupt, and the drive is not left hanging. */
	bench_inb(b, STATUS);
	load_prds(b, 0, &shorter, 1, true);
	set_lba28(b, 0, 1, 0);
	ck_assert_uint_eq(run_dma(0xc8, true), 0);
	ck_assert(!bench_gsi(b, 14));
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	/* Long: interrupt while still active. */
	load_prds(b, 0, &longer, 1, true);
	set_lba28(b, 0, 1, 0);
	ck_assert_uint_eq(run_dma(0xc8, true), 5);
	bench_outb(b, BMBA + 2, 4);
	ck_assert_uint_eq(bench_inb(b, BMBA + 2) & 5, 0); /* stopped, acknowledged */
	bench_free(b);
}
END_TEST

START_TEST(bad_addresses)
{
	struct prd p = {0xa0000000, 512};

	start_board(2048, "");
	load_prds(b, 0, &p, 1, true);
	set_lba28(b, 0, 1, 0);
	ck_assert_uint_eq(run_dma(0xc8, true), 6); /* error, interrupt */
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC | ERR);
	ck_assert_uint_eq(bench_inb(b, ERROR), 4);
	/* The table itself in nowhere */
	bench_outb(b, BMBA + 2, 6);
	bench_outl(b, BMBA + 4, 0xfff00000);
	set_lba28(b, 0, 1, 0);
	ck_assert_uint_eq(run_dma(0xca, false) & 2, 2);
	/* Not allowed to master: nothing is moved. */
	bench_pci_writew(b, IDE_DEVFN, 4, 1);
	p.addr = 0x100000;
	bench_writel(b, 0x100000, 0x12345678);
	load_prds(b, 0, &p, 1, true);
	set_lba28(b, 0, 1, 0);
	run_dma(0xc8, true);
	ck_assert_uint_eq(bench_readl(b, 0x100000), 0x12345678);
	/* A table without end, of entries that go round and round, ends. */
	bench_pci_writew(b, IDE_DEVFN, 4, 5);
	p = (struct prd){0x100000, 2};
	load_prds(b, 0, &p, 1, false);
	set_lba48(b, 0, 600);
	run_dma(0x25, true);
	bench_free(b);
}
END_TEST

/* The engine may be started before the command, and a request larger than one host request is whole. */
START_TEST(start_first_and_large)
{
	struct prd p[48];
	uint8_t sector[512];

	start_board(8192, "");
	for (uint32_t i = 0; i < 48; i++)
		p[i] = (struct prd){0x100000 + i * 0x10000, 0};
	load_prds(b, 0, p, 48, true);
	set_lba48(b, 0, 48 * 128);
	bench_outb(b, BMBA, 9);
	bench_outb(b, STATUS, 0x25);
	wait_done(b, 0);
	ck_assert_uint_eq(bench_inb(b, BMBA + 2) & 7, 4);
	bench_outb(b, BMBA, 0);
	for (uint32_t i = 0; i < 600; i += 37) {
		bench_read(b, 0x100000 + i * 512, sector, 512);
		check_sector(sector, i);
	}
	bench_free(b);
}
END_TEST

/* The host stops the engine in mid-transfer and starts it again with a new table: the rest goes there. */
START_TEST(stopped_between_chunks)
{
	struct prd p[32], rest = {0x400000, 0};
	uint8_t sector[512];

	start_board(8192, "");
	for (uint32_t i = 0; i < 32; i++)
		p[i] = (struct prd){0x100000 + i * 0x10000, 0};
	load_prds(b, 0, p, 32, true);
	set_lba48(b, 0, 4096); /* two chunks of 1 MiB */
	bench_outb(b, STATUS, 0x25);
	bench_outb(b, BMBA, 9);
	bench_outb(b, BMBA, 8);
	bench_idle(b);
	ck_assert_uint_eq(bench_inb(b, CONTROL) & (BSY | DRQ), DRQ); /* waits for the engine */
	ck_assert_uint_eq(bench_inb(b, BMBA + 2) & 1, 0);
	for (int i = 0; i < 16; i++)
		p[i] = rest, rest.addr += 0x10000;
	load_prds(b, 0, p, 16, true);
	bench_outb(b, BMBA, 9);
	wait_done(b, 0);
	ck_assert_uint_eq(bench_inb(b, BMBA + 2) & 7, 4);
	bench_read(b, 0x100000, sector, 512);
	check_sector(sector, 0);
	bench_free(b);
}
END_TEST

START_TEST(error_names_the_sector)
{
	struct prd p = {0x100000, 8 * 512};
	uint8_t sector[512];

	start_board(2048, "");
	ck_assert_int_eq(truncate(ide_image, 103 * 512), 0);
	load_prds(b, 0, &p, 1, true);
	set_lba28(b, 100, 8, 0);
	ck_assert_uint_eq(run_dma(0xc8, true), 4);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC | ERR);
	ck_assert_uint_eq(bench_inb(b, ERROR), 0x40);
	ck_assert_uint_eq(bench_inb(b, LBA0), 103);
	bench_read(b, 0x100000 + 1024, sector, 512);
	check_sector(sector, 102); /* what came before the error is there */
	bench_free(b);
}
END_TEST

static bool is_stopped(void *opaque)
{
	return machine_run_state(opaque) == RUN_IO_ERROR;
}

/* rerror=stop in mid-DMA, saved while stopped, loaded elsewhere, continued: the transfer is complete. */
START_TEST(stopped_dma_is_saved_and_retried)
{
	struct prd p = {0x100000, 8 * 512};
	uint8_t sector[512];
	int fd;

	start_board(2048, ",rerror=stop");
	ck_assert_int_eq(machine_cont(b, NULL), 0);
	ck_assert_int_eq(truncate(ide_image, 103 * 512), 0);
	load_prds(b, 0, &p, 1, true);
	set_lba28(b, 100, 8, 0);
	bench_outb(b, STATUS, 0xc8);
	bench_outb(b, BMBA, 9);
	bench_wait(b, is_stopped, b);
	fd = open(ide_image, O_WRONLY);
	for (uint32_t i = 103; i < 2048; i++) {
		fill_sector(sector, i);
		ck_assert_int_eq(pwrite(fd, sector, 512, (off_t)i * 512), 512);
	}
	close(fd);
	b = bench_save_load(b);
	ck_assert_int_eq(machine_cont(b, NULL), 0);
	wait_done(b, 0);
	ck_assert_uint_eq(bench_inb(b, BMBA + 2) & 7, 4);
	for (uint32_t i = 0; i < 8; i++) {
		bench_read(b, 0x100000 + 512 * i, sector, 512);
		check_sector(sector, 100 + i);
	}
	bench_free(b);
}
END_TEST

START_TEST(trim_frees_space)
{
	struct prd p = {0x100000, 512};
	struct stat before, after;
	uint8_t list[512] = {0};

	start_board(8192, ",discard=unmap");
	ck_assert_int_eq(stat(ide_image, &before), 0);
	put_le64(list + 8, 8 | 256ull << 48); /* after an empty entry: sectors 8..263 */
	put_le64(list + 16, 264 | 128ull << 48);
	bench_write(b, 0x100000, list, 512);
	load_prds(b, 0, &p, 1, true);
	set_lba48(b, 0, 1);
	bench_outb(b, ERROR, 1);
	ck_assert_uint_eq(run_dma(0x06, false), 4);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC);
	ck_assert_int_eq(stat(ide_image, &after), 0);
	ck_assert_int_lt(after.st_blocks, before.st_blocks - 300);
	image_read(8, list, 1);
	for (int i = 0; i < 512; i++)
		ck_assert_uint_eq(list[i], 0);
	image_read(7, list, 1);
	check_sector(list, 7);
	/* an entry beyond the end is refused, and so is a request that is no TRIM */
	memset(list, 0, sizeof(list));
	put_le64(list, 8000 | 500ull << 48);
	bench_write(b, 0x100000, list, 512);
	load_prds(b, 0, &p, 1, true);
	set_lba48(b, 0, 1);
	bench_outb(b, ERROR, 1);
	run_dma(0x06, false);
	ck_assert_uint_eq(bench_inb(b, ERROR), 0x10);
	bench_outb(b, ERROR, 0);
	bench_outb(b, STATUS, 0x06);
	ck_assert_uint_eq(bench_inb(b, STATUS), DRDY | DSC | ERR);
	bench_free(b);
}
END_TEST

START_TEST(registers)
{
	start_board(2048, "");
	bench_outl(b, BMBA + 4, 0x12345677);
	ck_assert_uint_eq(bench_inl(b, BMBA + 4), 0x12345674);
	bench_outb(b, BMBA + 2, 0x60);
	ck_assert_uint_eq(bench_inb(b, BMBA + 2), 0x60);
	bench_outl(b, BMBA + 12, 0x80000000);
	ck_assert_uint_eq(bench_inl(b, BMBA + 12), 0x80000000);
	ck_assert_uint_eq(bench_inl(b, BMBA + 4), 0x12345674);
	bench_outb(b, BMBA + 8, 0xff);
	ck_assert_uint_eq(bench_inb(b, BMBA + 8), 9);
	bench_reset(b);
	enable_bus_master(b);
	ck_assert_uint_eq(bench_inl(b, BMBA + 4), 0);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("ide-dma");

	tcase_add_checked_fixture(t, NULL, remove_image);
	tcase_add_test(t, read_and_write);
	tcase_add_test(t, tiny_and_odd_descriptors);
	tcase_add_test(t, zero_length_is_64k);
	tcase_add_test(t, table_length_against_transfer);
	tcase_add_test(t, bad_addresses);
	tcase_add_test(t, start_first_and_large);
	tcase_add_test(t, stopped_between_chunks);
	tcase_add_test(t, error_names_the_sector);
	tcase_add_test(t, stopped_dma_is_saved_and_retried);
	tcase_add_test(t, trim_frees_space);
	tcase_add_test(t, registers);
	return run_suite("ide-dma", (TCase *[]){t, NULL});
}
