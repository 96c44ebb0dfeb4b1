/* virtio-serial: the control conversation, bytes both ways with flow control, ports that come and go, save and load. */
#include "virtio_driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "vmm/bytes.h"
#include "vmm/chardev.h"

#define SLOT   5
#define SERIAL "-m 16 -device virtio-serial-pci,addr=5,id=vs"
enum { RX0, TX0, CRX, CTX, RX1, TX1 };
enum { READY, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN, NAME };
#define F_MULTIPORT (1ull << 1)
#define F_EMERG     (1ull << 2)
#define QUEUES      8

struct rig {
	struct board *b;
	struct vd d;
	int peer; /* our end of the socket chardev */
	char path[64];
};

static void post_buffers(struct vd *d, unsigned queue, unsigned n, uint32_t len)
{
	for (unsigned i = 0; i < n; i++)
		vd_add(d, queue,
		       &(struct vd_seg){VQ_BUFFERS + queue * 0x10000 + (d->q[queue].avail_idx % 16) * 0x1000, len,
					true},
		       1);
	vd_ring(d, queue);
}

/* The next control message, as text: "port event value [name]"; "" if there is none. */
static const char *message(struct vd *d)
{
	static char text[300];
	uint64_t at = VQ_BUFFERS + CRX * 0x10000 + (d->q[CRX].last_used % 16) * 0x1000;
	char raw[256];
	uint32_t len;

	bench_idle(d->b);
	if (vd_used(d, CRX, &len) < 0)
		return "";
	bench_read(d->b, at, raw, MIN(len, (uint32_t)sizeof(raw)));
	snprintf(text, sizeof(text), "%u %u %u%s%s", get_le32(raw), get_le16(raw + 4), get_le16(raw + 6),
		 len > 8 ? " " : "", len > 8 ? raw + 8 : "");
	post_buffers(d, CRX, 1, 256);
	return text;
}

static void say(struct vd *d, uint32_t port, uint16_t event, uint16_t value)
{
	bench_writel(d->b, VQ_BUFFERS + 0xff000, port);
	bench_writew(d->b, VQ_BUFFERS + 0xff004, event);
	bench_writew(d->b, VQ_BUFFERS + 0xff006, value);
	vd_add(d, CTX, &(struct vd_seg){VQ_BUFFERS + 0xff000, 8, false}, 1);
	vd_ring(d, CTX);
	ck_assert_int_ge(vd_used(d, CTX, NULL), 0);
}

static void start(struct vd *d, struct board *b)
{
	vd_start(d, b, SLOT, VD_MODERN, F_MULTIPORT, QUEUES);
	ck_assert(d->features & F_MULTIPORT);
	post_buffers(d, CRX, 8, 256);
	ck_assert_str_eq(message(d), "");
	say(d, 0, READY, 1);
}

static void send_text(struct vd *d, unsigned queue, const char *text)
{
	uint64_t at = VQ_BUFFERS + 0x100000 + queue * 0x10000 + (d->q[queue].avail_idx % 16) * 0x1000;

	bench_write(d->b, at, text, strlen(text));
	vd_add(d, queue, &(struct vd_seg){at, (uint32_t)strlen(text), false}, 1);
	vd_ring(d, queue);
}

static const char *ring_text(const char *id)
{
	static char text[512];
	ssize_t n = chardev_ring_read(chardev_find(id), text, sizeof(text) - 1);

	ck_assert_int_ge(n, 0);
	text[n] = 0;
	return text;
}

/* ---- conversation ---- */

