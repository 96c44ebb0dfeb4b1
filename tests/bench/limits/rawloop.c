/*
 * The limit for exit cost: KVM_RUN in a loop that answers every exit with as
 * little as possible and looks nothing up. Runs the same ROM as the VMMs do
 * (tests/bench/payloads/exits.c).
 *
 * usage: rawloop ROM
 *
 * The guest's report (debug console) is turned into one JSON line:
 * {"tsc_khz": N, "pio_out": [ns, ...], ...}, one number per round.
 */
#include "smallvm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum { RAM_SIZE = 16 << 20, REPORT_MAX = 16384 };

static char report[REPORT_MAX];
static size_t report_length;

static void answer_io(struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	size_t size = (size_t)run->io.size * run->io.count;

	if (run->io.direction == KVM_EXIT_IO_IN)
		memset(data, 0xff, size);
	else if (run->io.port == PORT_DEBUGCON && report_length + size < REPORT_MAX) {
		memcpy(report + report_length, data, size);
		report_length += size;
	}
}

static void run_guest(struct smallvm *vm)
{
	struct kvm_run *run = vm->run;
	for (;;) {
		if (ioctl(vm->vcpu, KVM_RUN, 0) < 0)
			die("KVM_RUN");
		switch (run->exit_reason) {
		case KVM_EXIT_IO:
			if (run->io.port == PORT_DEBUG_EXIT)
				return;
			answer_io(run);
			break;
		case KVM_EXIT_MMIO:
			if (!run->mmio.is_write)
				memset(run->mmio.data, 0xff, run->mmio.len);
			break;
		default:
			fprintf(stderr, "rawloop: unexpected exit %u\n", run->exit_reason);
			exit(1);
		}
	}
}

/* Print every round of one metric; the report names each metric once per round. */
static void print_metric(const char *name, double ticks_per_ns)
{
	printf(", \"%s\": [", name);
	const char *separator = "";
	for (const char *line = report; line; line = strchr(line, '\n'), line += line != NULL) {
		char found[32];
		unsigned amount;
		unsigned long long ticks;
		if (sscanf(line, "%31s %x %llx", found, &amount, &ticks) != 3 || strcmp(found, name))
			continue;
		printf("%s%.1f", separator, (double)ticks / ticks_per_ns / amount);
		separator = ", ";
	}
	printf("]");
}

int main(int argc, char **argv)
{
	static const char *const metrics[] = {
		"nop", "pio_out", "pio_in", "mmio_write", "mmio_read", "vga_write",
	};
	struct smallvm vm;

	if (argc != 2) {
		fprintf(stderr, "usage: rawloop ROM\n");
		return 2;
	}
	smallvm_create(&vm, argv[1], RAM_SIZE);
	int tsc_khz = ioctl(vm.vcpu, KVM_GET_TSC_KHZ, 0);
	if (tsc_khz <= 0)
		die("KVM_GET_TSC_KHZ");
	run_guest(&vm);

	printf("{\"tsc_khz\": %d", tsc_khz);
	for (size_t i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++)
		print_metric(metrics[i], tsc_khz / 1e6);
	printf("}\n");
	return 0;
}
