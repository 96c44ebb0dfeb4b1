/*
 * The running machine under gdb: breakpoints, watchpoints, steps, memory.
 *
 * A software breakpoint is an int3 in guest RAM. It remembers its physical address: page tables may change before it is
 * taken away. What the client reads or writes over it is the byte it replaced. After a reset it is put back over the
 * code that was loaded again; code that firmware loads later wipes it out, which is what hardware breakpoints are for.
 * A migration or a saved state contains it, as in QEMU.
 *
 * Traps arrive on vCPU threads, which read the lists below under `lock`, a leaf. They are changed on the main thread
 * while no vCPU runs.
 */
#include "gdb_target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "hmp.h"
#include "vmm/log.h"

#define INT3     0xcc
#define PAGE     4096u
#define DR6_STEP BIT(14)

struct point {
	uint64_t addr;     /* linear */
	uint64_t physical; /* software: where the int3 is */
	uint8_t saved;
	bool in_place; /* the int3 is in memory */
};

struct watch_point {
	uint64_t addr;
	uint8_t len;
	enum gdb_point_type type;
};

struct gdb_machine {
	struct board *board;
	pthread_mutex_t lock;
	struct point software[GDB_MAX_POINTS];
	unsigned n_software;
	struct watch_point hw[KVM_DEBUG_HW]; /* in the order of DR0..DR3 */
	unsigned n_hw;
	bool stepping[GDB_MAX_CPUS];
	struct gdb_stop trap[GDB_MAX_CPUS]; /* not told yet; signal 0: none */
	bool any_trap;
	unsigned trap_cpu; /* the first */
};

/* ---- traps, on vCPU threads ---- */

static bool software_at(const struct gdb_machine *m, uint64_t pc)
{
	for (unsigned i = 0; i < m->n_software; i++)
		if (m->software[i].addr == pc)
			return true;
	return false;
}

static bool classify(const struct gdb_machine *m, unsigned cpu, const struct kvm_trap *t, struct gdb_stop *stop)
{
	*stop = (struct gdb_stop){.signal = GDB_SIGNAL_TRAP, .cpu = cpu};
	if (t->exception == 3)
		return stop->software = software_at(m, t->pc);
	for (unsigned i = 0; i < m->n_hw; i++)
		if (t->dr6 & BIT(i)) {
			stop->hardware = m->hw[i].type == GDB_POINT_HARDWARE;
			if (!stop->hardware) {
				stop->watch = m->hw[i].type;
				stop->addr = m->hw[i].addr;
			}
			return true;
		}
	return t->dr6 & DR6_STEP && m->stepping[cpu];
}

static bool trapped(void *opaque, unsigned cpu, const struct kvm_trap *t)
{
	struct gdb_machine *m = opaque;
	struct gdb_stop stop;
	bool ours;

	if (cpu >= GDB_MAX_CPUS)
		return false;
	pthread_mutex_lock(&m->lock);
	ours = classify(m, cpu, t, &stop);
	if (ours) {
		m->trap[cpu] = stop;
		if (!m->any_trap)
			m->trap_cpu = cpu;
		m->any_trap = true;
	}
	pthread_mutex_unlock(&m->lock);
	return ours;
}

/* ---- memory ---- */

static size_t read_physical(void *opaque, uint64_t addr, void *buf, size_t len)
{
	struct gdb_machine *m = opaque;
	size_t n = machine_debug_read(m->board, addr, buf, len);

	for (unsigned i = 0; i < m->n_software; i++) {
		const struct point *p = &m->software[i];

		if (p->in_place && p->physical - addr < n)
			((uint8_t *)buf)[p->physical - addr] = p->saved;
	}
	return n;
}

/* The bytes under breakpoints go into what is put back later. */
static size_t write_physical(struct gdb_machine *m, uint64_t addr, const void *data, size_t len)
{
	uint8_t *copy = xzalloc(len + 1);
	size_t n;

	memcpy(copy, data, len);
	for (unsigned i = 0; i < m->n_software; i++) {
		struct point *p = &m->software[i];

		if (p->in_place && p->physical - addr < len) {
			p->saved = copy[p->physical - addr];
			copy[p->physical - addr] = INT3;
		}
	}
	n = machine_debug_write(m->board, addr, copy, len);
	free(copy);
	return n;
}

static size_t transfer(struct gdb_machine *m, unsigned cpu, bool physical, uint64_t addr, uint8_t *buf, size_t len,
		       bool write)
{
	struct cpu_regs r;
	size_t total = 0;

	if (!physical && machine_get_cpu_regs(m->board, cpu, &r))
		return 0;
	while (total < len) {
		size_t part = MIN(len - total, PAGE - (addr + total) % PAGE), n;
		uint64_t to = addr + total;

		if (!physical && !cpu_translate(&r, addr + total, &to, read_physical, m))
			break;
		n = write ? write_physical(m, to, buf + total, part) : read_physical(m, to, buf + total, part);
		total += n;
		if (n < part)
			break;
	}
	return total;
}

