/*
 * PCI slots and vCPUs that are filled and emptied while the machine runs, seen through the ACPI register blocks as the
 * guest's ACPI code uses them.
 */
#include "virtio_driver.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "src/machine/board.h"
#include "vmm/object.h"

enum { PCI_UP = 0xae00, PCI_DOWN = 0xae04, PCI_EJECT = 0xae08, PCI_REMOVABLE = 0xae0c, PCI_SELECTOR = 0xae10 };
enum { CPU_SELECTOR = 0xaf00, CPU_STATUS = 0xaf04, CPU_COMMAND = 0xaf05, CPU_DATA = 0xaf08 };
enum { GPE_STATUS = 0xafe0, GPE_ENABLE = 0xafe2 };
enum { CPU_ENABLED = 1, CPU_INSERT = 2, CPU_REMOVE = 4, CPU_EJECT = 8 };
enum { PVPANIC_ID = 0x00111b36, SCI = 9 };

static int add(struct board *b, const char *text, struct err *e)
{
	struct opts o;
	int r;

	*e = ERR_INIT;
	ck_assert_int_eq(opts_parse(&o, text, "driver", e), 0);
	r = machine_device_add(b, &o, e);
	opts_free(&o);
	bench_idle(b);
	return r;
}

static void must_add(struct board *b, const char *text)
{
	struct err e;

	ck_assert_msg(!add(b, text, &e), "device_add %s: %s", text, e.msg);
}

static void must_refuse(struct board *b, const char *text, const char *word)
{
	struct err e;

	ck_assert_msg(add(b, text, &e) < 0, "device_add %s was not refused", text);
	ck_assert_msg(strstr(e.msg, word), "device_add %s: '%s' does not say '%s'", text, e.msg, word);
}

static void must_delete(struct board *b, const char *id)
{
	struct err e = ERR_INIT;

	ck_assert_msg(!machine_device_del(b, id, &e), "device_del %s: %s", id, e.msg);
	bench_idle(b);
}

static void must_not_delete(struct board *b, const char *id, enum err_class class, const char *word)
{
	struct err e = ERR_INIT;

	ck_assert_msg(machine_device_del(b, id, &e) < 0, "device_del %s was not refused", id);
	ck_assert_msg(strstr(e.msg, word), "device_del %s: '%s' does not say '%s'", id, e.msg, word);
	ck_assert_int_eq(e.class, class);
}

/* Switch the chip to ACPI mode, with GPE.1 and GPE.2 enabled, as an OS does. */
static void enable_acpi(struct board *b)
{
	bench_pci_writel(b, 1 << 3 | 3, 0x40, 0x601);
	bench_pci_writeb(b, 1 << 3 | 3, 0x80, 1);
	bench_outb(b, 0xb2, 0xf1);
	bench_outw(b, GPE_ENABLE, 0x6);
}

static void acknowledge(struct board *b, unsigned bit)
{
	ck_assert(bench_gsi(b, SCI));
	ck_assert_uint_eq(bench_inw(b, GPE_STATUS), 1u << bit);
	bench_outw(b, GPE_STATUS, 1u << bit);
	ck_assert(!bench_gsi(b, SCI));
}

/* ---- PCI ---- */

START_TEST(cold_plugged_devices_are_no_news)
{
	struct board *b = bench_new("-m 16 -vga std -device pvpanic-pci,addr=6,id=p");

	enable_acpi(b);
	ck_assert_uint_eq(bench_inl(b, PCI_UP), 0);
	ck_assert_uint_eq(bench_inl(b, PCI_DOWN), 0);
	ck_assert_uint_eq(bench_inl(b, PCI_EJECT), 0); /* no optional features */
	/* Chip set and VGA are fixed; empty slots are removable. */
	ck_assert_uint_eq(bench_inl(b, PCI_REMOVABLE), 0xfffffff8);
	ck_assert(!bench_gsi(b, SCI));
	bench_free(b);
}
END_TEST

