/* The 8259 pair and the IOAPIC as drivers use them: vectors, priorities, edges and levels, masks, spurious interrupts.
 */
#include "bench.h"
#include "src/machine/board.h"

enum { PIC1 = 0x20, PIC1_DATA = 0x21, PIC2 = 0xa0, PIC2_DATA = 0xa1, ELCR1 = 0x4d0, ELCR2 = 0x4d1 };
enum { EOI = 0x20, READ_IRR = 0x0a, READ_ISR = 0x0b, POLL = 0x0c };
#define IOAPIC 0xfec00000u

/* A device's line into the fabric, driven by the test. */
static struct irq_line line(struct board *b, unsigned gsi)
{
	return (struct irq_line){.fabric = &b->irq, .kind = IRQ_GSI, .input = (uint8_t)gsi};
}

static uint8_t ack(struct board *b)
{
	ck_assert(bench_intr(b));
	return irq_exit_pic_ack(b);
}

/* Linux's init_8259A(): vectors 30h and 38h, everything masked. */
static void pic_init(struct board *b, uint8_t icw4)
{
	bench_outb(b, PIC1_DATA, 0xff);
	bench_outb(b, PIC2_DATA, 0xff);
	bench_outb(b, PIC1, 0x11);
	bench_outb(b, PIC1_DATA, 0x30);
	bench_outb(b, PIC1_DATA, 0x04);
	bench_outb(b, PIC1_DATA, icw4);
	bench_outb(b, PIC2, 0x11);
	bench_outb(b, PIC2_DATA, 0x38);
	bench_outb(b, PIC2_DATA, 0x02);
	bench_outb(b, PIC2_DATA, 0x01);
	bench_outb(b, PIC1_DATA, 0xff);
	bench_outb(b, PIC2_DATA, 0xff);
}

static struct board *pic_board(void)
{
	struct board *b = bench_new("-m 16");

	pic_init(b, 0x01);
	return b;
}

START_TEST(linux_probe_finds_a_pic)
{
	struct board *b = pic_board();

	/* probe_8259A(): a mask written is read back; NULL_PIC otherwise */
	bench_outb(b, PIC2_DATA, 0xff);
	bench_outb(b, PIC1_DATA, 0xfb);
	ck_assert_uint_eq(bench_inb(b, PIC1_DATA), 0xfb);
	bench_free(b);
}
END_TEST

START_TEST(edge_gives_its_vector_once)
{
	struct board *b = pic_board();
	struct irq_line l = line(b, 4);

	irq_set(&l, true);
	ck_assert_msg(!bench_intr(b), "a masked interrupt reached the CPU");
	bench_outb(b, PIC1_DATA, 0xef);
	ck_assert_uint_eq(ack(b), 0x34);
	ck_assert(!bench_intr(b));
	bench_outb(b, PIC1, READ_ISR);
	ck_assert_uint_eq(bench_inb(b, PIC1), 0x10);
	bench_outb(b, PIC1, EOI);
	ck_assert_uint_eq(bench_inb(b, PIC1), 0x00);
	ck_assert_msg(!bench_intr(b), "a high edge-triggered line interrupted again after EOI");
	irq_set(&l, false);
	irq_set(&l, true);
	ck_assert_uint_eq(ack(b), 0x34);
	bench_free(b);
}
END_TEST

START_TEST(level_comes_again_until_the_line_falls)
{
	struct board *b = pic_board();
	struct irq_line l = line(b, 11);

	bench_outb(b, ELCR2, 0xff);
	ck_assert_uint_eq(bench_inb(b, ELCR2), 0xde);
	bench_outb(b, ELCR1, 0xff);
	ck_assert_uint_eq(bench_inb(b, ELCR1), 0xf8);
	bench_outb(b, PIC1_DATA, 0xfb);
	bench_outb(b, PIC2_DATA, 0xf7);
	irq_set(&l, true);
	ck_assert_uint_eq(ack(b), 0x3b);
	bench_outb(b, PIC2, 0x63); /* specific EOI of IR3, then of the cascade */
	bench_outb(b, PIC1, 0x62);
	ck_assert_uint_eq(ack(b), 0x3b);
	irq_set(&l, false);
	bench_outb(b, PIC2, 0x63);
	bench_outb(b, PIC1, 0x62);
	ck_assert(!bench_intr(b));
	bench_free(b);
}
END_TEST

