/* The log writer: see vmm/log.h. One write(2) per line, so lines of several threads do not mix. */
#include "vmm/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_LINE 2048
#define SECOND   1000000000ull

static const char *const level_names[LOG_LEVELS] = {"error", "warning", "info", "guest", "debug"};

/* tests/style/log_rooms.py compares this list with the sources. */
static const struct {
	const char *name, *summary;
} rooms[] = {
	{"block", "images, engines, drives"},
	{"boot", "direct kernel boot"},
	{"chardev", "serial and socket back ends"},
	{"control", "QMP, events, metrics"},
	{"display", "screens, VNC, keyboard maps"},
	{"e1000", "Intel gigabit Ethernet"},
	{"fdc", "floppy controller"},
	{"floppy", "floppy drives"},
	{"fw_cfg", "firmware configuration interface"},
	{"gdb", "the gdb stub"},
	{"i8237", "DMA controller"},
	{"i8254", "timer"},
	{"i8259", "interrupt controller"},
	{"ide", "IDE disks and CD-ROMs"},
	{"input", "keyboard and mouse"},
	{"ioapic", "I/O APIC"},
	{"kvm", "KVM, vCPUs"},
	{"machine", "life cycle, board"},
	{"main", "start and end"},
	{"map", "memory and port accesses"},
	{"migration", "migration and saved states"},
	{"net", "network back ends"},
	{"pci", "PCI bus"},
	{"piix4_pm", "power management"},
	{"pvpanic", "the guest's panic device"},
	{"rtl8139", "Realtek fast Ethernet"},
	{"sandbox", "seccomp, privileges"},
	{"virtio", "virtio devices"},
};
#define N_ROOMS ARRAY_SIZE(rooms)

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER; /* leaf */
static int log_fd = STDERR_FILENO;
static enum log_level log_level = LOG_INFO;
static enum log_level room_level[N_ROOMS]; /* where filtered */
static bool filtered, guest_errors, log_timestamp, log_json;
static char *guest_name;
static uint64_t counts[LOG_LEVELS], n_suppressed; /* log_lock */

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

const char *log_room(size_t i, const char **summary)
{
	if (i >= N_ROOMS)
		return NULL;
	*summary = rooms[i].summary;
	return rooms[i].name;
}

static int find_room(const char *name)
{
	for (size_t i = 0; i < N_ROOMS; i++)
		if (!strcmp(rooms[i].name, name))
			return (int)i;
	return -1;
}

bool log_enabled(enum log_level level, const char *room)
{
	int i;

	if (level == LOG_GUEST)
		return guest_errors;
	if (!filtered)
		return level <= log_level;
	i = find_room(room);
	return level <= (i < 0 ? log_level : room_level[i]);
}

/* ---- lines ---- */

struct line {
	char text[MAX_LINE];
	size_t n;
};

/* What is cut off is the end of the message, never what closes it. */
#define TAIL 8

static void add(struct line *l, const char *text)
{
	for (; *text && l->n < MAX_LINE - TAIL; text++)
		l->text[l->n++] = *text;
}

/* What a guest or peer named must not steer a terminal, nor end a JSON string. */
static void add_safe(struct line *l, const char *text)
{
	for (; *text && l->n < MAX_LINE - TAIL - 2; text++) {
		unsigned char c = (unsigned char)*text;

		if (log_json && (c == '"' || c == '\\'))
			l->text[l->n++] = '\\';
		l->text[l->n++] = c < 0x20 || c == 0x7f || (log_json && c >= 0x80) ? '?' : (char)c;
	}
}

static void add_time(struct line *l)
{
	char text[64];
	struct timespec ts;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, sizeof(text) - n, ".%06ldZ", ts.tv_nsec / 1000);
	add(l, text);
}

static void add_member(struct line *l, const char *key, const char *value)
{
	add(l, ", \"");
	add(l, key);
	add(l, "\": \"");
	add_safe(l, value);
	add(l, "\"");
}

static void json_line(struct line *l, enum log_level level, const char *room, const char *text)
{
	add(l, "{\"time\": \"");
	add_time(l);
	add(l, "\"");
	if (guest_name)
		add_member(l, "guest", guest_name);
	add_member(l, "level", level_names[level]);
	add_member(l, "room", room);
	add(l, ", \"text\": \"");
	add_safe(l, text);
	memcpy(l->text + l->n, "\"}\n", 3);
	l->n += 3;
}

static void text_line(struct line *l, enum log_level level, const char *room, const char *text)
{
	if (log_timestamp) {
		add_time(l);
		add(l, " ");
	}
	if (guest_name) {
		add_safe(l, guest_name);
		add(l, " ");
	}
	add(l, "vmm: ");
	if (level != LOG_INFO) {
		add(l, level_names[level]);
		add(l, ": ");
	}
	add(l, room);
	add(l, ": ");
	add_safe(l, text);
	l->text[l->n++] = '\n';
}

