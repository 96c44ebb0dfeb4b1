/*
 * Realtek RTL8139C+ fast Ethernet controller ("rtl8139"), PCI 10ec:8139: registers, EEPROM, PHY, timer, the class.
 * Receiving is in rtl8139_rx.c, sending in rtl8139_tx.c.
 *
 * Sources: Realtek RTL8139C(L)+ data sheet, revision 1.6 (DS): 5 (registers), 6 (C+ mode), 7 (EEPROM); RTL8139(A/B)
 * Programming Guide, revision 0.1 (PG); what drivers rely on beyond them: Linux' 8139too and 8139cp, FreeBSD's rl and
 * re, iPXE's realtek.
 *
 * Left out: power management and wake-up (the registers are kept, and no packet wakes anybody), early receive and
 * transmit, interrupt mitigation, flash memory, CardBus function registers, VPD, the twister's tuning and other test
 * registers (they read as 0), flow control, half duplex, 10 Mb/s timing.
 */
#include "src/devices/net/rtl8139.h"

#include <errno.h>
#include <stdlib.h>

#define PCI_MHZ 33 /* TCTR counts the bus's clock */

#define EE_MODE    0xc0
#define EE_LOAD    0x40 /* modes */
#define EE_PROGRAM 0x80
#define EE_CONFIG  0xc0
#define EE_CS      0x08
#define EE_SK      0x04
#define EE_DI      0x02
#define EE_DO      0x01

#define TCR_VERSION   0x74800000u /* of the 8139C+ */
#define MSR_NO_LINK   0x04
#define BMSR_LINK     0x0004
#define BMSR_DONE     0x0020
#define BMSR_POWER    0x7809 /* 100 and 10, negotiation */
#define CSCR_LINK     0x0400
#define DTCCR_COMMAND 0x08

/* ---- interrupts ---- */

static void update_irq(struct rtl8139 *s)
{
	pci_set_intx(&s->card.dev, rtl_reg16(s, ISR) & rtl_reg16(s, IMR));
}

void rtl8139_cause(struct rtl8139 *s, uint16_t bits)
{
	put_le16(s->regs + ISR, rtl_reg16(s, ISR) | bits);
	update_irq(s);
}

void rtl8139_missed(struct rtl8139 *s)
{
	uint32_t n = rtl_reg32(s, MPC);

	put_le32(s->regs + MPC, n < 0xffffff ? n + 1 : n);
	if (s->tally.rx_missed < UINT16_MAX)
		s->tally.rx_missed++;
}

/* ---- timer: TCTR counts up and around; the interrupt comes when it is TimerInt ---- */

static uint64_t ticks(const struct rtl8139 *s)
{
	return (clock_ns(VCLOCK_VIRTUAL) - s->timer_zero) * PCI_MHZ / 1000;
}

static void arm_timer(struct rtl8139 *s)
{
	uint32_t target = rtl_reg32(s, TIMER_INT);
	uint64_t now = ticks(s), next;

	if (!target) {
		timer_cancel(&s->timer);
		return;
	}
	next = now + 1 + (uint32_t)(target - (uint32_t)now - 1);
	timer_arm(&s->timer, s->timer_zero + (next * 1000 + PCI_MHZ - 1) / PCI_MHZ);
}

static void timer_hit(void *opaque)
{
	struct rtl8139 *s = opaque;

	rtl8139_cause(s, INT_TIMEOUT);
	arm_timer(s);
}

/* ---- EEPROM, DS 7 ---- */

static void fill_eeprom(struct rtl8139 *s)
{
	uint16_t *w = s->eeprom.words;

	memset(w, 0, sizeof(s->eeprom.words));
	w[0] = 0x8129; /* it is programmed */
	w[1] = 0x10ec;
	w[2] = 0x8139;
	w[3] = get_le16(s->card.dev.pci->config + 0x2c);
	w[4] = get_le16(s->card.dev.pci->config + 0x2e);
	w[5] = 0x4020; /* latencies */
	w[6] = 0xe512; /* Config3, media */
	for (unsigned i = 0; i < 3; i++)
		w[7 + i] = get_le16(s->card.mac + 2 * i);
	w[10] = 0x4d10; /* Config0, Config1 */
	w[11] = 0xf7c2;
}

static void load_mac(struct rtl8139 *s)
{
	for (unsigned i = 0; i < 3; i++)
		put_le16(s->regs + IDR + 2 * i, s->eeprom.words[7 + i]);
}