START_TEST(elcr_change_sees_the_line)
{
	struct board *b = pic_board();
	struct irq_line l = line(b, 5);

	bench_outb(b, PIC1_DATA, 0xdf);
	irq_set(&l, true);
	ck_assert_uint_eq(ack(b), 0x35);
	bench_outb(b, PIC1, EOI);
	ck_assert(!bench_intr(b));
	bench_outb(b, ELCR1, 0x20);
	ck_assert_msg(bench_intr(b), "a line already high must request once it is level triggered");
	bench_free(b);
}
END_TEST

START_TEST(priorities_nest)
{
	struct board *b = pic_board();
	struct irq_line l5 = line(b, 5), l3 = line(b, 3), l10 = line(b, 10), l7 = line(b, 7);

	bench_outb(b, PIC1_DATA, 0x00);
	bench_outb(b, PIC2_DATA, 0x00);
	irq_pulse(&l5);
	ck_assert_uint_eq(ack(b), 0x35);
	irq_pulse(&l7);
	ck_assert_msg(!bench_intr(b), "a lower priority interrupted a higher one");
	irq_pulse(&l3);
	ck_assert_uint_eq(ack(b), 0x33);
	irq_pulse(&l10); /* through IR2: above IR3 */
	ck_assert_uint_eq(ack(b), 0x3a);
	bench_outb(b, PIC2, EOI);
	bench_outb(b, PIC1, EOI);
	bench_outb(b, PIC1, EOI);
	ck_assert(!bench_intr(b));
	bench_outb(b, PIC1, EOI);
	ck_assert_uint_eq(ack(b), 0x37);
	bench_free(b);
}
END_TEST

/* A higher slave interrupt while a lower one is in service waits for the master unless SFNM is on. */
START_TEST(special_fully_nested_lets_the_slave_nest)
{
	for (int sfnm = 0; sfnm < 2; sfnm++) {
		struct board *b = bench_new("-m 16");
		struct irq_line l8 = line(b, 8), l12 = line(b, 12);

		pic_init(b, sfnm ? 0x11 : 0x01);
		bench_outb(b, PIC1_DATA, 0x00);
		bench_outb(b, PIC2_DATA, 0x00);
		irq_pulse(&l12);
		ck_assert_uint_eq(ack(b), 0x3c);
		irq_pulse(&l8);
		ck_assert_int_eq(bench_intr(b), sfnm);
		if (!sfnm) {
			bench_outb(b, PIC1, EOI);
			ck_assert(bench_intr(b));
		}
		ck_assert_uint_eq(ack(b), 0x38);
		bench_free(b);
	}
}
END_TEST

START_TEST(special_mask_frees_lower_levels)
{
	struct board *b = pic_board();
	struct irq_line l2 = line(b, 1), l6 = line(b, 6);

	bench_outb(b, PIC1_DATA, 0x00);
	irq_pulse(&l2);
	ck_assert_uint_eq(ack(b), 0x31);
	irq_pulse(&l6);
	ck_assert(!bench_intr(b));
	bench_outb(b, PIC1_DATA, 0x02);
	bench_outb(b, PIC1, 0x68);
	ck_assert_uint_eq(ack(b), 0x36);
	bench_outb(b, PIC1, EOI); /* not the masked level 1 */
	bench_outb(b, PIC1, READ_ISR);
	ck_assert_uint_eq(bench_inb(b, PIC1), 0x02);
	bench_free(b);
}
END_TEST

