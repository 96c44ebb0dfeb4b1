/*
 * TLS with GnuTLS: the module vmm-tls.so, see vmm/tls.h. TLS 1.3 unless the priority string says otherwise. A server
 * demands and verifies the client's certificate (verify-peer), a client always verifies the server's.
 */
#include "vmm/tls.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PRIORITY_X509 "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define PRIORITY_PSK  "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK"

struct tls_creds {
	bool server, psk, verify_peer;
	gnutls_certificate_credentials_t x509;
	gnutls_psk_server_credentials_t psk_server;
	gnutls_psk_client_credentials_t psk_client;
	char *priority;
};

struct tls_stream {
	gnutls_session_t session;
	char hostname[256];
};

static char *path_of(const struct tls_creds_config *c, const char *name)
{
	return xasprintf("%s/%s", c->dir, name);
}

static int load_x509(struct tls_creds *t, const struct tls_creds_config *c, struct err *e)
{
	char *ca = path_of(c, "ca-cert.pem"), *crl = path_of(c, "ca-crl.pem");
	char *cert = path_of(c, c->server ? "server-cert.pem" : "client-cert.pem");
	char *key = path_of(c, c->server ? "server-key.pem" : "client-key.pem");
	int r = gnutls_certificate_allocate_credentials(&t->x509);

	if (r >= 0 && (r = gnutls_certificate_set_x509_trust_file(t->x509, ca, GNUTLS_X509_FMT_PEM)) < 0)
		err_set(e, EINVAL, "Unable to load CA certificate '%s': %s", ca, gnutls_strerror(r));
	if (r >= 0 && !access(crl, R_OK) &&
	    (r = gnutls_certificate_set_x509_crl_file(t->x509, crl, GNUTLS_X509_FMT_PEM)) < 0)
		err_set(e, EINVAL, "Unable to load CRL '%s': %s", crl, gnutls_strerror(r));
	/* a client may come without a certificate; whether the server takes that is the server's decision */
	if (r >= 0 && (c->server || !access(cert, R_OK)) &&
	    (r = gnutls_certificate_set_x509_key_file(t->x509, cert, key, GNUTLS_X509_FMT_PEM)) < 0)
		err_set(e, EINVAL, "Unable to load certificate '%s' and key '%s': %s", cert, key, gnutls_strerror(r));
	free(ca);
	free(crl);
	free(cert);
	free(key);
	return r < 0 ? -EINVAL : 0;
}

/* "name:hexkey" per line */
static int client_key(struct tls_creds *t, const struct tls_creds_config *c, const char *path, struct err *e)
{
	size_t n = strlen(c->username);
	FILE *f = fopen(path, "re");
	char line[1024];
	int r = -ENOENT;

	if (!f)
		return err_errno(e, errno, "Unable to read '%s'", path);
	while (r == -ENOENT && fgets(line, sizeof(line), f)) {
		gnutls_datum_t key;

		line[strcspn(line, "\r\n")] = 0;
		if (strncmp(line, c->username, n) || line[n] != ':')
			continue;
		key = (gnutls_datum_t){(unsigned char *)line + n + 1, (unsigned)strlen(line + n + 1)};
		r = gnutls_psk_set_client_credentials(t->psk_client, c->username, &key, GNUTLS_PSK_KEY_HEX) < 0
			    ? -EINVAL
			    : 0;
	}
	fclose(f);
	explicit_bzero(line, sizeof(line));
	if (r == -ENOENT)
		err_set(e, ENOENT, "Username '%s' not found in '%s'", c->username, path);
	else if (r)
		err_set(e, EINVAL, "'%s': the key of '%s' is not hexadecimal", path, c->username);
	return r;
}

static int load_psk(struct tls_creds *t, const struct tls_creds_config *c, struct err *e)
{
	char *path = path_of(c, "keys.psk");
	int r;

	if (access(path, R_OK)) {
		r = err_errno(e, errno, "Unable to read '%s'", path);
	} else if (c->server) {
		r = gnutls_psk_allocate_server_credentials(&t->psk_server);
		if (r >= 0)
			r = gnutls_psk_set_server_credentials_file(t->psk_server, path);
		if (r < 0)
			r = err_set(e, EINVAL, "Unable to use '%s': %s", path, gnutls_strerror(r));
	} else {
		r = gnutls_psk_allocate_client_credentials(&t->psk_client);
		r = r < 0 ? err_set(e, EINVAL, "%s", gnutls_strerror(r)) : client_key(t, c, path, e);
	}
	free(path);
	return r < 0 ? r : 0;
}

static void creds_free(struct tls_creds *t)
{
	if (t->x509)
		gnutls_certificate_free_credentials(t->x509);
	if (t->psk_server)
		gnutls_psk_free_server_credentials(t->psk_server);
	if (t->psk_client)
		gnutls_psk_free_client_credentials(t->psk_client);
	free(t->priority);
	free(t);
}