static void use_mac(struct rtl8139 *s)
{
	memcpy(s->card.nic.mac, s->regs + IDR, 6);
}

/* ---- link ---- */

static void set_link(struct rtl8139 *s)
{
	bool up = s->cable && !(rtl_reg16(s, BMCR) & 0x0c00); /* not isolated or powered down */

	if (!up)
		s->link_failed = true;
	if (s->link == up)
		return;
	s->link = up;
	rtl8139_cause(s, INT_LINK);
	rtl8139_rx_update(s);
}

static void link_changed(struct nic *n, bool up)
{
	struct rtl8139 *s = container_of(n, struct rtl8139, card.nic);

	s->cable = up;
	set_link(s);
}

/* ---- reset ---- */

/* CR.RST: all but addresses, EEPROM and PHY. */
static void soft_reset(struct rtl8139 *s)
{
	static const struct {
		uint8_t first, last;
	} kept[] = {{IDR, MAR + 7}, {CONFIG0, CONFIG1}, {CONFIG3, CONFIG4}, {BMCR, ANER + 1}, {CONFIG5, CONFIG5}};
	uint8_t regs[sizeof(s->regs)] = {0};

	for (unsigned i = 0; i < ARRAY_SIZE(kept); i++)
		memcpy(regs + kept[i].first, s->regs + kept[i].first, kept[i].last - kept[i].first + 1u);
	memcpy(s->regs, regs, sizeof(regs));
	put_le32(s->regs + TCR, TCR_VERSION);
	rtl8139_rx_restart(s);
	rtl8139_tx_restart(s);
	s->timer_zero = 0;
	timer_cancel(&s->timer);
	timer_cancel(&s->poll);
}

static void reset_phy(struct rtl8139 *s)
{
	put_le16(s->regs + BMCR, 0x3100); /* negotiates; 100 Mb/s, full duplex */
	put_le16(s->regs + ANAR, 0x05e1);
	put_le16(s->regs + ANLPAR, 0x45e1);
	put_le16(s->regs + ANER, 0x0001);
}

/* ---- C+ mode's counters, DS 5.6 ---- */

static void dump_tally(struct rtl8139 *s)
{
	const struct rtl8139_tally *t = &s->tally;
	uint64_t at = get_le64(s->regs + DTCCR) & ~63ull;
	uint8_t raw[64] = {0};

	put_le64(raw, t->tx_ok);
	put_le64(raw + 8, t->rx_ok);
	put_le64(raw + 16, t->tx_error);
	put_le32(raw + 24, t->rx_error);
	put_le16(raw + 28, t->rx_missed);
	put_le64(raw + 40, t->rx_unicast);
	put_le64(raw + 48, t->rx_broadcast);
	put_le32(raw + 56, t->rx_multicast);
	put_le16(raw + 60, t->tx_abort);
	if (dma_write(&s->card.dev, at, raw, sizeof(raw)))
		log_guest(&s->card.dev.guest_log, "rtl8139", "%s: counters at 0x%llx are not in memory", s->card.dev.id,
			  (unsigned long long)at);
	s->regs[DTCCR] &= (uint8_t)~DTCCR_COMMAND;
}

/* ---- registers: bytes that are written through a mask; then what the register makes of it ---- */

static bool config_open(const struct rtl8139 *s)
{
	return (s->regs[CR9346] & EE_MODE) == EE_CONFIG;
}

static bool cplus(const struct rtl8139 *s)
{
	return rtl_reg16(s, CPCR) & (CPCR_TX | CPCR_RX);
}

