/*
 * What a guest sends into -netdev user: frames through our ring into libslirp, with time passing between them; the
 * first byte chooses options. Each frame is one byte of milliseconds, two of length, and itself. In a network namespace
 * of its own, where nothing can be reached; where that is not allowed, with restrict=on.
 */
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "fuzz.h"
#include "src/net/slirp_private.h"
#include "vmm/bytes.h"
#include "vmm/clock.h"
#include "vmm/log.h"
#include "vmm/net.h"

/* At its end libslirp 4.7 does not free what still waits for the guest's address (ARP; for a second at most). */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libglib-2.0.so\n";
}

static bool alone; /* no network to reach */

static void ignore_event(void *opaque)
{
}

static void init(void)
{
	struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd;

	loop_init_main(NULL);
	clock_use_manual(0);
	slirp_thread_by_hand = true;
	log_set_level(LOG_ERROR);
	alone = !unshare(CLONE_NEWUSER | CLONE_NEWNET);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (alone && fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &up))
		perror("lo stays down");
	if (fd >= 0)
		close(fd);
}

/* All that came for the guest. */
static void drain(struct user_stack *s)
{
	static uint8_t frame[NET_PACKET_MAX];
	struct iovec iov[2] = {{frame, 14}, {frame + 14, sizeof(frame) - 14}};
	ssize_t len;

	while ((len = vmm_module_slirp.recv(s, iov, 2)))
		if (len < 14)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct user_events events = {ignore_event, ignore_event};
	static bool ready;
	struct user_options o = {.ipv4 = 2,
				 .ipv6 = 2,
				 .hostname = "pc",
				 .tftp = "/nonexistent",
				 .bootfile = "boot",
				 .domainname = "example.org"};
	struct err e = ERR_INIT;
	struct user_stack *s;
	size_t at = 1;

	if (!ready)
		init();
	ready = true;
	if (!size)
		return 0;
	o.restricted = !alone || data[0] & 1;
	o.ipv4 = data[0] & 2 ? 1 : 2;
	o.guestfwd.v[o.guestfwd.n++] = "tcp:10.0.2.100:7-null";
	s = vmm_module_slirp.open("u", &o, &events, NULL, &e);
	if (!s)
		abort();
	while (at + 3 <= size) {
		size_t len = MIN((size_t)get_le16(data + at + 1), size - at - 3);
		struct iovec iov = {(void *)(uintptr_t)(data + at + 3), len};

		clock_manual_step(data[at] * NS_PER_MS * (data[at] & 0x80 ? 100 : 1));
		at += 3 + len;
		if (len < 14)
			continue;
		if (!vmm_module_slirp.send(s, &iov, 1))
			abort(); /* each is taken at once */
		slirp_thread_turn(false);
		drain(s);
		loop_step(loop_main(), 0); /* guestfwd's end */
	}
	vmm_module_slirp.close(s);
	return 0;
}