START_TEST(a_slot_is_filled_and_emptied)
{
	struct board *b = bench_new("-m 16");

	enable_acpi(b);
	must_add(b, "pvpanic-pci,id=p,addr=5");
	acknowledge(b, 1);
	ck_assert_uint_eq(bench_inl(b, PCI_UP), 1 << 5);
	ck_assert_uint_eq(bench_inl(b, PCI_UP), 0); /* cleared by reading */
	ck_assert_uint_eq(bench_pci_readl(b, 5 << 3, 0), PVPANIC_ID);
	/* Unassigned until the guest programs it. */
	ck_assert_uint_eq(bench_pci_readl(b, 5 << 3, 0x10), 0);
	ck_assert_uint_eq(bench_pci_readw(b, 5 << 3, 4), 0);
	bench_pci_writel(b, 5 << 3, 0x10, 0xfeb00000);
	bench_pci_writew(b, 5 << 3, 4, 2);
	ck_assert_uint_eq(bench_readb(b, 0xfeb00000), 3);

	must_delete(b, "p");
	acknowledge(b, 1);
	ck_assert_uint_eq(bench_inl(b, PCI_DOWN), 1 << 5);
	/* Asked, not taken. */
	ck_assert_uint_eq(bench_readb(b, 0xfeb00000), 3);
	ck_assert_ptr_null(bench_event(b, "DEVICE_DELETED"));

	map_pio_write(b, PCI_EJECT, 1 << 5, 4);
	/* Gone for the guest before the main loop runs again. */
	ck_assert_uint_eq(bench_pci_readl(b, 5 << 3, 0), 0xffffffff);
	ck_assert_str_eq(bench_event(b, "DEVICE_DELETED"), "{\"device\": \"p\", \"path\": \"/machine/peripheral/p\"}");
	ck_assert_uint_eq(bench_inl(b, PCI_DOWN), 0);
	ck_assert_uint_eq(bench_readb(b, 0xfeb00000), 0xff);
	ck_assert_ptr_null(device_find(b, "p"));
	must_add(b, "pvpanic-pci,id=p,addr=5"); /* name and slot are free */
	ck_assert_uint_eq(bench_pci_readl(b, 5 << 3, 0), PVPANIC_ID);
	bench_free(b);
}
END_TEST

START_TEST(a_request_can_be_repeated)
{
	struct board *b = bench_new("-m 16 -device pvpanic-pci,addr=4,id=p");

	must_delete(b, "p"); /* before the OS has come up: lost */
	bench_outw(b, GPE_STATUS, 0xffff);
	enable_acpi(b);
	must_delete(b, "/machine/peripheral/p");
	acknowledge(b, 1);
	ck_assert_uint_eq(bench_inl(b, PCI_DOWN), 1 << 4);
	bench_free(b);
}
END_TEST

START_TEST(a_reset_completes_removals)
{
	struct board *b = bench_new("-m 16 -device pvpanic-pci,addr=4,id=p -device pvpanic-pci,addr=7,id=q");

	must_delete(b, "p");
	bench_reset(b);
	ck_assert_ptr_nonnull(bench_event(b, "DEVICE_DELETED"));
	ck_assert_uint_eq(bench_pci_readl(b, 4 << 3, 0), 0xffffffff);
	ck_assert_uint_eq(bench_pci_readl(b, 7 << 3, 0), PVPANIC_ID);
	/* What was added is there from the start now. */
	must_add(b, "pvpanic-pci,addr=9");
	bench_reset(b);
	ck_assert_uint_eq(bench_inl(b, PCI_UP), 0);
	ck_assert_uint_eq(bench_inw(b, GPE_STATUS), 0);
	ck_assert_uint_eq(bench_pci_readl(b, 9 << 3, 0), PVPANIC_ID);
	bench_free(b);
}
END_TEST

