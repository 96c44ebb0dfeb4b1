/*
 * The PC board: one table says what sits on it. Machine `pc` is an i440FX PC; "pc-i440fx-7.2" is its versioned name,
 * under which guests keep the same hardware for ever.
 */
#include "board.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "boot.h"
#include "sugar.h"
#include "vmm/block.h"
#include "vmm/net.h"
#include "vmm/object.h"
#include "vmm/cmos.h"
#include "vmm/sandbox.h"
#include "firmware_items.h"

struct board_row {
	const char *class, *id, *options;
	bool (*wanted)(const struct board *b);              /* NULL: always */
	void (*configure)(struct board *b, struct opts *o); /* options that depend on the command line; NULL: none */
	const char *parent; /* id of an earlier row whose lock and bus it shares; NULL: none */
};

static bool has_firmware(const struct board *b)
{
	return b->firmware != NULL;
}

static bool wants_i8042(const struct board *b)
{
	return b->config->machine.i8042 != 0;
}

/* In the order of creation, which is also the order of state sections. Bridges first: others are found behind them. */
static const struct board_row pc_board[] = {
	{"pc-ram", "ram", NULL, NULL, NULL},
	{"pc-firmware", "firmware", NULL, has_firmware, NULL},
	{"isa-i8259", "pic", NULL, NULL, NULL},
	{"ioapic", "ioapic", NULL, NULL, NULL},
	{"i440FX-pcihost", "pcihost", NULL, NULL, NULL},
	{"i440FX", "i440fx", "addr=0x0", NULL, NULL},
	{"PIIX3", "piix3", "addr=0x1.0x0", NULL, NULL},
	{"piix3-ide", "ide", "addr=0x1.0x1", NULL, NULL},
	{"PIIX4_PM", "pm", "addr=0x1.0x3", NULL, NULL},
	{"i8237", "dma", NULL, NULL, NULL},
	{"isa-pit", "pit", NULL, NULL, NULL},
	{"mc146818rtc", "rtc", NULL, NULL, sugar_rtc_options},
	{"fw_cfg_io", "fw_cfg", NULL, NULL, NULL},
	{"port92", "port92", NULL, NULL, NULL},
	{"i8042", "i8042", NULL, wants_i8042, NULL},
	{"ps2-kbd", "kbd", NULL, wants_i8042, NULL, "i8042"},
	{"ps2-mouse", "mouse", NULL, wants_i8042, NULL, "i8042"},
	{"isa-fdc", "fdc", NULL, NULL, sugar_fdc_options},
	{NULL, NULL, NULL, NULL, NULL},
};

bool board_is_row(const struct device *dev)
{
	for (const struct board_row *row = pc_board; row->class; row++)
		if (!strcmp(row->id, dev->id))
			return !strcmp(row->class, dev->class->name);
	return false;
}

/* ---- a described machine ---- */

static struct described_device *find_described(const struct board *b, const char *id)
{
	for (struct described_device *d = b->config->described->devices; d; d = d->next)
		if (!strcmp(d->id, id))
			return d;
	return NULL;
}

/* The board's own devices keep their places; their properties are the described ones. */
static int described_options(struct board *b, const struct board_row *row, struct opts *o, struct err *e)
{
	const struct described_device *d = find_described(b, row->id);

	if (!d || strcmp(d->class, row->class))
		return err_set(e, EINVAL, "the machine's description has no device '%s' (%s), which every '%s' has",
			       row->id, row->class, b->config->machine.type);
	for (size_t i = 0; i < d->opts.n; i++)
		if (strcmp(d->opts.v[i].key, "addr") && strcmp(d->opts.v[i].key, "bus") &&
		    strcmp(d->opts.v[i].key, "unit"))
			opts_set(o, d->opts.v[i].key, d->opts.v[i].value);
	return 0;
}

static bool is_row_id(const char *id)
{
	for (const struct board_row *row = pc_board; row->class; row++)
		if (!strcmp(row->id, id))
			return true;
	return false;
}

static int create_described(struct board *b, struct err *e)
{
	for (struct described_device *d = b->config->described->devices; d; d = d->next) {
		const struct device_class *c = device_class_find(d->class);
		struct device *dev;

		if (is_row_id(d->id)) {
			if (!device_find(b, d->id))
				return err_set(e, EINVAL,
					       "the machine's description has a device '%s', which this '%s' lacks",
					       d->id, b->config->machine.type);
			continue;
		}
		if (c && !c->user_creatable)
			return err_set(e, EINVAL, "the machine's description: device '%s': a '%s' is part of the board",
				       d->id, d->class);
		dev = device_create(b, d->class, d->id, &d->opts, NULL, e);
		if (!dev)
			return err_prefix(e, "the machine's description: device '%s'", d->id);
		dev->user_id = d->user_id;
		dev->user_made = d->user_made;
	}
	return 0;
}

