/* The machine room's private view of the board. Nothing outside src/machine/ includes this. */
#ifndef VMM_MACHINE_BOARD_H
#define VMM_MACHINE_BOARD_H

#include "vmm/hotplug.h"
#include "vmm/kvm.h"
#include "vmm/machine.h"

#define N_GSI     24
#define N_PIRQ    4
#define CPU_WORDS ((MACHINE_MAX_CPUS + 63) / 64)

/* ---- region map (map.c) ---- */
struct map_piece {           /* one piece of the flattened memory space */
	uint64_t start, end; /* [start, end) */
	struct region *region;
};
struct map_view { /* immutable once published */
	size_t n;
	struct map_piece piece[];
};
struct map {
	pthread_mutex_t lock;   /* recursive leaf: lists below, KVM's slots */
	struct region **region; /* all enabled regions, both spaces */
	size_t n_regions, cap_regions;
	unsigned batch;
	bool mem_stale, slots_held;
	uint16_t *pio_index; /* port -> slot in pio_region; 0 = nothing there */
	struct region *pio_region[1024];
	struct map_view *view; /* published */
};
int map_init(struct board *b, struct err *e);
void doorbells_follow(struct board *b,
		      const struct region *r); /* r came, went or moved; map's lock held (doorbell.c) */
/* All devices are about to settle: rebuild once, at the commit. Unlike region_batch_begin() no lock is held in between
   (device locks are taken there). Main thread, vCPUs paused. */
void map_defer(struct board *b);
void map_commit(struct board *b);
/* KVM gets no new slots until the guest's state is loaded: what lies where at power-on is not what arrives, and each
   change waits milliseconds for a grace period. The first commit after the release makes up for it. Main thread. */
void map_hold_slots(struct board *b, bool hold);
void map_freeze(struct board *b); /* before the devices are destroyed; vCPUs stopped */
void map_free(struct board *b);
void map_refresh_slots(struct board *b); /* board.dirty_log changed */
/* The pieces that are memory, in order, as KVM wants them; log: all that can be written are logged. The caller frees
 * *out. Map's lock held. */
size_t map_list_memory(const struct map_view *v, bool log, struct kvm_memory **out);
/* fn(arg) on the main loop once no vCPU can still be inside a handler it found in the map of now. */
void map_call_after_grace(struct board *b, loop_post_fn *fn, void *arg);
void map_forget(struct board *b, const struct region *r); /* r, disabled, is about to be freed */
/* Exit handlers. */
void map_exit_pio(struct board *b, uint16_t port, bool write, void *data, unsigned size, uint32_t count);
void map_exit_mmio(struct board *b, uint64_t addr, bool write, void *data, unsigned len);
/* Whether anything answers at this memory address. Any thread. */
bool map_is_mapped(struct board *b, uint64_t addr);
/* Host address of guest RAM at addr, and how many bytes follow contiguously; NULL if it is not RAM. Any thread. */
void *map_ram_ptr(struct board *b, uint64_t addr, bool write, uint64_t *avail, struct ram_block **rb, uint64_t *rb_off);

/* ---- RAM (ram.c) ---- */
struct ram_block {
	struct ram_block *next;
	struct board *board;
	struct device *owner;           /* it goes with this device; NULL: with the machine */
	struct memory_backend *backend; /* whose memory it is, or NULL: its own */
	char name[64];
	int fd;
	uint8_t *host;
	uint64_t size;
	/* Pages written since the last look, one bitmap for each who looks: frame buffers' readers and migration.
	   Allocated when tracking starts, kept until the block goes. */
	unsigned long *dirty, *migrate_dirty;
	bool reserved;  /* all of it was allocated in advance, and stays so */
	bool untouched; /* atomic; reserved, and all zeros: nobody has written to it since */
};
struct ram_block *ram_block_create(struct board *b, const char *name, uint64_t size, struct err *e);
void ram_block_free(struct ram_block *rb);
int ram_create(struct board *b, struct err *e); /* guest RAM, split at the PCI hole */

/* ---- who wrote where (dirty.c) ---- */
/* Before KVM's slots follow a new map: old logs are fetched. After: what a slot that went away may have lost counts as
   written. map's lock held. */
void dirty_before_change(struct board *b, const struct map_view *old);
void dirty_after_change(struct board *b, const struct map_view *old, const struct map_view *now);
void dirty_all(struct board *b); /* somebody wrote all over RAM */

/* ---- interrupts (irq.c) ---- */
struct irq_fabric {
	pthread_mutex_t lock;
	struct board *board;
	uint16_t asserted[N_GSI]; /* how many sources drive the input */
	struct {
		uint16_t asserted;
		int gsi; /* -1: routed nowhere */
	} pirq[N_PIRQ];
	struct device *pic, *ioapic;
	const struct irq_chip_ops *pic_ops, *ioapic_ops;
	bool silent; /* settling after a load: the chips' own state already knows these levels */
	irq_capture_fn *capture;
	void *capture_opaque;
};
void irq_fabric_init(struct board *b);
void irq_fabric_clear(struct board *b, bool silent); /* all lines low, before devices settle */
void irq_fabric_settled(struct board *b);
void irq_exit_eoi(struct board *b, uint8_t vector);
uint8_t irq_exit_pic_ack(struct board *b);

