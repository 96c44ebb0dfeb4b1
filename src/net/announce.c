/*
 * Announcements: a guest that has moved sends frames from where it is now, so that switches learn the way. Reverse ARP
 * requests (RFC 903) do: every switch reads their source address and nobody has to answer.
 */
#include "netdev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/bytes.h"

#define MAX_ANNOUNCEMENTS 64
#define FRAME_LEN         60

struct announcement {
	struct announcement *next;
	struct net_announce how;
	char *id, **interfaces;
	uint32_t sent;
	struct timer timer;
};

static struct announcement *announcements;

static void end(struct announcement *a)
{
	struct announcement **p = &announcements;

	timer_cancel(&a->timer);
	while (*p != a)
		p = &(*p)->next;
	*p = a->next;
	for (char **i = a->interfaces; i && *i; i++)
		free(*i);
	free(a->interfaces);
	free(a->id);
	free(a);
}

static void send_rarp(struct nic *n)
{
	uint8_t buf[NET_HEADER_MAX + FRAME_LEN] = {0};
	unsigned header = n->netdev ? n->netdev->vnet_len : 0;
	uint8_t *f = buf + header;
	struct iovec iov = {.iov_base = buf, .iov_len = header + FRAME_LEN};

	memset(f, 0xff, 6);
	memcpy(f + 6, n->mac, 6);
	put_be16(f + 12, 0x8035);
	put_be16(f + 14, 1);      /* Ethernet */
	put_be16(f + 16, 0x0800); /* IPv4 */
	f[18] = 6;
	f[19] = 4;
	put_be16(f + 20, 3); /* request reverse */
	memcpy(f + 22, n->mac, 6);
	memcpy(f + 32, n->mac, 6);
	netdev_send(n, 0, &iov, 1); /* busy: the next round comes */
}

static bool is_asked(const struct announcement *a, const struct nic *n)
{
	for (char **i = a->interfaces; i && *i; i++)
		if (!strcmp(*i, nic_name(n)))
			return true;
	return !a->interfaces;
}

static void next_round(void *opaque)
{
	struct announcement *a = opaque;
	uint64_t wait;

	for (struct nic *n = nic_next(NULL); n; n = nic_next(n)) {
		if (!is_asked(a, n))
			continue;
		nic_lock(n);
		send_rarp(n);
		if (n->ops->announce)
			n->ops->announce(n);
		nic_unlock(n);
	}
	wait = MIN((uint64_t)a->how.initial_ms + (uint64_t)a->sent * a->how.step_ms, (uint64_t)a->how.max_ms);
	if (++a->sent >= a->how.rounds)
		end(a);
	else
		timer_arm(&a->timer, clock_ns(VCLOCK_REAL) + wait * NS_PER_MS);
}

static char **copy_list(const char *const *list)
{
	char **copy;
	size_t n = 0;

	if (!list)
		return NULL;
	while (list[n])
		n++;
	copy = xcalloc(n + 1, sizeof(*copy));
	for (size_t i = 0; i < n; i++)
		copy[i] = xstrdup(list[i]);
	return copy;
}

int net_announce(const struct net_announce *how, struct err *e)
{
	const char *id = how->id ? how->id : "";
	struct announcement *a, *next;
	unsigned n = 0;

	for (a = announcements; a; a = next) {
		next = a->next;
		if (!strcmp(a->id, id))
			end(a);
		else
			n++;
	}
	if (!how->rounds)
		return 0;
	if (n >= MAX_ANNOUNCEMENTS)
		return err_set(e, EMFILE, "%u announcements are under way already", n);
	a = xzalloc(sizeof(*a));
	a->how = *how;
	a->id = xstrdup(id);
	a->interfaces = copy_list(how->interfaces);
	timer_init(&a->timer, loop_main(), VCLOCK_REAL, NULL, next_round, a);
	a->next = announcements;
	announcements = a;
	next_round(a);
	return 0;
}

void net_announce_stop(void)
{
	while (announcements)
		end(announcements);
}
