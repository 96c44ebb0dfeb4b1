/* Verbs that take a guest's state somewhere: files, other hosts, dumps, pictures. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "config.h"
#include "verbs_config.h"

#define NO_OPTIONS NULL
#define EXAMPLES(...)             \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}
#define LOOK_MS 100 /* how often progress is asked for */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
	interrupted = 1;
}

static void take_interrupts(void)
{
	struct sigaction act = {.sa_handler = on_interrupt};

	interrupted = 0;
	sigaction(SIGINT, &act, NULL);
}

/* vmm has a working directory of its own. malloc'ed. */
static char *absolute(struct ctl *c, const char *path)
{
	char *cwd, *full;

	if (*path == '/')
		return xstrdup(path);
	cwd = getcwd(NULL, 0);
	if (!cwd) {
		ctl_errno(c, errno, "where are we?");
		return NULL;
	}
	full = xasprintf("%s/%s", cwd, path);
	free(cwd);
	return full;
}

/* ---- migration ---- */

static void draw_migration(struct progress *p, json_t *info)
{
	json_t *ram = json_object_get(info, "ram");
	json_int_t total = json_integer_value(json_object_get(ram, "total"));
	json_int_t left = json_integer_value(json_object_get(ram, "remaining"));
	double mbps = json_number_value(json_object_get(ram, "mbps"));

	if (total > 0)
		progress_draw(p, (uint64_t)(total - MIN(left, total)), (uint64_t)total, mbps * 1e6 / 8);
}

/* Until the migration that goes out of, or comes into, the guest has ended; Ctrl-C cancels it. *info: its last words.
 */
static int wait_migration(struct ctl *c, struct guest *g, const char *what, json_t **info)
{
	struct progress p;
	const char *status = "";
	int r = CTL_OK;

	take_interrupts();
	progress_begin(&p, c, what);
	*info = NULL;
	while (r == CTL_OK) {
		json_decref(*info);
		*info = guest_query(c, g, "query-migrate", NULL, &r);
		status = json_string_value(json_object_get(*info, "status"));
		if (!*info || (status && (!strcmp(status, "completed") || !strcmp(status, "failed") ||
					  !strcmp(status, "cancelled"))))
			break;
		draw_migration(&p, *info);
		if (interrupted) {
			interrupted = 0;
			guest_command(c, g, "migrate_cancel", NULL);
		}
		poll(NULL, 0, LOOK_MS);
	}
	progress_end(&p);
	signal(SIGINT, SIG_DFL);
	if (r == CTL_OK && strcmp(status, "completed")) {
		const char *why = json_string_value(json_object_get(*info, "error-desc"));

		r = ctl_fail(c, CTL_FAILED, "%s: %s %s%s%s", g->name, what, status, why ? ": " : "", why ? why : "");
	}
	return r;
}

static int migrate_to(struct ctl *c, struct guest *g, const char *uri, const char *what)
{
	json_t *info = NULL;
	char took[40], size[32];
	double ms;
	int r = guest_command(c, g, "migrate", json_pack("{s:s}", "uri", uri));

	if (!r)
		r = wait_migration(c, g, what, &info);
	if (!r) {
		ms = json_number_value(json_object_get(info, "total-time"));
		snprintf(took, sizeof(took), "%.1f s", ms / 1000);
		ctl_say(c, "%s: %s in %s, stopped for %lld ms\n", g->name,
			format_bytes(size, sizeof(size),
				     json_number_value(json_object_get(json_object_get(info, "ram"), "transferred"))),
			took, (long long)json_integer_value(json_object_get(info, "downtime")));
		c->result = json_incref(info);
	}
	json_decref(info);
	return r;
}

static int quit_source(struct ctl *c, struct guest *g)
{
	struct err before = c->err;
	int r = guest_command(c, g, "quit", NULL);

	if (r == CTL_NO_ANSWER) { /* it may be gone before its answer is read */
		c->err = before;
		r = CTL_OK;
	}
	if (!r)
		guest_wait_end(g, c->timeout_ms);
	return r;
}

