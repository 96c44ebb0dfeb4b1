/*
 * The machine description: board, processors, memory and devices as a flattened device tree (Devicetree Specification
 * 0.4, chapters 2 and 5). It says what was built, not what the guest made of it since: BARs have sizes, not addresses.
 * The same configuration gives the same bytes.
 *
 *   /                    compatible "vmm,pc", model: the versioned machine name, vmm,version
 *   /cpus/cpu@APICID     reg, vmm,topology <socket core thread>; on /cpus the model, its features, KVM's needs
 *   /memory@ADDRESS      reg <address size> (64-bit cells)
 *   /devices/ID          class, bus, parent, addr, unit; interrupts <kind input>...: 1 GSI, 2 PCI interrupt pin router
 *   /devices/ID/properties   every property the user can set, as the text -device takes
 *   /devices/ID/regions/NAME space, kind, reg <base size> or size and bar
 *   /configuration       the rest of what the guest can see: name, uuid, cpu, options as text; a node per typed group
 *   /files/file@N        host files that became part of the machine: name, size, data (not for ROMs: they are memory)
 *   /host                this host's side, defaults for another: block@N, chardev@N, netdev@N, object@N as option text,
 * vnc, qmp, ...
 *
 * describe_load.c builds a configuration from it: the same machine, described again, gives the same bytes.
 */
#include "boot.h"
#include "vmm-config.h"
#include "vmm/block.h"
#include "vmm/chardev.h"
#include "vmm/net.h"
#include "vmm/object.h"
#include "vmm/pci.h"

#include <errno.h>
#include <fcntl.h>
#include <libfdt.h>
#include <stdlib.h>
#include <unistd.h>

#define FIRST_SIZE (64 * KIB)
#define LAST_SIZE  (64 * MIB)

struct writer {
	void *fdt;
	int error; /* first libfdt error, negative */
};

static void check(struct writer *w, int r)
{
	if (w->error == 0 && r < 0)
		w->error = r;
}

