/* Small helpers every room uses: no state, no allocation policy beyond "small allocations do not fail". */
#ifndef VMM_UTIL_H
#define VMM_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b)                       \
	({                              \
		__typeof__(a) _a = (a); \
		__typeof__(b) _b = (b); \
		_a < _b ? _a : _b;      \
	})
#define MAX(a, b)                       \
	({                              \
		__typeof__(a) _a = (a); \
		__typeof__(b) _b = (b); \
		_a > _b ? _a : _b;      \
	})
#define BIT(n)           (1u << (n))
#define BIT64(n)         (1ull << (n))
#define ALIGN_UP(x, a)   (((x) + ((__typeof__(x))(a)-1)) & ~((__typeof__(x))(a)-1))
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a)-1))

#define KIB (1024ull)
#define MIB (1024ull * KIB)
#define GIB (1024ull * MIB)
#define TIB (1024ull * GIB)

#define VMM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/*
 * Allocation for small, bounded objects. Never return NULL: out of memory for a few bytes ends the process with one
 * line on stderr, because no caller could do better. Anything whose size comes from outside (images, sockets,
 * guest) is allocated with plain malloc/mmap and its failure handled. All are released with free().
 */
void *xzalloc(size_t size);                             /* zeroed */
void *xcalloc(size_t n, size_t size);                   /* zeroed; n * size is checked for overflow */
void *xrealloc(void *p, size_t size);                   /* contents beyond the old size are undefined */
void *xmemdup(const void *p, size_t size);              /* copy of size bytes */
char *xstrdup(const char *s);                           /* NULL-safe: NULL gives NULL */
char *xstrndup(const char *s, size_t n);                /* at most n bytes of s, always terminated */
char *xasprintf(const char *fmt, ...) VMM_PRINTF(1, 2); /* formatted string, owned by the caller */

/* A descriptor that comes over a unix socket with one byte, as helpers pass taps (qemu-bridge-helper(8));
   close-on-exec, the caller's. Waits for it. -1: the peer is gone or sent something else. */
int fd_receive(int socket);

/* A number from 0 to 65535, or a service's name. getaddrinfo() takes 99999 for 34463 and -1 for 65535. */
bool port_is_possible(const char *port);

#endif
