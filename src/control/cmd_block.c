/* QMP: drives, their statistics, removable media. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "commands.h"
#include "json_opts.h"
#include "qom.h"
#include "types.h"
#include "vmm/block.h"
#include "vmm/clock.h"
#include "vmm/kvm.h"

static const struct qmp_type image_info =
	QMP_OBJECT("ImageInfo", QMP_REQ("filename", qmp_str), QMP_REQ("format", qmp_str),
		   QMP_REQ("virtual-size", qmp_int), QMP_OPT("actual-size", qmp_int), QMP_OPT("dirty-flag", qmp_bool));
static const struct qmp_type cache_info = QMP_OBJECT("BlockdevCacheInfo", QMP_REQ("writeback", qmp_bool),
						     QMP_REQ("direct", qmp_bool), QMP_REQ("no-flush", qmp_bool));
static const struct qmp_type detect_zeroes = QMP_ENUM("BlockdevDetectZeroesOptions", "off", "on", "unmap");
static const struct qmp_type device_info =
	QMP_OBJECT("BlockDeviceInfo", QMP_REQ("file", qmp_str), QMP_OPT("node-name", qmp_str), QMP_REQ("ro", qmp_bool),
		   QMP_REQ("drv", qmp_str), QMP_REQ("backing_file_depth", qmp_int), QMP_REQ("encrypted", qmp_bool),
		   QMP_REQ("detect_zeroes", detect_zeroes), QMP_REQ("bps", qmp_int), QMP_REQ("bps_rd", qmp_int),
		   QMP_REQ("bps_wr", qmp_int), QMP_REQ("iops", qmp_int), QMP_REQ("iops_rd", qmp_int),
		   QMP_REQ("iops_wr", qmp_int), QMP_REQ("cache", cache_info), QMP_REQ("write_threshold", qmp_int),
		   QMP_REQ("image", image_info), QMP_OPT("bps_max", qmp_int), QMP_OPT("bps_rd_max", qmp_int),
		   QMP_OPT("bps_wr_max", qmp_int), QMP_OPT("iops_max", qmp_int), QMP_OPT("iops_rd_max", qmp_int),
		   QMP_OPT("iops_wr_max", qmp_int), QMP_OPT("bps_max_length", qmp_int),
		   QMP_OPT("bps_rd_max_length", qmp_int), QMP_OPT("bps_wr_max_length", qmp_int),
		   QMP_OPT("iops_max_length", qmp_int), QMP_OPT("iops_rd_max_length", qmp_int),
		   QMP_OPT("iops_wr_max_length", qmp_int), QMP_OPT("iops_size", qmp_int), QMP_OPT("group", qmp_str));
static const struct qmp_type io_status = QMP_ENUM("BlockDeviceIoStatus", "ok", "failed", "nospace");
static const struct qmp_type block_info =
	QMP_OBJECT("BlockInfo", QMP_REQ("device", qmp_str), QMP_OPT("qdev", qmp_str), QMP_REQ("type", qmp_str),
		   QMP_REQ("removable", qmp_bool), QMP_REQ("locked", qmp_bool), QMP_OPT("inserted", device_info),
		   QMP_OPT("tray_open", qmp_bool), QMP_OPT("io-status", io_status));

/* ---- query-block ---- */

static json_t *describe_image(const struct block_info *info)
{
	json_t *o = json_pack("{s:o, s:s, s:I, s:b}", "filename", qmp_text(info->filename), "format", info->driver,
			      "virtual-size", (json_int_t)info->size, "dirty-flag", 0);
	struct stat st;

	if (!stat(info->filename, &st) && S_ISREG(st.st_mode))
		json_object_set_new(o, "actual-size", json_integer((json_int_t)st.st_blocks * 512));
	return o;
}

static json_t *describe_inserted(const struct block_info *info)
{
	json_t *o = json_pack("{s:o, s:s, s:b, s:s, s:i, s:b, s:s, s:i, s:i, s:i, s:i, s:i, s:i}", "file",
			      qmp_text(info->filename), "node-name", info->node_name, "ro", info->readonly, "drv",
			      info->driver, "backing_file_depth", info->snapshot ? 1 : 0, "encrypted", 0,
			      "detect_zeroes", info->detect_zeroes, "bps", 0, "bps_rd", 0, "bps_wr", 0, "iops", 0,
			      "iops_rd", 0, "iops_wr", 0);

	json_object_set_new(o, "write_threshold", json_integer((json_int_t)info->write_threshold));
	json_object_set_new(o, "cache",
			    json_pack("{s:b, s:b, s:b}", "writeback", info->writeback, "direct", info->direct,
				      "no-flush", info->no_flush));
	json_object_set_new(o, "image", describe_image(info));
	return o;
}

