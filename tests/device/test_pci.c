/* The PCI bus: configuration cycles, BARs, INTx, MSI and MSI-X as a guest meets them. */
#include "bench.h"
#include "vmm/pci.h"

#include <errno.h>

#include <stdlib.h>
#include <string.h>

#define PVPANIC (4 << 3)
#define BAR0    0x10

START_TEST(configuration_address_takes_dwords_only)
{
	struct board *b = bench_new("-m 16");

	bench_outl(b, 0xcf8, 0x80000000);
	ck_assert_uint_eq(bench_inl(b, 0xcf8), 0x80000000);
	bench_outw(b, 0xcf8, 0x1234);
	bench_outb(b, 0xcf8, 0x55);
	ck_assert_uint_eq(bench_inl(b, 0xcf8), 0x80000000);
	bench_outl(b, 0xcf8, 0xffffffff); /* reserved bits read 0 */
	ck_assert_uint_eq(bench_inl(b, 0xcf8), 0x80fffffc);
	bench_free(b);
}
END_TEST

START_TEST(functions_answer_bytes_words_and_dwords)
{
	struct board *b = bench_new("-m 16");

	ck_assert_uint_eq(bench_pci_readl(b, 0, 0), 0x12378086);
	ck_assert_uint_eq(bench_pci_readw(b, 0, 2), 0x1237);
	ck_assert_uint_eq(bench_pci_readb(b, 0, 3), 0x12);
	ck_assert_uint_eq(bench_pci_readl(b, 1 << 3, 0), 0x70008086);
	ck_assert_uint_eq(bench_pci_readl(b, 1 << 3 | 3, 0), 0x71138086);
	ck_assert_uint_eq(bench_pci_readl(b, 0, 8), 0x06000002);
	ck_assert_uint_eq(bench_pci_readl(b, 0, 0x2c), 0x11001af4);
	/* Several functions in slot 1, one in slot 0 */
	ck_assert_uint_eq(bench_pci_readb(b, 1 << 3, 0xe), 0x80);
	ck_assert_uint_eq(bench_pci_readb(b, 0, 0xe), 0x00);
	bench_free(b);
}
END_TEST

START_TEST(nobody_there_reads_ones)
{
	struct board *b = bench_new("-m 16");

	ck_assert_uint_eq(bench_pci_readl(b, 31 << 3, 0), 0xffffffff);
	bench_pci_writel(b, 31 << 3, 4, 7);
	bench_outl(b, 0xcf8, 0x80010000); /* bus 1 */
	ck_assert_uint_eq(bench_inl(b, 0xcfc), 0xffffffff);
	bench_outl(b, 0xcf8, 0x00000000); /* mechanism off */
	ck_assert_uint_eq(bench_inl(b, 0xcfc), 0xffffffff);
	bench_free(b);
}
END_TEST

START_TEST(bar_is_sized_mapped_and_moved)
{
	struct board *b = bench_new("-m 16 -device pvpanic-pci,addr=4");

	ck_assert_uint_eq(bench_pci_readl(b, PVPANIC, 0), 0x00111b36);
	bench_pci_writel(b, PVPANIC, BAR0, 0xffffffff);
	ck_assert_uint_eq(bench_pci_readl(b, PVPANIC, BAR0), 0xfffffff0);
	bench_pci_writel(b, PVPANIC, BAR0, 0xe0000000);
	ck_assert_uint_eq(bench_readb(b, 0xe0000000), 0xff); /* not decoding yet */
	bench_pci_writew(b, PVPANIC, 4, PCI_CMD_MEM);
	ck_assert_uint_eq(bench_readb(b, 0xe0000000), 3);
	bench_pci_writel(b, PVPANIC, BAR0, 0xe0001000);
	ck_assert_uint_eq(bench_readb(b, 0xe0000000), 0xff);
	ck_assert_uint_eq(bench_readb(b, 0xe0001000), 3);
	bench_pci_writew(b, PVPANIC, 4, 0);
	ck_assert_uint_eq(bench_readb(b, 0xe0001000), 0xff);
	bench_free(b);
}
END_TEST

