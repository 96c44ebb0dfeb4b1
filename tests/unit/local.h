/* Sockets on this machine's loopback addresses, and netdevs from text, for tests of network back ends. */
#ifndef TEST_LOCAL_H
#define TEST_LOCAL_H

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/net.h"

/* libslirp 4.7 does not free tftp-server-name, nor what waits for an ARP reply when it is closed. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libglib-2.0.so\n";
}

static inline struct netdev *try_open(const char *text, struct err *e)
{
	struct opts o;
	struct netdev *d;

	ck_assert_int_eq(opts_parse(&o, text, "type", e), 0);
	d = netdev_open(&o, e);
	opts_free(&o);
	return d;
}

static inline struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* A socket on 127.0.0.1; *port: where. */
static inline int local_server(int type, uint16_t *port)
{
	struct sockaddr_in a = loopback(0);
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	if (type == SOCK_STREAM)
		ck_assert_int_eq(listen(fd, 8), 0);
	getsockname(fd, (struct sockaddr *)&a, &len);
	*port = ntohs(a.sin_port);
	return fd;
}

static inline uint16_t free_port(int type)
{
	uint16_t port;

	close(local_server(type, &port));
	return port;
}

static inline int local_connect(uint16_t port)
{
	struct sockaddr_in a = loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

#endif