static size_t target_read(void *opaque, unsigned cpu, bool physical, uint64_t addr, void *buf, size_t len)
{
	return transfer(opaque, cpu, physical, addr, buf, len, false);
}

static size_t target_write(void *opaque, unsigned cpu, bool physical, uint64_t addr, const void *buf, size_t len)
{
	return transfer(opaque, cpu, physical, addr, (uint8_t *)(uintptr_t)buf, len, true);
}

/* ---- breakpoints ---- */

static int place(struct gdb_machine *m, struct point *p)
{
	uint8_t int3 = INT3;

	p->in_place = machine_debug_read(m->board, p->physical, &p->saved, 1) == 1 &&
		      machine_debug_write(m->board, p->physical, &int3, 1) == 1;
	return p->in_place ? 0 : -EFAULT;
}

static void take_away(struct gdb_machine *m, struct point *p)
{
	uint8_t now;

	if (p->in_place && machine_debug_read(m->board, p->physical, &now, 1) == 1 && now == INT3)
		machine_debug_write(m->board, p->physical, &p->saved, 1);
	p->in_place = false;
}

static int set_software(struct gdb_machine *m, unsigned cpu, uint64_t addr, bool on)
{
	struct point p = {.addr = addr};
	struct cpu_regs r;
	unsigned i = 0;

	while (i < m->n_software && m->software[i].addr != addr)
		i++;
	if (!on && i < m->n_software) {
		take_away(m, &m->software[i]);
		m->software[i] = m->software[--m->n_software];
	}
	if (!on || i < m->n_software)
		return 0; /* the protocol wants both idempotent */
	if (m->n_software == GDB_MAX_POINTS)
		return -ENOSPC;
	if (machine_get_cpu_regs(m->board, cpu, &r) || !cpu_translate(&r, addr, &p.physical, read_physical, m) ||
	    place(m, &p))
		return -EFAULT;
	m->software[m->n_software++] = p;
	return 0;
}

static int set_hardware(struct gdb_machine *m, enum gdb_point_type type, uint64_t addr, uint64_t len, bool on)
{
	unsigned i = 0;

	if (type == GDB_POINT_READ) /* the debug registers know write, and read or write */
		return -ENOSYS;
	if (type == GDB_POINT_HARDWARE)
		len = 1;
	if ((len != 1 && len != 2 && len != 4 && len != 8) || addr % len)
		return -EINVAL;
	while (i < m->n_hw && (m->hw[i].addr != addr || m->hw[i].len != len || m->hw[i].type != type))
		i++;
	if (on && i == m->n_hw) {
		if (m->n_hw == KVM_DEBUG_HW)
			return -ENOSPC;
		m->hw[m->n_hw++] = (struct watch_point){addr, (uint8_t)len, type};
	} else if (!on && i < m->n_hw) {
		memmove(&m->hw[i], &m->hw[i + 1], (m->n_hw - i - 1) * sizeof(m->hw[0]));
		m->n_hw--;
	}
	return 0;
}

static int target_set_point(void *opaque, unsigned cpu, enum gdb_point_type type, uint64_t addr, uint64_t len, bool on)
{
	struct gdb_machine *m = opaque;
	int r;

	pthread_mutex_lock(&m->lock);
	r = type == GDB_POINT_SOFTWARE ? set_software(m, cpu, addr, on) : set_hardware(m, type, addr, len, on);
	pthread_mutex_unlock(&m->lock);
	return r;
}

/* What KVM shall trap, for every CPU. */
static void apply(struct gdb_machine *m, const uint8_t *action, unsigned sstep)
{
	static const uint8_t dr7_type[] = {[GDB_POINT_HARDWARE] = 0, [GDB_POINT_WRITE] = 1, [GDB_POINT_ACCESS] = 3};
	struct kvm_debug d = {.software = m->n_software > 0, .n_hw = m->n_hw};

	for (unsigned i = 0; i < m->n_hw; i++) {
		d.hw[i].addr = m->hw[i].addr;
		d.hw[i].len = m->hw[i].len;
		d.hw[i].type = dr7_type[m->hw[i].type];
	}
	for (unsigned cpu = 0; cpu < MIN(machine_cpu_count(m->board), GDB_MAX_CPUS); cpu++) {
		int r;

		m->stepping[cpu] = d.step = action && action[cpu] == GDB_STEP;
		d.block_irqs = sstep & GDB_STEP_NOIRQ;
		r = machine_set_cpu_debug(m->board, cpu, &d, action && action[cpu] == GDB_STAY);
		if (r && r != -ENOENT)
			log_warn("gdb", "KVM does not take the breakpoints of CPU %u: %s", cpu, strerror(-r));
	}
}

static void target_clear_points(void *opaque)
{
	struct gdb_machine *m = opaque;

	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < m->n_software; i++)
		take_away(m, &m->software[i]);
	m->n_software = m->n_hw = 0;
	memset(m->trap, 0, sizeof(m->trap));
	m->any_trap = false;
	pthread_mutex_unlock(&m->lock);
	apply(m, NULL, 0);
}