START_TEST(bar_does_not_hide_ram_nor_decode_while_probed)
{
	struct board *b = bench_new("-m 16 -device pvpanic-pci,addr=4");

	bench_writeb(b, 0x100000, 0x77);
	bench_pci_writew(b, PVPANIC, 4, PCI_CMD_MEM);
	bench_pci_writel(b, PVPANIC, BAR0, 0x100000);
	ck_assert_uint_eq(bench_readb(b, 0x100000), 0x77);
	uint8_t rom = bench_readb(b, 0xfffffff0);
	bench_pci_writel(b, PVPANIC, BAR0, 0xffffffff);
	ck_assert_uint_eq(bench_readb(b, 0xfffffff0), rom);
	bench_free(b);
}
END_TEST

START_TEST(reset_unmaps_and_state_keeps_the_bar)
{
	struct board *b = bench_new("-m 16 -device pvpanic-pci,addr=4");

	bench_pci_writel(b, PVPANIC, BAR0, 0xe0000000);
	bench_pci_writew(b, PVPANIC, 4, PCI_CMD_MEM);
	bench_pci_writeb(b, PVPANIC, 0x3c, 11);
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_readb(b, 0xe0000000), 3);
	ck_assert_uint_eq(bench_pci_readb(b, PVPANIC, 0x3c), 11);
	bench_reset(b);
	ck_assert_uint_eq(bench_readb(b, 0xe0000000), 0xff);
	ck_assert_uint_eq(bench_pci_readl(b, PVPANIC, BAR0), 0);
	ck_assert_uint_eq(bench_pci_readb(b, PVPANIC, 0x3c), 0);
	bench_free(b);
}
END_TEST

START_TEST(slots_are_chosen_and_conflicts_named)
{
	struct board *b =
		bench_new("-m 16 -device pvpanic-pci,id=a -device pvpanic-pci,addr=7.1 -device pvpanic-pci,addr=7.0");

	ck_assert_uint_eq(device_find(b, "a")->pci->devfn, 2 << 3);
	ck_assert_uint_eq(bench_pci_readb(b, 7 << 3, 0xe), 0x80);
	ck_assert_uint_eq(bench_pci_readl(b, 7 << 3 | 1, 0), 0x00111b36);
	bench_free(b);
}
END_TEST

START_TEST(occupied_slot_is_refused_by_name)
{
	const char *msg = bench_new_fails("-m 16 -device pvpanic-pci,addr=4,id=first -device pvpanic-pci,addr=4");

	ck_assert_ptr_nonnull(strstr(msg, "first"));
	ck_assert_ptr_nonnull(strstr(msg, "0x4.0"));
}
END_TEST

START_TEST(bus_master_bit_gates_dma)
{
	struct board *b = bench_new("-m 16 -device pvpanic-pci,addr=4,id=p");
	struct device *dev = device_find(b, "p");
	uint8_t v = 0x5a;

	ck_assert_int_lt(dma_write(dev, 0x1000, &v, 1), 0);
	bench_pci_writew(b, PVPANIC, 4, PCI_CMD_MASTER);
	ck_assert_int_eq(dma_write(dev, 0x1000, &v, 1), 0);
	ck_assert_uint_eq(bench_readb(b, 0x1000), 0x5a);
	bench_free(b);
}
END_TEST

/* ---- a function with every kind of BAR and interrupt, which no chip of the board has yet ---- */

static uint64_t probe_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return 0x10 * (r - dev->regions) + offset;
}

