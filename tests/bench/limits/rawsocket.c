/*
 * The limit for a migration's throughput: what a TCP connection on the loopback and the host's memory give, without a
 * VMM, without checksums; like vmm's within one host the connection does without pacing. One process sends a guest's
 * worth of memory in pieces as large as vmm's batches, another takes it. A destination's memory was never touched, and
 * to get it costs as much as to move the data, so there are several ways to receive:
 *
 *   hot       one piece again and again, which stays in the processor's caches
 *   warm      into memory that is there already, which no destination has
 *   touched   into new memory, which the kernel gets page by page as recv() touches it
 *   prepared  a second thread gets the memory ahead of the data: allocated, then mapped (as vmm does with
 *             small pages)
 *   mapped    a second thread maps it, which allocates it (as vmm does with huge pages)
 *   written   into a buffer, and from that with pwrite() into the memory's file, which spares zeroing and mapping
 *   spliced   with splice() into the memory's file, which spares the buffer as well
 *
 * usage: rawsocket MIB [WAY...]
 *
 * Prints one JSON line, {"WAY": MB/s, ...}.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { PIECE = 2 << 20, BUFFER = 1 << 20, PIPE = 1 << 20 };

struct memory {
	int fd;
	uint8_t *host;
	size_t size;
	bool allocate; /* by name before it is mapped */
};

