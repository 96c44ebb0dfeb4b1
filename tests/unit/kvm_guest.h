/*
 * A guest of the KVM room's tests: 1 MiB of RAM, a small real-mode program, no devices and no board. What its exits
 * bring is written down in t. One at a time; every function fails the test where KVM fails.
 */
#ifndef TEST_KVM_GUEST_H
#define TEST_KVM_GUEST_H

#include <check.h>
#include <pthread.h>

#include "src/kvm/kvm_internal.h"

#define RAM_SIZE  (1024 * 1024ull)
#define CODE      0x1000
#define ROM_BASE  0xe0000ull
#define MMIO_BASE 0xd0000ull
#define TIMEOUT_S 8

/* 16-bit programs, assembled into this file. */
#define PROGRAM(name, text)                                                                     \
	__asm__(".pushsection .rodata\n.code16\n.global prog_" #name "\nprog_" #name ":\n" text \
		"\n.global prog_" #name "_end\nprog_" #name "_end:\n.code64\n.popsection\n");   \
	extern const uint8_t prog_##name[], prog_##name##_end[]
#define LOAD(name) memcpy(t.ram + CODE, prog_##name, (size_t)(prog_##name##_end - prog_##name))

#define PORT_DATA "0x10"
#define PORT_DONE "0x60" /* not a port of the chips KVM has */

struct log_entry {
	bool pio, write;
	uint64_t addr;
	unsigned size;
	uint32_t count;
	uint64_t value;
};

struct kvm_guest {
	struct config config;
	struct kvm_vm *vm;
	uint8_t *ram, *rom, *page[2];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct log_entry log[64];
	unsigned n_log, done, eois, triple, errors, acks;
	uint8_t strings[1024];
	unsigned n_strings, max_count;
	uint8_t last_eoi, done_value;
	char error[512];
	bool pic_level, block, blocked;
};
extern struct kvm_guest t;

/* Wait until *counter (one of t's) reaches n; the guest decides how soon, but within TIMEOUT_S. */
void wait_for(const unsigned *counter, unsigned n);
/* A counter as it is now, while handlers may change it. */
unsigned now(const unsigned *counter);

/* Map t's memory: RAM, page t.page[page] above it, the ROM. */
void set_memory(unsigned page, bool log_dirty);
/* A new guest with this -cpu model, or with the host's. */
void build_cpu(enum irqchip_mode mode, unsigned cpus, const char *cpu);
void build(enum irqchip_mode mode, unsigned cpus);
/* Reset all processors, put the first at CODE in real mode, let them run. */
void start(void);
void teardown(void);

/* Run one suite's tests, each a case of its own name (CK_RUN_CASE=name runs it alone): main()'s value. Skips, with the
   reason, where there is no KVM. */
struct kvm_test {
	const char *name;
	const TTest *test;
	int variants; /* runs with _i 0, 1 ...; of two, 1 is kernel-irqchip=split */
};
#define KVM_TEST(test, variants)      \
	{                             \
#test, test, variants \
	}
int kvm_tests(const char *suite, const struct kvm_test *list, size_t n);

#endif
