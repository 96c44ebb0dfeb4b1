/*
 * Rings from hell for the network cards with rings in memory: e1000 and rtl8139 (both modes) are set up as their
 * drivers do it, then the input writes descriptors and buffers, rings doorbells, sends frames from the network, changes
 * registers, pulls cables, saves. The device fuzzer hardly ever gets a ring to run; this one always does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include "fuzz_board.h"
#include "vmm/machine.h"
#include "vmm/net.h"

#define RX_RING 0x100000ull
#define TX_RING 0x110000ull
#define BUFFERS 0x200000ull
#define N       16 /* descriptors */
#define NICS    3

enum { E1000, CPLUS, C_MODE };
static const unsigned slots[NICS] = {4, 5, 6};
static const char own_mac[] = "\x52\x54\x00\x00\x00\x01";

static struct config config;
static struct board *board;
static int cable[NICS][2];
static unsigned tail[NICS];

static void idle(void)
{
	static uint8_t sink[70000];

	for (unsigned i = 0; i < 1000 && loop_step(loop_main(), 0) > 0; i++)
		;
	for (unsigned n = 0; n < NICS; n++)
		while (recv(cable[n][1], sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
}

static uint64_t bar(unsigned nic)
{
	return 0xe0000000ull + nic * 0x100000;
}

static uint64_t offset(unsigned nic, uint64_t base)
{
	return base + nic * 0x1000;
}

static void drive_e1000(void)
{
	uint64_t b = bar(E1000);

	for (unsigned i = 0; i < N; i++)
		fuzz_write_memory(board, RX_RING + 16 * i, BUFFERS + 0x1000 * i, 8);
	fuzz_write_memory(board, b + 0x2800, RX_RING, 8);
	fuzz_write_memory(board, b + 0x2808, 16 * N, 4);
	fuzz_write_memory(board, b + 0x2810, 0, 4);
	fuzz_write_memory(board, b + 0x2818, N - 1, 4);
	fuzz_write_memory(board, b + 0x3800, TX_RING, 8);
	fuzz_write_memory(board, b + 0x3808, 16 * N, 4);
	fuzz_write_memory(board, b + 0x3810, 0, 4);
	fuzz_write_memory(board, b + 0x3818, 0, 4);
	fuzz_write_memory(board, b + 0x5000, 0x300, 4);
	fuzz_write_memory(board, b + 0xd0, 0xffff, 4);
	fuzz_write_memory(board, b + 0x100, 0x801a, 4);
	fuzz_write_memory(board, b + 0x400, 0xa, 4);
}

static void drive_rtl8139(unsigned nic)
{
	uint64_t b = bar(nic), rx = offset(nic, RX_RING);

	fuzz_write_memory(board, b + 0x37, 0x10, 1);
	fuzz_write_memory(board, b + 0xe0, nic == CPLUS ? 0x63 : 0, 2);
	for (unsigned i = 0; i < N; i++) {
		fuzz_write_memory(board, rx + 16 * i, 0x80000000u | (i == N - 1 ? 0x40000000u : 0) | 1536, 4);
		fuzz_write_memory(board, rx + 16 * i + 8, BUFFERS + 0x1000 * i, 8);
	}
	fuzz_write_memory(board, b + (nic == CPLUS ? 0xe4 : 0x30), nic == CPLUS ? rx : BUFFERS, 4);
	fuzz_write_memory(board, b + 0x37, 0x0c, 1);
	if (nic == CPLUS) {
		fuzz_write_memory(board, b + 0x20, offset(nic, TX_RING), 8);
		fuzz_write_memory(board, b + 0x28, offset(nic, TX_RING) + 0x800, 8);
	} else {
		for (unsigned i = 0; i < 4; i++)
			fuzz_write_memory(board, b + 0x20 + 4 * i, BUFFERS + 0x1000 * i, 4);
	}
	fuzz_write_memory(board, b + 0x44, 0x0f, 4);
	fuzz_write_memory(board, b + 0x3c, 0xffff, 2);
}

static void drive(unsigned nic)
{
	fuzz_write_pci(board, slots[nic], nic == E1000 ? 0x10 : 0x14, (uint32_t)bar(nic));
	fuzz_write_pci(board, slots[nic], 0x04, 7);
	tail[nic] = 0;
	if (nic == E1000)
		drive_e1000();
	else
		drive_rtl8139(nic);
}

static void build(void)
{
	char netdev[NICS][64];
	char *argv[] = {"vmm",      "-accel",
			"qtest",    "-m",
			"8",        "-nodefaults",
			"-display", "none",
			"-netdev",  netdev[0],
			"-netdev",  netdev[1],
			"-netdev",  netdev[2],
			"-device",  "e1000,addr=4,netdev=n0,mac=52:54:00:00:00:01",
			"-device",  "rtl8139,addr=5,netdev=n1,mac=52:54:00:00:00:01",
			"-device",  "rtl8139,addr=6,netdev=n2,mac=52:54:00:00:00:01"};

	for (unsigned i = 0; i < NICS; i++) {
		if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, cable[i]))
			abort();
		snprintf(netdev[i], sizeof(netdev[i]), "dgram,id=n%u,local.type=fd,local.str=%d", i, cable[i][0]);
	}
	board = fuzz_board(&config, ARRAY_SIZE(argv), argv);
}

