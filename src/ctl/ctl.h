/*
 * vmmctl, the operator's command: what its files share.
 *
 * There is no daemon. A guest is a directory in the run directory (see guest.c) with vmm's control socket in it; a verb
 * finds it there, talks QMP and prints. One table row per verb (struct verb) is the source of parsing, help, manual
 * page, completion and of the tests that run each documented example.
 *
 * A function that can fail returns an enum ctl_status, CTL_OK being 0, and leaves its reason in c->err.
 */
#ifndef VMM_CTL_CTL_H
#define VMM_CTL_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>
#include "vmm/err.h"

/* The exit status; documented by status_help[] in main.c. */
enum ctl_status {
	CTL_OK,
	CTL_FAILED,     /* vmm or the host refused */
	CTL_USAGE,      /* wrong verb, option or argument */
	CTL_NO_GUEST,   /* no guest of that name runs */
	CTL_NO_ANSWER,  /* the guest's vmm does not answer */
	CTL_BAD_CONFIG, /* a mistake in a configuration file */
};

struct verb_option {
	char letter;      /* 0: only the long name */
	const char *name; /* NULL ends the list */
	const char *arg;  /* NULL: a flag */
	const char *help;
};

/* What a verb's arguments are, for completion. */
enum verb_words { WORDS_NONE, WORDS_GUEST, WORDS_GUESTS, WORDS_CONFIG, WORDS_FILE, WORDS_VERB, WORDS_GUEST_FILE };

struct ctl;
struct verb {
	const char *name, *args, *summary;
	const char *help; /* paragraphs for help and the manual page, NULL if the summary says it all */
	const struct verb_option *options; /* NULL: none of its own */
	int min_args, max_args;            /* -1: any number */
	enum verb_words words;
	int (*run)(struct ctl *c);
	const char *const *examples; /* NULL-terminated; each is executed by a test */
};
/* verbs*.c: NULL-name-terminated tables, in the order of the manual page. */
extern const struct verb guest_verbs[], config_verbs[], cpu_verbs[], image_verbs[], look_verbs[], raw_verbs[],
	help_verbs[];

#define VERB_MAX_OPTIONS 12

struct ctl {
	const struct verb *verb;
	int argc; /* what follows the verb and its options */
	char **argv;
	const char *option[VERB_MAX_OPTIONS]; /* by row of verb->options; "" for a flag, NULL if not given */
	bool json, color;
	int timeout_ms; /* for one answer of a guest */
	struct err err;
	json_t *result; /* what --json prints; NULL: {} */
};

int ctl_fail(struct ctl *c, enum ctl_status status, const char *fmt, ...) VMM_PRINTF(3, 4);
int ctl_errno(struct ctl *c, int code, const char *fmt, ...) VMM_PRINTF(3, 4); /* CTL_FAILED, with strerror(code) */
/* To stderr, unless JSON is asked for: then it waits for the result's "warnings". */
void ctl_warn(struct ctl *c, const char *fmt, ...) VMM_PRINTF(2, 3);
/* For people: stdout unless --json. */
void ctl_say(struct ctl *c, const char *fmt, ...) VMM_PRINTF(2, 3);
/* Value of an option of the running verb; NULL if not given. The name must be in the verb's table. */
const char *ctl_option(const struct ctl *c, const char *name);
/* A whole decimal number within the range; CTL_USAGE names what it is for. */
int ctl_number(struct ctl *c, const char *what, const char *text, long min, long max, long *out);
const struct verb *verb_at(size_t i);
const struct verb *verb_find(const char *name);
void verb_print_help(const struct verb *v, FILE *out);
json_t *verb_describe(const struct verb *v);
json_t *verb_describe_all(void); /* for the generators of the manual page and of the tests */

/* ---- output (table.c) ---- */

struct column {
	const char *title;
	const char *key; /* member of each row's object */
	bool right;      /* numbers */
	const char *suffix;
};
/* rows: array of objects. Prints them aligned; a column's cells are strings, numbers, booleans or null ("-"). */
void table_print(const struct ctl *c, const struct column *columns, const json_t *rows);
/* "key: value" lines of one object, aligned. */
void table_print_object(const struct ctl *c, const json_t *object);
/* A progress line on a terminal (redrawn) or, elsewhere, nothing until progress_end(). */
struct progress {
	const struct ctl *c;
	const char *what;
	int64_t start_ms, drawn_ms;
	bool drawn;
};
void progress_begin(struct progress *p, const struct ctl *c, const char *what);
void progress_draw(struct progress *p, uint64_t done, uint64_t total, double bytes_per_s);
void progress_end(struct progress *p);
/* "512.0 MiB"; the buffer is returned. */
const char *format_bytes(char *buf, size_t size, double bytes);
/* "1 day 02:03:04" */
const char *format_seconds(char *buf, size_t size, double seconds);
int64_t now_ms(void); /* monotonic */

/* ---- QMP client (qmp_client.c) ---- */

struct qmp;
/* Begin to connect to the socket `file` in the directory fd; never waits. NULL with the reason. */
struct qmp *qmp_open(int dir, const char *file, struct err *e);
void qmp_close(struct qmp *q); /* NULL-safe */
int qmp_fd(const struct qmp *q);
/* Queue a command; args are stolen (NULL: none). fd -1 or one that travels with it. Returns its id. */
unsigned qmp_queue(struct qmp *q, const char *command, json_t *args, int fd);
/* Talk to all of them at once until each has answered everything, has gone, or the time is over. NULL entries are
 * skipped. */
void qmp_gather(struct qmp *const *list, size_t n, int timeout_ms);
/* The answer to a queued command: new reference to what it returned; NULL with e (ETIMEDOUT: none yet, EPIPE: gone,
   else vmm's own words). */
