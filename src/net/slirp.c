/*
 * -netdev user: a network of the guest's own, without privileges, through libslirp 4.7: router, DHCP, name server and
 * TFTP at 10.0.2.2 and .3, TCP and UDP by sockets of this process, echo requests where the host lets ordinary users
 * send them (net.ipv4.ping_group_range).
 *
 * Cost of a hostile guest. libslirp opens a socket for each connection, flow and echo, without a bound: so once the
 * process's descriptors run low (slirp_thread.c) only ARP and segments of TCP connections that exist pass. It never
 * sees fragments (slirp_fragments.c). Towards the guest, sockets are read while the ring has room: a guest that does
 * not read stops its peers by TCP's own flow control.
 *
 * Left out: smb= and guestfwd=..-cmd: (both start programs, which the sandbox forbids), and libslirp's state in
 * migrations: it holds no sockets anyway, so after one, connections begin anew (segments of old ones are answered with
 * a reset), and the guest's DHCP lease stays valid, for the address is the guest's when it asks for it again.
 * hostfwd='s ports are taken when the netdev opens: for a migration within one host, or an upgrade, the destination
 * needs a -netdev of its own with others.
 */
#include "slirp_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/bytes.h"
#include "vmm/clock.h"
#include "vmm/log.h"
#include "vmm/net.h"

#define RING_SIZE       (256 * 1024)
#define RING_LOW        (RING_SIZE / 2) /* more waiting for the guest than this: sockets are not read */
#define FRAMES_PER_TURN 64

struct user_stack *slirp_stacks;

/* ---- what libslirp calls, on the slirp thread ---- */

static ssize_t on_frame(const void *buf, size_t len, void *opaque)
{
	struct user_stack *s = opaque;
	struct iovec iov = {(void *)(uintptr_t)buf, len};
	bool first;

	if (len > NET_PACKET_MAX || !ring_put_frame(&s->to_guest, &iov, 1, len, &first))
		s->lost_to_guest++; /* TCP sends it again */
	else if (first)
		s->events->readable(s->opaque);
	return (ssize_t)len;
}

static void on_guest_error(const char *msg, void *opaque)
{
	static struct log_limit limit;

	log_guest(&limit, "net", "slirp: %s", msg);
}

static int64_t now_ns(void *opaque)
{
	return (int64_t)clock_ns(VCLOCK_VIRTUAL);
}

static void *timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
	struct user_stack *s = opaque;
	struct slirp_timer *new = xzalloc(sizeof(*new));

	*new = (struct slirp_timer){.id = id, .cb_opaque = cb_opaque, .deadline_ms = INT64_MAX, .next = s->timers};
	s->timers = new;
	return new;
}

static void timer_free(void *timer, void *opaque)
{
	struct user_stack *s = opaque;

	for (struct slirp_timer **at = &s->timers; *at; at = &(*at)->next)
		if (*at == timer) {
			*at = (*at)->next;
			break;
		}
	free(timer);
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	((struct slirp_timer *)timer)->deadline_ms = expire_ms;
}

/* The list to poll is made anew in each turn, and there is a turn after this one. */
static void ignore_fd(int fd, void *opaque)
{
}

static void ignore_notify(void *opaque)
{
}

static const SlirpCb callbacks = {
	.send_packet = on_frame,
	.guest_error = on_guest_error,
	.clock_get_ns = now_ns,
	.timer_new_opaque = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = ignore_fd,
	.unregister_poll_fd = ignore_fd,
	.notify = ignore_notify,
};

/* ---- slirp thread: what the guest sends ---- */

static bool is_arp_or_old_tcp(const uint8_t *f, size_t len)
{
	size_t tcp = 0;

	if (len >= 34 && get_be16(f + 12) == ETHERTYPE_IP && f[23] == IPPROTO_TCP)
		tcp = 14 + (f[14] & 0xf) * 4u;
	else if (len >= 54 && get_be16(f + 12) == ETHERTYPE_IPV6 && f[20] == IPPROTO_TCP)
		tcp = 54;
	if (tcp)
		return tcp + 14 <= len && !(f[tcp + 13] & 0x02 /* SYN */);
	return get_be16(f + 12) == ETHERTYPE_ARP;
}

static bool may_pass(const uint8_t *frame, size_t len)
{
	return is_arp_or_old_tcp(frame, len) || slirp_thread_may_open();
}