static const struct device *device_of(struct board *board, const struct block *b)
{
	const char *id = *block_qdev_id(b) ? block_qdev_id(b) : block_owner(b);

	return id && board ? device_find(board, id) : NULL;
}

static const char *const limit_names[BLOCK_LIMIT_KINDS] = {
	[BLOCK_BPS] = "bps",   [BLOCK_BPS_RD] = "bps_rd",   [BLOCK_BPS_WR] = "bps_wr",
	[BLOCK_IOPS] = "iops", [BLOCK_IOPS_RD] = "iops_rd", [BLOCK_IOPS_WR] = "iops_wr"};

static void describe_limits(json_t *o, const struct block *b)
{
	const char *group;
	const struct block_limits *l = block_get_limits(b, &group);
	char key[64];

	if (!l || !block_limits_any(l))
		return;
	for (unsigned k = 0; k < BLOCK_LIMIT_KINDS; k++) {
		json_object_set_new(o, limit_names[k], json_integer((json_int_t)l->avg[k]));
		if (!l->max[k])
			continue;
		snprintf(key, sizeof(key), "%s_max", limit_names[k]);
		json_object_set_new(o, key, json_integer((json_int_t)l->max[k]));
		snprintf(key, sizeof(key), "%s_max_length", limit_names[k]);
		json_object_set_new(o, key, json_integer((json_int_t)l->max_length[k]));
	}
	if (l->iops_size)
		json_object_set_new(o, "iops_size", json_integer((json_int_t)l->iops_size));
	if (group)
		json_object_set_new(o, "group", qmp_text(group));
}

/* Who uses a drive, as QEMU names it: an id, or a path where there is none or the user is a part of the device. */
static bool attached_to(struct board *board, const struct block *b, char name[QOM_PATH_MAX])
{
	const struct device *dev = device_of(board, b);

	if (!dev)
		return false;
	if (dev->user_id && dev->class->bus != BUS_PCI) {
		snprintf(name, QOM_PATH_MAX, "%s", dev->id);
		return true;
	}
	if (dev->class->bus != BUS_PCI && !dev->user_made) { /* what -drive made: by the name it has everywhere else */
		snprintf(name, QOM_PATH_MAX, "%s", dev->id);
		return true;
	}
	qom_device_path(dev, name);
	if (!strncmp(dev->class->name, "virtio-", 7))
		strncat(name, "/virtio-backend", QOM_PATH_MAX - strlen(name) - 1);
	return true;
}

static json_t *describe_block(struct board *board, const struct block *b)
{
	char qdev[QOM_PATH_MAX];
	struct block_info info;
	json_t *o;

	block_get_info(b, &info);
	o = json_pack("{s:o, s:s, s:b, s:b}", "device", qmp_text(info.is_drive ? block_id(b) : ""), "type", "unknown",
		      "removable", block_is_removable(b), "locked", block_is_locked(b));
	if (attached_to(board, b, qdev))
		json_object_set_new(o, "qdev", qmp_text(qdev));
	if (block_owner(b))
		json_object_set_new(o, "io-status", json_string(io_status.values[block_io_status(b)]));
	if (block_has_tray(b))
		json_object_set_new(o, "tray_open", json_boolean(block_tray_is_open(b)));
	if (block_inserted(b)) {
		json_t *inserted = describe_inserted(&info);

		describe_limits(inserted, b);
		json_object_set_new(o, "inserted", inserted);
	}
	return o;
}

/* Drives; nodes are in query-named-block-nodes. */
static json_t *query_block(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();

	for (struct block *b = block_next(NULL); b; b = block_next(b))
		if (!block_is_node(b))
			json_array_append_new(list, describe_block(call->board, b));
	return list;
}

static json_t *query_named_block_nodes(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	struct block_info info;

	for (size_t i = 0; block_node_at(i, &info); i++)
		json_array_append_new(list, describe_inserted(&info));
	return list;
}