static const struct region_ops probe_ops = {.read = probe_read, .max_access = 1};
static const struct region_desc probe_regions[] = {
	{.name = "io", .space = SPACE_PIO, .bar = 0, .size = 20, .ops = &probe_ops},
	{.name = "low", .space = SPACE_MMIO, .bar = 2, .size = 0x1800, .ops = &probe_ops},
	{.name = "high", .space = SPACE_MMIO, .bar = 2, .base = 0x2000, .size = 0x100, .ops = &probe_ops},
};
static const struct pci_identity probe_identity = {
	.vendor = 0x1234,
	.device = 0x5678,
	.class_code = 0xff0000,
	.int_pin = 1,
	.bar = {[0] = {PCI_BAR_IO}, [2] = {PCI_BAR_MEM64_PREFETCH}, [4] = {PCI_BAR_MEM32}},
	.msix_vectors = 3,
	.msix_bar = 4,
	.msi = true,
};
static const struct device_class probe_class = {
	.name = "probe",
	.bus = BUS_PCI,
	.size = sizeof(struct device),
	.regions = probe_regions,
	.n_regions = ARRAY_SIZE(probe_regions),
	.n_irqs = 1,
	.pci = &probe_identity,
	.stateless = "test",
};

#define PROBE    (6 << 3)
#define MSIX_BAR 0xe1000000u

/* What the device core does for a device of the registry. */
static struct device *probe_new(struct board *b)
{
	static struct device dev;
	struct err e = ERR_INIT;

	memset(&dev, 0, sizeof(dev));
	dev.class = &probe_class;
	dev.board = b;
	dev.lock = &dev.own_lock;
	strcpy(dev.id, "probe");
	pthread_mutex_init(&dev.own_lock, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(probe_regions); i++)
		dev.regions[i] = (struct region){
			.desc = &probe_regions[i], .dev = &dev, .size = probe_regions[i].size, .kind = REGION_IO};
	dev.irq[0].fabric = device_find_class(b, "PIIX4_PM")->irq[0].fabric;
	ck_assert_msg(!pci_attach(device_find_class(b, "i440FX-pcihost"), &dev, PROBE, &e), "%s", e.msg);
	ck_assert_msg(!pci_realize(&dev, &e), "%s", e.msg);
	pci_function_reset(&dev);
	pci_function_settle(&dev);
	return &dev;
}

START_TEST(bars_of_each_kind)
{
	struct board *b = bench_new("-m 16");
	struct device *dev = probe_new(b);

	for (unsigned reg = 0x10; reg < 0x28; reg += 4)
		bench_pci_writel(b, PROBE, reg, 0xffffffff);
	ck_assert_uint_eq(bench_pci_readl(b, PROBE, 0x10), 0xffffffe1); /* 20 ports take 32 */
	ck_assert_uint_eq(bench_pci_readl(b, PROBE, 0x14), 0);
	ck_assert_uint_eq(bench_pci_readl(b, PROBE, 0x18), 0xffffc00c); /* 64 bits, prefetchable */
	ck_assert_uint_eq(bench_pci_readl(b, PROBE, 0x1c), 0xffffffff);
	ck_assert_uint_eq(bench_pci_readl(b, PROBE, 0x20), 0xfffff000);

	bench_pci_writel(b, PROBE, 0x10, 0xc000);
	bench_pci_writel(b, PROBE, 0x18, 0);
	bench_pci_writel(b, PROBE, 0x1c, 1); /* 4 GiB */
	bench_pci_writel(b, PROBE, 0x20, MSIX_BAR);
	bench_pci_writew(b, PROBE, 4, PCI_CMD_IO | PCI_CMD_MEM);
	ck_assert_uint_eq(bench_inb(b, 0xc003), 3);
	ck_assert_uint_eq(bench_inb(b, 0xc014), 0xff);
	ck_assert_uint_eq(bench_readb(b, 0x100000005), 0x15);
	ck_assert_uint_eq(bench_readb(b, 0x100002007), 0x27);
	bench_pci_writel(b, PROBE, 0x10, 0x1c000); /* beyond the 64 K ports: nowhere */
	ck_assert_uint_eq(bench_inb(b, 0xc003), 0xff);
	pci_detach(dev);
	pci_free(dev);
	ck_assert_uint_eq(bench_pci_readl(b, PROBE, 0), 0xffffffff);
	ck_assert_uint_eq(bench_readb(b, 0x100000005), 0xff);
	bench_free(b);
}
END_TEST

