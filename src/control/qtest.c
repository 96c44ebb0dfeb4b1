/*
 * The qtest server: QEMU's text protocol (docs/devel/testing/qtest, head of system/qtest.c) on our board, so that
 * existing device tests and tests in any language can drive it. One request per line, one answer per request:
 *
 *   clock_step [NS] | clock_set NS                        OK NOW
 *   outb|outw|outl ADDR VALUE                             OK
 *   inb|inw|inl ADDR                                      OK VALUE
 *   writeb|writew|writel|writeq ADDR VALUE                OK
 *   readb|readw|readl|readq ADDR                          OK VALUE
 *   read ADDR SIZE                                        OK 0xHEX
 *   write ADDR SIZE 0xHEX | memset ADDR SIZE VALUE        OK
 *   b64read ADDR SIZE | b64write ADDR SIZE BASE64         OK [BASE64]
 *   irq_intercept_in|irq_intercept_out CHIP               OK, then lines "IRQ raise N" and "IRQ lower N" as they happen
 *   set_irq_in CHIP NAME N LEVEL                          OK
 *   endianness                                            OK little
 *   module_load PREFIX NAME                               OK (device types are all built in)
 *
 * "FAIL text" answers everything else, rtas included. CHIP for irq_intercept_in and set_irq_in: "ioapic" (GSI 0..23) or
 * "i8259" (0..15); for irq_intercept_out: "i8259" (0 is INTR). When the peer goes, vmm ends.
 */
#include "qtest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "vmm/base64.h"
#include "vmm/chardev.h"
#include "vmm/clock.h"

#define MAX_SIZE   (16u * 1024 * 1024)    /* of one read, write or memset */
#define MAX_LINE   (2u * MAX_SIZE + 4096) /* in hex */
#define QUEUE_STOP (1024u * 1024)         /* of unread answers */
#define N_LINES    24

enum intercept { INTERCEPT_NONE, INTERCEPT_GSI, INTERCEPT_PIC_IN, INTERCEPT_PIC_OUT };

struct qtest {
	struct board *board;
	struct chardev *c; /* NULL: driven through qtest_line() */
	FILE *log;
	uint64_t log_start_ns;
	char *line;
	size_t line_len, line_cap;
	bool line_too_long;
	char *out;
	size_t out_len, out_cap;
	enum intercept intercept;
	bool level[N_LINES], known[N_LINES];
	struct irq_line driven[N_LINES]; /* set_irq_in */
};

static struct qtest *server;

/* ---- output ---- */

