/* Verbs: from a configuration file to a guest, and what is done with such files. */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "config.h"
#include "look.h"
#include "verbs_config.h"

#define NO_OPTIONS NULL
#define EXAMPLES(...)             \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}

/* ---- finding and reading ---- */

/* A path, or the name of a file in the configuration directory. malloc'ed. */
static char *find_file(struct ctl *c, const char *word)
{
	char *dir, *path;

	if (strchr(word, '/') || !access(word, F_OK))
		return xstrdup(word);
	dir = config_directory(&c->err);
	if (!dir)
		return NULL;
	path = xasprintf("%s/%s.vmm", dir, word);
	if (access(path, F_OK)) {
		free(path);
		path = xasprintf("%s/%s", dir, word);
	}
	if (access(path, F_OK)) {
		ctl_fail(c, CTL_BAD_CONFIG, "there is no file %s, and no configuration of that name in %s", word, dir);
		free(path);
		path = NULL;
	}
	free(dir);
	return path;
}

static int load(struct ctl *c, const char *word, const char *format, struct guest_config **out)
{
	char *path = find_file(c, word);
	struct notes notes = {0};
	int r = path ? CTL_OK : CTL_BAD_CONFIG;

	*out = guest_config_new();
	if (!r && config_load(*out, path, format, &notes, &c->err))
		r = CTL_BAD_CONFIG;
	for (size_t i = 0; i < notes.n; i++)
		ctl_warn(c, "%s", notes.v[i]);
	notes_free(&notes);
	free(path);
	if (r) {
		guest_config_free(*out);
		*out = NULL;
	}
	return r;
}

/* KEY=VALUE words behind the file override it, as with xm. */
static int override(struct ctl *c, struct guest_config *config, int first)
{
	for (int i = first; i < c->argc; i++) {
		char *equal = strchr(c->argv[i], '='), *key;
		int r;

		if (!equal)
			return ctl_fail(c, CTL_USAGE, "'%.80s': KEY=VALUE was expected behind the file", c->argv[i]);
		key = xstrndup(c->argv[i], (size_t)(equal - c->argv[i]));
		for (char *s = key; *s; s++)
			if (*s == '_')
				*s = '-';
		r = guest_config_set(config, key, equal + 1, &c->err);
		free(key);
		if (r)
			return CTL_BAD_CONFIG;
	}
	return guest_config_complete(config, NULL, config->name, &c->err) ? CTL_BAD_CONFIG : CTL_OK;
}

/* ---- create ---- */

static int print_command(struct ctl *c, const struct guest_config *config)
{
	struct argv argv = {0};
	char *text;
	json_t *words = json_array();
	int r = config_command_line(config, vmm_binary(), &argv, &c->err) ? CTL_BAD_CONFIG : CTL_OK;

	if (!r) {
		text = argv_quote(&argv);
		ctl_say(c, "%s\n", text);
		free(text);
		for (size_t i = 0; i < argv.n; i++)
			json_array_append_new(words, json_string(argv.v[i]));
	}
	c->result = json_pack("{s:s, s:o}", "name", config->name, "command", words);
	argv_free(&argv);
	return r;
}

static int attach_console(struct ctl *c, const char *name)
{
	struct guest g;
	int r = guest_connect(c, name, &g);

	if (!r)
		r = console_attach(c, &g, 0);
	guest_close(&g);
	return r;
}

int start_config(struct ctl *c, const struct start *s)
{
	struct guest g;
	int r = guest_start(c, s);

	if (r || s->foreground)
		return r;
	if (!guest_find(c, s->config->name, &g)) {
		c->result = json_pack("{s:s, s:i}", "name", g.name, "id", (int)g.pid);
		guest_close(&g);
	}
	return CTL_OK;
}

static int do_create(struct ctl *c)
{
	struct start s = {.vmm = vmm_binary(),
			  .incoming = ctl_option(c, "incoming"),
			  .incoming_fd = -1,
			  .paused = ctl_option(c, "paused"),
			  .foreground = ctl_option(c, "foreground")};
	int r = load(c, c->argv[0], ctl_option(c, "format"), &s.config);

	if (!r)
		r = override(c, s.config, 1);
	if (!r && !guest_name_valid(s.config->name, &c->err))
		r = CTL_BAD_CONFIG;
	if (!r && ctl_option(c, "dry-run"))
		r = print_command(c, s.config);
	else if (!r)
		r = start_config(c, &s);
	if (!r && ctl_option(c, "console") && !s.foreground && !ctl_option(c, "dry-run"))
		r = attach_console(c, s.config->name);
	guest_config_free(s.config);
	return r;
}

/* ---- clone ---- */