static char *target_uri(struct ctl *c, const char *target)
{
	static const char *const kinds[] = {"tcp:", "unix:", "exec:", "fd:"};
	const char *port = ctl_option(c, "port");

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strncmp(target, kinds[i], strlen(kinds[i])))
			return xstrdup(target);
	return xasprintf(strchr(target, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", target, port ? port : "4444");
}

static int do_migrate(struct ctl *c)
{
	char *uri = target_uri(c, c->argv[1]);
	struct guest g;
	json_t *limit;
	int r = guest_connect(c, c->argv[0], &g);

	if (!r && !ctl_option(c, "live")) {
		/* stop as soon as all memory has been sent once */
		limit = json_pack("{s:i}", "downtime-limit", 2000000);
		r = guest_command(c, &g, "migrate-set-parameters", limit);
	}
	if (!r)
		r = migrate_to(c, &g, uri, "migrating");
	if (!r)
		r = quit_source(c, &g);
	guest_close(&g);
	free(uri);
	return r;
}

/* ---- save and restore ---- */

/* What the stream does not hold, the host's side and the policies, goes beside it. */
static int save_config(struct ctl *c, const struct guest *g, const char *path)
{
	size_t len = 0;
	char *text = guest_read_file(g->dir, "config", MIB, &len), *beside = xasprintf("%s.vmm", path);
	int r = text ? guest_write_file(AT_FDCWD, beside, text, len, 0600) : -errno;

	r = r ? ctl_errno(c, -r, "cannot write %s", beside) : CTL_OK;
	free(text);
	free(beside);
	return r;
}

/* The guest runs while its moment is written. A vmm that cannot lets it stand still meanwhile. */
static int let_go_on(struct ctl *c, struct guest *g)
{
	json_t *capability = json_pack("{s:s, s:b}", "capability", "background-snapshot", "state", 1);
	int r = guest_command(c, g, "migrate-set-capabilities", json_pack("{s:[o]}", "capabilities", capability));

	if (r == CTL_FAILED) {
		ctl_warn(c, "%s; the guest stands still while it is saved", c->err.msg);
		r = CTL_OK;
	}
	return r;
}

static int do_save(struct ctl *c)
{
	bool checkpoint = ctl_option(c, "checkpoint"), running = false;
	char *path = absolute(c, c->argv[1]), *uri = xasprintf("file:%s", path ? path : "");
	struct guest g = GUEST_INIT;
	json_t *status;
	int r = path ? guest_connect(c, c->argv[0], &g) : CTL_FAILED;

	if (!r) {
		status = guest_query(c, &g, "query-status", NULL, &r);
		running = json_is_true(json_object_get(status, "running"));
		json_decref(status);
	}
	if (!r)
		r = save_config(c, &g, path);
	if (!r && running && !checkpoint)
		r = guest_command(c, &g, "stop", NULL);
	if (!r && checkpoint)
		r = let_go_on(c, &g);
	if (!r) {
		r = migrate_to(c, &g, uri, "saving");
		if (r) { /* it is not lost: as before */
			struct err why = c->err;

			char *beside = xasprintf("%s.vmm", path);

			if (running)
				guest_command(c, &g, "cont", NULL);
			c->err = why;
			unlink(beside);
			free(beside);
		} else {
			r = !checkpoint ? quit_source(c, &g) : running ? guest_command(c, &g, "cont", NULL) : CTL_OK;
		}
	}
	guest_close(&g);
	free(uri);
	free(path);
	return r;
}

/* Wait until all has arrived, then let it run. */
static int finish_restore(struct ctl *c, const char *name)
{
	struct guest g;
	json_t *info = NULL;
	int r = guest_connect(c, name, &g);

	if (!r)
		r = wait_migration(c, &g, "restoring", &info);
	json_decref(info);
	if (!r && !ctl_option(c, "paused"))
		r = guest_command(c, &g, "cont", NULL);
	guest_close(&g);
	return r;
}

static int do_restore(struct ctl *c)
{
	struct start s = {.vmm = vmm_binary(), .config = guest_config_new(), .incoming_fd = -1, .paused = true};
	char *path = absolute(c, c->argv[0]), *beside = xasprintf("%s.vmm", path ? path : ""),
	     *uri = xasprintf("file:%s%s", path ? path : "", ctl_option(c, "lazy") ? ",map=lazy" : "");
	int r = CTL_OK;

	if (!path)
		r = CTL_FAILED;
	else if (access(path, R_OK))
		r = ctl_errno(c, errno, "cannot read %s", path);
	else if (config_load(s.config, beside, "vmm", NULL, &c->err))
		r = ctl_fail(c, CTL_BAD_CONFIG, "%s (vmmctl save writes it beside the guest's state)", c->err.msg);
	s.incoming = uri;
	if (!r)
		r = start_config(c, &s);
	if (!r)
		r = finish_restore(c, s.config->name);
	guest_config_free(s.config);
	free(uri);
	free(beside);
	free(path);
	return r;
}

/* ---- dump ---- */

static char *dump_path(struct ctl *c, const struct guest *g)
{
	char *dir = log_directory(&c->err), stamp[32], *path = NULL;
	time_t now = time(NULL);
	struct tm tm;

	if (dir && !make_directories(dir, 0700, &c->err)) {
		strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", gmtime_r(&now, &tm));
		path = xasprintf("%s/%s-%s.core", dir, g->name, stamp);
	}
	free(dir);
	return path;
}

static int wait_dump(struct ctl *c, struct guest *g)
{
	struct progress p;
	int r = CTL_OK;
	bool done = false;

	progress_begin(&p, c, "dumping");
	while (!r && !done) {
		json_t *d = guest_query(c, g, "query-dump", NULL, &r);
		const char *status = json_string_value(json_object_get(d, "status"));

		progress_draw(&p, (uint64_t)json_integer_value(json_object_get(d, "completed")),
			      (uint64_t)json_integer_value(json_object_get(d, "total")), 0);
		if (!r && status && !strcmp(status, "failed"))
			r = ctl_fail(c, CTL_FAILED, "%s: the dump failed; vmmctl log %s may say why", g->name, g->name);
		done = status && !strcmp(status, "completed");
		json_decref(d);
		if (!r && !done)
			poll(NULL, 0, LOOK_MS);
	}
	progress_end(&p);
	return r;
}

/* The file is opened here: vmm may be somebody else, or behind a wall. */
static int dump(struct ctl *c, struct guest *g, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), r = CTL_OK;
	json_t *answer;

	if (fd < 0)
		return ctl_errno(c, errno, "cannot create %s", path);
	answer = qmp_run_fd(g->qmp, "getfd", json_pack("{s:s}", "fdname", "core"), fd, c->timeout_ms, &c->err);
	if (!answer)
		r = ctl_fail(c, CTL_FAILED, "%s: getfd: %s", g->name, c->err.msg);
	json_decref(answer);
	if (!r)
		r = guest_command(c, g, "dump-guest-memory",
				  json_pack("{s:b, s:s, s:b}", "paging", 0, "protocol", "fd:core", "detach", 1));
	if (!r)
		r = wait_dump(c, g);
	close(fd);
	if (r)
		unlink(path);
	return r;
}