/* Bits of the byte at this offset that a write changes. */
static uint8_t write_mask(const struct rtl8139 *s, unsigned at)
{
	switch (at) {
	case IDR ... IDR + 5:
	case MAR ... RBSTART + 3:
	case CAPR:
	case CAPR + 1:
	case IMR + 1:
	case IMR:
	case TIMER_INT ... TIMER_INT + 3:
	case MULINT:
	case MULINT + 1:
	case BMCR + 1:
	case ANAR:
	case 0x78 ... 0x80: /* PHY parameters */
	case 0x84 ... 0xd3: /* wake-up frames and their CRCs */
	case RDSAR ... RDSAR + 7:
	case 0xec: /* early transmit threshold */
		return 0xff;
	case CR:
		return CR_RE | CR_TE;
	case TCR:
		return 0xf0;
	case TCR + 1:
	case TCR + 2:
		return 0x07;
	case TCR + 3:
		return 0x03;
	case RCR:
		return 0xbf;
	case RCR + 1:
		return 0xff;
	case RCR + 2:
		return 0x03;
	case RCR + 3:
		return 0x0f;
	case CONFIG1:
		return config_open(s) ? 0xf1 : 0;
	case CONFIG3:
		return config_open(s) ? 0x64 : 0;
	case CONFIG4:
	case CONFIG5:
		return config_open(s) ? 0xff : 0;
	case MSR:
		return 0xc0; /* flow control */
	case ANAR + 1:
		return 0x27;
	case CPCR:
		return 0x7b;
	default:
		return 0;
	}
}

static void write_cr(struct rtl8139 *s, uint8_t before, uint8_t value)
{
	uint8_t risen = s->regs[CR] & ~before;

	if (value & CR_RST) {
		soft_reset(s);
		update_irq(s);
	} else {
		if (risen & CR_RE)
			rtl8139_rx_restart(s);
		if (risen & CR_TE)
			rtl8139_tx_restart(s);
	}
	rtl8139_rx_update(s);
}

static void write_9346(struct rtl8139 *s, uint8_t v)
{
	uint8_t mode = v & EE_MODE;

	if (mode == EE_LOAD) { /* ends by itself */
		load_mac(s);
		use_mac(s);
		v = 0;
	}
	if (mode == EE_PROGRAM)
		eeprom93xx_drive(&s->eeprom, v & EE_CS, v & EE_SK, v & EE_DI);
	else
		eeprom93xx_drive(&s->eeprom, false, false, false);
	s->regs[CR9346] = v & (uint8_t)~EE_DO;
}

static void write_bmcr(struct rtl8139 *s)
{
	uint16_t v = rtl_reg16(s, BMCR);

	if (v & 0x8000)
		reset_phy(s);
	else
		put_le16(s->regs + BMCR,
			 v & 0x3d00); /* restarting a negotiation ends at once, collision test and loopback are none */
	set_link(s);
}

static void write_tppoll(struct rtl8139 *s, uint8_t v)
{
	s->cp_tx_poll[0] |= v & 0x40;
	s->cp_tx_poll[1] |= v & 0x80;
	if (v & 0x01)
		rtl8139_cause(s, INT_SOFT);
	rtl8139_tx_update(s);
}

static bool covers(unsigned offset, unsigned size, unsigned first, unsigned len)
{
	return offset < first + len && first < offset + size;
}

/* A byte of a register that does more than keep its value. */
static void wrote_byte(struct rtl8139 *s, unsigned at, uint8_t before, uint8_t v)
{
	switch (at) {
	case CR:
		write_cr(s, before, v);
		break;
	case CR9346:
		write_9346(s, v);
		break;
	case ISR:
	case ISR + 1:
		s->regs[at] &= (uint8_t)~v;
		break;
	case TPPOLL:
		write_tppoll(s, v);
		break;
	default:
		break;
	}
}

static void wrote_rings(struct rtl8139 *s, unsigned offset, unsigned size)
{
	if (covers(offset, size, TSD, 16)) {
		if (!cplus(s))
			rtl8139_tx_update(s);
		else if (s->regs[DTCCR] & DTCCR_COMMAND && covers(offset, size, DTCCR, 1))
			dump_tally(s);
	}
	if (cplus(s) && covers(offset, size, TNPDS, 8))
		s->cp_tx_next[0] = 0, s->cp_segment[0] = 0;
	if (cplus(s) && covers(offset, size, THPDS, 8))
		s->cp_tx_next[1] = 0, s->cp_segment[1] = 0;
	if (covers(offset, size, RBSTART, 4) || covers(offset, size, RDSAR, 8))
		rtl8139_rx_restart(s);
}