START_TEST(fixed_devices_cannot_be_ejected)
{
	struct board *b = bench_new("-m 16 -vga std");

	for (unsigned slot = 0; slot < 3; slot++)
		bench_outl(b, PCI_EJECT, 1u << slot);
	bench_outl(b, PCI_EJECT, 0);
	bench_outl(b, PCI_EJECT, 0x80000000);
	bench_idle(b);
	for (unsigned slot = 0; slot < 3; slot++)
		ck_assert_uint_ne(bench_pci_readl(b, slot << 3, 0), 0xffffffff);
	ck_assert_ptr_null(bench_event(b, "DEVICE_DELETED"));
	bench_free(b);
}
END_TEST

START_TEST(a_guest_may_eject_unasked)
{
	struct board *b = bench_new("-m 16 -device pvpanic-pci,addr=4,id=p");

	bench_outl(b, PCI_EJECT, 1 << 4);
	bench_outl(b, PCI_EJECT, 1 << 4);
	ck_assert_ptr_nonnull(bench_event(b, "DEVICE_DELETED"));
	must_not_delete(b, "p", ERR_DEVICE_NOT_FOUND, "Device 'p' not found");
	bench_free(b);
}
END_TEST

START_TEST(functions_of_a_slot_go_together)
{
	struct board *b = bench_new("-m 16");

	enable_acpi(b);
	must_add(b, "pvpanic-pci,id=f1,addr=5.1");
	ck_assert_uint_eq(bench_inl(b, PCI_UP), 0); /* nobody looks for it before function 0 is there */
	must_add(b, "pvpanic-pci,id=f0,addr=5.0");
	ck_assert_uint_eq(bench_inl(b, PCI_UP), 1 << 5);
	ck_assert_uint_eq(bench_pci_readb(b, 5 << 3, 0x0e), 0x80);
	must_refuse(b, "pvpanic-pci,id=f2,addr=5.2", "slot 5 function 0 already occupied by pvpanic-pci");
	must_delete(b, "f1");
	bench_outl(b, PCI_EJECT, 1 << 5);
	bench_idle(b);
	ck_assert_ptr_null(device_find(b, "f0"));
	ck_assert_ptr_null(device_find(b, "f1"));
	bench_free(b);
}
END_TEST

START_TEST(other_buses_hold_nothing)
{
	struct board *b = bench_new("-m 16 -device pvpanic-pci,addr=4,id=p");

	must_delete(b, "p");
	bench_outl(b, PCI_SELECTOR, 1);
	ck_assert_uint_eq(bench_inl(b, PCI_DOWN), 0);
	bench_outl(b, PCI_EJECT, 1 << 4);
	bench_idle(b);
	ck_assert_ptr_nonnull(device_find(b, "p"));
	bench_outl(b, PCI_SELECTOR, 0);
	ck_assert_uint_eq(bench_inl(b, PCI_DOWN), 1 << 4);
	bench_free(b);
}
END_TEST

START_TEST(root_hotplug_can_be_off)
{
	static const char *const options[] = {
		"-m 16 -global PIIX4_PM.acpi-root-pci-hotplug=off -device pvpanic-pci,id=p",
		"-m 16 -no-acpi -device pvpanic-pci,id=p"};
	struct board *b = bench_new(options[_i]);

	if (_i == 0)
		ck_assert_uint_eq(bench_inl(b, PCI_REMOVABLE), 0xffffffff); /* no such port */
	must_refuse(b, "pvpanic-pci", "Bus 'pci.0' does not support hotplugging");
	must_not_delete(b, "p", ERR_GENERIC, "Bus 'pci.0' does not support hotplugging");
	bench_free(b);
}
END_TEST

