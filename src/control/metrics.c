/*
 * The table of metrics: name, type, unit, help, and the function that gives the samples. OpenMetrics 1.0 and
 * Prometheus' text format 0.0.4 differ in where a counter's "_total" stands, in "# UNIT" and in the end.
 *
 * Names: vmm_ for what is ours, vmm_kvm_ for KVM's own statistics under the kernel's names, process_ for what
 * Prometheus' client libraries call so. A new family is one more row.
 */
#include "metrics.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "host_stats.h"
#include "vmm-config.h"
#include "vmm/balloon.h"
#include "vmm/block.h"
#include "vmm/net.h"
#include "vmm/clock.h"
#include "vmm/kvm.h"
#include "vmm/log.h"
#include "vmm/machine.h"
#include "vmm/migration.h"

#define COUNTER   METRIC_COUNTER
#define GAUGE     METRIC_GAUGE
#define HISTOGRAM METRIC_HISTOGRAM
#define INFO      METRIC_INFO

struct sink;
struct metric {
	const char *name;
	enum metric_type type;
	const char *unit; /* what the name ends in, or NULL */
	const char *help;
	void (*collect)(struct sink *s);
};

struct sink {
	FILE *out;
	struct board *board;
	enum metric_format format;
	const struct metric *m;
	bool headed;
	void (*sample)(void *opaque, const struct metric_sample *m); /* instead of text */
	void *opaque;
};

/* ---- writing ---- */

static void head(struct sink *s)
{
	static const char *const open_types[] = {"counter", "gauge", "histogram", "info"};
	static const char *const text_types[] = {"counter", "gauge", "histogram", "gauge"};
	bool openmetrics = s->format == METRICS_OPENMETRICS;
	const char *suffix = openmetrics ? "" : s->m->type == COUNTER ? "_total" : s->m->type == INFO ? "_info" : "";

	if (s->headed)
		return;
	s->headed = true;
	fprintf(s->out, "# TYPE %s%s %s\n", s->m->name, suffix, (openmetrics ? open_types : text_types)[s->m->type]);
	if (openmetrics && s->m->unit)
		fprintf(s->out, "# UNIT %s %s\n", s->m->name, s->m->unit);
	fprintf(s->out, "# HELP %s%s %s\n", s->m->name, suffix, s->m->help);
}