static void log_line(struct qtest *q, char mark, const char *text)
{
	struct timespec ts;

	if (!q->log)
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	fprintf(q->log, "[%c +%.6f] %s\n", mark,
		(double)((uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec - q->log_start_ns) / 1e9, text);
}

static void flush(struct qtest *q)
{
	size_t n;

	if (!q->c || !q->out_len)
		return;
	n = chardev_write(q->c, q->out, q->out_len);
	memmove(q->out, q->out + n, q->out_len - n);
	q->out_len -= n;
}

static void say(struct qtest *q, const char *text)
{
	size_t len = strlen(text);

	log_line(q, 'S', text);
	if (q->out_len + len + 2 > q->out_cap) {
		q->out_cap = ALIGN_UP(q->out_len + len + 2, (size_t)4096);
		q->out = xrealloc(q->out, q->out_cap);
	}
	memcpy(q->out + q->out_len, text, len);
	q->out[q->out_len + len] = '\n';
	q->out_len += len + 1;
	flush(q);
}

static void answer(struct qtest *q, const char *fmt, ...) VMM_PRINTF(2, 3);
static void answer(struct qtest *q, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	say(q, text);
}

char *qtest_take_output(struct qtest *q)
{
	char *text = q->out_len ? xstrndup(q->out, q->out_len) : NULL;

	q->out_len = 0;
	return text;
}

/* ---- interrupts ---- */

/* Under the fabric's lock, on the main thread: there is no other in qtest mode. */
static void on_irq(void *opaque, unsigned chip, unsigned n, bool level)
{
	struct qtest *q = opaque;

	if (chip != (q->intercept == INTERCEPT_PIC_OUT) || n >= (q->intercept == INTERCEPT_PIC_IN ? 16 : N_LINES))
		return;
	if (q->known[n] && q->level[n] == level)
		return;
	q->known[n] = true;
	q->level[n] = level;
	answer(q, "IRQ %s %u", level ? "raise" : "lower", n);
}

/* Chips by QEMU's names, also as the last part of a QOM path. */
static bool names_chip(const char *path, const char *const *names)
{
	const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;

	for (; *names; names++)
		if (!strcmp(*names, last))
			return true;
	return false;
}

static const char *const ioapic_names[] = {"ioapic", "ioapic0", NULL};
static const char *const pic_names[] = {"i8259", "isa-i8259", "pic", NULL};

static void irq_intercept(struct qtest *q, char **word)
{
	bool in = !strcmp(word[0], "irq_intercept_in");
	enum intercept wanted = INTERCEPT_NONE;

	if (in && names_chip(word[1], ioapic_names))
		wanted = INTERCEPT_GSI;
	else if (names_chip(word[1], pic_names))
		wanted = in ? INTERCEPT_PIC_IN : INTERCEPT_PIC_OUT;
	if (wanted == INTERCEPT_NONE) {
		answer(q, "FAIL Unknown device '%.100s' (ioapic or i8259)", word[1]);
	} else if (q->intercept != INTERCEPT_NONE && q->intercept != wanted) {
		answer(q, "FAIL IRQ intercept already enabled");
	} else {
		q->intercept = wanted;
		irq_set_capture(q->board, on_irq, q);
		answer(q, "OK");
	}
}

/* ---- numbers ---- */

static bool number(const char *text, uint64_t max, uint64_t *out)
{
	char *end;

	if (!text || !*text || *text == '-')
		return false;
	errno = 0;
	*out = strtoull(text, &end, 0);
	return !errno && !*end && *out <= max;
}

static void set_irq_in(struct qtest *q, char **word)
{
	uint64_t n, level;
	bool ioapic = names_chip(word[1], ioapic_names);

	if (!ioapic && !names_chip(word[1], pic_names)) {
		answer(q, "FAIL Unknown device '%.100s' (ioapic or i8259)", word[1]);
	} else if (!number(word[3], ioapic ? N_LINES - 1 : 15, &n) || !number(word[4], UINT32_MAX, &level)) {
		answer(q, "FAIL set_irq_in: no such interrupt '%.40s'", word[3]);
	} else {
		if (!q->driven[n].fabric)
			irq_line_for_gsi(q->board, &q->driven[n], (unsigned)n);
		irq_set(&q->driven[n], level != 0);
		answer(q, "OK");
	}
}

/* ---- ports and memory ---- */

static unsigned size_of_suffix(const char *command)
{
	switch (command[strlen(command) - 1]) {
	case 'b':
		return 1;
	case 'w':
		return 2;
	case 'l':
		return 4;
	default:
		return 8;
	}
}

static void out_port(struct qtest *q, char **word)
{
	uint64_t port, value;

	if (!number(word[1], 0xffff, &port) || !number(word[2], UINT64_MAX, &value)) {
		answer(q, "FAIL %s: port or value is no number in range", word[0]);
		return;
	}
	map_pio_write(q->board, (uint16_t)port, value, size_of_suffix(word[0]));
	answer(q, "OK");
}

static void in_port(struct qtest *q, char **word)
{
	uint64_t port;

	if (!number(word[1], 0xffff, &port)) {
		answer(q, "FAIL %s: port is no number in range", word[0]);
		return;
	}
	answer(q, "OK 0x%04" PRIx64, map_pio_read(q->board, (uint16_t)port, size_of_suffix(word[0])));
}

static void write_value(struct qtest *q, char **word)
{
	uint64_t addr, value;
	uint8_t buf[8];

	if (!number(word[1], UINT64_MAX, &addr) || !number(word[2], UINT64_MAX, &value)) {
		answer(q, "FAIL %s: address or value is no number", word[0]);
		return;
	}
	put_le64(buf, value);
	map_mem_write(q->board, addr, buf, size_of_suffix(word[0]));
	answer(q, "OK");
}

static void read_value(struct qtest *q, char **word)
{
	uint64_t addr;
	uint8_t buf[8] = {0};

	if (!number(word[1], UINT64_MAX, &addr)) {
		answer(q, "FAIL %s: address is no number", word[0]);
		return;
	}
	map_mem_read(q->board, addr, buf, size_of_suffix(word[0]));
	answer(q, "OK 0x%016" PRIx64, get_le64(buf));
}

/* Address and size of a block; says FAIL itself. */
static uint8_t *block(struct qtest *q, char **word, uint64_t *addr, uint64_t *size)
{
	if (number(word[1], UINT64_MAX, addr) && number(word[2], MAX_SIZE, size) && *size)
		return xzalloc(*size);
	answer(q, "FAIL %s: address or size is no number in range (1 to %u bytes)", word[0], MAX_SIZE);
	return NULL;
}

static void read_block(struct qtest *q, char **word)
{
	static const char digits[] = "0123456789abcdef";
	uint64_t addr, size;
	uint8_t *buf = block(q, word, &addr, &size);
	char *text, *to;

	if (!buf)
		return;
	map_mem_read(q->board, addr, buf, size);
	text = to = xzalloc(size * 2 + 6);
	to = stpcpy(to, "OK 0x");
	for (uint64_t i = 0; i < size; i++) {
		*to++ = digits[buf[i] >> 4];
		*to++ = digits[buf[i] & 15];
	}
	say(q, text);
	free(text);
	free(buf);
}

static void b64read(struct qtest *q, char **word)
{
	uint64_t addr, size;
	uint8_t *buf = block(q, word, &addr, &size);
	char *data, *text;

	if (!buf)
		return;
	map_mem_read(q->board, addr, buf, size);
	data = base64_encode(buf, size);
	text = xasprintf("OK %s", data);
	say(q, text);
	free(text);
	free(data);
	free(buf);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Data shorter than size leaves the rest zero, as in QEMU. */
static void write_block(struct qtest *q, char **word)
{
	const char *hex = word[3];
	uint64_t addr, size;
	uint8_t *buf;

	if (strncmp(hex, "0x", 2)) {
		answer(q, "FAIL write: data must start with 0x");
		return;
	}
	buf = block(q, word, &addr, &size);
	if (!buf)
		return;
	hex += 2;
	for (uint64_t i = 0; i < size && hex_digit(hex[0]) >= 0 && hex_digit(hex[1]) >= 0; i++, hex += 2)
		buf[i] = (uint8_t)(hex_digit(hex[0]) << 4 | hex_digit(hex[1]));
	map_mem_write(q->board, addr, buf, size);
	free(buf);
	answer(q, "OK");
}

static void b64write(struct qtest *q, char **word)
{
	uint64_t addr, size;
	uint8_t *buf = block(q, word, &addr, &size);
	ssize_t len;

	if (!buf)
		return;
	len = base64_decode(word[3]);
	if (len < 0) {
		answer(q, "FAIL b64write: the data is not base64");
	} else {
		memcpy(buf, word[3], MIN((uint64_t)len, size));
		map_mem_write(q->board, addr, buf, MIN((uint64_t)len, size));
		answer(q, "OK");
	}
	free(buf);
}

static void memset_block(struct qtest *q, char **word)
{
	uint64_t addr, size, value;
	uint8_t *buf;

	if (!number(word[3], 0xff, &value)) {
		answer(q, "FAIL memset: the value is no byte");
		return;
	}
	buf = block(q, word, &addr, &size);
	if (!buf)
		return;
	memset(buf, (int)value, size);
	map_mem_write(q->board, addr, buf, size);
	free(buf);
	answer(q, "OK");
}

/* ---- clock and the rest ---- */

static void clock_step(struct qtest *q, char **word)
{
	uint64_t ns, now = clock_ns(VCLOCK_VIRTUAL);

	if (!word[1]) {
		ns = clock_next_deadline();
		if (ns != TIMER_NEVER)
			now = clock_manual_set(ns);
	} else if (number(word[1], INT64_MAX - now, &ns)) {
		now = clock_manual_step(ns);
	} else {
		answer(q, "FAIL clock_step: '%.40s' is no number of nanoseconds", word[1]);
		return;
	}
	answer(q, "OK %" PRIu64, now);
}

static void clock_set(struct qtest *q, char **word)
{
	uint64_t ns;

	if (number(word[1], INT64_MAX, &ns))
		answer(q, "OK %" PRIu64, clock_manual_set(ns));
	else
		answer(q, "FAIL clock_set: '%.40s' is no number of nanoseconds", word[1]);
}

static void endianness(struct qtest *q, char **word)
{
	answer(q, "OK little");
}

static void module_load(struct qtest *q, char **word)
{
	answer(q, "OK");
}

static void rtas(struct qtest *q, char **word)
{
	answer(q, "FAIL rtas: this is no PowerPC");
}

#define MAX_WORDS 5

static const struct {
	const char *name;
	unsigned args; /* required */
	void (*run)(struct qtest *q, char **word);
} commands[] = {
	{"clock_step", 0, clock_step},
	{"clock_set", 1, clock_set},
	{"outb", 2, out_port},
	{"outw", 2, out_port},
	{"outl", 2, out_port},
	{"inb", 1, in_port},
	{"inw", 1, in_port},
	{"inl", 1, in_port},
	{"writeb", 2, write_value},
	{"writew", 2, write_value},
	{"writel", 2, write_value},
	{"writeq", 2, write_value},
	{"readb", 1, read_value},
	{"readw", 1, read_value},
	{"readl", 1, read_value},
	{"readq", 1, read_value},
	{"read", 2, read_block},
	{"write", 3, write_block},
	{"b64read", 2, b64read},
	{"b64write", 3, b64write},
	{"memset", 3, memset_block},
	{"irq_intercept_in", 1, irq_intercept},
	{"irq_intercept_out", 1, irq_intercept},
	{"set_irq_in", 4, set_irq_in},
	{"endianness", 0, endianness},
	{"module_load", 1, module_load},
	{"rtas", 0, rtas},
};

void qtest_line(struct qtest *q, char *line)
{
	char *word[MAX_WORDS] = {NULL}, *save = NULL;
	unsigned n = 0;

	log_line(q, 'R', line);
	for (char *w = strtok_r(line, " \t\r", &save); w && n < MAX_WORDS; w = strtok_r(NULL, " \t\r", &save))
		word[n++] = w;
	if (!n)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(commands[i].name, word[0]))
			continue;
		if (n - 1 < commands[i].args)
			answer(q, "FAIL %s needs %u arguments", word[0], commands[i].args);
		else
			commands[i].run(q, word);
		return;
	}
	answer(q, "FAIL Unknown command '%.100s'", word[0]);
}

