/*
 * Watchdog timer of the Intel 6300ESB I/O controller hub, PCI 8086:25ab. Two stages: the first ends in an interrupt
 * status, the second in what the operator chose for a hung guest (-watchdog-action). A driver reloads the counter in
 * time; registers and counters are written behind an unlock sequence, and the enable bit can be locked until the next
 * reset.
 *
 * Source: Intel 6300ESB I/O Controller Hub Datasheet (300641-004US), chapter 16 "Watchdog Timer"; what existing drivers
 * rely on beyond it: QEMU 7.2. Left out: the interrupt of stage 1 (it goes to the hub's second IOAPIC or to SMI, and
 * this board has neither; the status bit is set) and the WDT_TOUT# pin, which would toggle in free-running mode: there
 * the counter starts over.
 */
#include "vmm/pci.h"

enum { CONFIG_WDT = 0x60, CONFIG_LOCK = 0x68 };
#define WDT_INTERRUPT_TYPE 0x03 /* 0 IRQ, 2 SMI, 3 none */
#define WDT_PRESCALE_1MHZ  0x04 /* else 1 kHz */
#define WDT_OUTPUT_OFF     0x20 /* the second stage does nothing */
#define LOCK_LOCKED        0x01
#define LOCK_ENABLE        0x02
#define LOCK_FREE_RUNNING  0x04

enum { REG_PRELOAD1 = 0x0, REG_PRELOAD2 = 0x4, REG_STATUS = 0x8, REG_RELOAD = 0xc };
#define PRELOAD_MAX    0xfffff
#define RELOAD_RELOAD  0x100
#define RELOAD_TIMEOUT 0x200 /* the machine was last reset by us; written as 1 it is cleared */
#define UNLOCK_FIRST   0x80
#define UNLOCK_SECOND  0x86

#define PCI_CLOCK_HZ 33000000ull

struct i6300esb {
	struct device dev;
	uint32_t preload[2];
	uint8_t status, stage; /* stage: 1 or 2 */
	uint8_t unlock;        /* steps of the sequence seen: 2 opens the registers for one write */
	bool timed_out;        /* survives resets */
	struct timer timer;
};

static const uint8_t *config(const struct i6300esb *s)
{
	return s->dev.pci->config;
}

static bool enabled(const struct i6300esb *s)
{
	return config(s)[CONFIG_LOCK] & LOCK_ENABLE;
}

/* A preload counts ticks of about 1 ms (2^15 PCI clocks) or 1 us (2^5). */
static uint64_t stage_ns(const struct i6300esb *s, unsigned stage)
{
	unsigned shift = config(s)[CONFIG_WDT] & WDT_PRESCALE_1MHZ ? 5 : 15;

	return (uint64_t)s->preload[stage - 1] * (NS_PER_SEC << shift >> 5) / (PCI_CLOCK_HZ >> 5);
}

static void start_stage(struct i6300esb *s, unsigned stage)
{
	if (!enabled(s))
		return;
	s->stage = (uint8_t)stage;
	timer_arm(&s->timer, clock_ns(VCLOCK_VIRTUAL) + stage_ns(s, stage));
}

static void power_on_values(struct i6300esb *s)
{
	s->preload[0] = s->preload[1] = PRELOAD_MAX;
	s->status = s->unlock = 0;
	s->stage = 1;
	s->timer.deadline = TIMER_NEVER;
}

/* Once locked, neither enable nor mode nor the lock itself can be written. */
static void follow_lock(struct i6300esb *s)
{
	s->dev.pci->wmask[CONFIG_LOCK] =
		config(s)[CONFIG_LOCK] & LOCK_LOCKED ? 0 : LOCK_LOCKED | LOCK_ENABLE | LOCK_FREE_RUNNING;
}

static void expired(void *opaque)
{
	struct i6300esb *s = opaque;
	bool again = config(s)[CONFIG_LOCK] & LOCK_FREE_RUNNING;

	if (s->stage == 1) {
		s->status |= 1;
		start_stage(s, 2);
		return;
	}
	if (!(config(s)[CONFIG_WDT] & WDT_OUTPUT_OFF)) {
		s->timed_out = true;
		machine_watchdog_fired(s->dev.board);
	}
	if (again) {
		start_stage(s, 1);
	} else { /* off until it is enabled anew, so that a guest that lives on is not shot twice */
		s->dev.pci->config[CONFIG_LOCK] &= (uint8_t) ~(LOCK_ENABLE | LOCK_LOCKED);
		follow_lock(s);
	}
}

