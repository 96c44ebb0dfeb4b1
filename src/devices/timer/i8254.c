/*
 * 8254 programmable interval timer, and port 61h (NMI status and control), through which the PC gates its channel 2
 * and reads that channel's output. They are one device because port 61h is wired to the timer's pins: under one lock
 * no access of the guest can fall between them.
 *
 * Sources: Intel 8254 data sheet (231164-005), called DS; Intel 82371SB (PIIX3) data sheet 2.5.3 and 2.5.6 (port 61h).
 *
 * Nothing counts while nobody looks: a channel is its count and the time it was loaded; the counting element and OUT
 * are computed from the guest's clock when they are read, and one timer waits for the next rising edge of channel
 * 0's OUT (IRQ 0). A new count is in effect at the write instead of at the next CLK edge (838 ns). Channel 1 (once DRAM
 * refresh) counts but drives nothing; the refresh bit of port 61h toggles by the clock.
 *
 * Left out: sources of SERR# and IOCHK# (the board has none: their NMI enables are kept, their status reads 0); the
 * sound of the speaker, which comes with the audio devices.
 *
 * IRQ 0 is not faster than 25 kHz, so that a guest cannot spend the host's time with a count of 1. Ticks the host was
 * too busy to deliver in time are delivered late (lost_tick_policy=delay) or dropped (discard). Ticks the guest was too
 * busy to take merge in the interrupt controller, as on hardware.
 *
 * With kernel-irqchip=on the timer lives in KVM: only port 61h is mapped here, and the same state goes to and comes
 * from KVM.
 */
#include "vmm/device.h"

#include <errno.h>

enum { PIT_HZ = 1193182 };
enum { CH_IRQ0, CH_REFRESH, CH_SPEAKER, CHANNELS };
enum { POLICY_DISCARD, POLICY_DELAY };

/* Control word, DS figure 7 and 11 */
enum { CW_BCD = 0x01, CW_SELECT_SHIFT = 6, CW_RW_SHIFT = 4, CW_READ_BACK = 3 };
enum { READ_BACK_NO_COUNT = 0x20, READ_BACK_NO_STATUS = 0x10 };
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };
/* pit_channel_state.read_state and write_state; the first three are the control word's RW bits */
enum { RW_LATCH, RW_LSB, RW_MSB, RW_WORD, RW_WORD_MSB };

enum { PORT61_GATE2 = 0x01, PORT61_SPEAKER = 0x02, PORT61_ENABLES = 0x0c, PORT61_REFRESH = 0x10, PORT61_OUT2 = 0x20 };
#define REFRESH_NS    15085ull /* the PC's DRAM refresh: count 18 of channel 1 */
#define MIN_TICK_NS   (40 * NS_PER_US)
#define MAX_LOST_TICK 20000u

struct pit_channel {
	struct pit_channel_state s;
	uint32_t next_count;  /* modes 1, 2, 3, 5: written while counting, waits for the end of the cycle; 0: none */
	int64_t next_load_ns; /* modes 2, 3: when it is loaded */
	bool null_count;      /* programmed, no count yet */
	bool armed;           /* modes 1 and 5: a gate edge has started the count */
	bool held;            /* gate low stops the count (modes 0, 2, 3, 4) ... */
	uint64_t held_ticks;  /* ... after so many ticks */
};

struct i8254 {
	struct device dev;
	uint32_t iobase, irq; /* options */
	int lost_tick_policy;
	struct pit_channel ch[CHANNELS];
	uint8_t port61;  /* speaker data and NMI enables; the gate is channel 2's */
	uint32_t lost;   /* ticks owed to the guest */
	int64_t tick_ns; /* when IRQ 0 was last raised by the timer */
	int64_t edge_ns; /* the next rising edge of OUT 0; INT64_MAX: none */
	struct timer timer;
	bool in_kernel;
	bool stopped; /* guest time stands still: ch is the truth even if the timer is KVM's */
};

static int64_t pit_now(void)
{
	return (int64_t)clock_ns(VCLOCK_VIRTUAL);
}

static uint64_t ns_to_ticks(int64_t ns)
{
	return ns <= 0 ? 0 : (uint64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_SEC);
}

/* The first nanosecond at which ns_to_ticks() gives `ticks`. */
static int64_t ticks_to_ns(uint64_t ticks)
{
	return (int64_t)(((unsigned __int128)ticks * NS_PER_SEC + PIT_HZ - 1) / PIT_HZ);
}

