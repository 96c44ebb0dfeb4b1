/* 16550A serial ports and the parallel port, as drivers use them. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "bench.h"
#include "src/machine/board.h"
#include "vmm/chardev.h"
#include "vmm/clock.h"

#define COM1 0x3f8
#define LPT1 0x378

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static struct board *b;
static char sock[64];

static void start(const char *options)
{
	char text[300];

	snprintf(text, sizeof(text), "-m 1 -nodefaults %s", options);
	b = bench_new(text);
}

static void start_ring(void)
{
	start("-chardev ringbuf,id=r -serial chardev:r");
}

/* A serial port with a socket, for input; returns the peer's end. */
static int start_socket(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	char options[128];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(sock, sizeof(sock), "/tmp/vmm-serial-%d", getpid());
	snprintf(options, sizeof(options), "-serial unix:%s,server=on,wait=off", sock);
	start(options);
	memcpy(un.sun_path, sock, sizeof(sock));
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	bench_idle(b);
	return fd;
}

static void finish(void)
{
	bench_free(b);
	b = NULL;
}

static uint8_t in(unsigned reg)
{
	return bench_inb(b, (uint16_t)(COM1 + reg));
}

static void out(unsigned reg, uint8_t v)
{
	bench_outb(b, (uint16_t)(COM1 + reg), v);
}

static const char *sent(void)
{
	static char buf[70000];
	ssize_t n = chardev_ring_read(chardev_find("r"), buf, sizeof(buf) - 1);

	ck_assert_int_ge(n, 0);
	buf[n] = 0;
	return buf;
}

static bool have_data(void *opaque)
{
	return in(LSR)&1;
}

/* Type at the guest and wait until the first byte is there. */
static void type(int fd, const char *s)
{
	ck_assert_int_eq(write(fd, s, strlen(s)), (ssize_t)strlen(s));
	bench_wait(b, have_data, NULL);
}

/* ---- registers ---- */

START_TEST(power_on_values)
{
	start_ring();
	ck_assert_uint_eq(in(IER), 0);
	ck_assert_uint_eq(in(IIR), 0x01);
	ck_assert_uint_eq(in(LCR), 0);
	ck_assert_uint_eq(in(MCR), 0);
	ck_assert_uint_eq(in(LSR), 0x60);
	ck_assert_uint_eq(in(MSR)&0xf0, 0xb0); /* DCD, DSR, CTS */
	ck_assert(!bench_gsi(b, 4));
	out(SCR, 0xa5);
	ck_assert_uint_eq(in(SCR), 0xa5);
	out(LSR, 0xff); /* read-only */
	out(MSR, 0xff);
	ck_assert_uint_eq(in(LSR), 0x60);
	ck_assert_uint_eq(in(MSR)&0x0f, 0);
	out(IER, 0xff);
	ck_assert_uint_eq(in(IER), 0x0f);
	out(MCR, 0xff);
	ck_assert_uint_eq(in(MCR), 0x1f);
	bench_reset(b);
	ck_assert_uint_eq(in(IER), 0);
	ck_assert_uint_eq(in(MCR), 0);
	ck_assert_uint_eq(in(SCR), 0);
	finish();
}
END_TEST

START_TEST(divisor_latch_hides_data_and_ier)
{
	start_ring();
	out(LCR, 0x83);
	out(DATA, 0x01);
	out(IER, 0x02);
	ck_assert_uint_eq(in(DATA), 0x01);
	ck_assert_uint_eq(in(IER), 0x02);
	out(LCR, 0x03);
	ck_assert_uint_eq(in(IER), 0);
	ck_assert_str_eq(sent(), "");
	out(DATA, 'x');
	ck_assert_str_eq(sent(), "x");
	finish();
}
END_TEST