/* A guestfwd's device is slow: the guest waits, for libslirp would lose what it takes. */
static bool forwards_have_room(struct user_stack *s)
{
	for (unsigned i = 0; i < s->n_guestfwd; i++)
		if (!guestfwd_has_room(s->guestfwd[i]))
			return false;
	return true;
}

bool stack_input(struct user_stack *s)
{
	static uint8_t piece[NET_PACKET_MAX], whole[NET_PACKET_MAX]; /* slirp thread */
	struct iovec iov = {piece, sizeof(piece)};

	for (unsigned i = 0; i < FRAMES_PER_TURN; i++) {
		const uint8_t *frame = piece;
		bool was_full;
		ssize_t len = forwards_have_room(s) ? ring_get_frame(&s->from_guest, &iov, 1, &was_full) : 0;

		if (len <= 0)
			return false;
		if (was_full)
			s->events->writable(s->opaque);
		if (fragments_is_one(piece, (size_t)len)) {
			len = (ssize_t)fragments_add(&s->fragments, piece, (size_t)len, whole);
			frame = whole;
			if (!len)
				continue;
		}
		if (may_pass(frame, (size_t)len))
			slirp_input(s->slirp, frame, (int)len);
		else
			s->lost_from_guest++;
	}
	return true;
}

void stack_timers(struct user_stack *s, uint32_t *timeout_ms)
{
	int64_t now = now_ns(NULL) / (int64_t)NS_PER_MS;

	for (struct slirp_timer *timer = s->timers, *next; timer; timer = next) {
		next = timer->next;
		if (timer->deadline_ms > now)
			continue;
		timer->deadline_ms = INT64_MAX;
		slirp_handle_timer(s->slirp, timer->id, timer->cb_opaque);
	}
	for (struct slirp_timer *timer = s->timers; timer; timer = timer->next)
		if (timer->deadline_ms != INT64_MAX)
			*timeout_ms = (uint32_t)MIN((int64_t)*timeout_ms, MAX(timer->deadline_ms - now, (int64_t)1));
}

bool stack_wants_poll(struct user_stack *s)
{
	return ring_used(&s->to_guest) <= RING_LOW;
}

/* ---- main thread: frames ---- */

static bool slirp_module_pending(struct user_stack *s)
{
	return ring_used(&s->to_guest);
}

static ssize_t slirp_module_recv(struct user_stack *s, const struct iovec *iov, int n)
{
	size_t before = ring_used(&s->to_guest);
	bool was_full;
	ssize_t len = ring_get_frame(&s->to_guest, iov, n, &was_full);

	if (before > RING_LOW && ring_used(&s->to_guest) <= RING_LOW)
		slirp_thread_wake(); /* sockets are read again */
	return len;
}

static bool slirp_module_send(struct user_stack *s, const struct iovec *iov, int n)
{
	size_t len = 0;
	bool first;

	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	if (!ring_put_frame(&s->from_guest, iov, n, len, &first))
		return false;
	slirp_thread_wake();
	return true;
}

/* ---- main thread: forwarding rules ---- */

/* What the slirp thread is asked to do. */
struct request {
	struct user_stack *s;
	struct forward f;
	int result;
	char *text;
	struct guestfwd *guestfwd;
};

static void add_forward(void *opaque)
{
	struct request *r = opaque;

	r->result = slirp_add_hostfwd(r->s->slirp, r->f.udp, r->f.host, r->f.host_port, r->f.guest, r->f.guest_port);
}

static void remove_forward(void *opaque)
{
	struct request *r = opaque;

	r->result = slirp_remove_hostfwd(r->s->slirp, r->f.udp, r->f.host, r->f.host_port);
}

static int slirp_module_hostfwd_add(struct user_stack *s, const char *rule, struct err *e)
{
	struct request r = {.s = s};
	int rc = slirp_parse_hostfwd(rule, &r.f, e);

	if (rc)
		return rc;
	slirp_thread_call(add_forward, &r);
	return r.result ? err_set(e, EADDRINUSE, "Could not set up host forwarding rule '%s'", rule) : 0;
}

static int slirp_module_hostfwd_remove(struct user_stack *s, const char *rule, struct err *e)
{
	struct request r = {.s = s};

	if (slirp_parse_hostfwd_key(rule, &r.f))
		return err_set(e, EINVAL, "invalid format");
	slirp_thread_call(remove_forward, &r);
	return r.result ? err_set(e, ENOENT, "host forwarding rule for %s not found", rule) : 0;
}