_Noreturn static void die(const char *what)
{
	fprintf(stderr, "rawsocket: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static size_t piece_at(size_t at, size_t size, size_t piece)
{
	return size - at < piece ? size - at : piece;
}

/* Shared memory, as a guest's RAM is. */
static struct memory new_memory(size_t size)
{
	struct memory m = {.fd = memfd_create("rawsocket", MFD_CLOEXEC), .size = size};

	if (m.fd < 0 || ftruncate(m.fd, (off_t)size))
		die("memory");
	m.host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd, 0);
	if (m.host == MAP_FAILED)
		die("mmap");
	madvise(m.host, size, MADV_HUGEPAGE); /* as vmm asks; most hosts decline for shared memory */
	return m;
}

static void *prepare(void *arg)
{
	const struct memory *m = arg;

	for (size_t at = 0; at < m->size; at += PIECE) {
		size_t n = piece_at(at, m->size, PIECE);

		if (m->allocate && fallocate(m->fd, FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n))
			die("fallocate");
		if (madvise(m->host + at, n, MADV_POPULATE_WRITE))
			die("MADV_POPULATE_WRITE");
	}
	return NULL;
}

/* From the kernel and from here: a host that shadows our page tables maps a page for each when it is touched. */
static void touch(const struct memory *m)
{
	for (size_t at = 0; at < m->size; at += 4096) {
		if (pread(m->fd, m->host + at, 1, (off_t)at) != 1)
			die("pread");
		__atomic_fetch_or(m->host + at, 0, __ATOMIC_RELAXED);
	}
}

/* ---- ways to receive; each takes m->size bytes ---- */

static void take(int sock, uint8_t *to, size_t n)
{
	if (recv(sock, to, n, MSG_WAITALL) != (ssize_t)n)
		die("recv");
}

static void receive_in_place(int sock, const struct memory *m)
{
	for (size_t at = 0; at < m->size; at += PIECE)
		take(sock, m->host + at, piece_at(at, m->size, PIECE));
}

static void receive_hot(int sock, const struct memory *m)
{
	for (size_t at = 0; at < m->size; at += BUFFER)
		take(sock, m->host, piece_at(at, m->size, BUFFER));
}

static void receive_and_write(int sock, const struct memory *m)
{
	uint8_t *buffer = malloc(BUFFER);

	if (!buffer)
		die("malloc");
	for (size_t at = 0; at < m->size; at += BUFFER) {
		size_t n = piece_at(at, m->size, BUFFER);

		take(sock, buffer, n);
		if (pwrite(m->fd, buffer, n, (off_t)at) != (ssize_t)n)
			die("pwrite");
	}
	free(buffer);
}

static void splice_in(int sock, const struct memory *m)
{
	loff_t to = 0;
	int pipes[2];

	if (pipe(pipes) || fcntl(pipes[1], F_SETPIPE_SZ, PIPE) < 0)
		die("pipe");
	while ((size_t)to < m->size) {
		ssize_t in = splice(sock, NULL, pipes[1], NULL, piece_at((size_t)to, m->size, PIPE), SPLICE_F_MOVE);

		if (in <= 0)
			die("splice");
		while (in) {
			ssize_t out = splice(pipes[0], NULL, m->fd, &to, (size_t)in, SPLICE_F_MOVE);

			if (out <= 0)
				die("splice");
			in -= out;
		}
	}
	close(pipes[0]);
	close(pipes[1]);
}

static const struct way {
	const char *name;
	void (*receive)(int sock, const struct memory *m);
	bool before, beside, allocate; /* memory is prepared before the first byte, or meanwhile */
	bool hot;
} ways[] = {
	{.name = "hot", .receive = receive_hot, .before = true, .hot = true},
	{.name = "warm", .receive = receive_in_place, .before = true},
	{.name = "touched", .receive = receive_in_place},
	{.name = "prepared", .receive = receive_in_place, .beside = true, .allocate = true},
	{.name = "mapped", .receive = receive_in_place, .beside = true},
	{.name = "written", .receive = receive_and_write},
	{.name = "spliced", .receive = splice_in},
};

/* ---- both ends ---- */

_Noreturn static void receiver(int listener, int ready, const struct way *w, size_t size)
{
	struct memory m = new_memory(size);
	pthread_t helper;
	int sock;

	m.allocate = w->allocate;
	if (w->before) {
		prepare(&m);
		touch(&m);
	}
	if (write(ready, "x", 1) != 1)
		die("pipe");
	sock = accept(listener, NULL, NULL);
	if (sock < 0)
		die("accept");
	if (w->beside && pthread_create(&helper, NULL, prepare, &m))
		die("thread");
	w->receive(sock, &m);
	if (write(ready, "x", 1) != 1)
		die("pipe");
	_exit(0); /* giving the memory back is not counted */
}

static double transfer(const struct way *w, const struct memory *source)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), sock = socket(AF_INET, SOCK_STREAM, 0);
	int ready[2], status;
	uint64_t start;
	pid_t pid;
	char byte;

	if (listener < 0 || sock < 0 || pipe(ready) || bind(listener, (struct sockaddr *)&a, len) ||
	    listen(listener, 1) || getsockname(listener, (struct sockaddr *)&a, &len))
		die("socket");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid)
		receiver(listener, ready[1], w, source->size);
	setsockopt(sock, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
	if (read(ready[0], &byte, 1) != 1 || connect(sock, (struct sockaddr *)&a, len))
		die("connect");
	start = now_ns();
	for (size_t at = 0, n; at < source->size; at += n) {
		n = piece_at(at, source->size, w->hot ? BUFFER : PIECE);
		if (send(sock, source->host + (w->hot ? 0 : at), n, MSG_NOSIGNAL) != (ssize_t)n)
			die("send");
	}
	if (read(ready[0], &byte, 1) != 1)
		die("the receiver failed");
	start = now_ns() - start;
	if (waitpid(pid, &status, 0) != pid || status)
		die("the receiver failed");
	close(sock);
	close(listener);
	close(ready[0]);
	close(ready[1]);
	return (double)source->size * 1000 / (double)start;
}

static bool wanted(const char *name, int argc, char **argv)
{
	for (int i = 2; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return argc == 2;
}

int main(int argc, char **argv)
{
	struct memory source;
	const char *comma = "";

	if (argc < 2 || strtoul(argv[1], NULL, 10) < 1) {
		fprintf(stderr, "usage: rawsocket MIB [WAY...]\n");
		return 2;
	}
	source = new_memory(strtoul(argv[1], NULL, 10) << 20);
	for (size_t at = 0; at < source.size; at += sizeof(uint64_t))
		*(uint64_t *)(source.host + at) = at * 0x9e3779b97f4a7c15u + 1;
	touch(&source);
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		if (wanted(ways[i].name, argc, argv)) {
			printf("%s\"%s\": %.1f", *comma ? comma : "{", ways[i].name, transfer(&ways[i], &source));
			comma = ", ";
			fflush(stdout);
		}
	printf("}\n");
	return 0;
}
