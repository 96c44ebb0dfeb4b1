/*
 * TLS 1.3: credentials as objects (tls-creds-x509, tls-creds-psk), streams for whoever encrypts a socket. GnuTLS sits
 * in a module (vmm-tls.so), loaded with the first credentials. Objects: src/machine/tls_creds.c; module:
 * src/migration/tls_gnutls.c.
 */
#ifndef VMM_TLS_H
#define VMM_TLS_H

#include <stdbool.h>
#include <sys/types.h>
#include "vmm/err.h"

struct object;
struct tls_creds;
struct tls_stream;

struct tls_creds_config {
	bool server, psk, verify_peer;
	const char *dir;      /* with QEMU's file names: ca-cert.pem, server-cert.pem, keys.psk ... */
	const char *username; /* PSK client */
	const char *priority; /* GnuTLS priority string; NULL: TLS 1.3 and nothing else */
};

enum { TLS_DONE, TLS_WANTS_READ, TLS_WANTS_WRITE };

struct tls_module {
	/* Main thread; reads files. */
	struct tls_creds *(*creds_new)(const struct tls_creds_config *c, struct err *e);
	void (*creds_free)(struct tls_creds *c);
	/* Any thread. fd: connected and non-blocking. hostname: what a server's certificate must say; "": any its CA
	 * signed. */
	struct tls_stream *(*stream_new)(struct tls_creds *c, int fd, const char *hostname, struct err *e);
	int (*handshake)(struct tls_stream *s, struct err *e); /* TLS_*, or an error */
	/* As send(2) and recv(2): -1 with errno; EAGAIN: wait for the socket and call again with the same data;
	   EPERM: the other side refuses (TLS 1.3 tells a client only after its handshake). */
	ssize_t (*send)(struct tls_stream *s, const void *data, size_t len);
	ssize_t (*recv)(struct tls_stream *s, void *data, size_t len);
	bool (*pending)(const struct tls_stream *s);
	void (*stream_free)(struct tls_stream *s);
};
extern const struct tls_module vmm_module_tls;

/* The credentials of a claimed object of parent "tls-creds". */
struct tls_creds *tls_object_creds(const struct object *o);
bool tls_object_is_server(const struct object *o); /* endpoint=server */
/* Loaded with the first credentials; NULL before. */
const struct tls_module *tls_module(void);

#endif