/* Mostly sane, so that packets get far. */
static uint64_t buffer(struct input *in, unsigned how)
{
	return how & 1 ? take(in, 8) : BUFFERS + (take(in, 2) << 4);
}

static void e1000_descriptor(struct input *in)
{
	unsigned how = (unsigned)take(in, 1);
	uint64_t at = TX_RING + 16 * (tail[E1000]++ % N);
	uint32_t type = how >> 1 & 3, len = (uint32_t)take(in, how & 8 ? 3 : 2) & 0xfffff;

	if (type == 0) { /* context of TCP or UDP over IP, or anything */
		fuzz_write_memory(board, at, how & 8 ? take(in, 8) : 0x32220021180eull, 8);
		fuzz_write_memory(board, at + 8, len | (0x20 | (take(in, 1) & 0x8f)) << 24, 4);
		fuzz_write_memory(board, at + 12, how & 16 ? take(in, 4) : 54 << 8 | (uint32_t)take(in, 1) << 20, 4);
		return;
	}
	fuzz_write_memory(board, at, buffer(in, how), 8);
	fuzz_write_memory(board, at + 8,
			  len | (type == 1 ? 0 : 1u << 20 | 0x20u << 24) | (uint32_t)(take(in, 1) & ~0x20) << 24, 4);
	fuzz_write_memory(board, at + 12, take(in, 4), 4);
}

static void cplus_descriptor(struct input *in)
{
	unsigned how = (unsigned)take(in, 1);
	uint64_t at = offset(CPLUS, TX_RING) + 16 * (tail[CPLUS]++ % N) + (how & 32 ? 0x800 : 0);

	fuzz_write_memory(board, at + 4, take(in, 3), 4);
	fuzz_write_memory(board, at + 8, buffer(in, how), 8);
	fuzz_write_memory(board, at,
			  (how & 8 ? 0 : 0x80000000u) | (tail[CPLUS] % N ? 0 : 0x40000000u) |
				  (how & 2 ? 0x30000000u : 0) | (uint32_t)take(in, 4) >> (how & 4 ? 2 : 4),
			  4);
}

static void transmit(struct input *in, unsigned nic)
{
	if (nic == E1000) {
		e1000_descriptor(in);
		fuzz_write_memory(board, bar(nic) + 0x3818, tail[nic] % N, 4);
	} else if (nic == CPLUS) {
		cplus_descriptor(in);
		fuzz_write_memory(board, bar(nic) + 0xd9, 0xc0, 1);
	} else {
		fuzz_write_memory(board, bar(nic) + 0x10 + 4 * (tail[nic]++ & 3), take(in, 2) & 0xdfff, 4);
	}
	idle();
}

