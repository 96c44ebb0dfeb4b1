/*
 * gdb's commands. One table row per packet; what is not in it is answered with an empty packet, as the protocol wants.
 * GDB manual, E.2 to E.4 and E.8. Threads are vCPUs: CPU 0 is thread 1 of process 1.
 *
 * Left out: non-stop mode, reverse execution, tracepoints, file transfer, catching system calls.
 */
#include "gdb_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DATA (GDB_MAX_PACKET / 2 - 32) /* bytes of memory per packet */

static void ok(struct gdb *g)
{
	gdb_reply(g, "OK");
}

/* Any E NN; gdb shows the number and nothing else. */
static void error(struct gdb *g, int code)
{
	gdb_begin(g);
	gdb_printf(g, "E%02x", (unsigned)code);
	gdb_end(g);
}

static void unsupported(struct gdb *g)
{
	gdb_reply(g, "");
}

static void done(struct gdb *g, int ret)
{
	if (ret == -ENOSYS)
		unsupported(g);
	else if (ret < 0)
		error(g, EINVAL);
	else
		ok(g);
}

/* Text up to the first of the stop characters: moved over; false if it is not what follows. */
static bool skip(const char **p, const char *text)
{
	size_t n = strlen(text);

	if (strncmp(*p, text, n))
		return false;
	*p += n;
	return true;
}

/* ---- threads ---- */

#define ANY_CPU (-1)
#define ALL     (-2)
#define NO_CPU  (-3)

static void put_thread(struct gdb *g, unsigned cpu)
{
	gdb_printf(g, g->multiprocess ? "p01.%02x" : "%02x", cpu + 1);
}

/* "5", "p1.5", "-1" all, "0" any, "p1" all of process 1. Moves on. */
static int take_thread(struct gdb *g, const char **p)
{
	uint64_t pid = 1, tid;

	if (skip(p, "p")) {
		if (skip(p, "-1"))
			pid = 1;
		else if (!gdb_take_number(p, &pid))
			return NO_CPU;
		if (pid > 1)
			return NO_CPU;
		if (!skip(p, "."))
			return ALL;
	}
	if (skip(p, "-1"))
		return ALL;
	if (!gdb_take_number(p, &tid))
		return NO_CPU;
	if (tid == 0)
		return ANY_CPU;
	return tid <= GDB_MAX_CPUS && g->target->has_cpu(g->opaque, (unsigned)tid - 1) ? (int)tid - 1 : NO_CPU;
}

static void select_thread(struct gdb *g, const char *p)
{
	char op = *p++;
	int cpu = take_thread(g, &p);

	if ((op != 'g' && op != 'c') || cpu == NO_CPU) {
		error(g, EINVAL);
		return;
	}
	if (cpu >= 0)
		*(op == 'g' ? &g->g_cpu : &g->c_cpu) = (unsigned)cpu;
	ok(g);
}

static void thread_alive(struct gdb *g, const char *p)
{
	if (take_thread(g, &p) == NO_CPU)
		error(g, EINVAL);
	else
		ok(g);
}

static void list_threads(struct gdb *g)
{
	unsigned cpus = g->target->cpus(g->opaque), n = 0;

	gdb_begin(g);
	for (; n < 64 && g->listed < cpus; g->listed++) {
		if (!g->target->has_cpu(g->opaque, g->listed)) /* unplugged */
			continue;
		gdb_put(g, n++ ? "," : "m");
		put_thread(g, g->listed);
	}
	if (!n)
		gdb_put(g, "l");
	gdb_end(g);
}

static void first_threads(struct gdb *g, const char *p)
{
	g->listed = 0;
	list_threads(g);
}

static void more_threads(struct gdb *g, const char *p)
{
	list_threads(g);
}

static void current_thread(struct gdb *g, const char *p)
{
	if (*p) { /* qCRC */
		unsupported(g);
		return;
	}
	gdb_begin(g);
	gdb_put(g, "QC");
	put_thread(g, g->g_cpu);
	gdb_end(g);
}

static void describe_thread(struct gdb *g, const char *p)
{
	int cpu = take_thread(g, &p);
	struct cpu_regs r;
	char text[64];

	if (cpu < 0 || g->target->get_regs(g->opaque, (unsigned)cpu, &r)) {
		error(g, EINVAL);
		return;
	}
	snprintf(text, sizeof(text), "CPU#%d [%s]", cpu, r.halted ? "halted" : "running");
	gdb_begin(g);
	gdb_put_hex(g, text, strlen(text));
	gdb_end(g);
}

