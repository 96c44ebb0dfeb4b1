/* TLS for migration channels: see tls.h. The cryptography is the module's. */
#include "tls.h"

#include <errno.h>
#include <poll.h>
#include "session.h"
#include "vmm/object.h"

static struct object *creds; /* claimed; changes only while no migration runs */

int tls_use(const char *id, struct err *e)
{
	struct object *o = NULL;

	if (session.running)
		return err_set(e, EBUSY, "There's a migration process in progress");
	if (id && *id) {
		o = object_claim(id, "tls-creds", "migration parameter 'tls-creds'", e);
		if (!o)
			return e && e->code ? -e->code : -ENOENT;
	}
	object_release(creds);
	__atomic_store_n(&creds, o, __ATOMIC_RELEASE);
	return 0;
}

bool tls_wanted(void)
{
	return __atomic_load_n(&creds, __ATOMIC_ACQUIRE);
}

static int wait_socket(struct channel *c, short events, uint64_t until, struct err *e)
{
	struct pollfd p[2] = {{.fd = c->fd, .events = events}, {.fd = c->cancel_fd, .events = POLLIN}};
	uint64_t now = mono_ns();
	int r = now < until ? poll(p, 2, (int)((until - now) / 1000000) + 1) : 0;

	if (r < 0 && errno != EINTR)
		return err_errno(e, errno, "%s: poll", c->peer);
	if (p[1].revents)
		return err_set(e, ECANCELED, "%s: cancelled", c->peer);
	return r == 0 ? err_set(e, ETIMEDOUT, "%s: the TLS handshake took too long", c->peer) : 0;
}

static int start(struct channel *c, bool server, const char *hostname, struct err *e)
{
	const struct tls_module *m = tls_module();
	uint64_t until = mono_ns() + HANDSHAKE_MS * 1000000ull;
	struct tls_stream *s;
	int r;

	if (tls_object_is_server(creds) != server)
		return err_set(e, EINVAL, "tls-creds '%s' is for a %s, this side is the %s", creds->id,
			       server ? "client" : "server", server ? "server" : "client");
	s = m->stream_new(tls_object_creds(creds), c->fd, hostname, e);
	if (!s)
		return -EINVAL;
	while ((r = m->handshake(s, e)) > 0) {
		r = wait_socket(c, r == TLS_WANTS_WRITE ? POLLOUT : POLLIN, until, e);
		if (r)
			break;
	}
	if (r) {
		m->stream_free(s);
		err_prefix(e, "%s", c->peer);
		return r;
	}
	c->tls = s;
	return 0;
}

int tls_client(struct channel *c, const char *hostname, struct err *e)
{
	const char *name = session.params.tls_hostname;

	return start(c, false, name && *name ? name : hostname, e);
}

int tls_server(struct channel *c, struct err *e)
{
	return start(c, true, "", e);
}

ssize_t tls_send(struct tls_stream *s, const void *data, size_t len)
{
	return tls_module()->send(s, data, len);
}

ssize_t tls_recv(struct tls_stream *s, void *data, size_t len)
{
	return tls_module()->recv(s, data, len);
}

bool tls_pending(const struct tls_stream *s)
{
	return tls_module()->pending(s);
}

void tls_stream_free(struct tls_stream *s)
{
	if (s)
		tls_module()->stream_free(s);
}