/* ---- query-blockstats ---- */

static const struct {
	const char *prefix;
	enum block_op op;
	bool has_bytes;
} stat_rows[] = {
	{"rd", BLOCK_READ, true},
	{"wr", BLOCK_WRITE, true},
	{"flush", BLOCK_FLUSH, false},
	{"unmap", BLOCK_DISCARD, true},
};

static const struct qmp_type latency_histogram =
	QMP_OBJECT("BlockLatencyHistogramInfo", QMP_REQ("boundaries", QMP_LIST_OF(qmp_size)),
		   QMP_REQ("bins", QMP_LIST_OF(qmp_size)));
static const struct qmp_type device_stats = QMP_OBJECT(
	"BlockDeviceStats", QMP_REQ("wr_highest_offset", qmp_int), QMP_REQ("rd_bytes", qmp_int),
	QMP_REQ("wr_bytes", qmp_int), QMP_REQ("unmap_bytes", qmp_int), QMP_REQ("rd_operations", qmp_int),
	QMP_REQ("wr_operations", qmp_int), QMP_REQ("flush_operations", qmp_int), QMP_REQ("unmap_operations", qmp_int),
	QMP_REQ("rd_total_time_ns", qmp_int), QMP_REQ("wr_total_time_ns", qmp_int),
	QMP_REQ("flush_total_time_ns", qmp_int), QMP_REQ("unmap_total_time_ns", qmp_int), QMP_REQ("rd_merged", qmp_int),
	QMP_REQ("wr_merged", qmp_int), QMP_REQ("unmap_merged", qmp_int), QMP_REQ("failed_rd_operations", qmp_int),
	QMP_REQ("failed_wr_operations", qmp_int), QMP_REQ("failed_flush_operations", qmp_int),
	QMP_REQ("failed_unmap_operations", qmp_int), QMP_REQ("invalid_rd_operations", qmp_int),
	QMP_REQ("invalid_wr_operations", qmp_int), QMP_REQ("invalid_flush_operations", qmp_int),
	QMP_REQ("invalid_unmap_operations", qmp_int), QMP_OPT("idle_time_ns", qmp_int),
	QMP_REQ("account_invalid", qmp_bool), QMP_REQ("account_failed", qmp_bool),
	QMP_REQ("timed_stats", QMP_LIST_OF(qmp_any)), QMP_OPT("rd_latency_histogram", latency_histogram),
	QMP_OPT("wr_latency_histogram", latency_histogram), QMP_OPT("flush_latency_histogram", latency_histogram));
static const struct qmp_type block_stats =
	QMP_OBJECT("BlockStats", QMP_OPT("device", qmp_str), QMP_OPT("qdev", qmp_str), QMP_OPT("node-name", qmp_str),
		   QMP_REQ("stats", device_stats));

static void set_stat(json_t *o, const char *format, const char *prefix, uint64_t value)
{
	char key[64];

	snprintf(key, sizeof(key), format, prefix);
	json_object_set_new(o, key, json_integer((json_int_t)value));
}

static json_t *number_list(const uint64_t *v, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_integer((json_int_t)v[i]));
	return list;
}

static void add_histogram(json_t *o, const struct block *b, const char *prefix, enum block_op op)
{
	struct block_histogram h = block_get_histogram(b, op);
	char key[64];

	if (!h.n)
		return;
	snprintf(key, sizeof(key), "%s_latency_histogram", prefix);
	json_object_set_new(o, key,
			    json_pack("{s:o, s:o}", "boundaries", number_list(h.boundary, h.n), "bins",
				      number_list(h.bin, h.n + 1)));
}

static json_t *describe_stats(const struct block *b)
{
	json_t *o = json_object();
	struct block_stats s = {0};

	if (b)
		block_get_stats(b, &s);
	for (size_t i = 0; i < ARRAY_SIZE(stat_rows); i++) {
		const char *prefix = stat_rows[i].prefix;
		enum block_op op = stat_rows[i].op;

		if (stat_rows[i].has_bytes)
			set_stat(o, "%s_bytes", prefix, s.bytes[op]);
		set_stat(o, "%s_operations", prefix, s.ops[op]);
		set_stat(o, "%s_total_time_ns", prefix, s.time_ns[op]);
		set_stat(o, "failed_%s_operations", prefix, s.errors[op]);
		set_stat(o, "invalid_%s_operations", prefix, s.invalid[op]);
		if (b)
			add_histogram(o, b, prefix, op);
		if (op != BLOCK_FLUSH)
			set_stat(o, "%s_merged", prefix, 0); /* requests are never merged */
	}
	json_object_set_new(o, "account_invalid", json_boolean(s.account_invalid));
	json_object_set_new(o, "account_failed", json_boolean(s.account_failed));
	json_object_set_new(o, "timed_stats", json_array()); /* no intervals: see the metrics */
	if (s.last_access_ns && !clock_is_manual())
		set_stat(o, "idle_time_%s", "ns", clock_ns(VCLOCK_REAL) - s.last_access_ns);
	return o;
}

