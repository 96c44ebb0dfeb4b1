/* Verbs: consoles, logs, events and the host. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/kvm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <termios.h>
#include <unistd.h>
#include "ctl.h"
#include "look.h"

#define NO_OPTIONS NULL
#define EXAMPLES(...)             \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}

/* ---- console ---- */

#define CTRL_BRACKET 0x1d
#define QUIET_MS     500 /* at the end of piped input: what the guest still answers */

static bool write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = {fd, POLLOUT, 0};

			poll(&p, 1, -1);
			continue;
		}
		if (n < 0 && errno != EINTR)
			return false;
		buf += MAX(n, 0);
		len -= (size_t)MAX(n, 0);
	}
	return true;
}

int guest_socket(const struct guest *g, const char *file, struct err *e)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(to.sun_path, sizeof(to.sun_path), "/proc/self/fd/%d/%s", g->dir, file);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&to, sizeof(to)))
		return fd;
	err_errno(e, errno, "%s: cannot connect to %s", g->name, file);
	if (fd >= 0)
		close(fd);
	return -1;
}

/* A guest's bytes as a line {"text": ...}. JSON holds text: what is not ASCII becomes '?'. */
static bool print_json_text(char *buf, size_t n)
{
	json_t *line;
	bool ok;

	for (size_t i = 0; i < n; i++)
		if ((buf[i] & 0x80) || !buf[i])
			buf[i] = '?';
	line = json_pack("{s:s#}", "text", buf, n);
	ok = !json_dumpf(line, stdout, JSON_COMPACT) && putchar('\n') >= 0 && !fflush(stdout);
	json_decref(line);
	return ok;
}

