/*
 * Where the guest's memory is mapped, told while it still runs: the destination's KVM has its memory slots before the
 * guest stops, because each of them waits for a grace period (machine/windows.c).
 */
#include "session.h"

#include <errno.h>
#include <string.h>
#include "vmm/bytes.h"

#define RECORD 27

enum { READONLY = 1, LOGGED = 2 };

int windows_tell(struct channel *c, bool first, struct err *e)
{
	static uint8_t last[MACHINE_WINDOWS * RECORD]; /* one migration at a time, on one thread */
	static size_t last_len;
	struct machine_window w[MACHINE_WINDOWS];
	uint8_t now[sizeof(last)];
	unsigned n;

	if (!(session.features & WIRE_F_WINDOWS))
		return 0;
	n = machine_windows(session.board, w);
	for (unsigned i = 0; i < n; i++) {
		uint8_t *p = now + i * RECORD;

		put_le64(p, w[i].gpa);
		put_le64(p + 8, w[i].size);
		put_le64(p + 16, w[i].offset);
		put_le16(p + 24, w[i].block);
		p[26] = (uint8_t)((w[i].readonly ? READONLY : 0) | (w[i].log_dirty ? LOGGED : 0));
	}
	if (!first && last_len == n * RECORD && !memcmp(now, last, last_len))
		return 0;
	last_len = n * RECORD;
	memcpy(last, now, last_len);
	return channel_put(c, WIRE_WINDOWS, 0, now, (uint32_t)last_len, e);
}

struct expected {
	struct machine_window w[MACHINE_WINDOWS];
	unsigned n;
};

static void expect(struct main_call *c)
{
	struct expected *x = c->arg;

	main_call_done(c, machine_expect_windows(session.board, x->w, x->n, &c->err));
}

int windows_expect(const uint8_t *payload, size_t len, struct err *e)
{
	struct expected x = {.n = (unsigned)(len / RECORD)};
	int r;

	if (len % RECORD || len > sizeof(x.w) / sizeof(x.w[0]) * RECORD)
		return err_set(e, EBADMSG, "the stream is damaged: %zu bytes of memory windows", len);
	for (unsigned i = 0; i < x.n; i++) {
		const uint8_t *p = payload + i * RECORD;

		x.w[i] = (struct machine_window){.gpa = get_le64(p),
						 .size = get_le64(p + 8),
						 .offset = get_le64(p + 16),
						 .block = get_le16(p + 24),
						 .readonly = p[26] & READONLY,
						 .log_dirty = p[26] & LOGGED};
	}
	r = main_call(expect, &x, e);
	if (r && r != -ECANCELED)
		err_prefix(e, "the stream is damaged");
	return r;
}