/* A node's own numbers: how far it was written. Operations are counted where the device's requests come in. */
static json_t *node_stats(const struct block_info *info)
{
	json_t *o = describe_stats(NULL);

	set_stat(o, "wr_highest_%s", "offset", info->written_end);
	return json_pack("{s:o, s:s}", "stats", o, "node-name", info->node_name);
}

static json_t *query_node_stats(void)
{
	json_t *list = json_array();
	struct block_info info;

	for (size_t i = 0; block_node_at(i, &info); i++)
		json_array_append_new(list, node_stats(&info));
	return list;
}

static json_t *query_blockstats(struct qmp_call *call, struct err *e)
{
	json_t *list;
	char qdev[QOM_PATH_MAX];
	struct block_info info;

	if (qmp_arg_bool(call, "query-nodes", false))
		return query_node_stats();
	list = json_array();
	for (struct block *b = block_next(NULL); b; b = block_next(b)) {
		json_t *o, *stats;

		if (block_is_node(b))
			continue;
		block_get_info(b, &info);
		stats = describe_stats(b);
		set_stat(stats, "wr_highest_%s", "offset", info.written_end);
		o = json_pack("{s:o, s:o}", "stats", stats, "device", qmp_text(info.is_drive ? block_id(b) : ""));
		if (*info.node_name)
			json_object_set_new(o, "node-name", qmp_text(info.node_name));
		if (attached_to(call->board, b, qdev))
			json_object_set_new(o, "qdev", qmp_text(qdev));
		json_array_append_new(list, o);
	}
	return list;
}

/* ---- removable media ---- */

/* Clients name a device by its id or its path. */
static bool is_at(struct board *board, const struct block *b, const char *id, char qdev[QOM_PATH_MAX])
{
	const struct device *dev = device_of(board, b);

	if (!dev || block_is_node(b))
		return false;
	if (!strcmp(dev->id, id) || (attached_to(board, b, qdev) && !strcmp(qdev, id)))
		return true;
	qom_device_path(dev, qdev);
	return !strcmp(qdev, id);
}

/* block-latency-histogram-set: boundaries for all three, each replaced by its own if given; none at all: away. */
static int set_histogram(struct block *b, enum block_op op, const json_t *list, struct err *e)
{
	size_t n = json_array_size(list);
	uint64_t *boundary = xcalloc(n + 1, sizeof(*boundary)), last = 0;
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		boundary[i] = (uint64_t)json_integer_value(json_array_get(list, i));
		if (boundary[i] <= last)
			r = err_set(e, EINVAL, "Device '%s' set %s boundaries fail: they must rise from above 0",
				    block_id(b),
				    op == BLOCK_READ    ? "read"
				    : op == BLOCK_WRITE ? "write"
							: "flush");
		last = boundary[i];
	}
	if (!r)
		block_set_histogram(b, op, boundary, n);
	free(boundary);
	return r;
}

static json_t *latency_histogram_set(struct qmp_call *call, struct err *e)
{
	static const char *const own[] = {[BLOCK_READ] = "boundaries-read",
					  [BLOCK_WRITE] = "boundaries-write",
					  [BLOCK_FLUSH] = "boundaries-flush"};
	const char *id = qmp_arg_str(call, "id");
	const json_t *all = json_object_get(call->args, "boundaries");
	bool none = !all;
	struct block *b = block_next(NULL);
	char qdev[QOM_PATH_MAX];

	while (b && !is_at(call->board, b, id, qdev) && strcmp(block_id(b), id))
		b = block_next(b);
	if (!b) {
		err_set_class(e, ERR_DEVICE_NOT_FOUND, ENODEV, "Device '%.200s' not found", id);
		return NULL;
	}
	for (int op = 0; op <= BLOCK_FLUSH; op++)
		none &= !qmp_has_arg(call, own[op]);
	for (int op = 0; op <= BLOCK_FLUSH; op++) {
		const json_t *list = json_object_get(call->args, own[op]);

		if (none)
			block_set_histogram(b, (enum block_op)op, NULL, 0);
		else if ((list || all) && set_histogram(b, (enum block_op)op, list ? list : all, e))
			return NULL;
	}
	return json_object();
}