/* ---- the board ---- */
struct board {
	const struct config *config;
	struct kvm_vm *kvm; /* NULL: -accel qtest or a test bench */
	struct map map;
	struct irq_fabric irq;
	struct device *devices, **devices_tail;
	struct device *pci_bus; /* host bridge; NULL on -machine none */
	struct ram_block *blocks, *ram, *firmware;
	bool discards_held; /* atomic */
	struct device *balloon_dev;
	const struct balloon_ops *balloon_ops;
	struct doorbell *doorbells;   /* attached ones; map's lock */
	bool dirty_log;               /* every RAM slot logs writes; map's lock */
	struct boot *boot;            /* direct kernel boot (boot.c), or NULL */
	struct described_file *files; /* host files that became part of the machine */
	bool memory_given;            /* another process goes on with it: nothing can run here again */
	bool building_described;      /* devices get the properties they had, not -global's */
	uint64_t ram_low, ram_high;
	struct device *powerdown_dev;
	void (*powerdown_fn)(struct device *dev);

	/* devices and vCPUs that come and go (hotplug.c, cpus.c); main thread unless noted */
	struct device *hotplug_dev;
	const struct hotplug_ops *hotplug_ops;
	uint32_t removable_slots;        /* atomic */
	uint32_t ejected_slots;          /* atomic: asked for by the guest, not carried out yet */
	bool devices_held;               /* atomic */
	uint64_t cpu_present[CPU_WORDS]; /* atomic words */
	uint64_t cpu_ejected[CPU_WORDS]; /* atomic words: asked for by the guest, not carried out yet */
	struct bh eject_bh;
	char *cpu_id[MACHINE_MAX_CPUS]; /* of hot-plugged vCPUs */
	bool firmware_stale;            /* the tables for the firmware show another machine */

	/* life cycle (lifecycle.c), main thread unless noted */
	enum run_state state;
	int reboot_action, shutdown_action, panic_action, watchdog_action;
	int exit_status;
	bool quitting, started;
	bool reset_in_progress, run_after_reset;
	unsigned quiesce_pending;
	bool quiesced;
	void (*quiesce_done)(void *opaque);
	void *quiesce_opaque;
	/* requests from any thread: bits of enum machine_request, carried out by request_bh */
	uint32_t requests;
	int requested_cause, requested_exit;
	const struct machine_debugger *debugger; /* debug.c; changed while no vCPU runs */
	void *debugger_opaque;
	char internal_error[512];
	pthread_mutex_t request_lock;
	struct bh request_bh;
};

/* debug.c */
struct machine_debugger;
bool debug_exit(struct board *b, unsigned cpu, const struct kvm_trap *trap); /* vCPU thread */
void debug_after_reset(struct board *b);
/* device.c */
void device_reset_own(struct device *dev);
void device_settle_own(struct device *dev);
void device_unmap(struct device *dev);   /* lines low, regions gone, off its bus; main thread, no lock held */
void device_dispose(struct device *dev); /* unmapped, off its bus, nothing in flight: unlink, destroy, free */
/* A -global that met no device: -EINVAL for a property its class has not, a warning where it merely has no effect. */
int devices_check_globals(struct board *b, struct err *e);
bool device_id_taken(struct board *b, const char *id);
bool device_id_valid(const char *id);
/* hotplug.c */
void hotplug_init(struct board *b);
void hotplug_free(struct board *b);
void hotplug_device_added(struct device *dev);
void hotplug_withdraw(struct device *dev); /* take it away again; the guest has not been told */
void hotplug_slots_changed(struct board *b);
int hotplug_check(struct board *b, const struct device_class *c, struct err *e);
void hotplug_device_quiesced(struct device *dev); /* a leaving one; any thread, its lock held */
void hotplug_reset(struct board *b); /* removals the guest did not carry out; vCPUs paused, devices quiesced */
/* cpus.c */
void cpus_init(struct board *b); /* the CPUs of -smp are there */
int cpus_create(struct board *b, struct err *e);
void cpus_free(struct board *b);
bool cpu_type_known(const char *driver);
int cpu_add(struct board *b, const char *driver, struct opts *o, struct err *e);
int cpu_remove_request(struct board *b, unsigned index, struct err *e);
int cpu_find(struct board *b, const char *id_or_path); /* index or -1 */
void cpu_eject(struct board *b, unsigned index);
/* firmware_file.c */
/* As board_load_firmware(), for what is no ROM: the content is kept and goes into the machine's description. */
int board_load_file(struct board *board, const char *name, size_t max, void **data, size_t *len, struct err *e);
void board_file_record(struct board *b, const char *name, const void *data, uint64_t size);
bool board_file_described(const struct board *b, const char *name);
void board_files_free(struct board *b);
/* describe_load.c: a flattened device tree, from outside, that libfdt's functions can be let loose on */
bool describe_is_tree(const void *fdt, size_t len);
/* board.c */
bool board_is_row(const struct device *dev); /* every PC has it: the board table made it */
int board_build(struct board *b, struct err *e);
/* lifecycle.c */
void lifecycle_init(struct board *b);
void lifecycle_free(struct board *b);
void lifecycle_release_quiesce(struct device *dev);
void machine_request_debug_stop(struct board *b);                           /* any thread */
void lifecycle_vcpu_error(struct board *b, unsigned cpu, const char *text); /* any thread */

#endif