START_TEST(rotation_and_automatic_eoi)
{
	struct board *b = bench_new("-m 16");
	struct irq_line l3 = line(b, 3), l4 = line(b, 4);

	pic_init(b, 0x03); /* AEOI */
	bench_outb(b, PIC1_DATA, 0x00);
	irq_pulse(&l3);
	ck_assert_uint_eq(ack(b), 0x33);
	bench_outb(b, PIC1, READ_ISR);
	ck_assert_uint_eq(bench_inb(b, PIC1), 0x00);
	pic_init(b, 0x01);
	bench_outb(b, PIC1_DATA, 0x00);
	irq_pulse(&l3);
	ck_assert_uint_eq(ack(b), 0x33);
	bench_outb(b, PIC1, 0xa0); /* rotate on EOI: 3 is lowest now */
	irq_pulse(&l3);
	irq_pulse(&l4);
	ck_assert_uint_eq(ack(b), 0x34);
	bench_outb(b, PIC1, EOI);
	ck_assert_uint_eq(ack(b), 0x33);
	bench_outb(b, PIC1, EOI);
	bench_outb(b, PIC1, 0xc3); /* set priority: 3 lowest */
	irq_pulse(&l3);
	irq_pulse(&l4);
	ck_assert_uint_eq(ack(b), 0x34);
	bench_free(b);
}
END_TEST

/* What Linux tells a spurious interrupt by: the vector of IR7 with no bit in ISR. */
START_TEST(spurious_interrupts)
{
	struct board *b = pic_board();
	struct irq_line l6 = line(b, 6), l14 = line(b, 14);

	bench_outb(b, ELCR1, 0x40);
	bench_outb(b, ELCR2, 0x40);
	bench_outb(b, PIC1_DATA, 0xbb);
	bench_outb(b, PIC2_DATA, 0xbf);
	irq_set(&l6, true);
	ck_assert(bench_intr(b));
	irq_set(&l6, false);
	ck_assert_uint_eq(irq_exit_pic_ack(b), 0x37);
	bench_outb(b, PIC1, READ_ISR);
	ck_assert_uint_eq(bench_inb(b, PIC1), 0);
	irq_set(&l14, true);
	irq_set(&l14, false);
	ck_assert_uint_eq(ack(b), 0x3f);
	bench_outb(b, PIC2, READ_ISR);
	ck_assert_uint_eq(bench_inb(b, PIC2), 0);
	ck_assert_uint_eq(bench_inb(b, PIC1), 0x04);
	bench_free(b);
}
END_TEST

START_TEST(poll_acknowledges)
{
	struct board *b = pic_board();
	struct irq_line l5 = line(b, 5), l9 = line(b, 9);

	bench_outb(b, PIC1_DATA, 0x00);
	bench_outb(b, PIC2_DATA, 0x00);
	bench_outb(b, PIC1, POLL);
	ck_assert_uint_eq(bench_inb(b, PIC1), 0x00);
	irq_pulse(&l5);
	bench_outb(b, PIC1, POLL);
	ck_assert_uint_eq(bench_inb(b, PIC1), 0x85);
	ck_assert(!bench_intr(b));
	bench_outb(b, PIC1, READ_ISR);
	ck_assert_uint_eq(bench_inb(b, PIC1), 0x20);
	bench_outb(b, PIC1, EOI);
	irq_pulse(&l9);
	bench_outb(b, PIC2, POLL);
	ck_assert_uint_eq(bench_inb(b, PIC2), 0x81);
	ck_assert_msg(!bench_intr(b), "the slave's request stayed in the master after a poll of the slave");
	bench_free(b);
}
END_TEST

START_TEST(pic_state_survives)
{
	struct board *b = pic_board();
	struct irq_line l4 = line(b, 4), l12 = line(b, 12);

	bench_outb(b, PIC1_DATA, 0x00);
	bench_outb(b, PIC2_DATA, 0x00);
	bench_outb(b, ELCR2, 0x10);
	irq_pulse(&l4);
	ck_assert_uint_eq(ack(b), 0x34);
	irq_set(&l12, true);
	bench_outb(b, PIC1, 0x11); /* half way through initialisation */
	bench_outb(b, PIC1_DATA, 0x50);
	b = bench_save_load(b);
	bench_outb(b, PIC1_DATA, 0x04);
	bench_outb(b, PIC1_DATA, 0x01);
	ck_assert_uint_eq(ack(b), 0x3c);
	bench_free(b);
}
END_TEST