static void begin(struct writer *w, const char *fmt, ...) VMM_PRINTF(2, 3);
static void begin(struct writer *w, const char *fmt, ...)
{
	char name[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	for (char *p = name; *p; p++)
		if (*p == '/')
			*p = '_';
	check(w, fdt_begin_node(w->fdt, name));
}

static void end(struct writer *w)
{
	check(w, fdt_end_node(w->fdt));
}

static void text(struct writer *w, const char *name, const char *value)
{
	check(w, fdt_property_string(w->fdt, name, value));
}

static void cell(struct writer *w, const char *name, uint32_t value)
{
	check(w, fdt_property_u32(w->fdt, name, value));
}

static void two_u64(struct writer *w, const char *name, uint64_t a, uint64_t b)
{
	const uint64_t v[2] = {cpu_to_fdt64(a), cpu_to_fdt64(b)};

	check(w, fdt_property(w->fdt, name, v, sizeof(v)));
}

static void describe_cpus(struct writer *w, struct board *b)
{
	struct cpu_info info;

	begin(w, "cpus");
	cell(w, "#address-cells", 1);
	cell(w, "#size-cells", 0);
	cell(w, "vmm,maximum", board_max_cpus(b));
	text(w, "vmm,requested", b->config->cpu ? b->config->cpu : "qemu64");
	if (b->kvm) {
		char *features = kvm_cpu_features(b->kvm), *needs = kvm_state_needs(b->kvm);

		text(w, "vmm,model", kvm_cpu_model(b->kvm));
		text(w, "vmm,features", features);
		text(w, "vmm,kvm-state", needs);
		free(features);
		free(needs);
	}
	for (unsigned i = 0; machine_cpu_info(b, i, &info); i++) {
		const uint32_t topology[3] = {cpu_to_fdt32(info.socket), cpu_to_fdt32(info.core),
					      cpu_to_fdt32(info.thread)};

		begin(w, "cpu@%x", info.apic_id);
		text(w, "device_type", "cpu");
		cell(w, "reg", info.apic_id);
		cell(w, "vmm,index", info.index);
		if (info.id)
			text(w, "vmm,id", info.id);
		check(w, fdt_property(w->fdt, "vmm,topology", topology, sizeof(topology)));
		end(w);
	}
	end(w);
}

static void describe_memory(struct writer *w, uint64_t address, uint64_t size)
{
	if (!size)
		return;
	begin(w, "memory@%llx", (unsigned long long)address);
	text(w, "device_type", "memory");
	two_u64(w, "reg", address, size);
	end(w);
}

static const char *bus_name(enum device_bus bus)
{
	static const char *const names[] = {
		[BUS_SYSTEM] = "system", [BUS_ISA] = "isa",
		[BUS_PCI] = "pci",       [BUS_IDE] = "ide",
		[BUS_FLOPPY] = "floppy", [BUS_PS2] = "ps2",
		[BUS_SMBUS] = "smbus",   [BUS_VIRTIO_SERIAL] = "virtio-serial",
		[BUS_USB] = "usb",       [BUS_CPU] = "cpu",
	};

	return (size_t)bus < ARRAY_SIZE(names) && names[bus] ? names[bus] : "other";
}

/* A string that was not given is not the same as an empty one. */
static bool is_unset(const struct prop *p, const void *obj)
{
	const void *v = (const uint8_t *)obj + p->offset;

	switch (p->type) {
	case PROP_STR:
	case PROP_DRIVE:
	case PROP_CHARDEV:
	case PROP_NETDEV:
		return !*(char *const *)v;
	case PROP_PCI_ADDR:
		return *(const int32_t *)v < 0;
	default:
		return false;
	}
}

static void describe_rows(struct writer *w, const struct prop *props, const void *obj, const char *const *skip)
{
	for (const struct prop *p = props; p && p->name; p++) {
		bool wanted = !p->internal && !is_unset(p, obj);
		char *value;

		for (const char *const *s = skip; s && *s; s++)
			wanted &= strcmp(*s, p->name) != 0;
		if (!wanted)
			continue;
		value = prop_format(p, obj);
		text(w, p->name, value);
		free(value);
	}
}

static void describe_properties(struct writer *w, const struct device *dev)
{
	begin(w, "properties");
	describe_rows(w, dev->class->props, dev, NULL);
	end(w);
}

static void describe_region(struct writer *w, const struct region *r)
{
	static const char *const kinds[] = {[REGION_IO] = "io", [REGION_RAM] = "ram", [REGION_ROM] = "rom"};
	const struct region_desc *d = r->desc;

	begin(w, "%s", d->name);
	text(w, "space", d->space == SPACE_PIO ? "port" : "memory");
	text(w, "kind", kinds[d->kind]);
	if (d->bar != REGION_NOT_BAR) {
		cell(w, "bar", (uint32_t)d->bar);
		check(w, fdt_property_u64(w->fdt, "size", r->size));
	} else if (d->base_prop || !d->disabled) {
		two_u64(w, "reg", d->base_prop ? r->base : d->base, r->size);
	} else {
		check(w, fdt_property_u64(w->fdt, "size", r->size)); /* the device decides where and when */
	}
	end(w);
}

static void describe_interrupts(struct writer *w, const struct device *dev)
{
	uint32_t cells[2 * DEVICE_MAX_IRQS];
	unsigned n = 0;

	for (unsigned i = 0; i < dev->class->n_irqs && i < DEVICE_MAX_IRQS; i++)
		if (dev->irq[i].kind != IRQ_NONE) {
			cells[n++] = cpu_to_fdt32(dev->irq[i].kind);
			cells[n++] = cpu_to_fdt32(dev->irq[i].input);
		}
	if (n)
		check(w, fdt_property(w->fdt, "interrupts", cells, (int)(n * sizeof(cells[0]))));
}

static void describe_device(struct writer *w, const struct device *dev)
{
	begin(w, "%s", dev->id);
	text(w, "class", dev->class->name);
	text(w, "bus", bus_name(dev->class->bus));
	if (dev->user_id)
		check(w, fdt_property(w->fdt, "vmm,user-id", NULL, 0));
	if (dev->user_made)
		check(w, fdt_property(w->fdt, "vmm,user-made", NULL, 0));
	if (board_is_row(dev))
		check(w, fdt_property(w->fdt, "vmm,board", NULL, 0));
	if (dev->parent)
		text(w, "parent", dev->parent->id);
	if (dev->bus_id)
		text(w, "bus-id", dev->bus_id);
	if (dev->pci)
		cell(w, "addr", dev->pci->devfn); /* device << 3 | function */
	else if (dev->parent && dev->unit >= 0)
		cell(w, "unit", (uint32_t)dev->unit);
	describe_interrupts(w, dev);
	describe_properties(w, dev);
	if (dev->class->n_regions) {
		begin(w, "regions");
		for (unsigned i = 0; i < dev->class->n_regions; i++)
			describe_region(w, &dev->regions[i]);
		end(w);
	}
	end(w);
}

/* ---- the rest of the configuration ---- */

static void optional_text(struct writer *w, const char *name, const char *value)
{
	if (value)
		text(w, name, value);
}

/* The texts of an option given several times, as a string list. */
static void describe_list(struct writer *w, const char *name, const struct opt_list *list)
{
	size_t len = 0;
	char *all;

	for (const struct opt_item *i = list->first; i; i = i->next)
		len += strlen(i->text) + 1;
	if (!len)
		return;
	all = xzalloc(len);
	len = 0;
	for (const struct opt_item *i = list->first; i; i = i->next) {
		memcpy(all + len, i->text, strlen(i->text) + 1);
		len += strlen(i->text) + 1;
	}
	check(w, fdt_property(w->fdt, name, all, (int)len));
	free(all);
}

static void describe_configuration(struct writer *w, struct board *b)
{
	static const char *const host[] = {
		"type",    "accel",           "kernel-irqchip", "dirty-ring-size",
		"dumpdtb", "dump-guest-core", "mem-merge",      "memory-backend",
		NULL,
	};
	const struct config *c = b->config;

	begin(w, "configuration");
	optional_text(w, "name", c->name);
	if (c->uuid_set) {
		static const struct prop uuid = PROP(struct config, uuid, PROP_UUID);
		char *value = prop_format(&uuid, c);

		text(w, "uuid", value);
		free(value);
	}
	optional_text(w, "cpu", c->cpu);
	optional_text(w, "bios", c->bios);
	optional_text(w, "kernel", c->kernel);
	optional_text(w, "initrd", c->initrd);
	optional_text(w, "append", c->append);
	if (b->boot)
		cell(w, "kernel-kind", (uint32_t)boot_direct_kind(b));
	if (c->nographic)
		check(w, fdt_property(w->fdt, "nographic", NULL, 0));
	describe_list(w, "global", &c->global);
	describe_list(w, "smbios", &c->smbios);
	describe_list(w, "acpitable", &c->acpitable);
	describe_list(w, "fw_cfg", &c->fw_cfg);
	for (const struct config_group *g = config_groups; g->name; g++) {
		begin(w, "%s", g->name);
		describe_rows(w, g->props, (const uint8_t *)c + g->offset, host);
		end(w);
	}
	end(w);
}

static void describe_file(struct writer *w, unsigned n, const char *name, uint64_t size, const void *data)
{
	begin(w, "file@%x", n);
	text(w, "name", name);
	check(w, fdt_property_u64(w->fdt, "size", size));
	if (data)
		check(w, fdt_property(w->fdt, "data", data, (int)size));
	end(w);
}

static void describe_files(struct writer *w, struct board *b)
{
	const char *path;
	uint64_t size;
	unsigned n = 0;

	begin(w, "files");
	for (const struct described_file *f = b->files; f; f = f->next)
		describe_file(w, n++, f->name, f->size, f->data);
	for (unsigned i = 0; boot_direct_file(b, i, &path, &size); i++)
		describe_file(w, n++, path, size, NULL);
	end(w);
}

static bool used_by_device(struct board *b, const char *chardev)
{
	for (struct device *dev = device_next(b, NULL); dev; dev = device_next(b, dev))
		for (const struct prop *p = dev->class->props; p && p->name; p++) {
			const char *id =
				p->type == PROP_CHARDEV ? *(char *const *)((const uint8_t *)dev + p->offset) : NULL;

			if (id && !strcmp(id, chardev))
				return true;
		}
	return false;
}

static bool on_command_line(const struct config *c, const char *chardev)
{
	for (struct opt_item *i = c->chardev.first; i; i = i->next) {
		const char *id = opts_get(&i->opts, "id");

		if (id && !strcmp(id, chardev))
			return true;
	}
	return false;
}

/* Objects that devices refer to; not secrets and credentials, which are nobody else's. */
static void describe_objects(struct writer *w)
{
	unsigned n = 0;

	for (struct object *o = object_next(NULL); o; o = object_next(o)) {
		struct opts opts = {0};
		char *options;

		if (!o->type->parent || strcmp(o->type->parent, "rng-backend"))
			continue;
		opts_set(&opts, "qom-type", o->type->name);
		opts_set(&opts, "id", o->id);
		for (const struct prop *p = o->type->props; p && p->name; p++) {
			char *value = p->internal || is_unset(p, o) ? NULL : prop_format(p, o);

			if (value)
				opts_set(&opts, p->name, value);
			free(value);
		}
		options = opts_format(&opts);
		begin(w, "object@%x", n++);
		text(w, "text", options);
		end(w);
		free(options);
		opts_free(&opts);
	}
}

static void describe_host(struct writer *w, struct board *b)
{
	static const char *const reboot[] = {"reset", "shutdown"}, *const shutdown[] = {"poweroff", "pause"},
				 *const panic[] = {"shutdown", "pause", "exit-failure", "none"};
	const struct config *c = b->config;
	unsigned n = 0;

	begin(w, "host");
	if (!c->nodefaults)
		check(w, fdt_property(w->fdt, "default-screen", NULL, 0));
	optional_text(w, "display", c->display);
	describe_list(w, "vnc", &c->vnc);
	describe_list(w, "qmp", &c->qmp);
	describe_list(w, "qmp-pretty", &c->qmp_pretty);
	describe_list(w, "mon", &c->mon);
	describe_list(w, "monitor", &c->monitor);
	text(w, "reboot", reboot[b->reboot_action]);
	text(w, "shutdown", shutdown[b->shutdown_action]);
	text(w, "panic", panic[b->panic_action]);
	for (struct block *blk = block_next(NULL); blk; blk = block_next(blk)) {
		bool drive;
		char *options = block_describe(blk, &drive);

		if (options) {
			begin(w, "block@%x", n++);
			text(w, "option", drive ? "drive" : "blockdev");
			text(w, "text", options);
			end(w);
		}
		free(options);
	}
	describe_objects(w);
	n = 0;
	for (struct chardev *chr = chardev_next(NULL); chr; chr = chardev_next(chr))
		if (on_command_line(c, chardev_id(chr)) || used_by_device(b, chardev_id(chr))) {
			begin(w, "chardev@%x", n++);
			text(w, "text", chardev_options(chr));
			end(w);
		}
	n = 0;
	for (struct netdev *d = netdev_next(NULL); d; d = netdev_next(d)) {
		begin(w, "netdev@%x", n++);
		text(w, "text", netdev_options(d));
		end(w);
	}
	end(w);
}

static void describe(struct writer *w, struct board *b)
{
	check(w, fdt_finish_reservemap(w->fdt));
	begin(w, "%s", "");
	text(w, "compatible", "vmm,pc");
	/* "pc" is a name for the newest version; a description names the version. */
	text(w, "model", strcmp(b->config->machine.type, "pc") ? b->config->machine.type : "pc-i440fx-7.2");
	text(w, "vmm,version", VMM_VERSION);
	cell(w, "#address-cells", 2);
	cell(w, "#size-cells", 2);
	text(w, "vmm,kernel-irqchip", b->config->machine.kernel_irqchip == IRQCHIP_SPLIT ? "split" : "on");
	describe_cpus(w, b);
	describe_memory(w, 0, board_ram_below_4g(b));
	describe_memory(w, 4 * GIB, board_ram_above_4g(b));
	begin(w, "devices");
	for (struct device *dev = device_next(b, NULL); dev; dev = device_next(b, dev))
		describe_device(w, dev);
	end(w);
	describe_configuration(w, b);
	describe_files(w, b);
	describe_host(w, b);
	end(w);
	check(w, fdt_finish(w->fdt));
}

int machine_describe(struct board *b, void **fdt, size_t *len, struct err *e)
{
	int r = boot_direct_keep(b, e);

	if (r)
		return r;
	for (struct device *dev = device_next(b, NULL); dev; dev = device_next(b, dev))
		if (dev->leaving)
			return err_set(e, EBUSY, "the device '%s' is just being removed: try again", dev->id);
	for (size_t size = FIRST_SIZE; size <= LAST_SIZE; size *= 2) {
		struct writer w = {.fdt = malloc(size)};

		if (!w.fdt)
			return err_errno(e, ENOMEM, "machine description");
		check(&w, fdt_create(w.fdt, (int)size));
		describe(&w, b);
		if (w.error == 0) {
			*fdt = w.fdt;
			*len = fdt_totalsize(w.fdt);
			return 0;
		}
		free(w.fdt);
		if (w.error != -FDT_ERR_NOSPACE)
			return err_set(e, EINVAL, "machine description: %s", fdt_strerror(w.error));
	}
	return err_set(e, E2BIG, "machine description: more than %llu MiB", LAST_SIZE / MIB);
}

int machine_write_description(struct board *b, const char *path, struct err *e)
{
	void *fdt;
	size_t len;
	int r = machine_describe(b, &fdt, &len, e), fd;
	ssize_t n = -1;

	if (r < 0)
		return r;
	/* A pipe that nobody reads, or that takes less than all of it, is an error: nothing waits for it. */
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
	if (fd >= 0)
		n = write(fd, fdt, len);
	if (n < 0)
		r = err_errno(e, errno, "-machine dumpdtb=%s: cannot write the file", path);
	else if ((size_t)n != len)
		r = err_set(e, ENOSPC, "-machine dumpdtb=%s: cannot write all of the file", path);
	if (fd >= 0)
		close(fd);
	free(fdt);
	return r;
}
