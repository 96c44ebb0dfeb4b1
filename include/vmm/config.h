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

/* -machine NAME[,k=v]: rows in src/config/tables.c, printed by -machine help */
struct machine_opts {
	char *type;         /* "pc" | "pc-i440fx-7.2" (versioned) | "none" */
	int accel;          /* enum accel, from -accel or accel= ("kvm:tcg" lists: first we have) */
	int kernel_irqchip; /* enum irqchip_mode */
	char *dumpdtb;      /* write the machine description and exit */
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

struct config {
	struct machine_opts machine;
	struct smp_opts smp; /* completed: every field > 0 and consistent */
	struct memory_opts memory;
	struct boot_opts boot;
	struct rtc_opts rtc;
	char *cpu; /* -cpu text, NULL = default (qemu64) */
	char *name;
	uint8_t uuid[16];
	bool uuid_set, debug_threads;
	char *bios, *firmware_dir; /* -bios FILE, -L DIR */
	char *kernel, *initrd, *append;
	char *vga;     /* std | none | cirrus refused ... */
	char *display; /* none | curses | NULL: default */
	bool nographic, nodefaults, no_user_config;
	struct opt_list vnc, serial, parallel, debugcon, monitor, qmp, qmp_pretty, mon, chardev, drive, blockdev, netdev, device,
		global, object, smbios, fw_cfg, add_fd, acpitable, msg, audiodev;
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
	char *watchdog_action;
	char *run_with;
};

/* Parse argv. 0; -errno with a message; 1: something was printed (help, version) and the process should exit 0. */
int config_parse(struct config *c, int argc, char **argv, struct err *e);
void config_free(struct config *c);
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
