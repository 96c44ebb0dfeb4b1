/*
 * kernel-irqchip=on and =split share one state format: what a guest programmed into our chips arrives in KVM's and
 * comes back. Real KVM, but no guest code runs.
 */
#include <stdlib.h>
#include <string.h>

#include "src/machine/board.h"
#include "tests/lib/suite.h"
#include "vmm/block.h"
#include "vmm/chardev.h"
#include "vmm/kvm.h"

static struct config config;

static struct board *build(const char *mode)
{
	static char machine[64];
	struct err e = ERR_INIT;
	char *argv[] = {"vmm", "-machine", machine, "-m", "16", "-nodefaults", "-S", "-vga", "none"};
	struct board *b;

	snprintf(machine, sizeof(machine), "pc,accel=kvm,kernel-irqchip=%s", mode);
	memset(&config, 0, sizeof(config));
	ck_assert_msg(!config_parse(&config, ARRAY_SIZE(argv), argv, &e), "%s", e.msg);
	ck_assert_int_eq(loop_init_main(&e), 0);
	b = machine_new(&config, &e);
	ck_assert_msg(b, "%s", e.msg);
	ck_assert_msg(!machine_start(b, &e), "%s", e.msg);
	return b;
}

static void destroy(struct board *b)
{
	while (loop_step(loop_main(), 0) > 0)
		;
	machine_free(b);
	block_close_all();
	chardev_close_all();
	loop_free(loop_main());
	config_free(&config);
}

static void set_flag(void *opaque)
{
	*(bool *)opaque = true;
}

static void save(struct board *b, struct state_buf *out)
{
	struct err e = ERR_INIT;
	bool done = false;

	machine_quiesce(b, set_flag, &done);
	for (int i = 0; !done && i < 500; i++)
		loop_step(loop_main(), 10);
	ck_assert(done);
	ck_assert_msg(!machine_save_state(b, out, &e), "%s", e.msg);
}

/* Save, and load into a new board of the other kind. */
static struct board *move(struct board *b, const char *mode)
{
	struct state_buf s = {0};
	struct err e = ERR_INIT;

	save(b, &s);
	destroy(b);
	b = build(mode);
	ck_assert_msg(!machine_load_state(b, s.data, s.len, &e), "loading into %s: %s", mode, e.msg);
	state_buf_free(&s);
	return b;
}

static void outb(struct board *b, uint16_t port, uint8_t v)
{
	map_pio_write(b, port, v, 1);
}

static uint8_t inb(struct board *b, uint16_t port)
{
	return (uint8_t)map_pio_read(b, port, 1);
}

static void io_write(struct board *b, uint32_t reg, uint32_t v)
{
	map_mem_write(b, 0xfec00000, &reg, 4);
	map_mem_write(b, 0xfec00010, &v, 4);
}

static uint32_t io_read(struct board *b, uint32_t reg)
{
	uint32_t v;

	map_mem_write(b, 0xfec00000, &reg, 4);
	map_mem_read(b, 0xfec00010, &v, 4);
	return v;
}

