/*
 * Intel 82540EM gigabit Ethernet controller ("e1000"), PCI 8086:100e: registers, interrupts, EEPROM, the class. The PHY
 * is in e1000_phy.c, receiving in e1000_rx.c, transmitting in e1000_tx.c.
 *
 * Source: Intel PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (317453-006), called SDM:
 * chapters 3 (descriptors), 5 (EEPROM), 9 (VLANs), 13 (registers); what drivers rely on beyond it: Linux' e1000, iPXE's
 * intel, FreeBSD's em. The I/O BAR is BAR 1, where guests that were installed under QEMU know it.
 *
 * Left out: flash memory (FLA is kept); PCI power management and wake-up (WUC, WUFC, the wake-up filters are kept, and
 * no packet wakes anybody); MSI; management (MANC, SMBus); the packet buffer memory and other diagnostic registers read
 * as 0; flow control (pause frames are neither sent nor obeyed: the network between host and guest has no wire to hold
 * up); half duplex.
 */
#include "src/devices/net/e1000.h"

#include <errno.h>
#include <stdlib.h>

#define EECD_SK   0x01u
#define EECD_CS   0x02u
#define EECD_DI   0x04u
#define EECD_DO   0x08u
#define EECD_FWE  0x30u
#define EECD_REQ  0x40u
#define EECD_GNT  0x80u
#define EECD_PRES 0x100u

#define EERD_START 0x01u
#define EERD_DONE  0x10u

#define ITR_NS 256ull /* unit */

enum { REGION_MMIO, REGION_PORTS };
#define MMIO_BYTES 0x20000
#define PORT_BYTES 0x40
enum { IOADDR = 0, IODATA = 4 };

/* ---- interrupts, SDM 13.4.17 to 13.4.21 ---- */

/* ITR keeps the line down for a while after it went up last. */
void e1000_update_irq(struct e1000 *s)
{
	uint64_t now;

	if (!(s->icr & s->ims)) {
		timer_cancel(&s->itr_timer);
		pci_set_intx(&s->card.dev, false);
		return;
	}
	if (s->card.dev.irq[0].level || timer_pending(&s->itr_timer))
		return;
	now = clock_ns(VCLOCK_VIRTUAL);
	if (s->mitigation && s->itr && now < s->last_irq + s->itr * ITR_NS) {
		timer_arm(&s->itr_timer, s->last_irq + s->itr * ITR_NS);
		return;
	}
	s->last_irq = now;
	pci_set_intx(&s->card.dev, true);
}

static void itr_expired(void *opaque)
{
	e1000_update_irq(opaque);
}

void e1000_cause(struct e1000 *s, uint32_t bits)
{
	s->icr |= bits & ICR_ALL;
	e1000_update_irq(s);
}

/* ---- statistics: they stop at their end ---- */

void e1000_count(struct e1000 *s, unsigned stat, uint32_t n)
{
	s->stat[stat] = s->stat[stat] > UINT32_MAX - n ? UINT32_MAX : s->stat[stat] + n;
}

void e1000_count64(struct e1000 *s, unsigned stat_low, uint32_t n)
{
	uint64_t v = s->stat[stat_low] | (uint64_t)s->stat[stat_low + 1] << 32;

	v = v > UINT64_MAX - n ? UINT64_MAX : v + n;
	s->stat[stat_low] = (uint32_t)v;
	s->stat[stat_low + 1] = (uint32_t)(v >> 32);
}

void e1000_count_size(struct e1000 *s, unsigned base, uint32_t len)
{
	static const uint16_t above[] = {64, 127, 255, 511, 1023};
	unsigned i = 0;

	while (i < ARRAY_SIZE(above) && len > above[i])
		i++;
	e1000_count(s, base + i, 1);
}

/* ---- rings ---- */

uint32_t e1000_ring_filled(const struct e1000_ring *r)
{
	uint32_t n = r->len / E1000_DESC;

	if (r->head >= n || r->tail >= n)
		return 0;
	return r->tail >= r->head ? r->tail - r->head : n - r->head + r->tail;
}

uint64_t e1000_ring_head(const struct e1000_ring *r)
{
	return ((uint64_t)r->base_high << 32 | r->base_low) + r->head * E1000_DESC;
}

void e1000_ring_advance(struct e1000_ring *r)
{
	if (++r->head >= r->len / E1000_DESC)
		r->head = 0;
}