START_TEST(ports_are_announced)
{
	struct board *b =
		bench_new(SERIAL " -chardev ringbuf,id=c0 -chardev ringbuf,id=c1 -device virtconsole,chardev=c0,id=con "
				 "-device virtserialport,chardev=c1,name=org.qemu.guest_agent.0,id=ga");
	struct vd d;

	start(&d, b);
	ck_assert_uint_eq(vd_config(&d, 4, 4), 31);
	ck_assert_str_eq(message(&d), "0 1 1");
	ck_assert_str_eq(message(&d), "1 1 1");
	ck_assert_str_eq(message(&d), "");
	say(&d, 0, PORT_READY, 1);
	ck_assert_str_eq(message(&d), "0 4 1"); /* a console */
	say(&d, 1, PORT_READY, 1);
	const char *next = message(&d);
	if (!strcmp(next, "0 6 1")) /* its back end is open */
		next = message(&d);
	ck_assert_str_eq(next, "1 7 1 org.qemu.guest_agent.0");
	/* Ports that do not exist, events that make no sense. */
	say(&d, 30, PORT_READY, 1);
	say(&d, 31, OPEN, 1);
	say(&d, 0xffffffff, OPEN, 1);
	say(&d, 1, 77, 1);
	say(&d, 1, PORT_READY, 0);
	ck_assert_uint_eq(vd_status(&d) & VD_NEEDS_RESET, 0);
	/* Somebody in the guest opens the channel. */
	say(&d, 1, OPEN, 1);
	ck_assert_str_eq(bench_event(b, "VSERPORT_CHANGE"), "{\"id\": \"ga\", \"open\": true}");
	ck_assert(chardev_frontend_open(chardev_find("c1")));
	say(&d, 0, OPEN, 1); /* no event for consoles */
	ck_assert_ptr_null(bench_event(b, "VSERPORT_CHANGE"));
	say(&d, 1, OPEN, 0);
	ck_assert_str_eq(bench_event(b, "VSERPORT_CHANGE"), "{\"id\": \"ga\", \"open\": false}");
	ck_assert(!chardev_frontend_open(chardev_find("c1")));
	bench_free(b);
}
END_TEST

START_TEST(control_messages_wait_for_buffers)
{
	struct board *b = bench_new(
		SERIAL " -device virtserialport,name=a -device virtserialport,name=b -device virtserialport,name=c");
	struct vd d;

	vd_start(&d, b, SLOT, VD_MODERN, F_MULTIPORT, QUEUES);
	say(&d, 0, READY, 1);
	post_buffers(&d, CRX, 1, 256);
	ck_assert_str_eq(message(&d), "1 1 1"); /* posts the next buffer */
	ck_assert_str_eq(message(&d), "2 1 1");
	ck_assert_str_eq(message(&d), "3 1 1");
	ck_assert_str_eq(message(&d), "");
	bench_free(b);
}
END_TEST

START_TEST(a_driver_that_knows_one_console_only)
{
	struct board *b = bench_new(SERIAL " -chardev ringbuf,id=c0 -device virtconsole,chardev=c0");
	struct vd d;

	vd_start(&d, b, SLOT, VD_LEGACY, 0, 2);
	send_text(&d, TX0, "hello");
	ck_assert_int_ge(vd_used(&d, TX0, NULL), 0);
	ck_assert_str_eq(ring_text("c0"), "hello");
	/* The register for crashes needs no queue. */
	vd_set_config(&d, 8, '!', 4);
	ck_assert_str_eq(ring_text("c0"), "!");
	bench_free(b);
}
END_TEST

START_TEST(bad_options)
{
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-device virtserialport"), "No 'virtio-serial-bus' bus found"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails(SERIAL " -device pvpanic-pci,id=p -device virtserialport,bus=p.0"),
				     "Bus 'p.0' not found"));
	ck_assert_ptr_nonnull(
		strstr(bench_new_fails(SERIAL " -device virtserialport,nr=0"), "reserved for virtconsole"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails(SERIAL " -device virtserialport,nr=31"), "max. allowed: 30"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails(SERIAL " -device virtserialport,nr=3 -device virtconsole,nr=3"),
				     "already exists at id 3"));
	ck_assert_ptr_nonnull(
		strstr(bench_new_fails(SERIAL ",max_ports=2 -device virtserialport -device virtserialport"),
		       "Maximum port limit"));
	ck_assert_ptr_nonnull(
		strstr(bench_new_fails(SERIAL " -device virtserialport,name=x -device virtserialport,name=x"),
		       "already exists by name x"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails(SERIAL ",max_ports=32"), "max_ports"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails(SERIAL " -device virtserialport,chardev=nope"), "nope"));
}
END_TEST

/* ---- bytes, with a socket for the back end ---- */

static struct rig make_rig(const char *more)
{
	struct rig r = {.peer = -1};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char options[400];

	snprintf(r.path, sizeof(r.path), "/tmp/vmm-vserial-%d", (int)getpid());
	unlink(r.path);
	snprintf(options, sizeof(options),
		 SERIAL
		 "%s -chardev socket,id=s,path=%s,server=on,wait=off -device virtserialport,chardev=s,id=p,name=n",
		 more, r.path);
	r.b = bench_new(options);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", r.path);
	r.peer = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(r.peer, (struct sockaddr *)&addr, sizeof(addr)), 0);
	bench_idle(r.b);
	return r;
}

