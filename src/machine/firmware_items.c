/*
 * What the board hands to its firmware through fw_cfg.
 *
 * Source: QEMU docs/specs/fw_cfg.rst; SeaBIOS docs/Runtime_config.md and src/fw/paravirt.c for what it reads.
 */
#include "firmware_items.h"
#include "acpi.h"
#include "boot.h"
#include "boot_order.h"
#include "e820.h"
#include "smbios.h"
#include "board.h"
#include "vmm/cmos.h"
#include "vmm/fw_cfg.h"
#include "vmm/vmcoreinfo.h"

#include <errno.h>
#include <stdlib.h>

enum {
	KEY_UUID = 0x02,
	KEY_RAM_SIZE = 0x03,
	KEY_NOGRAPHIC = 0x04,
	KEY_NB_CPUS = 0x05,
	KEY_NUMA = 0x0d,
	KEY_BOOT_MENU = 0x0e,
	KEY_MAX_CPUS = 0x0f,
	KEY_IRQ0_OVERRIDE = 0x8002,
};

#define SPLASH_MAX  (4 * MIB)
#define FW_FILE_MAX (64 * MIB)

static int item(struct board *b, uint16_t key, uint64_t value, unsigned size, struct err *e)
{
	uint8_t raw[8];
	put_le(raw, value, size);
	return fw_cfg_add_item(b, key, raw, size, e);
}

/* A file that firmware_refresh() publishes anew. */
static int file(struct board *b, const char *name, const void *data, size_t len, struct err *e)
{
	return b->started ? fw_cfg_update(b, name, data, len, e) : fw_cfg_add_file(b, name, data, len, e);
}

static int publish_items(struct board *b, struct err *e)
{
	const struct config *c = machine_config(b);
	const struct {
		uint16_t key;
		uint8_t size;
		uint64_t value;
	} items[] = {
		{KEY_RAM_SIZE, 8, board_ram_below_4g(b) + board_ram_above_4g(b)},
		/* SeaBIOS then puts its text on the first serial port as well. */
		{KEY_NOGRAPHIC, 2, c->nographic || !c->machine.graphics},
		{KEY_NB_CPUS, 2, board_cpus(b)},
		{KEY_MAX_CPUS, 2, board_max_cpus(b)},
		{KEY_BOOT_MENU, 2, c->boot.menu},
		{KEY_IRQ0_OVERRIDE, 4, 1},
	};
	for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
		int ret = item(b, items[i].key, items[i].value, items[i].size, e);
		if (ret < 0)
			return ret;
	}
	/* No nodes: a count of 0 and a node number for each CPU */
	size_t numa_len = (1 + board_max_cpus(b)) * 8;
	void *numa = xzalloc(numa_len);
	int ret = fw_cfg_add_item(b, KEY_NUMA, numa, numa_len, e);
	free(numa);
	return ret;
}

static int publish_boot_order(struct board *b, struct err *e)
{
	struct blob order;
	int ret = boot_order_build(b, machine_config(b)->boot.strict, &order, e);
	if (ret == 0)
		ret = file(b, "bootorder", order.data, order.len, e);
	blob_free(&order);
	return ret;
}

static int publish_boot(struct board *b, struct err *e)
{
	const struct boot_opts *boot = &machine_config(b)->boot;
	uint8_t raw[4];
	int ret = publish_boot_order(b, e);
	put_le32(raw, boot->reboot_timeout);
	if (ret == 0)
		ret = fw_cfg_add_file(b, "etc/boot-fail-wait", raw, 4, e);
	put_le16(raw, boot->splash_time);
	if (ret == 0 && boot->splash_time)
		ret = fw_cfg_add_file(b, "etc/boot-menu-wait", raw, 2, e);
	return ret;
}

/* A picture for the boot menu; SeaBIOS tells the formats apart by the file's name. */
static int publish_splash(struct board *b, struct err *e)
{
	const char *file = machine_config(b)->boot.splash;
	void *data;
	size_t len;
	if (!file)
		return 0;
	int ret = board_load_file(b, file, SPLASH_MAX, &data, &len, e);
	if (ret < 0)
		return err_prefix(e, "-boot splash");
	const uint8_t *p = data;
	bool bmp = len > 2 && p[0] == 'B' && p[1] == 'M', jpeg = len > 2 && p[0] == 0xff && p[1] == 0xd8;
	if (bmp || jpeg)
		ret = fw_cfg_add_file(b, bmp ? "bootsplash.bmp" : "bootsplash.jpg", data, len, e);
	else
		ret = err_set(e, EINVAL, "-boot splash=%s is neither a JPEG nor a BMP picture", file);
	free(data);
	return ret;
}

static int publish_system_states(struct board *b, struct err *e)
{
	struct device *pm = device_find_class(b, "PIIX4_PM");
	static const char *const names[] = {"disable_s3", "disable_s4", "s4_val"};
	uint8_t v[3] = {0, 0, 2};
	for (unsigned i = 0; pm && i < ARRAY_SIZE(names); i++) {
		const struct prop *p = prop_find(pm->class->props, names[i]);
		if (p && p->type == PROP_U8)
			v[i] = *((const uint8_t *)pm + p->offset);
	}
	/* One byte a state: bit 7 says supported, the rest is its sleep type. */
	const uint8_t states[6] = {0x80, 0, 0, v[0] ? 1 : 0x81, v[1] ? v[2] : 0x80 | v[2], 0x80};
	return fw_cfg_add_file(b, "etc/system-states", states, sizeof(states), e);
}

