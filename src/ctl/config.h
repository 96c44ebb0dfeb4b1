/*
 * A guest's configuration: what vmm.conf(5) documents. Filled from a file in our own syntax (config_file.c) or from one
 * of Xen's xm and xl (xen_config.c); turned into vmm's command line here.
 */
#ifndef VMM_CTL_CONFIG_H
#define VMM_CTL_CONFIG_H

#include <stdio.h>
#include "vmm-config.h"
#include "vmm/prop.h"

enum guest_policy {
	POLICY_DESTROY,
	POLICY_RESTART,
	POLICY_PRESERVE,
	POLICY_COREDUMP_DESTROY,
	POLICY_COREDUMP_RESTART,
};

struct disk_config {
	char *file, *target, *format, *cache, *aio;
	int media;
	bool readonly, shared;
	struct disk_config *next;
};
struct serial_config {
	char *type;
	struct serial_config *next;
};
struct nic_config {
	char *mac, *bridge, *model, *netdev, *forward, *helper;
	struct nic_config *next;
};
struct device_config { /* handed to -device as it is */
	struct opts opts;
	struct device_config *next;
};

struct guest_config {
	char *name, *description, *cpu, *boot, *bios, *kernel, *initrd, *append, *vga, *vnc, *vnc_password, *cpus,
		*runas, *machine, *extra;
	uint8_t uuid[16];
	uint64_t memory, maxmem;
	uint32_t vcpus, maxvcpus, cpu_weight, cpu_cap, shutdown_timeout;
	int rtc, on_poweroff, on_reboot, on_crash;
	bool acpi, pvpanic, balloon, metrics, sandbox;
	struct disk_config *disks;
	struct serial_config *serials;
	struct nic_config *nics;
	struct device_config *devices;
};

struct config_section {
	const char *name; /* "" for the keys of the guest itself */
	const char *help;
	const struct prop *props; /* NULL: any key goes to vmm */
};
extern const struct config_section config_sections[]; /* ends with a NULL name */
extern const struct prop guest_props[], disk_props[], serial_props[], nic_props[];

/* Setting i of Xen's files: NULL behind the last. ours: the key it becomes, NULL if it is not as simple; why: why it is
   ignored, NULL if it is not, "" if without a word. */
const char *xen_setting_at(size_t i, const char **ours, const char **why);

struct guest_config *guest_config_new(void);
void guest_config_free(struct guest_config *c); /* NULL-safe */
struct guest_config *guest_config_copy(const struct guest_config *c);
struct disk_config *guest_config_add_disk(struct guest_config *c);
struct serial_config *guest_config_add_serial(struct guest_config *c);
struct nic_config *guest_config_add_nic(struct guest_config *c);
struct device_config *guest_config_add_device(struct guest_config *c);
/* One key of the guest itself; a bare number for memory and maxmem means MiB. -EINVAL with the reason. */
int guest_config_set(struct guest_config *c, const char *key, const char *value, struct err *e);
/* What single keys cannot know: a name, disks at distinct places, sizes that fit. Relative paths become absolute below
 * `dir`. */
int guest_config_complete(struct guest_config *c, const char *dir, const char *default_name, struct err *e);

/* Words a person should read though the file is good: what is ignored and why. Prefixed with the place. */
struct notes {
	char **v;
	size_t n;
};
void notes_add(struct notes *n, char *text); /* takes text */
void notes_free(struct notes *n);

/* Parse text. -EINVAL with "FILE:LINE:COLUMN: ..." in e. Both accept any bytes. */
int config_parse_native(struct guest_config *c, const char *file, const char *text, size_t len, struct err *e);
int config_parse_xen(struct guest_config *c, const char *file, const char *text, size_t len, struct notes *notes,
		     struct err *e);
/* Read and parse a file, choosing the syntax by its name (.vmm: ours) unless format says "vmm" or "xen". */
int config_load(struct guest_config *c, const char *path, const char *format, struct notes *notes, struct err *e);
/* In our own syntax, so that it reads back equal; malloc'ed. */
char *config_format(const struct guest_config *c);

/* ---- network cards (nic.c) ---- */

int nic_check(const struct nic_config *n, struct err *e);
/* What -netdev and -device say of the card `id`, the `number`th; the netdev is ID-net. seed: the guest's uuid or name,
 * for an address of its own. */
int nic_command_line(const struct nic_config *n, const char *id, const char *seed, unsigned number, struct opts *netdev,
		     struct opts *device, struct err *e);
const char *bridge_helper(void); /* NULL: vmm's default, which is QEMU's */

/* Strings for execve(); freed with argv_free(). restricted to what the configuration says; keeper adds nothing. */
struct argv {
	char **v;
	size_t n;
};
void argv_add(struct argv *a, const char *fmt, ...) VMM_PRINTF(2, 3);
void argv_free(struct argv *a);
/* The command line. sockets: with the control socket, pid file and consoles of a run directory (vmm's working
 * directory). */
int config_command_line(const struct guest_config *c, const char *vmm, struct argv *out, struct err *e);
/* A command line as a shell takes it; malloc'ed. */
char *argv_quote(const struct argv *a);

#endif