static unsigned find_cap(struct board *b, uint8_t id)
{
	ck_assert_uint_eq(bench_pci_readw(b, PROBE, 6) & 0x10, 0x10);
	for (unsigned p = bench_pci_readb(b, PROBE, 0x34); p; p = bench_pci_readb(b, PROBE, p + 1))
		if (bench_pci_readb(b, PROBE, p) == id)
			return p;
	ck_abort_msg("no capability %#x", id);
}

START_TEST(intx_reaches_the_routed_irq)
{
	struct board *b = bench_new("-m 16");
	struct device *dev = probe_new(b);

	/* Slot 6, INTA: PIRQB */
	bench_pci_writeb(b, 1 << 3, 0x61, 11);
	pci_set_intx(dev, true);
	ck_assert(bench_gsi(b, 11));
	ck_assert_uint_eq(bench_pci_readw(b, PROBE, 6) & 8, 8);
	bench_pci_writew(b, PROBE, 4, PCI_CMD_INTX_OFF);
	ck_assert(!bench_gsi(b, 11));
	ck_assert_uint_eq(bench_pci_readw(b, PROBE, 6) & 8, 8);
	bench_pci_writew(b, PROBE, 4, 0);
	ck_assert(bench_gsi(b, 11));
	bench_pci_writeb(b, 1 << 3, 0x61, 10); /* re-routed while asserted */
	ck_assert(!bench_gsi(b, 11));
	ck_assert(bench_gsi(b, 10));
	pci_set_intx(dev, false);
	ck_assert(!bench_gsi(b, 10));
	ck_assert_uint_eq(bench_pci_readw(b, PROBE, 6) & 8, 0);
	pci_detach(dev);
	pci_free(dev);
	bench_free(b);
}
END_TEST

START_TEST(msi_is_sent_when_enabled)
{
	struct board *b = bench_new("-m 16");
	struct device *dev = probe_new(b);
	unsigned cap = find_cap(b, 5);
	uint32_t data;

	pci_msix_notify(dev, 0);
	ck_assert_uint_eq(bench_msis(b, &data), 0);
	bench_pci_writel(b, PROBE, cap + 4, 0xfee00000);
	bench_pci_writew(b, PROBE, cap + 12, 0x4041);
	bench_pci_writew(b, PROBE, cap + 2, 1);
	ck_assert(pci_msi_enabled(dev));
	pci_msix_notify(dev, 0);
	ck_assert_uint_eq(bench_msis(b, &data), 1);
	ck_assert_uint_eq(data, 0x4041);
	pci_detach(dev);
	pci_free(dev);
	bench_free(b);
}
END_TEST

START_TEST(msix_masks_and_keeps_pending)
{
	struct board *b = bench_new("-m 16");
	struct device *dev = probe_new(b);
	unsigned cap = find_cap(b, 0x11);
	uint32_t data, pba;

	ck_assert_uint_eq(bench_pci_readw(b, PROBE, cap + 2), 2);
	ck_assert_uint_eq(bench_pci_readl(b, PROBE, cap + 4), 4);
	pba = bench_pci_readl(b, PROBE, cap + 8);
	ck_assert_uint_eq(pba & 7, 4);
	pba = MSIX_BAR + (pba & ~7u);
	bench_pci_writel(b, PROBE, 0x20, MSIX_BAR);
	bench_pci_writew(b, PROBE, 4, PCI_CMD_MEM);
	ck_assert_uint_eq(bench_readl(b, MSIX_BAR + 16 + 12), 1); /* masked after reset */
	bench_writel(b, MSIX_BAR + 16, 0xfee01000);
	bench_writel(b, MSIX_BAR + 16 + 8, 0x77);
	bench_pci_writew(b, PROBE, cap + 2, 0x8000);
	ck_assert(pci_msix_enabled(dev));
	pci_msix_notify(dev, 1);
	ck_assert_uint_eq(bench_msis(b, NULL), 0);
	ck_assert_uint_eq(bench_readl(b, pba), 2);
	bench_writel(b, MSIX_BAR + 16 + 12, 0);
	ck_assert_uint_eq(bench_msis(b, &data), 1);
	ck_assert_uint_eq(data, 0x77);
	ck_assert_uint_eq(bench_readl(b, pba), 0);
	pci_msix_notify(dev, 1);
	ck_assert_uint_eq(bench_msis(b, NULL), 1);
	/* The function's mask */
	bench_pci_writew(b, PROBE, cap + 2, 0xc000);
	pci_msix_notify(dev, 1);
	ck_assert_uint_eq(bench_msis(b, NULL), 0);
	bench_pci_writew(b, PROBE, cap + 2, 0x8000);
	ck_assert_uint_eq(bench_msis(b, NULL), 1);
	pci_msix_notify(dev, 200); /* no such vector */
	ck_assert_uint_eq(bench_msis(b, NULL), 0);
	bench_writel(b, pba, 0xffffffff); /* read-only */
	ck_assert_uint_eq(bench_readl(b, pba), 0);
	pci_detach(dev);
	pci_free(dev);
	bench_free(b);
}
END_TEST