/* ---- registers ---- */

static size_t read_linear(void *opaque, uint64_t linear, void *buf, size_t len)
{
	struct gdb *g = opaque;

	return g->target->read(g->opaque, g->g_cpu, false, linear, buf, len);
}

static void read_all_registers(struct gdb *g, const char *p)
{
	struct cpu_regs r;
	uint8_t buf[16];

	if (g->target->get_regs(g->opaque, g->g_cpu, &r)) {
		error(g, EINVAL);
		return;
	}
	gdb_begin(g);
	for (unsigned n = 0; n < gdb_regs_count(g->wide); n++)
		gdb_put_hex(g, buf, gdb_reg_get(g->wide, &r, n, buf));
	gdb_end(g);
}

static void write_all_registers(struct gdb *g, const char *p)
{
	size_t size = gdb_regs_size(g->wide), at = 0;
	struct cpu_regs r;
	uint8_t *all = xzalloc(size);

	if (!gdb_take_hex(p, all, size) || g->target->get_regs(g->opaque, g->g_cpu, &r)) {
		free(all);
		error(g, EINVAL);
		return;
	}
	for (unsigned n = 0; n < gdb_regs_count(g->wide); n++)
		at += gdb_reg_set(g->wide, &r, n, all + at, read_linear, g);
	free(all);
	done(g, g->target->set_regs(g->opaque, g->g_cpu, &r));
}

static void read_register(struct gdb *g, const char *p)
{
	uint64_t n;
	struct cpu_regs r;
	uint8_t buf[16];
	size_t size = 0;

	if (gdb_take_number(&p, &n) && n < gdb_regs_count(g->wide) && !g->target->get_regs(g->opaque, g->g_cpu, &r))
		size = gdb_reg_get(g->wide, &r, (unsigned)n, buf);
	if (!size) {
		error(g, EINVAL);
		return;
	}
	gdb_begin(g);
	gdb_put_hex(g, buf, size);
	gdb_end(g);
}

static void write_register(struct gdb *g, const char *p)
{
	uint64_t n;
	struct cpu_regs r;
	uint8_t buf[16];
	size_t size = 0;

	if (gdb_take_number(&p, &n) && skip(&p, "=") && n < gdb_regs_count(g->wide) &&
	    !g->target->get_regs(g->opaque, g->g_cpu, &r))
		size = gdb_reg_get(g->wide, &r, (unsigned)n, buf);
	if (!size || !gdb_take_hex(p, buf, size)) {
		error(g, EINVAL);
		return;
	}
	gdb_reg_set(g->wide, &r, (unsigned)n, buf, read_linear, g);
	done(g, g->target->set_regs(g->opaque, g->g_cpu, &r));
}

/* ---- memory ---- */

static bool take_range(const char **p, char end, uint64_t *addr, uint64_t *len)
{
	return gdb_take_number(p, addr) && skip(p, ",") && gdb_take_number(p, len) && (!end || *(*p)++ == end);
}

static size_t read_some(struct gdb *g, const char *p, uint8_t *buf)
{
	uint64_t addr, len;

	if (!take_range(&p, 0, &addr, &len))
		return 0;
	return g->target->read(g->opaque, g->g_cpu, g->physical, addr, buf, MIN(len, MAX_DATA));
}

/* Less than was asked for is an answer; nothing is none. */
static void read_memory(struct gdb *g, const char *p)
{
	uint8_t *buf = xzalloc(MAX_DATA);
	size_t n = read_some(g, p, buf);

	if (n) {
		gdb_begin(g);
		gdb_put_hex(g, buf, n);
		gdb_end(g);
	} else {
		error(g, EFAULT);
	}
	free(buf);
}

static void read_memory_binary(struct gdb *g, const char *p)
{
	uint8_t *buf = xzalloc(MAX_DATA);
	size_t n = read_some(g, p, buf);

	if (n) {
		gdb_begin(g);
		gdb_put(g, "b");
		gdb_put_binary(g, buf, n);
		gdb_end(g);
	} else {
		error(g, EFAULT);
	}
	free(buf);
}

