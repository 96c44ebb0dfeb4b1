/*
 * Frames into a network interface as fast as it takes them, for tests/bench/net.py:
 *
 *   netgen INTERFACE SIZE [GSO]
 *
 * SIZE bytes each, Ethernet type 88B5h, to 02:00:00:00:00:02; with GSO they are TCP/IPv4 to be cut into GSO bytes each.
 * Until it is killed. Frames that the interface drops because its queue is full do not count: it waits a moment.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32

static size_t make_frame(uint8_t *p, size_t size, unsigned gso)
{
	struct virtio_net_hdr h = {0};
	uint8_t *f = p + sizeof(h);

	memset(f, 0x5a, size);
	memcpy(f, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5", 14);
	if (gso) {
		h = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					    .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
					    .hdr_len = 54,
					    .gso_size = (uint16_t)gso,
					    .csum_start = 34,
					    .csum_offset = 16};
		memset(f + 12, 0, 42);
		f[12] = 8;
		f[14] = 0x45;
		f[16] = (uint8_t)((size - 14) >> 8);
		f[17] = (uint8_t)(size - 14);
		f[22] = 64;
		f[23] = 6;
		memcpy(f + 26, "\x0a\0\0\1\x0a\0\0\2\x03\xe8\x07\xd0", 12);
		f[46] = 0x50;
		f[47] = 0x10;
	}
	memcpy(p, &h, sizeof(h));
	return sizeof(h) + size;
}

int main(int argc, char **argv)
{
	size_t size = argc > 2 ? strtoul(argv[2], NULL, 0) : 0;
	unsigned gso = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1;
	struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(gso ? ETH_P_IP : 0x88b5)};
	struct iovec iov;
	struct mmsghdr batch[BATCH];

	if (fd < 0 || argc < 3 || size < 60 || size > 65000 || !(a.sll_ifindex = (int)if_nametoindex(argv[1])) ||
	    setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a))) {
		fprintf(stderr, "netgen: %s\n", errno ? strerror(errno) : "INTERFACE SIZE [GSO]");
		return 1;
	}
	iov.iov_base = malloc(sizeof(struct virtio_net_hdr) + size);
	iov.iov_len = make_frame(iov.iov_base, size, gso);
	for (unsigned i = 0; i < BATCH; i++)
		batch[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
	for (;;)
		if (sendmmsg(fd, batch, BATCH, 0) < BATCH)
			nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}
