/* TLS for migration channels: the parameter tls-creds names the credentials. */
#ifndef VMM_MIGRATION_TLS_H
#define VMM_MIGRATION_TLS_H

#include "vmm/tls.h"

struct channel;

/* Main thread: the parameter changed; "" or NULL: no TLS. */
int tls_use(const char *id, struct err *e);
/* Every channel has to be encrypted. Any thread. */
bool tls_wanted(void);
/* Handshake on c, which encrypts from then on. hostname: what the server's certificate must say unless tls-hostname
 * does. */
int tls_client(struct channel *c, const char *hostname, struct err *e);
int tls_server(struct channel *c, struct err *e);

ssize_t tls_send(struct tls_stream *s, const void *data, size_t len);
ssize_t tls_recv(struct tls_stream *s, void *data, size_t len);
bool tls_pending(const struct tls_stream *s);
void tls_stream_free(struct tls_stream *s); /* NULL-safe */

#endif