/* ---- EEPROM, SDM 5 ---- */

static void fill_eeprom(struct e1000 *s)
{
	uint16_t *w = s->eeprom.words, sum = 0;

	memset(w, 0xff, sizeof(s->eeprom.words));
	for (unsigned i = 0; i < 3; i++)
		w[i] = get_le16(s->card.mac + 2 * i);
	w[0x03] = 0x0000;
	w[0x08] = 0x3000; /* board assembly number */
	w[0x09] = 0x1000;
	w[0x0a] = 0x4403; /* signature; IDs come from here; full duplex */
	w[0x0b] = get_le16(s->card.dev.pci->config + 0x2e);
	w[0x0c] = get_le16(s->card.dev.pci->config + 0x2c);
	w[0x0d] = 0x100e;
	w[0x0e] = 0x8086;
	w[0x0f] = 0x3040; /* both directions of flow control are offered */
	w[0x10] = w[0x20] = 0x0000;
	w[0x24] = 0x0000; /* no wake-up */
	w[0x2f] = 0x0602; /* LEDs: activity, link */
	w[0x30] = 0x0000; /* boot agent */
	for (unsigned i = 0; i < EEPROM_WORDS - 1; i++)
		sum = (uint16_t)(sum + w[i]);
	w[0x3f] = (uint16_t)(0xbaba - sum);
}

static uint32_t read_eecd(struct e1000 *s, unsigned i)
{
	return s->eecd | EECD_PRES | (s->eeprom.out ? EECD_DO : 0) | (s->eecd & EECD_REQ ? EECD_GNT : 0);
}

static void write_eecd(struct e1000 *s, unsigned i, uint32_t v)
{
	s->eecd = v & (EECD_SK | EECD_CS | EECD_DI | EECD_FWE | EECD_REQ);
	eeprom93xx_drive(&s->eeprom, v & EECD_CS, v & EECD_SK, v & EECD_DI);
}

static void write_eerd(struct e1000 *s, unsigned i, uint32_t v)
{
	unsigned address = v >> 8 & 0xff;

	s->eerd = v & 0xff00;
	if (v & EERD_START)
		s->eerd |= EERD_DONE | (uint32_t)(address < EEPROM_WORDS ? s->eeprom.words[address] : 0) << 16;
}

/* ---- reset ---- */

/* The address the EEPROM has, as it is loaded into the first receive address. */
static void load_mac(struct e1000 *s)
{
	const uint16_t *w = s->eeprom.words;

	memset(s->ra, 0, sizeof(s->ra));
	s->ra[0] = w[0] | (uint32_t)w[1] << 16;
	s->ra[1] = w[2] | RAH_AV;
}

static void use_mac(struct e1000 *s)
{
	if (!(s->ra[1] & RAH_AV))
		return;
	put_le32(s->card.nic.mac, s->ra[0]);
	put_le16(s->card.nic.mac + 4, (uint16_t)s->ra[1]);
}

/* CTRL.RST: all but PHY and EEPROM. */
static void reset_mac(struct e1000 *s)
{
	s->ctrl = CTRL_FD | 0x00000200 /* 1000 Mb/s */ | 0x00000020 /* ASDE */;
	s->eecd = s->eerd = s->mdic = s->icr = s->ims = s->itr = 0;
	s->vet = s->init_vet ? 0x8100 : 0;
	s->last_irq = 0;
	s->ioaddr = 0;
	memset(s->mta, 0, sizeof(s->mta));
	memset(s->vfta, 0, sizeof(s->vfta));
	memset(s->passive, 0, sizeof(s->passive));
	memset(s->stat, 0, sizeof(s->stat));
	memset(s->ip4at, 0, sizeof(s->ip4at));
	memset(s->ip6at, 0, sizeof(s->ip6at));
	memset(s->wupm, 0, sizeof(s->wupm));
	s->passive[P_PBA] = 0x00100030; /* 48 KB to receive, 16 to send */
	s->passive[P_LEDCTL] = 0x07068302;
	s->passive[P_TIPG] = 0x00602008;
	s->passive[P_MANC] = 0x00002000; /* ARP offload enabled, as drivers find it */
	timer_cancel(&s->itr_timer);
	e1000_rx_reset(s);
	e1000_tx_reset(s);
	load_mac(s);
}