START_TEST(linux_detects_a_16550a)
{
	unsigned count = 0;

	start_ring();
	/* IER scratch, then the FIFO bits of IIR: 8250_port.c autoconfig() */
	out(IER, 0);
	ck_assert_uint_eq(in(IER), 0);
	out(IER, 0x0f);
	ck_assert_uint_eq(in(IER), 0x0f);
	out(IER, 0);
	out(MCR, 0x10 | 0x0a);
	ck_assert_uint_eq(in(MSR)&0xf0, 0x90);
	out(MCR, 0);
	out(LCR, 0);
	out(IIR, 0x01);
	ck_assert_uint_eq(in(IIR) >> 6, 3);
	/* FIFO size through loopback */
	out(IIR, 0x07);
	out(MCR, 0x10);
	for (int i = 0; i < 256; i++)
		out(DATA, (uint8_t)i);
	for (; in(LSR)&1; count++)
		ck_assert_uint_eq(in(DATA), count);
	ck_assert_uint_eq(count, 16);
	ck_assert_str_eq(sent(), ""); /* loopback is not heard outside */
	out(IIR, 0);
	ck_assert_uint_eq(in(IIR) >> 6, 0);
	finish();
}
END_TEST

/* ---- transmitter ---- */

START_TEST(thre_interrupt_drives_output)
{
	const char *text = "interrupt driven";

	start_ring();
	out(IIR, 0x01);
	bench_gsi_edges(b, 4);
	out(IER, 0x02); /* THR is empty: interrupts at once */
	for (const char *p = text; *p; p++) {
		ck_assert_uint_eq(bench_gsi_edges(b, 4), 1); /* a new edge for every character */
		ck_assert(bench_gsi(b, 4));
		ck_assert_uint_eq(in(IIR), 0xc2); /* reading it takes it back */
		ck_assert(!bench_gsi(b, 4));
		ck_assert_uint_eq(in(IIR), 0xc1);
		out(DATA, (uint8_t)*p);
	}
	ck_assert_str_eq(sent(), text);
	out(IER, 0);
	ck_assert(!bench_gsi(b, 4));
	finish();
}
END_TEST

/* REP OUTSB and REP OUTSW, as kernels and boot loaders print. */
START_TEST(string_output_is_complete)
{
	static char text[5000];

	start_ring();
	for (size_t i = 0; i < sizeof(text) - 1; i++)
		text[i] = (char)('!' + i % 90);
	out(IER, 0x02);
	in(IIR);
	bench_gsi_edges(b, 4);
	map_exit_pio(b, COM1, true, text, 1, sizeof(text) - 1);
	ck_assert_str_eq(sent(), text);
	ck_assert_uint_ge(bench_gsi_edges(b, 4), 1); /* empty again */
	out(IER, 0);
	map_exit_pio(b, COM1, true, "a\0b\0", 2, 2); /* the high bytes go to IER */
	ck_assert_str_eq(sent(), "ab");
	out(LCR, 0x80);
	map_exit_pio(b, COM1, true, "\1\2\3", 1, 3);
	ck_assert_uint_eq(in(DATA), 3); /* the divisor latch, not the transmitter */
	out(LCR, 0);
	ck_assert_str_eq(sent(), "");
	finish();
}
END_TEST

/* A peer that reads nothing: the line looks busy, nothing is lost, and all arrives once it reads. */
START_TEST(busy_backend_shows_in_lsr)
{
	static char got[1 << 20];
	unsigned sent_count = 0, got_count = 0;
	int fd = start_socket();

	out(IIR, 0x01);
	while (in(LSR)&0x20) {
		ck_assert_uint_lt(sent_count, 4000000);
		out(DATA, (uint8_t)(sent_count++ % 251));
		if (sent_count % 4096 == 0)
			bench_idle(b);
	}
	ck_assert_uint_eq(in(LSR)&0x60, 0);
	ck_assert_uint_gt(sent_count, CHARDEV_QUEUE_SIZE);
	out(IER, 0x02);
	ck_assert(!bench_gsi(b, 4));
	while (got_count < sent_count) {
		ssize_t n = read(fd, got, sizeof(got));

		for (ssize_t i = 0; i < n; i++)
			ck_assert_uint_eq((uint8_t)got[i], got_count++ % 251);
		bench_idle(b);
	}
	ck_assert_uint_eq(in(LSR)&0x60, 0x60);
	ck_assert(bench_gsi(b, 4)); /* THRE interrupt when it drained */
	close(fd);
	finish();
}
END_TEST

