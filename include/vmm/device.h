/*
 * The device contract. A device is one file plus one word in src/devices/meson.build: the file defines a
 * `struct device_class` with DEVICE_CLASS(); the build generates the registry from the word.
 *
 * Locks: one mutex per device, taken by the region map, by timers, watches, bottom halves and completions; never by
 * device code. Under it a device calls only leaf services (irq_*, dma_*, region_*, timer_*, bh_schedule, log, surface,
 * the request functions below), never another device. A controller and its children (drives, PS/2 devices) share one
 * mutex: a child created with a parent uses its parent's.
 */
#ifndef VMM_DEVICE_H
#define VMM_DEVICE_H

#include <pthread.h>
#include <stdbool.h>
#include "vmm/bytes.h"
#include "vmm/clock.h"
#include "vmm/dma.h"
#include "vmm/err.h"
#include "vmm/irq.h"
#include "vmm/log.h"
#include "vmm/prop.h"
#include "vmm/region.h"
#include "vmm/state.h"

struct board;
struct block;
struct chardev;
struct pci_identity;
struct pci_function;

enum device_bus {
	BUS_SYSTEM,
	BUS_ISA,
	BUS_PCI,
	BUS_IDE,
	BUS_FLOPPY,
	BUS_PS2,
	BUS_SMBUS,
	BUS_VIRTIO_SERIAL,
	BUS_USB,
	BUS_CPU
};

/* A property of the running device beyond its options (QMP qom-get, qom-set). The device's lock is held; leaf. */
struct device_property {
	const char *name, *type;          /* QOM's type: "int", "bool", "string", ...; name NULL ends a list */
	char *(*get)(struct device *dev); /* JSON text, malloc'ed; NULL: cannot be read */
	int (*set)(struct device *dev, const char *json, struct err *e); /* NULL: read-only */
};

#define DEVICE_MAX_REGIONS 16
#define DEVICE_MAX_IRQS    4

struct device_class {
	const char *name;    /* QEMU's name of the device where it has one */
	const char *alias;   /* second name accepted, or NULL */
	const char *summary; /* one line for -device help */
	enum device_bus bus;
	const char *category; /* "Storage", "Network", "Display", "Input", "Misc", "Controller/Bridge" */
	size_t size;          /* of the instance; struct device is its first member */
	bool user_creatable;  /* with -device / device_add (else only from the board table) */
	bool hotpluggable;    /* device_add and device_del while the guest runs: see vmm/hotplug.h */
	bool lock_is_fabric;  /* interrupt controllers: see vmm/irq.h */
	const struct prop *props;
	const struct region_desc *regions;
	unsigned n_regions;
	/* Interrupt outputs. irq_prop[i] names the integer property that gives the GSI of line i, or NULL: a PCI
	   function's INTx pin (wired by the PCI bus), or wired by the board. */
	const char *irq_prop[DEVICE_MAX_IRQS];
	unsigned n_irqs;
	const struct pci_identity *pci; /* BUS_PCI */
	const struct state_table *state;
	const struct device_property *properties; /* NULL: its options only */
	const char *stateless; /* reason why there is no state table; exactly one of the two is set */

	/* All with the device's lock held except create/destroy. create: properties are parsed, regions and irq lines
	   prepared but not mapped; allocate, check options. May fail; destroy is NOT called then: release what you
	   took. */
	int (*create)(struct device *dev, struct err *e);
	void (*destroy)(struct device *dev); /* after quiesce; nothing is in flight; may be NULL */
	/* Power-on values of own fields only: no interrupts, DMA or timers. */
	void (*reset)(struct device *dev);
	/* After ALL devices were reset or loaded: drive lines, arm timers (timer_settle), map regions (BARs: done by
	 * the PCI bus). */
	void (*settle)(struct device *dev);
	/* Stop intake; call device_quiesced(dev) once nothing is in flight (may be at once). NULL: nothing ever is. */
	void (*quiesce)(struct device *dev);
	void (*resume)(struct device *dev);
	/* Guest time has just stopped (false; the vCPUs are paused) or is about to run again (true). For hardware that
	   lives in KVM and counts the host's time. Optional. */
	void (*guest_time)(struct device *dev, bool runs);
	/* Device-to-device wiring after all board devices exist (controller finds its bridge ...). Main thread, before
	   reset. The only place that may look at another device; pointers found here may be kept if the other one is
	   never unplugged. */
	int (*wire)(struct device *dev, struct err *e);
};

struct device {
	const struct device_class *class;
	char id[64];    /* unique: user's id=, else "class" or "class#n"; the name in streams, QMP and logs */
	bool user_id;   /* given by the user: /machine/peripheral/ID */
	bool user_made; /* with -device or device_add */
	struct board *board;
	struct device *parent; /* controller of an IDE drive ... or NULL */
	char *bus_id;          /* bus=/addr=/unit= as given, parsed by the bus */
	int32_t unit;
	pthread_mutex_t *lock;
	pthread_mutex_t own_lock;
	struct region regions[DEVICE_MAX_REGIONS]; /* in the order of class->regions */
	struct irq_line irq[DEVICE_MAX_IRQS];
	struct pci_function *pci; /* BUS_PCI: configuration space, see vmm/pci.h */
	bool quiesced;
	bool quiesce_asked; /* since the last resume */
	bool holds_quiesce; /* a quiesce of the whole machine waits for this one */
	bool leaving;       /* being removed: see vmm/hotplug.h */
	bool withdrawn;     /* ... before the guest heard of it: no event */
	bool awaits_children;
	struct log_limit guest_log; /* for log_guest(&dev->guest_log, ...) */
	void *machine_private;      /* claimed backends */
	bool machine_settled;       /* fixed regions were mapped once; from then on they are the device's */
	struct device *next;        /* board's list, in creation order */
};

