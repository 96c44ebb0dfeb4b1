/*
 * The 82540EM's PHY, a Marvell M88E1011 behind MDIC, and the link. SDM 13.4.10 (MDIC), chapter 14 and IEEE 802.3 clause
 * 22 and 40 (registers). The partner at the other end of the cable offers everything up to 1000BASE-T full duplex.
 *
 * Left out: cable diagnostics, the extended pages, the PHY's own interrupt.
 */
#include "src/devices/net/e1000.h"

#define NEGOTIATION_NS \
	(100 * NS_PER_MS) /* copper takes seconds; drivers wait for the interrupt, people for the driver */

enum {
	PHY_CONTROL,
	PHY_STATUS,
	PHY_ID1,
	PHY_ID2,
	PHY_ADVERTISE,
	PHY_PARTNER,
	PHY_EXPANSION,
	PHY_NEXT_PAGE,
	PHY_1000T_CONTROL = 9,
	PHY_1000T_STATUS,
	PHY_EXT_STATUS = 15,
	M88_CONTROL,
	M88_STATUS,
	M88_INT_ENABLE,
	M88_INT_STATUS,
	M88_EXT_CONTROL,
};

#define CONTROL_SPEED_HIGH 0x0040
#define CONTROL_COLLISION  0x0080
#define CONTROL_DUPLEX     0x0100
#define CONTROL_RESTART    0x0200
#define CONTROL_ISOLATE    0x0400
#define CONTROL_POWER_DOWN 0x0800
#define CONTROL_AUTO       0x1000
#define CONTROL_SPEED_LOW  0x2000
#define CONTROL_LOOPBACK   0x4000
#define CONTROL_RESET      0x8000

#define STATUS_ABILITIES \
	0x7949 /* all 10 and 100 modes, extended status, preamble suppression, negotiation, extended registers */
#define STATUS_LINK 0x0004
#define STATUS_DONE 0x0020

#define M88_LINK     0x0400
#define M88_RESOLVED 0x0800
#define M88_DUPLEX   0x2000

#define MDIC_READY 0x10000000u
#define MDIC_INT   0x20000000u
#define MDIC_ERROR 0x40000000u

static bool phy_on(const struct e1000 *s)
{
	return !(s->phy[PHY_CONTROL] & (CONTROL_POWER_DOWN | CONTROL_ISOLATE));
}

/* 0: 10, 1: 100, 2: 1000 Mb/s, and whether full duplex. */
static unsigned speed(const struct e1000 *s, bool *full)
{
	uint16_t control = s->phy[PHY_CONTROL], offer = s->phy[PHY_ADVERTISE], gigabit = s->phy[PHY_1000T_CONTROL];

	if (!(control & CONTROL_AUTO)) {
		*full = control & CONTROL_DUPLEX;
		return control & CONTROL_SPEED_HIGH ? 2 : control & CONTROL_SPEED_LOW ? 1 : 0;
	}
	if (gigabit & 0x0300) {
		*full = gigabit & 0x0200;
		return 2;
	}
	*full = offer & (offer & 0x0180 ? 0x0100 : 0x0040);
	return offer & 0x0180 ? 1 : 0;
}

uint32_t e1000_status(const struct e1000 *s)
{
	bool full;
	unsigned v = speed(s, &full);
	uint32_t status = 0;

	if (s->link)
		status |= STATUS_LU | v << 8;
	if (s->ctrl & CTRL_FRCSPD)
		v = s->ctrl >> 8 & 3;
	if (s->ctrl & CTRL_FRCDPLX)
		full = s->ctrl & CTRL_FD;
	return status | MIN(v, 2u) << 6 | (full ? STATUS_FD : 0);
}

bool e1000_loopback(const struct e1000 *s)
{
	return s->rctl & RCTL_LBM || s->phy[PHY_CONTROL] & CONTROL_LOOPBACK;
}

static void set_link(struct e1000 *s, bool up)
{
	if (!up)
		s->phy[PHY_STATUS] &= (uint16_t)~STATUS_LINK; /* stays so until it was read */
	if (s->link == up)
		return;
	s->link = up;
	e1000_cause(s, ICR_LSC);
	e1000_rx_update(s);
}

static void negotiated(struct e1000 *s)
{
	s->negotiating = false;
	if (s->phy[PHY_CONTROL] & CONTROL_AUTO)
		s->phy[PHY_STATUS] |= STATUS_DONE;
	set_link(s, true);
}

/* The cable or what the PHY shall do with it changed. */
static void bring_up(struct e1000 *s)
{
	s->phy[PHY_STATUS] &= (uint16_t)~STATUS_DONE;
	s->negotiating = false;
	timer_cancel(&s->link_timer);
	if (!s->cable || !phy_on(s)) {
		set_link(s, false);
	} else if (s->autonegotiation && s->phy[PHY_CONTROL] & CONTROL_AUTO) {
		set_link(s, false);
		s->negotiating = true;
		timer_arm(&s->link_timer, clock_ns(VCLOCK_VIRTUAL) + NEGOTIATION_NS);
	} else {
		negotiated(s);
	}
}