json_t *qmp_answer(struct qmp *q, unsigned id, struct err *e);
/* Queue, gather, answer. */
json_t *qmp_run(struct qmp *q, const char *command, json_t *args, int timeout_ms, struct err *e);
json_t *qmp_run_fd(struct qmp *q, const char *command, json_t *args, int fd, int timeout_ms, struct err *e);
/* The next event, new reference; NULL at the end of time (-1: never) or of the connection (qmp_gone()). */
json_t *qmp_event(struct qmp *q, int timeout_ms);
bool qmp_gone(const struct qmp *q);

/* ---- guests (guest.c) ---- */

#define GUEST_NAME_MAX 64

struct guest {
	char name[GUEST_NAME_MAX + 1];
	int dir;      /* its run directory; -1: none */
	pid_t pid;    /* of vmm, which holds the lock on the pid file; 0: not running */
	pid_t keeper; /* of the process that restarts it; 0: none */
	struct qmp *qmp;
};
struct guest_list {
	struct guest *v;
	size_t n;
};
#define GUEST_INIT ((struct guest){.dir = -1})

bool guest_name_valid(const char *name, struct err *e);
/* Absolute directories; malloc'ed. run: $VMM_RUN_DIR, /run/vmm or $XDG_RUNTIME_DIR/vmm. config: $VMM_CONFIG_DIR,
   /etc/vmm or $XDG_CONFIG_HOME/vmm. log: $VMM_LOG_DIR, /var/log/vmm or $XDG_STATE_HOME/vmm. NULL with the reason. */
char *run_directory(struct err *e);
char *config_directory(struct err *e);
char *log_directory(struct err *e);
int make_directories(const char *path, mode_t mode, struct err *e); /* 0 or -errno */
/* Find by name, or by id (pid) when no guest has that name. */
int guest_find(struct ctl *c, const char *name, struct guest *g);
/* guest_find() and a QMP session that has answered. */
int guest_connect(struct ctl *c, const char *name, struct guest *g);
void guest_close(struct guest *g);
/* All of them in the order of names; with `names` only these (an unknown one is CTL_NO_GUEST). */
int guest_all(struct ctl *c, char **names, int n_names, struct guest_list *list);
void guest_list_free(struct guest_list *list);
void guest_inspect(struct guest *g);                      /* fill pid and keeper from the locks */
int guest_lock_holder(int dir, const char *file);         /* pid, 0: nobody, -1: no such file */
int guest_remove_directory(int dir, const char *run_dir); /* its known files, then itself; 0 or -errno */
char *guest_read_file(int dir, const char *file, size_t limit, size_t *len); /* NULL and errno; NUL-terminated */
int guest_write_file(int dir, const char *file, const char *text, size_t len, mode_t mode); /* atomic; 0 or -errno */
bool guest_wait_end(const struct guest *g, int timeout_ms);                                 /* -1: for ever */
/* A command whose answer nobody needs. */
int guest_command(struct ctl *c, struct guest *g, const char *command, json_t *args);
/* The answer of a command, or NULL with c->err; *status says which kind of failure. */
json_t *guest_query(struct ctl *c, struct guest *g, const char *command, json_t *args, int *status);

/* ---- starting (create.c, keeper.c) ---- */

struct guest_config;
struct start {
	struct guest_config *config;
	const char *vmm;      /* path of the binary */
	const char *incoming; /* -incoming URI, NULL: none */
	int incoming_fd;      /* inherited by vmm for fd: URIs; -1: none */
	bool paused, foreground;
};
/* Make the directory, start keeper and guest, wait until it runs. */
int guest_start(struct ctl *c, const struct start *s);
const char *vmm_binary(void); /* $VMM, next to vmmctl, or "vmm" */

struct keeper {
	struct guest_config *config;
	const char *name;
	char **argv;       /* of vmm, the first start */
	char **argv_again; /* of later starts: without -incoming */
	int dir;           /* run directory of the guest, also vmm's working directory */
	int log;           /* stderr of vmm */
	int incoming_fd;   /* -1: none */
	bool paused;
	bool failed; /* the last vmm ended as none should, or its guest panicked */
	int ready;   /* pipe: "" when it runs, else the reason */
};
/* Run the guest until its policies say that it is over; returns the exit status of the process. */
int keeper_run(struct keeper *k);

/* ---- processors (cpu.c) ---- */

/* "0-3,^1,5" or "all" into a mask of host processors; -EINVAL with the reason. */
struct cpu_mask {
	unsigned char bits[128]; /* 1024 processors */
};
int cpu_mask_parse(const char *text, struct cpu_mask *mask, struct err *e);
char *cpu_mask_format(const struct cpu_mask *mask);
int cpu_mask_apply(pid_t thread, const struct cpu_mask *mask); /* 0 or -errno */
int cpu_mask_of(pid_t thread, struct cpu_mask *mask);          /* 0 or -errno */
/* share.c: weight as Xen counts (256 is one share), cap in per cent of one processor; -1 leaves it. 0 or -errno. */
int sched_set(pid_t pid, const char *name, long weight, long cap, struct err *e);
int sched_get(pid_t pid, long *weight, long *cap, struct err *e);
void sched_rejoin(pid_t pid, const char *name); /* by the keeper: a vmm started again enters the group made for it */
void sched_forget(const char *name); /* by the keeper, when the guest has ended: takes away the group made for it */
bool read_small(const char *path, char *buf,
		size_t size); /* a file of /proc or the like as text; false: empty or not there */

/* User, system and guest time of a process or thread in seconds, start in clock ticks since boot. */
struct proc_times {
	double user, system, guest, steal;
	unsigned long long start;
	char state;
	int cpu;
};
bool proc_times(pid_t pid, pid_t thread, struct proc_times *t); /* thread 0: the process */

#endif