static int create_row(struct board *b, const struct board_row *row, struct err *e)
{
	struct opts o = {0};
	int r = row->options ? opts_parse(&o, row->options, NULL, e) : 0;
	struct device *dev;

	if (!r && b->config->described)
		r = described_options(b, row, &o, e);
	else if (!r && row->configure)
		row->configure(b, &o);
	dev = r ? NULL : device_create(b, row->class, row->id, &o, row->parent ? device_find(b, row->parent) : NULL, e);
	opts_free(&o);
	if (!dev)
		return r ? r : -EINVAL;
	dev->user_id = false;
	if (!strcmp(row->class, "i440FX-pcihost"))
		b->pci_bus = dev;
	return 0;
}

/* Load the firmware ROM; direct kernel boot goes without. */
static int load_firmware(struct board *b, struct err *e)
{
	const char *name = b->config->bios ? b->config->bios : "bios-256k.bin";
	void *data;
	size_t len, size;
	char *path;
	int r;

	if (b->config->kernel && !b->config->bios)
		return 0;
	/* What the user names is a path first, as in QEMU; the default is only looked for where firmware is installed.
	 */
	path = xasprintf("./%s", name);
	if (!b->config->bios || strchr(name, '/') ||
	    (b->config->described ? !board_file_described(b, path) : access(name, F_OK))) {
		free(path);
		path = xstrdup(name);
	}
	r = board_load_firmware(b, path, 16 * MIB, &data, &len, e);
	free(path);
	if (r)
		return err_prefix(e, "-bios"), r;
	if (len < 4096 || len % 4096) {
		free(data);
		return err_set(e, EINVAL,
			       "-bios %s: %zu bytes is no firmware image: the size must be a multiple of 4 KiB", name,
			       len);
	}
	size = len;
	b->firmware = ram_block_create(b, "pc.bios", size, e);
	if (b->firmware)
		memcpy(b->firmware->host, data, len);
	free(data);
	return b->firmware ? 0 : -ENOMEM;
}

struct ram_block *board_firmware(const struct board *board)
{
	return board->firmware;
}

/*
 * Show KVM the memory as it is at reset, then have it create its interrupt chips. The other way round the first memory
 * slot waits 4 to 16 ms: creating a chip leaves callbacks behind (call_srcu(), Linux 6.18) that the slot's own grace
 * period must wait for.
 */
static int create_memory_and_chips(struct board *b, struct err *e)
{
	static const char *const owners[] = {"ram", "firmware", "i440fx"};

	if (!b->kvm)
		return 0;
	map_defer(b);
	for (size_t i = 0; i < ARRAY_SIZE(owners); i++) {
		struct device *dev = device_find(b, owners[i]);

		if (dev) {
			device_reset_own(dev);
			device_settle_own(dev);
		}
	}
	map_commit(b);
	return kvm_irqchip_create(b->kvm, (enum irqchip_mode)b->config->machine.kernel_irqchip, e);
}

int board_build(struct board *b, struct err *e)
{
	struct cmos_disk disks[4] = {0};
	int r = sugar_create_objects(b, e); /* one may be the RAM */

	b->building_described = b->config->described != NULL;
	if (!r)
		r = ram_create(b, e);
	if (!r)
		r = load_firmware(b, e);
	if (!r)
		r = sugar_open_backends(b, e);
	for (const struct board_row *row = pc_board; !r && row->class; row++)
		if (!row->wanted || row->wanted(b))
			r = create_row(b, row, e);
	if (!r)
		r = create_memory_and_chips(b, e);
	if (!r && b->config->described)
		r = create_described(b, e);
	else if (!r)
		r = sugar_create(b, e); /* -drive, -serial, -vga ... */
	b->building_described = false;
	for (struct opt_item *i = b->config->device.first; !r && i; i = i->next)
		r = machine_device_add(b, &i->opts, e);
	if (!r && !b->config->described)
		r = devices_check_globals(b, e);
	for (struct device *d = b->devices; !r && d; d = d->next)
		if (d->class->wire)
			r = d->class->wire(d, e);
	for (unsigned n = 0; !r && n < ARRAY_SIZE(disks); n++)
		ide_cmos_disk(b, n, &disks[n]);
	hotplug_slots_changed(b);
	if (!r)
		r = cmos_fill(b, b->config->boot.order, disks, e);
	if (!r && b->config->boot.once)
		r = cmos_set_boot_order(b, b->config->boot.once, e);
	if (!r)
		r = firmware_publish(b, e);
	if (!r)
		r = boot_direct_prepare(b, e);
	return r;
}

/* ---- the machine from main's point of view ---- */

static void exit_pio(void *opaque, uint16_t port, bool write, void *data, unsigned size, uint32_t count)
{
	map_exit_pio(opaque, port, write, data, size, count);
}

