/*
 * What a debugger is tried on: code at CPL 3 and CPL 0, a counter to watch, and an int3 of the guest's own.
 *
 * Goes round until it receives a character, printing a line every 64 rounds: calls at_user() at CPL 3, at_kernel() at
 * CPL 0, which writes `watched` and with "int3=1" on the command line executes an int3, whose handler counts (software
 * KVMs cannot emulate that).  Ends with "PASS debug rounds=N int3=N".
 */
#include "payload.h"

volatile uint64_t rounds, watched, own_int3;
static bool with_int3;
volatile uint64_t never_written = 0x1122334455667788;

__attribute__((noinline)) uint64_t at_user(uint64_t n)
{
	__asm__ volatile("" : "+r"(n));
	return n * 3 + 1;
}

__attribute__((noinline)) long at_kernel(long n, long more)
{
	watched = (uint64_t)n ^ 0x5555;
	if (with_int3)
		__asm__ volatile("int3");
	return n + more;
}

static void on_int3(unsigned vector __attribute__((unused)))
{
	own_int3++;
}

int payload_main(void)
{
	uint64_t sum = 0;

	with_int3 = option("int3", 0);
	irq_handler[3] = on_int3;
	put_string("ready\n");
	while (get_char() < 0) {
		uint64_t n = ++rounds; /* a debugger may change it at any time */
		sum += at_user(n);
		if (ring0(at_kernel, (long)n, 1) != (long)n + 1 || sum == 0) {
			put_string("FAIL debug\n");
			return 0x11;
		}
		if (rounds % 64 == 0) {
			put_string("round ");
			put_dec(rounds);
			put_string("\n");
		}
	}
	put_string(own_int3 == (with_int3 ? rounds : 0) ? "PASS debug rounds=" : "FAIL debug rounds=");
	put_dec(rounds);
	put_string(" int3=");
	put_dec(own_int3);
	put_string("\n");
	return 0x10;
}
