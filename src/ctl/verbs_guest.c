/* Verbs: which guests there are, and their lives. */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "config.h"
#include "ctl.h"

#define NO_OPTIONS NULL
#define EXAMPLES(...)             \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}

/* ---- list ---- */

static const char *plain_state(const char *state)
{
	if (!state)
		return "?";
	if (!strcmp(state, "guest-panicked"))
		return "crashed";
	if (!strcmp(state, "prelaunch"))
		return "paused";
	return state;
}

/* What was asked of each guest at once. */
struct asked {
	unsigned status, memory, balloon, cpus;
};

static json_t *list_row(const struct guest *g, const struct asked *a)
{
	json_t *row = json_pack("{s:s}", "name", g->name), *answer;
	struct proc_times t;
	const char *state = g->pid ? NULL : g->keeper ? "starting" : "stale";

	json_object_set_new(row, "id", g->pid ? json_integer(g->pid) : json_null());
	if (g->qmp) {
		answer = qmp_answer(g->qmp, a->memory, NULL);
		if (answer) {
			json_int_t bytes = json_integer_value(json_object_get(answer, "base-memory")) +
					   json_integer_value(json_object_get(answer, "plugged-memory"));

			json_object_set_new(row, "memory", json_integer(bytes / (json_int_t)MIB));
		}
		json_decref(answer);
		answer = qmp_answer(g->qmp, a->balloon, NULL); /* what the guest has left of it */
		if (answer)
			json_object_set_new(
				row, "memory",
				json_integer(json_integer_value(json_object_get(answer, "actual")) / (json_int_t)MIB));
		json_decref(answer);
		answer = qmp_answer(g->qmp, a->cpus, NULL);
		if (answer)
			json_object_set_new(row, "vcpus", json_integer((json_int_t)json_array_size(answer)));
		json_decref(answer);
		answer = qmp_answer(g->qmp, a->status, NULL);
		state = plain_state(json_string_value(json_object_get(answer, "status")));
		json_object_set_new(row, "state", json_string(state));
		json_decref(answer);
	} else {
		json_object_set_new(row, "state", json_string(state ? state : "?"));
	}
	if (g->pid && proc_times(g->pid, 0, &t))
		json_object_set_new(row, "time", json_real(t.user + t.system));
	return row;
}

/* The names of configuration files; with --all those that do not run are listed as well. */
static int add_configured(struct ctl *c, json_t *rows)
{
	char *path = config_directory(&c->err);
	struct dirent *entry;
	DIR *d = path ? opendir(path) : NULL;

	while (d && (entry = readdir(d))) {
		size_t len = strlen(entry->d_name), i;
		bool running = false;
		json_t *row;

		if (len <= 4 || strcmp(entry->d_name + len - 4, ".vmm"))
			continue;
		entry->d_name[len - 4] = 0;
		json_array_foreach(rows, i, row) running |=
			!strcmp(json_string_value(json_object_get(row, "name")), entry->d_name);
		if (!running && guest_name_valid(entry->d_name, NULL))
			json_array_append_new(
				rows, json_pack("{s:s, s:n, s:s}", "name", entry->d_name, "id", "state", "off"));
	}
	if (d)
		closedir(d);
	free(path);
	return CTL_OK;
}

static int do_list(struct ctl *c)
{
	static const struct column columns[] = {{"NAME", "name"},
						{"ID", "id", true},
						{"MEM/MiB", "memory", true},
						{"VCPUS", "vcpus", true},
						{"STATE", "state"},
						{"TIME/s", "time", true},
						{NULL}};
	struct guest_list list;
	struct qmp **sessions;
	struct asked *asked;
	int r = guest_all(c, c->argv, c->argc, &list);

	if (r)
		return r;
	sessions = xcalloc(list.n, sizeof(*sessions));
	asked = xcalloc(list.n, sizeof(*asked));
	for (size_t i = 0; i < list.n; i++) {
		struct guest *g = &list.v[i];

		g->qmp = g->pid ? qmp_open(g->dir, "qmp.sock", NULL) : NULL;
		sessions[i] = g->qmp;
		if (!g->qmp)
			continue;
		asked[i].status = qmp_queue(g->qmp, "query-status", NULL, -1);
		asked[i].memory = qmp_queue(g->qmp, "query-memory-size-summary", NULL, -1);
		asked[i].balloon = qmp_queue(g->qmp, "query-balloon", NULL, -1);
		asked[i].cpus = qmp_queue(g->qmp, "query-cpus-fast", NULL, -1);
	}
	qmp_gather(sessions, list.n, MIN(c->timeout_ms, 2000));
	c->result = json_array();
	for (size_t i = 0; i < list.n; i++)
		json_array_append_new(c->result, list_row(&list.v[i], &asked[i]));
	if (ctl_option(c, "all"))
		add_configured(c, c->result);
	table_print(c, columns, c->result);
	free(sessions);
	free(asked);
	guest_list_free(&list);
	return CTL_OK;
}

