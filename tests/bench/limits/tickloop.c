/*
 * The limit for an idle guest: KVM with its interrupt controllers and its 8254, and a loop around KVM_RUN for the few
 * exits that are left, running tests/bench/payloads/tick.c.
 *
 * usage: tickloop ROM SECONDS
 *
 * Prints one JSON line, {"cpu_percent": N}: the process' share of one core over SECONDS.
 */
#include "smallvm.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>

enum { RAM_SIZE = 16 << 20 };

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Run until the deadline; every read of a port is answered with ones. */
static void run_until(struct smallvm *vm, uint64_t deadline_ns)
{
	struct kvm_run *run = vm->run;

	while (now_ns() < deadline_ns) {
		if (ioctl(vm->vcpu, KVM_RUN, 0) < 0)
			die("KVM_RUN");
		if (run->exit_reason != KVM_EXIT_IO) {
			fprintf(stderr, "tickloop: unexpected exit %u\n", run->exit_reason);
			exit(1);
		}
		if (run->io.direction == KVM_EXIT_IO_IN)
			*((uint8_t *)run + run->io.data_offset) = 0xff;
	}
}

int main(int argc, char **argv)
{
	struct smallvm vm;
	double seconds = argc == 3 ? strtod(argv[2], NULL) : 0;

	if (seconds <= 0 || seconds > 3600) {
		fprintf(stderr, "usage: tickloop ROM SECONDS\n");
		return 2;
	}
	smallvm_create_pc(&vm, argv[1], RAM_SIZE);
	run_until(&vm, now_ns() + 500000000u); /* set up, and the first ticks */
	uint64_t cpu = cpu_ns(), start = now_ns();
	run_until(&vm, start + (uint64_t)(seconds * 1e9));
	printf("{\"cpu_percent\": %.4f}\n", 100.0 * (double)(cpu_ns() - cpu) / (double)(now_ns() - start));
	return 0;
}
