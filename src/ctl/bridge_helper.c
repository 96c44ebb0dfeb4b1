/*
 * vmm-bridge-helper --br=BRIDGE --fd=SOCKET [--use-vnet]: make a tap, put it on the bridge, set it up and pass it
 * through the socket. QEMU's protocol (qemu-bridge-helper(8)): one byte, with the descriptor.
 *
 * It is not set-uid and asks no list: it does what whoever starts it may do, root or a service with CAP_NET_ADMIN.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/bridge.h"

static int fail(const char *what, const char *name)
{
	fprintf(stderr, "vmm-bridge-helper: %s %s: %s\n", what, name, strerror(errno));
	return -1;
}

static int make_tap(bool vnet, char *name)
{
	struct ifreq ifr = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (vnet ? IFF_VNET_HDR : 0))};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return fail("cannot open", "/dev/net/tun");
	strcpy(ifr.ifr_name, "vnet%d");
	if (ioctl(fd, TUNSETIFF, &ifr)) {
		fail("cannot make a tap for", "the bridge (root or CAP_NET_ADMIN may)");
		close(fd);
		return -1;
	}
	memcpy(name, ifr.ifr_name, IFNAMSIZ);
	return fd;
}

static int pass(int to, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);

	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &fd, sizeof(fd));
	return sendmsg(to, &msg, MSG_NOSIGNAL) == 1 ? 0 : fail("cannot pass", "the tap");
}

int main(int argc, char **argv)
{
	const char *bridge = NULL;
	char name[IFNAMSIZ] = "";
	struct err e = ERR_INIT;
	int to = -1, fd;
	bool vnet = false;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--br=", 5) && strlen(argv[i]) < 5 + IFNAMSIZ)
			bridge = argv[i] + 5;
		else if (!strncmp(argv[i], "--fd=", 5))
			to = atoi(argv[i] + 5);
		else if (!strcmp(argv[i], "--use-vnet"))
			vnet = true;
		else
			bridge = NULL, i = argc;
	}
	if (!bridge || !*bridge || to < 3) {
		fprintf(stderr, "usage: vmm-bridge-helper [--use-vnet] --br=BRIDGE --fd=SOCKET\n");
		return 2;
	}
	fd = make_tap(vnet, name);
	if (fd < 0)
		return 1;
	if (bridge_add_tap(name, bridge, &e)) {
		fprintf(stderr, "vmm-bridge-helper: %s\n", e.msg);
		return 1;
	}
	return pass(to, fd) ? 1 : 0;
}