/* ---- the connection ---- */

static void end_line(struct qtest *q)
{
	if (q->line_too_long) {
		answer(q, "FAIL the line is too long (at most %u bytes)", MAX_LINE);
	} else if (q->line_len) {
		q->line[q->line_len] = 0;
		qtest_line(q, q->line);
	}
	q->line_len = 0;
	q->line_too_long = false;
}

static void add_byte(struct qtest *q, char ch)
{
	if (q->line_len >= MAX_LINE) {
		q->line_too_long = true;
		return;
	}
	if (q->line_len + 1 >= q->line_cap) {
		q->line_cap = q->line_cap ? q->line_cap * 2 : 256;
		q->line = xrealloc(q->line, q->line_cap);
	}
	q->line[q->line_len++] = ch;
}

static size_t can_receive(void *opaque)
{
	return ((struct qtest *)opaque)->out_len < QUEUE_STOP ? 1024 : 0;
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (buf[i] == '\n')
			end_line(opaque);
		else if (buf[i]) /* a line is a C string */
			add_byte(opaque, (char)buf[i]);
	}
}

static void writable(void *opaque)
{
	struct qtest *q = opaque;

	flush(q);
	if (q->out_len < QUEUE_STOP)
		chardev_accept_input(q->c);
}

static void event(void *opaque, enum chardev_event ev)
{
	struct qtest *q = opaque;

	if (ev == CHARDEV_OPENED) {
		memset(q->known, 0, sizeof(q->known));
		q->out_len = q->line_len = 0;
		log_line(q, 'I', "OPENED");
	} else if (ev == CHARDEV_CLOSED) {
		log_line(q, 'I', "CLOSED");
		machine_quit(q->board, SHUTDOWN_HOST_SIGNAL);
	}
}

