/*
 * Realtek RTL8139C+: what the files of this device share. rtl8139.c: registers, EEPROM, PHY, timer and the class;
 * rtl8139_rx.c and rtl8139_tx.c: both modes of receiving and sending. DS below is Realtek's "RTL8139C(L)+ data sheet",
 * revision 1.6; PG its "RTL8139(A/B) Programming Guide", revision 0.1.
 */
#ifndef VMM_DEVICES_NET_RTL8139_H
#define VMM_DEVICES_NET_RTL8139_H

#include "src/devices/net/eeprom93xx.h"
#include "src/devices/net/net_frame.h"
#include "src/devices/net/pci_nic.h"

/* Registers. Those with two names mean the second in C+ mode. */
enum {
	IDR = 0x00,
	MAR = 0x08,
	TSD = 0x10,
	DTCCR = 0x10,
	TSAD = 0x20,
	TNPDS = 0x20,
	THPDS = 0x28,
	RBSTART = 0x30,
	CR = 0x37,
	CAPR = 0x38,
	CBR = 0x3a,
	IMR = 0x3c,
	ISR = 0x3e,
	TCR = 0x40,
	RCR = 0x44,
	TCTR = 0x48,
	MPC = 0x4c,
	CR9346 = 0x50,
	CONFIG0 = 0x51,
	CONFIG1 = 0x52,
	TIMER_INT = 0x54,
	MSR = 0x58,
	CONFIG3 = 0x59,
	CONFIG4 = 0x5a,
	HLTCLK = 0x5b,
	MULINT = 0x5c,
	RERID = 0x5e,
	TSAD_SUMMARY = 0x60,
	BMCR = 0x62,
	BMSR = 0x64,
	ANAR = 0x66,
	ANLPAR = 0x68,
	ANER = 0x6a,
	CSCR = 0x74,
	CONFIG5 = 0xd8,
	TPPOLL = 0xd9,
	CPCR = 0xe0,
	RDSAR = 0xe4,
};

#define CR_BUFE 0x01
#define CR_TE   0x04
#define CR_RE   0x08
#define CR_RST  0x10

#define INT_ROK     0x0001
#define INT_RER     0x0002
#define INT_TOK     0x0004
#define INT_TER     0x0008
#define INT_RXOVW   0x0010 /* C+: no receive descriptor */
#define INT_LINK    0x0020
#define INT_TDU     0x0080 /* C+: no transmit descriptor */
#define INT_SOFT    0x0100
#define INT_TIMEOUT 0x4000
#define INT_SERR    0x8000

#define TCR_LOOPBACK 0x00060000u
#define TCR_NO_CRC   0x00010000u

#define RCR_AAP  0x01u
#define RCR_APM  0x02u
#define RCR_AM   0x04u
#define RCR_AB   0x08u
#define RCR_WRAP 0x80u

#define CPCR_TX    0x0001
#define CPCR_RX    0x0002
#define CPCR_RXSUM 0x0020
#define CPCR_VLAN  0x0040

/* C+ descriptors */
#define RTL_DESC       16 /* bytes */
#define RTL_RING       64 /* at most, DS 6.1 */
#define DESC_OWN       0x80000000u
#define DESC_EOR       0x40000000u
#define DESC_FS        0x20000000u
#define DESC_LS        0x10000000u
#define ETHERTYPE_VLAN 0x8100

#define RTL_FRAME_MAX 8191 /* with FCS: what a length field can say */

struct rtl8139_tally {
	uint64_t tx_ok, rx_ok, tx_error, rx_unicast, rx_broadcast;
	uint32_t rx_error, rx_multicast;
	uint16_t rx_missed, tx_abort;
};

struct rtl8139 {
	struct pci_nic card;
	bool cable, link;
	bool link_failed; /* since BMSR was read last */

	uint8_t regs[256];
	struct eeprom93xx eeprom;
	struct rtl8139_tally tally;
	uint64_t timer_zero; /* when TCTR was 0 */
	struct timer timer, poll;

	/* Sending: C mode's next of four; of C+ mode the next descriptor of the normal and the high priority ring,
	   whether it is to be looked at, and the segments of the packet there that are out. */
	uint8_t tx_next;
	uint8_t cp_tx_next[2];
	bool cp_tx_poll[2];
	uint32_t cp_segment[2];

	uint8_t cp_rx_next;
	bool rdu_told; /* of this want of descriptors */
	/* A frame that has no room yet, with FCS; rx_len 0: none. */
	uint32_t rx_len, rx_flags, rx_tag;
	uint8_t rx_frame[RTL_FRAME_MAX + ETH_VLAN + 1];
};

static inline uint16_t rtl_reg16(const struct rtl8139 *s, unsigned reg)
{
	return get_le16(s->regs + reg);
}

static inline uint32_t rtl_reg32(const struct rtl8139 *s, unsigned reg)
{
	return get_le32(s->regs + reg);
}

/* rtl8139.c */
void rtl8139_cause(struct rtl8139 *s, uint16_t bits);
void rtl8139_missed(struct rtl8139 *s);

/* rtl8139_rx.c */
bool rtl8139_rx_empty(const struct rtl8139 *s);
/* The ring starts anew. */
void rtl8139_rx_restart(struct rtl8139 *s);
void rtl8139_rx_update(struct rtl8139 *s);
void rtl8139_rx_run(void *opaque);
void rtl8139_readable(struct nic *n, unsigned queue);
void rtl8139_rx_loop(struct rtl8139 *s, const uint8_t *frame, size_t len);
void rtl8139_rx_filter(struct nic *n, struct nic_rx_filter *f);

/* rtl8139_tx.c */
bool rtl8139_loopback(const struct rtl8139 *s);
void rtl8139_tx_restart(struct rtl8139 *s);
void rtl8139_tx_update(struct rtl8139 *s);
void rtl8139_tx_run(void *opaque);
void rtl8139_writable(struct nic *n, unsigned queue);

#endif