#define DEVICE_CLASS(sym) const struct device_class device_class_##sym

/* The instance from its base: struct uart *u = DEVICE(dev, struct uart); valid because `dev` is the first member. */
#define DEVICE(d, S) ((S *)(d))

/* ---- registry (generated) ---- */
extern const struct device_class *const device_registry[];      /* NULL-terminated, sorted by name */
const struct device_class *device_class_find(const char *name); /* by name or alias; NULL */

/* ---- services for devices; leaf unless said otherwise ---- */
void device_quiesced(struct device *dev);
/* Initialise a timer with this device's lock on the main loop. */
void device_timer_init(struct device *dev, struct timer *t, enum clock_kind kind, timer_fn *fn);
/* Bottom half with this device's lock on the main loop; fn gets the device. */
void device_bh_init(struct device *dev, struct bh *bh, loop_post_fn *fn);
/* Find another device of the board, for wire() only. NULL if absent. */
struct device *device_find(struct board *board, const char *id);
struct device *device_find_class(struct board *board, const char *class_name); /* first of that class */
struct device *device_next(struct board *board, struct device *prev);          /* iterate; NULL starts */

/* Claim a backend by the id a property holds: exclusive; released when the device is destroyed. In create() only. */
struct block *device_claim_block(struct device *dev, const char *id, struct err *e);
struct chardev *device_claim_chardev(struct device *dev, const char *id, struct err *e);
/* In a front end's replaced(): the claim is of the new one now. */
void device_replace_chardev(struct device *dev, struct chardev *old, struct chardev *by);

/* What a device may ask of the machine; carried out later on the main thread, deduplicated. */
enum shutdown_cause {
	SHUTDOWN_HOST_QMP_QUIT,
	SHUTDOWN_HOST_QMP_RESET,
	SHUTDOWN_HOST_SIGNAL,
	SHUTDOWN_HOST_UI,
	SHUTDOWN_HOST_ERROR,
	SHUTDOWN_GUEST_SHUTDOWN,
	SHUTDOWN_GUEST_RESET,
	SHUTDOWN_GUEST_PANIC
};
const char *shutdown_cause_name(enum shutdown_cause c); /* QMP's ShutdownCause: "guest-shutdown", ... */
void machine_request_reset(struct board *board, enum shutdown_cause cause);
void machine_request_shutdown(struct board *board, enum shutdown_cause cause); /* power off */
void machine_request_exit(struct board *board, int status); /* isa-debug-exit: process ends with status */
void machine_request_suspend(struct board *board);          /* ACPI S3 */
void machine_request_wakeup(struct board *board);           /* from it */
/* In reset(): it ends an S3 sleep, so what keeps its power then (the DRAM controller, wake-up status) keeps its values.
 */
bool machine_waking(const struct board *board);
bool machine_started(const struct board *board);            /* powered on: what is created now is hot-plugged */
void machine_request_stop_on_io_error(struct board *board); /* werror=stop: RUN_STATE_IO_ERROR */
void machine_guest_panicked(struct board *board, const char *action_info); /* pvpanic: event, then the panic action */
void machine_guest_crashloaded(struct board *board); /* pvpanic: its own kernel for dumps takes over; event */
void machine_watchdog_fired(struct board *board);    /* event, then what -watchdog-action says */
/* Pulse CPU n's INIT (PORT 92h fast reset without chip reset is a full reset on this board). NMI to the boot CPU (SERR,
 * port 61). */
void machine_inject_nmi(struct board *board);
/* ACPI power button, sent by the control room through the machine to the device that registers here in wire(). Called
   with that device's lock held. */
void machine_register_powerdown(struct device *dev, void (*fn)(struct device *dev));
/* Emit a QMP event; data: JSON object text or NULL. Queued; any thread. */
void machine_event(struct board *board, const char *name, const char *data_json);
/* Extra board facts devices need (read-only after create). */
uint64_t board_ram_below_4g(const struct board *board); /* bytes from address 0 on */
uint64_t board_ram_above_4g(const struct board *board); /* bytes from 4 GiB on */
unsigned board_cpus(const struct board *board);         /* that are there now */
unsigned board_max_cpus(const struct board *board);     /* -smp maxcpus= */
struct ram_block *board_ram(const struct board *board); /* guest RAM as one block: offset = address below the hole;
							   above 4G: minus the hole */
/* The firmware ROM as one block; its last byte is at 4 GiB - 1. The host bridge shows its top 128 KiB below 1 MiB.
   NULL: no firmware. Valid from the first settle on. */
struct ram_block *board_firmware(const struct board *board);

/*
 * Read a firmware file (BIOS, option ROM): `name` with a '/' is a path, otherwise it is looked up in -L DIR, in our
 * data directory and where the distribution keeps SeaBIOS, vgabios and iPXE. malloc'ed, at most `max` bytes. create()
 * and machine construction only (the sandbox closes the file system afterwards).
 */
int board_load_firmware(struct board *board, const char *name, size_t max, void **data, size_t *len, struct err *e);

#endif