START_TEST(state_of_another_device_is_refused)
{
	struct board *b = bench_new("-m 16");
	struct device *dev = probe_new(b);
	struct state_buf out = {0};
	struct state_section s;
	struct err e = ERR_INIT;
	size_t used;

	dev->pci->config[0] ^= 1;
	ck_assert_int_eq(state_save(&out, "probe.pci", &pci_function_state, dev->pci, &e), 0);
	dev->pci->config[0] ^= 1;
	ck_assert_int_eq(state_section_parse(out.data, out.len, &s, &used, &e), 0);
	ck_assert_int_eq(state_load(&s, &pci_function_state, dev->pci, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.msg, "probe"));
	state_buf_free(&out);
	pci_detach(dev);
	pci_free(dev);
	bench_free(b);
}
END_TEST

START_TEST(expansion_rom_shows_in_its_bar)
{
	struct board *b = bench_new("-m 16 -vga std");

	bench_pci_writel(b, 2 << 3, 0x30, 0xfffff800);
	uint32_t size = ~bench_pci_readl(b, 2 << 3, 0x30) + 1;
	ck_assert_uint_ge(size, 0x8000);
	bench_pci_writel(b, 2 << 3, 0x30, 0xe0000001);
	bench_pci_writew(b, 2 << 3, 4, PCI_CMD_MEM);
	ck_assert_uint_eq(bench_readw(b, 0xe0000000), 0xaa55);
	bench_writew(b, 0xe0000000, 0);
	ck_assert_uint_eq(bench_readw(b, 0xe0000000), 0xaa55);
	bench_pci_writel(b, 2 << 3, 0x30, 0xe0000000);
	ck_assert_uint_eq(bench_readw(b, 0xe0000000), 0xffff);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("pci");

	tcase_add_test(t, configuration_address_takes_dwords_only);
	tcase_add_test(t, functions_answer_bytes_words_and_dwords);
	tcase_add_test(t, nobody_there_reads_ones);
	tcase_add_test(t, bar_is_sized_mapped_and_moved);
	tcase_add_test(t, bar_does_not_hide_ram_nor_decode_while_probed);
	tcase_add_test(t, reset_unmaps_and_state_keeps_the_bar);
	tcase_add_test(t, slots_are_chosen_and_conflicts_named);
	tcase_add_test(t, occupied_slot_is_refused_by_name);
	tcase_add_test(t, bus_master_bit_gates_dma);
	tcase_add_test(t, bars_of_each_kind);
	tcase_add_test(t, intx_reaches_the_routed_irq);
	tcase_add_test(t, msi_is_sent_when_enabled);
	tcase_add_test(t, msix_masks_and_keeps_pending);
	tcase_add_test(t, state_of_another_device_is_refused);
	tcase_add_test(t, expansion_rom_shows_in_its_bar);
	return run_suite("pci", (TCase *[]){t, NULL});
}