/* A label's value may be what an operator or a file name says. Both formats escape alike. */
static void put_escaped(FILE *out, const char *value)
{
	for (const char *p = value; *p; p++)
		if (*p == '\\' || *p == '"')
			fprintf(out, "\\%c", *p);
		else if (*p == '\n')
			fputs("\\n", out);
		else
			fputc((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e ? '?' : *p, out);
}

/* labels: name, value, name, value ... NULL */
static void put_name(struct sink *s, const char *suffix, const char *const *labels)
{
	bool any = false;

	head(s);
	fprintf(s->out, "%s%s", s->m->name, suffix);
	for (; labels && labels[0]; labels += 2) {
		fprintf(s->out, "%c%s=\"", any ? ',' : '{', labels[0]);
		put_escaped(s->out, labels[1]);
		fputc('"', s->out);
		any = true;
	}
	fputs(any ? "} " : " ", s->out);
}

#define LABELS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char *suffix_of(const struct metric *m)
{
	return m->type == COUNTER ? "_total" : m->type == INFO ? "_info" : "";
}

/* For metrics_samples(): true. values in units of 10^exponent. */
static bool sampled(struct sink *s, const char *const *labels, const uint64_t *values, unsigned n, int exponent)
{
	struct metric_sample m = {.family = s->m->name,
				  .type = s->m->type,
				  .unit = s->m->unit,
				  .labels = labels,
				  .values = values,
				  .n = n,
				  .exponent = exponent};

	if (s->sample)
		s->sample(s->opaque, &m);
	return s->sample;
}

static void put_number(struct sink *s, const char *const *labels, uint64_t value)
{
	if (sampled(s, labels, &value, 1, 0))
		return;
	put_name(s, suffix_of(s->m), labels);
	fprintf(s->out, "%" PRIu64 "\n", value);
}

static void put_seconds(struct sink *s, const char *const *labels, uint64_t ns)
{
	if (sampled(s, labels, &ns, 1, -9))
		return;
	put_name(s, suffix_of(s->m), labels);
	fprintf(s->out, "%llu.%09llu\n", ns / NS_PER_SEC, ns % NS_PER_SEC);
}

static void put_real(struct sink *s, const char *const *labels, double value)
{
	put_name(s, suffix_of(s->m), labels);
	fprintf(s->out, "%.9g\n", value);
}

static void put_percent(struct sink *s, const char *const *labels, uint64_t percent)
{
	if (!sampled(s, labels, &percent, 1, -2))
		put_real(s, labels, (double)percent / 100);
}

/* One bucket; the caller has accumulated. le: NULL is infinity. labels leave two places free. */
static void put_bucket(struct sink *s, const char **labels, unsigned n, double le, bool infinite, uint64_t count)
{
	char text[32];

	if (infinite)
		snprintf(text, sizeof(text), "+Inf");
	else
		snprintf(text, sizeof(text), "%.9g%s", le, le == (double)(int64_t)le && le < 1e9 ? ".0" : "");
	labels[n] = "le";
	labels[n + 1] = text;
	labels[n + 2] = NULL;
	put_name(s, "_bucket", labels);
	fprintf(s->out, "%" PRIu64 "\n", count);
	labels[n] = NULL;
}

/* ---- identity ---- */

static void collect_build(struct sink *s)
{
	put_number(s, LABELS("version", VMM_VERSION), 1);
}

static void collect_guest(struct sink *s)
{
	const struct config *c = machine_config(s->board);
	char uuid[37], *p = uuid;

	for (int i = 0; i < 16; i++)
		p += sprintf(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", c->uuid[i]);
	put_number(s, LABELS("name", c->name ? c->name : "", "uuid", uuid, "machine", c->machine.type), 1);
}

static void collect_state(struct sink *s)
{
	enum run_state now = machine_run_state(s->board);

	for (int i = 0; i <= RUN_GUEST_PANICKED; i++)
		put_number(s, LABELS("state", run_state_name((enum run_state)i)), (enum run_state)i == now);
}

static void collect_guest_memory(struct sink *s)
{
	put_number(s, NULL, machine_config(s->board)->memory.size);
}

static void collect_balloon(struct sink *s)
{
	uint64_t bytes;

	if (machine_balloon_get(s->board, &bytes, NULL) == 0)
		put_number(s, NULL, bytes);
}

static void collect_guest_time(struct sink *s)
{
	put_seconds(s, NULL, clock_ns(VCLOCK_VIRTUAL));
}

/* ---- vCPUs ---- */

static void each_vcpu(struct sink *s, void (*fn)(struct sink *s, struct kvm_vcpu *c, const char *label))
{
	struct kvm_vm *vm = machine_kvm(s->board);
	char label[16];

	for (unsigned i = 0; vm && i < kvm_vcpu_count(vm); i++) {
		struct kvm_vcpu *c = kvm_vcpu_get(vm, i);

		if (!c)
			continue;
		snprintf(label, sizeof(label), "%u", i);
		fn(s, c, label);
	}
}

static void count_vcpu(struct sink *s, struct kvm_vcpu *c, const char *label)
{
	put_number(s, LABELS("vcpu", label), 1);
}

static void collect_vcpus(struct sink *s)
{
	each_vcpu(s, count_vcpu);
}

static void vcpu_exits(struct sink *s, struct kvm_vcpu *c, const char *label)
{
	const char *names[64];
	uint64_t counts[64];
	size_t n = kvm_exit_counts(c, names, counts, ARRAY_SIZE(names));

	for (size_t i = 0; i < n; i++)
		put_number(s, LABELS("vcpu", label, "reason", names[i]), counts[i]);
}

static void collect_exits(struct sink *s)
{
	each_vcpu(s, vcpu_exits);
}

static void vcpu_cpu_time(struct sink *s, struct kvm_vcpu *c, const char *label)
{
	struct host_thread_times t;

	if (!host_thread_times(kvm_vcpu_thread_id(c), &t))
		return;
	put_seconds(s, LABELS("vcpu", label, "mode", "guest"), t.guest_ns);
	put_seconds(s, LABELS("vcpu", label, "mode", "host"), t.cpu_ns - t.guest_ns);
}

static void collect_cpu_time(struct sink *s)
{
	each_vcpu(s, vcpu_cpu_time);
}

static void vcpu_steal(struct sink *s, struct kvm_vcpu *c, const char *label)
{
	struct host_thread_times t;

	if (host_thread_times(kvm_vcpu_thread_id(c), &t))
		put_seconds(s, LABELS("vcpu", label), t.wait_ns);
}

static void collect_steal(struct sink *s)
{
	each_vcpu(s, vcpu_steal);
}

/* ---- KVM's own statistics: families by the kernel's names ---- */

struct kvm_values {
	unsigned vcpu;
	uint64_t *value;
};

/* "halt_wait_ns" in 10^-9 seconds -> "halt_wait_seconds" */
static void family_name(char *name, size_t size, const char *prefix, const struct kvm_stat *st)
{
	size_t len = strlen(st->name);

	if (st->unit == KVM_STAT_SECONDS && len > 3 && !strcmp(st->name + len - 3, "_ns"))
		len -= 3;
	snprintf(name, size, "vmm_kvm_%s_%.*s%s", prefix, (int)len, st->name,
		 st->unit == KVM_STAT_SECONDS ? "_seconds"
		 : st->unit == KVM_STAT_BYTES ? "_bytes"
					      : "");
	for (char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p))
			*p = '_';
}

static double scale_of(const struct kvm_stat *st)
{
	double scale = 1;

	for (int i = 0; i < abs(st->exponent); i++)
		scale = st->exponent < 0 ? scale / st->base : scale * st->base;
	return scale;
}

static void put_histogram(struct sink *s, const struct kvm_stat *st, const uint64_t *value, const char **labels,
			  unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < st->size; i++) {
		double le = st->type == KVM_STAT_LINEAR_HISTOGRAM ? (double)(i + 1) * st->bucket_size
								  : (double)(1ull << MIN(i, 63u));

		sum += value[i];
		put_bucket(s, labels, n, le * scale_of(st), i + 1 == st->size, sum);
	}
}

