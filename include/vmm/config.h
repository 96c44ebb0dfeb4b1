/*
 * The parsed command line (or configuration, or migration stream): what main hands to machine_new(). Filled by
 * src/config/; plain data after that. Strings and lists are owned by the config.
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include "vmm/prop.h"

#define MACHINE_MAX_CPUS 255 /* xAPIC ids 0..254 */

enum accel { ACCEL_KVM, ACCEL_QTEST };
enum irqchip_mode { IRQCHIP_ON, IRQCHIP_SPLIT };
enum reboot_action { REBOOT_RESET, REBOOT_SHUTDOWN };
enum shutdown_action { SHUTDOWN_POWEROFF, SHUTDOWN_PAUSE };
enum watchdog_action {
	WATCHDOG_RESET,
	WATCHDOG_SHUTDOWN,
	WATCHDOG_POWEROFF,
	WATCHDOG_PAUSE,
	WATCHDOG_DEBUG,
	WATCHDOG_NONE,
	WATCHDOG_INJECT_NMI
};
extern const char *const watchdog_action_names[]; /* in that order, NULL-terminated */
enum panic_action { PANIC_SHUTDOWN, PANIC_PAUSE, PANIC_EXIT_FAILURE, PANIC_NONE };

/* One option that may be given several times, with its source for messages ("-drive file=...") */
struct opt_item {
	char *text; /* as given */
	struct opts opts;
	struct opt_item *next;
};
struct opt_list {
	struct opt_item *first, **last;
};

/* -machine NAME[,k=v]: rows in src/config/cli.c, printed by -machine help */
struct machine_opts {
	char *type;               /* "pc" | "pc-i440fx-7.2" (versioned) | "none" */
	int accel;                /* enum accel, from -accel or accel= ("kvm:tcg" lists: first we have) */
	int kernel_irqchip;       /* enum irqchip_mode */
	uint32_t dirty_ring_size; /* entries; 0: KVM's bitmaps */
	char *dumpdtb;            /* write the machine description and exit */
	bool dump_guest_core, mem_merge, usb, graphics;
	int vmport, hpet, acpi, smm, pit, i8042; /* ONOFFAUTO; what we lack is refused when "on" */
	char *memory_backend;
	uint64_t max_ram_below_4g;
};
struct smp_opts {
	uint32_t cpus, maxcpus, sockets, dies, cores, threads;
};
struct memory_opts {
	uint64_t size, maxmem;
	uint32_t slots;
};
struct boot_opts {
	char *order, *once, *splash;
	bool menu, strict;
	uint32_t splash_time;
	int32_t reboot_timeout;
};
struct rtc_opts {
	char *base;
	int clock;
	int driftfix;
};

/*
 * A machine that was described elsewhere and is to be built the same here: see machine_config_from_description(). Its
 * devices come from this list; -device, -vga and the board's defaults do not apply.
 */
struct described_device {
	struct described_device *next;
	char *class, *id;
	struct opts opts; /* bus, addr, unit and properties */
	bool user_id, user_made;
};
/* A file of the host that became part of the machine: its content, or (ROMs, which come with the memory) only its size.
 */
struct described_file {
	struct described_file *next;
	char *name;
	uint8_t *data; /* NULL: only its size is known */
	uint64_t size;
};
struct config_described {
	struct described_device *devices;
	struct described_file *files;
	uint64_t cpus[(MACHINE_MAX_CPUS + 63) / 64]; /* those that are there */
	char *cpu_id[MACHINE_MAX_CPUS];              /* of hot-plugged ones */
	char *cpu_features;                          /* all that the guest has seen, by name; NULL: without KVM */
	int boot_kind;                               /* of -kernel, see src/machine/boot.h */
};

struct config {
	struct config_described *described; /* NULL: the command line says what the machine is */
	const char *guest_option;           /* first option on the command line that the guest can see; NULL: none */
	struct machine_opts machine;
	struct smp_opts smp; /* completed: every field > 0 and consistent */
	struct memory_opts memory;
	struct boot_opts boot;
	struct rtc_opts rtc;
	char *cpu; /* -cpu text, NULL = default (qemu64) */
	char *name;
	uint8_t uuid[16];
	bool uuid_set, debug_threads;
	char *mem_path;            /* guest RAM in a file there; NULL: memory of its own */
	char *bios, *firmware_dir; /* -bios FILE, -L DIR */
	char *kernel, *initrd, *append;
	char *vga;     /* std | none | cirrus refused ... */
	char *display; /* none | curses | NULL: default */
	bool nographic, nodefaults, no_user_config, mem_lock, mem_prealloc;
	struct opt_list vnc, serial, parallel, debugcon, monitor, qmp, qmp_pretty, mon, chardev, drive, blockdev,
		netdev, nic, net, device, global, object, smbios, fw_cfg, add_fd, acpitable, msg, audiodev, set;
	char *incoming, *loadvm, *migration_allow;
	bool stopped; /* -S */
	int reboot;
	int shutdown;
	int panic; /* enums above: -no-reboot, -no-shutdown, -action */
	bool daemonize;
	char *pidfile, *log_file, *log_filter, *runas, *chroot;
	int sandbox; /* 1 on (default), 0 off */
	bool snapshot;
	char *qtest, *qtest_log;
	char *gdb, *metrics;
	int watchdog; /* enum watchdog_action: -watchdog-action, -action watchdog= */
	char *run_with;
};

/* Parse argv. 0; -errno with a message; 1: something was printed (help, version) and the process should exit 0. */
int config_parse(struct config *c, int argc, char **argv, struct err *e);
void config_free(struct config *c); /* what c owns, not c; zeroed ones are fine */
/* One more option, as if it were on the command line ("drive", "file=..."); not those that print help. */
int config_add(struct config *c, const char *option, const char *arg, struct err *e);
/* -set device.ID.PROP=VALUE: fn gets each; an ID nobody has is an error. */
int config_each_set(struct config *c, struct opts *(*device)(struct config *c, const char *id), struct err *e);
/* Fill what was not given, check what contradicts; config_parse() has done it. */
int config_complete(struct config *c, struct err *e);
/* The list of an option that can be given several times. */
struct opt_list *config_list(struct config *c, const char *option);
void config_list_free(struct opt_list *l); /* its items */
/* What a described machine carries of the typed groups. name NULL ends. */
struct config_group {
	const char *name;
	const struct prop *props;
	size_t offset;
};
extern const struct config_group config_groups[];
void config_described_free(struct config_described *d); /* NULL-safe; config_free() does it */
/* Every option with its syntax and help, grouped, for --help, the man page and query-command-line-options. */
struct option_desc {
	const char *name;
	bool has_arg;
	const char *arg_help;
	const char *help;
	const char *group;
	const struct prop *props;
};
/* Option i in the order of --help; NULL behind the last. */
const struct option_desc *config_option(size_t i);

#endif
