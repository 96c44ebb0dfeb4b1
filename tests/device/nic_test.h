/* What the tests of e1000 and rtl8139 share: where the card is, and the far end of its cable. */
#ifndef VMM_TEST_NIC_H
#define VMM_TEST_NIC_H

#include "net_frames.h"

#define SLOT (5u << 3)
#define BASE 0xe0000000ull
#define PORT 0xc000
#define GSI  11
/* The command line of a card of this model. */
#define NIC_ON_A_CABLE(model) "-m 16 -netdev bench,id=n -device " model ",addr=5,netdev=n,mac=" OWN_MAC_TEXT

static struct board *b;
static uint8_t frame[70000], got[70000];

/* A board with such a card: its registers at BASE and PORT, INTA at GSI, and it may use memory. */
static inline void plug_in(const char *options, unsigned memory_bar, unsigned port_bar)
{
	b = bench_new(options);
	bench_pci_writeb(b, 1 << 3, 0x60, GSI); /* PIRQA */
	bench_pci_writel(b, SLOT, 0x10 + 4 * memory_bar, (uint32_t)BASE);
	bench_pci_writel(b, SLOT, 0x10 + 4 * port_bar, PORT);
	bench_pci_writew(b, SLOT, 4, 7);
}

/* The next frame that came out, into got; its length, 0: none. */
static inline size_t receive(void)
{
	return bench_cable_recv(b, "n", 0, got, sizeof(got));
}

static inline void send_in(const void *f, size_t len)
{
	bench_cable_send(b, "n", 0, f, len);
}

/* A frame of no protocol, into `frame`; returns len. */
static inline size_t make_plain(const char *to, size_t len)
{
	memcpy(frame, to, 6);
	memcpy(frame + 6, PEER "\x88\xb5", 8);
	for (size_t i = 14; i < len; i++)
		frame[i] = (uint8_t)(i * 3);
	return len;
}

#endif