/* ---- one after the other ---- */

typedef int guest_fn(struct ctl *c, struct guest *g);

/* For each guest named, or with --all for each there is: connected if so wished. Goes on after a failure; the last one
 * counts. */
static int for_each(struct ctl *c, bool connect, guest_fn *fn)
{
	bool all = c->verb->options && c->verb->options[0].letter == 'a' && ctl_option(c, "all");
	struct guest_list list = {0};
	int r, worst = CTL_OK;

	if (!all && !c->argc)
		return ctl_fail(c, CTL_USAGE, "%s: the name of a guest is missing", c->verb->name);
	r = guest_all(c, c->argv, all ? 0 : c->argc, &list);
	for (size_t i = 0; !r && i < list.n; i++) {
		struct guest g;
		int one = connect ? guest_connect(c, list.v[i].name, &g) : guest_find(c, list.v[i].name, &g);

		if (!one) {
			one = fn(c, &g);
			guest_close(&g);
		}
		if (one && i + 1 < list.n)
			ctl_warn(c, "%s", c->err.msg);
		worst = one ? one : worst;
	}
	guest_list_free(&list);
	return r ? r : worst;
}

static int pause_one(struct ctl *c, struct guest *g)
{
	return guest_command(c, g, "stop", NULL);
}

static int unpause_one(struct ctl *c, struct guest *g)
{
	return guest_command(c, g, "cont", NULL);
}

static int do_pause(struct ctl *c)
{
	return for_each(c, true, pause_one);
}

static int do_unpause(struct ctl *c)
{
	return for_each(c, true, unpause_one);
}

/* Ask it; a vmm that does not answer is killed, and its keeper told not to start it again. */
static int destroy_one(struct ctl *c, struct guest *g)
{
	char *run = run_directory(&c->err);
	struct qmp *q;
	bool ended;
	int r;

	if (!g->pid && !g->keeper) {
		r = run ? guest_remove_directory(g->dir, run) : -ENOENT;
		free(run);
		return r ? ctl_errno(c, -r, "cannot remove what is left of %s", g->name) : CTL_OK;
	}
	q = g->pid ? qmp_open(g->dir, "qmp.sock", NULL) : NULL;
	if (q)
		json_decref(qmp_run(q, "quit", NULL, MIN(c->timeout_ms, 3000), NULL));
	ended = q && qmp_gone(q);
	qmp_close(q);
	ended = guest_wait_end(g, ended ? MIN(c->timeout_ms, 5000) : 200);
	if (!ended) {
		if (g->keeper)
			kill(g->keeper, SIGINT); /* before: it is not to start again */
		if (g->pid && guest_lock_holder(g->dir, "pid") == g->pid)
			kill(g->pid, SIGKILL);
		ended = guest_wait_end(g, c->timeout_ms);
	}
	r = ended ? CTL_OK : ctl_fail(c, CTL_NO_ANSWER, "%s does not end", g->name);
	if (!r && !g->keeper && run)
		guest_remove_directory(g->dir, run); /* nobody else does */
	free(run);
	return r;
}

static int do_destroy(struct ctl *c)
{
	return for_each(c, false, destroy_one);
}

static int shutdown_one(struct ctl *c, struct guest *g)
{
	int r = guest_command(c, g, "system_powerdown", NULL);

	return r == CTL_NO_ANSWER && qmp_gone(g->qmp) ? CTL_OK : r; /* it has ended by itself */
}

/* All are asked first, then waited for. */
static int do_shutdown(struct ctl *c)
{
	const char *limit = ctl_option(c, "limit");
	struct guest_list list = {0};
	int64_t deadline;
	long seconds = 0;
	int r = limit ? ctl_number(c, "--limit", limit, 1, 86400, &seconds) : CTL_OK;

	if (!r && ctl_option(c, "wait"))
		r = guest_all(c, c->argv, ctl_option(c, "all") ? 0 : c->argc, &list);
	if (!r)
		r = for_each(c, true, shutdown_one);
	deadline = now_ms() + seconds * 1000;
	for (size_t i = 0; !r && i < list.n; i++)
		if (!guest_wait_end(&list.v[i], limit ? (int)MAX(deadline - now_ms(), (int64_t)0) : -1))
			r = ctl_fail(c, CTL_FAILED, "%s has not shut down within %ld s", list.v[i].name, seconds);
	guest_list_free(&list);
	return r;
}