/* ---- registers that do something ---- */

static void write_ctrl(struct e1000 *s, unsigned i, uint32_t v)
{
	if (v & CTRL_PHY_RST)
		e1000_phy_hard_reset(s);
	if (v & CTRL_RST) {
		reset_mac(s);
		use_mac(s);
		e1000_update_irq(s);
		e1000_rx_update(s);
		nic_rx_filter_changed(&s->card.nic);
		return;
	}
	s->ctrl = v & ~(CTRL_RST | CTRL_PHY_RST);
}

static uint32_t read_status(struct e1000 *s, unsigned i)
{
	return e1000_status(s);
}

static void write_mdic(struct e1000 *s, unsigned i, uint32_t v)
{
	e1000_mdic_write(s, v);
}

static uint32_t read_icr(struct e1000 *s, unsigned i)
{
	uint32_t v = s->icr;

	s->icr = 0;
	e1000_update_irq(s);
	return v;
}

static void write_icr(struct e1000 *s, unsigned i, uint32_t v)
{
	s->icr &= ~v;
	e1000_update_irq(s);
}

static void write_ics(struct e1000 *s, unsigned i, uint32_t v)
{
	e1000_cause(s, v);
}

static void write_ims(struct e1000 *s, unsigned i, uint32_t v)
{
	s->ims |= v & ICR_ALL;
	e1000_update_irq(s);
}

static void write_imc(struct e1000 *s, unsigned i, uint32_t v)
{
	s->ims &= ~v;
	e1000_update_irq(s);
}

static void write_itr(struct e1000 *s, unsigned i, uint32_t v)
{
	s->itr = v & 0xffff;
	timer_cancel(&s->itr_timer); /* the new interval decides */
	e1000_update_irq(s);
}

static void write_rctl(struct e1000 *s, unsigned i, uint32_t v)
{
	s->rctl = v & 0x06dfb3feu; /* SDM 13.4.22: the bits that exist */
	e1000_rx_update(s);
	nic_rx_filter_changed(&s->card.nic);
}

static void write_tctl(struct e1000 *s, unsigned i, uint32_t v)
{
	s->tctl = v & 0x017ffffau;
	e1000_tx_update(s);
}

static void write_rdt(struct e1000 *s, unsigned i, uint32_t v)
{
	s->rx_ring.tail = v & 0xffff;
	e1000_rx_update(s);
}

static void write_rx_ring(struct e1000 *s, unsigned i, uint32_t v)
{
	s->rx_ring.len = v & E1000_RING_MAX;
	e1000_rx_update(s);
}

static void write_rdh(struct e1000 *s, unsigned i, uint32_t v)
{
	s->rx_ring.head = v & 0xffff;
	e1000_rx_update(s);
}

static void write_tdt(struct e1000 *s, unsigned i, uint32_t v)
{
	s->tx_ring.tail = v & 0xffff;
	e1000_tx_update(s);
}

/* A new place in the ring: what was being sent is not part of it. */
static void abandon(struct e1000 *s)
{
	s->tx.fetched = s->tx.in_packet = s->tx.ready = false;
	s->tx.len = 0;
}

static void write_tx_ring(struct e1000 *s, unsigned i, uint32_t v)
{
	s->tx_ring.len = v & E1000_RING_MAX;
	abandon(s);
}

static void write_tdh(struct e1000 *s, unsigned i, uint32_t v)
{
	s->tx_ring.head = v & 0xffff;
	abandon(s);
}

static void write_rdtr(struct e1000 *s, unsigned i, uint32_t v)
{
	s->rdtr = v & 0x8000ffff;
	e1000_rx_flush(s);
}

static void write_ra(struct e1000 *s, unsigned i, uint32_t v)
{
	s->ra[i] = i & 1 ? v & 0x8003ffff : v;
	use_mac(s);
	nic_rx_filter_changed(&s->card.nic);
}

static void write_mta(struct e1000 *s, unsigned i, uint32_t v)
{
	s->mta[i] = v;
	nic_rx_filter_changed(&s->card.nic);
}

static void write_vfta(struct e1000 *s, unsigned i, uint32_t v)
{
	s->vfta[i] = v;
	nic_rx_filter_changed(&s->card.nic);
}