static int make_anew(struct ctl *c, struct guest_config *config)
{
	if (getrandom(config->uuid, sizeof(config->uuid), 0) != sizeof(config->uuid))
		return ctl_errno(c, errno, "no random numbers");
	config->uuid[6] = (config->uuid[6] & 0x0f) | 0x40; /* RFC 4122 4.4: version 4 */
	config->uuid[8] = (config->uuid[8] & 0x3f) | 0x80;
	for (struct nic_config *n = config->nics; n; n = n->next) {
		uint8_t tail[3];

		if (!n->mac)
			continue;
		if (getrandom(tail, sizeof(tail), 0) != sizeof(tail))
			return ctl_errno(c, errno, "no random numbers");
		free(n->mac);
		n->mac = xasprintf("52:54:00:%02x:%02x:%02x", tail[0], tail[1], tail[2]);
	}
	return CTL_OK;
}

/* "/srv/web.img" of web -> "/srv/new.img"; "/srv/disk0.img" -> "/srv/new-disk0.img" */
static char *copy_name(const char *path, const char *directory, const char *from, const char *to)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	char *dir = directory ? xstrdup(directory) : xstrndup(path, slash ? (size_t)(slash - path) : 0), *out;
	size_t n = strlen(from);

	if (!strncmp(base, from, n) && (base[n] == '.' || base[n] == '-' || base[n] == '_' || !base[n]))
		out = xasprintf("%s/%s%s", dir, to, base + n);
	else
		out = xasprintf("%s/%s-%s", dir, to, base);
	free(dir);
	return out;
}

static void remove_copies(struct guest_config *copy, const struct guest_config *original,
			  const struct disk_config *until)
{
	const struct disk_config *o = original->disks;

	for (struct disk_config *d = copy->disks; d && d != until; d = d->next, o = o->next)
		if (d->file && strcmp(d->file, o->file))
			unlink(d->file);
}

static int copy_disks(struct ctl *c, struct guest_config *copy, const struct guest_config *original)
{
	const char *directory = ctl_option(c, "directory");
	int r = CTL_OK;

	for (struct disk_config *d = copy->disks; !r && d; d = d->next) {
		char *to;

		if (!d->file || d->readonly || d->media == 1) /* clones share what nobody writes */
			continue;
		to = copy_name(d->file, directory, original->name, copy->name);
		r = copy_image(c, d->file, to);
		if (!r) {
			free(d->file);
			d->file = to;
		} else {
			remove_copies(copy, original, d);
			free(to);
		}
	}
	return r;
}

static int write_new(struct ctl *c, const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), r = CTL_OK;

	if (fd < 0)
		return ctl_errno(c, errno, "cannot create %s", path);
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd)) {
		r = ctl_errno(c, errno ? errno : ENOSPC, "cannot write %s", path);
		unlink(path);
	}
	close(fd);
	return r;
}

/* The image of a running guest is not at rest. */
static int refuse_running(struct ctl *c, const char *name)
{
	struct guest g;
	struct err before = c->err;
	int r = guest_find(c, name, &g);
	bool runs = !r && (g.pid || g.keeper);

	guest_close(&g);
	c->err = before;
	return runs ? ctl_fail(c, CTL_FAILED, "%s runs: its disks are not at rest; shut it down first", name) : CTL_OK;
}

static int do_clone(struct ctl *c)
{
	const char *to = c->argv[1];
	struct guest_config *config, *copy = NULL;
	char *dir = NULL, *path = NULL, *text;
	int r;

	if (!guest_name_valid(to, &c->err))
		return CTL_USAGE;
	r = load(c, c->argv[0], ctl_option(c, "format"), &config);
	if (!r)
		r = refuse_running(c, config->name);
	if (!r) {
		dir = config_directory(&c->err);
		r = !dir || make_directories(dir, 0755, &c->err) ? CTL_FAILED : CTL_OK;
	}
	if (!r) {
		path = xasprintf("%s/%s.vmm", dir, to);
		if (!access(path, F_OK))
			r = ctl_fail(c, CTL_FAILED, "%s exists already", path);
	}
	if (!r) {
		copy = guest_config_copy(config);
		free(copy->name);
		copy->name = xstrdup(to);
		r = make_anew(c, copy);
	}
	if (!r)
		r = copy_disks(c, copy, config);
	if (!r) {
		text = config_format(copy);
		r = write_new(c, path, text);
		if (r)
			remove_copies(copy, config, NULL);
		free(text);
	}
	if (!r) {
		c->result = json_pack("{s:s, s:s}", "name", to, "config", path);
		ctl_say(c, "%s\n", path);
	}
	guest_config_free(config);
	guest_config_free(copy);
	free(path);
	free(dir);
	return r;
}

/* ---- edit ---- */

