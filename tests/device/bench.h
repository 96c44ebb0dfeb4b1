/*
 * The device bench: the real board in one process, no CPU, manual clock, captured interrupts. The qtest server is the
 * other face of the same board.
 *
 *   struct board *b = bench_new("-m 16 -drive file=/tmp/x.img,format=raw");
 *   bench_outb(b, 0x43, 0x34); bench_step(b, 1000000); ck_assert(bench_gsi(b, 0)); bench_free(b);
 *
 * Options are split at blanks. Failure to build the board fails the test. One board at a time per process (libcheck
 * forks each test).
 */
#ifndef VMM_TEST_BENCH_H
#define VMM_TEST_BENCH_H

#include "tests/lib/suite.h"
#include "vmm/machine.h"
#include "vmm/net.h"

/* Power-on done, not running a CPU; the virtual clock is at 0. */
struct board *bench_new(const char *options);
/* The same, expecting failure: returns the message (static buffer). */
const char *bench_new_fails(const char *options);
/* A board from a machine description, with options for the host's side; and the same, expecting failure. */
struct board *bench_new_described(const char *options, const void *fdt, size_t len);
const char *bench_new_described_fails(const char *options, const void *fdt, size_t len);
void bench_free(struct board *b);

void bench_outb(struct board *b, uint16_t port, uint8_t v);
void bench_outw(struct board *b, uint16_t port, uint16_t v);
void bench_outl(struct board *b, uint16_t port, uint32_t v);
uint8_t bench_inb(struct board *b, uint16_t port);
uint16_t bench_inw(struct board *b, uint16_t port);
uint32_t bench_inl(struct board *b, uint16_t port);
void bench_write(struct board *b, uint64_t addr, const void *buf, size_t len);
void bench_read(struct board *b, uint64_t addr, void *buf, size_t len);
uint8_t bench_readb(struct board *b, uint64_t addr);
uint16_t bench_readw(struct board *b, uint64_t addr);
uint32_t bench_readl(struct board *b, uint64_t addr);
void bench_writeb(struct board *b, uint64_t addr, uint8_t v);
void bench_writew(struct board *b, uint64_t addr, uint16_t v);
void bench_writel(struct board *b, uint64_t addr, uint32_t v);

/* PCI configuration mechanism 1. devfn: slot << 3 | function. */
uint32_t bench_pci_readl(struct board *b, unsigned devfn, unsigned reg);
uint16_t bench_pci_readw(struct board *b, unsigned devfn, unsigned reg);
uint8_t bench_pci_readb(struct board *b, unsigned devfn, unsigned reg);
void bench_pci_writel(struct board *b, unsigned devfn, unsigned reg, uint32_t v);
void bench_pci_writew(struct board *b, unsigned devfn, unsigned reg, uint16_t v);
void bench_pci_writeb(struct board *b, unsigned devfn, unsigned reg, uint8_t v);

/* Advance the clock by ns, firing timers, and let completions happen. */
void bench_step(struct board *b, uint64_t ns);
/* Let completions and bottom halves happen without moving the clock: until nothing is left to do. */
void bench_idle(struct board *b);
/* Poll cond(opaque) while running the loop (real I/O), at most 5 s; fails the test on time-out. */
void bench_wait(struct board *b, bool (*cond)(void *opaque), void *opaque);

/* Interrupts: the level of a GSI now, and rising edges since the last call for it. */
bool bench_gsi(struct board *b, unsigned gsi);
unsigned bench_gsi_edges(struct board *b, unsigned gsi);
/* Level of the PIC's INTR output; MSIs sent since the last call, the newest one's data. */
bool bench_intr(struct board *b);
unsigned bench_msis(struct board *b, uint32_t *data);

/* Last QMP event of this name since the last call: its data (static buffer, "" if none), or NULL. */
const char *bench_event(struct board *b, const char *name);

/*
 * Cables: a board with "-netdev bench,id=ID[,queues=N][,vnet_hdr=on]" and a NIC with netdev=ID. What the NIC sends
 * comes out here, and the other way round; with a vnet header, if the NIC set one, in front of each frame. What is
 * under way survives bench_save_load().
 */
void bench_cable_send(struct board *b, const char *id, unsigned queue, const void *frame, size_t len);
/* The oldest frame that was sent: its length, 0: none. */
size_t bench_cable_recv(struct board *b, const char *id, unsigned queue, void *buf, size_t size);
/* What the NIC has asked of the netdev. */
struct bench_cable_state {
	unsigned vnet_len, offloads, active;
	bool reading[NET_MAX_QUEUES]; /* it wants packets */
};
struct bench_cable_state bench_cable_state(const char *id);
/* A network that takes nothing: send() would block, until this is called again with false. */
void bench_cable_block(struct board *b, const char *id, bool on);

/* System reset, waited for. */
void bench_reset(struct board *b);
/* Save the state and load it into a newly built board of the same options: the old one is freed, the new one returned.
   All RAM blocks are copied. Also checks that saving the new board gives the same bytes. */
struct board *bench_save_load(struct board *b);

#endif
