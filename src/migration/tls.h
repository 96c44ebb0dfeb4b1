/*
 * TLS 1.3 for migration channels. Used by migration threads; a stream has one reader and one writer at a time.
 */
#ifndef VMM_MIGRATION_TLS_H
#define VMM_MIGRATION_TLS_H

#include <stdbool.h>
#include <sys/types.h>
#include "vmm/err.h"

struct channel;
struct tls_stream;

/* The parameter tls-creds names an object: every channel has to use it. */
bool tls_wanted(void);
/* Handshake on c, which then encrypts. hostname: what the server's certificate must say unless tls-hostname does. */
int tls_client(struct channel *c, const char *hostname, struct err *e);
int tls_server(struct channel *c, struct err *e);

/* As send(2) and recv(2) on a non-blocking socket: -1 and errno, EAGAIN when the socket has to be waited for. */
ssize_t tls_send(struct tls_stream *s, const void *data, size_t len);
ssize_t tls_recv(struct tls_stream *s, void *data, size_t len);
bool tls_pending(const struct tls_stream *s); /* data is decrypted already */
void tls_stream_free(struct tls_stream *s);   /* NULL-safe */

#endif