START_TEST(reset_masks_nothing_but_forgets)
{
	struct board *b = pic_board();
	struct irq_line l4 = line(b, 4);

	bench_outb(b, ELCR1, 0x20);
	irq_pulse(&l4);
	bench_reset(b);
	ck_assert(!bench_intr(b));
	ck_assert_uint_eq(bench_inb(b, ELCR1), 0);
	bench_outb(b, PIC1, READ_IRR);
	ck_assert_uint_eq(bench_inb(b, PIC1), 0);
	bench_free(b);
}
END_TEST

/* ---- IOAPIC ---- */

static uint32_t io_read(struct board *b, unsigned reg)
{
	bench_writel(b, IOAPIC, reg);
	return bench_readl(b, IOAPIC + 0x10);
}

static void io_write(struct board *b, unsigned reg, uint32_t v)
{
	bench_writel(b, IOAPIC, reg);
	bench_writel(b, IOAPIC + 0x10, v);
}

static void io_route(struct board *b, unsigned pin, uint64_t rte)
{
	io_write(b, 0x11 + 2 * pin, (uint32_t)(rte >> 32));
	io_write(b, 0x10 + 2 * pin, (uint32_t)rte);
}

START_TEST(ioapic_registers)
{
	struct board *b = bench_new("-m 16");

	ck_assert_uint_eq(io_read(b, 1), 0x00170011);
	io_write(b, 0, 0xff000000);
	ck_assert_uint_eq(io_read(b, 0), 0x0f000000);
	ck_assert_uint_eq(bench_readl(b, IOAPIC), 0);
	for (unsigned pin = 0; pin < 24; pin++)
		ck_assert_uint_eq(io_read(b, 0x10 + 2 * pin), 0x00010000);
	io_write(b, 0x10, 0xffffffff);
	ck_assert_msg(io_read(b, 0x10) == 0x0001afff, "read-only and reserved bits were written: %#x",
		      io_read(b, 0x10));
	io_write(b, 0x11, 0xffffffff);
	ck_assert_uint_eq(io_read(b, 0x11), 0xff000000);
	ck_assert_uint_eq(io_read(b, 0x40), 0); /* past the table */
	bench_free(b);
}
END_TEST

START_TEST(ioapic_edge)
{
	struct board *b = bench_new("-m 16");
	struct irq_line l4 = line(b, 4), l0 = line(b, 0);
	uint32_t data;

	irq_pulse(&l4);
	io_route(b, 4, 0x0100000000000041);
	ck_assert_msg(bench_msis(b, NULL) == 0, "an edge on a masked pin was remembered");
	irq_pulse(&l4);
	ck_assert_uint_eq(bench_msis(b, &data), 1);
	ck_assert_uint_eq(data, 0x41);
	io_route(b, 2, 0x30); /* the PIT's interrupt is wired to pin 2 */
	irq_pulse(&l0);
	ck_assert_uint_eq(bench_msis(b, &data), 1);
	ck_assert_uint_eq(data, 0x30);
	io_route(b, 4, 0x0441); /* NMI */
	irq_pulse(&l4);
	ck_assert_uint_eq(bench_msis(b, &data), 1);
	ck_assert_uint_eq(data, 0x441);
	bench_free(b);
}
END_TEST

START_TEST(ioapic_level_waits_for_eoi)
{
	struct board *b = bench_new("-m 16");
	struct irq_line l = line(b, 10), other = line(b, 10);
	uint32_t data;

	irq_set(&l, true);
	io_route(b, 10, 0xa051); /* level, active low */
	ck_assert_uint_eq(bench_msis(b, &data), 1);
	ck_assert_uint_eq(data & 0xffff, 0xc051);
	ck_assert_msg(io_read(b, 0x24) == 0xe051, "remote IRR is not set: %#x", io_read(b, 0x24));
	irq_set(&other, true);
	irq_set(&other, false);
	ck_assert_uint_eq(bench_msis(b, NULL), 0);
	irq_exit_eoi(b, 0x52);
	ck_assert_uint_eq(bench_msis(b, NULL), 0);
	irq_exit_eoi(b, 0x51);
	ck_assert_msg(bench_msis(b, NULL) == 1, "the line is still high after EOI");
	irq_set(&l, false);
	irq_exit_eoi(b, 0x51);
	ck_assert_uint_eq(bench_msis(b, NULL), 0);
	ck_assert_uint_eq(io_read(b, 0x24), 0xa051);
	/* Linux clears a stuck remote IRR by a turn to edge mode and back. */
	irq_set(&l, true);
	ck_assert_uint_eq(bench_msis(b, NULL), 1);
	io_write(b, 0x24, 0x12051);
	ck_assert_uint_eq(io_read(b, 0x24), 0x12051);
	io_write(b, 0x24, 0xa051);
	ck_assert_uint_eq(bench_msis(b, NULL), 1);
	bench_free(b);
}
END_TEST

