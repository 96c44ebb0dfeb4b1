/*
 * vmmctl top: what guests do, as it changes. Processor time, steal and I/O come from /proc; disks, networks and exits
 * from QMP (query-blockstats, query-stats) and the guests' metrics, all guests asked at once. A guest that does not
 * answer in time keeps its line without rates.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "look.h"

#define HISTORY   16
#define ANSWER_MS 500

struct sample {
	double at, user_system, guest, steal;
	double read, written, exits, received, sent;
	bool has_disk, has_exits, has_net;
	char why[32]; /* the commonest kind of exit */
};

struct line {
	struct guest g;
	struct sample now, before;
	bool seen, known;
	double cpu[HISTORY]; /* the latest last */
	size_t n_cpu;
	long long rss;
	char status[24];
	unsigned ask_status, ask_block, ask_cpus, ask_stats, ask_metrics;
	json_t *threads; /* of vCPUs */
};

struct top {
	struct ctl *c;
	struct line *lines;
	size_t n;
};

/* ---- sampling ---- */

static long long resident_mib(pid_t pid)
{
	char path[48], line[128];
	long long kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmRSS: %lld", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib / 1024;
}

/* All vCPUs' counters: [{"stats": [{"name": "exits", "value": n}]}]. The kinds of exits are those that end in _exits.
 */
static void take_stats(struct sample *s, json_t *list)
{
	json_t *cpu, *stat;
	double best = -1;
	struct kind {
		char name[sizeof(s->why)];
		double value;
	} kinds[64] = {0};
	size_t i, k, n = 0;

	json_array_foreach(list, i, cpu)
	{
		json_array_foreach(json_object_get(cpu, "stats"), k, stat)
		{
			const char *name = json_string_value(json_object_get(stat, "name"));
			double value = json_number_value(json_object_get(stat, "value"));
			size_t len = name ? strlen(name) : 0, at = 0;

			if (!name)
				continue;
			if (!strcmp(name, "exits")) {
				s->exits += value;
				s->has_exits = true;
				continue;
			}
			if (len <= 6 || len - 6 >= sizeof(kinds[0].name) || strcmp(name + len - 6, "_exits"))
				continue;
			while (at < n && (strncmp(kinds[at].name, name, len - 6) || kinds[at].name[len - 6]))
				at++;
			if (at == ARRAY_SIZE(kinds))
				continue;
			n = MAX(n, at + 1);
			snprintf(kinds[at].name, sizeof(kinds[at].name), "%.*s", (int)(len - 6), name);
			kinds[at].value += value;
		}
	}
	for (k = 0; k < n; k++)
		if (kinds[k].value > best) {
			best = kinds[k].value;
			memcpy(s->why, kinds[k].name, sizeof(s->why));
		}
}

static void take_block(struct sample *s, json_t *list)
{
	json_t *drive;
	size_t i;

	json_array_foreach(list, i, drive)
	{
		json_t *stats = json_object_get(drive, "stats");

		s->read += json_number_value(json_object_get(stats, "rd_bytes"));
		s->written += json_number_value(json_object_get(stats, "wr_bytes"));
		s->has_disk = true;
	}
}

/* "vmm_net_transferred_bytes_total{nic="nic0",direction="receive"} 123" */
static void take_network_line(struct sample *s, const char *line)
{
	static const char name[] = "vmm_net_transferred_bytes_total{";
	static const char received[] = "direction=\"receive\"} ", sent[] = "direction=\"transmit\"} ";
	const char *in, *out, *end = line + strcspn(line, "\n");

	if (strncmp(line, name, sizeof(name) - 1))
		return;
	s->has_net = true;
	in = memmem(line, (size_t)(end - line), received, sizeof(received) - 1);
	out = memmem(line, (size_t)(end - line), sent, sizeof(sent) - 1);
	if (in)
		s->received += strtod(in + sizeof(received) - 1, NULL);
	if (out)
		s->sent += strtod(out + sizeof(sent) - 1, NULL);
}

/* QEMU has no command that tells what cards do; vmm has its metrics. */
static void take_network(struct sample *s, json_t *metrics)
{
	const char *line = json_string_value(json_object_get(metrics, "text"));

	while (line && *line) {
		take_network_line(s, line);
		line = strchr(line, '\n');
		line += line != NULL;
	}
}

static void sample_host(struct line *l)
{
	struct proc_times t, v;
	json_t *cpu;
	size_t i;

	l->now.at = (double)now_ms() / 1000;
	if (!proc_times(l->g.pid, 0, &t))
		return;
	l->now.user_system = t.user + t.system;
	l->now.guest = t.guest;
	l->rss = resident_mib(l->g.pid);
	json_array_foreach(l->threads, i, cpu)
	{
		pid_t thread = (pid_t)json_integer_value(json_object_get(cpu, "thread-id"));

		if (thread > 0 && proc_times(l->g.pid, thread, &v))
			l->now.steal += v.steal;
	}
}