static void put_kvm_value(struct sink *s, const struct kvm_stat *st, const uint64_t *value, const char **labels,
			  unsigned n)
{
	if (st->type >= KVM_STAT_LINEAR_HISTOGRAM)
		put_histogram(s, st, value, labels, n);
	else if (st->exponent)
		put_real(s, labels, (double)*value * scale_of(st));
	else
		put_number(s, labels, *value);
}

static void put_kvm_family(struct sink *s, const char *prefix, const struct kvm_stat *st, const struct kvm_values *v,
			   size_t n, size_t at)
{
	char name[128], help[160];
	struct metric m = {.name = name, .help = help};

	family_name(name, sizeof(name), prefix, st);
	snprintf(help, sizeof(help), "KVM's statistic %s, see Documentation/virt/kvm of the kernel.", st->name);
	m.type = st->type == KVM_STAT_CUMULATIVE ? COUNTER : st->type >= KVM_STAT_LINEAR_HISTOGRAM ? HISTOGRAM : GAUGE;
	m.unit = st->unit == KVM_STAT_SECONDS ? "seconds" : st->unit == KVM_STAT_BYTES ? "bytes" : NULL;
	s->m = &m;
	s->headed = false;
	for (size_t i = 0; i < n; i++) {
		const char *labels[8] = {NULL};
		char label[16];

		snprintf(label, sizeof(label), "%u", v[i].vcpu);
		if (!strcmp(prefix, "vcpu")) {
			labels[0] = "vcpu";
			labels[1] = label;
		}
		put_kvm_value(s, st, v[i].value + at, labels, labels[0] ? 2 : 0);
	}
}