static void config_written(struct device *dev, unsigned offset, unsigned size)
{
	struct i6300esb *s = DEVICE(dev, struct i6300esb);

	if (offset > CONFIG_LOCK || offset + size <= CONFIG_LOCK)
		return;
	follow_lock(s);
	if (!enabled(s))
		timer_cancel(&s->timer);
	else if (!timer_pending(&s->timer))
		start_stage(s, 1);
}

static uint64_t esb_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct i6300esb *s = DEVICE(dev, struct i6300esb);
	uint8_t regs[0x14] = {0};

	/* The preloads are write-only. */
	regs[REG_STATUS] = s->status;
	put_le16(regs + REG_RELOAD, s->timed_out ? RELOAD_TIMEOUT : 0);
	return get_le(regs + offset, size);
}

static void esb_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i6300esb *s = DEVICE(dev, struct i6300esb);
	bool open = s->unlock == 2;

	if (offset == REG_RELOAD && !open && value == (s->unlock ? UNLOCK_SECOND : UNLOCK_FIRST)) {
		s->unlock++;
		return;
	}
	s->unlock = 0;
	if (offset == REG_STATUS) { /* needs no unlocking */
		s->status &= (uint8_t)~value;
	} else if (open && offset == REG_RELOAD) {
		if (value & RELOAD_RELOAD)
			start_stage(s, 1);
		if (value & RELOAD_TIMEOUT)
			s->timed_out = false;
	} else if (open && (offset == REG_PRELOAD1 || offset == REG_PRELOAD2) && size == 4) {
		s->preload[offset / 4] = value & PRELOAD_MAX;
	}
}

static void reset(struct device *dev)
{
	struct i6300esb *s = DEVICE(dev, struct i6300esb);

	timer_cancel(&s->timer);
	power_on_values(s);
	follow_lock(s);
}

static void settle(struct device *dev)
{
	struct i6300esb *s = DEVICE(dev, struct i6300esb);

	follow_lock(s);
	if (!enabled(s))
		s->timer.deadline = TIMER_NEVER;
	timer_settle(&s->timer);
}

static int create(struct device *dev, struct err *e)
{
	struct i6300esb *s = DEVICE(dev, struct i6300esb);

	dev->pci->wmask[CONFIG_WDT] = WDT_INTERRUPT_TYPE | WDT_PRESCALE_1MHZ | WDT_OUTPUT_OFF;
	dev->pci->config_written = config_written;
	device_timer_init(dev, &s->timer, VCLOCK_VIRTUAL, expired);
	power_on_values(s);
	follow_lock(s);
	return 0;
}

static void destroy(struct device *dev)
{
	timer_cancel(&DEVICE(dev, struct i6300esb)->timer);
}

static const struct region_ops esb_ops = {.read = esb_read, .write = esb_write};
static const struct region_desc regions[] = {
	{.name = "i6300esb", .space = SPACE_MMIO, .bar = 0, .size = 0x10, .ops = &esb_ops},
};

static const struct state_field fields[] = {
	STATE_UA(struct i6300esb, preload, .max = PRELOAD_MAX),
	STATE_U_MAX(struct i6300esb, status, 1),
	STATE_U(struct i6300esb, stage, .min = 1, .max = 2),
	STATE_U_MAX(struct i6300esb, unlock, 2),
	STATE_B(struct i6300esb, timed_out),
	STATE_T(struct i6300esb, timer),
	STATE_FIELDS_END,
};
static const struct state_table table = {.name = "i6300esb", .version = 1, .oldest = 1, .fields = fields};

static const struct pci_identity identity = {
	.vendor = 0x8086,
	.device = 0x25ab,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.class_code = 0x088000,
	.bar = {{PCI_BAR_MEM32}},
};

DEVICE_CLASS(i6300esb) = {
	.name = "i6300esb",
	.summary = "watchdog timer of the Intel 6300ESB (PCI)",
	.bus = BUS_PCI,
	.category = "Misc",
	.size = sizeof(struct i6300esb),
	.user_creatable = true,
	.hotpluggable = true,
	.regions = regions,
	.n_regions = ARRAY_SIZE(regions),
	.pci = &identity,
	.state = &table,
	.create = create,
	.destroy = destroy,
	.reset = reset,
	.settle = settle,
};