/* ---- receiver ---- */

START_TEST(receive_without_fifo)
{
	int fd = start_socket();

	out(IER, 0x01);
	type(fd, "ab");
	ck_assert(bench_gsi(b, 4));
	ck_assert_uint_eq(in(IIR), 0x04);
	ck_assert_uint_eq(in(DATA), 'a');
	bench_wait(b, have_data, NULL); /* no overrun: the second waited outside */
	ck_assert_uint_eq(in(LSR)&0x02, 0);
	ck_assert_uint_eq(in(DATA), 'b');
	ck_assert(!bench_gsi(b, 4));
	ck_assert_uint_eq(in(DATA), 'b'); /* an empty receiver repeats the last one */
	close(fd);
	finish();
}
END_TEST

static const struct {
	uint8_t fcr;
	unsigned level;
} triggers[] = {{0x01, 1}, {0x41, 4}, {0x81, 8}, {0xc1, 14}};

START_TEST(trigger_levels_and_time_out)
{
	char text[17] = "0123456789abcdef";
	unsigned level = triggers[_i].level;
	int fd = start_socket();

	out(LCR, 0x80);
	out(DATA, 1); /* 115200 baud, 8N1: a character takes 86.8 us */
	out(LCR, 0x03);
	out(IIR, triggers[_i].fcr);
	out(IER, 0x01);
	if (level > 1) {
		text[level - 1] = 0;
		type(fd, text);
		ck_assert(!bench_gsi(b, 4)); /* below the trigger */
		bench_step(b, 340 * NS_PER_US);
		ck_assert(!bench_gsi(b, 4));
		bench_step(b, 10 * NS_PER_US); /* four character times */
		ck_assert(bench_gsi(b, 4));
		ck_assert_uint_eq(in(IIR), 0xcc);
		ck_assert_uint_eq(in(DATA), '0'); /* reading takes the time-out back */
		ck_assert(!bench_gsi(b, 4));
		if (level > 2) {
			bench_step(b, 350 * NS_PER_US); /* and starts it anew */
			ck_assert_uint_eq(in(IIR), 0xcc);
		}
		while (in(LSR)&1)
			in(DATA);
		bench_step(b, NS_PER_MS); /* an empty FIFO has none */
		ck_assert(!bench_gsi(b, 4));
	}
	memcpy(text, "0123456789abcdef", 17);
	text[level] = 0;
	type(fd, text);
	ck_assert(bench_gsi(b, 4));
	ck_assert_uint_eq(in(IIR), 0xc4);
	ck_assert_uint_eq(in(DATA), '0');
	ck_assert(!bench_gsi(b, 4));
	close(fd);
	finish();
}
END_TEST

START_TEST(long_paste_arrives_complete)
{
	char text[3000], got[3000];
	size_t n = 0;
	int fd = start_socket();

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('A' + i % 57);
	out(IIR, 0xc1);
	ck_assert_int_eq(write(fd, text, sizeof(text)), (ssize_t)sizeof(text));
	while (n < sizeof(text)) {
		bench_wait(b, have_data, NULL);
		while (in(LSR)&1)
			got[n++] = (char)in(DATA);
	}
	ck_assert_mem_eq(got, text, sizeof(text));
	close(fd);
	finish();
}
END_TEST

START_TEST(break_and_its_priority)
{
	start_ring();
	out(IIR, 0xc1);
	out(IER, 0x0f);
	in(IIR); /* the THRE that enabling raised */
	chardev_inject_break(chardev_find("r"));
	ck_assert_uint_eq(in(IIR), 0xc6); /* receiver line status comes first */
	ck_assert_uint_eq(in(LSR), 0x60 | 0x80 | 0x10 | 0x08 | 0x01);
	ck_assert_uint_eq(in(LSR), 0x61); /* reading cleared it */
	bench_step(b, 10 * NS_PER_MS);
	ck_assert_uint_eq(in(IIR), 0xcc);
	ck_assert_uint_eq(in(DATA), 0);
	ck_assert_uint_eq(in(IIR), 0xc1);
	finish();
}
END_TEST

