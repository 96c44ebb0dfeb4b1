/*
 * The machine: board, devices, vCPUs and their life cycle, as seen by main, control, migration and test benches.
 * Implementation: src/machine/. Main thread unless said otherwise.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "vmm/config.h"
#include "vmm/device.h"

/* QMP RunState, QEMU's names via run_state_name(). */
enum run_state {
	RUN_DEBUG,
	RUN_INMIGRATE,
	RUN_INTERNAL_ERROR,
	RUN_IO_ERROR,
	RUN_PAUSED,
	RUN_POSTMIGRATE,
	RUN_PRELAUNCH,
	RUN_FINISH_MIGRATE,
	RUN_RESTORE_VM,
	RUN_RUNNING,
	RUN_SAVE_VM,
	RUN_SHUTDOWN,
	RUN_SUSPENDED,
	RUN_WATCHDOG,
	RUN_GUEST_PANICKED
};
const char *run_state_name(enum run_state s);               /* "inmigrate", ... */
bool run_state_find(const char *name, enum run_state *out); /* the other way; false: there is none */

/* Build the board from c: RAM, devices, firmware; vCPUs created but not running. NULL with a message on failure.
   One machine per process. c must outlive the machine. */
struct board *machine_new(const struct config *c, struct err *e);
void machine_free(struct board *b);                         /* stops vCPUs, quiesces, destroys devices; NULL-safe */
const struct config *machine_config(const struct board *b); /* the one machine_new() got */
struct kvm_vm *machine_kvm(const struct board *b);          /* NULL: the machine has no CPU (-accel qtest) */

/* Power on: reset everything, then run unless -S. */
int machine_start(struct board *b, struct err *e);
/* Life cycle, QMP semantics; events are emitted. */
void machine_stop(struct board *b, enum run_state s); /* vCPUs paused, virtual clock stopped; STOP */
int machine_cont(struct board *b, struct err *e);     /* RESUME; refused in shutdown/internal-error until reset */
void machine_reset(struct board *b, enum shutdown_cause cause); /* RESET; over when the devices have quiesced */
void machine_powerdown(struct board *b);                        /* ACPI power button; POWERDOWN */
void machine_quit(struct board *b, enum shutdown_cause cause);  /* end the main loop */
enum run_state machine_run_state(const struct board *b);
bool machine_running(const struct board *b); /* the run state is RUN_RUNNING */
/* What the guest has written has reached its devices (region_desc.coalesced). No device lock held. */
void machine_settle_writes(struct board *b);
/* Exit status for main() after the loop ended. */
int machine_exit_status(const struct board *b);
/* Quiesce all devices, then call done(opaque) (main thread). For saving. resume undoes it. */
void machine_quiesce(struct board *b, void (*done)(void *opaque), void *opaque);
void machine_unquiesce(struct board *b);
/*
 * Migration's doors. stop: vCPUs paused (STOP), FINISH_MIGRATE; returns what the guest did before. A request for a
 * reset or power-off that waits then is carried out where the guest goes on. return: the guest stays ours and does
 * again what it did (its disks are active). arrived: its state was loaded here; s is what it did at the source, PAUSED
 * for RUNNING.
 */
bool machine_quiet(const struct board *b); /* no request waits, no reset is under way: a good moment to stop */
enum run_state machine_migration_stop(struct board *b);
int machine_migration_return(struct board *b, enum run_state before, struct err *e);
void machine_migration_arrived(struct board *b, enum run_state s);
/* Does -no-reboot / set-action: */
void machine_set_watchdog_action(struct board *b, int action);                  /* enum watchdog_action */
void machine_set_actions(struct board *b, int reboot, int shutdown, int panic); /* -1: keep */

/* Device tree of the machine description (libfdt): malloc'ed blob. */
int machine_describe(struct board *b, void **fdt, size_t *len, struct err *e);
/*
 * Complete a command line that does not say what machine it is (c->guest_option is NULL) from a description that came
 * from outside. What the command line says of the host's side goes before what the description says: a -drive,
 * -blockdev, -chardev, -serial ... for the same id or place replaces the options it names, -vnc, -display, -qmp and
 * -mon replace all of theirs; -name and -uuid as well, for a clone. Before machine_new(); c is unusable after an error.
 */
int machine_config_from_description(struct config *c, const void *fdt, size_t len, struct err *e);
/* Is fdt (from outside) this machine? Host-side differences (backends, paths, who emulates the interrupt controllers)
   do not count; the first one that does is named. */
