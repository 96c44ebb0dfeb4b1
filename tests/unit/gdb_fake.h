/* A guest for the gdb stub that is nothing but memory and registers: two CPUs, 64 KiB at address 0. */
#ifndef VMM_TESTS_GDB_FAKE_H
#define VMM_TESTS_GDB_FAKE_H

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "src/control/gdb_private.h"

#define FAKE_RAM 65536u

struct fake {
	struct cpu_regs regs[2];
	uint8_t ram[FAKE_RAM];
	bool running, refuse, killed;
	unsigned points, stops, resumes, sstep;
	uint8_t action[GDB_MAX_CPUS];
	char command[256];
	char sent[65536];
	size_t sent_len;
	struct gdb gdb;
};

static unsigned fake_cpus(void *opaque)
{
	return 2;
}

static inline bool fake_has_cpu(void *opaque, unsigned cpu)
{
	return cpu < 2;
}

static inline bool fake_running(void *opaque)
{
	return ((struct fake *)opaque)->running;
}

static void fake_stop(void *opaque)
{
	struct fake *f = opaque;

	f->running = false;
	f->stops++;
	gdb_stopped(&f->gdb, &(struct gdb_stop){.signal = GDB_SIGNAL_INT, .cpu = f->gdb.c_cpu});
}

static inline bool fake_resume(void *opaque, const uint8_t *action, unsigned sstep, struct err *e)
{
	struct fake *f = opaque;

	if (f->refuse) {
		err_set(e, EINVAL, "Resetting the Virtual Machine is required");
		return false;
	}
	memcpy(f->action, action, sizeof(f->action));
	f->sstep = sstep;
	f->running = true;
	f->resumes++;
	return true;
}

static int fake_get_regs(void *opaque, unsigned cpu, struct cpu_regs *r)
{
	*r = ((struct fake *)opaque)->regs[cpu];
	return 0;
}

static int fake_set_regs(void *opaque, unsigned cpu, const struct cpu_regs *r)
{
	((struct fake *)opaque)->regs[cpu] = *r;
	return 0;
}

static size_t fake_span(uint64_t addr, size_t len)
{
	return addr >= FAKE_RAM ? 0 : MIN(len, FAKE_RAM - addr);
}

/* Linear addresses are 0x10000000 above physical ones. */
static uint64_t fake_physical(bool physical, uint64_t addr)
{
	return physical ? addr : addr - 0x10000000;
}

static size_t fake_read(void *opaque, unsigned cpu, bool physical, uint64_t addr, void *buf, size_t len)
{
	struct fake *f = opaque;
	uint64_t at = fake_physical(physical, addr);
	size_t n = fake_span(at, len);

	if (n)
		memcpy(buf, f->ram + at, n);
	return n;
}

static size_t fake_write(void *opaque, unsigned cpu, bool physical, uint64_t addr, const void *buf, size_t len)
{
	struct fake *f = opaque;
	uint64_t at = fake_physical(physical, addr);
	size_t n = fake_span(at, len);

	if (n)
		memcpy(f->ram + at, buf, n);
	return n;
}

static int fake_set_point(void *opaque, unsigned cpu, enum gdb_point_type type, uint64_t addr, uint64_t len, bool on)
{
	struct fake *f = opaque;

	if (type == GDB_POINT_READ)
		return -ENOSYS;
	if (len > 8)
		return -EINVAL;
	f->points += on ? 1 : -1u;
	return 0;
}

static void fake_clear_points(void *opaque)
{
	((struct fake *)opaque)->points = 0;
}

static char *fake_monitor(void *opaque, const char *command)
{
	struct fake *f = opaque;

	snprintf(f->command, sizeof(f->command), "%s", command);
	return xasprintf("you said %s\n", command);
}

static void fake_kill(void *opaque)
{
	((struct fake *)opaque)->killed = true;
}

static void fake_send(void *opaque, const char *data, size_t len)
{
	struct fake *f = opaque;

	if (f->sent_len + len > sizeof(f->sent))
		f->sent_len = 0;
	memcpy(f->sent + f->sent_len, data, len);
	f->sent_len += len;
}

static const struct gdb_target fake_target = {
	.cpus = fake_cpus,
	.has_cpu = fake_has_cpu,
	.running = fake_running,
	.stop = fake_stop,
	.resume = fake_resume,
	.get_regs = fake_get_regs,
	.set_regs = fake_set_regs,
	.read = fake_read,
	.write = fake_write,
	.set_point = fake_set_point,
	.clear_points = fake_clear_points,
	.sstep_bits = GDB_STEP_NOIRQ,
	.monitor = fake_monitor,
	.kill = fake_kill,
};

static inline struct fake *fake_new(bool wide)
{
	struct fake *f = xzalloc(sizeof(*f));

	gdb_init(&f->gdb, &fake_target, f, wide, fake_send, f);
	return f;
}

static inline void fake_free(struct fake *f)
{
	gdb_free(&f->gdb);
	free(f);
}

#endif