/* Reading clears; of the 64-bit ones reading the high half clears both (SDM 13.7). */
static uint32_t read_stat(struct e1000 *s, unsigned i)
{
	static const uint8_t wide[] = {E1000_STAT(0x4088), E1000_STAT(0x4090), E1000_STAT(0x40c0), E1000_STAT(0x40c8)};
	uint32_t v = s->stat[i];

	for (unsigned k = 0; k < ARRAY_SIZE(wide); k++)
		if (i == wide[k])
			return v;
		else if (i == wide[k] + 1u)
			s->stat[i - 1] = 0;
	s->stat[i] = 0;
	return v;
}

static uint32_t read_zero(struct e1000 *s, unsigned i)
{
	return 0;
}

static void ignore(struct e1000 *s, unsigned i, uint32_t v)
{
}

/* ---- the register file ---- */

struct e1000_register {
	uint32_t first, n; /* offset, count */
	size_t at;         /* in struct e1000; stored under mask where there is no function */
	uint32_t mask;
	uint32_t (*read)(struct e1000 *s, unsigned i);
	void (*write)(struct e1000 *s, unsigned i, uint32_t v);
};

#define FIELD(offset, m, mk, ...)                                                                     \
	{                                                                                             \
		.first = (offset), .n = 1, .at = offsetof(struct e1000, m), .mask = (mk), __VA_ARGS__ \
	}
#define ARRAY(offset, m, ...)                                                                                \
	{                                                                                                    \
		.first = (offset), .n = ARRAY_SIZE(((struct e1000 *)0)->m), .at = offsetof(struct e1000, m), \
		.mask = UINT32_MAX, __VA_ARGS__                                                              \
	}
#define PASSIVE(offset, index, mk) FIELD(offset, passive[index], mk)

