/* The control plane's beginning and end: monitors from the command line, events, qtest. */
#include "vmm/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "events.h"
#include "hmp.h"
#include "gdbstub.h"
#include "host_stats.h"
#include "job.h"
#include "metrics.h"
#include "qmp.h"
#include "qtest.h"
#include "vmm/chardev.h"
#include "vmm/config.h"
#include "vmm/display.h"
#include "vmm/log.h"
#include "vmm/machine.h"
#include "vmm/names.h"

#define LAST_WORDS_MS 200 /* what clients get to take the SHUTDOWN event at the end */

static bool started;

static void on_event(void *opaque, const char *name, const char *data_json)
{
	events_emit(name, data_json);
	if (!strcmp(name, "STOP"))
		gdbstub_on_stop();
}

/* Any thread. */
static void on_display_event(void *opaque, const char *name, const char *data_json)
{
	machine_event(opaque, name, data_json);
}

static void on_terminal_quit(void *opaque)
{
	machine_quit(opaque, SHUTDOWN_HOST_UI);
}

static int code_of(const struct err *e)
{
	return e && e->code ? -e->code : -EINVAL;
}

/* A chardev in the old spelling for a monitor alone. */
static struct chardev *open_claimed(const char *id, const char *text, const char *owner, struct err *e)
{
	struct chardev *c = chardev_open_legacy(id, text, e);

	return c ? chardev_claim(chardev_id(c), owner, e) : NULL;
}

/* -qmp and -qmp-pretty. */
static int add_qmp_options(struct board *board, const struct opt_list *list, const char *option, bool pretty,
			   struct err *e)
{
	static unsigned count;

	for (struct opt_item *i = list->first; i; i = i->next) {
		char id[32];
		struct chardev *c;

		if (!strcmp(i->text, "none"))
			continue;
		snprintf(id, sizeof(id), "compat_monitor%u", count++);
		c = open_claimed(id, i->text, id, e);
		if (!c || qmp_monitor_add(board, c, pretty, e)) {
			err_prefix(e, "%s %s", option, i->text);
			return code_of(e);
		}
	}
	return 0;
}

struct mon_options {
	char *chardev, *id;
	int mode;
	bool pretty;
};
static const char *const mon_modes[] = {"readline", "control", NULL};
static const struct prop mon_props[] = {
	PROP(struct mon_options, chardev, PROP_CHARDEV, .help = "character device it speaks on"),
	PROP(struct mon_options, id, PROP_STR, .help = "name of the monitor"),
	PROP(struct mon_options, mode, PROP_ENUM, .values = mon_modes, .help = "control: QMP; readline: for people"),
	PROP(struct mon_options, pretty, PROP_BOOL, .help = "indented replies"),
	PROP_END,
};

static int add_mon(struct board *board, struct opts *o, struct err *e)
{
	struct mon_options m;
	struct chardev *c;
	int ret;

	props_default(mon_props, &m);
	ret = opts_apply(o, mon_props, &m, "mon", e);
	if (!ret && !m.chardev)
		ret = err_set(e, EINVAL, "chardev= is missing");
	if (!ret && !mon_modes[m.mode][0])
		ret = -EINVAL;
	if (!ret) {
		c = chardev_claim(m.chardev, m.id ? m.id : "a monitor", e);
		ret = !c                                       ? code_of(e)
		      : !strcmp(mon_modes[m.mode], "readline") ? readline_monitor_add(board, c, e)
							       : qmp_monitor_add(board, c, m.pretty, e);
	}
	props_free(mon_props, &m);
	return ret;
}

static int add_mon_options(struct board *board, const struct opt_list *list, struct err *e)
{
	for (struct opt_item *i = list->first; i; i = i->next)
		if (add_mon(board, &i->opts, e)) {
			err_prefix(e, "-mon %s", i->text);
			return code_of(e);
		}
	return 0;
}

/* -monitor DEV: the readline monitor. */
static int add_monitor_options(struct board *board, const struct opt_list *list, struct err *e)
{
	static unsigned count;

	for (struct opt_item *i = list->first; i; i = i->next) {
		char id[32];
		struct chardev *c;

		if (!strcmp(i->text, "none"))
			continue;
		snprintf(id, sizeof(id), "monitor%u", count++);
		c = open_claimed(id, i->text, "the monitor", e);
		if (!c || readline_monitor_add(board, c, e)) {
			err_prefix(e, "-monitor %s", i->text);
			return code_of(e);
		}
	}
	return 0;
}

/* -serial mon:stdio and its like (-nographic): the monitor is behind Ctrl-A c. */
static int add_shared_monitors(struct board *board, struct err *e)
{
	for (struct chardev *c = chardev_next(NULL); c; c = chardev_next(c)) {
		struct chardev *port = chardev_wants_monitor(c) ? chardev_claim(chardev_id(c), "the monitor", e) : NULL;

		if (chardev_wants_monitor(c) && (!port || readline_monitor_add(board, port, e)))
			return code_of(e);
	}
	return 0;
}

int control_start(struct board *board, struct err *e)
{
	const struct config *c = machine_config(board);
	int ret = add_monitor_options(board, &c->monitor, e);

	started = true;
	machine_subscribe_events(on_event, NULL);
	chardev_on_quit(on_terminal_quit, board);
	display_set_event_handler(on_display_event, board);
	if (!ret)
		ret = add_qmp_options(board, &c->qmp, "-qmp", false, e);
	if (!ret)
		ret = add_qmp_options(board, &c->qmp_pretty, "-qmp-pretty", true, e);
	if (!ret)
		ret = add_mon_options(board, &c->mon, e);
	if (!ret)
		ret = add_shared_monitors(board, e);
	if (!ret && c->qtest)
		ret = qtest_start(board, c->qtest, c->qtest_log, e);
	host_stats_open();
	if (!ret && c->metrics && metrics_start(board, c->metrics, e))
		ret = err_prefix(e, "-metrics %s", c->metrics);
	if (!ret && c->gdb && gdbstub_start(board, c->gdb, e))
		ret = err_prefix(e, "-gdb %s", c->gdb);
	return ret;
}

void control_stop(void)
{
	if (!started)
		return;
	started = false;
	qtest_stop();
	names_stop();
	job_cancel_all();
	gdbstub_stop();
	metrics_stop();
	host_stats_close();
	events_stop();
	qmp_monitors_close(LAST_WORDS_MS);
	readline_monitors_close();
	chardev_on_quit(NULL, NULL);
	display_set_event_handler(NULL, NULL);
}