static uint32_t bcd_to_count(uint32_t v)
{
	return (v & 15) + 10 * (v >> 4 & 15) + 100 * (v >> 8 & 15) + 1000 * (v >> 12 & 15) + 10000 * (v >> 16 & 15);
}

static uint16_t count_to_bcd(uint32_t v)
{
	return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

/* The programmed count as a number of CLK periods: 1..65536, or 1..10000 in BCD. */
static uint32_t period(const struct pit_channel *c)
{
	uint32_t n = c->s.bcd ? bcd_to_count(c->s.count) : c->s.count;

	return n ? n : 1;
}

static uint64_t elapsed(const struct pit_channel *c, int64_t now)
{
	if (c->null_count)
		return 0;
	return c->held ? c->held_ticks : ns_to_ticks(now - c->s.count_load_ns);
}

static bool gate_level_counts(const struct pit_channel *c)
{
	return c->s.mode != 1 && c->s.mode != 5;
}

static void load(struct pit_channel *c, uint32_t count, int64_t at)
{
	c->s.count = count;
	c->s.count_load_ns = at;
	c->next_count = 0;
	c->null_count = false;
	c->held = gate_level_counts(c) && !c->s.gate;
	c->held_ticks = 0;
}

/* Load a waiting count whose time has come (DS "Mode 2" and "Mode 3": at the end of the cycle or half-cycle). */
static void channel_sync(struct pit_channel *c, int64_t now)
{
	int64_t at = c->next_load_ns;
	uint32_t n = period(c);
	bool low_half;

	if (!c->next_count || !gate_level_counts(c) || c->held || now < at)
		return;
	low_half = c->s.mode == 3 && ns_to_ticks(at - c->s.count_load_ns) % n != 0;
	load(c, c->next_count, at);
	if (low_half) /* the new count starts with its low half */
		c->s.count_load_ns = at - ticks_to_ns((period(c) + 1) / 2);
}

/* Level of OUT (DS figures 15 to 20). */
static bool channel_out(struct pit_channel *c, int64_t now)
{
	uint64_t d;
	uint32_t n;

	channel_sync(c, now);
	d = elapsed(c, now);
	n = period(c);
	if (c->null_count)
		return c->s.mode != 0;
	switch (c->s.mode) {
	case 0:
		return d >= n;
	case 1:
		return !c->armed || d >= n;
	case 2:
		return c->held || n == 1 || d % n != n - 1;
	case 3:
		return c->held || d % n < (n + 1) / 2;
	case 4:
		return d != n;
	default:
		return !c->armed || d != n;
	}
}

/* The counting element as the guest reads it. */
static uint16_t channel_count(struct pit_channel *c, int64_t now)
{
	uint32_t n, modulus = c->s.bcd ? 10000 : 65536, v;
	uint64_t d;

	channel_sync(c, now);
	n = period(c);
	d = elapsed(c, now);
	switch (c->s.mode) {
	case 2:
		v = n - (uint32_t)(d % n);
		break;
	case 3: /* counts by two, through each half of the cycle; an odd count is loaded less one */
		d %= n;
		if (d >= (n + 1) / 2)
			d -= (n + 1) / 2;
		v = (n & ~1u) - 2 * (uint32_t)d;
		break;
	default: /* wraps and goes on */
		v = n + modulus - (uint32_t)(d % modulus);
	}
	v %= modulus;
	return c->s.bcd ? count_to_bcd(v) : (uint16_t)v;
}

static void channel_set_gate(struct pit_channel *c, bool gate, int64_t now)
{
	if (gate == !!c->s.gate)
		return;
	channel_sync(c, now);
	if (!gate) {
		c->held_ticks = elapsed(c, now);
		c->held = gate_level_counts(c);
		c->s.gate = 0;
		return;
	}
	c->s.gate = 1;
	if (c->null_count)
		return;
	switch (c->s.mode) {
	case 0:
	case 4: /* goes on where it stopped */
		c->s.count_load_ns = now - ticks_to_ns(c->held_ticks);
		c->held = false;
		break;
	default: /* a rising edge starts the cycle, with the count written last */
		load(c, c->next_count ? c->next_count : c->s.count, now);
		c->armed = true;
	}
}

static void channel_control(struct pit_channel *c, uint8_t value)
{
	c->s.rw_mode = c->s.read_state = c->s.write_state = value >> CW_RW_SHIFT & 3;
	c->s.mode = value >> 1 & 7;
	if (c->s.mode > 5) /* DS figure 7: the top bit of modes 2 and 3 is "don't care" */
		c->s.mode -= 4;
	c->s.bcd = value & CW_BCD;
	c->s.count_latched = 0;
	c->null_count = true;
	c->armed = false;
	c->next_count = 0;
	c->held = false;
}

static void channel_new_count(struct pit_channel *c, uint32_t value, int64_t now)
{
	uint64_t d, half;
	uint32_t n;

	if (!value)
		value = 0x10000;
	channel_sync(c, now);
	if (c->null_count || c->s.mode == 0 || c->s.mode == 4) {
		load(c, value, now);
		return;
	}
	c->next_count = value;
	if (!gate_level_counts(c) || c->held)
		return; /* loaded by the gate */
	n = period(c);
	d = elapsed(c, now);
	half = c->s.mode == 3 ? (n + 1) / 2 : n;
	d = d - d % n + (d % n < half ? half : n);
	c->next_load_ns = c->s.count_load_ns + ticks_to_ns(d);
}

static void channel_write(struct pit_channel *c, uint8_t value, int64_t now)
{
	switch (c->s.write_state) {
	case RW_LSB:
		channel_new_count(c, value, now);
		break;
	case RW_MSB:
		channel_new_count(c, (uint32_t)value << 8, now);
		break;
	case RW_WORD:
		c->s.write_latch = value;
		c->s.write_state = RW_WORD_MSB;
		if (c->s.mode == 0) /* DS "Mode 0": the first byte stops the count and OUT goes low */
			c->null_count = true;
		break;
	case RW_WORD_MSB:
		c->s.write_state = RW_WORD;
		channel_new_count(c, c->s.write_latch | (uint32_t)value << 8, now);
		break;
	default: /* never programmed */
		break;
	}
}

static uint8_t channel_read(struct pit_channel *c, int64_t now)
{
	uint16_t count;

	if (c->s.status_latched) {
		c->s.status_latched = 0;
		return c->s.status;
	}
	switch (c->s.count_latched) {
	case RW_LSB:
		c->s.count_latched = 0;
		return (uint8_t)c->s.latched_count;
	case RW_MSB:
		c->s.count_latched = 0;
		return (uint8_t)(c->s.latched_count >> 8);
	case RW_WORD:
		c->s.count_latched = RW_MSB;
		return (uint8_t)c->s.latched_count;
	}
	count = channel_count(c, now);
	switch (c->s.read_state) {
	case RW_MSB:
		return (uint8_t)(count >> 8);
	case RW_WORD:
		c->s.read_state = RW_WORD_MSB;
		return (uint8_t)count;
	case RW_WORD_MSB:
		c->s.read_state = RW_WORD;
		return (uint8_t)(count >> 8);
	default:
		return (uint8_t)count;
	}
}

static void channel_latch_count(struct pit_channel *c, int64_t now)
{
	if (c->s.count_latched) /* DS "Counter latch command": a second one is ignored until the first was read */
		return;
	c->s.latched_count = channel_count(c, now);
	c->s.count_latched = c->s.rw_mode;
}

static void channel_latch_status(struct pit_channel *c, int64_t now)
{
	bool out = channel_out(c, now);

	if (c->s.status_latched)
		return;
	c->s.status = (uint8_t)((out ? STATUS_OUT : 0) | (c->null_count || c->next_count ? STATUS_NULL : 0) |
				c->s.rw_mode << CW_RW_SHIFT | c->s.mode << 1 | c->s.bcd);
	c->s.status_latched = 1;
}

/* ---- IRQ 0 ---- */

static int64_t next_edge(const struct pit_channel *c, int64_t now)
{
	uint64_t d = elapsed(c, now), n = period(c), at;

	if (c->null_count)
		return INT64_MAX;
	switch (c->s.mode) {
	case 0:
		at = d < n ? n : 0;
		break;
	case 2:
	case 3:
		at = d - d % n + n;
		break;
	case 4: /* low for one CLK */
		at = d < n + 1 ? n + 1 : 0;
		break;
	default: /* needs an edge of the gate, which is tied high */
		at = 0;
	}
	return at ? c->s.count_load_ns + ticks_to_ns(at) : INT64_MAX;
}

static bool ticking(const struct pit_channel *c)
{
	return !c->null_count && (c->s.mode == 2 || c->s.mode == 3);
}

/* Arm the timer for the next thing to do: an edge, an owed tick, or the loading of a new count. */
static void pit_arm(struct i8254 *p, int64_t now)
{
	struct pit_channel *c = &p->ch[CH_IRQ0];
	int64_t at, period_ns = ticks_to_ns(period(c));

	p->edge_ns = next_edge(c, now);
	at = p->edge_ns;
	if (c->next_count && gate_level_counts(c) && !c->held)
		at = MIN(at, c->next_load_ns);
	if (ticking(c) && p->lost)
		at = MIN(at, now + period_ns / 2);
	if (at != INT64_MAX && ticking(c))
		at = MAX(at, p->tick_ns + (int64_t)MIN_TICK_NS);
	timer_arm(&p->timer, at == INT64_MAX ? TIMER_NEVER : (uint64_t)at);
}

/* A rising edge: OUT was low before it, in modes 2 and 4 for one CLK. */
static void tick(struct i8254 *p, int64_t now)
{
	irq_lower(&p->dev.irq[0]);
	irq_raise(&p->dev.irq[0]);
	p->tick_ns = now;
}

static void pit_fire(void *opaque)
{
	struct i8254 *p = opaque;
	struct pit_channel *c = &p->ch[CH_IRQ0];
	int64_t now = pit_now(), late, period_ns;

	channel_sync(c, now);
	period_ns = ticks_to_ns(period(c));
	if (now >= p->edge_ns) {
		tick(p, now);
		late = (now - p->edge_ns) / period_ns;
		if (ticking(c) && p->lost_tick_policy == POLICY_DELAY && period_ns >= (int64_t)MIN_TICK_NS && late > 0)
			p->lost = (uint32_t)MIN(p->lost + late, (int64_t)MAX_LOST_TICK);
	} else if (p->lost && ticking(c)) {
		p->lost--;
		tick(p, now);
	}
	pit_arm(p, now);
}

/* ---- ports 40h..43h ---- */

static void pit_read_back(struct i8254 *p, uint8_t value, int64_t now)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		if (!(value & 2u << i))
			continue;
		if (!(value & READ_BACK_NO_COUNT))
			channel_latch_count(&p->ch[i], now);
		if (!(value & READ_BACK_NO_STATUS))
			channel_latch_status(&p->ch[i], now);
	}
}