static void write_bytes(struct gdb *g, uint64_t addr, const void *data, size_t len)
{
	if (g->target->write(g->opaque, g->g_cpu, g->physical, addr, data, len) == len)
		ok(g);
	else
		error(g, EFAULT);
}

static void write_memory(struct gdb *g, const char *p)
{
	uint64_t addr, len;
	uint8_t *buf;

	if (!take_range(&p, ':', &addr, &len) || len > GDB_MAX_PACKET / 2) {
		error(g, EINVAL);
		return;
	}
	buf = xzalloc(len + 1);
	if (gdb_take_hex(p, buf, len))
		write_bytes(g, addr, buf, len);
	else
		error(g, EINVAL);
	free(buf);
}

static void write_memory_binary(struct gdb *g, const char *p, size_t left)
{
	const char *start = p;
	uint64_t addr, len;

	if (!take_range(&p, ':', &addr, &len) || len != left - (size_t)(p - start))
		error(g, EINVAL);
	else
		write_bytes(g, addr, p, len);
}

/* ---- breakpoints ---- */

static void set_point(struct gdb *g, const char *p, bool on)
{
	uint64_t type, addr, len;

	if (!gdb_take_number(&p, &type) || !skip(&p, ",") || !take_range(&p, 0, &addr, &len))
		error(g, EINVAL);
	else if (type > GDB_POINT_ACCESS)
		unsupported(g);
	else
		done(g, g->target->set_point(g->opaque, g->g_cpu, (enum gdb_point_type)type, addr, len, on));
}

static void insert_point(struct gdb *g, const char *p)
{
	set_point(g, p, true);
}

static void remove_point(struct gdb *g, const char *p)
{
	set_point(g, p, false);
}

/* ---- running ---- */

static const char *watch_name(int type)
{
	return type == GDB_POINT_WRITE ? "watch" : type == GDB_POINT_READ ? "rwatch" : "awatch";
}

static void stop_reply(struct gdb *g)
{
	const struct gdb_stop *s = &g->stop;

	gdb_begin(g);
	gdb_printf(g, "T%02x", (unsigned)s->signal);
	if (s->watch)
		gdb_printf(g, "%s:%" PRIx64 ";", watch_name(s->watch), s->addr);
	else if (s->software && g->swbreak)
		gdb_put(g, "swbreak:;");
	else if (s->hardware && g->hwbreak)
		gdb_put(g, "hwbreak:;");
	gdb_put(g, "thread:");
	put_thread(g, s->cpu);
	gdb_put(g, ";");
	gdb_end(g);
}

void gdb_stopped(struct gdb *g, const struct gdb_stop *stop)
{
	g->stop = *stop;
	g->c_cpu = g->g_cpu = stop->cpu;
	if (!g->waiting)
		return;
	g->waiting = false;
	stop_reply(g);
}

void gdb_interrupt(struct gdb *g)
{
	if (g->target->running(g->opaque)) {
		g->target->stop(g->opaque);
	} else if (g->waiting) { /* asleep, or resetting */
		g->target->stop(g->opaque);
		gdb_stopped(g, &(struct gdb_stop){.signal = GDB_SIGNAL_INT, .cpu = g->c_cpu});
	}
}

static void say(struct gdb *g, const char *text)
{
	for (size_t left = strlen(text); left;) {
		size_t part = MIN(left, MAX_DATA);

		gdb_begin(g);
		gdb_put(g, "O");
		gdb_put_hex(g, text, part);
		gdb_end(g);
		text += part;
		left -= part;
	}
}

static void resume(struct gdb *g, const uint8_t *action)
{
	struct err e = ERR_INIT;

	g->waiting = true;
	if (g->target->resume(g->opaque, action, g->sstep, &e))
		return;
	if (g->waiting) {
		say(g, "vmm: ");
		say(g, e.msg);
		say(g, "\n");
		gdb_stopped(g, &g->stop);
	}
}

/* c, s, C and S: one CPU steps, the others go on, as in QEMU. */
static void resume_simple(struct gdb *g, const char *p, bool with_signal, bool step)
{
	uint8_t action[GDB_MAX_CPUS];
	uint64_t addr, signal;
	struct cpu_regs r;

	if (with_signal && (!gdb_take_number(&p, &signal) || (*p && *p++ != ';'))) {
		error(g, EINVAL);
		return;
	}
	if (*p) {
		if (!gdb_take_number(&p, &addr) || *p || g->target->get_regs(g->opaque, g->c_cpu, &r)) {
			error(g, EINVAL);
			return;
		}
		r.rip = addr;
		g->target->set_regs(g->opaque, g->c_cpu, &r);
	}
	memset(action, GDB_CONTINUE, sizeof(action));
	if (step)
		action[g->c_cpu] = GDB_STEP;
	resume(g, action);
}

