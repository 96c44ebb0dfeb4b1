/*
 * The limit for start-up: the smallest VM that runs a ROM
 * (tests/bench/payloads/first.S), from exec to its first guest instruction.
 *
 * usage: smallestvm [--marker] ROM
 *
 * Prints one JSON line, {"first_instruction_us": N}, measured from its own
 * exec(). With --marker it writes the guest's byte to stdout at once instead,
 * as a VMM's debug console does, for a driver that keeps the time itself.
 */
#include "smallvm.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define START_VARIABLE "SMALLESTVM_START_NS"

enum { RAM_SIZE = 512 << 20 };

static void wait_for_port(struct smallvm *vm, uint16_t port)
{
	do {
		if (ioctl(vm->vcpu, KVM_RUN, 0) < 0)
			die("KVM_RUN");
		if (vm->run->exit_reason != KVM_EXIT_IO) {
			fprintf(stderr, "smallestvm: unexpected exit %u\n", vm->run->exit_reason);
			exit(1);
		}
	} while (vm->run->io.port != port);
}

/* Start again with the time of the exec() in the environment. */
static _Noreturn void exec_self(char **argv)
{
	char start[32];
	snprintf(start, sizeof(start), "%llu", (unsigned long long)now_ns());
	setenv(START_VARIABLE, start, 1);
	execv("/proc/self/exe", argv);
	die("/proc/self/exe");
}

int main(int argc, char **argv)
{
	bool marker = argc == 3 && !strcmp(argv[1], "--marker");
	const char *start = getenv(START_VARIABLE);
	struct smallvm vm;

	if (argc != 2 && !marker) {
		fprintf(stderr, "usage: smallestvm [--marker] ROM\n");
		return 2;
	}
	if (!marker && !start)
		exec_self(argv);

	smallvm_create(&vm, argv[argc - 1], RAM_SIZE);
	wait_for_port(&vm, PORT_DEBUGCON);
	uint64_t first = now_ns();
	if (marker && write(STDOUT_FILENO, (char *)vm.run + vm.run->io.data_offset, 1) != 1)
		die("stdout");
	if (!marker)
		printf("{\"first_instruction_us\": %.1f}\n", (double)(first - strtoull(start, NULL, 10)) / 1000);
	wait_for_port(&vm, PORT_DEBUG_EXIT);
	return 0;
}