static void pit_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8254 *p = DEVICE(dev, struct i8254);
	uint8_t v = (uint8_t)value;
	int64_t now = pit_now();
	unsigned n = offset == 3 ? v >> CW_SELECT_SHIFT : (unsigned)offset;

	if (offset < 3) {
		channel_write(&p->ch[n], v, now);
	} else if (n == CW_READ_BACK) {
		pit_read_back(p, v, now);
		return;
	} else if ((v >> CW_RW_SHIFT & 3) == RW_LATCH) {
		channel_latch_count(&p->ch[n], now);
		return;
	} else {
		channel_control(&p->ch[n], v);
	}
	if (n == CH_IRQ0) {
		if (offset == 3)
			p->lost = 0;
		irq_set(&dev->irq[0], channel_out(&p->ch[CH_IRQ0], now));
		pit_arm(p, now);
	}
}

static uint64_t pit_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	if (offset == 3) /* the control register cannot be read: nobody drives the bus */
		return 0xff;
	return channel_read(&DEVICE(dev, struct i8254)->ch[offset], pit_now());
}

/* ---- the timer in KVM ---- */

static int pit_fetch(struct i8254 *p)
{
	struct pit_channel_state s[CHANNELS];
	int ret = irq_kernel_get_pit(&p->dev, s);

	for (unsigned i = 0; ret == 0 && i < CHANNELS; i++)
		p->ch[i] = (struct pit_channel){.s = s[i], .armed = true};
	return ret;
}