/* Whole registers, after all bytes of the access are in place. */
static void wrote(struct rtl8139 *s, unsigned offset, unsigned size)
{
	wrote_rings(s, offset, size);
	if (covers(offset, size, IDR, 6))
		use_mac(s);
	if (covers(offset, size, IDR, 16) || covers(offset, size, RCR, 4))
		nic_rx_filter_changed(&s->card.nic);
	if (covers(offset, size, IMR, 4))
		update_irq(s);
	if (covers(offset, size, TCTR, 4)) {
		s->timer_zero = clock_ns(VCLOCK_VIRTUAL);
		arm_timer(s);
	}
	if (covers(offset, size, TIMER_INT, 4))
		arm_timer(s);
	if (covers(offset, size, MPC, 4))
		put_le32(s->regs + MPC, 0);
	if (covers(offset, size, BMCR + 1, 1))
		write_bmcr(s);
	/* Room may have come back, or the receiver listens to more. */
	if (covers(offset, size, RBSTART, 12) || covers(offset, size, IMR, 4) || covers(offset, size, RCR, 4) ||
	    covers(offset, size, TCR, 4) || covers(offset, size, CPCR, 12))
		rtl8139_rx_update(s);
}

static void rtl_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct rtl8139 *s = DEVICE(dev, struct rtl8139);

	for (unsigned i = 0; i < size; i++) {
		unsigned at = (unsigned)offset + i;
		uint8_t v = (uint8_t)(value >> (8 * i)), mask = write_mask(s, at), before = s->regs[at];

		/* DS 5: these bits only while configuration is open. */
		if (at == BMCR + 1 && !config_open(s))
			v = (uint8_t)((v & ~0x31) | (before & 0x31));
		s->regs[at] = (uint8_t)((before & ~mask) | (v & mask));
		wrote_byte(s, at, before, v);
	}
	wrote(s, (unsigned)offset, size);
}

/* DS 5.14: OWN, TABT, TUN and TOK of each of the four. */
static uint16_t tsad_summary(const struct rtl8139 *s)
{
	uint16_t v = 0;

	for (unsigned i = 0; i < 4; i++) {
		uint32_t tsd = rtl_reg32(s, TSD + 4 * i);

		v |= (uint16_t)((tsd >> 13 & 1) << i | (tsd >> 30 & 1) << (4 + i) | (tsd >> 14 & 1) << (8 + i) |
				(tsd >> 15 & 1) << (12 + i));
	}
	return v;
}

/* Registers that change by themselves. */
static void refresh(struct rtl8139 *s, uint8_t *regs)
{
	memcpy(regs, s->regs, sizeof(s->regs));
	if (rtl8139_rx_empty(s))
		regs[CR] |= CR_BUFE;
	if (s->eeprom.out)
		regs[CR9346] |= EE_DO;
	put_le32(regs + TCTR, (uint32_t)ticks(s));
	regs[MSR] |= s->link ? 0 : MSR_NO_LINK;
	regs[TPPOLL] = 0;
	if (!cplus(s))
		put_le16(regs + TSAD_SUMMARY, tsad_summary(s));
	put_le16(regs + BMSR, BMSR_POWER | (s->link ? BMSR_DONE : 0) | (s->link && !s->link_failed ? BMSR_LINK : 0));
	put_le16(regs + CSCR, s->link ? CSCR_LINK : 0);
}

static uint64_t rtl_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct rtl8139 *s = DEVICE(dev, struct rtl8139);
	uint8_t regs[sizeof(s->regs)];

	refresh(s, regs);
	if (covers((unsigned)offset, size, BMSR, 1))
		s->link_failed = !s->link; /* latched low until it was read */
	return get_le(regs + offset, size);
}

static const struct region_ops rtl_ops = {.read = rtl_read, .write = rtl_write};
static const struct region_desc regions[] = {
	{.name = "rtl8139-ports", .space = SPACE_PIO, .bar = 0, .size = 256, .ops = &rtl_ops},
	{.name = "rtl8139", .space = SPACE_MMIO, .bar = 1, .size = 256, .ops = &rtl_ops},
};

/* ---- class ---- */

static void update(struct pci_nic *card)
{
	struct rtl8139 *s = container_of(card, struct rtl8139, card);

	rtl8139_rx_update(s);
	rtl8139_tx_update(s);
}

static const struct pci_nic_ops ops = {
	.nic =
		{
			.readable = rtl8139_readable,
			.writable = rtl8139_writable,
			.link_changed = link_changed,
			.rx_filter = rtl8139_rx_filter,
		},
	.rx_run = rtl8139_rx_run,
	.tx_run = rtl8139_tx_run,
	.update = update,
};