int machine_check_description(struct board *b, const void *fdt, size_t len, struct err *e);
/* Only its processors: for a machine that was built from fdt, which this host may not be able to do as it was. */
int machine_check_processors(struct board *b, const void *fdt, size_t len, struct err *e);
int machine_write_description(struct board *b, const char *path, struct err *e); /* -machine dumpdtb=FILE */

/* Devices. create: one of class `driver` with the options in o, plugged in; whoever calls it for a guest that runs
   resets and settles it. NULL with QEMU's message. destroy: at once, for what has nothing in flight; NULL-safe. */
struct device *device_create(struct board *b, const char *driver, const char *id, struct opts *o, struct device *parent,
			     struct err *e);
void device_destroy(struct device *dev);
int machine_device_add(struct board *b, struct opts *o, struct err *e); /* "driver=..." from -device, device_add */
/* device_del: ID or path. A PCI device or vCPU goes when the guest has ejected it, anything else at once;
   DEVICE_DELETED tells. */
int machine_device_del(struct board *b, const char *id, struct err *e);

/* vCPUs. Possible CPUs have indices 0 .. board_max_cpus() - 1; those that exist need not be the first ones. */
struct cpu_info {
	unsigned index;
	uint32_t apic_id;
	int thread_id; /* 0: it does not exist, or there is no KVM */
	unsigned socket, core, thread;
	bool present;
	const char *id; /* of a hot-plugged one; NULL if it has none. Valid until the CPU is removed */
	char path[96];  /* QOM path; "" if it does not exist */
};
/* The n-th CPU that exists, in the order of their indices. */
bool machine_cpu_info(struct board *b, unsigned n, struct cpu_info *out);
/* Possible CPU `index`, whether it exists or not. */
bool machine_possible_cpu(struct board *b, unsigned index, struct cpu_info *out);
/* ACPI's _OST: event and status the guest reported last for possible CPU `index`, 0 if none since the machine's reset
   or the guest's arrival; false: past the last one, or the guest does not use the interface. */
bool machine_cpu_ost_status(struct board *b, unsigned index, uint32_t *event, uint32_t *status);
const char *machine_cpu_type(const struct board *b); /* "qemu64-x86_64-cpu": what device_add takes for a CPU */
/* Keep the n-th CPU out of the guest for ns, once (auto-converge); false: no such CPU. Any thread. */
bool machine_cpu_doze(struct board *b, unsigned n, uint64_t ns);
/* How many pages the n-th CPU was seen to write so far (-accel kvm,dirty-ring-size=); false: not known. Any thread. */
bool machine_cpu_dirty(struct board *b, unsigned n, uint64_t *pages);

/* Events: control subscribes (one subscriber list). data_json may be NULL. Main thread. */
typedef void machine_event_fn(void *opaque, const char *name, const char *data_json);
void machine_subscribe_events(machine_event_fn *fn, void *opaque); /* for good */

/* All state sections (devices in creation order, PCI config, vCPUs, clock) appended to out; paused and quiesced. */
extern const struct state_table machine_clock_state;
int machine_save_state(struct board *b, struct state_buf *out, struct err *e);
/* Load them; every known section must be present; unknown ones are refused by name. Then settles all devices. */
int machine_load_state(struct board *b, const uint8_t *data, size_t len, struct err *e);

/* The same access path vCPUs use; for qtest, fuzzers and device tests. Any thread not holding device locks. */
uint64_t map_pio_read(struct board *b, uint16_t port, unsigned size);
void map_pio_write(struct board *b, uint16_t port, uint64_t value, unsigned size);
int map_mem_read(struct board *b, uint64_t addr, void *buf, size_t len); /* RAM, ROM and MMIO, split as a CPU would */
int map_mem_write(struct board *b, uint64_t addr, const void *buf, size_t len);
void map_print(struct board *b, FILE *out); /* flattened map, for `info mtree` */

/* Interrupt capture for tests and qtest: called at every level change of a GSI (chip 0), PIC output (chip 1), MSI (chip
 * 2; n = data, level = 1). */
typedef void irq_capture_fn(void *opaque, unsigned chip, unsigned n, bool level);
void irq_set_capture(struct board *b, irq_capture_fn *fn, void *opaque); /* one; NULL ends it. fn: a leaf, any thread */
bool irq_gsi_level(struct board *b, unsigned gsi);                       /* the ORed input (below 24) now */
/* Make line a source of its own for a GSI (below 24): what a test plugs into a slot. Drive it with irq_set(). */
void irq_line_for_gsi(struct board *b, struct irq_line *line, unsigned gsi);
#endif