static int pit_push(struct i8254 *p)
{
	struct pit_channel_state s[CHANNELS];

	for (unsigned i = 0; i < CHANNELS; i++)
		s[i] = p->ch[i].s;
	return irq_kernel_set_pit(&p->dev, s);
}

static void pit_log_kernel(struct i8254 *p, const char *what, int ret)
{
	if (ret < 0)
		log_error("i8254", "%s: KVM refused to %s the timer's state: %s", p->dev.id, what, strerror(-ret));
}

/* ---- port 61h ---- */

static uint64_t port61_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct i8254 *p = DEVICE(dev, struct i8254);
	int64_t now = pit_now();
	uint8_t v = p->port61;

	if (p->in_kernel)
		pit_log_kernel(p, "give", pit_fetch(p));
	if (p->ch[CH_SPEAKER].s.gate)
		v |= PORT61_GATE2;
	if (channel_out(&p->ch[CH_SPEAKER], now))
		v |= PORT61_OUT2;
	if ((uint64_t)now / REFRESH_NS & 1)
		v |= PORT61_REFRESH;
	return v;
}

static void port61_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8254 *p = DEVICE(dev, struct i8254);
	bool gate = value & PORT61_GATE2;

	p->port61 = value & (PORT61_SPEAKER | PORT61_ENABLES);
	if (p->in_kernel)
		pit_log_kernel(p, "give", pit_fetch(p));
	if (gate == !!p->ch[CH_SPEAKER].s.gate)
		return;
	channel_set_gate(&p->ch[CH_SPEAKER], gate, pit_now());
	if (p->in_kernel)
		pit_log_kernel(p, "take", pit_push(p));
}