static int run_editor(struct ctl *c, const char *file)
{
	const char *visual = getenv("VISUAL"), *editor = getenv("EDITOR");
	const char *command = visual && *visual ? visual : editor && *editor ? editor : "vi";
	char *script = xasprintf("%s \"$1\"", command);
	pid_t pid = fork();
	int status = 0;

	if (!pid) {
		execl("/bin/sh", "sh", "-c", script, "sh", file, (char *)NULL);
		_exit(127);
	}
	free(script);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return ctl_errno(c, errno, "cannot start the editor");
	return status ? ctl_fail(c, CTL_FAILED, "the editor failed; nothing is changed") : CTL_OK;
}

static bool once_more(const struct ctl *c)
{
	char answer[8];

	fprintf(stderr, "vmmctl: %s\nEdit again? [Y/n] ", c->err.msg);
	return fgets(answer, sizeof(answer), stdin) && (*answer == 'y' || *answer == 'Y' || *answer == '\n');
}

/* On a copy, which takes the file's place once it has no mistakes. */
static int do_edit(struct ctl *c)
{
	char *path = find_file(c, c->argv[0]), *copy, *slash, *text;
	struct guest_config *config = NULL;
	struct notes notes = {0};
	struct stat st;
	bool native;
	FILE *in;
	size_t n;
	int r = path ? CTL_OK : CTL_BAD_CONFIG;

	if (r)
		return r;
	native = strlen(path) > 4 && !strcmp(path + strlen(path) - 4, ".vmm");
	slash = strrchr(path, '/');
	copy = xasprintf("%.*s.%s.new", (int)(slash ? slash - path + 1 : 0), path, slash ? slash + 1 : path);
	text = xzalloc(MIB);
	in = fopen(path, "re");
	n = in ? fread(text, 1, MIB - 1, in) : 0;
	if (!in || fstat(fileno(in), &st))
		r = ctl_errno(c, errno, "cannot read %s", path);
	if (in)
		fclose(in);
	text[n] = 0;
	unlink(copy); /* of an editor that was killed */
	if (!r)
		r = write_new(c, copy, text);
	while (!r) {
		r = run_editor(c, copy);
		if (r)
			break;
		config = guest_config_new();
		if (!config_load(config, copy, native ? "vmm" : "xen", &notes, &c->err))
			break;
		r = CTL_BAD_CONFIG;
		if (!isatty(STDIN_FILENO) || !once_more(c))
			break;
		r = CTL_OK;
		guest_config_free(config);
		config = NULL;
	}
	if (!r && (chmod(copy, st.st_mode & 07777) || rename(copy, path)))
		r = ctl_errno(c, errno, "cannot replace %s", path);
	if (r)
		unlink(copy);
	guest_config_free(config);
	notes_free(&notes);
	free(text);
	free(copy);
	free(path);
	return r;
}

/* ---- autostart ---- */

/* Links in CONFIG/autostart: NAME.vmm -> ../NAME.vmm */
static int set_autostart(struct ctl *c, const char *dir, const char *name, const char *word)
{
	char *links = xasprintf("%s/autostart", dir), *file = xasprintf("%s/%s.vmm", dir, name),
	     *link = xasprintf("%s/%s.vmm", links, name), *target = xasprintf("../%s.vmm", name);
	bool on = !strcmp(word, "on");
	int r = CTL_OK;

	if (!on && strcmp(word, "off"))
		r = ctl_fail(c, CTL_USAGE, "autostart: on or off was expected, not '%.40s'", word);
	else if (!guest_name_valid(name, &c->err))
		r = CTL_USAGE;
	else if (on && access(file, F_OK))
		r = ctl_fail(c, CTL_BAD_CONFIG, "there is no %s", file);
	else if (on && make_directories(links, 0755, &c->err))
		r = CTL_FAILED;
	else if (on && symlink(target, link) && errno != EEXIST)
		r = ctl_errno(c, errno, "cannot create %s", link);
	else if (!on && unlink(link) && errno != ENOENT)
		r = ctl_errno(c, errno, "cannot remove %s", link);
	free(links);
	free(file);
	free(link);
	free(target);
	return r;
}

/* A service for each where systemd runs the host: it then knows the guests, and shuts them down with itself. The units
 * know of the host's own directory only. */
static int start_one(struct ctl *c, const char *dir, const char *name)
{
	struct start s = {.vmm = vmm_binary(), .incoming_fd = -1};
	char *unit;
	int r, status = 0;
	pid_t pid;

	if (!access("/run/systemd/system", F_OK) && geteuid() == 0 && !strcmp(dir, "/etc/vmm") &&
	    !strchr(name, '+')) { /* which the name of a unit cannot have: that guest gets a scope */
		unit = xasprintf("vmm@%s.service", name);
		pid = fork();
		if (!pid) {
			execlp("systemctl", "systemctl", "start", "--no-block", unit, (char *)NULL);
			_exit(127);
		}
		free(unit);
		if (pid < 0 || waitpid(pid, &status, 0) < 0 || status)
			return ctl_fail(c, CTL_FAILED, "systemctl start vmm@%s.service failed", name);
		return CTL_OK;
	}
	r = load(c, name, NULL, &s.config);
	if (!r)
		r = guest_start(c, &s);
	guest_config_free(s.config);
	return r;
}