static void drop_rig(struct rig *r)
{
	close(r->peer);
	bench_free(r->b);
	unlink(r->path);
}

static void open_port(struct rig *r)
{
	start(&r->d, r->b);
	ck_assert_str_eq(message(&r->d), "1 1 1");
	say(&r->d, 1, PORT_READY, 1);
	ck_assert_str_eq(message(&r->d), "1 7 1 n");
	ck_assert_str_eq(message(&r->d), "1 6 1"); /* our connection */
	say(&r->d, 1, OPEN, 1);
}

static const char *received(struct rig *r)
{
	static char text[8192];
	uint64_t at = VQ_BUFFERS + RX1 * 0x10000 + (r->d.q[RX1].last_used % 16) * 0x1000;
	uint32_t len;

	bench_idle(r->b);
	if (vd_used(&r->d, RX1, &len) < 0)
		return NULL;
	ck_assert_uint_lt(len, sizeof(text));
	bench_read(r->b, at, text, len);
	text[len] = 0;
	return text;
}

START_TEST(bytes_both_ways)
{
	struct rig r = make_rig("");
	char buf[64];

	open_port(&r);
	send_text(&r.d, TX1, "{\"return\": {}}\n");
	ck_assert_int_ge(vd_used(&r.d, TX1, NULL), 0);
	bench_idle(r.b);
	ck_assert_int_eq(read(r.peer, buf, sizeof(buf)), 15);
	/* Nothing is taken from the peer before the driver has room. */
	ck_assert_int_eq(write(r.peer, "abcdefgh", 8), 8);
	ck_assert_ptr_null(received(&r));
	post_buffers(&r.d, RX1, 2, 5);
	ck_assert_str_eq(received(&r), "abcde");
	ck_assert_str_eq(received(&r), "fgh");
	ck_assert_ptr_null(received(&r));
	/* Nor while nobody has the port open. */
	post_buffers(&r.d, RX1, 1, 100);
	say(&r.d, 1, OPEN, 0);
	ck_assert_int_eq(write(r.peer, "later", 5), 5);
	ck_assert_ptr_null(received(&r));
	say(&r.d, 1, OPEN, 1);
	ck_assert_str_eq(received(&r), "later");
	drop_rig(&r);
}
END_TEST