/* ---- life cycle ---- */

static void pit_reset(struct device *dev)
{
	struct i8254 *p = DEVICE(dev, struct i8254);

	for (unsigned i = 0; i < CHANNELS; i++) {
		p->ch[i] = (struct pit_channel){.null_count = true};
		p->ch[i].s.mode = 0; /* undefined by DS; so OUT is low and the line makes no edge */
		p->ch[i].s.count = 0x10000;
		p->ch[i].s.count_load_ns = pit_now();
		p->ch[i].s.gate = i != CH_SPEAKER;
	}
	p->port61 = 0;
	p->lost = 0;
	p->edge_ns = INT64_MAX;
}

static void pit_settle(struct device *dev)
{
	struct i8254 *p = DEVICE(dev, struct i8254);
	int64_t now = pit_now();

	if (p->in_kernel) {
		irq_kernel_pit_reinject(dev, p->lost_tick_policy == POLICY_DELAY);
		pit_log_kernel(p, "take", pit_push(p));
		return;
	}
	region_enable(&dev->regions[0], true); /* disabled by default: in KVM's mode they are not ours */
	irq_set(&dev->irq[0], channel_out(&p->ch[CH_IRQ0], now));
	pit_arm(p, now);
}

/* KVM's timer counts host time; the guest's stands still while it is paused. */
static void pit_guest_time(struct device *dev, bool runs)
{
	struct i8254 *p = DEVICE(dev, struct i8254);

	if (p->in_kernel && runs)
		pit_log_kernel(p, "take", pit_push(p));
	else if (p->in_kernel)
		pit_log_kernel(p, "give", pit_fetch(p));
	p->stopped = !runs;
}

static int pit_create(struct device *dev, struct err *e)
{
	struct i8254 *p = DEVICE(dev, struct i8254);

	p->in_kernel = irq_chips_in_kernel(dev);
	p->stopped = true;
	device_timer_init(dev, &p->timer, VCLOCK_VIRTUAL, pit_fire);
	return 0;
}

static void pit_destroy(struct device *dev)
{
	timer_cancel(&DEVICE(dev, struct i8254)->timer);
}

static int pit_pre_save(void *obj, struct err *e)
{
	struct i8254 *p = obj;
	int ret = p->in_kernel && !p->stopped ? pit_fetch(p) : 0;

	return ret < 0 ? err_errno(e, -ret, "%s: cannot read the timer from KVM", p->dev.id) : 0;
}

static int pit_post_load(void *obj, uint16_t version, struct err *e)
{
	struct i8254 *p = obj;
	int64_t now = pit_now();

	for (unsigned i = 0; i < CHANNELS; i++) {
		const struct pit_channel *c = &p->ch[i];

		/* Times far from now would overflow the arithmetic; no live channel has them. */
		if (c->s.count_load_ns > now + 3600 * (int64_t)NS_PER_SEC || c->s.count_load_ns < -INT64_MAX / 2)
			return err_set(e, EINVAL, "%s: channel %u was loaded at %lld ns, now is %lld ns", p->dev.id, i,
				       (long long)c->s.count_load_ns, (long long)now);
		if (c->next_count && (c->next_load_ns > now + 3600 * (int64_t)NS_PER_SEC || c->next_load_ns < 0))
			return err_set(e, EINVAL, "%s: channel %u loads its next count at %lld ns, now is %lld ns",
				       p->dev.id, i, (long long)c->next_load_ns, (long long)now);
		if (c->held && c->held_ticks > (uint64_t)INT64_MAX / NS_PER_SEC)
			return err_set(e, EINVAL, "%s: channel %u was stopped after %llu ticks", p->dev.id, i,
				       (unsigned long long)c->held_ticks);
	}
	p->edge_ns = INT64_MAX;
	return 0;
}

