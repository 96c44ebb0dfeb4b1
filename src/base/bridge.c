/* Ports of the host's bridges: the ioctls of brctl(8) and netdevice(7). vmm and its bridge helper share them. */
#include "vmm/bridge.h"

#include <errno.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* One ioctl on the interface `name`; ifr carries the rest. */
static int on_interface(int sock, unsigned long request, const char *name, struct ifreq *ifr)
{
	memset(ifr->ifr_name, 0, IFNAMSIZ);
	memcpy(ifr->ifr_name, name, strnlen(name, IFNAMSIZ - 1));
	return ioctl(sock, request, ifr);
}

static int join(int sock, const char *tap, const char *bridge, struct err *e)
{
	struct ifreq ifr = {0};

	if (on_interface(sock, SIOCGIFMTU, bridge, &ifr))
		return err_errno(e, errno, "cannot add %s to the bridge %s", tap, bridge);
	if (on_interface(sock, SIOCSIFMTU, tap, &ifr) || on_interface(sock, SIOCGIFHWADDR, tap, &ifr))
		return err_errno(e, errno, "cannot set up %s", tap);
	ifr.ifr_hwaddr.sa_data[0] = (char)0xfe; /* a bridge takes the lowest of its ports' addresses for its own */
	if (on_interface(sock, SIOCSIFHWADDR, tap, &ifr))
		return err_errno(e, errno, "cannot set up %s", tap);
	ifr.ifr_ifindex = (int)if_nametoindex(tap);
	if (on_interface(sock, SIOCBRADDIF, bridge, &ifr))
		return err_errno(e, errno, "cannot add %s to the bridge %s", tap, bridge);
	if (on_interface(sock, SIOCGIFFLAGS, tap, &ifr))
		return err_errno(e, errno, "cannot set up %s", tap);
	ifr.ifr_flags |= IFF_UP;
	return on_interface(sock, SIOCSIFFLAGS, tap, &ifr) ? err_errno(e, errno, "cannot set up %s", tap) : 0;
}

int bridge_add_tap(const char *tap, const char *bridge, struct err *e)
{
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

	if (sock < 0)
		return err_errno(e, errno, "cannot add %s to the bridge %s", tap, bridge);
	r = join(sock, tap, bridge, e);
	close(sock);
	return r;
}