static void put_kvm_families(struct sink *s, const char *prefix, const struct kvm_stat *stats, int n_stats,
			     struct kvm_values *v, size_t n)
{
	const struct metric *row = s->m;
	size_t at = 0;

	for (int i = 0; i < n_stats; at += stats[i++].size)
		put_kvm_family(s, prefix, &stats[i], v, n, at);
	for (size_t i = 0; i < n; i++)
		free(v[i].value);
	s->m = row;
}

static void collect_kvm_vcpu(struct sink *s)
{
	struct kvm_vm *vm = machine_kvm(s->board);
	struct kvm_values *v = xcalloc(vm ? kvm_vcpu_count(vm) + 1 : 1, sizeof(*v));
	const struct kvm_stat *stats = NULL;
	size_t n = 0;
	int n_stats = 0;

	for (unsigned i = 0; vm && i < kvm_vcpu_count(vm); i++) {
		int r = kvm_stats_get(vm, (int)i, &stats, &v[n].value);

		if (r < 0)
			continue;
		n_stats = r;
		v[n++].vcpu = i;
	}
	put_kvm_families(s, "vcpu", stats, n_stats, v, n);
	free(v);
}

static void collect_kvm_vm(struct sink *s)
{
	struct kvm_vm *vm = machine_kvm(s->board);
	const struct kvm_stat *stats;
	struct kvm_values v = {0};
	int n = vm ? kvm_stats_get(vm, -1, &stats, &v.value) : -1;

	if (n >= 0)
		put_kvm_families(s, "vm", stats, n, &v, 1);
}

/* Injected interrupts under a name of our own, because everybody asks for them. */
static void vcpu_interrupts(struct sink *s, struct kvm_vcpu *c, const char *label)
{
	static const char *const names[][2] = {{"irq_injections", "irq"}, {"nmi_injections", "nmi"}};
	const struct kvm_stat *stats;
	uint64_t *value;
	size_t at = 0;
	int n = kvm_stats_get(machine_kvm(s->board), atoi(label), &stats, &value);

	for (int i = 0; i < n; at += stats[i++].size)
		for (size_t k = 0; k < ARRAY_SIZE(names); k++)
			if (!strcmp(stats[i].name, names[k][0]))
				put_number(s, LABELS("vcpu", label, "kind", names[k][1]), value[at]);
	if (n >= 0)
		free(value);
}

static void collect_interrupts(struct sink *s)
{
	each_vcpu(s, vcpu_interrupts);
}

/* ---- drives ---- */

static const char *const op_names[] = {"read", "write", "flush", "discard", "write_zeroes"};

/* Drives as query-blockstats lists them: those of -drive, and nodes that a device uses. */
static void each_drive(struct sink *s, void (*fn)(struct sink *s, const struct block *b, const char *label,
						  const struct block_stats *st))
{
	struct block_stats st;

	for (struct block *b = block_next(NULL); b; b = block_next(b)) {
		if (block_is_node(b))
			continue;
		block_get_stats(b, &st);
		fn(s, b, *block_id(b) ? block_id(b) : block_owner(b) ? block_owner(b) : "", &st);
	}
}