static const struct chardev_frontend frontend = {
	.can_receive = can_receive,
	.receive = receive,
	.event = event,
	.writable = writable,
	.lossless = true,
};

struct qtest *qtest_new(struct board *board)
{
	struct qtest *q = xzalloc(sizeof(*q));
	struct timespec ts;

	q->board = board;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	q->log_start_ns = (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
	return q;
}

void qtest_free(struct qtest *q)
{
	if (!q)
		return;
	if (q->intercept != INTERCEPT_NONE)
		irq_set_capture(q->board, NULL, NULL);
	for (unsigned i = 0; i < N_LINES; i++)
		irq_set(&q->driven[i], false);
	if (q->log)
		fclose(q->log);
	free(q->line);
	free(q->out);
	free(q);
}

static int open_log(struct qtest *q, const char *path, struct err *e)
{
	if (!path || !strcmp(path, "none"))
		return 0;
	q->log = fopen(path, "we");
	if (!q->log)
		return err_errno(e, errno, "-qtest-log %s: cannot open it", path);
	setvbuf(q->log, NULL, _IOLBF, 0);
	return 0;
}

int qtest_start(struct board *board, const char *text, const char *log, struct err *e)
{
	struct chardev *c;
	struct qtest *q = qtest_new(board);

	server = q;
	if (open_log(q, log, e))
		return -EINVAL;
	c = chardev_open_legacy("qtest", text, e);
	if (c)
		c = chardev_claim(chardev_id(c), "qtest", e);
	if (!c) {
		err_prefix(e, "-qtest %s", text);
		return e && e->code ? -e->code : -EINVAL;
	}
	q->c = c;
	chardev_attach(c, &frontend, q, NULL);
	return 0;
}

void qtest_stop(void)
{
	if (!server)
		return;
	if (server->c) {
		chardev_flush(server->c);
		chardev_release(server->c);
	}
	qtest_free(server);
	server = NULL;
}