void e1000_link_timer(void *opaque)
{
	struct e1000 *s = opaque;

	if (s->negotiating)
		negotiated(s);
}

void e1000_link_changed(struct nic *n, bool up)
{
	struct e1000 *s = container_of(n, struct e1000, card.nic);

	s->cable = up;
	bring_up(s);
}

void e1000_link_settle(struct e1000 *s)
{
	s->cable = nic_link_up(&s->card.nic);
	timer_settle(&s->link_timer);
	if (s->cable ? !s->link && !s->negotiating && phy_on(s) : s->link || s->negotiating)
		bring_up(s); /* another cable than where the state was saved, or none since power-on */
}

void e1000_phy_reset(struct e1000 *s)
{
	static const uint16_t values[32] = {
		[PHY_CONTROL] = CONTROL_AUTO | CONTROL_DUPLEX | CONTROL_SPEED_HIGH,
		[PHY_STATUS] = STATUS_ABILITIES,
		[PHY_ID1] = 0x0141,
		[PHY_ID2] = 0x0c20,
		[PHY_ADVERTISE] = 0x0de1,
		[PHY_PARTNER] = 0x4de1,
		[PHY_EXPANSION] = 0x0001, /* the partner negotiates */
		[PHY_NEXT_PAGE] = 0x2001,
		[PHY_1000T_CONTROL] = 0x0e00,
		[PHY_1000T_STATUS] = 0x3c00, /* receivers are fine, the partner can do gigabit */
		[PHY_EXT_STATUS] = 0x3000,   /* 1000BASE-T */
		[M88_CONTROL] = 0x0078,
		[M88_EXT_CONTROL] = 0x0d60,
	};

	memcpy(s->phy, values, sizeof(s->phy));
}

/* The link came up while nobody looked. */
void e1000_phy_power_on(struct e1000 *s)
{
	e1000_phy_reset(s);
	s->phy[PHY_STATUS] |= STATUS_LINK | STATUS_DONE;
	s->link = true;
	s->negotiating = false;
	timer_cancel(&s->link_timer);
}

void e1000_phy_hard_reset(struct e1000 *s)
{
	e1000_phy_reset(s);
	bring_up(s);
}

static void write_control(struct e1000 *s, uint16_t value)
{
	uint16_t before = s->phy[PHY_CONTROL];

	if (value & CONTROL_RESET) {
		e1000_phy_hard_reset(s);
		return;
	}
	s->phy[PHY_CONTROL] = value & (uint16_t) ~(CONTROL_RESTART | 0x3f);
	if ((value & CONTROL_RESTART && value & CONTROL_AUTO) ||
	    (value ^ before) &
		    (CONTROL_AUTO | CONTROL_POWER_DOWN | CONTROL_ISOLATE | CONTROL_SPEED_HIGH | CONTROL_SPEED_LOW))
		bring_up(s);
}

static void phy_write(struct e1000 *s, unsigned reg, uint16_t value)
{
	switch (reg) {
	case PHY_CONTROL:
		write_control(s, value);
		break;
	case PHY_ADVERTISE:
	case PHY_NEXT_PAGE:
	case PHY_1000T_CONTROL:
	case M88_CONTROL:
	case M88_INT_ENABLE:
	case M88_EXT_CONTROL:
	case 22 ... 31: /* vendor's: kept */
		s->phy[reg] = value;
		break;
	default:
		break;
	}
}

static uint16_t m88_status(const struct e1000 *s)
{
	bool full;
	unsigned v = speed(s, &full);

	return (uint16_t)(v << 14 | (full ? M88_DUPLEX : 0) | (s->negotiating ? 0 : M88_RESOLVED) |
			  (s->link ? M88_LINK : 0));
}

static uint16_t phy_read(struct e1000 *s, unsigned reg)
{
	uint16_t value = reg == M88_STATUS ? m88_status(s) : s->phy[reg];

	if (reg == PHY_STATUS && s->link) /* latched low */
		s->phy[PHY_STATUS] |= STATUS_LINK;
	return value;
}

void e1000_mdic_write(struct e1000 *s, uint32_t value)
{
	unsigned reg = value >> 16 & 31, phy = value >> 21 & 31, op = value >> 26 & 3;

	s->mdic = value & 0x2fffffff;
	if (phy != 1) { /* nobody answers at another address */
		s->mdic |= MDIC_ERROR | (op == 2 ? 0xffff : 0);
	} else if (op == 1) {
		phy_write(s, reg, (uint16_t)value);
	} else if (op == 2) {
		s->mdic = (s->mdic & ~0xffffu) | phy_read(s, reg);
	} else {
		s->mdic |= MDIC_ERROR;
	}
	s->mdic |= MDIC_READY;
	if (value & MDIC_INT)
		e1000_cause(s, ICR_MDAC);
}