START_TEST(state_goes_to_kvm_and_back)
{
	static const uint8_t init[][2] = {{0x20, 0x11}, {0x21, 0x30}, {0x21, 0x04}, {0x21, 0x01}, {0xa0, 0x11},
					  {0xa1, 0x38}, {0xa1, 0x02}, {0xa1, 0x01}, {0x21, 0xba}, {0xa1, 0xcd}};
	struct board *b = build("split");
	struct irq_line l5 = {.fabric = &b->irq, .kind = IRQ_GSI, .input = 5};
	struct irq_line l12 = {.fabric = &b->irq, .kind = IRQ_GSI, .input = 12};

	for (size_t i = 0; i < ARRAY_SIZE(init); i++)
		outb(b, init[i][0], init[i][1]);
	map_pio_write(b, 0x4d1, 0x0c, 1);
	irq_pulse(&l5); /* masked: stays in IRR */
	irq_pulse(&l12);
	io_write(b, 0x00, 0x05000000);
	for (uint32_t pin = 0; pin < 24; pin++)
		io_write(b, 0x10 + 2 * pin, 0x12000 | (pin & 1) << 15 | (0x40 + pin));
	io_write(b, 0x11 + 2 * 7, 0x03000000);
	outb(b, 0x43, 0x36);
	outb(b, 0x40, 0x34);
	outb(b, 0x40, 0x12);
	outb(b, 0x61, 0x01);
	outb(b, 0x43, 0xb4);
	outb(b, 0x42, 0x78);
	outb(b, 0x43, 0xe2); /* latch the status of channel 0 */
	for (int round = 0; round < 2; round++) {
		b = move(b, "on");
		b = move(b, "split");
	}
	ck_assert_uint_eq(inb(b, 0x21), 0xba);
	ck_assert_uint_eq(inb(b, 0xa1), 0xcd);
	ck_assert_uint_eq(inb(b, 0x4d1), 0x0c);
	outb(b, 0x20, 0x0a);
	ck_assert_uint_eq(inb(b, 0x20) & 0x20, 0x20);
	outb(b, 0xa0, 0x0a);
	ck_assert_uint_eq(inb(b, 0xa0), 0x10);
	ck_assert_uint_eq(io_read(b, 0), 0x05000000);
	for (uint32_t pin = 0; pin < 24; pin++)
		ck_assert_uint_eq(io_read(b, 0x10 + 2 * pin), 0x12000 | (pin & 1) << 15 | (0x40 + pin));
	ck_assert_uint_eq(io_read(b, 0x11 + 2 * 7), 0x03000000);
	ck_assert_uint_eq(inb(b, 0x40) & 0x3f, 0x36);
	outb(b, 0x42, 0x56); /* the other half of channel 2's count */
	outb(b, 0x43, 0xe8);
	ck_assert_uint_eq(inb(b, 0x42) & 0x3f, 0x34);
	ck_assert_uint_eq(inb(b, 0x61) & 0x01, 0x01);
	destroy(b);
}
END_TEST

/* Port 61h is ours in both modes; the gate it drives belongs to KVM's timer with kernel-irqchip=on. */
START_TEST(port_61_reaches_the_timer_in_kvm)
{
	struct board *b = build("on");
	struct device *pit = device_find_class(b, "isa-pit");
	struct pit_channel_state ch[3];

	ck_assert_ptr_nonnull(pit);
	ck_assert_uint_eq(inb(b, 0x61) & 1, 0);
	for (unsigned gate = 0; gate < 4; gate++) {
		outb(b, 0x61, gate & 1);
		ck_assert_int_eq(irq_kernel_get_pit(pit, ch), 0);
		ck_assert_uint_eq(ch[2].gate, gate & 1);
		ck_assert_uint_eq(inb(b, 0x61) & 1, gate & 1);
	}
	destroy(b);
}
END_TEST

START_TEST(reset_reaches_the_chips_in_kvm)
{
	struct board *b = build("on");
	struct device *pic = device_find_class(b, "isa-i8259"), *io = device_find_class(b, "ioapic");
	struct pic_state p;
	struct ioapic_state s;

	ck_assert_int_eq(irq_kernel_get_pic(pic, 0, &p), 0);
	p.imr = 0x5a;
	ck_assert_int_eq(irq_kernel_set_pic(pic, 0, &p), 0);
	ck_assert_int_eq(irq_kernel_get_ioapic(io, &s), 0);
	s.redirtbl[3] = 0x51;
	ck_assert_int_eq(irq_kernel_set_ioapic(io, &s), 0);
	machine_reset(b, SHUTDOWN_HOST_QMP_RESET);
	while (loop_step(loop_main(), 20) > 0)
		;
	ck_assert_int_eq(irq_kernel_get_pic(pic, 0, &p), 0);
	ck_assert_uint_eq(p.imr, 0);
	ck_assert_int_eq(irq_kernel_get_ioapic(io, &s), 0);
	ck_assert_uint_eq(s.redirtbl[3], 0x10000);
	destroy(b);
}
END_TEST

int main(void)
{
	struct err e = ERR_INIT;
	TCase *t = tcase_create("kvm");

	if (kvm_available(&e) != 1) {
		printf("skipped: %s\n", e.msg);
		return 77;
	}
	tcase_set_timeout(t, 60);
	tcase_add_test(t, state_goes_to_kvm_and_back);
	tcase_add_test(t, port_61_reaches_the_timer_in_kvm);
	tcase_add_test(t, reset_reaches_the_chips_in_kvm);
	return run_suite("irqchip-kvm", (TCase *[]){t, NULL});
}