/* Sorted. The second places of some are the 82542's (SDM 13.3: aliases). */
static const struct e1000_register registers[] = {
	FIELD(0x0000, ctrl, 0, .write = write_ctrl),
	FIELD(0x0004, ctrl, 0, .write = write_ctrl),
	FIELD(0x0008, ctrl, 0, .read = read_status, .write = ignore),
	FIELD(0x0010, eecd, 0, .read = read_eecd, .write = write_eecd),
	FIELD(0x0014, eerd, 0, .write = write_eerd),
	PASSIVE(0x0018, P_CTRL_EXT, 0x00c7f7e0),
	PASSIVE(0x001c, P_FLA, 0x0000000f),
	FIELD(0x0020, mdic, 0, .write = write_mdic),
	PASSIVE(0x0028, P_FCAL, UINT32_MAX),
	PASSIVE(0x002c, P_FCAH, 0xffff),
	PASSIVE(0x0030, P_FCT, 0xffff),
	FIELD(0x0038, vet, 0xffff),
	ARRAY(0x0040, ra, .write = write_ra),
	FIELD(0x00c0, icr, 0, .read = read_icr, .write = write_icr),
	FIELD(0x00c4, itr, 0, .write = write_itr),
	FIELD(0x00c8, icr, 0, .read = read_zero, .write = write_ics),
	FIELD(0x00d0, ims, 0, .write = write_ims),
	FIELD(0x00d8, ims, 0, .read = read_zero, .write = write_imc),
	FIELD(0x0100, rctl, 0, .write = write_rctl),
	FIELD(0x0108, rdtr, 0, .write = write_rdtr),
	FIELD(0x0110, rx_ring.base_low, 0xfffffff0),
	FIELD(0x0114, rx_ring.base_high, UINT32_MAX),
	FIELD(0x0118, rx_ring.len, 0, .write = write_rx_ring),
	FIELD(0x0120, rx_ring.head, 0, .write = write_rdh),
	FIELD(0x0128, rx_ring.tail, 0, .write = write_rdt),
	PASSIVE(0x0160, P_FCRTH, 0xfff8),
	PASSIVE(0x0168, P_FCRTL, 0x8000fff8),
	PASSIVE(0x0170, P_FCTTV, 0xffff),
	PASSIVE(0x0178, P_TXCW, UINT32_MAX),
	ARRAY(0x0200, mta, .write = write_mta),
	FIELD(0x0400, tctl, 0, .write = write_tctl),
	PASSIVE(0x0410, P_TIPG, 0x3fffffff),
	FIELD(0x0420, tx_ring.base_low, 0xfffffff0),
	FIELD(0x0424, tx_ring.base_high, UINT32_MAX),
	FIELD(0x0428, tx_ring.len, 0, .write = write_tx_ring),
	FIELD(0x0430, tx_ring.head, 0, .write = write_tdh),
	FIELD(0x0438, tx_ring.tail, 0, .write = write_tdt),
	FIELD(0x0440, tidv, 0xffff),
	PASSIVE(0x0448, P_TBT, UINT32_MAX),
	PASSIVE(0x0458, P_AIFS, 0xffff),
	ARRAY(0x0600, vfta, .write = write_vfta),
	PASSIVE(0x0e00, P_LEDCTL, UINT32_MAX),
	PASSIVE(0x1000, P_PBA, 0xffff),
	PASSIVE(0x2160, P_FCRTL, 0x8000fff8),
	PASSIVE(0x2168, P_FCRTH, 0xfff8),
	FIELD(0x2800, rx_ring.base_low, 0xfffffff0),
	FIELD(0x2804, rx_ring.base_high, UINT32_MAX),
	FIELD(0x2808, rx_ring.len, 0, .write = write_rx_ring),
	FIELD(0x2810, rx_ring.head, 0, .write = write_rdh),
	FIELD(0x2818, rx_ring.tail, 0, .write = write_rdt),
	FIELD(0x2820, rdtr, 0, .write = write_rdtr),
	PASSIVE(0x2828, P_RXDCTL, UINT32_MAX),
	FIELD(0x282c, radv, 0xffff),
	FIELD(0x2c00, rsrpd, 0xfff),
	PASSIVE(0x3000, P_TXDMAC, 1),
	FIELD(0x3800, tx_ring.base_low, 0xfffffff0),
	FIELD(0x3804, tx_ring.base_high, UINT32_MAX),
	FIELD(0x3808, tx_ring.len, 0, .write = write_tx_ring),
	FIELD(0x3810, tx_ring.head, 0, .write = write_tdh),
	FIELD(0x3818, tx_ring.tail, 0, .write = write_tdt),
	FIELD(0x3820, tidv, 0xffff),
	PASSIVE(0x3828, P_TXDCTL, UINT32_MAX),
	FIELD(0x382c, tadv, 0xffff),
	PASSIVE(0x3830, P_TSPMT, UINT32_MAX),
	ARRAY(0x4000, stat, .read = read_stat, .write = ignore),
	FIELD(0x5000, rxcsum, 0x7ff),
	ARRAY(0x5200, mta, .write = write_mta),
	ARRAY(0x5400, ra, .write = write_ra),
	ARRAY(0x5600, vfta, .write = write_vfta),
	PASSIVE(0x5800, P_WUC, 0x0f),
	PASSIVE(0x5808, P_WUFC, 0xf80ff),
	FIELD(0x5810, ctrl, 0, .read = read_zero, .write = ignore), /* WUS: nothing ever woke us */
	PASSIVE(0x5820, P_MANC, UINT32_MAX),
	PASSIVE(0x5838, P_IPAV, 0x1000f),
	ARRAY(0x5840, ip4at),
	ARRAY(0x5880, ip6at),
	ARRAY(0x5a00, wupm),
};

static const struct e1000_register *find_register(uint32_t offset, unsigned *i)
{
	size_t low = 0, high = ARRAY_SIZE(registers);

	while (low < high) {
		size_t mid = (low + high) / 2;
		const struct e1000_register *r = &registers[mid];

		if (offset < r->first) {
			high = mid;
		} else if (offset >= r->first + 4 * r->n) {
			low = mid + 1;
		} else {
			*i = (offset - r->first) / 4;
			return r;
		}
	}
	return NULL;
}

static uint32_t *value_of(struct e1000 *s, const struct e1000_register *r, unsigned i)
{
	return (uint32_t *)((char *)s + r->at) + i;
}

static uint64_t mmio_read(struct device *dev, struct region *region, uint64_t offset, unsigned size)
{
	struct e1000 *s = DEVICE(dev, struct e1000);
	unsigned i;
	const struct e1000_register *r = find_register((uint32_t)offset, &i);

	if (!r)
		return 0;
	return r->read ? r->read(s, i) : *value_of(s, r, i);
}

