/*
 * Intel 82540EM: what the files of this device share. e1000.c: registers, interrupts, EEPROM and the class;
 * e1000_phy.c: the PHY and the link; e1000_rx.c, e1000_tx.c: the rings. SDM below is Intel's "PCI/PCI-X Family of
 * Gigabit Ethernet Controllers Software Developer's Manual" (317453-006).
 */
#ifndef VMM_DEVICES_NET_E1000_H
#define VMM_DEVICES_NET_E1000_H

#include "src/devices/net/eeprom93xx.h"
#include "src/devices/net/net_frame.h"
#include "src/devices/net/pci_nic.h"

#define CTRL_FD      0x00000001u
#define CTRL_SLU     0x00000040u
#define CTRL_FRCSPD  0x00000800u
#define CTRL_FRCDPLX 0x00001000u
#define CTRL_RST     0x04000000u
#define CTRL_VME     0x40000000u
#define CTRL_PHY_RST 0x80000000u

#define STATUS_FD   0x001u
#define STATUS_LU   0x002u
#define STATUS_ASDV 0x300u

#define ICR_TXDW    0x00001u
#define ICR_TXQE    0x00002u
#define ICR_LSC     0x00004u
#define ICR_RXDMT0  0x00010u
#define ICR_RXO     0x00040u
#define ICR_RXT0    0x00080u
#define ICR_MDAC    0x00200u
#define ICR_TXD_LOW 0x08000u
#define ICR_SRPD    0x10000u
#define ICR_ALL     0x1f6dfu /* SDM 13.4.17: the bits that exist */

#define RCTL_EN    0x00000002u
#define RCTL_UPE   0x00000008u
#define RCTL_MPE   0x00000010u
#define RCTL_LPE   0x00000020u
#define RCTL_LBM   0x000000c0u
#define RCTL_BAM   0x00008000u
#define RCTL_VFE   0x00040000u
#define RCTL_CFIEN 0x00080000u
#define RCTL_CFI   0x00100000u
#define RCTL_PMCF  0x00800000u
#define RCTL_BSEX  0x02000000u
#define RCTL_SECRC 0x04000000u

#define TCTL_EN  0x2u
#define TCTL_PSP 0x8u

#define RAH_AV 0x80000000u

#define E1000_DESC     16      /* bytes */
#define E1000_RX_MAX   16384   /* with FCS */
#define E1000_TX_MAX   16288   /* SDM 3.3.3: of one frame */
#define E1000_RING_MAX 0xfff80 /* bytes */

/* Registers without an effect of their own. */
enum {
	P_CTRL_EXT,
	P_FLA,
	P_FCAL,
	P_FCAH,
	P_FCT,
	P_FCTTV,
	P_FCRTL,
	P_FCRTH,
	P_TXCW,
	P_TIPG,
	P_AIFS,
	P_LEDCTL,
	P_PBA,
	P_RXDCTL,
	P_TXDCTL,
	P_TXDMAC,
	P_TSPMT,
	P_TBT,
	P_WUC,
	P_WUFC,
	P_IPAV,
	P_MANC,
	P_COUNT,
};

enum { S_CRCERRS = 0 /* index of a statistics register: (offset - 0x4000) / 4 */, S_COUNT = 64 };
#define E1000_STAT(offset) (((offset)-0x4000) / 4)

struct e1000_ring {
	uint32_t base_low, base_high, len, head, tail;
};

/* SDM 3.3.6: what a context descriptor said. */
struct e1000_context {
	uint8_t ipcss, ipcso, tucss, tucso, tucmd, header;
	uint16_t ipcse, tucse, mss;
	uint32_t paylen;
};

struct e1000_tx {
	struct e1000_context context[2]; /* of checksum offload, of segmentation */
	/* The descriptor at the head, while it is being worked on. */
	uint8_t desc[E1000_DESC];
	bool fetched;
	uint32_t done; /* bytes of it that were taken */
	/* The packet its data belong to. */
	bool in_packet, too_long, segmented, tagged;
	uint8_t popts;
	uint16_t tag;
	uint8_t header[256]; /* of a large packet */
	uint32_t header_len;
	uint32_t segment, payload; /* sent segments, payload bytes taken */
	/* The frame that is being put together; ready: it waits for the network. */
	bool ready;
	uint32_t len;
	uint8_t frame[E1000_TX_MAX + ETH_VLAN];
};

