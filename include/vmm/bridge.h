/* A tap as a port of one of the host's bridges. */
#ifndef VMM_BRIDGE_H
#define VMM_BRIDGE_H

#include "vmm/err.h"

/*
 * Make the interface `tap` a port of `bridge`, with its MTU and an address that the bridge does not take for its own,
 * and set it up. Both are names of at most IFNAMSIZ - 1 bytes in this network namespace. Needs CAP_NET_ADMIN. Any
 * thread; does not wait. 0, or -errno with a message.
 */
int bridge_add_tap(const char *tap, const char *bridge, struct err *e);

#endif