/* Both ways until Ctrl-], the end of either side, or of piped input. */
static int relay(struct ctl *c, int fd)
{
	struct pollfd p[2] = {{fd, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
	bool terminal = isatty(STDIN_FILENO), input = true;
	char buf[4096];
	ssize_t n;

	for (;;) {
		p[1].fd = input ? STDIN_FILENO : -1;
		if (poll(p, 2, input ? -1 : QUIET_MS) == 0)
			return CTL_OK;
		if (p[0].revents) {
			n = read(fd, buf, sizeof(buf));
			if (n <= 0)
				return ctl_fail(c, CTL_FAILED, "the guest closed its console");
			if (c->json ? !print_json_text(buf, (size_t)n) : !write_all(STDOUT_FILENO, buf, (size_t)n))
				return ctl_errno(c, errno, "cannot print");
		}
		if (p[1].revents) {
			char *escape;

			n = read(STDIN_FILENO, buf, sizeof(buf));
			input = n > 0;
			escape = n > 0 && terminal ? memchr(buf, CTRL_BRACKET, (size_t)n) : NULL;
			if (n > 0 && !write_all(fd, buf, escape ? (size_t)(escape - buf) : (size_t)n))
				return ctl_fail(c, CTL_FAILED, "the guest closed its console");
			if (escape)
				return CTL_OK;
		}
	}
}

static int relay_raw(struct ctl *c, int fd)
{
	struct termios before, raw;
	bool terminal = !tcgetattr(STDIN_FILENO, &before);
	int r;

	if (terminal) {
		raw = before;
		cfmakeraw(&raw);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
		fputs("Ctrl-] leaves the console\r\n", stderr);
	}
	r = relay(c, fd);
	if (terminal) {
		tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
		fputc('\n', stderr);
	}
	return r;
}

/* vmm's socket has room for one: a second one would wait without a word. */
int console_is_free(struct ctl *c, struct guest *g, long port)
{
	int status;
	json_t *list = guest_query(c, g, "query-chardev", NULL, &status), *item;
	char label[24];
	bool known = false, used = false;
	size_t i;

	snprintf(label, sizeof(label), "console%ld", port);
	json_array_foreach(list, i, item)
	{
		const char *file = json_string_value(json_object_get(item, "filename"));

		if (strcmp(json_string_value(json_object_get(item, "label")), label))
			continue;
		known = true;
		used = file && strncmp(file, "disconnected:", strlen("disconnected:"));
	}
	json_decref(list);
	if (!status && !known)
		return ctl_fail(c, CTL_FAILED, "%s has no console %ld; see [serial] in its configuration", g->name,
				port);
	if (!status && used)
		return ctl_fail(c, CTL_FAILED, "%s: console %ld is in use; vmmctl dmesg -f reads along", g->name, port);
	return status;
}

static int start_viewer(struct ctl *c, struct guest *g)
{
	static const char *const viewers[] = {"vncviewer", "xtigervncviewer", "gvncviewer", "remote-viewer"};
	const char *wish = getenv("VNC_VIEWER"), *host, *service, *family;
	int status;
	json_t *vnc = guest_query(c, g, "query-vnc", NULL, &status);
	char *address;

	if (!vnc)
		return status;
	host = json_string_value(json_object_get(vnc, "host"));
	service = json_string_value(json_object_get(vnc, "service"));
	family = json_string_value(json_object_get(vnc, "family"));
	if (!json_is_true(json_object_get(vnc, "enabled")) || !host || !service) {
		json_decref(vnc);
		return ctl_fail(c, CTL_FAILED, "%s has no screen on VNC; see vnc= in its configuration", g->name);
	}
	if (!strcmp(host, "0.0.0.0") || !strcmp(host, "::"))
		host = "localhost";
	address = family && !strcmp(family, "unix") ? xstrdup(service) : xasprintf("%s::%s", host, service);
	c->result = json_pack("{s:s}", "address", address);
	if (ctl_option(c, "print")) {
		ctl_say(c, "%s\n", address);
	} else {
		execlp(wish && *wish ? wish : viewers[0], wish && *wish ? wish : viewers[0], address, NULL);
		for (size_t i = 1; !(wish && *wish) && i < ARRAY_SIZE(viewers); i++)
			execlp(viewers[i], viewers[i], address, NULL);
		status = ctl_fail(c, CTL_FAILED, "no VNC viewer found; set VNC_VIEWER, or connect one to %s", address);
	}
	free(address);
	json_decref(vnc);
	return status;
}

int console_attach(struct ctl *c, struct guest *g, long port)
{
	char file[32];
	int r = console_is_free(c, g, port), fd;

	if (r)
		return r;
	snprintf(file, sizeof(file), port ? "console%ld.sock" : "console.sock", port);
	fd = guest_socket(g, file, &c->err);
	if (fd < 0)
		return CTL_FAILED;
	r = relay_raw(c, fd);
	close(fd);
	c->json &= r != CTL_OK; /* the lines were the result */
	return r;
}

static int do_console(struct ctl *c)
{
	const char *number = ctl_option(c, "number");
	struct guest g;
	long port = 0;
	int r = number ? ctl_number(c, "--number", number, 0, 3, &port) : CTL_OK;

	if (!r)
		r = guest_connect(c, c->argv[0], &g);
	if (r)
		return r;
	r = ctl_option(c, "graphical") || ctl_option(c, "print") ? start_viewer(c, &g) : console_attach(c, &g, port);
	guest_close(&g);
	return r;
}

/* ---- logs ---- */

#define TAIL_MAX MIB

struct tail {
	int fd;
	bool raw;
	off_t at;
};

/* A guest's bytes do not command the terminal. */
static void print_safely(char *buf, size_t n, bool raw)
{
	for (size_t i = 0; !raw && i < n; i++)
		if (((unsigned char)buf[i] < ' ' && !strchr("\n\t", buf[i])) || buf[i] == 0x7f)
			buf[i] = buf[i] == '\r' ? '\0' : '?';
	for (size_t i = 0; i < n; i++)
		if (raw || buf[i])
			putchar(buf[i]);
}

/* Where the last `lines` lines begin. Holes at the beginning are not read. */
static off_t tail_start(int fd, long lines)
{
	off_t end = lseek(fd, 0, SEEK_END), data = lseek(fd, 0, SEEK_DATA), at;
	char *buf;
	ssize_t n;

	if (data < 0 || end < 0)
		return MAX(end, 0);
	data = MAX(data, end - (off_t)TAIL_MAX);
	if (lines < 0)
		return data;
	buf = xzalloc(TAIL_MAX);
	n = pread(fd, buf, (size_t)(end - data), data);
	for (at = MAX(n, 0); at > 0; at--)
		if (buf[at - 1] == '\n' && at != n && --lines == 0)
			break;
	free(buf);
	return data + at;
}

static bool print_more(struct ctl *c, struct tail *t)
{
	char buf[16384];
	ssize_t n = pread(t->fd, buf, sizeof(buf), t->at);

	if (n <= 0)
		return false;
	t->at += n;
	if (c->json)
		return print_json_text(buf, (size_t)n);
	print_safely(buf, (size_t)n, t->raw);
	return true;
}

/* Print, and with --follow go on until the guest ends (g: NULL to follow for ever) or nobody reads. */
static int print_tail(struct ctl *c, int fd, const struct guest *g)
{
	const char *n = ctl_option(c, "lines");
	struct tail t = {.fd = fd, .raw = ctl_option(c, "raw") != NULL};
	long lines = -1;
	int r = n ? ctl_number(c, "--lines", n, 0, 1000000, &lines) : CTL_OK;

	if (r)
		return r;
	t.at = lines == 0 ? lseek(fd, 0, SEEK_END) : tail_start(fd, lines);
	if (c->json && !ctl_option(c, "follow")) {
		off_t end = lseek(fd, 0, SEEK_END);
		char *buf = xzalloc((size_t)(end - t.at) + 1);
		ssize_t got = pread(fd, buf, (size_t)(end - t.at), t.at);

		for (ssize_t i = 0; i < got; i++) /* JSON strings hold text */
			if ((buf[i] & 0x80) || !buf[i])
				buf[i] = '?';
		c->result = json_pack("{s:s#}", "text", buf, (size_t)MAX(got, 0));
		free(buf);
		return CTL_OK;
	}
	while (print_more(c, &t)) {
	}
	while (ctl_option(c, "follow") && !fflush(stdout)) {
		bool over = g ? guest_wait_end(g, 200) : poll(NULL, 0, 200) < 0;

		while (print_more(c, &t)) {
		}
		if (over)
			break;
	}
	c->json = false; /* the lines were the result */
	return CTL_OK;
}

static int do_dmesg(struct ctl *c)
{
	struct guest g;
	int r = guest_find(c, c->argv[0], &g), fd;

	if (r)
		return r;
	fd = openat(g.dir, "console.log", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		r = ctl_errno(c, errno, "%s: no console output is kept", g.name);
	else
		r = print_tail(c, fd, &g);
	if (fd >= 0)
		close(fd);
	guest_close(&g);
	return r;
}

static int do_log(struct ctl *c)
{
	char *dir, *path;
	int r, fd;

	if (!guest_name_valid(c->argv[0], &c->err))
		return CTL_USAGE;
	dir = log_directory(&c->err);
	if (!dir)
		return CTL_FAILED;
	path = xasprintf("%s/%s.log", dir, c->argv[0]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	r = fd < 0 ? ctl_errno(c, errno, "cannot read %s", path) : print_tail(c, fd, NULL);
	if (fd >= 0)
		close(fd);
	free(path);
	free(dir);
	return r;
}

/* ---- events ---- */

static int print_event(const struct guest *g, json_t *event)
{
	json_object_set_new(event, "guest", json_string(g->name));
	json_dumpf(event, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(event);
	return fflush(stdout);
}

static int do_events(struct ctl *c)
{
	const char *count = ctl_option(c, "count");
	struct guest_list list;
	struct pollfd *p;
	long left = -1;
	size_t live;
	int r = count ? ctl_number(c, "--count", count, 1, INT32_MAX, &left) : CTL_OK;

	if (!r)
		r = guest_all(c, c->argv, c->argc, &list);
	if (r)
		return r;
	p = xcalloc(list.n + 1, sizeof(*p));
	for (size_t i = 0; i < list.n; i++) {
		json_t *ready;

		list.v[i].qmp = list.v[i].pid ? qmp_open(list.v[i].dir, "qmp.sock", NULL) : NULL;
		ready = list.v[i].qmp ? qmp_run(list.v[i].qmp, "query-status", NULL, c->timeout_ms, NULL) : NULL;
		json_decref(ready);
	}
	p[list.n] = (struct pollfd){STDOUT_FILENO, 0, 0}; /* POLLERR: nobody reads any more */
	do {
		live = 0;
		for (size_t i = 0; i < list.n; i++) {
			struct qmp *q = list.v[i].qmp;
			json_t *event;

			while (left && q && (event = qmp_event(q, 0))) {
				left -= left > 0;
				if (print_event(&list.v[i], event))
					left = 0;
			}
			p[i] = (struct pollfd){q && !qmp_gone(q) ? qmp_fd(q) : -1, POLLIN, 0};
			live += p[i].fd >= 0;
		}
	} while (left && live && poll(p, list.n + 1, -1) >= 0 && !p[list.n].revents);
	free(p);
	guest_list_free(&list);
	c->json = false; /* the lines were the result */
	return CTL_OK;
}

/* ---- host ---- */

/* The value behind "key   : " in a file such as /proc/cpuinfo; "" if it is not there. */
static void proc_value(const char *path, const char *key, char *out, size_t size)
{
	FILE *f = fopen(path, "re");
	char line[4096];

	*out = 0;
	while (f && !*out && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, key, strlen(key)) || !colon)
			continue;
		colon += 1 + strspn(colon + 1, " \t");
		colon[strcspn(colon, "\n")] = 0;
		snprintf(out, size, "%s", colon);
	}
	if (f)
		fclose(f);
}

/* Ask KVM itself: what guests need, and what makes them fast. */
static void add_kvm(json_t *o)
{
	static const struct {
		const char *name;
		int cap;
	} caps[] = {{"irqchip", KVM_CAP_IRQCHIP},
		    {"split-irqchip", KVM_CAP_SPLIT_IRQCHIP},
		    {"irqfd", KVM_CAP_IRQFD},
		    {"ioeventfd", KVM_CAP_IOEVENTFD},
		    {"msi", KVM_CAP_SIGNAL_MSI},
		    {"readonly-mem", KVM_CAP_READONLY_MEM},
		    {"dirty-ring", KVM_CAP_DIRTY_LOG_RING},
		    {"tsc-control", KVM_CAP_TSC_CONTROL},
		    {"smm", KVM_CAP_X86_SMM},
		    {"hyperv", KVM_CAP_HYPERV}};
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	char text[400] = "";

	if (fd < 0) {
		snprintf(text, sizeof(text), "not usable: %s", strerror(errno));
		json_object_set_new(o, "kvm", json_string(text));
		return;
	}
	json_object_set_new(o, "kvm", json_integer(ioctl(fd, KVM_GET_API_VERSION, 0)));
	json_object_set_new(o, "kvm_max_vcpus", json_integer(ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS)));
	for (size_t i = 0; i < ARRAY_SIZE(caps); i++)
		if (ioctl(fd, KVM_CHECK_EXTENSION, caps[i].cap) > 0)
			snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", *text ? " " : "",
				 caps[i].name);
	json_object_set_new(o, "kvm_caps", json_string(text));
	close(fd);
}

static int do_info(struct ctl *c)
{
	struct utsname u;
	char text[400], flags[4096];
	static const char *const memory[][2] = {{"MemTotal", "total_memory"}, {"MemAvailable", "free_memory"}};
	json_t *o = json_object();

	uname(&u);
	json_object_set_new(o, "host", json_string(u.nodename));
	json_object_set_new(o, "release", json_string(u.release));
	json_object_set_new(o, "machine", json_string(u.machine));
	json_object_set_new(o, "nr_cpus", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
	proc_value("/proc/cpuinfo", "model name", text, sizeof(text));
	json_object_set_new(o, "cpu", json_string(text));
	proc_value("/proc/cpuinfo", "cpu MHz", text, sizeof(text));
	json_object_set_new(o, "cpu_mhz", json_string(text));
	proc_value("/proc/cpuinfo", "flags", flags, sizeof(flags));
	json_object_set_new(o, "virt_caps",
			    json_string(strstr(flags, " vmx")   ? "vmx"
					: strstr(flags, " svm") ? "svm"
								: "none"));
	for (size_t i = 0; i < ARRAY_SIZE(memory); i++) {
		proc_value("/proc/meminfo", memory[i][0], text, sizeof(text));
		json_object_set_new(o, memory[i][1], json_integer(strtoll(text, NULL, 10) / 1024));
	}
	add_kvm(o);
	for (size_t i = 0; i < 3; i++) {
		static const char *const names[] = {"run_directory", "config_directory", "log_directory"};
		char *(*const find[])(struct err *) = {run_directory, config_directory, log_directory};
		char *path = find[i](NULL);

		json_object_set_new(o, names[i], path ? json_string(path) : json_null());
		free(path);
	}
	json_object_set_new(o, "vmm", json_string(vmm_binary()));
	c->result = o;
	table_print_object(c, o);
	return CTL_OK;
}

/* ---- the table ---- */

static const struct verb_option console_options[] = {
	{'n', "number", "N", "which serial port (0 to 3)"},
	{'g', "graphical", NULL, "start a VNC viewer ($VNC_VIEWER) instead"},
	{0, "print", NULL, "print the screen's address instead"},
	{0}};
static const struct verb_option tail_options[] = {{'n', "lines", "N", "only the last N lines"},
						  {'f', "follow", NULL, "go on as more comes"},
						  {0, "raw", NULL, "print control characters as they are"},
						  {0}};
static const struct verb_option events_options[] = {{'n', "count", "N", "leave after N events"}, {0}};

const struct verb look_verbs[] = {
	{"console", "GUEST", "Be a guest's serial terminal, or show its screen",
	 "Ctrl-] leaves. Input that is piped ends the session when it ends.", console_options, 1, 1, WORDS_GUEST,
	 do_console, EXAMPLES("echo root | vmmctl console web", "vmmctl console --print web")},
	{"dmesg", "GUEST", "Print what a guest wrote to its console",
	 "The last 256 KiB at least are kept, from the start of the guest on.", tail_options, 1, 1, WORDS_GUEST,
	 do_dmesg, EXAMPLES("vmmctl dmesg -n 20 web")},
	{"log", "GUEST", "Print the log of a guest's vmm and keeper", "Also when it has ended: the reason is there.",
	 tail_options, 1, 1, WORDS_GUEST, do_log, EXAMPLES("vmmctl log web")},
	{"top", "[GUEST]...", "Show what guests do, as it changes",
	 "GUEST% is time in the guest, VMM% time in vmm for it, both in per cent of one processor; STEAL% is time in "
	 "which vCPUs were "
	 "ready but had no processor. Rates are per second. The line draws CPU% over the last turns. q leaves.",
	 top_options, 0, -1, WORDS_GUESTS, do_top, EXAMPLES("vmmctl top --batch --count 2 --delay 0.2")},
	{"events", "[GUEST]...", "Print QMP events of guests as JSON lines, as they come", NULL, events_options, 0, -1,
	 WORDS_GUESTS, do_events, EXAMPLES("timeout 1 vmmctl events web || true")},
	{"vnet-list", "[GUEST]...", "List networks and the guests on them",
	 "NETWORK is the bridge a guest's tap is a port of, the tap itself if there is none, or the address of a "
	 "network of the guest's "
	 "own.",
	 NO_OPTIONS, 0, -1, WORDS_GUESTS, do_vnet_list, EXAMPLES("vmmctl vnet-list")},
	{"info", "", "Describe the host: processors, memory, KVM, directories", NULL, NO_OPTIONS, 0, 0, WORDS_NONE,
	 do_info, EXAMPLES("vmmctl info")},
	{NULL},
};
