/*
 * human-monitor-command: the subjects of QEMU's "info" that people and scripts ask for most. There is no readline
 * monitor; what these print is for reading, not for parsing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"
#include "gdbstub.h"
#include "vmm-config.h"
#include "vmm/balloon.h"
#include "vmm/block.h"
#include "vmm/chardev.h"
#include "vmm/kvm.h"
#include "vmm/machine.h"
#include "vmm/state.h"

static void info_status(struct board *b, FILE *out)
{
	const char *state = run_state_name(machine_run_state(b));

	if (machine_running(b))
		fprintf(out, "VM status: running\r\n");
	else if (machine_run_state(b) == RUN_PAUSED)
		fprintf(out, "VM status: paused\r\n");
	else
		fprintf(out, "VM status: paused (%s)\r\n", state);
}

static void info_version(struct board *b, FILE *out)
{
	fprintf(out, "7.2.0vmm-%s\r\n", VMM_VERSION);
}

static void info_name(struct board *b, FILE *out)
{
	const char *name = machine_config(b)->name;

	if (name)
		fprintf(out, "%s\r\n", name);
}

static void info_kvm(struct board *b, FILE *out)
{
	fprintf(out, "kvm support: %s\r\n", machine_config(b)->machine.accel == ACCEL_KVM ? "enabled" : "disabled");
}

static void info_cpus(struct board *b, FILE *out)
{
	struct cpu_info info;

	for (unsigned i = 0; machine_cpu_info(b, i, &info); i++)
		fprintf(out, "%c CPU #%u: thread_id=%d\r\n", i ? ' ' : '*', i, info.thread_id);
}

static void info_chardev(struct board *b, FILE *out)
{
	for (struct chardev *c = chardev_next(NULL); c; c = chardev_next(c))
		fprintf(out, "%s: filename=%s\r\n", chardev_id(c), chardev_filename(c));
}

static void print_block(const struct block *b, FILE *out)
{
	const char *qdev = *block_qdev_id(b) ? block_qdev_id(b) : block_owner(b);
	struct block_info i;

	block_get_info(b, &i);
	fprintf(out, "%s", block_id(b));
	if (block_inserted(b))
		fprintf(out, " (%s): %s (%s%s)\r\n", i.node_name, i.filename, i.driver,
			i.readonly ? ", read-only" : "");
	else
		fprintf(out, ": [not inserted]\r\n");
	if (qdev)
		fprintf(out, "    Attached to:      %s\r\n", qdev);
	if (block_is_removable(b))
		fprintf(out, "    Removable device: %slocked, tray %s\r\n", block_is_locked(b) ? "" : "not ",
			block_tray_is_open(b) ? "open" : "closed");
	if (block_inserted(b))
		fprintf(out, "    Cache mode:       %s%s%s\r\n", i.writeback ? "writeback" : "writethrough",
			i.direct ? ", direct" : "", i.no_flush ? ", ignore flushes" : "");
}

static void info_balloon(struct board *b, FILE *out)
{
	struct err e = ERR_INIT;
	uint64_t bytes;

	if (machine_balloon_get(b, &bytes, &e))
		fprintf(out, "Error: %s\r\n", e.msg);
	else
		fprintf(out, "balloon: actual=%llu\r\n", (unsigned long long)(bytes / MIB));
}

static void info_block(struct board *board, FILE *out)
{
	for (struct block *b = block_next(NULL); b; b = block_next(b)) {
		print_block(b, out);
		fprintf(out, "\r\n");
	}
}

static void info_mtree(struct board *b, FILE *out)
{
	map_print(b, out);
}

static void info_pic(struct board *b, FILE *out)
{
	static const char *const names[] = {"isa-i8259", "ioapic"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct device *dev = device_find_class(b, names[i]);
		char *json;

		if (!dev || !dev->class->state)
			continue;
		pthread_mutex_lock(dev->lock);
		json = state_json(dev->class->state, dev);
		pthread_mutex_unlock(dev->lock);
		fprintf(out, "%s: %s\r\n", dev->id, json ? json : "no state");
		free(json);
	}
}

static void info_qtree(struct board *b, FILE *out)
{
	for (struct device *d = device_next(b, NULL); d; d = device_next(b, d))
		fprintf(out, "dev: %s, id \"%s\"%s%s\r\n", d->class->name, d->id, d->parent ? ", on " : "",
			d->parent ? d->parent->id : "");
}

static const struct {
	const char *name;
	void (*print)(struct board *b, FILE *out);
} subjects[] = {
	{"balloon", info_balloon}, {"block", info_block},   {"chardev", info_chardev}, {"cpus", info_cpus}, {"kvm", info_kvm},
	{"mtree", info_mtree},   {"name", info_name},       {"pic", info_pic},   {"qtree", info_qtree},
	{"status", info_status}, {"version", info_version},
};

static bool run_info(struct board *board, const char *subject, FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(subjects); i++) {
		if (strcmp(subjects[i].name, subject))
			continue;
		subjects[i].print(board, out);
		return true;
	}
	return false;
}

/* gdbserver [DEVICE], as QEMU */
static void run_gdbserver(struct board *board, const char *device, FILE *out)
{
	struct err e = ERR_INIT;

	device += strspn(device, " ");
	if (!*device)
		device = "tcp::1234";
	if (gdbstub_start(board, device, &e))
		fprintf(out, "Could not open gdbserver on device '%s': %s\r\n", device, e.msg);
	else if (!strcmp(device, "none"))
		fprintf(out, "Disabled gdbserver\r\n");
	else
		fprintf(out, "Waiting for gdb connection on device '%s'\r\n", device);
}

static void print_help(FILE *out)
{
	fprintf(out, "gdbserver [DEVICE]\r\n");
	for (size_t i = 0; i < ARRAY_SIZE(subjects); i++)
		fprintf(out, "info %s\r\n", subjects[i].name);
}

char *hmp_run(struct board *board, const char *command_line)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	const char *p = command_line + strspn(command_line, " \t");
	char *word = xstrndup(p, strcspn(p, "\r\n")); /* one command */

	while (*word && word[strlen(word) - 1] == ' ')
		word[strlen(word) - 1] = 0;
	if (!strcmp(word, "help") || !strcmp(word, "info"))
		print_help(out);
	else if (!strncmp(word, "gdbserver", 9) && (!word[9] || word[9] == ' '))
		run_gdbserver(board, word + 9, out);
	else if (strncmp(word, "info ", 5) || !run_info(board, word + 5 + strspn(word + 5, " "), out))
		fprintf(out, "unknown command: '%.200s'\r\n", word);
	free(word);
	fclose(out);
	return text;
}
