/*
 * The commands people type, by QEMU's names: human-monitor-command runs one, the readline monitor (readline.c) many.
 * What they print is for reading, not for parsing. Most are a QMP command with its arguments in a row; a table says
 * which.
 */
#ifndef VMM_CONTROL_HMP_H
#define VMM_CONTROL_HMP_H

#include <stdio.h>
#include "qmp.h"
#include "vmm/names.h"

/* A command in progress. */
struct hmp {
	struct board *board;
	unsigned cpu; /* which registers and page tables: "cpu N" */
	FILE *out;
	char *text;
	size_t size;
	void (*done)(struct hmp *h, const char *text); /* now or later; may free h */
	/* private to hmp.c */
	struct names names;
	const struct verb *verb;
	char spec[16], *rest; /* what follows its name */
};

/* Run one line; h->board, cpu and done are set. */
void hmp_run(struct hmp *h, const char *line);

/* The same for a command line of its own: what it prints, malloc'ed; "started" if that takes its time. */
char *hmp_run_text(struct board *board, const char *line);

/* hmp_info.c: false if there is no such subject. */
bool hmp_info(struct hmp *h, const char *subject);
const char *hmp_info_at(size_t i, const char **help); /* NULL past the end */

/* hmp_memory.c: "x/4xw $rsp", "xp/2xg 0x1000", "p $rip+4"; spec: what follows the slash, or "". */
void hmp_examine(struct hmp *h, const char *spec, const char *address, bool physical);
void hmp_print_value(struct hmp *h, const char *spec, const char *expression);
void hmp_print_registers(struct hmp *h, bool all);
void hmp_print_mappings(struct hmp *h);
void hmp_print_physical(struct hmp *h, const char *spec, const char *address); /* where linear memory is */

/* hmp_devices.c */
void hmp_port_in(struct hmp *h, const char *spec, const char *rest);
void hmp_port_out(struct hmp *h, const char *spec, const char *rest);
void hmp_mouse_move(struct hmp *h, const char *spec, const char *rest);
void hmp_mouse_button(struct hmp *h, const char *spec, const char *rest);
void hmp_chardev_add(struct hmp *h, const char *spec, const char *rest);
void hmp_chardev_change(struct hmp *h, const char *spec, const char *rest);

/* Names that start with `word`, for completion: commands, "info" subjects, ids. i counts; NULL past the end. */
const char *hmp_command_at(size_t i);
enum hmp_ids { HMP_NO_IDS, HMP_DRIVES, HMP_DEVICES, HMP_CHARDEVS };
enum hmp_ids hmp_completes(const char *command); /* what its first argument is */

/* A QMP query's result, NULL if it failed; new reference. For queries that answer at once. */
json_t *hmp_query(struct board *board, const char *command, const char *argument, const char *value);
#define HMP_STR(o, k) (json_string_value(json_object_get((o), (k))) ?: "")
#define HMP_INT(o, k) ((long long)json_integer_value(json_object_get((o), (k))))

struct chardev;
/* readline.c: a monitor for people on a claimed chardev; a listening socket serves several. */
int readline_monitor_add(struct board *board, struct chardev *c, struct err *e);
void readline_monitors_close(void);

#endif