#define PER_OPERATION(name, member)                                                                       \
	static void drive_##name(struct sink *s, const struct block *b, const char *label,                \
				 const struct block_stats *st)                                            \
	{                                                                                                 \
		for (size_t op = 0; op < ARRAY_SIZE(op_names); op++)                                      \
			put_number(s, LABELS("drive", label, "operation", op_names[op]), st->member[op]); \
	}                                                                                                 \
	static void collect_##name(struct sink *s)                                                        \
	{                                                                                                 \
		each_drive(s, drive_##name);                                                              \
	}
PER_OPERATION(operations, ops)
PER_OPERATION(bytes, bytes)
PER_OPERATION(errors, errors)
PER_OPERATION(invalid, invalid)

#define LATENCY_FIRST 10 /* the first bin ends at 2^10 ns */

static void drive_latency(struct sink *s, const struct block *b, const char *label, const struct block_stats *st)
{
	for (size_t op = 0; op < ARRAY_SIZE(op_names); op++) {
		const char *labels[8] = {"drive", label, "operation", op_names[op]};
		uint64_t sum = 0, bins[LATENCY_FIRST + BLOCK_LATENCY_BINS] = {0};

		for (unsigned i = 0; i < BLOCK_LATENCY_BINS; i++)
			bins[LATENCY_FIRST + i] = st->latency[op][i];
		if (sampled(s, labels, bins, ARRAY_SIZE(bins), -9))
			continue;
		for (unsigned i = 0; i < BLOCK_LATENCY_BINS; i++) {
			sum += st->latency[op][i];
			put_bucket(s, labels, 4, (double)(1ull << (LATENCY_FIRST + i)) / 1e9,
				   i + 1 == BLOCK_LATENCY_BINS, sum);
		}
		put_name(s, "_sum", labels);
		fprintf(s->out, "%.9f\n", (double)st->time_ns[op] / 1e9);
		put_name(s, "_count", labels);
		fprintf(s->out, "%" PRIu64 "\n", sum);
	}
}

static void collect_latency(struct sink *s)
{
	each_drive(s, drive_latency);
}

static void drive_depth(struct sink *s, const struct block *b, const char *label, const struct block_stats *st)
{
	put_number(s, LABELS("drive", label), block_inflight(b));
}

static void collect_depth(struct sink *s)
{
	each_drive(s, drive_depth);
}

static void drive_size(struct sink *s, const struct block *b, const char *label, const struct block_stats *st)
{
	put_number(s, LABELS("drive", label), block_size(b));
}

static void collect_size(struct sink *s)
{
	each_drive(s, drive_size);
}

/* ---- network cards ---- */

static const struct {
	const char *direction;
	size_t packets, bytes, dropped;
} directions[] = {
	{"receive", offsetof(struct net_stats, rx_packets), offsetof(struct net_stats, rx_bytes),
	 offsetof(struct net_stats, rx_dropped)},
	{"transmit", offsetof(struct net_stats, tx_packets), offsetof(struct net_stats, tx_bytes),
	 offsetof(struct net_stats, tx_dropped)},
};

#define PER_DIRECTION(name, member)                                                                             \
	static void collect_net_##name(struct sink *s)                                                          \
	{                                                                                                       \
		for (struct nic *n = nic_next(NULL); n; n = nic_next(n)) {                                      \
			struct net_stats st;                                                                    \
			nic_get_stats(n, &st);                                                                  \
			for (size_t i = 0; i < ARRAY_SIZE(directions); i++)                                     \
				put_number(s, LABELS("nic", nic_name(n), "direction", directions[i].direction), \
					   *(uint64_t *)((char *)&st + directions[i].member));                  \
		}                                                                                               \
	}
PER_DIRECTION(packets, packets)
PER_DIRECTION(bytes, bytes)
PER_DIRECTION(dropped, dropped)

static void collect_net_link(struct sink *s)
{
	for (struct nic *n = nic_next(NULL); n; n = nic_next(n))
		put_number(s, LABELS("nic", nic_name(n)), nic_link_up(n));
}

/* ---- migration ---- */

static bool migration_is_active(enum migration_status status)
{
	return status != MIGRATION_NONE && status != MIGRATION_COMPLETED && status != MIGRATION_FAILED &&
	       status != MIGRATION_CANCELLED;
}

static void collect_migration_active(struct sink *s)
{
	struct migration_info i;

	migration_query(&i);
	put_number(s, NULL, migration_is_active(i.status));
}

/* The numbers of a migration from here; there are none before the first. */
static bool outgoing(struct migration_info *i)
{
	migration_query(i);
	return i->outgoing;
}

static void collect_transferred(struct sink *s)
{
	struct migration_info i;

	if (outgoing(&i))
		put_number(s, NULL, i.transferred);
}

static void collect_remaining(struct sink *s)
{
	struct migration_info i;

	if (outgoing(&i))
		put_number(s, NULL, i.remaining);
}

static void collect_throttle(struct sink *s)
{
	struct migration_info i;

	if (outgoing(&i))
		put_percent(s, NULL, (uint64_t)i.throttle_percent);
}

static void collect_downtime(struct sink *s)
{
	struct migration_info i;

	if (outgoing(&i))
		put_seconds(s, NULL, i.downtime_us * NS_PER_US);
}

/* ---- the log ---- */

static void collect_log(struct sink *s)
{
	for (int i = 0; i < LOG_LEVELS; i++)
		put_number(s, LABELS("level", log_level_name((enum log_level)i)), log_count((enum log_level)i));
}

static void collect_log_suppressed(struct sink *s)
{
	put_number(s, NULL, log_suppressed());
}

/* ---- the process ---- */

static struct host_process process; /* of this scrape */
static bool process_known;

#define PROCESS_NUMBER(name, member)                         \
	static void process_##name(struct sink *s)           \
	{                                                    \
		if (process_known)                           \
			put_number(s, NULL, process.member); \
	}
PROCESS_NUMBER(resident, resident_bytes)
PROCESS_NUMBER(virtual, virtual_bytes)
PROCESS_NUMBER(fds, open_fds)
PROCESS_NUMBER(max_fds, max_fds)
PROCESS_NUMBER(threads, threads)

static void process_cpu(struct sink *s)
{
	if (process_known)
		put_seconds(s, NULL, process.cpu_ns);
}

static void process_start(struct sink *s)
{
	if (process_known) {
		put_name(s, "", NULL);
		fprintf(s->out, "%.3f\n", process.start_time);
	}
}

/* ---- the table ---- */

static const struct metric metrics[] = {
	{"vmm_build", INFO, NULL, "Version of vmm.", collect_build},
	{"vmm_guest", INFO, NULL, "The guest's name, UUID and machine type.", collect_guest},
	{"vmm_guest_state", GAUGE, NULL, "1 for the run state the guest is in, as query-status names them.",
	 collect_state},
	{"vmm_guest_memory_bytes", GAUGE, "bytes", "RAM the guest started with.", collect_guest_memory},
	{"vmm_guest_memory_actual_bytes", GAUGE, "bytes", "RAM the guest has left itself, as its balloon says.",
	 collect_balloon},
	{"vmm_guest_time_seconds", COUNTER, "seconds", "Guest time: stands still while the guest is stopped.",
	 collect_guest_time},
	{"vmm_vcpu_present", GAUGE, NULL, "1 for each vCPU that is plugged in.", collect_vcpus},
	{"vmm_vcpu_exits", COUNTER, NULL, "Returns from KVM_RUN by reason.", collect_exits},
	{"vmm_vcpu_cpu_seconds", COUNTER, "seconds",
	 "CPU time of the vCPU's thread, in the guest and for it in the host.", collect_cpu_time},
	{"vmm_vcpu_steal_seconds", COUNTER, "seconds",
	 "Time the vCPU's thread could have run while the host ran others.", collect_steal},
	{"vmm_vcpu_interrupts", COUNTER, NULL, "Interrupts injected into the vCPU.", collect_interrupts},
	{"vmm_block_operations", COUNTER, NULL, "Requests of the guest that succeeded.", collect_operations},
	{"vmm_block_transferred_bytes", COUNTER, "bytes", "Bytes of these requests.", collect_bytes},
	{"vmm_block_errors", COUNTER, NULL, "Requests that failed.", collect_errors},
	{"vmm_block_invalid", COUNTER, NULL, "Requests refused before they were tried.", collect_invalid},
	{"vmm_block_latency_seconds", HISTOGRAM, "seconds", "Time from submission to completion.", collect_latency},
	{"vmm_block_queue_depth", GAUGE, NULL, "Requests in flight.", collect_depth},
	{"vmm_block_size_bytes", GAUGE, "bytes", "Size of the medium; 0: none.", collect_size},
	{"vmm_net_packets", COUNTER, NULL, "Packets between a network card and its netdev; receive: to the guest.",
	 collect_net_packets},
	{"vmm_net_transferred_bytes", COUNTER, "bytes", "Bytes of these packets.", collect_net_bytes},
	{"vmm_net_dropped", COUNTER, NULL, "Packets that were lost in vmm: malformed, too large, cable unplugged.",
	 collect_net_dropped},
	{"vmm_net_link_up", GAUGE, NULL, "1: the cable is plugged in.", collect_net_link},
	{"vmm_migration_active", GAUGE, NULL, "1 while a migration or a save goes on.", collect_migration_active},
	{"vmm_migration_transferred_bytes", COUNTER, "bytes", "Bytes the last migration has sent.",
	 collect_transferred},
	{"vmm_migration_remaining_bytes", GAUGE, "bytes", "RAM the last migration has yet to send.", collect_remaining},
	{"vmm_migration_throttle_ratio", GAUGE, "ratio", "How much vCPUs are held back to let it converge.",
	 collect_throttle},
	{"vmm_migration_downtime_seconds", GAUGE, "seconds", "How long the last migration kept the guest stopped.",
	 collect_downtime},
	{"vmm_log_messages", COUNTER, NULL, "Lines written to the log.", collect_log},
	{"vmm_log_suppressed", COUNTER, NULL, "Lines that rate limits kept back.", collect_log_suppressed},
	{"process_cpu_seconds", COUNTER, "seconds", "CPU time of all threads.", process_cpu},
	{"process_resident_memory_bytes", GAUGE, "bytes", "Resident memory, guest RAM included.", process_resident},
	{"process_virtual_memory_bytes", GAUGE, "bytes", "Virtual memory.", process_virtual},
	{"process_open_fds", GAUGE, NULL, "Open file descriptors.", process_fds},
	{"process_max_fds", GAUGE, NULL, "Limit of open file descriptors.", process_max_fds},
	{"process_threads", GAUGE, NULL, "Threads.", process_threads},
	{"process_start_time_seconds", GAUGE, "seconds", "Start, in seconds since 1970.", process_start},
	{"", GAUGE, NULL, "", collect_kvm_vcpu},
	{"", GAUGE, NULL, "", collect_kvm_vm},
};

void metrics_samples(struct board *b, void (*fn)(void *opaque, const struct metric_sample *m), void *opaque)
{
	struct sink s = {.board = b, .sample = fn, .opaque = opaque};

	for (size_t i = 0; i < ARRAY_SIZE(metrics); i++) {
		s.m = &metrics[i];
		if (!strncmp(s.m->name, "vmm_", 4) && s.m->type != INFO)
			s.m->collect(&s);
	}
}

char *metrics_text(struct board *b, enum metric_format format, size_t *len)
{
	struct sink s = {.board = b, .format = format};
	char *text = NULL;

	s.out = open_memstream(&text, len);
	process_known = host_process(&process);
	for (size_t i = 0; i < ARRAY_SIZE(metrics); i++) {
		s.m = &metrics[i];
		s.headed = false;
		metrics[i].collect(&s);
	}
	if (format == METRICS_OPENMETRICS)
		fputs("# EOF\n", s.out);
	fclose(s.out);
	return text;
}