static int reboot_one(struct ctl *c, struct guest *g)
{
	int r;

	if (ctl_option(c, "force"))
		return guest_command(c, g, "system_reset", NULL);
	if (!g->keeper)
		return ctl_fail(c, CTL_FAILED, "%s has no keeper that would start it again; --force resets it",
				g->name);
	r = guest_write_file(g->dir, "reboot", "", 0, 0600);
	if (r)
		return ctl_errno(c, -r, "%s: cannot note the reboot", g->name);
	r = guest_command(c, g, "system_powerdown", NULL);
	if (r)
		unlinkat(g->dir, "reboot", 0);
	return r;
}

static int do_reboot(struct ctl *c)
{
	return for_each(c, true, reboot_one);
}

/* ---- names ---- */

static int do_domid(struct ctl *c)
{
	struct guest g;
	int r = guest_find(c, c->argv[0], &g);

	if (!r && !g.pid)
		r = ctl_fail(c, CTL_NO_GUEST, "%s does not run", g.name);
	if (!r) {
		c->result = json_integer(g.pid);
		ctl_say(c, "%d\n", (int)g.pid);
	}
	guest_close(&g);
	return r;
}

static int do_domname(struct ctl *c)
{
	struct guest g;
	long id;
	int r = ctl_number(c, "domname", c->argv[0], 1, INT32_MAX, &id);

	if (!r)
		r = guest_find(c, c->argv[0], &g);
	if (r)
		return r;
	c->result = json_string(g.name);
	ctl_say(c, "%s\n", g.name);
	guest_close(&g);
	return CTL_OK;
}

/* In the file `file` of the directory, the name becomes `to`. 0 or -errno. */
static int rename_in_file(struct ctl *c, int dir, const char *file, const char *to)
{
	struct guest_config *config = guest_config_new();
	size_t len = 0;
	char *text = guest_read_file(dir, file, MIB, &len);
	int r = text ? 0 : -errno;

	if (!r && config_parse_native(config, file, text, len, &c->err))
		r = -EINVAL;
	free(text);
	if (!r && config->name) { /* else the file's name counts */
		free(config->name);
		config->name = xstrdup(to);
		text = config_format(config);
		r = guest_write_file(dir, file, text, strlen(text), 0600);
		free(text);
	}
	guest_config_free(config);
	return r;
}

/* NAME.vmm and its autostart link in the configuration directory. 0, -ENOENT: there is none, -errno */
static int rename_configuration(struct ctl *c, const char *from, const char *to)
{
	char *path = config_directory(&c->err), *old = xasprintf("%s.vmm", from), *new = xasprintf("%s.vmm", to);
	int dir = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, r = dir < 0 ? -ENOENT : 0;

	if (!r && renameat2(dir, old, dir, new, RENAME_NOREPLACE))
		r = -errno;
	if (!r)
		r = rename_in_file(c, dir, new, to);
	if (!r) {
		char *old_link = xasprintf("autostart/%s", old), *new_link = xasprintf("autostart/%s", new),
		     *target = xasprintf("../%s", new);

		if (!unlinkat(dir, old_link, 0) && symlinkat(target, dir, new_link))
			ctl_warn(c, "autostart of %s is off now: %s", to, strerror(errno));
		free(old_link);
		free(new_link);
		free(target);
	}
	if (dir >= 0)
		close(dir);
	free(path);
	free(old);
	free(new);
	return r;
}

static int do_rename(struct ctl *c)
{
	const char *to = c->argv[1];
	char *run = run_directory(&c->err);
	struct guest g = GUEST_INIT;
	int r, dir, configured;

	if (!run || !guest_name_valid(to, &c->err)) {
		free(run);
		return CTL_USAGE;
	}
	r = guest_find(c, c->argv[0], &g);
	dir = r ? -1 : open(run, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!r && renameat2(dir, g.name, dir, to, RENAME_NOREPLACE))
		r = errno == EEXIST ? ctl_fail(c, CTL_FAILED, "a guest named %s exists already", to)
				    : ctl_errno(c, errno, "cannot rename %s", g.name);
	else if (!r && rename_in_file(c, g.dir, "config", to))
		ctl_warn(c, "%s: its saved configuration keeps the old name: %s", to, c->err.msg);
	if (dir >= 0)
		close(dir);
	if (r == CTL_OK || (r == CTL_NO_GUEST && guest_name_valid(c->argv[0], NULL))) {
		struct err before = c->err;

		configured = rename_configuration(c, r ? c->argv[0] : g.name, to);
		if (configured == 0)
			r = CTL_OK;
		else if (configured != -ENOENT)
			r = ctl_errno(c, -configured, "cannot rename the configuration of %s", c->argv[0]);
		else
			c->err = before;
	}
	guest_close(&g);
	free(run);
	return r;
}