static void ask(struct line *l)
{
	struct qmp *q = l->g.qmp;

	l->ask_status = qmp_queue(q, "query-status", NULL, -1);
	l->ask_block = qmp_queue(q, "query-blockstats", NULL, -1);
	l->ask_cpus = qmp_queue(q, "query-cpus-fast", NULL, -1);
	l->ask_metrics = qmp_queue(q, "x-query-metrics", NULL, -1);
	l->ask_stats = qmp_queue(q, "query-stats",
				 json_pack("{s:s, s:[{s:s}]}", "target", "vcpu", "providers", "provider", "kvm"), -1);
}

static void take_answers(struct line *l)
{
	json_t *a = qmp_answer(l->g.qmp, l->ask_status, NULL);
	const char *status = json_string_value(json_object_get(a, "status"));

	snprintf(l->status, sizeof(l->status), "%s", status ? status : "?");
	json_decref(a);
	a = qmp_answer(l->g.qmp, l->ask_block, NULL);
	take_block(&l->now, a);
	json_decref(a);
	a = qmp_answer(l->g.qmp, l->ask_metrics, NULL);
	take_network(&l->now, a);
	json_decref(a);
	a = qmp_answer(l->g.qmp, l->ask_stats, NULL);
	take_stats(&l->now, a);
	json_decref(a);
	a = qmp_answer(l->g.qmp, l->ask_cpus, NULL);
	if (a) {
		json_decref(l->threads);
		l->threads = a;
	}
}

/* ---- one turn ---- */

static void line_free(struct line *l)
{
	json_decref(l->threads);
	guest_close(&l->g);
}

/* Keep the lines of guests that are still there, with their history; add those that came. */
static int find_lines(struct top *t)
{
	struct guest_list list;
	struct line *lines;
	size_t n = 0;
	int r = guest_all(t->c, t->c->argv, t->c->argc, &list);

	if (r)
		return r;
	lines = xcalloc(list.n, sizeof(*lines));
	for (size_t i = 0; i < list.n; i++) {
		struct line *old = NULL;

		if (!list.v[i].pid)
			continue;
		for (size_t k = 0; k < t->n; k++)
			if (t->lines[k].g.pid == list.v[i].pid)
				old = &t->lines[k];
		if (old) {
			lines[n] = *old;
			memset(old, 0, sizeof(*old));
			old->g = GUEST_INIT;
			snprintf(lines[n].g.name, sizeof(lines[n].g.name), "%s", list.v[i].name);
		} else {
			lines[n].g = list.v[i];
			list.v[i] = GUEST_INIT;
		}
		if (!lines[n].g.qmp)
			lines[n].g.qmp = qmp_open(lines[n].g.dir, "qmp.sock", NULL);
		n++;
	}
	for (size_t k = 0; k < t->n; k++)
		line_free(&t->lines[k]);
	free(t->lines);
	guest_list_free(&list);
	t->lines = lines;
	t->n = n;
	return CTL_OK;
}

static int turn(struct top *t)
{
	struct qmp **sessions;
	int r = find_lines(t);

	if (r)
		return r;
	sessions = xcalloc(t->n, sizeof(*sessions));
	for (size_t i = 0; i < t->n; i++) {
		struct line *l = &t->lines[i];

		l->before = l->now;
		l->known = l->seen;
		l->now = (struct sample){0};
		sessions[i] = l->g.qmp;
		if (l->g.qmp)
			ask(l);
	}
	qmp_gather(sessions, t->n, ANSWER_MS);
	for (size_t i = 0; i < t->n; i++) {
		struct line *l = &t->lines[i];
		double span;

		if (l->g.qmp)
			take_answers(l);
		else
			strcpy(l->status, "?");
		if (!strcmp(l->status, "?")) { /* nothing may pile up for one that does not read */
			qmp_close(l->g.qmp);
			l->g.qmp = NULL;
		}
		sample_host(l);
		l->seen = true;
		span = l->now.at - l->before.at;
		if (!l->known || span <= 0)
			continue;
		memmove(l->cpu, l->cpu + 1, (HISTORY - 1) * sizeof(*l->cpu));
		l->cpu[HISTORY - 1] = (l->now.user_system - l->before.user_system) / span * 100;
		l->n_cpu = MIN(l->n_cpu + 1, (size_t)HISTORY);
	}
	free(sessions);
	return CTL_OK;
}

/* ---- printing ---- */

/* Eight heights; the scale is 100 per cent, or the highest value beyond. */
static void sparkline(const struct line *l, char *out)
{
	static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	double top = 100;

	*out = 0;
	for (size_t i = HISTORY - l->n_cpu; i < HISTORY; i++)
		top = MAX(top, l->cpu[i]);
	for (size_t i = HISTORY - l->n_cpu; i < HISTORY; i++)
		out = stpcpy(out, bars[MIN((size_t)(MAX(l->cpu[i], 0.0) / top * 8), (size_t)7)]);
}