static const struct state_field channel_fields[] = {
	STATE_U(struct pit_channel, s.count, .min = 1, .max = 0x10000),
	STATE_U(struct pit_channel, s.latched_count),
	STATE_U_MAX(struct pit_channel, s.count_latched, RW_WORD),
	STATE_U_MAX(struct pit_channel, s.status_latched, 1),
	STATE_U(struct pit_channel, s.status),
	STATE_U_MAX(struct pit_channel, s.read_state, RW_WORD_MSB),
	STATE_U_MAX(struct pit_channel, s.write_state, RW_WORD_MSB),
	STATE_U(struct pit_channel, s.write_latch),
	STATE_U_MAX(struct pit_channel, s.rw_mode, 3),
	STATE_U_MAX(struct pit_channel, s.mode, 5),
	STATE_U_MAX(struct pit_channel, s.bcd, 1),
	STATE_U_MAX(struct pit_channel, s.gate, 1),
	STATE_U(struct pit_channel, s.count_load_ns),
	STATE_U_MAX(struct pit_channel, next_count, 0x10000),
	STATE_U(struct pit_channel, next_load_ns),
	STATE_B(struct pit_channel, null_count),
	STATE_B(struct pit_channel, armed),
	STATE_B(struct pit_channel, held),
	STATE_U(struct pit_channel, held_ticks),
	STATE_FIELDS_END,
};
static const struct state_table channel_table = {
	.name = "pit-channel", .version = 1, .oldest = 1, .fields = channel_fields};

static const struct state_field pit_fields[] = {
	STATE_SUBA(struct i8254, ch, &channel_table),
	STATE_U_MAX(struct i8254, port61, PORT61_SPEAKER | PORT61_ENABLES),
	STATE_U_MAX(struct i8254, lost, MAX_LOST_TICK),
	STATE_FIELDS_END,
};
static const struct state_table pit_state = {
	.name = "i8254",
	.version = 1,
	.oldest = 1,
	.fields = pit_fields,
	.pre_save = pit_pre_save,
	.post_load = pit_post_load,
};

static const char *const policies[] = {"discard", "delay", NULL};
static const struct prop pit_props[] = {
	PROP(struct i8254, iobase, PROP_U32, .def = 0x40, .max = 0xfffc, .help = "First of the four ports"),
	PROP(struct i8254, irq, PROP_U32, .def = 0, .max = 15, .help = "Interrupt of channel 0", .internal = true),
	PROP(struct i8254, lost_tick_policy, PROP_ENUM, .def = POLICY_DELAY, .values = policies,
	     .help = "Ticks the host could not deliver in time"),
	PROP_END,
};

static const struct region_ops pit_ops = {.read = pit_read, .write = pit_write, .max_access = 1};
static const struct region_ops port61_ops = {.read = port61_read, .write = port61_write, .max_access = 1};
static const struct region_desc pit_regions[] = {
	{.name = "pit", .base_prop = "iobase", .size = 4, .bar = REGION_NOT_BAR, .disabled = true, .ops = &pit_ops},
	{.name = "port61", .base = 0x61, .size = 1, .bar = REGION_NOT_BAR, .ops = &port61_ops},
};

DEVICE_CLASS(i8254) = {
	.name = "isa-pit",
	.alias = "kvm-pit",
	.summary = "8254 interval timer and speaker port",
	.bus = BUS_SYSTEM,
	.category = "Misc",
	.size = sizeof(struct i8254),
	.props = pit_props,
	.regions = pit_regions,
	.n_regions = ARRAY_SIZE(pit_regions),
	.irq_prop = {"irq"},
	.n_irqs = 1,
	.state = &pit_state,
	.create = pit_create,
	.destroy = pit_destroy,
	.reset = pit_reset,
	.settle = pit_settle,
	.guest_time = pit_guest_time,
};