static int do_uptime(struct ctl *c)
{
	static const struct column columns[] = {{"NAME", "name"}, {"ID", "id", true}, {"UPTIME", "text", true}, {NULL}};
	struct guest_list list;
	double now = 0;
	FILE *f = fopen("/proc/uptime", "re");
	int r;

	if (!f || fscanf(f, "%lf", &now) != 1)
		now = 0;
	if (f)
		fclose(f);
	r = guest_all(c, c->argv, c->argc, &list);
	if (r)
		return r;
	c->result = json_array();
	for (size_t i = 0; i < list.n; i++) {
		struct proc_times t;
		char text[64];
		double up;

		if (!list.v[i].pid || !proc_times(list.v[i].pid, 0, &t))
			continue;
		up = now - (double)t.start / (double)sysconf(_SC_CLK_TCK);
		json_array_append_new(c->result, json_pack("{s:s, s:i, s:f, s:s}", "name", list.v[i].name, "id",
							   (int)list.v[i].pid, "uptime", MAX(up, 0.0), "text",
							   format_seconds(text, sizeof(text), up)));
	}
	table_print(c, columns, c->result);
	guest_list_free(&list);
	return CTL_OK;
}

/* ---- the table ---- */

static const struct verb_option list_options[] = {
	{'a', "all", NULL, "also guests that are configured but do not run (state off)"}, {0}};
static const struct verb_option reboot_options[] = {
	{'a', "all", NULL, "every guest"}, {'f', "force", NULL, "press the reset button"}, {0}};
static const struct verb_option shutdown_options[] = {
	{'a', "all", NULL, "every guest"},
	{'w', "wait", NULL, "return when they have ended"},
	{'t', "limit", "SECONDS", "with --wait: fail when it takes longer"},
	{0},
};
static const struct verb_option destroy_options[] = {{'a', "all", NULL, "every guest"}, {0}};

const struct verb guest_verbs[] = {
	{"list", "[GUEST]...", "List the guests and what they do",
	 "A guest is named by its name or by its id, which is the process id of its vmm. STATE is what vmm says "
	 "(running, paused, "
	 "shutdown, crashed, inmigrate ...), \"?\" if it does not answer within two seconds, \"starting\" between two "
	 "starts and "
	 "\"stale\" if a crash left nothing but its directory. TIME is processor time.",
	 list_options, 0, -1, WORDS_GUESTS, do_list,
	 EXAMPLES("vmmctl list", "vmmctl list --all", "vmmctl --json list web")},
	{"destroy", "GUEST...", "End guests at once, as if the power went",
	 "A vmm that does not answer is killed. Also clears away what a crash has left.", destroy_options, 0, -1,
	 WORDS_GUESTS, do_destroy, EXAMPLES("vmmctl destroy web")},
	{"shutdown", "GUEST...", "Ask guests to shut down by the ACPI power button",
	 "What then happens is the guest's affair; on-poweroff in its configuration says what follows.",
	 shutdown_options, 0, -1, WORDS_GUESTS, do_shutdown, EXAMPLES("vmmctl shutdown web", "vmmctl shutdown --all")},
	{"reboot", "GUEST...", "Ask guests to shut down, then start them again",
	 "PCs have no button by which a system would reboot cleanly: the guest is asked to shut down, and its keeper "
	 "then does what "
	 "on-reboot says.",
	 reboot_options, 0, -1, WORDS_GUESTS, do_reboot, EXAMPLES("vmmctl reboot --force web")},
	{"pause", "GUEST...", "Stop the processors of guests", NULL, NO_OPTIONS, 1, -1, WORDS_GUESTS, do_pause,
	 EXAMPLES("vmmctl pause web")},
	{"unpause", "GUEST...", "Let paused guests go on", NULL, NO_OPTIONS, 1, -1, WORDS_GUESTS, do_unpause,
	 EXAMPLES("vmmctl unpause web")},
	{"domid", "GUEST", "Print the id of a guest", NULL, NO_OPTIONS, 1, 1, WORDS_GUEST, do_domid,
	 EXAMPLES("vmmctl domid web")},
	{"domname", "ID", "Print the name of the guest with that id", NULL, NO_OPTIONS, 1, 1, WORDS_NONE, do_domname,
	 EXAMPLES("vmmctl domname $(vmmctl domid web)")},
	{"rename", "GUEST NAME", "Give a guest another name",
	 "Also its file in the configuration directory, if there is one. What the guest sees of the old name (SMBIOS), "
	 "its log and "
	 "QMP's query-name change with its next start.",
	 NO_OPTIONS, 2, 2, WORDS_GUEST, do_rename, EXAMPLES("vmmctl rename web www && vmmctl rename www web")},
	{"uptime", "[GUEST]...", "Print since when guests run", NULL, NO_OPTIONS, 0, -1, WORDS_GUESTS, do_uptime,
	 EXAMPLES("vmmctl uptime")},
	{NULL},
};