static void mmio_write(struct device *dev, struct region *region, uint64_t offset, uint64_t value, unsigned size)
{
	struct e1000 *s = DEVICE(dev, struct e1000);
	unsigned i;
	const struct e1000_register *r = find_register((uint32_t)offset, &i);

	if (!r)
		return;
	if (r->write)
		r->write(s, i, (uint32_t)value);
	else
		*value_of(s, r, i) = (uint32_t)value & r->mask;
}

/* SDM 13.2.2: IOADDR chooses, IODATA is the register. */
static uint64_t port_read(struct device *dev, struct region *region, uint64_t offset, unsigned size)
{
	struct e1000 *s = DEVICE(dev, struct e1000);

	if (offset == IOADDR)
		return s->ioaddr;
	return offset == IODATA && s->ioaddr < MMIO_BYTES ? mmio_read(dev, region, s->ioaddr & ~3u, 4) : 0;
}

static void port_write(struct device *dev, struct region *region, uint64_t offset, uint64_t value, unsigned size)
{
	struct e1000 *s = DEVICE(dev, struct e1000);

	if (offset == IOADDR)
		s->ioaddr = (uint32_t)value;
	else if (offset == IODATA && s->ioaddr < MMIO_BYTES)
		mmio_write(dev, region, s->ioaddr & ~3u, value, 4);
}

static const struct region_ops mmio_ops = {.read = mmio_read, .write = mmio_write, .min_access = 4, .max_access = 4};
static const struct region_ops port_ops = {.read = port_read, .write = port_write, .min_access = 4, .max_access = 4};
static const struct region_desc regions[] = {
	[REGION_MMIO] = {.name = "e1000", .space = SPACE_MMIO, .bar = 0, .size = MMIO_BYTES, .ops = &mmio_ops},
	[REGION_PORTS] = {.name = "e1000-ports", .space = SPACE_PIO, .bar = 1, .size = PORT_BYTES, .ops = &port_ops},
};

/* ---- class ---- */

static void update(struct pci_nic *card)
{
	struct e1000 *s = container_of(card, struct e1000, card);

	e1000_rx_update(s);
	e1000_tx_update(s);
}

static const struct pci_nic_ops ops = {
	.nic =
		{
			.readable = e1000_readable,
			.writable = e1000_writable,
			.link_changed = e1000_link_changed,
			.rx_filter = e1000_rx_filter,
		},
	.rx_run = e1000_rx_run,
	.tx_run = e1000_tx_run,
	.update = update,
};

static int create(struct device *dev, struct err *e)
{
	struct e1000 *s = DEVICE(dev, struct e1000);
	int r;

	if (!s->extra_mac_registers)
		return err_set(e, ENOTSUP, "extra_mac_registers=off is not supported: the registers are always there");
	device_timer_init(dev, &s->itr_timer, VCLOCK_VIRTUAL, itr_expired);
	device_timer_init(dev, &s->rx_delay, VCLOCK_VIRTUAL, e1000_rx_timer);
	device_timer_init(dev, &s->rx_limit, VCLOCK_VIRTUAL, e1000_rx_timer);
	device_timer_init(dev, &s->tx_delay, VCLOCK_VIRTUAL, e1000_tx_timer);
	device_timer_init(dev, &s->tx_limit, VCLOCK_VIRTUAL, e1000_tx_timer);
	device_timer_init(dev, &s->link_timer, VCLOCK_VIRTUAL, e1000_link_timer);
	r = pci_nic_create(&s->card, &ops, e);
	if (!r)
		fill_eeprom(s);
	return r;
}

static void destroy(struct device *dev)
{
	struct e1000 *s = DEVICE(dev, struct e1000);

	pci_nic_destroy(&s->card);
	timer_cancel(&s->itr_timer);
	timer_cancel(&s->rx_delay);
	timer_cancel(&s->rx_limit);
	timer_cancel(&s->tx_delay);
	timer_cancel(&s->tx_limit);
	timer_cancel(&s->link_timer);
}

static void reset(struct device *dev)
{
	struct e1000 *s = DEVICE(dev, struct e1000);

	reset_mac(s);
	e1000_phy_power_on(s);
	eeprom93xx_power_on(&s->eeprom);
}

static void settle(struct device *dev)
{
	struct e1000 *s = DEVICE(dev, struct e1000);

	timer_settle(&s->itr_timer);
	timer_settle(&s->rx_delay);
	timer_settle(&s->rx_limit);
	timer_settle(&s->tx_delay);
	timer_settle(&s->tx_limit);
	use_mac(s);
	e1000_link_settle(s);
	e1000_update_irq(s);
	update(&s->card);
}