static int do_autostart(struct ctl *c)
{
	static const struct column columns[] = {{"NAME", "name"}, {NULL}};
	bool start = ctl_option(c, "start");
	char *dir = config_directory(&c->err), *links;
	struct dirent *entry;
	int r = CTL_OK;
	DIR *d;

	if (!dir)
		return CTL_FAILED;
	if (c->argc == 2 || (c->argc && start)) {
		r = start ? ctl_fail(c, CTL_USAGE, "autostart: --start takes no guest")
			  : set_autostart(c, dir, c->argv[0], c->argv[1]);
		free(dir);
		return r;
	}
	links = xasprintf("%s/autostart", dir);
	d = opendir(links);
	c->result = json_array();
	while (d && (entry = readdir(d))) {
		size_t len = strlen(entry->d_name);
		int one;

		if (len <= 4 || strcmp(entry->d_name + len - 4, ".vmm"))
			continue;
		entry->d_name[len - 4] = 0;
		if (c->argc && strcmp(c->argv[0], entry->d_name))
			continue;
		json_array_append_new(c->result, json_pack("{s:s}", "name", entry->d_name));
		one = start ? start_one(c, dir, entry->d_name) : CTL_OK;
		if (one)
			ctl_warn(c, "%s: %s", entry->d_name, c->err.msg);
		r = one ? one : r;
	}
	if (d)
		closedir(d);
	if (!start)
		table_print(c, columns, c->result);
	free(links);
	free(dir);
	return r;
}

/* ---- the table ---- */

#define FORMAT                                                                                                 \
	{                                                                                                      \
		0, "format", "vmm|xen", "syntax of the file; without it .vmm files are ours, all others Xen's" \
	}
static const struct verb_option create_options[] = {
	{'n', "dry-run", NULL, "print the command line of vmm, start nothing"},
	{'c', "console", NULL, "be its serial terminal once it runs"},
	{'p', "paused", NULL, "do not let it run yet"},
	{'F', "foreground", NULL, "return when the guest has ended; for services"},
	{0, "incoming", "URI", "wait for a migration"},
	FORMAT,
	{0},
};
static const struct verb_option clone_options[] = {
	{'d', "directory", "DIR", "where the copies of the disks go"}, FORMAT, {0}};
static const struct verb_option autostart_options[] = {
	{0, "start", NULL, "start them all; vmm-guests.service does this at boot"}, {0}};

const struct verb config_verbs[] = {
	{"create", "FILE|NAME [KEY=VALUE]...", "Start a guest from a configuration file",
	 "The file is written as vmm.conf(5) says, or is one of Xen's (xm, xl) for an HVM guest; a NAME is looked up "
	 "in the "
	 "configuration directory. KEY=VALUE overrides the file. What is ignored is said. A keeper process stays "
	 "behind "
	 "the guest; it does what on-poweroff, on-reboot and on-crash say.",
	 create_options, 1, -1, WORDS_CONFIG, do_create,
	 EXAMPLES("vmmctl create -n web.vmm", "vmmctl create -n winxp.hvm memory=256",
		  "vmmctl create web2.vmm && vmmctl destroy web2", "vmmctl create --incoming tcp:0:4444 web.vmm")},
	{"clone", "FILE|NAME NEWNAME", "Copy a guest: its configuration and its disks",
	 "The copy has a name, a UUID and MAC addresses of its own, and stands in the configuration directory. Images "
	 "are reflinked "
	 "where the file system can, else copied without their holes. Read-only disks and CD-ROMs are shared.",
	 clone_options, 2, 2, WORDS_CONFIG, do_clone, EXAMPLES("vmmctl clone db db-test")},
	{"edit", "FILE|NAME", "Edit a configuration with $VISUAL or $EDITOR",
	 "The file is replaced when the new one has no mistakes. A guest that runs sees it at its next create.",
	 NO_OPTIONS, 1, 1, WORDS_CONFIG, do_edit, EXAMPLES("EDITOR=true vmmctl edit db")},
	{"autostart", "[NAME on|off]", "Say which guests start with the host", NULL, autostart_options, 0, 2,
	 WORDS_CONFIG, do_autostart, EXAMPLES("vmmctl autostart db on", "vmmctl autostart", "vmmctl autostart db off")},
	{NULL},
};