static int do_dump_core(struct ctl *c)
{
	struct guest g;
	char *path = NULL;
	int r = guest_connect(c, c->argv[0], &g);

	if (!r) {
		path = c->argc > 1 ? xstrdup(c->argv[1]) : dump_path(c, &g);
		r = path ? dump(c, &g, path) : CTL_FAILED;
	}
	if (!r) {
		c->result = json_pack("{s:s}", "file", path);
		if (c->argc == 1)
			ctl_say(c, "%s\n", path);
		if (ctl_option(c, "crash"))
			r = quit_source(c, &g);
	}
	guest_close(&g);
	free(path);
	return r;
}

/* ---- screen ---- */

static int do_screenshot(struct ctl *c)
{
	char *path = absolute(c, c->argv[1]);
	size_t len = path ? strlen(path) : 0;
	bool png = len > 4 && !strcmp(path + len - 4, ".png");
	struct guest g = GUEST_INIT;
	int r = path ? guest_connect(c, c->argv[0], &g) : CTL_FAILED;

	if (!r)
		r = guest_command(c, &g, "screendump",
				  json_pack("{s:s, s:s}", "filename", path, "format", png ? "png" : "ppm"));
	guest_close(&g);
	free(path);
	return r;
}

/* ---- the table ---- */

static const struct verb_option migrate_options[] = {
	{'l', "live", NULL, "let the guest run while its memory is sent, for a short stop at the end"},
	{'p', "port", "PORT", "TCP port at the other host (default 4444)"},
	{0},
};
static const struct verb_option save_options[] = {{'c', "checkpoint", NULL, "the guest goes on afterwards"}, {0}};
static const struct verb_option restore_options[] = {
	{'p', "paused", NULL, "do not let it run yet"},
	{'l', "lazy", NULL, "let it run at once, and read its memory as it is used; the file stays in use"},
	{0}};
static const struct verb_option dump_options[] = {{'C', "crash", NULL, "end the guest afterwards"}, {0}};

const struct verb image_verbs[] = {
	{"save", "GUEST FILE", "Write a guest's state to a file and end it",
	 "Its disks stay where they are. FILE.vmm beside the file holds the configuration for restore.", save_options,
	 2, 2, WORDS_GUEST_FILE, do_save,
	 EXAMPLES("vmmctl save --checkpoint web before-upgrade",
		  "vmmctl save web web.state && vmmctl restore web.state")},
	{"restore", "FILE", "Start a guest from the state that save wrote", NULL, restore_options, 1, 1, WORDS_FILE,
	 do_restore, EXAMPLES("vmmctl destroy web && vmmctl restore --lazy before-upgrade")},
	{"migrate", "GUEST HOST|URI", "Move a guest to another host",
	 "There, `vmmctl create --incoming tcp:0:4444 FILE` waits for it. Disks must be reachable from both hosts. "
	 "Ctrl-C gives it up, "
	 "and the guest goes on here.",
	 migrate_options, 2, 2, WORDS_GUEST, do_migrate, EXAMPLES("vmmctl migrate --live web host2")},
	{"dump-core", "GUEST [FILE]", "Write a guest's memory as an ELF core, for crash and gdb",
	 "The guest stands still meanwhile. Without FILE it goes into the log directory, and its path is printed.",
	 dump_options, 1, 2, WORDS_GUEST_FILE, do_dump_core, EXAMPLES("vmmctl dump-core web web.core")},
	{"screenshot", "GUEST FILE.png|FILE.ppm", "Save a picture of a guest's screen", NULL, NO_OPTIONS, 2, 2,
	 WORDS_GUEST_FILE, do_screenshot, EXAMPLES("vmmctl screenshot web web.png")},
	{NULL},
};