START_TEST(overrun_in_loopback)
{
	start_ring();
	out(MCR, 0x10);
	out(IER, 0x04);
	out(DATA, 'a');
	ck_assert_uint_eq(in(LSR), 0x61);
	out(DATA, 'b'); /* nobody read the first */
	ck_assert(bench_gsi(b, 4));
	ck_assert_uint_eq(in(IIR), 0x06);
	ck_assert_uint_eq(in(LSR), 0x63);
	ck_assert_uint_eq(in(LSR), 0x61);
	ck_assert_uint_eq(in(DATA), 'b'); /* without FIFO the new one wins */
	out(IIR, 0x01);
	for (int i = 0; i < 17; i++)
		out(DATA, (uint8_t)i);
	ck_assert_uint_eq(in(LSR)&2, 2);
	for (int i = 0; i < 16; i++)
		ck_assert_uint_eq(in(DATA), i); /* the FIFO keeps the old ones */
	out(DATA, 'x');
	out(IIR, 0x03); /* clear the receiver */
	ck_assert_uint_eq(in(LSR)&1, 0);
	finish();
}
END_TEST

START_TEST(modem_lines_loop_back)
{
	start_ring();
	out(MCR, 0x10);
	in(MSR);
	out(IER, 0x08);
	static const struct {
		uint8_t mcr, msr;
	} steps[] = {{0x12, 0x11}, {0x13, 0x32}, {0x17, 0x70}, {0x1b, 0xbc}, {0x10, 0x0b}};
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		out(MCR, steps[i].mcr);
		ck_assert_int_eq(bench_gsi(b, 4), (steps[i].msr & 0x0f) != 0);
		ck_assert_uint_eq(in(MSR), steps[i].msr);
		ck_assert(!bench_gsi(b, 4));
		ck_assert_uint_eq(in(MSR), steps[i].msr & 0xf0);
	}
	finish();
}
END_TEST

/* ---- ports ---- */

START_TEST(four_ports)
{
	static const struct {
		uint16_t port;
		uint8_t irq;
	} com[] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

	start("-serial null -serial null -serial null -serial null");
	for (int i = 0; i < 4; i++) {
		bench_outb(b, com[i].port + SCR, (uint8_t)(0x50 + i));
		bench_outb(b, com[i].port + IER, 2);
		ck_assert(bench_gsi(b, com[i].irq));
		bench_outb(b, com[i].port + IER, 0);
		ck_assert(!bench_gsi(b, com[i].irq));
	}
	for (int i = 0; i < 4; i++)
		ck_assert_uint_eq(bench_inb(b, com[i].port + SCR), 0x50 + i);
	finish();
}
END_TEST

static const struct {
	const char *options, *message;
} refused[] = {
	{"-device isa-serial,index=4", "index=0..3"},
	{"-device isa-serial,irq=99", "irq=99"},
	{"-device isa-serial,iobase=0xfffe", "0xfffe"},
	{"-device isa-serial,chardev=nobody", "nobody"},
	{"-chardev null,id=n -device isa-serial,chardev=n -device isa-serial,chardev=n", "in use"},
	{"-device isa-parallel,index=3", "index=0..2"},
	{"-serial nonsense", "nonsense"},
	{"-serial vc", "text consoles"},
};

START_TEST(bad_options)
{
	char text[200];
	const char *message;

	snprintf(text, sizeof(text), "-m 1 -nodefaults %s", refused[_i].options);
	message = bench_new_fails(text);
	ck_assert_msg(strstr(message, refused[_i].message) != NULL, "'%s' lacks '%s'", message, refused[_i].message);
}
END_TEST

