/*
 * Rings from hell: each virtio device is set up as a driver would do it, then the input writes descriptors, indices and
 * control messages into the rings, rings the doorbells, resets, saves. The device fuzzer hardly ever gets a queue to
 * run; this one always does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "fuzz_board.h"
#include "vmm/bytes.h"
#include "vmm/chardev.h"
#include "vmm/machine.h"
#include "vmm/net.h"

#define RINGS   0x100000ull /* a page of descriptors, a page of each ring for every queue */
#define PER_Q   0x3000ull
#define QUEUES  6
#define DEVICES 4
#define BUFFERS 0x400000ull

static struct config config;
static struct board *board;
static const unsigned slots[DEVICES] = {4, 5, 6, 7};
static int cable[2]; /* the network card's, and the test's end */

static void idle(void)
{
	for (unsigned i = 0; i < 1000 && loop_step(loop_main(), 0) > 0; i++)
		;
}

static uint64_t bar(unsigned dev)
{
	return 0xe0000000ull + dev * 0x10000;
}

static uint64_t ring(unsigned dev, unsigned q)
{
	return RINGS + (dev * QUEUES + q) * PER_Q;
}

static void drive(unsigned dev, uint32_t features)
{
	uint64_t b = bar(dev);

	fuzz_write_pci(board, slots[dev], 0x20, (uint32_t)b);
	fuzz_write_pci(board, slots[dev], 0x24, 0);
	fuzz_write_pci(board, slots[dev], 0x04, 7);
	fuzz_write_memory(board, b + 20, 0, 1);
	fuzz_write_memory(board, b + 20, 3, 1);
	for (unsigned half = 0; half < 2; half++) {
		uint8_t offered[4];

		fuzz_write_memory(board, b, half, 4);
		map_mem_read(board, b + 4, offered, 4);
		fuzz_write_memory(board, b + 8, half, 4);
		fuzz_write_memory(board, b + 12, get_le32(offered) & (half ? 1 : features), 4);
	}
	fuzz_write_memory(board, b + 20, 11, 1);
	for (unsigned q = 0; q < QUEUES; q++) {
		fuzz_write_memory(board, b + 22, q, 2);
		fuzz_write_memory(board, b + 24, 8, 2);
		for (unsigned area = 0; area < 3; area++) {
			fuzz_write_memory(board, b + 32 + 8 * area, ring(dev, q) + area * 0x1000, 4);
			fuzz_write_memory(board, b + 36 + 8 * area, 0, 4);
		}
		fuzz_write_memory(board, b + 28, 1, 2);
	}
	fuzz_write_memory(board, b + 20, 15, 1);
}

static void build(void)
{
	char netdev[80];
	char *argv[] = {"vmm",      "-accel",
			"qtest",    "-m",
			"8",        "-nodefaults",
			"-display", "none",
			"-chardev", "ringbuf,id=c0",
			"-chardev", "ringbuf,id=c1",
			"-device",  "virtio-rng-pci,addr=4,max-bytes=100000,period=10",
			"-device",  "virtio-balloon-pci,addr=5,free-page-reporting=on",
			"-device",  "virtio-serial-pci,addr=6",
			"-device",  "virtconsole,chardev=c0",
			"-device",  "virtserialport,chardev=c1,name=n",
			"-netdev",  netdev,
			"-device",  "virtio-net-pci,addr=7,netdev=n,mq=on"};

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, cable))
		abort();
	snprintf(netdev, sizeof(netdev), "dgram,id=n,local.type=fd,local.str=%d", cable[0]);
	board = fuzz_board(&config, ARRAY_SIZE(argv), argv);
}

/* A frame from the network, to the card's own address or to anybody's; what it sent meanwhile is taken away. */
static void network(struct input *in)
{
	uint8_t frame[4096] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
	unsigned how = (unsigned)take(in, 1);
	size_t len = how & 1 ? take(in, 2) % sizeof(frame) : 64;

	if (how & 2)
		put_be16(frame + 12, 0x8100);
	memcpy(frame + (how & 4 ? 0 : 16), in->p, MIN(in->left, (size_t)64));
	if (send(cable[1], frame, len, 0) < 0 && how & 8)
		idle(); /* full: it is read as fast as the card wants */
	while (!(how & 16) && recv(cable[1], frame, sizeof(frame), 0) >= 0)
		;
	if (how & 32)
		net_set_link("n", how & 64, NULL);
	idle();
}

/* One descriptor: mostly sane, so that chains get far. */
static void descriptor(struct input *in, unsigned dev, unsigned q)
{
	uint8_t raw[16];
	unsigned how = (unsigned)take(in, 1);

	put_le64(raw, how & 1 ? take(in, 8) : BUFFERS + (take(in, 2) << 4));
	put_le32(raw + 8, (uint32_t)take(in, how & 2 ? 4 : 1));
	put_le16(raw + 12, (uint16_t)take(in, 1) & 7);
	put_le16(raw + 14, (uint16_t)take(in, how & 4 ? 2 : 1) % (how & 4 ? 65536 : 8));
	map_mem_write(board, how & 8 ? BUFFERS + (take(in, 1) << 4) : ring(dev, q) + 16 * (take(in, 1) & 7), raw,
		      sizeof(raw));
}

static void one_step(struct input *in)
{
	unsigned op = (unsigned)take(in, 1), dev = (unsigned)take(in, 1) % DEVICES, q = (unsigned)take(in, 1) % QUEUES;
	uint64_t avail = ring(dev, q) + 0x1000;
	uint8_t idx[2];

	switch (op & 15) {
	case 0 ... 5:
		descriptor(in, dev, q);
		break;
	case 6 ... 9: /* offer a head and ring */
		map_mem_read(board, avail + 2, idx, 2);
		fuzz_write_memory(board, avail + 4 + 2 * (get_le16(idx) % 8), take(in, 1) & (op & 0x80 ? 255 : 7), 2);
		fuzz_write_memory(board, avail + 2, get_le16(idx) + (op & 0x40 ? take(in, 2) : 1), 2);
		fuzz_write_memory(board, bar(dev) + 0x3000 + 4 * q, q, 2);
		idle();
		break;
	case 10: /* contents of buffers: control messages, page numbers, indirect tables */
		fuzz_write_memory(board, BUFFERS + (take(in, 2) << 2), take(in, 8), 8);
		break;
	case 11: /* used_event, flags */
		fuzz_write_memory(board, avail + (op & 16 ? 0 : 4 + 2 * 8), take(in, 2), 2);
		break;
	case 12:
		clock_manual_step(take(in, 1) * NS_PER_MS);
		idle();
		break;
	case 13: /* any register, also the status */
		fuzz_write_memory(board, bar(dev) + (take(in, 1) & 63) + (op & 16 ? 0x2000 : 0), take(in, 4),
				  1u << (op >> 6 & 1 ? 2 : 0));
		break;
	case 14:
		drive(dev, (uint32_t)take(in, 4) | (op & 16 ? 0x30000000 : 0));
		break;
	case 15:
		if (op & 16)
			fuzz_save_and_load(board);
		else if (dev == 3)
			network(in);
		else
			chardev_ring_write(chardev_find("c1"), in->p, MIN(in->left, (size_t)64));
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	if (!board)
		build();
	for (unsigned dev = 0; dev < DEVICES; dev++)
		drive(dev, UINT32_MAX);
	for (unsigned i = 0; in.left && i < 4096; i++)
		one_step(&in);
	idle();
	machine_reset(board, SHUTDOWN_HOST_QMP_RESET);
	idle();
	return 0;
}
