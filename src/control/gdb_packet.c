/* gdb's packets: $data#checksum, acknowledgements, escapes. GDB manual, E.1. */
#include "gdb_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ESCAPE    '}'
#define INTERRUPT 0x03

/* ---- output ---- */

static char *room(struct gdb *g, size_t len)
{
	if (g->out_len + len > g->out_cap) {
		g->out_cap = (g->out_len + len) * 2;
		g->out = xrealloc(g->out, g->out_cap);
	}
	return g->out + g->out_len;
}

void gdb_begin(struct gdb *g)
{
	g->out_len = 0;
	*room(g, 1) = '$';
	g->out_len = 1;
}

static void put_n(struct gdb *g, const char *text, size_t len)
{
	memcpy(room(g, len), text, len);
	g->out_len += len;
}

void gdb_put(struct gdb *g, const char *text)
{
	put_n(g, text, strlen(text));
}

void gdb_printf(struct gdb *g, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	gdb_put(g, text);
}

void gdb_put_hex(struct gdb *g, const void *data, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = data;
	char *to = room(g, len * 2);

	for (size_t i = 0; i < len; i++) {
		*to++ = digits[p[i] >> 4];
		*to++ = digits[p[i] & 15];
	}
	g->out_len += len * 2;
}

void gdb_put_binary(struct gdb *g, const void *data, size_t len)
{
	const char *p = data;
	char *to = room(g, len * 2), *start = to;

	for (size_t i = 0; i < len; i++) {
		if (p[i] == '#' || p[i] == '$' || p[i] == ESCAPE || p[i] == '*') {
			*to++ = ESCAPE;
			*to++ = (char)(p[i] ^ 0x20);
		} else {
			*to++ = p[i];
		}
	}
	g->out_len += (size_t)(to - start);
}

void gdb_end(struct gdb *g)
{
	uint8_t sum = 0;
	char tail[4];

	for (size_t i = 1; i < g->out_len; i++)
		sum += (uint8_t)g->out[i];
	snprintf(tail, sizeof(tail), "#%02x", sum);
	put_n(g, tail, 3);
	if (!g->no_ack) {
		g->last = xrealloc(g->last, g->out_len);
		memcpy(g->last, g->out, g->out_len);
		g->last_len = g->out_len;
	}
	g->send(g->send_opaque, g->out, g->out_len);
}

void gdb_reply(struct gdb *g, const char *text)
{
	gdb_begin(g);
	gdb_put(g, text);
	gdb_end(g);
}

/* ---- numbers ---- */

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

bool gdb_take_number(const char **p, uint64_t *value)
{
	unsigned digits = 0;

	for (*value = 0; hex_digit(**p) >= 0; (*p)++) {
		if (*value >> 60)
			return false;
		*value = *value << 4 | (unsigned)hex_digit(**p);
		digits++;
	}
	return digits > 0;
}

bool gdb_take_hex(const char *p, uint8_t *out, size_t len)
{
	for (size_t i = 0; i < len; i++, p += 2) {
		int high = hex_digit(p[0]), low = high < 0 ? -1 : hex_digit(p[1]);

		if (low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return !*p;
}

/* ---- input ---- */

static size_t unescape(char *p, size_t len)
{
	size_t to = 0;

	for (size_t i = 0; i < len; i++) {
		if (p[i] == ESCAPE && i + 1 < len)
			p[to++] = (char)(p[++i] ^ 0x20);
		else
			p[to++] = p[i];
	}
	p[to] = 0;
	return to;
}

static void got_packet(struct gdb *g)
{
	bool good = !g->overflow && g->sum == g->told_sum;

	if (!g->no_ack)
		g->send(g->send_opaque, good ? "+" : "-", 1);
	if (good || (g->no_ack && !g->overflow))
		gdb_command(g, g->in, unescape(g->in, g->in_len));
}

static void outside_packet(struct gdb *g, uint8_t c)
{
	if (c == '$') {
		g->state = GDB_DATA;
		g->in_len = 0;
		g->sum = 0;
		g->overflow = false;
	} else if (c == '-' && !g->no_ack && g->last_len) {
		g->send(g->send_opaque, g->last, g->last_len);
	} else if (c == INTERRUPT) {
		gdb_interrupt(g);
	} /* '+', and noise */
}

static void feed_byte(struct gdb *g, uint8_t c)
{
	int digit = hex_digit((char)c);

	switch (g->state) {
	case GDB_IDLE:
		outside_packet(g, c);
		break;
	case GDB_DATA:
		if (c == '#') {
			g->state = GDB_SUM1;
		} else if (c == '$') { /* the client began anew */
			outside_packet(g, c);
		} else {
			g->sum += c;
			if (g->in_len < GDB_MAX_PACKET)
				g->in[g->in_len++] = (char)c;
			else
				g->overflow = true;
		}
		break;
	case GDB_SUM1:
		g->told_sum = (uint8_t)((unsigned)digit << 4);
		g->overflow |= digit < 0;
		g->state = GDB_SUM2;
		break;
	case GDB_SUM2:
		g->told_sum |= (uint8_t)(digit & 15);
		g->overflow |= digit < 0;
		g->state = GDB_IDLE;
		got_packet(g);
		break;
	}
}

void gdb_feed(struct gdb *g, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		feed_byte(g, data[i]);
}

/* ---- life ---- */

void gdb_reset(struct gdb *g)
{
	g->state = GDB_IDLE;
	g->last_len = 0;
	g->no_ack = g->multiprocess = g->swbreak = g->hwbreak = g->physical = false;
	g->sstep = GDB_STEP_NOIRQ & g->target->sstep_bits;
	g->g_cpu = g->c_cpu = g->listed = 0;
	g->waiting = false;
	g->stop = (struct gdb_stop){.signal = GDB_SIGNAL_TRAP};
}

void gdb_init(struct gdb *g, const struct gdb_target *t, void *opaque, bool wide,
	      void (*send)(void *send_opaque, const char *data, size_t len), void *send_opaque)
{
	*g = (struct gdb){.target = t, .opaque = opaque, .wide = wide, .send = send, .send_opaque = send_opaque};
	gdb_reset(g);
}

void gdb_free(struct gdb *g)
{
	free(g->out);
	free(g->last);
	g->out = g->last = NULL;
	g->out_cap = g->out_len = g->last_len = 0;
}