START_TEST(bad_requests_are_refused)
{
	static const char *const bad[][2] = {
		{"nonesuch", "'nonesuch' is not a valid device model name"},
		{"pvpanic-pci,id=p", "Duplicate device ID 'p'"},
		{"pvpanic-pci,id=p2,bus=nobus", "Bus 'nobus' not found"},
		{"pvpanic-pci,id=p2,bus=ide.0", "can't go on"},
		{"pvpanic-pci,id=p2,bus=p.0", "Bus 'p.0' not found"},
		{"pvpanic-pci,id=p2,bus=kbd", "Bus 'kbd' not found"},
		{"pvpanic-pci,id=p2,bus=fdc.0", "can't go on"},
		{"pvpanic-pci,addr=4", "is taken by 'p'"},
		{"pvpanic-pci,addr=1.7", "slot 1 function 0 already occupied by PIIX3"},
		{"pvpanic-pci,addr=99", "addr"},
		{"pvpanic-pci,id=a/b", "expects an identifier"},
		{"pvpanic-pci,foo=1", "Property 'pvpanic-pci.foo' not found"},
		{"VGA", "expects a pluggable device type"},
		{"PIIX4_PM", "expects a pluggable device type"},
		{"isa-serial", "Bus 'isa.0' does not support hotplugging"},
		{"ide-cd", "Bus 'ide.0' does not support hotplugging"},
		{"qemu64-x86_64-cpu", "CPU socket-id is not set"},
		{"qemu64-x86_64-cpu,socket-id=0,core-id=0,thread-id=0", "CPU[0] with APIC ID 0 exists"},
		{"qemu64-x86_64-cpu,socket-id=5,core-id=0,thread-id=0",
		 "Invalid CPU socket-id: 5 must be in range 0:1"},
		{"qemu64-x86_64-cpu,socket-id=1,core-id=7,thread-id=0", "Invalid CPU core-id: 7 must be in range 0:1"},
		{"qemu64-x86_64-cpu,socket-id=1,core-id=1,thread-id=3",
		 "Invalid CPU thread-id: 3 must be in range 0:0"},
		{"qemu64-x86_64-cpu,socket-id=1,core-id=1", "CPU thread-id is not set"},
		{"qemu64-x86_64-cpu,socket-id=1,core-id=1,thread-id=0,id=p", "Duplicate device ID 'p'"},
		{"qemu64-x86_64-cpu,socket-id=1,core-id=1,thread-id=0,x=1", "x"},
		{"kvm64-x86_64-cpu,socket-id=1,core-id=1,thread-id=0", "expected cpu type: 'qemu64-x86_64-cpu'"},
		{"nothing-x86_64-cpu", "not a valid device model name"},
	};
	struct board *b = bench_new(
		"-m 16 -smp 1,sockets=2,cores=2,threads=1,maxcpus=4 -vga std -device pvpanic-pci,id=p,addr=4");
	void *before, *after;
	size_t n1, n2;

	ck_assert_int_eq(machine_describe(b, &before, &n1, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		must_refuse(b, bad[i][0], bad[i][1]);
	must_not_delete(b, "nope", ERR_DEVICE_NOT_FOUND, "Device 'nope' not found");
	must_not_delete(b, "pm", ERR_DEVICE_NOT_FOUND, "Device 'pm' not found");
	must_not_delete(b, "/machine/unattached/pm", ERR_GENERIC, "Device 'PIIX4_PM' does not support hotplugging");
	must_not_delete(b, "/machine/unattached/cpu[0]", ERR_GENERIC, "Boot CPU is unpluggable");
	/* Nothing is left of any of them. */
	ck_assert_int_eq(machine_describe(b, &after, &n2, NULL), 0);
	ck_assert_uint_eq(n1, n2);
	ck_assert_mem_eq(before, after, n1);
	free(before);
	free(after);
	bench_free(b);
}
END_TEST

START_TEST(a_failed_addition_leaves_no_trace)
{
	struct board *b = bench_new("-m 16");
	struct err e;

	/* Slots and port ranges are returned: far more rounds than there are of either. */
	for (unsigned i = 0; i < 100; i++) {
		ck_assert_int_lt(add(b, "pvpanic-pci,id=x,events=9", &e), 0);
		must_add(b, "pvpanic-pci,id=x");
		must_delete(b, "x");
		bench_outl(b, PCI_EJECT, 1u << 2);
		bench_idle(b);
		ck_assert_ptr_null(device_find(b, "x"));
	}
	bench_free(b);
}
END_TEST

START_TEST(pending_pci_requests_travel)
{
	struct board *b = bench_new("-m 16 -device pvpanic-pci,addr=4,id=p");

	enable_acpi(b);
	must_delete(b, "p");
	b = bench_save_load(b);
	acknowledge(b, 1);
	ck_assert_uint_eq(bench_inl(b, PCI_DOWN), 1 << 4);
	bench_outl(b, PCI_EJECT, 1 << 4);
	ck_assert_ptr_nonnull(bench_event(b, "DEVICE_DELETED"));
	bench_free(b);
}
END_TEST

static void set_flag(void *opaque)
{
	*(bool *)opaque = true;
}

/* As a migration does: while it counts on the machine, what is ejected stays with it, and goes at the destination. */
START_TEST(ejections_wait_for_a_migration)
{
	static const char options[] = "-m 16 -smp 1,maxcpus=3 -device pvpanic-pci,addr=4,id=p -device "
				      "qemu64-x86_64-cpu,id=c,socket-id=2,core-id=0,thread-id=0";
	struct board *b = bench_new(options);
	struct state_buf buf = {0};
	struct err e = ERR_INIT;
	bool done = false;

	machine_hold_devices(b, true);
	bench_outl(b, CPU_SELECTOR, 0);
	bench_outl(b, CPU_SELECTOR, 2);
	bench_outb(b, CPU_STATUS, CPU_EJECT);
	bench_outl(b, PCI_EJECT, 1 << 4);
	bench_idle(b);
	ck_assert_uint_eq(bench_pci_readl(b, 4 << 3, 0), 0xffffffff);
	ck_assert_uint_eq(bench_inb(b, CPU_STATUS), 0);
	ck_assert_ptr_null(bench_event(b, "DEVICE_DELETED"));
	ck_assert_ptr_nonnull(device_find(b, "p"));
	machine_quiesce(b, set_flag, &done);
	bench_idle(b);
	ck_assert(done);
	ck_assert_msg(!machine_save_state(b, &buf, &e), "%s", e.msg);
	machine_unquiesce(b);
	if (_i) { /* it failed: here it goes on */
		machine_hold_devices(b, false);
	} else { /* it went through: there it goes on */
		bench_free(b);
		b = bench_new(options);
		ck_assert_uint_eq(bench_pci_readl(b, 4 << 3, 0), PVPANIC_ID);
		ck_assert_msg(!machine_load_state(b, buf.data, buf.len, &e), "%s", e.msg);
		ck_assert_uint_eq(bench_pci_readl(b, 4 << 3, 0), 0xffffffff);
		bench_outl(b, CPU_SELECTOR, 2);
		ck_assert_uint_eq(bench_inb(b, CPU_STATUS), 0);
	}
	bench_idle(b);
	ck_assert_ptr_null(device_find(b, "p"));
	ck_assert_uint_eq(board_cpus(b), 1);
	ck_assert_ptr_nonnull(bench_event(b, "DEVICE_DELETED"));
	must_add(b, "pvpanic-pci,id=p,addr=4");
	must_add(b, "qemu64-x86_64-cpu,id=c,socket-id=2,core-id=0,thread-id=0");
	ck_assert_uint_eq(bench_pci_readl(b, 4 << 3, 0), PVPANIC_ID);
	ck_assert_uint_eq(board_cpus(b), 2);
	state_buf_free(&buf);
	bench_free(b);
}
END_TEST

/* A request that waits for bytes when its device is ejected never completes into the guest's memory. */
START_TEST(requests_in_flight_go_with_their_device)
{
	char path[] = "/tmp/vmm-hotplug-XXXXXX", fifo[64], text[128];
	const struct vd_seg seg = {.addr = VQ_BUFFERS, .len = 64, .in = true};
	struct board *b = bench_new("-m 16");
	struct opts o;
	struct vd d;
	int fd;

	ck_assert_ptr_nonnull(mkdtemp(path));
	snprintf(fifo, sizeof(fifo), "%s/bytes", path);
	ck_assert_int_eq(mkfifo(fifo, 0600), 0);
	fd = open(fifo, O_RDWR | O_NONBLOCK);
	ck_assert_int_ge(fd, 0);
	snprintf(text, sizeof(text), "rng-random,id=r,filename=%s", fifo);
	ck_assert_int_eq(opts_parse(&o, text, "qom-type", NULL), 0);
	ck_assert_int_eq(object_add(&o, NULL), 0);
	opts_free(&o);
	for (unsigned round = 0; round < 3; round++) {
		must_add(b, "virtio-rng-pci,id=v,rng=r,addr=6");
		vd_start(&d, b, 6, VD_MODERN, VD_VERSION_1, 1);
		vd_add(&d, 0, &seg, 1);
		vd_ring(&d, 0);
		bench_idle(b);
		ck_assert_int_eq(vd_used(&d, 0, NULL), -1);
		must_delete(b, "v");
		bench_outl(b, PCI_EJECT, 1 << 6);
		ck_assert_ptr_nonnull(bench_event(b, "DEVICE_DELETED"));
		ck_assert_ptr_null(device_find(b, "v"));
		ck_assert_int_eq(write(fd, "0123456789", 10), 10);
		bench_step(b, NS_PER_SEC);
		ck_assert_uint_eq(bench_readl(b, VQ_BUFFERS), 0);
		ck_assert_int_eq(read(fd, text, 10), 10); /* nobody took them */
	}
	ck_assert_int_eq(object_del("r", NULL), 0);
	close(fd);
	unlink(fifo);
	rmdir(path);
	bench_free(b);
}
END_TEST

/* ---- vCPUs ---- */

#define SMP "-m 16 -smp 1,maxcpus=4,sockets=1,cores=2,threads=2 "

static unsigned present_cpus(struct board *b)
{
	struct cpu_info info;
	unsigned n = 0, mask = 0;

	for (; machine_cpu_info(b, n, &info); n++)
		mask |= 1u << info.index;
	ck_assert_uint_eq(n, board_cpus(b));
	return mask;
}

static unsigned cpu_status(struct board *b, unsigned index)
{
	bench_outl(b, CPU_SELECTOR, index);
	return bench_inb(b, CPU_STATUS);
}

START_TEST(the_bitmap_comes_first)
{
	struct board *b = bench_new("-m 16 -smp 2,maxcpus=12,sockets=2,cores=3,threads=2");

	/* Cores are padded to a power of two: CPU 7 (socket 1, core 0, thread 1) has APIC id 9. */
	ck_assert_uint_eq(bench_inb(b, 0xaf00), 0x03);
	must_add(b, "qemu64-x86_64-cpu,socket-id=1,core-id=0,thread-id=1");
	ck_assert_uint_eq(bench_inb(b, 0xaf00), 0x03);
	ck_assert_uint_eq(bench_inb(b, 0xaf01), 0x02);
	ck_assert_uint_eq(bench_inb(b, 0xaf1f), 0x00);
	/* Only an OS that knows how can eject. */
	must_not_delete(b, "/machine/unattached/cpu[7]", ERR_GENERIC,
			"acpi: device unplug request for not supported device type");
	bench_outb(b, 0xaf00, 1);
	ck_assert_uint_eq(bench_inb(b, 0xaf00), 0x03);
	bench_outl(b, 0xaf00, 0);
	ck_assert_uint_eq(cpu_status(b, 0), CPU_ENABLED);
	ck_assert_uint_eq(cpu_status(b, 2), 0);
	ck_assert_uint_eq(cpu_status(b, 7), CPU_ENABLED | CPU_INSERT);
	bench_outb(b, CPU_COMMAND, 3);
	ck_assert_uint_eq(bench_inl(b, CPU_DATA), 9);
	ck_assert_uint_eq(bench_inl(b, CPU_SELECTOR), 0);
	/* No such CPU: nothing can be read or written. */
	ck_assert_uint_eq(cpu_status(b, 12), 0);
	bench_outb(b, CPU_COMMAND, 0);
	ck_assert_uint_eq(bench_inl(b, CPU_DATA), 0);
	bench_free(b);
}
END_TEST

START_TEST(a_cpu_comes_and_goes)
{
	struct board *b = bench_new(SMP);

	enable_acpi(b);
	bench_outl(b, CPU_SELECTOR, 0); /* switch */
	must_add(b, "qemu64-x86_64-cpu,id=c3,socket-id=0,core-id=1,thread-id=1");
	acknowledge(b, 2);
	ck_assert_uint_eq(present_cpus(b), 0x9);
	/* As CSCN does: which CPU has an event, which one, acknowledged. */
	bench_outb(b, CPU_COMMAND, 0);
	ck_assert_uint_eq(bench_inl(b, CPU_DATA), 3);
	ck_assert_uint_eq(bench_inb(b, CPU_STATUS), CPU_ENABLED | CPU_INSERT);
	bench_outb(b, CPU_STATUS, CPU_INSERT);
	ck_assert_uint_eq(bench_inb(b, CPU_STATUS), CPU_ENABLED);

	must_delete(b, "c3");
	acknowledge(b, 2);
	bench_outl(b, CPU_SELECTOR, 0);
	bench_outb(b, CPU_COMMAND, 0);
	ck_assert_uint_eq(bench_inl(b, CPU_DATA), 3);
	ck_assert_uint_eq(bench_inb(b, CPU_STATUS), CPU_ENABLED | CPU_REMOVE);
	bench_outb(b, CPU_STATUS, CPU_REMOVE);
	ck_assert_uint_eq(present_cpus(b), 0x9);
	bench_outb(b, CPU_STATUS, CPU_EJECT);
	ck_assert_uint_eq(bench_inb(b, CPU_STATUS), 0);
	ck_assert_str_eq(bench_event(b, "DEVICE_DELETED"),
			 "{\"device\": \"c3\", \"path\": \"/machine/peripheral/c3\"}");
	ck_assert_uint_eq(present_cpus(b), 0x1);
	must_add(b, "qemu64-x86_64-cpu,id=c3,socket-id=0,core-id=1,thread-id=1");
	ck_assert_uint_eq(present_cpus(b), 0x9);
	bench_free(b);
}
END_TEST

START_TEST(the_boot_cpu_stays)
{
	struct board *b = bench_new(SMP);

	bench_outl(b, CPU_SELECTOR, 0);
	bench_outl(b, CPU_SELECTOR, 0);
	bench_outb(b, CPU_STATUS, CPU_EJECT);
	bench_outl(b, CPU_SELECTOR, 2);
	bench_outb(b, CPU_STATUS, CPU_EJECT); /* not there */
	bench_idle(b);
	ck_assert_uint_eq(present_cpus(b), 0x1);
	ck_assert_ptr_null(bench_event(b, "DEVICE_DELETED"));
	bench_free(b);
}
END_TEST

START_TEST(the_os_reports)
{
	struct board *b = bench_new(SMP "-device qemu64-x86_64-cpu,id=c1,socket-id=0,core-id=0,thread-id=1");
	const char *data;

	bench_outl(b, CPU_SELECTOR, 0);
	bench_outl(b, CPU_SELECTOR, 1);
	bench_outb(b, CPU_COMMAND, 1);
	bench_outl(b, CPU_DATA, 3);
	ck_assert_ptr_null(bench_event(b, "ACPI_DEVICE_OST"));
	bench_outb(b, CPU_COMMAND, 2);
	bench_outl(b, CPU_DATA, 0x81);
	data = bench_event(b, "ACPI_DEVICE_OST");
	ck_assert_ptr_nonnull(data);
	ck_assert_str_eq(data, "{\"info\": {\"device\": \"c1\", \"slot\": \"1\", \"slot-type\": \"CPU\", \"source\": "
			       "3, \"status\": 129}}");
	ck_assert_str_eq(bench_event(b, "DEVICE_UNPLUG_GUEST_ERROR"),
			 "{\"device\": \"c1\", \"path\": \"/machine/peripheral/c1\"}");
	bench_outl(b, CPU_DATA, 0);
	ck_assert_ptr_nonnull(bench_event(b, "ACPI_DEVICE_OST"));
	ck_assert_ptr_null(bench_event(b, "DEVICE_UNPLUG_GUEST_ERROR"));
	bench_free(b);
}
END_TEST

static unsigned cmos_cpus(struct board *b)
{
	bench_outb(b, 0x70, 0x5f);
	return bench_inb(b, 0x71) + 1u;
}

START_TEST(firmware_finds_the_new_number_after_a_reset)
{
	struct board *b = bench_new(SMP);

	ck_assert_uint_eq(cmos_cpus(b), 1);
	must_add(b, "qemu64-x86_64-cpu,id=c1,socket-id=0,core-id=0,thread-id=1");
	ck_assert_uint_eq(cmos_cpus(b), 1);
	bench_reset(b);
	ck_assert_uint_eq(cmos_cpus(b), 2);
	bench_outw(b, 0x510, 5); /* FW_CFG_NB_CPUS */
	ck_assert_uint_eq(bench_inb(b, 0x511), 2);
	bench_outw(b, 0x510, 15); /* FW_CFG_MAX_CPUS */
	ck_assert_uint_eq(bench_inb(b, 0x511), 4);
	/* A removal the OS never carried out happens with the reset. */
	bench_outl(b, CPU_SELECTOR, 0);
	must_delete(b, "c1");
	bench_reset(b);
	ck_assert_ptr_nonnull(bench_event(b, "DEVICE_DELETED"));
	ck_assert_uint_eq(cmos_cpus(b), 1);
	bench_free(b);
}
END_TEST

START_TEST(cpu_events_travel)
{
	struct board *b = bench_new(SMP "-device qemu64-x86_64-cpu,id=c2,socket-id=0,core-id=1,thread-id=0");

	enable_acpi(b);
	bench_outl(b, CPU_SELECTOR, 0);
	must_delete(b, "c2");
	bench_outl(b, CPU_SELECTOR, 1);
	b = bench_save_load(b);
	acknowledge(b, 2);
	bench_outb(b, CPU_COMMAND, 0);
	ck_assert_uint_eq(bench_inl(b, CPU_DATA), 2);
	ck_assert_uint_eq(bench_inb(b, CPU_STATUS), CPU_ENABLED | CPU_REMOVE);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *pci = tcase_create("pci"), *cpu = tcase_create("cpu");

	tcase_set_timeout(pci, 60);
	tcase_set_timeout(cpu, 60);
	tcase_add_test(pci, cold_plugged_devices_are_no_news);
	tcase_add_test(pci, a_slot_is_filled_and_emptied);
	tcase_add_test(pci, a_request_can_be_repeated);
	tcase_add_test(pci, a_reset_completes_removals);
	tcase_add_test(pci, fixed_devices_cannot_be_ejected);
	tcase_add_test(pci, a_guest_may_eject_unasked);
	tcase_add_test(pci, functions_of_a_slot_go_together);
	tcase_add_test(pci, other_buses_hold_nothing);
	tcase_add_loop_test(pci, root_hotplug_can_be_off, 0, 2);
	tcase_add_test(pci, bad_requests_are_refused);
	tcase_add_test(pci, a_failed_addition_leaves_no_trace);
	tcase_add_test(pci, pending_pci_requests_travel);
	tcase_add_loop_test(pci, ejections_wait_for_a_migration, 0, 2);
	tcase_add_test(pci, requests_in_flight_go_with_their_device);
	tcase_add_test(cpu, the_bitmap_comes_first);
	tcase_add_test(cpu, a_cpu_comes_and_goes);
	tcase_add_test(cpu, the_boot_cpu_stays);
	tcase_add_test(cpu, the_os_reports);
	tcase_add_test(cpu, firmware_finds_the_new_number_after_a_reset);
	tcase_add_test(cpu, cpu_events_travel);
	return run_suite("hotplug", (TCase *[]){pci, cpu, NULL});
}