struct e1000_rx {
	/* A frame that has no room in the ring yet; len 0: none. */
	uint32_t len;
	uint8_t status, errors;
	uint16_t checksum, special;
	uint8_t frame[E1000_RX_MAX + ETH_VLAN];
};

struct e1000 {
	struct pci_nic card;
	bool autonegotiation, mitigation, extra_mac_registers, init_vet;

	uint32_t ctrl, eecd, eerd, mdic, vet, icr, itr, ims;
	uint32_t rctl, tctl, rxcsum;
	uint32_t rdtr, radv, rsrpd, tidv, tadv;
	struct e1000_ring rx_ring, tx_ring;
	uint32_t ra[32], mta[128], vfta[128], passive[P_COUNT], stat[S_COUNT];
	uint32_t ip4at[8], ip6at[4], wupm[32];
	uint32_t ioaddr;
	struct eeprom93xx eeprom;

	uint16_t phy[32];
	bool cable; /* there is a network and it is plugged in */
	bool link;  /* as the MAC sees it */
	bool negotiating;
	uint64_t last_irq; /* when the interrupt line went up last */
	struct timer itr_timer, rx_delay, rx_limit, tx_delay, tx_limit, link_timer;

	struct e1000_tx tx;
	struct e1000_rx rx;
	uint16_t vlans[4096]; /* for query-rx-filter */
};

/* e1000.c */
void e1000_cause(struct e1000 *s, uint32_t bits);
void e1000_update_irq(struct e1000 *s);
void e1000_count(struct e1000 *s, unsigned stat, uint32_t n);
void e1000_count64(struct e1000 *s, unsigned stat_low, uint32_t n);
/* A frame of len bytes with FCS in the class of its size; base: of 64 bytes. */
void e1000_count_size(struct e1000 *s, unsigned base, uint32_t len);
/* Descriptors from head to tail; 0 if the ring is none or an index is outside. */
uint32_t e1000_ring_filled(const struct e1000_ring *r);
uint64_t e1000_ring_head(const struct e1000_ring *r);
void e1000_ring_advance(struct e1000_ring *r);

/* e1000_phy.c */
void e1000_phy_power_on(struct e1000 *s);
void e1000_phy_reset(struct e1000 *s);
void e1000_link_settle(struct e1000 *s);
void e1000_phy_hard_reset(struct e1000 *s); /* CTRL.PHY_RST */
void e1000_mdic_write(struct e1000 *s, uint32_t value);
uint32_t e1000_status(const struct e1000 *s);
bool e1000_loopback(const struct e1000 *s);
void e1000_link_changed(struct nic *n, bool up);
void e1000_link_timer(void *opaque);

/* e1000_rx.c */
void e1000_rx_reset(struct e1000 *s);
/* The ring, the enable bit or the cable changed. */
void e1000_rx_update(struct e1000 *s);
void e1000_rx_run(void *opaque);
void e1000_readable(struct nic *n, unsigned queue);
/* A frame of our own comes back; without room it is lost. */
void e1000_rx_loop(struct e1000 *s, const uint8_t *frame, size_t len);
void e1000_rx_timer(void *opaque);
void e1000_rx_flush(struct e1000 *s);
void e1000_rx_filter(struct nic *n, struct nic_rx_filter *f);

/* e1000_tx.c */
void e1000_tx_reset(struct e1000 *s);
void e1000_tx_update(struct e1000 *s);
void e1000_tx_run(void *opaque);
void e1000_writable(struct nic *n, unsigned queue);
void e1000_tx_timer(void *opaque);
int e1000_tx_check(const struct e1000 *s, struct err *e);

extern const struct state_table e1000_tx_state, e1000_rx_state;

#endif