static int publish_acpi(struct board *b, struct err *e)
{
	struct acpi_blobs acpi;
	if (machine_config(b)->machine.acpi == 0)
		return 0; /* -machine acpi=off */
	int ret = acpi_build(b, &acpi, e);
	if (ret < 0)
		return ret;
	ret = file(b, ACPI_TABLES_FILE, acpi.tables.data, acpi.tables.len, e);
	if (ret == 0)
		ret = file(b, ACPI_RSDP_FILE, acpi.rsdp, sizeof(acpi.rsdp), e);
	if (ret == 0)
		ret = file(b, ACPI_LOADER_FILE, acpi.loader.data, acpi.loader.len, e);
	acpi_blobs_free(&acpi);
	return ret;
}

static int publish_smbios(struct board *b, struct err *e)
{
	struct smbios_blobs smbios;
	int ret = smbios_build(b, &smbios, e);
	if (ret < 0)
		return ret;
	ret = fw_cfg_add_file(b, "etc/smbios/smbios-tables", smbios.tables.data, smbios.tables.len, e);
	if (ret == 0)
		ret = fw_cfg_add_file(b, "etc/smbios/smbios-anchor", smbios.anchor, sizeof(smbios.anchor), e);
	if (ret == 0)
		ret = fw_cfg_add_item(b, KEY_UUID, smbios.uuid, sizeof(smbios.uuid), e);
	smbios_blobs_free(&smbios);
	return ret;
}

static int publish_memory_map(struct board *b, struct err *e)
{
	struct e820_entry map[8];
	size_t n = e820_build(b, map, ARRAY_SIZE(map));
	return fw_cfg_add_file(b, "etc/e820", map, n * sizeof(map[0]), e);
}

static int publish_pvpanic(struct board *b, struct err *e)
{
	struct device *dev = device_find_class(b, "pvpanic");
	uint8_t port[2];
	if (!dev)
		return 0;
	put_le16(port, dev->regions[0].base);
	return fw_cfg_add_file(b, "etc/pvpanic-port", port, sizeof(port), e);
}

static int publish_vmcoreinfo(struct board *b, struct err *e)
{
	uint8_t empty[VMCOREINFO_SIZE];

	if (!device_find_class(b, "vmcoreinfo"))
		return 0;
	vmcoreinfo_initial(empty);
	return fw_cfg_add_writable(b, VMCOREINFO_FILE, empty, sizeof(empty), NULL, NULL, e);
}

/* -fw_cfg [name=]NAME,file=FILE | string=TEXT */
static int publish_user_file(struct board *b, struct opt_item *i, struct err *e)
{
	const char *name = opts_get(&i->opts, "name"), *file = opts_get(&i->opts, "file");
	const char *text = opts_get(&i->opts, "string");
	void *data;
	size_t len;
	for (size_t n = 0; n < i->opts.n; n++) {
		static const char *const known[] = {"name", "file", "string"};
		const char *key = i->opts.v[n].key, *near = err_nearest(key, known, ARRAY_SIZE(known));
		if (!i->opts.v[n].used)
			return err_set(e, EINVAL, "-fw_cfg %s: parameter '%s' is not known%s%s%s", i->text, key,
				       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
	}
	if (!name || !*name)
		return err_set(e, EINVAL, "-fw_cfg %s: name=NAME is missing", i->text);
	if (!file == !text)
		return err_set(e, EINVAL, "-fw_cfg %s: needs one of file=FILE and string=TEXT", i->text);
	if (strncmp(name, "opt/", 4))
		log_warn("fw_cfg", "-fw_cfg name=%s: names from outside should begin with 'opt/'", name);
	if (text)
		return fw_cfg_add_file(b, name, text, strlen(text), e);
	char *path = strchr(file, '/') ? xstrdup(file) : xasprintf("./%s", file);
	int ret = board_load_file(b, path, FW_FILE_MAX, &data, &len, e);
	free(path);
	if (ret < 0)
		return err_prefix(e, "-fw_cfg %s", i->text);
	ret = fw_cfg_add_file(b, name, data, len, e);
	free(data);
	return ret;
}

static int publish_user_files(struct board *b, struct err *e)
{
	for (struct opt_item *i = machine_config(b)->fw_cfg.first; i; i = i->next) {
		int ret = publish_user_file(b, i, e);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int firmware_publish(struct board *b, struct err *e)
{
	static int (*const steps[])(struct board *, struct err *) = {
		publish_items,  publish_memory_map, publish_boot,    publish_splash,     publish_system_states,
		publish_smbios, publish_acpi,       publish_pvpanic, publish_vmcoreinfo, publish_user_files,
	};
	int ret = 0;
	if (!device_find_class(b, "fw_cfg_io"))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(steps) && ret == 0; i++)
		ret = steps[i](b, e);
	return ret;
}

int firmware_refresh(struct board *b, struct err *e)
{
	uint8_t cpus[2];
	if (!b->firmware_stale || !device_find_class(b, "fw_cfg_io"))
		return 0;
	b->firmware_stale = false;
	cmos_update_cpus(b);
	put_le16(cpus, board_cpus(b));
	int ret = fw_cfg_update_item(b, KEY_NB_CPUS, cpus, sizeof(cpus), e);
	if (ret == 0)
		ret = publish_boot_order(b, e);
	if (ret == 0)
		ret = publish_acpi(b, e);
	return ret ? ret : boot_direct_refresh(b, e);
}