static void resume_all(struct gdb *g, const char *p)
{
	resume_simple(g, p, false, false);
}

static void resume_all_signal(struct gdb *g, const char *p)
{
	resume_simple(g, p, true, false);
}

static void step(struct gdb *g, const char *p)
{
	resume_simple(g, p, false, true);
}

static void step_signal(struct gdb *g, const char *p)
{
	resume_simple(g, p, true, true);
}

/* One ";action[:thread]"; the first that names a CPU counts for it. False: malformed. */
static bool take_action(struct gdb *g, const char **p, uint8_t *action, bool *chosen)
{
	unsigned n = g->target->cpus(g->opaque);
	int what, cpu = ALL;
	uint64_t signal;
	char letter;

	if (!skip(p, ";"))
		return false;
	letter = **p;
	if (!letter)
		return false;
	(*p)++;
	what = letter == 'c' || letter == 'C' ? GDB_CONTINUE : letter == 's' || letter == 'S' ? GDB_STEP : -1;
	if (what < 0 || ((letter == 'C' || letter == 'S') && !gdb_take_number(p, &signal)))
		return false;
	if (skip(p, ":"))
		cpu = take_thread(g, p);
	if (cpu == NO_CPU)
		return false;
	if (cpu == ANY_CPU)
		cpu = (int)g->c_cpu;
	for (unsigned i = 0; i < n; i++)
		if ((cpu == ALL || (unsigned)cpu == i) && !chosen[i]) {
			action[i] = (uint8_t)what;
			chosen[i] = true;
		}
	return true;
}

static void vcont(struct gdb *g, const char *p)
{
	uint8_t action[GDB_MAX_CPUS] = {GDB_STAY};
	bool chosen[GDB_MAX_CPUS] = {false};

	do {
		if (!take_action(g, &p, action, chosen)) {
			error(g, EINVAL);
			return;
		}
	} while (*p);
	for (unsigned i = 0; i < g->target->cpus(g->opaque); i++)
		if (chosen[i]) {
			resume(g, action);
			return;
		}
	error(g, EINVAL);
}

static void vcont_actions(struct gdb *g, const char *p)
{
	gdb_reply(g, "vCont;c;C;s;S");
}

static void why_stopped(struct gdb *g, const char *p)
{
	/* What an earlier client left behind is not this one's. */
	g->target->clear_points(g->opaque);
	stop_reply(g);
}

static void detach(struct gdb *g, const char *p)
{
	uint8_t action[GDB_MAX_CPUS];
	struct err e = ERR_INIT;

	memset(action, GDB_CONTINUE, sizeof(action));
	g->target->clear_points(g->opaque);
	g->waiting = false;
	g->target->resume(g->opaque, action, g->sstep, &e); /* a guest that needs a reset stays as it is */
	ok(g);
}

static void kill_guest(struct gdb *g, const char *p)
{
	g->target->kill(g->opaque);
}

static void kill_acknowledged(struct gdb *g, const char *p)
{
	ok(g);
	g->target->kill(g->opaque);
}

/* ---- queries ---- */

static void supported(struct gdb *g, const char *p)
{
	g->multiprocess = strstr(p, "multiprocess+") != NULL;
	g->swbreak = strstr(p, "swbreak+") != NULL;
	g->hwbreak = strstr(p, "hwbreak+") != NULL;
	gdb_begin(g);
	gdb_printf(g,
		   "PacketSize=%x;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+;"
		   "binary-upload+%s",
		   GDB_MAX_PACKET, g->multiprocess ? ";multiprocess+" : "");
	gdb_end(g);
}

static void no_ack_mode(struct gdb *g, const char *p)
{
	ok(g);
	g->no_ack = true; /* from the next packet on */
	g->last_len = 0;
}