static struct tls_creds *creds_new(const struct tls_creds_config *c, struct err *e)
{
	struct tls_creds *t = xzalloc(sizeof(*t));
	gnutls_priority_t parsed;
	const char *where;

	t->server = c->server;
	t->psk = c->psk;
	t->verify_peer = c->verify_peer;
	t->priority = xstrdup(c->priority ? c->priority : c->psk ? PRIORITY_PSK : PRIORITY_X509);
	if (gnutls_priority_init(&parsed, t->priority, &where) < 0) {
		err_set(e, EINVAL, "Unable to use the TLS priority string at '%s'", where);
		creds_free(t);
		return NULL;
	}
	gnutls_priority_deinit(parsed);
	if (c->psk ? load_psk(t, c, e) : load_x509(t, c, e)) {
		creds_free(t);
		return NULL;
	}
	return t;
}

static void stream_free(struct tls_stream *s)
{
	gnutls_deinit(s->session);
	free(s);
}

static struct tls_stream *stream_new(struct tls_creds *t, int fd, const char *hostname, struct err *e)
{
	struct tls_stream *s = xzalloc(sizeof(*s));
	int r = gnutls_init(&s->session,
			    (t->server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);

	if (r < 0) {
		free(s);
		err_set(e, ENOMEM, "TLS: %s", gnutls_strerror(r));
		return NULL;
	}
	snprintf(s->hostname, sizeof(s->hostname), "%s", hostname);
	r = gnutls_priority_set_direct(s->session, t->priority, NULL);
	if (r >= 0 && t->psk)
		r = gnutls_credentials_set(s->session, GNUTLS_CRD_PSK,
					   t->server ? (void *)t->psk_server : (void *)t->psk_client);
	else if (r >= 0)
		r = gnutls_credentials_set(s->session, GNUTLS_CRD_CERTIFICATE, t->x509);
	if (r >= 0 && !t->psk && t->server)
		gnutls_certificate_server_set_request(s->session,
						      t->verify_peer ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
	if (r >= 0 && !t->psk && (!t->server || t->verify_peer))
		gnutls_session_set_verify_cert(s->session, !t->server && *s->hostname ? s->hostname : NULL, 0);
	if (r < 0) {
		err_set(e, EINVAL, "TLS: %s", gnutls_strerror(r));
		stream_free(s);
		return NULL;
	}
	gnutls_transport_set_int(s->session, fd);
	return s;
}

static int handshake(struct tls_stream *s, struct err *e)
{
	int r = gnutls_handshake(s->session);
	gnutls_datum_t text = {0};

	if (r == GNUTLS_E_SUCCESS)
		return TLS_DONE;
	if (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED)
		return gnutls_record_get_direction(s->session) ? TLS_WANTS_WRITE : TLS_WANTS_READ;
	gnutls_alert_send_appropriate(s->session, r); /* so that the other side can say why */
	if (r == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR &&
	    gnutls_certificate_verification_status_print(gnutls_session_get_verify_cert_status(s->session),
							 GNUTLS_CRT_X509, &text, 0) >= 0) {
		err_set(e, EPERM, "TLS: the other side's certificate is not accepted: %s", (char *)text.data);
		gnutls_free(text.data);
		return -EPERM;
	}
	if (r == GNUTLS_E_FATAL_ALERT_RECEIVED)
		return err_set(e, EPERM, "TLS: the other side refuses: %s",
			       gnutls_alert_get_name(gnutls_alert_get(s->session)));
	return err_set(e, EPROTO, "TLS handshake failed: %s", gnutls_strerror(r));
}

static ssize_t result(ssize_t r)
{
	if (r >= 0)
		return r;
	errno = r == GNUTLS_E_AGAIN         ? EAGAIN
		: r == GNUTLS_E_INTERRUPTED ? EINTR
		: r == GNUTLS_E_PREMATURE_TERMINATION || r == GNUTLS_E_PUSH_ERROR || r == GNUTLS_E_PULL_ERROR
			? ECONNRESET
		: r == GNUTLS_E_FATAL_ALERT_RECEIVED ? EPERM
						     : EIO;
	return -1;
}

static ssize_t tls_record_send(struct tls_stream *s, const void *data, size_t len)
{
	return result(gnutls_record_send(s->session, data, len));
}

static ssize_t tls_record_recv(struct tls_stream *s, void *data, size_t len)
{
	return result(gnutls_record_recv(s->session, data, len));
}

static bool pending(const struct tls_stream *s)
{
	return gnutls_record_check_pending(s->session) > 0;
}

const struct tls_module vmm_module_tls = {
	.creds_new = creds_new,
	.creds_free = creds_free,
	.stream_new = stream_new,
	.handshake = handshake,
	.send = tls_record_send,
	.recv = tls_record_recv,
	.pending = pending,
	.stream_free = stream_free,
};