START_TEST(ioapic_storm_is_bounded)
{
	struct board *b = bench_new("-m 16");
	struct irq_line l = line(b, 10);
	unsigned n = 0, sent;

	io_route(b, 10, 0x8051);
	irq_set(&l, true);
	while ((sent = bench_msis(b, NULL)) > 0 && n < 100000) {
		n += sent;
		irq_exit_eoi(b, 0x51);
	}
	ck_assert_msg(n < 100000, "a line nobody silences is resent for ever");
	bench_step(b, 20 * NS_PER_MS);
	ck_assert_msg(bench_msis(b, NULL) == 1, "the line is still high: it comes again after a while");
	bench_free(b);
}
END_TEST

START_TEST(ioapic_version_20_has_an_eoi_register)
{
	struct board *b = bench_new("-m 16 -global ioapic.version=0x20");
	struct irq_line l = line(b, 10);

	ck_assert_uint_eq(io_read(b, 1), 0x00170020);
	io_route(b, 10, 0x8051);
	irq_set(&l, true);
	ck_assert_uint_eq(bench_msis(b, NULL), 1);
	bench_writel(b, IOAPIC + 0x40, 0x51);
	ck_assert_uint_eq(bench_msis(b, NULL), 1);
	bench_free(b);
}
END_TEST

START_TEST(ioapic_state_survives)
{
	struct board *b = bench_new("-m 16");
	struct irq_line l = line(b, 10), l4;

	io_route(b, 10, 0x8051);
	io_route(b, 4, 0x41);
	irq_set(&l, true);
	b = bench_save_load(b);
	bench_msis(b, NULL);
	ck_assert_uint_eq(io_read(b, 0x24), 0xc051);
	irq_exit_eoi(b, 0x51);
	ck_assert_msg(bench_msis(b, NULL) == 1, "the level that was high when the state was saved is lost");
	l4 = line(b, 4);
	irq_pulse(&l4);
	ck_assert_uint_eq(bench_msis(b, NULL), 1);
	bench_free(b);
}
END_TEST

START_TEST(ioapic_refuses_an_unknown_version)
{
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-m 16 -global ioapic.version=0x12"), "0x11 or 0x20"));
}
END_TEST

int main(void)
{
	TCase *pic = tcase_create("8259"), *io = tcase_create("ioapic");

	tcase_add_test(pic, linux_probe_finds_a_pic);
	tcase_add_test(pic, edge_gives_its_vector_once);
	tcase_add_test(pic, level_comes_again_until_the_line_falls);
	tcase_add_test(pic, elcr_change_sees_the_line);
	tcase_add_test(pic, priorities_nest);
	tcase_add_test(pic, special_fully_nested_lets_the_slave_nest);
	tcase_add_test(pic, special_mask_frees_lower_levels);
	tcase_add_test(pic, rotation_and_automatic_eoi);
	tcase_add_test(pic, spurious_interrupts);
	tcase_add_test(pic, poll_acknowledges);
	tcase_add_test(pic, pic_state_survives);
	tcase_add_test(pic, reset_masks_nothing_but_forgets);
	tcase_add_test(io, ioapic_registers);
	tcase_add_test(io, ioapic_edge);
	tcase_add_test(io, ioapic_level_waits_for_eoi);
	tcase_add_test(io, ioapic_storm_is_bounded);
	tcase_add_test(io, ioapic_version_20_has_an_eoi_register);
	tcase_add_test(io, ioapic_state_survives);
	tcase_add_test(io, ioapic_refuses_an_unknown_version);
	return run_suite("irq", (TCase *[]){pic, io, NULL});
}