static void print_connections(void *opaque)
{
	struct request *r = opaque;

	r->text = slirp_connection_info(r->s->slirp); /* GLib's memory is libc's */
}

static char *slirp_module_connections(struct user_stack *s)
{
	struct request r = {.s = s};

	slirp_thread_call(print_connections, &r);
	return r.text;
}

/* ---- main thread: open and close ---- */

static void begin_stack(void *opaque)
{
	struct user_stack *s = opaque;

	s->slirp = slirp_new(&s->config, &callbacks, s);
	if (!s->slirp)
		return;
	s->next = slirp_stacks;
	slirp_stacks = s;
}

static void end_stack(void *opaque)
{
	struct user_stack *s = opaque;

	for (struct user_stack **at = &slirp_stacks; *at; at = &(*at)->next)
		if (*at == s) {
			*at = s->next;
			break;
		}
	if (s->slirp)
		slirp_cleanup(s->slirp);
	fragments_free(s->fragments);
	while (s->timers)
		timer_free(s->timers, s);
}

static void slirp_module_close(struct user_stack *s)
{
	slirp_thread_call(end_stack, s);
	slirp_thread_release();
	if (s->lost_to_guest || s->lost_from_guest)
		log_debug("net", "slirp: frames lost: %llu to the guest, %llu from it",
			  (unsigned long long)s->lost_to_guest, (unsigned long long)s->lost_from_guest);
	while (s->n_guestfwd)
		guestfwd_close(s->guestfwd[--s->n_guestfwd]);
	ring_destroy(&s->to_guest);
	ring_destroy(&s->from_guest);
	free(s);
}

static void add_guestfwd(void *opaque)
{
	struct request *r = opaque;

	r->result = guestfwd_add(r->guestfwd, r->s->slirp) ? 0 : -EINVAL;
	if (!r->result)
		r->s->guestfwd[r->s->n_guestfwd++] = r->guestfwd;
}

static int open_guestfwd(struct user_stack *s, const char *id, unsigned n, const char *rule, struct err *e)
{
	struct request r = {.s = s, .guestfwd = guestfwd_open(id, n, rule, e)};

	if (!r.guestfwd)
		return -e->code;
	slirp_thread_call(add_guestfwd, &r);
	if (!r.result)
		return 0;
	guestfwd_close(r.guestfwd);
	return err_set(e, EINVAL, "Conflicting/invalid host:port in guest forwarding rule '%s'", rule);
}

static struct user_stack *slirp_module_open(const char *id, const struct user_options *o,
					    const struct user_events *events, void *opaque, struct err *e)
{
	struct user_stack *s = xzalloc(sizeof(*s));
	int r = slirp_config_from(o, &s->config, s->search, e);

	if (r) {
		free(s);
		return NULL;
	}
	s->events = events;
	s->opaque = opaque;
	s->network = s->config.vnetwork;
	inet_ntop(AF_INET, &s->network, s->network_text, sizeof(s->network_text));
	ring_init(&s->to_guest, RING_SIZE);
	ring_init(&s->from_guest, RING_SIZE);
	if (o->tftp)
		slirp_thread_may_read(o->tftp);
	slirp_thread_hold();
	slirp_thread_call(begin_stack, s);
	if (!s->slirp)
		r = err_set(e, ENOMEM, "libslirp cannot be initialised");
	for (unsigned i = 0; !r && i < o->hostfwd.n; i++)
		r = slirp_module_hostfwd_add(s, o->hostfwd.v[i], e);
	for (unsigned i = 0; !r && i < o->guestfwd.n; i++)
		r = open_guestfwd(s, id, i, o->guestfwd.v[i], e);
	if (r) {
		slirp_module_close(s);
		return NULL;
	}
	return s;
}

static const char *slirp_module_network(const struct user_stack *s)
{
	return s->network_text;
}

const struct slirp_module vmm_module_slirp = {
	.open = slirp_module_open,
	.close = slirp_module_close,
	.pending = slirp_module_pending,
	.recv = slirp_module_recv,
	.send = slirp_module_send,
	.hostfwd_add = slirp_module_hostfwd_add,
	.hostfwd_remove = slirp_module_hostfwd_remove,
	.connections = slirp_module_connections,
	.network = slirp_module_network,
};