static int create(struct device *dev, struct err *e)
{
	struct rtl8139 *s = DEVICE(dev, struct rtl8139);
	int r;

	device_timer_init(dev, &s->timer, VCLOCK_VIRTUAL, timer_hit);
	device_timer_init(dev, &s->poll, VCLOCK_VIRTUAL, rtl8139_rx_run);
	r = pci_nic_create(&s->card, &ops, e);
	if (!r)
		fill_eeprom(s);
	return r;
}

static void destroy(struct device *dev)
{
	struct rtl8139 *s = DEVICE(dev, struct rtl8139);

	pci_nic_destroy(&s->card);
	timer_cancel(&s->timer);
	timer_cancel(&s->poll);
}

static void reset(struct device *dev)
{
	struct rtl8139 *s = DEVICE(dev, struct rtl8139);

	memset(s->regs, 0, sizeof(s->regs));
	memset(&s->tally, 0, sizeof(s->tally));
	eeprom93xx_power_on(&s->eeprom);
	soft_reset(s);
	reset_phy(s);
	load_mac(s);
	s->regs[CONFIG1] = 0x0c; /* both BARs are mapped */
	s->regs[CONFIG3] = 0x01;
	s->link = true;
	s->link_failed = false;
}

static void settle(struct device *dev)
{
	struct rtl8139 *s = DEVICE(dev, struct rtl8139);

	timer_settle(&s->timer);
	timer_settle(&s->poll);
	use_mac(s);
	s->cable = nic_link_up(&s->card.nic);
	set_link(s);
	update_irq(s);
	update(&s->card);
}

static const struct prop props[] = {
	PCI_NIC_PROPS(struct rtl8139, "efi-rtl8139.rom"),
	PROP_END,
};

static const struct state_field tally_fields[] = {
	STATE_U(struct rtl8139_tally, tx_ok),        STATE_U(struct rtl8139_tally, rx_ok),
	STATE_U(struct rtl8139_tally, tx_error),     STATE_U(struct rtl8139_tally, rx_unicast),
	STATE_U(struct rtl8139_tally, rx_broadcast), STATE_U(struct rtl8139_tally, rx_error),
	STATE_U(struct rtl8139_tally, rx_multicast), STATE_U(struct rtl8139_tally, rx_missed),
	STATE_U(struct rtl8139_tally, tx_abort),     STATE_FIELDS_END,
};
static const struct state_table tally_table = {
	.name = "rtl8139-tally", .version = 1, .oldest = 1, .fields = tally_fields};

static const struct state_field fields[] = {
	STATE_B(struct rtl8139, link),
	STATE_B(struct rtl8139, link_failed),
	STATE_BUF(struct rtl8139, regs),
	STATE_SUB(struct rtl8139, eeprom, &eeprom93xx_state),
	STATE_SUB(struct rtl8139, tally, &tally_table),
	STATE_U(struct rtl8139, timer_zero),
	STATE_T(struct rtl8139, timer),
	STATE_T(struct rtl8139, poll),
	STATE_U_MAX(struct rtl8139, tx_next, 3),
	STATE_UA(struct rtl8139, cp_tx_next, .max = RTL_RING - 1),
	STATE_BA(struct rtl8139, cp_tx_poll),
	STATE_UA(struct rtl8139, cp_segment, .max = 65535),
	STATE_U_MAX(struct rtl8139, cp_rx_next, RTL_RING - 1),
	STATE_B(struct rtl8139, rdu_told),
	STATE_U(struct rtl8139, rx_flags),
	STATE_U(struct rtl8139, rx_tag),
	STATE_VBUF(struct rtl8139, rx_frame, rx_len),
	STATE_FIELDS_END,
};
static const struct state_table table = {.name = "rtl8139", .version = 1, .oldest = 1, .fields = fields};

static const struct pci_identity identity = {
	.vendor = 0x10ec,
	.device = 0x8139,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.revision = 0x20, /* by which drivers know the C+ */
	.class_code = 0x020000,
	.int_pin = 1,
	.bar = {{PCI_BAR_IO}, {PCI_BAR_MEM32}},
	.rom_bar = true,
};

DEVICE_CLASS(rtl8139) = {
	.name = "rtl8139",
	.summary = "Realtek RTL8139C+ fast Ethernet",
	.size = sizeof(struct rtl8139),
	PCI_NIC_CLASS(identity),
	.props = props,
	.regions = regions,
	.n_regions = ARRAY_SIZE(regions),
	.state = &table,
	.create = create,
	.destroy = destroy,
	.reset = reset,
	.settle = settle,
};