/* The drive a command means: device= its name, or id= the device it is attached to. */
static struct block *find_drive(struct qmp_call *call, struct err *e)
{
	const char *device = qmp_arg_str(call, "device"), *id = qmp_arg_str(call, "id");
	struct block *b = NULL;

	if (!device == !id) {
		err_set(e, EINVAL, "Need exactly one of 'device' and 'id'");
		return NULL;
	}
	for (struct block *i = block_next(NULL); i && !b; i = block_next(i)) {
		char qdev[QOM_PATH_MAX];
		struct block_info info;

		block_get_info(i, &info);
		if (device ? info.is_drive && !strcmp(block_id(i), device) : is_at(call->board, i, id, qdev))
			b = i;
	}
	if (!b)
		err_set_class(e, ERR_DEVICE_NOT_FOUND, ENODEV, "Device '%.200s' not found", device ? device : id);
	return b;
}

static json_t *done(int ret)
{
	return ret ? NULL : json_object();
}

static json_t *eject(struct qmp_call *call, struct err *e)
{
	struct block *b = find_drive(call, e);

	return b ? done(block_eject(b, qmp_arg_bool(call, "force", false), e)) : NULL;
}

static json_t *change_medium(struct qmp_call *call, struct err *e)
{
	struct block *b = find_drive(call, e);

	return b ? done(block_change_medium(b, qmp_arg_str(call, "filename"), qmp_arg_str(call, "format"),
					    qmp_arg_str(call, "read-only-mode"), qmp_arg_bool(call, "force", false), e))
		 : NULL;
}

static json_t *open_tray(struct qmp_call *call, struct err *e)
{
	struct block *b = find_drive(call, e);

	return b ? done(block_open_tray(b, qmp_arg_bool(call, "force", false), e)) : NULL;
}

static json_t *close_tray(struct qmp_call *call, struct err *e)
{
	struct block *b = find_drive(call, e);

	return b ? done(block_close_tray(b, e)) : NULL;
}

static json_t *remove_medium(struct qmp_call *call, struct err *e)
{
	struct block *b = find_drive(call, e);

	return b ? done(block_remove_medium(b, e)) : NULL;
}

static json_t *insert_medium(struct qmp_call *call, struct err *e)
{
	struct block *b = find_drive(call, e);

	return b ? done(block_insert_medium(b, qmp_arg_str(call, "node-name"), e)) : NULL;
}

/* ---- limits ---- */

static json_t *set_io_throttle(struct qmp_call *call, struct err *e)
{
	struct block *b = find_drive(call, e);
	struct block_limits l = {.iops_size = (uint64_t)qmp_arg_int(call, "iops_size", 0)};

	if (!b)
		return NULL;
	for (unsigned k = 0; k < BLOCK_LIMIT_KINDS; k++) {
		char max[64], length[64];

		snprintf(max, sizeof(max), "%s_max", limit_names[k]);
		snprintf(length, sizeof(length), "%s_max_length", limit_names[k]);
		l.avg[k] = (uint64_t)qmp_arg_int(call, limit_names[k], 0);
		l.max[k] = (uint64_t)qmp_arg_int(call, max, 0);
		l.max_length[k] = (uint64_t)qmp_arg_int(call, length, 1);
	}
	return done(block_set_limits(b, &l, qmp_arg_str(call, "group"), e));
}

#define LIMIT_ARGS(n) QMP_REQ(n, qmp_int), QMP_OPT(n "_max", qmp_int), QMP_OPT(n "_max_length", qmp_int)

/* ---- nodes ---- */

static json_t *query_block_jobs(struct qmp_call *call, struct err *e)
{
	return json_array(); /* blockdev-create is in query-jobs, as QEMU has it */
}

