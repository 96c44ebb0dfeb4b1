/* Verbs: help, and completion for the shell. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include "ctl.h"

#define NO_OPTIONS NULL
#define EXAMPLES(...)             \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}

static int do_help(struct ctl *c)
{
	const struct verb *v;

	if (c->argc) {
		v = verb_find(c->argv[0]);
		if (!v)
			return ctl_fail(c, CTL_USAGE, "'%.80s' is no verb: vmmctl help lists them", c->argv[0]);
		if (!c->json)
			verb_print_help(v, stdout);
	} else {
		ctl_say(c, "Usage: vmmctl VERB [OPTION]... [ARGUMENT]...\n\nControl the guests of this host.\n\n");
		for (size_t i = 0; (v = verb_at(i)); i++)
			ctl_say(c, "  %-14s %s\n", v->name, v->summary);
		ctl_say(c, "\n`vmmctl help VERB` says more; every verb takes --json.\n");
	}
	if (c->json)
		c->result = c->argc ? verb_describe(v) : verb_describe_all();
	return CTL_OK;
}

/* ---- completion ---- */

static void offer(struct ctl *c, const char *word, const char *begun)
{
	if (strncmp(word, begun, strlen(begun)))
		return;
	json_array_append_new(c->result, json_string(word));
	ctl_say(c, "%s\n", word);
}

static void offer_guests(struct ctl *c, const char *begun)
{
	struct guest_list list;

	if (guest_all(c, NULL, 0, &list))
		return;
	for (size_t i = 0; i < list.n; i++)
		offer(c, list.v[i].name, begun);
	guest_list_free(&list);
}

static void offer_configs(struct ctl *c, const char *begun)
{
	char *path = config_directory(NULL);
	DIR *d = path ? opendir(path) : NULL;
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		size_t len = strlen(entry->d_name);

		if (len > 4 && !strcmp(entry->d_name + len - 4, ".vmm")) {
			entry->d_name[len - 4] = 0;
			offer(c, entry->d_name, begun);
		}
	}
	if (d)
		closedir(d);
	free(path);
}

static void offer_options(struct ctl *c, const struct verb *v, const char *begun)
{
	char word[64];

	for (const struct verb_option *o = v->options; o && o->name; o++) {
		snprintf(word, sizeof(word), "--%s", o->name);
		offer(c, word, begun);
	}
	for (const char *const *s = (const char *const[]){"--help", "--json", "--color", "--timeout", NULL}; *s; s++)
		offer(c, *s, begun);
}

/* argv: the words behind "vmmctl", the last one being completed. */
static int do_complete(struct ctl *c)
{
	const char *begun = c->argc ? c->argv[c->argc - 1] : "";
	const struct verb *v = c->argc > 1 ? verb_find(c->argv[0]) : NULL;
	int before = 0; /* arguments, not options, that stand before */

	c->result = json_array();
	for (int i = 1; i + 1 < c->argc; i++)
		before += c->argv[i][0] != '-';
	if (c->argc <= 1) {
		for (size_t i = 0; (v = verb_at(i)); i++)
			offer(c, v->name, begun);
	} else if (v && *begun == '-') {
		offer_options(c, v, begun);
	} else if (v) {
		if (v->words == WORDS_GUESTS || ((v->words == WORDS_GUEST || v->words == WORDS_GUEST_FILE) && !before))
			offer_guests(c, begun);
		if (v->words == WORDS_CONFIG)
			offer_configs(c, begun);
		for (size_t i = 0; v->words == WORDS_VERB && verb_at(i); i++)
			offer(c, verb_at(i)->name, begun);
	}
	return CTL_OK;
}

static int do_completion(struct ctl *c)
{
	static const char script[] =
		"# bash completion for vmmctl: the words come from vmmctl's own table of verbs, and from the guests "
		"there are.\n"
		"_vmmctl() {\n"
		"\tlocal IFS=$'\\n'\n"
		"\tCOMPREPLY=($(\"${COMP_WORDS[0]}\" complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null))\n"
		"}\n"
		"complete -o default -F _vmmctl vmmctl\n";

	c->result = json_string(script);
	ctl_say(c, "%s", script);
	return CTL_OK;
}

const struct verb help_verbs[] = {
	{"help", "[VERB]", "List the verbs, or explain one", NULL, NO_OPTIONS, 0, 1, WORDS_VERB, do_help,
	 EXAMPLES("vmmctl help", "vmmctl help create")},
	{"completion", "", "Print the completion script for bash", NULL, NO_OPTIONS, 0, 0, WORDS_NONE, do_completion,
	 EXAMPLES("source <(vmmctl completion)")},
	{"complete", "[WORD]...", "Print what the last word may become", "This is what the completion script calls.",
	 NO_OPTIONS, 0, -1, WORDS_NONE, do_complete, EXAMPLES("vmmctl complete vcpu-")},
	{NULL},
};