/* New code may have been loaded over the int3s. */
static void after_reset(void *opaque)
{
	struct gdb_machine *m = opaque;

	for (unsigned i = 0; i < m->n_software; i++) {
		struct point *p = &m->software[i];
		uint8_t now;

		if (machine_debug_read(m->board, p->physical, &now, 1) == 1 && (now != INT3 || !p->in_place))
			place(m, p);
	}
}

/* ---- running ---- */

static unsigned target_cpus(void *opaque)
{
	return MIN(machine_cpu_count(((struct gdb_machine *)opaque)->board), GDB_MAX_CPUS);
}

static bool target_has_cpu(void *opaque, unsigned cpu)
{
	return machine_has_cpu(((struct gdb_machine *)opaque)->board, cpu);
}

static bool target_running(void *opaque)
{
	return machine_running(((struct gdb_machine *)opaque)->board);
}

static void target_stop(void *opaque)
{
	machine_stop(((struct gdb_machine *)opaque)->board, RUN_PAUSED);
}

/* Data traps of other CPUs that happened before all had stopped: they are not repeated, so each is told in its turn. */
static bool left_over(struct gdb_machine *m, unsigned *cpu)
{
	for (*cpu = 0; *cpu < GDB_MAX_CPUS; (*cpu)++)
		if (m->trap[*cpu].watch)
			return true;
	return false;
}

static bool target_resume(void *opaque, const uint8_t *action, unsigned sstep, struct err *e)
{
	struct gdb_machine *m = opaque;
	unsigned cpu;

	apply(m, action, sstep);
	if (machine_cont(m->board, e))
		return false;
	if (left_over(m, &cpu)) {
		m->any_trap = true;
		m->trap_cpu = cpu;
		machine_stop(m->board, RUN_DEBUG);
	}
	return true;
}

struct gdb_stop gdb_machine_why(struct gdb_machine *m, enum run_state s, unsigned cpu)
{
	static const int signals[] = {
		[RUN_PAUSED] = GDB_SIGNAL_INT,          [RUN_SHUTDOWN] = GDB_SIGNAL_QUIT,
		[RUN_IO_ERROR] = GDB_SIGNAL_IO,         [RUN_WATCHDOG] = GDB_SIGNAL_ALRM,
		[RUN_INTERNAL_ERROR] = GDB_SIGNAL_ABRT, [RUN_DEBUG] = GDB_SIGNAL_TRAP,
	};
	struct gdb_stop stop = {.signal = GDB_SIGNAL_UNKNOWN, .cpu = cpu};

	if (s < ARRAY_SIZE(signals) && signals[s])
		stop.signal = signals[s];
	pthread_mutex_lock(&m->lock);
	if (m->any_trap) {
		stop = m->trap[m->trap_cpu];
		m->trap[m->trap_cpu] = (struct gdb_stop){0};
		m->any_trap = false;
		for (unsigned i = 0; i < GDB_MAX_CPUS; i++) /* int3s happen again */
			if (!m->trap[i].watch)
				m->trap[i] = (struct gdb_stop){0};
	}
	pthread_mutex_unlock(&m->lock);
	return stop;
}

static int target_get_regs(void *opaque, unsigned cpu, struct cpu_regs *r)
{
	return machine_get_cpu_regs(((struct gdb_machine *)opaque)->board, cpu, r);
}

static int target_set_regs(void *opaque, unsigned cpu, const struct cpu_regs *r)
{
	return machine_set_cpu_regs(((struct gdb_machine *)opaque)->board, cpu, r);
}

static char *target_monitor(void *opaque, const char *command)
{
	return hmp_run_text(((struct gdb_machine *)opaque)->board, command);
}

static void target_kill(void *opaque)
{
	log_info("gdb", "the debugger ends the guest");
	machine_quit(((struct gdb_machine *)opaque)->board, SHUTDOWN_HOST_UI);
}

/* ---- life ---- */

static const struct machine_debugger debugger = {.trapped = trapped, .reset = after_reset};

struct gdb_target gdb_machine_target(struct gdb_machine *m)
{
	return (struct gdb_target){
		.cpus = target_cpus,
		.has_cpu = target_has_cpu,
		.running = target_running,
		.stop = target_stop,
		.resume = target_resume,
		.get_regs = target_get_regs,
		.set_regs = target_set_regs,
		.read = target_read,
		.write = target_write,
		.set_point = target_set_point,
		.clear_points = target_clear_points,
		.sstep_bits = machine_can_step_without_irqs(m->board) ? GDB_STEP_NOIRQ : 0,
		.monitor = target_monitor,
		.kill = target_kill,
	};
}

bool gdb_machine_is_wide(struct gdb_machine *m)
{
	return machine_cpu_has_long_mode(m->board);
}

struct gdb_machine *gdb_machine_new(struct board *b)
{
	struct gdb_machine *m = xzalloc(sizeof(*m));

	m->board = b;
	pthread_mutex_init(&m->lock, NULL);
	machine_set_debugger(b, &debugger, m);
	return m;
}

void gdb_machine_free(struct gdb_machine *m)
{
	if (!m)
		return;
	target_clear_points(m);
	machine_set_debugger(m->board, NULL, NULL);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
