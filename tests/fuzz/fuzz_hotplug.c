/*
 * Devices and vCPUs that come and go: device_add and device_del from the operator, ejections, configuration cycles and
 * accesses to BARs from the guest, resets, and saves with loads, in any order. When everything has settled, what the
 * operator, the configuration space and the description say about the machine must agree.
 *
 * Input: operations of four bytes {what, which, where, value}.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "fuzz_board.h"
#include "src/machine/board.h"
#include "vmm/chardev.h"
#include "vmm/object.h"
#include "vmm/pci.h"

#define CPUS    6
#define MAX_OPS 256

static struct config config;
static struct board *board;
static const char *drivers[64]; /* what can be plugged without a back end, and a few that need one */
static unsigned n_drivers;

static void need(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "fuzz-hotplug: %s\n", what);
	abort();
}

static void start(void)
{
	static char *argv[] = {"vmm",  "-accel",      "qtest", "-m",  "2",       "-nodefaults", "-display", "none",
			       "-smp", "1,maxcpus=6", "-vga",  "std", "-action", "panic=none",  NULL};

	log_set_level(LOG_ERROR + 1);
	board = fuzz_board(&config, ARRAY_SIZE(argv) - 1, argv);
	for (const struct device_class *const *c = device_registry; *c && n_drivers < ARRAY_SIZE(drivers); c++)
		if ((*c)->hotpluggable && (*c)->user_creatable)
			drivers[n_drivers++] = (*c)->name;
}

static void settle(void)
{
	for (int i = 0; i < 1000 && loop_step(loop_main(), 0) > 0; i++)
		;
}

static void add(char *text)
{
	struct opts o;

	if (!opts_parse(&o, text, "driver", NULL)) {
		machine_device_add(board, &o, NULL);
		opts_free(&o);
	}
	free(text);
}

static void del(char *id)
{
	machine_device_del(board, id, NULL);
	free(id);
}

static void config_write(uint8_t devfn, unsigned offset, uint32_t value)
{
	map_pio_write(board, 0xcf8, 0x80000000u | (uint32_t)devfn << 8 | (offset & 0xfc), 4);
	map_pio_write(board, 0xcfc, value, 4);
}

static uint32_t config_read(uint8_t devfn, unsigned offset)
{
	map_pio_write(board, 0xcf8, 0x80000000u | (uint32_t)devfn << 8 | (offset & 0xfc), 4);
	return (uint32_t)map_pio_read(board, 0xcfc, 4);
}

/* Map a function somewhere and touch what is behind it. */
static void use_function(uint8_t devfn, unsigned where, uint8_t value)
{
	uint32_t at = 0xe0000000u + devfn * 0x10000u;

	config_write(devfn, 0x10 + 4 * (where % 6), value & 1 ? at : 0xc000u + devfn * 0x40u);
	config_write(devfn, 4, 7);
	map_mem_write(board, at + where, &value, 1);
	map_mem_read(board, at + where, &value, 1);
	map_pio_write(board, (uint16_t)(0xc000u + devfn * 0x40u + where % 64), value, 1);
}

static void mark(void *opaque)
{
	*(bool *)opaque = true;
}

static void save_and_load(void)
{
	struct state_buf buf = {0};
	struct err e = ERR_INIT;
	bool done = false;

	settle(); /* a reset that is not over quiesces the machine, too */
	machine_quiesce(board, mark, &done);
	settle();
	need(done, "the machine does not come to rest");
	need(!machine_save_state(board, &buf, &e), "it cannot be saved");
	if (machine_load_state(board, buf.data, buf.len, &e)) {
		fprintf(stderr, "%s\n", e.msg);
		abort();
	}
	machine_unquiesce(board);
	state_buf_free(&buf);
}

static void operate(const uint8_t op[4])
{
	unsigned which = op[1], where = op[2], value = op[3];

	switch (op[0] % 12) {
	case 0:
	case 1:
		add(xasprintf("%s,id=d%u,addr=%x.%u", n_drivers ? drivers[which % n_drivers] : "none", which % 16,
			      where & 31, value % 4 ? 0 : value >> 5));
		break;
	case 2:
		del(xasprintf("d%u", which % 16));
		break;
	case 3:
		add(xasprintf("qemu64-x86_64-cpu,id=c%u,socket-id=%u,core-id=0,thread-id=0", which % 8,
			      where % (CPUS + 1)));
		break;
	case 4:
		del(value & 1 ? xasprintf("c%u", which % 8) : xasprintf("/machine/unattached/cpu[%u]", which % 8));
		break;
	case 5:
		map_pio_write(board, (uint16_t)(0xae00 + 4 * (which % 6)), where & 0x80 ? value : 1u << (where & 31),
			      4);
		break;
	case 6:
		map_pio_write(board, (uint16_t)(0xaf00 + which % 34), value, 1u << where % 3);
		break;
	case 7:
		map_pio_read(board, (uint16_t)(which & 1 ? 0xae00 + where % 32 : 0xaf00 + where % 34), 1u << value % 3);
		break;
	case 8:
		use_function((uint8_t)which, where, op[3]);
		break;
	case 9:
		machine_reset(board, SHUTDOWN_HOST_QMP_RESET);
		if (value & 1)
			settle();
		break;
	case 10:
		save_and_load();
		break;
	default:
		for (unsigned i = 0; i < value % 8; i++)
			loop_step(loop_main(), 0);
	}
}

static void check(void)
{
	struct cpu_info info;
	unsigned cpus = 0;
	void *fdt;
	size_t len;

	for (unsigned i = 0; machine_possible_cpu(board, i, &info); i++)
		cpus += info.present;
	need(cpus == board_cpus(board) && machine_cpu_present(board, 0), "the number of CPUs is wrong");
	for (struct device *d = device_next(board, NULL); d; d = device_next(board, d)) {
		need(!d->leaving, "a device is still about to leave");
		need(!d->pci || pci_find(board->pci_bus, d->pci->devfn) == d, "a device is not where it says");
	}
	for (unsigned devfn = 0; devfn < 256; devfn++) {
		struct device *d = pci_find(board->pci_bus, (uint8_t)devfn);

		need((config_read((uint8_t)devfn, 0) != 0xffffffff) == (d != NULL),
		     "the guest and we see different slots");
	}
	need(!machine_describe(board, &fdt, &len, NULL), "it cannot be described");
	free(fdt);
}

/* Back to the machine as it was, so that inputs do not depend on each other. */
static void tidy_up(void)
{
	map_pio_write(board, 0xae10, 0, 4);
	map_pio_write(board, 0xae08, 0, 4);
	for (unsigned slot = 2; slot < 32; slot++)
		map_pio_write(board, 0xae08, 1u << slot, 4);
	for (unsigned i = 1; i < CPUS; i++)
		machine_eject_cpu(board, i);
	settle();
	machine_reset(board, SHUTDOWN_HOST_QMP_RESET);
	settle();
	check();
	need(board_cpus(board) == 1, "a CPU was not removed");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!board)
		start();
	for (size_t i = 0; i + 4 <= size && i < 4 * MAX_OPS; i += 4)
		operate(data + i);
	settle();
	check();
	tidy_up();
	return 0;
}