static int post_load(void *obj, uint16_t version, struct err *e)
{
	return e1000_tx_check(obj, e);
}

static const struct prop props[] = {
	PCI_NIC_PROPS(struct e1000, "efi-e1000.rom"),
	PROP(struct e1000, autonegotiation, PROP_BOOL, .def = true, .help = "the link takes a moment to come up"),
	PROP(struct e1000, mitigation, PROP_BOOL, .def = true,
	     .help = "interrupt rate and delay registers have an effect"),
	PROP(struct e1000, extra_mac_registers, PROP_BOOL, .def = true, .help = "on: nothing else is supported"),
	PROP_NAMED(struct e1000, "init-vet", init_vet, PROP_BOOL, .def = true,
		   .help = "VET is 0x8100 after a reset, not 0"),
	PROP_END,
};

static const struct state_field ring_fields[] = {
	STATE_U(struct e1000_ring, base_low),
	STATE_U(struct e1000_ring, base_high),
	STATE_U_MAX(struct e1000_ring, len, E1000_RING_MAX),
	STATE_U_MAX(struct e1000_ring, head, 0xffff),
	STATE_U_MAX(struct e1000_ring, tail, 0xffff),
	STATE_FIELDS_END,
};
static const struct state_table ring_table = {.name = "e1000-ring", .version = 1, .oldest = 1, .fields = ring_fields};

static const struct state_field fields[] = {
	STATE_U(struct e1000, ctrl),
	STATE_U(struct e1000, eecd),
	STATE_U(struct e1000, eerd),
	STATE_U(struct e1000, mdic),
	STATE_U_MAX(struct e1000, vet, 0xffff),
	STATE_U_MAX(struct e1000, icr, ICR_ALL),
	STATE_U_MAX(struct e1000, ims, ICR_ALL),
	STATE_U_MAX(struct e1000, itr, 0xffff),
	STATE_U(struct e1000, rctl),
	STATE_U(struct e1000, tctl),
	STATE_U(struct e1000, rxcsum),
	STATE_U(struct e1000, rdtr),
	STATE_U(struct e1000, radv),
	STATE_U(struct e1000, rsrpd),
	STATE_U(struct e1000, tidv),
	STATE_U(struct e1000, tadv),
	STATE_SUB(struct e1000, rx_ring, &ring_table),
	STATE_SUB(struct e1000, tx_ring, &ring_table),
	STATE_UA(struct e1000, ra),
	STATE_UA(struct e1000, mta),
	STATE_UA(struct e1000, vfta),
	STATE_UA(struct e1000, passive),
	STATE_UA(struct e1000, stat),
	STATE_UA(struct e1000, ip4at),
	STATE_UA(struct e1000, ip6at),
	STATE_UA(struct e1000, wupm),
	STATE_U(struct e1000, ioaddr),
	STATE_SUB(struct e1000, eeprom, &eeprom93xx_state),
	STATE_UA(struct e1000, phy),
	STATE_B(struct e1000, link),
	STATE_B(struct e1000, negotiating),
	STATE_U(struct e1000, last_irq),
	STATE_T(struct e1000, itr_timer),
	STATE_T(struct e1000, rx_delay),
	STATE_T(struct e1000, rx_limit),
	STATE_T(struct e1000, tx_delay),
	STATE_T(struct e1000, tx_limit),
	STATE_T(struct e1000, link_timer),
	STATE_SUB(struct e1000, tx, &e1000_tx_state),
	STATE_SUB(struct e1000, rx, &e1000_rx_state),
	STATE_FIELDS_END,
};
static const struct state_table table = {
	.name = "e1000", .version = 1, .oldest = 1, .fields = fields, .post_load = post_load};

static const struct pci_identity identity = {
	.vendor = 0x8086,
	.device = 0x100e,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.revision = 3,
	.class_code = 0x020000, /* Ethernet controller */
	.int_pin = 1,
	.bar = {{PCI_BAR_MEM32}, {PCI_BAR_IO}},
	.rom_bar = true,
};

DEVICE_CLASS(e1000) = {
	.name = "e1000",
	.alias = "e1000-82540em",
	.summary = "Intel 82540EM gigabit Ethernet",
	.size = sizeof(struct e1000),
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