static void write_line(enum log_level level, const char *room, const char *fmt, va_list ap)
{
	char text[MAX_LINE];
	struct line l = {.n = 0};

	vsnprintf(text, sizeof(text), fmt, ap);
	if (log_json)
		json_line(&l, level, room, text);
	else
		text_line(&l, level, room, text);
	pthread_mutex_lock(&log_lock);
	counts[level]++;
	if (write(log_fd, l.text, l.n) < 0) {
		/* a full disk must not stop the guest */
	}
	pthread_mutex_unlock(&log_lock);
}

void log_write(enum log_level level, const char *room, const char *fmt, ...)
{
	va_list ap;

	if (!log_enabled(level, room))
		return;
	va_start(ap, fmt);
	write_line(level, room, fmt, ap);
	va_end(ap);
}

void log_limited(struct log_limit *limit, enum log_level level, const char *room, const char *fmt, ...)
{
	struct timespec ts;
	uint64_t now;
	uint32_t missed;
	va_list ap;

	if (!log_enabled(level, room))
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
	pthread_mutex_lock(&log_lock);
	if (now - limit->window_start_ns > SECOND && limit->count >= LOG_BURST)
		limit->count = LOG_BURST - 1;
	if (limit->count >= LOG_BURST) {
		limit->suppressed++;
		n_suppressed++;
		pthread_mutex_unlock(&log_lock);
		return;
	}
	limit->count++;
	limit->window_start_ns = now;
	missed = limit->suppressed;
	limit->suppressed = 0;
	pthread_mutex_unlock(&log_lock);
	if (missed)
		log_write(level, room, "(%u similar lines left out)", missed);
	va_start(ap, fmt);
	write_line(level, room, fmt, ap);
	va_end(ap);
}

uint64_t log_count(enum log_level level)
{
	uint64_t n;

	pthread_mutex_lock(&log_lock);
	n = counts[level];
	pthread_mutex_unlock(&log_lock);
	return n;
}

uint64_t log_suppressed(void)
{
	uint64_t n;

	pthread_mutex_lock(&log_lock);
	n = n_suppressed;
	pthread_mutex_unlock(&log_lock);
	return n;
}

/* ---- settings ---- */

int log_open(const char *path, struct err *e)
{
	int fd = STDERR_FILENO, old;

	if (path) {
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (fd < 0)
			return err_errno(e, errno, "-D %s: cannot open the log file", path);
	}
	pthread_mutex_lock(&log_lock);
	old = log_fd;
	log_fd = fd;
	pthread_mutex_unlock(&log_lock);
	if (old != STDERR_FILENO && old != fd)
		close(old);
	return 0;
}

static int take_level(const char *text, enum log_level *level, struct err *e)
{
	for (int i = 0; i < LOG_LEVELS; i++)
		if (i != LOG_GUEST && !strcmp(text, level_names[i])) {
			*level = (enum log_level)i;
			return 0;
		}
	return err_set(e, EINVAL, "'%s' is not a level: error, warning, info or debug", text);
}

static int unknown_room(const char *name, struct err *e)
{
	const char *names[N_ROOMS + 2] = {"all", "guest_errors"}, *near;

	for (size_t i = 0; i < N_ROOMS; i++)
		names[i + 2] = rooms[i].name;
	near = err_nearest(name, names, ARRAY_SIZE(names));
	return err_set(e, EINVAL, "'%s' is nothing that logs%s%s%s", name, near ? "; did you mean '" : ", see -d help",
		       near ? near : "", near ? "'?" : "");
}

/* One item of -d; the text is changed. */
static int take_item(char *item, struct err *e)
{
	char *equals = strchr(item, '=');
	enum log_level level = LOG_DEBUG;
	int room;

	if (!strcmp(item, "guest_errors")) {
		guest_errors = true;
		return 0;
	}
	if (equals) {
		*equals = 0;
		if (take_level(equals + 1, &level, e))
			return -EINVAL;
	}
	room = find_room(item);
	if (room < 0 && strcmp(item, "all"))
		return unknown_room(item, e);
	for (size_t i = 0; i < N_ROOMS; i++)
		if (room < 0 || (size_t)room == i)
			room_level[i] = level;
	guest_errors |= room < 0 && level == LOG_DEBUG;
	filtered = true;
	return 0;
}

int log_set_filter(const char *list, struct err *e)
{
	char *copy = xstrdup(list ? list : ""), *save = NULL;
	int r = 0;

	filtered = guest_errors = false;
	for (size_t i = 0; i < N_ROOMS; i++)
		room_level[i] = log_level;
	for (char *item = strtok_r(copy, ",", &save); !r && item; item = strtok_r(NULL, ",", &save))
		r = take_item(item, e);
	free(copy);
	return r;
}

void log_set_level(enum log_level level)
{
	log_level = level;
}

void log_set_timestamp(bool on)
{
	log_timestamp = on;
}

void log_set_guest_name(const char *name)
{
	free(guest_name);
	guest_name = name ? xstrdup(name) : NULL;
}

void log_set_json(bool on)
{
	log_json = on;
}

int log_raw_fd(void)
{
	return log_fd;
}

bool log_is_json(void)
{
	return log_json;
}