static json_t *set_write_threshold(struct qmp_call *call, struct err *e)
{
	return done(block_set_write_threshold(qmp_arg_str(call, "node-name"),
					      (uint64_t)qmp_arg_int(call, "write-threshold", 0), e));
}

static json_t *blockdev_add(struct qmp_call *call, struct err *e)
{
	struct opts o = {0};
	struct block *b = NULL;

	if (!qmp_has_arg(call, "node-name"))
		err_set(e, EINVAL, "'node-name' must be specified for the root node");
	else if (!json_to_opts(call->args, &o, e))
		b = block_open_blockdev(&o, e);
	opts_free(&o);
	return b ? json_object() : NULL;
}

static json_t *blockdev_del(struct qmp_call *call, struct err *e)
{
	return done(block_delete_node(qmp_arg_str(call, "node-name"), e));
}

/* The vCPUs stand still for it: what they submit must find the old file or the new one. */
static int reopen_paused(struct board *board, struct opts *o, size_t n, struct err *e)
{
	struct kvm_vm *vm = machine_running(board) ? machine_kvm(board) : NULL;
	int r;

	if (vm)
		kvm_vcpus_pause(vm);
	r = block_reopen(o, n, e);
	if (vm)
		kvm_vcpus_resume(vm);
	return r;
}

static json_t *blockdev_reopen(struct qmp_call *call, struct err *e)
{
	const json_t *list = json_object_get(call->args, "options");
	size_t n = json_array_size(list);
	struct opts *o = xcalloc(n + 1, sizeof(*o));
	int r = 0;

	for (size_t i = 0; !r && i < n; i++)
		r = json_to_opts(json_array_get(list, i), &o[i], e);
	if (!r)
		r = reopen_paused(call->board, o, n, e);
	for (size_t i = 0; i < n; i++)
		opts_free(&o[i]);
	free(o);
	return done(r);
}

static json_t *resize(struct qmp_call *call, struct err *e)
{
	const char *device = qmp_arg_str(call, "device"), *node = qmp_arg_str(call, "node-name");
	struct block *b;

	if (!device == !node) {
		err_set(e, EINVAL, "Need exactly one of 'device' and 'node-name'");
		return NULL;
	}
	b = block_find_node(device ? device : node);
	if (!b) {
		err_set_class(e, ERR_DEVICE_NOT_FOUND, ENODEV, "Cannot find device='%.200s' nor node-name='%.200s'",
			      device ? device : "", node ? node : "");
		return NULL;
	}
	return done(block_resize(b, (uint64_t)qmp_arg_int(call, "size", 0), e));
}

/* Of all drivers; a driver's own ("filename", "file", "aio" ...) are checked by the room of blocks. */
static const struct qmp_type discard = QMP_ENUM("BlockdevDiscardOptions", "ignore", "unmap");
static const struct qmp_type cache_options =
	QMP_OBJECT("BlockdevCacheOptions", QMP_OPT("direct", qmp_bool), QMP_OPT("no-flush", qmp_bool));
#define NODE_ARGS                                                                                                     \
	QMP_REQ("driver", qmp_blockdev_driver), QMP_OPT("node-name", qmp_str), QMP_OPT("discard", discard),           \
		QMP_OPT("cache", cache_options), QMP_OPT("read-only", qmp_bool), QMP_OPT("auto-read-only", qmp_bool), \
		QMP_OPT("force-share", qmp_bool), QMP_OPT("detect-zeroes", detect_zeroes)

static const struct qmp_type blockdev_options = {
	.name = "BlockdevOptions", .kind = QMP_KIND_OBJECT, .members = QMP_MEMBERS(NODE_ARGS), .open = true};

static const struct qmp_type change_mode = QMP_ENUM("BlockdevChangeReadOnlyMode", "retain", "read-only", "read-write");

#define DRIVE_ARGS QMP_OPT("device", qmp_str), QMP_OPT("id", qmp_str)