/* TCP over IP for us, with what the input changes. */
static void network(struct input *in, unsigned nic)
{
	static uint8_t frame[16384];
	unsigned how = (unsigned)take(in, 1);
	size_t len = 60 + take(in, how & 1 ? 2 : 1) % (sizeof(frame) - 60);

	memset(frame, 0, sizeof(frame));
	memcpy(frame, how & 2 ? "\xff\xff\xff\xff\xff\xff" : own_mac, 6);
	memcpy(frame + 12,
	       how & 4   ? "\x81\x00\x00\x05\x08\x00"
	       : how & 8 ? "\x86\xdd\x60\x00\x00\x00"
			 : "\x08\x00\x45\x00\x00\x2e",
	       6);
	frame[23] = 6;
	for (unsigned i = 0; i < 4; i++)
		frame[12 + take(in, 1) % 60] = (uint8_t)take(in, 1);
	(void)!send(cable[nic][1], frame, len, MSG_DONTWAIT);
	if (how & 16)
		idle();
}

static void make_room(struct input *in, unsigned nic)
{
	if (nic == E1000) {
		fuzz_write_memory(board, bar(nic) + 0x2818, take(in, 1) % N, 4);
	} else if (nic == CPLUS) {
		unsigned i = (unsigned)take(in, 1) % N;

		fuzz_write_memory(board, offset(nic, RX_RING) + 16 * i,
				  0x80000000u | (i == N - 1 ? 0x40000000u : 0) | (take(in, 2) & 0x1fff), 4);
	} else {
		uint8_t cbr[2];

		map_mem_read(board, bar(nic) + 0x3a, cbr, 2);
		fuzz_write_memory(board, bar(nic) + 0x38, (uint16_t)(get_le16(cbr) - 16), 2);
	}
	idle();
}

static void one_step(struct input *in)
{
	static const uint16_t e1000_regs[] = {0x0,    0x100,  0x400,  0x2800, 0x2808, 0x2810, 0x2818, 0x2820,
					      0x3808, 0x3810, 0x3818, 0x5000, 0xc4,   0x20,   0x5600, 0x38};
	unsigned op = (unsigned)take(in, 1), nic = op >> 4 & 3;

	if (nic == NICS)
		nic = E1000;
	switch (op & 15) {
	case 0 ... 4:
		transmit(in, nic);
		break;
	case 5 ... 7:
		network(in, nic);
		break;
	case 8 ... 9:
		make_room(in, nic);
		break;
	case 10: /* contents of buffers: headers */
		fuzz_write_memory(board, BUFFERS + (take(in, 2) << 2), take(in, 8), 8);
		break;
	case 11:
		clock_manual_step(take(in, 1) * NS_PER_US * 100);
		idle();
		break;
	case 12: /* any register */
		if (nic == E1000)
			fuzz_write_memory(board, bar(nic) + e1000_regs[take(in, 1) % ARRAY_SIZE(e1000_regs)],
					  take(in, 4), 4);
		else
			fuzz_write_memory(board, bar(nic) + (take(in, 1) & 0xff), take(in, 4), 1u << (op >> 6));
		break;
	case 13:
		drive(nic);
		break;
	case 14:
		net_set_link(nic == E1000 ? "n0" : nic == CPLUS ? "n1" : "n2", op & 64, NULL);
		break;
	case 15:
		fuzz_save_and_load(board);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	if (!board)
		build();
	for (unsigned nic = 0; nic < NICS; nic++)
		drive(nic);
	for (unsigned i = 0; in.left && i < 4096; i++)
		one_step(&in);
	idle();
	for (unsigned i = 0; i < NICS; i++)
		net_set_link(i == 0 ? "n0" : i == 1 ? "n1" : "n2", true, NULL);
	machine_reset(board, SHUTDOWN_HOST_QMP_RESET);
	idle();
	return 0;
}