static void add_rate(json_t *row, const char *key, double now, double before, double span, double unit)
{
	json_object_set_new(row, key, json_real(MAX(now - before, 0.0) / span * unit));
}

static json_t *row_of(const struct line *l)
{
	json_t *row = json_pack("{s:s, s:i, s:s, s:I}", "name", l->g.name, "id", (int)l->g.pid, "state", l->status,
				"memory", (json_int_t)l->rss);
	const struct sample *now = &l->now, *was = &l->before;
	double span = now->at - was->at, guest;
	char line[HISTORY * 4];

	sparkline(l, line);
	json_object_set_new(row, "history", json_string(line));
	if (!l->known || span <= 0)
		return row;
	guest = now->guest - was->guest;
	add_rate(row, "cpu", now->user_system, was->user_system, span, 100);
	add_rate(row, "guest", guest, 0, span, 100);
	add_rate(row, "vmm", now->user_system - was->user_system - guest, 0, span, 100);
	add_rate(row, "steal", now->steal, was->steal, span, 100);
	if (now->has_disk && was->has_disk) {
		add_rate(row, "read", now->read, was->read, span, 1.0 / 1024);
		add_rate(row, "written", now->written, was->written, span, 1.0 / 1024);
	}
	if (now->has_net && was->has_net) {
		add_rate(row, "received", now->received, was->received, span, 1.0 / 1024);
		add_rate(row, "sent", now->sent, was->sent, span, 1.0 / 1024);
	}
	if (now->has_exits && was->has_exits) {
		add_rate(row, "exits", now->exits, was->exits, span, 1);
		json_object_set_new(row, "reason", json_string(now->why));
	}
	return row;
}

static void print_lines(struct top *t)
{
	static const struct column columns[] = {{"NAME", "name"},
						{"STATE", "state"},
						{"CPU%", "cpu", true},
						{"GUEST%", "guest", true},
						{"VMM%", "vmm", true},
						{"STEAL%", "steal", true},
						{"RSS/MiB", "memory", true},
						{"READ/KiB", "read", true},
						{"WRITE/KiB", "written", true},
						{"RX/KiB", "received", true},
						{"TX/KiB", "sent", true},
						{"EXITS", "exits", true},
						{"MOST", "reason"},
						{"CPU", "history"},
						{NULL}};
	json_t *rows = json_array();

	for (size_t i = 0; i < t->n; i++)
		json_array_append_new(rows, row_of(&t->lines[i]));
	table_print(t->c, columns, rows);
	json_decref(t->c->result);
	t->c->result = rows;
}

/* True if the user leaves. */
static bool wait_turn(double delay, bool keys)
{
	struct pollfd p = {keys ? STDIN_FILENO : -1, POLLIN, 0};
	char key = 0;

	if (poll(&p, 1, (int)(delay * 1000)) > 0 && read(STDIN_FILENO, &key, 1) == 1)
		return key == 'q' || key == 'Q' || key == 3;
	return false;
}

const struct verb_option top_options[] = {
	{'b', "batch", NULL, "print one table after the other; the default without a terminal"},
	{'n', "count", "N", "leave after N turns"},
	{'d', "delay", "SECONDS", "time between turns (default 2)"},
	{0}};

int do_top(struct ctl *c)
{
	const char *count = ctl_option(c, "count"), *pause = ctl_option(c, "delay");
	bool live = !ctl_option(c, "batch") && !c->json && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
	struct top t = {.c = c};
	struct termios before, raw;
	double delay = 2;
	char *end;
	long left = live ? INT32_MAX : 2;
	int r = count ? ctl_number(c, "--count", count, 1, INT32_MAX, &left) : CTL_OK;

	if (!r && pause) {
		delay = strtod(pause, &end);
		if (!*pause || *end || delay < 0.05 || delay > 3600)
			r = ctl_fail(c, CTL_USAGE, "--delay: '%.40s' is no time from 0.05 to 3600 s", pause);
	}
	if (r)
		return r;
	if (live && !tcgetattr(STDIN_FILENO, &before)) {
		raw = before;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
		fputs("\033[?1049h\033[?25l", stdout); /* another screen, no cursor */
	}
	while (!r && left-- > 0) {
		r = turn(&t);
		if (live)
			fputs("\033[H\033[J", stdout);
		if (!r)
			print_lines(&t);
		if (fflush(stdout) || r || (left && wait_turn(delay, live)))
			break;
		if (!live && !c->json && left)
			putchar('\n');
	}
	if (live) {
		fputs("\033[?25h\033[?1049l", stdout);
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
	}
	for (size_t i = 0; i < t.n; i++)
		line_free(&t.lines[i]);
	free(t.lines);
	return r;
}