START_TEST(state_survives)
{
	int fd = start_socket();

	out(LCR, 0x83);
	out(DATA, 3);
	out(LCR, 0x1b);
	out(IIR, 0x81);
	out(IER, 0x05);
	out(MCR, 0x0b);
	out(SCR, 0x77);
	type(fd, "xyz");
	close(fd);
	b = bench_save_load(b);
	ck_assert_uint_eq(in(LCR), 0x1b);
	ck_assert_uint_eq(in(IER), 0x05);
	ck_assert_uint_eq(in(MCR), 0x0b);
	ck_assert_uint_eq(in(SCR), 0x77);
	ck_assert(!bench_gsi(b, 4));
	bench_step(b, 2 * NS_PER_MS); /* the time-out was running */
	ck_assert(bench_gsi(b, 4));
	ck_assert_uint_eq(in(IIR), 0xcc);
	ck_assert_uint_eq(in(DATA), 'x');
	ck_assert_uint_eq(in(DATA), 'y');
	ck_assert_uint_eq(in(DATA), 'z');
	finish();
}
END_TEST

/* ---- parallel port ---- */

static void print(const char *s)
{
	for (; *s; s++) { /* as BIOS INT 17h does it */
		while (!(bench_inb(b, LPT1 + 1) & 0x80))
			continue;
		bench_outb(b, LPT1, (uint8_t)*s);
		bench_outb(b, LPT1 + 2, 0x0d);
		bench_outb(b, LPT1 + 2, 0x0c);
	}
}

START_TEST(parallel_prints)
{
	start("-chardev ringbuf,id=r -parallel chardev:r");
	ck_assert_uint_eq(bench_inb(b, LPT1 + 1) & 0xf8, 0xd8);
	print("Hello, printer\f");
	ck_assert_str_eq(sent(), "Hello, printer\f");
	ck_assert_uint_eq(bench_inb(b, LPT1), '\f');
	bench_outb(b, LPT1 + 2, 0x2c); /* direction: input, nothing drives the lines */
	ck_assert_uint_eq(bench_inb(b, LPT1), 0xff);
	finish();
}
END_TEST

START_TEST(parallel_interrupts)
{
	start("-chardev ringbuf,id=r -parallel chardev:r");
	bench_outb(b, LPT1 + 2, 0x1c);
	ck_assert(!bench_gsi(b, 7));
	bench_outb(b, LPT1, 'q');
	bench_outb(b, LPT1 + 2, 0x1d);
	ck_assert(!bench_gsi(b, 7));
	bench_outb(b, LPT1 + 2, 0x1c);
	ck_assert(bench_gsi(b, 7)); /* acknowledged */
	bench_inb(b, LPT1 + 1);
	ck_assert(!bench_gsi(b, 7));
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_inb(b, LPT1), 'q');
	finish();
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("serial");
	TCase *const cases[] = {t, NULL};

	tcase_set_timeout(t, 30);
	tcase_add_test(t, power_on_values);
	tcase_add_test(t, divisor_latch_hides_data_and_ier);
	tcase_add_test(t, linux_detects_a_16550a);
	tcase_add_test(t, thre_interrupt_drives_output);
	tcase_add_test(t, string_output_is_complete);
	tcase_add_test(t, busy_backend_shows_in_lsr);
	tcase_add_test(t, receive_without_fifo);
	tcase_add_loop_test(t, trigger_levels_and_time_out, 0, ARRAY_SIZE(triggers));
	tcase_add_test(t, long_paste_arrives_complete);
	tcase_add_test(t, break_and_its_priority);
	tcase_add_test(t, overrun_in_loopback);
	tcase_add_test(t, modem_lines_loop_back);
	tcase_add_test(t, four_ports);
	tcase_add_loop_test(t, bad_options, 0, ARRAY_SIZE(refused));
	tcase_add_test(t, state_survives);
	tcase_add_test(t, parallel_prints);
	tcase_add_test(t, parallel_interrupts);
	return run_suite("serial", cases);
}
