#include "tls.h"

#include <errno.h>
#include "session.h"

bool tls_wanted(void)
{
	return session.params.tls_creds && *session.params.tls_creds;
}

int tls_client(struct channel *c, const char *hostname, struct err *e)
{
	return err_set(e, ENOTSUP, "TLS is not offered by this version");
}

int tls_server(struct channel *c, struct err *e)
{
	return err_set(e, ENOTSUP, "TLS is not offered by this version");
}

ssize_t tls_send(struct tls_stream *s, const void *data, size_t len)
{
	errno = ENOTSUP;
	return -1;
}

ssize_t tls_recv(struct tls_stream *s, void *data, size_t len)
{
	errno = ENOTSUP;
	return -1;
}

bool tls_pending(const struct tls_stream *s)
{
	return false;
}

void tls_stream_free(struct tls_stream *s)
{
}