static void exit_mmio(void *opaque, uint64_t addr, bool write, void *data, unsigned len)
{
	map_exit_mmio(opaque, addr, write, data, len);
}

static void exit_eoi(void *opaque, uint8_t vector)
{
	irq_exit_eoi(opaque, vector);
}

static uint8_t exit_pic_ack(void *opaque)
{
	return irq_exit_pic_ack(opaque);
}

static void exit_triple_fault(void *opaque, unsigned cpu)
{
	(void)cpu;
	machine_request_reset(opaque, SHUTDOWN_GUEST_RESET);
}

static void exit_internal_error(void *opaque, unsigned cpu, const char *text)
{
	lifecycle_vcpu_error(opaque, cpu, text);
}

static bool exit_debug(void *opaque, unsigned cpu, const struct kvm_trap *trap)
{
	return debug_exit(opaque, cpu, trap);
}

static const struct kvm_exit_ops exit_ops = {
	.pio = exit_pio,
	.mmio = exit_mmio,
	.ioapic_eoi = exit_eoi,
	.pic_ack = exit_pic_ack,
	.triple_fault = exit_triple_fault,
	.internal_error = exit_internal_error,
	.debug = exit_debug,
};

static int create_kvm(struct board *b, struct err *e)
{
	b->kvm = kvm_vm_new(b->config, &exit_ops, b, e);
	if (!b->kvm)
		return e && e->code ? -e->code : -ENODEV;
	kvm_set_thread_hook(b->kvm, sandbox_thread_vcpu);
	/* Before RAM is laid out: the CPU model's address width limits it. */
	return kvm_cpu_setup_limited(b->kvm, b->config->cpu,
				     b->config->described ? b->config->described->cpu_features : NULL, &b->config->smp,
				     e);
}

static void on_block_event(void *opaque, const char *name, const char *data_json)
{
	machine_event(opaque, name, data_json);
}

static void on_net_event(void *opaque, const char *name, const char *data_json)
{
	machine_event(opaque, name, data_json);
}

struct board *machine_new(const struct config *c, struct err *e)
{
	struct board *b = xzalloc(sizeof(*b));
	int r;

	b->config = c;
	b->devices_tail = &b->devices;
	lifecycle_init(b);
	hotplug_init(b);
	cpus_init(b);
	irq_fabric_init(b);
	block_set_event_handler(on_block_event, b);
	net_set_event_handler(on_net_event, b);
	net_guest_runs(false);
	r = map_init(b, e);
	if (!r && c->machine.accel == ACCEL_KVM)
		r = create_kvm(b, e);
	if (!r && strcmp(c->machine.type, "none"))
		r = board_build(b, e);
	if (!r && strcmp(c->machine.type, "none"))
		r = cpus_create(b, e);
	if (r) {
		machine_free(b);
		return NULL;
	}
	return b;
}

void machine_free(struct board *b)
{
	if (!b)
		return;
	b->quitting = true;
	block_set_event_handler(NULL, NULL);
	net_set_event_handler(NULL, NULL);
	if (b->kvm) {
		kvm_vcpus_pause(b->kvm);
		kvm_vcpus_stop(b->kvm);
	}
	b->state = RUN_SHUTDOWN;
	for (struct block *blk = block_next(NULL); blk; blk = block_next(blk))
		block_drain(blk);
	map_freeze(b);
	/* Children before their controllers: newest first. */
	while (b->devices) {
		struct device *last = b->devices;

		while (last->next)
			last = last->next;
		device_destroy(last);
	}
	boot_direct_free(b);
	board_files_free(b);
	if (b->kvm)
		kvm_vm_free(b->kvm);
	while (b->blocks)
		ram_block_free(b->blocks);
	object_del_all();
	map_free(b);
	hotplug_free(b);
	cpus_free(b);
	lifecycle_free(b);
	pthread_mutex_destroy(&b->irq.lock);
	free(b);
}

const struct config *machine_config(const struct board *b)
{
	return b->config;
}

struct kvm_vm *machine_kvm(const struct board *b)
{
	return b->kvm;
}

bool machine_cpu_dirty(struct board *b, unsigned n, uint64_t *pages)
{
	struct kvm_vcpu *c = b->kvm && n < kvm_vcpu_count(b->kvm) ? kvm_vcpu_get(b->kvm, n) : NULL;

	return c && kvm_vcpu_dirty_pages(c, pages);
}

bool machine_cpu_doze(struct board *b, unsigned n, uint64_t ns)
{
	struct kvm_vcpu *c;

	if (!b->kvm || n >= kvm_vcpu_count(b->kvm))
		return false;
	c = kvm_vcpu_get(b->kvm, n);
	if (c)
		kvm_vcpu_doze(c, ns);
	return true;
}