START_TEST(the_peer_goes_and_comes)
{
	struct rig r = make_rig("");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	open_port(&r);
	close(r.peer);
	bench_idle(r.b);
	ck_assert_str_eq(message(&r.d), "1 6 0");
	send_text(&r.d, TX1, "to nobody");
	ck_assert_int_ge(vd_used(&r.d, TX1, NULL), 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", r.path);
	r.peer = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(r.peer, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_str_eq(message(&r.d), "1 6 1");
	drop_rig(&r);
}
END_TEST

START_TEST(a_peer_that_does_not_read_holds_the_guest_up)
{
	struct rig r = make_rig("");
	static char big[0x8000 + 1], got[0x8000];
	unsigned sent = 0, done = 0;
	uint64_t total = 0;
	ssize_t n;

	open_port(&r);
	memset(big, 'x', sizeof(big) - 1);
	bench_write(r.b, VQ_BUFFERS + 0x200000, big, 0x8000);
	for (; sent < 64 && sent - done < 4; sent++) {
		vd_add(&r.d, TX1, &(struct vd_seg){VQ_BUFFERS + 0x200000, 0x8000, false}, 1);
		vd_ring(&r.d, TX1);
		done += vd_used(&r.d, TX1, NULL) >= 0;
	}
	ck_assert_uint_eq(sent - done, 4);
	/* It starts to read: nothing is lost. */
	for (unsigned idle = 0; idle < 50 && done < sent;) {
		n = read(r.peer, got, sizeof(got));
		if (n > 0)
			total += (uint64_t)n;
		idle = n > 0 ? 0 : idle + 1;
		bench_idle(r.b);
		while (vd_used(&r.d, TX1, NULL) >= 0)
			done++;
	}
	ck_assert_uint_eq(done, sent);
	while ((n = read(r.peer, got, sizeof(got))) > 0 || (bench_idle(r.b), n = read(r.peer, got, sizeof(got))) > 0)
		total += (uint64_t)n;
	ck_assert_uint_eq(total, sent * 0x8000ull);
	drop_rig(&r);
}
END_TEST

/* ---- coming and going ---- */

static void add(struct board *b, const char *text)
{
	struct err e = ERR_INIT;
	struct opts o;

	ck_assert_int_eq(opts_parse(&o, text, "driver", &e), 0);
	ck_assert_msg(!machine_device_add(b, &o, &e), "%s", e.msg);
	opts_free(&o);
	bench_idle(b);
}

START_TEST(ports_are_plugged_and_unplugged)
{
	struct board *b = bench_new(SERIAL " -chardev ringbuf,id=c");
	struct err e = ERR_INIT;
	struct vd d;

	start(&d, b);
	ck_assert_str_eq(message(&d), "");
	add(b, "virtserialport,chardev=c,name=hot,id=h");
	ck_assert_str_eq(message(&d), "1 1 1");
	say(&d, 1, PORT_READY, 1);
	ck_assert_str_eq(message(&d), "1 7 1 hot");
	say(&d, 1, OPEN, 1);
	post_buffers(&d, RX1, 2, 64); /* one may be in our hands when the port goes */
	send_text(&d, TX1, "data");
	while (*message(&d))
		;
	ck_assert_str_eq(ring_text("c"), "data");
	ck_assert_int_eq(machine_device_del(b, "h", &e), 0);
	bench_idle(b);
	ck_assert_ptr_nonnull(bench_event(b, "DEVICE_DELETED"));
	ck_assert_str_eq(message(&d), "1 2 1");
	/* Writing to what is gone does no harm; number and back end are free again. */
	vd_used(&d, TX1, NULL);
	send_text(&d, TX1, "void");
	ck_assert_int_ge(vd_used(&d, TX1, NULL), 0);
	add(b, "virtserialport,chardev=c,name=hot,id=h");
	ck_assert_str_eq(message(&d), "1 1 1");
	/* The whole bus goes with its ports. */
	ck_assert_int_eq(machine_device_del(b, "vs", &e), 0);
	bench_reset(b);
	ck_assert_ptr_null(device_find(b, "vs"));
	ck_assert_ptr_null(device_find(b, "h"));
	bench_free(b);
}
END_TEST

START_TEST(the_drivers_reset_closes)
{
	struct board *b = bench_new(SERIAL " -chardev ringbuf,id=c -device virtserialport,chardev=c,id=p");
	struct vd d;

	start(&d, b);
	say(&d, 1, PORT_READY, 1);
	say(&d, 1, OPEN, 1);
	ck_assert_ptr_nonnull(bench_event(b, "VSERPORT_CHANGE"));
	post_buffers(&d, RX1, 2, 64);
	vd_set_status(&d, 0);
	ck_assert_uint_eq(vd_status(&d), 0);
	ck_assert_str_eq(bench_event(b, "VSERPORT_CHANGE"), "{\"id\": \"p\", \"open\": false}");
	start(&d, b);
	ck_assert_str_eq(message(&d), "1 1 1");
	bench_free(b);
}
END_TEST

START_TEST(save_and_load)
{
	struct board *b = bench_new(SERIAL " -chardev ringbuf,id=c -device virtserialport,chardev=c,id=p,name=n");
	struct vd d;

	start(&d, b);
	say(&d, 1, PORT_READY, 1);
	say(&d, 1, OPEN, 1);
	while (*message(&d))
		;
	post_buffers(&d, RX1, 2, 64);
	b = bench_save_load(b);
	vd_moved(&d, b);
	bench_idle(b);
	ck_assert(chardev_frontend_open(chardev_find("c"))); /* still open in the guest */
	send_text(&d, TX1, "on the other side");
	ck_assert_int_ge(vd_used(&d, TX1, NULL), 0);
	ck_assert_str_eq(ring_text("c"), "on the other side");
	ck_assert_str_eq(message(&d), ""); /* nothing has changed for the guest */
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *all = tcase_create("serial");

	tcase_set_timeout(all, 30);
	tcase_add_test(all, ports_are_announced);
	tcase_add_test(all, control_messages_wait_for_buffers);
	tcase_add_test(all, a_driver_that_knows_one_console_only);
	tcase_add_test(all, bad_options);
	tcase_add_test(all, bytes_both_ways);
	tcase_add_test(all, the_peer_goes_and_comes);
	tcase_add_test(all, a_peer_that_does_not_read_holds_the_guest_up);
	tcase_add_test(all, ports_are_plugged_and_unplugged);
	tcase_add_test(all, the_drivers_reset_closes);
	tcase_add_test(all, save_and_load);
	return run_suite("virtio-serial", (TCase *const[]){all, NULL});
}
