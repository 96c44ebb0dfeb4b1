#include "kvm_guest.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/lib/suite.h"

struct kvm_guest t;

static void on_pio(void *opaque, uint16_t port, bool write, void *data, unsigned size, uint32_t count)
{
	uint64_t v = 0;

	pthread_mutex_lock(&t.lock);
	if (!write)
		for (uint32_t i = 0; i < count * size; i++)
			((uint8_t *)data)[i] = (uint8_t)(0xa0 + t.n_strings + i);
	memcpy(&v, data, MIN(size, 8u));
	if (port == 0x30) {
		for (uint32_t i = 0; i < count * size && t.n_strings < sizeof(t.strings); i++)
			t.strings[t.n_strings++] = ((uint8_t *)data)[i];
		t.max_count = MAX(t.max_count, count);
	} else if (port == 0x60) {
		t.done++;
		t.done_value = (uint8_t)v;
	} else if (port == 0x70) { /* the end of an interrupt: our PIC's line may rise again */
		t.done++;
	} else if (t.n_log < ARRAY_SIZE(t.log)) {
		t.log[t.n_log++] = (struct log_entry){true, write, port, size, count, v};
	}
	while (t.block) {
		t.blocked = true;
		pthread_cond_broadcast(&t.changed);
		pthread_cond_wait(&t.changed, &t.lock);
	}
	pthread_cond_broadcast(&t.changed);
	pthread_mutex_unlock(&t.lock);
}

static void on_mmio(void *opaque, uint64_t addr, bool write, void *data, unsigned len)
{
	uint64_t v = 0;

	pthread_mutex_lock(&t.lock);
	if (!write)
		put_le(data, 0x8877665544332211ull, len);
	memcpy(&v, data, len);
	if (t.n_log < ARRAY_SIZE(t.log))
		t.log[t.n_log++] = (struct log_entry){false, write, addr, len, 1, v};
	pthread_mutex_unlock(&t.lock);
}

static void on_eoi(void *opaque, uint8_t vector)
{
	pthread_mutex_lock(&t.lock);
	t.eois++;
	t.last_eoi = vector;
	pthread_cond_broadcast(&t.changed);
	pthread_mutex_unlock(&t.lock);
}

static uint8_t on_pic_ack(void *opaque)
{
	pthread_mutex_lock(&t.lock);
	t.acks++;
	t.pic_level = false;
	pthread_mutex_unlock(&t.lock);
	kvm_pic_output(t.vm, false);
	return 0x25;
}

static void on_triple(void *opaque, unsigned cpu)
{
	pthread_mutex_lock(&t.lock);
	t.triple++;
	pthread_cond_broadcast(&t.changed);
	pthread_mutex_unlock(&t.lock);
}

static void on_error(void *opaque, unsigned cpu, const char *text)
{
	pthread_mutex_lock(&t.lock);
	t.errors++;
	snprintf(t.error, sizeof(t.error), "%s", text);
	pthread_cond_broadcast(&t.changed);
	pthread_mutex_unlock(&t.lock);
}

static const struct kvm_exit_ops ops = {
	.pio = on_pio,
	.mmio = on_mmio,
	.ioapic_eoi = on_eoi,
	.pic_ack = on_pic_ack,
	.triple_fault = on_triple,
	.internal_error = on_error,
};

void wait_for(const unsigned *counter, unsigned n)
{
	struct timespec end;
	int r = 0;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += TIMEOUT_S;
	pthread_mutex_lock(&t.lock);
	while (*counter < n && r == 0)
		r = pthread_cond_timedwait(&t.changed, &t.lock, &end);
	unsigned have = *counter;
	char error[512];
	memcpy(error, t.error, sizeof(error));
	pthread_mutex_unlock(&t.lock);
	ck_assert_msg(have >= n, "got %u of %u; %s", have, n, error);
}

unsigned now(const unsigned *counter)
{
	pthread_mutex_lock(&t.lock);
	unsigned v = *counter;
	pthread_mutex_unlock(&t.lock);
	return v;
}

static void *page_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ck_assert(p != MAP_FAILED);
	return p;
}

void set_memory(unsigned page, bool log_dirty)
{
	struct err e = ERR_INIT;
	const struct kvm_memory list[] = {
		{0, 0x80000, t.ram, false, log_dirty},
		{0x80000, 0x1000, t.page[page], false, log_dirty},
		{ROM_BASE, 0x10000, t.rom, true, false},
	};

	ck_assert_msg(kvm_set_memory(t.vm, list, ARRAY_SIZE(list), &e) == 0, "%s", e.msg);
}

void build_cpu(enum irqchip_mode mode, unsigned cpus, const char *cpu)
{
	struct err e = ERR_INIT;
	struct smp_opts smp = {.cpus = cpus, .maxcpus = cpus, .sockets = 1, .dies = 1, .cores = cpus, .threads = 1};

	memset(&t, 0, sizeof(t));
	pthread_mutex_init(&t.lock, NULL);
	pthread_cond_init(&t.changed, NULL);
	t.ram = page_memory(RAM_SIZE);
	t.rom = page_memory(0x10000);
	t.page[0] = page_memory(0x1000);
	t.page[1] = page_memory(0x1000);
	t.vm = kvm_vm_new(&t.config, &ops, &t, &e);
	ck_assert_msg(t.vm, "%s", e.msg);
	ck_assert_msg(kvm_irqchip_create(t.vm, mode, &e) == 0, "%s", e.msg);
	set_memory(0, false);
	ck_assert_msg(kvm_cpu_setup(t.vm, cpu, &smp, &e) == 0, "%s", e.msg);
	for (unsigned i = 0; i < cpus; i++)
		ck_assert_msg(kvm_vcpu_new(t.vm, i, &e), "%s", e.msg);
}

void build(enum irqchip_mode mode, unsigned cpus)
{
	build_cpu(mode, cpus, "host");
}

void start(void)
{
	const struct kvm_boot_state b = {.mode = KVM_BOOT_REAL, .rip = CODE, .rsp = 0x7000, .rbx = 0x1234};
	struct err e = ERR_INIT;

	for (unsigned i = 0; i < kvm_vcpu_count(t.vm); i++)
		kvm_vcpu_reset(kvm_vcpu_get(t.vm, i));
	ck_assert_int_eq(kvm_vcpu_set_boot_state(kvm_vcpu_get(t.vm, 0), &b), 0);
	ck_assert_msg(kvm_vm_ready(t.vm, &e) == 0, "%s", e.msg);
	kvm_vcpus_resume(t.vm);
}

void teardown(void)
{
	kvm_vcpus_pause(t.vm);
	kvm_vcpus_stop(t.vm);
	kvm_vm_free(t.vm);
	munmap(t.ram, RAM_SIZE);
	munmap(t.rom, 0x10000);
	munmap(t.page[0], 0x1000);
	munmap(t.page[1], 0x1000);
}

/* ---- running ---- */

int kvm_tests(const char *suite, const struct kvm_test *list, size_t n)
{
	TCase **cases = xzalloc((n + 1) * sizeof(*cases));
	struct err e = ERR_INIT;
	int failed;

	if (!kvm_available(&e)) {
		fprintf(stderr, "skipped: %s\n", e.msg);
		return 77;
	}
	for (size_t i = 0; i < n; i++) {
		cases[i] = tcase_create(list[i].name);
		tcase_set_timeout(cases[i], 60);
		tcase_add_loop_test(cases[i], list[i].test, 0, list[i].variants);
	}
	failed = run_suite(suite, cases);
	free(cases);
	return failed;
}