/* "FILE:offset,length" */
static void transfer_features(struct gdb *g, const char *p)
{
	uint64_t offset, len;
	size_t size;
	char *xml;

	if (!skip(&p, "target.xml:")) {
		error(g, 0);
		return;
	}
	if (!take_range(&p, 0, &offset, &len)) {
		error(g, EINVAL);
		return;
	}
	xml = gdb_regs_xml(g->wide);
	size = strlen(xml);
	offset = MIN(offset, size);
	len = MIN(len, MIN(size - offset, MAX_DATA));
	gdb_begin(g);
	gdb_put(g, offset + len < size ? "m" : "l");
	gdb_put_binary(g, xml + offset, len);
	gdb_end(g);
	free(xml);
}

static void monitor(struct gdb *g, const char *p)
{
	size_t n = strlen(p) / 2;
	char *line = xzalloc(n + 1), *output;

	if (!gdb_take_hex(p, (uint8_t *)line, n)) {
		error(g, EINVAL);
	} else {
		output = g->target->monitor(g->opaque, line);
		say(g, output);
		free(output);
		ok(g);
	}
	free(line);
}

static void attached(struct gdb *g, const char *p)
{
	gdb_reply(g, "1"); /* quitting gdb detaches instead of killing */
}

static void get_physical_mode(struct gdb *g, const char *p)
{
	gdb_reply(g, g->physical ? "1" : "0");
}

static void set_physical_mode(struct gdb *g, const char *p)
{
	uint64_t on;

	if (!gdb_take_number(&p, &on) || *p) {
		error(g, EINVAL);
		return;
	}
	g->physical = on != 0;
	ok(g);
}

static void sstep_bits(struct gdb *g, const char *p)
{
	gdb_begin(g);
	gdb_put(g, "ENABLE=1");
	if (g->target->sstep_bits & GDB_STEP_NOIRQ)
		gdb_put(g, ",NOIRQ=2");
	if (g->target->sstep_bits & GDB_STEP_NOTIMER)
		gdb_put(g, ",NOTIMER=4");
	gdb_end(g);
}

static void get_sstep(struct gdb *g, const char *p)
{
	gdb_begin(g);
	gdb_printf(g, "0x%x", g->sstep | 1);
	gdb_end(g);
}

static void set_sstep(struct gdb *g, const char *p)
{
	uint64_t bits;

	if (!gdb_take_number(&p, &bits) || bits & ~(uint64_t)(g->target->sstep_bits | 1)) {
		error(g, EINVAL);
		return;
	}
	g->sstep = (unsigned)bits & ~1u;
	ok(g);
}

/* ---- the table ---- */

/* Longer names before their beginnings. */
static const struct {
	const char *name;
	void (*fn)(struct gdb *g, const char *p);
} commands[] = {
	{"?", why_stopped},
	{"g", read_all_registers},
	{"G", write_all_registers},
	{"p", read_register},
	{"P", write_register},
	{"m", read_memory},
	{"x", read_memory_binary},
	{"M", write_memory},
	{"Z", insert_point},
	{"z", remove_point},
	{"H", select_thread},
	{"T", thread_alive},
	{"c", resume_all},
	{"C", resume_all_signal},
	{"s", step},
	{"S", step_signal},
	{"D", detach},
	{"k", kill_guest},
	{"vCont?", vcont_actions},
	{"vCont", vcont},
	{"vKill;", kill_acknowledged},
	{"QStartNoAckMode", no_ack_mode},
	{"Qqemu.PhyMemMode:", set_physical_mode},
	{"Qqemu.sstep=", set_sstep},
	{"qAttached", attached},
	{"qC", current_thread},
	{"qfThreadInfo", first_threads},
	{"qsThreadInfo", more_threads},
	{"qThreadExtraInfo,", describe_thread},
	{"qSupported", supported},
	{"qXfer:features:read:", transfer_features},
	{"qRcmd,", monitor},
	{"qqemu.PhyMemMode", get_physical_mode},
	{"qqemu.sstepbits", sstep_bits},
	{"qqemu.sstep", get_sstep},
};

void gdb_command(struct gdb *g, char *packet, size_t len)
{
	/* A client that talks believes that the guest is stopped; somebody else may have resumed it. */
	if (g->target->running(g->opaque))
		g->target->stop(g->opaque);
	if (packet[0] == 'X') {
		write_memory_binary(g, packet + 1, len - 1);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		size_t n = strlen(commands[i].name);

		if (!strncmp(packet, commands[i].name, n)) {
			commands[i].fn(g, packet + n);
			return;
		}
	}
	unsupported(g);
}