const struct qmp_command qmp_block_commands[] = {
	{"query-block", "Drives and what is in them.", "0.1", NULL, &QMP_LIST_OF(block_info), 0, 0, query_block},
	{"query-named-block-nodes", "Images that are open.", "0.1", QMP_MEMBERS(QMP_OPT("flat", qmp_bool)),
	 &QMP_LIST_OF(device_info), 0, 0, query_named_block_nodes},
	{"query-blockstats", "Operations, bytes and times of drives.", "0.1",
	 QMP_MEMBERS(QMP_OPT("query-nodes", qmp_bool)), &QMP_LIST_OF(block_stats), 0, 0, query_blockstats},
	{"block_set_io_throttle", "Limit a drive's bytes and operations per second; 0: no limit.", "0.2",
	 QMP_MEMBERS(DRIVE_ARGS, LIMIT_ARGS("bps"), LIMIT_ARGS("bps_rd"), LIMIT_ARGS("bps_wr"), LIMIT_ARGS("iops"),
		     LIMIT_ARGS("iops_rd"), LIMIT_ARGS("iops_wr"), QMP_OPT("iops_size", qmp_int),
		     QMP_OPT("group", qmp_str)),
	 NULL, 0, 0, set_io_throttle},
	{"blockdev-add", "Open an image as a node, with -blockdev's options.", "0.2", QMP_MEMBERS(NODE_ARGS), NULL, 0,
	 QMP_OPEN_ARGS, blockdev_add},
	{"blockdev-del", "Close a node that nothing uses.", "0.2", QMP_MEMBERS(QMP_REQ("node-name", qmp_str)), NULL, 0,
	 0, blockdev_del},
	{"blockdev-reopen", "Change options of open nodes, all or none; what is not given goes back to its default.",
	 "0.2", QMP_MEMBERS(QMP_REQ("options", QMP_LIST_OF(blockdev_options))), NULL, 0, 0, blockdev_reopen},
	{"query-block-jobs", "Jobs of QEMU's older kind; there are none, see query-jobs.", "0.2", NULL,
	 &QMP_LIST_OF(qmp_any), 0, 0, query_block_jobs},
	{"block-set-write-threshold", "Tell, once, when a write ends beyond so many bytes of an image; 0: never.",
	 "0.2", QMP_MEMBERS(QMP_REQ("node-name", qmp_str), QMP_REQ("write-threshold", qmp_size)), NULL, 0, 0,
	 set_write_threshold},
	{"block_resize", "Give an image another size; the guest is told where its device can.", "0.2",
	 QMP_MEMBERS(QMP_OPT("device", qmp_str), QMP_OPT("node-name", qmp_str), QMP_REQ("size", qmp_size)), NULL, 0, 0,
	 resize},
	{"block-latency-histogram-set", "Count latencies between these boundaries (ns); without any: stop that.", "0.2",
	 QMP_MEMBERS(QMP_REQ("id", qmp_str), QMP_OPT("boundaries", QMP_LIST_OF(qmp_size)),
		     QMP_OPT("boundaries-read", QMP_LIST_OF(qmp_size)),
		     QMP_OPT("boundaries-write", QMP_LIST_OF(qmp_size)),
		     QMP_OPT("boundaries-flush", QMP_LIST_OF(qmp_size))),
	 NULL, 0, 0, latency_histogram_set},
	{"eject", "Take the medium out; force: also when the guest locked the tray.", "0.1",
	 QMP_MEMBERS(DRIVE_ARGS, QMP_OPT("force", qmp_bool)), NULL, 0, 0, eject},
	{"blockdev-change-medium", "Replace the medium by another image.", "0.1",
	 QMP_MEMBERS(DRIVE_ARGS, QMP_REQ("filename", qmp_str), QMP_OPT("format", qmp_str), QMP_OPT("force", qmp_bool),
		     QMP_OPT("read-only-mode", change_mode)),
	 NULL, 0, 0, change_medium},
	{"blockdev-open-tray", "Open the tray; when the guest locked it, ask the guest.", "0.1",
	 QMP_MEMBERS(DRIVE_ARGS, QMP_OPT("force", qmp_bool)), NULL, 0, 0, open_tray},
	{"blockdev-close-tray", "Close the tray.", "0.1", QMP_MEMBERS(DRIVE_ARGS), NULL, 0, 0, close_tray},
	{"blockdev-remove-medium", "Take the medium out of an open tray.", "0.1", QMP_MEMBERS(QMP_REQ("id", qmp_str)),
	 NULL, 0, 0, remove_medium},
	{"blockdev-insert-medium", "Put a node given with -blockdev into an open tray.", "0.1",
	 QMP_MEMBERS(QMP_REQ("id", qmp_str), QMP_REQ("node-name", qmp_str)), NULL, 0, 0, insert_medium},
	{NULL},
};
