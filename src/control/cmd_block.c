/* QMP: drives, their statistics, removable media. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "commands.h"
#include "vmm/block.h"

static const struct qmp_type image_info =
	QMP_OBJECT("ImageInfo", QMP_REQ("filename", qmp_str), QMP_REQ("format", qmp_str),
		   QMP_REQ("virtual-size", qmp_int), QMP_OPT("actual-size", qmp_int));
static const struct qmp_type cache_info = QMP_OBJECT("BlockdevCacheInfo", QMP_REQ("writeback", qmp_bool),
						     QMP_REQ("direct", qmp_bool), QMP_REQ("no-flush", qmp_bool));
static const struct qmp_type detect_zeroes = QMP_ENUM("BlockdevDetectZeroesOptions", "off", "on", "unmap");
static const struct qmp_type device_info = QMP_OBJECT(
	"BlockDeviceInfo", QMP_REQ("file", qmp_str), QMP_OPT("node-name", qmp_str), QMP_REQ("ro", qmp_bool),
	QMP_REQ("drv", qmp_str), QMP_REQ("backing_file_depth", qmp_int), QMP_REQ("encrypted", qmp_bool),
	QMP_REQ("detect_zeroes", detect_zeroes), QMP_REQ("bps", qmp_int), QMP_REQ("bps_rd", qmp_int),
	QMP_REQ("bps_wr", qmp_int), QMP_REQ("iops", qmp_int), QMP_REQ("iops_rd", qmp_int), QMP_REQ("iops_wr", qmp_int),
	QMP_REQ("cache", cache_info), QMP_REQ("write_threshold", qmp_int), QMP_REQ("image", image_info));
static const struct qmp_type block_info =
	QMP_OBJECT("BlockInfo", QMP_REQ("device", qmp_str), QMP_OPT("qdev", qmp_str), QMP_REQ("type", qmp_str),
		   QMP_REQ("removable", qmp_bool), QMP_REQ("locked", qmp_bool), QMP_OPT("inserted", device_info),
		   QMP_OPT("tray_open", qmp_bool));

/* ---- query-block ---- */

static json_t *describe_image(const struct block_info *info)
{
	json_t *o = json_pack("{s:o, s:s, s:I}", "filename", qmp_text(info->filename), "format", info->driver,
			      "virtual-size", (json_int_t)info->size);
	struct stat st;

	if (!stat(info->filename, &st) && S_ISREG(st.st_mode))
		json_object_set_new(o, "actual-size", json_integer((json_int_t)st.st_blocks * 512));
	return o;
}

static json_t *describe_inserted(const struct block_info *info)
{
	json_t *o = json_pack("{s:o, s:s, s:b, s:s, s:i, s:b, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "file",
			      qmp_text(info->filename), "node-name", info->node_name, "ro", info->readonly, "drv",
			      info->driver, "backing_file_depth", info->snapshot ? 1 : 0, "encrypted", 0,
			      "detect_zeroes", info->detect_zeroes, "bps", 0, "bps_rd", 0, "bps_wr", 0, "iops", 0,
			      "iops_rd", 0, "iops_wr", 0, "write_threshold", 0);

	json_object_set_new(o, "cache",
			    json_pack("{s:b, s:b, s:b}", "writeback", info->writeback, "direct", info->direct,
				      "no-flush", info->no_flush));
	json_object_set_new(o, "image", describe_image(info));
	return o;
}

static const char *attached_to(const struct block *b)
{
	const char *qdev = block_qdev_id(b);

	return *qdev ? qdev : block_owner(b);
}

static json_t *describe_block(const struct block *b)
{
	const char *qdev = attached_to(b);
	struct block_info info;
	json_t *o;

	block_get_info(b, &info);
	o = json_pack("{s:o, s:s, s:b, s:b}", "device", qmp_text(info.is_drive ? block_id(b) : ""), "type", "unknown",
		      "removable", block_is_removable(b), "locked", block_is_locked(b));
	if (qdev)
		json_object_set_new(o, "qdev", qmp_text(qdev));
	if (block_has_tray(b))
		json_object_set_new(o, "tray_open", json_boolean(block_tray_is_open(b)));
	if (block_inserted(b))
		json_object_set_new(o, "inserted", describe_inserted(&info));
	return o;
}

/* As QEMU: drives, and nodes that a device uses. */
static json_t *query_block(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	struct block_info info;

	for (struct block *b = block_next(NULL); b; b = block_next(b)) {
		block_get_info(b, &info);
		if (info.is_drive || block_owner(b))
			json_array_append_new(list, describe_block(b));
	}
	return list;
}

static json_t *query_named_block_nodes(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	struct block_info info;

	for (struct block *b = block_next(NULL); b; b = block_next(b)) {
		block_get_info(b, &info);
		if (block_inserted(b))
			json_array_append_new(list, describe_inserted(&info));
	}
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

static const struct qmp_type device_stats = QMP_OBJECT(
	"BlockDeviceStats", QMP_REQ("rd_bytes", qmp_int), QMP_REQ("wr_bytes", qmp_int), QMP_REQ("unmap_bytes", qmp_int),
	QMP_REQ("rd_operations", qmp_int), QMP_REQ("wr_operations", qmp_int), QMP_REQ("flush_operations", qmp_int),
	QMP_REQ("unmap_operations", qmp_int), QMP_REQ("rd_total_time_ns", qmp_int),
	QMP_REQ("wr_total_time_ns", qmp_int), QMP_REQ("flush_total_time_ns", qmp_int),
	QMP_REQ("unmap_total_time_ns", qmp_int), QMP_REQ("rd_merged", qmp_int), QMP_REQ("wr_merged", qmp_int),
	QMP_REQ("unmap_merged", qmp_int), QMP_REQ("failed_rd_operations", qmp_int),
	QMP_REQ("failed_wr_operations", qmp_int), QMP_REQ("failed_flush_operations", qmp_int),
	QMP_REQ("failed_unmap_operations", qmp_int), QMP_REQ("account_invalid", qmp_bool),
	QMP_REQ("account_failed", qmp_bool));
static const struct qmp_type block_stats =
	QMP_OBJECT("BlockStats", QMP_OPT("device", qmp_str), QMP_OPT("qdev", qmp_str), QMP_OPT("node-name", qmp_str),
		   QMP_REQ("stats", device_stats));

static void set_stat(json_t *o, const char *format, const char *prefix, uint64_t value)
{
	char key[64];

	snprintf(key, sizeof(key), format, prefix);
	json_object_set_new(o, key, json_integer((json_int_t)value));
}

static json_t *describe_stats(const struct block *b)
{
	json_t *o = json_object();
	struct block_stats s;

	block_get_stats(b, &s);
	for (size_t i = 0; i < ARRAY_SIZE(stat_rows); i++) {
		const char *prefix = stat_rows[i].prefix;
		enum block_op op = stat_rows[i].op;

		if (stat_rows[i].has_bytes)
			set_stat(o, "%s_bytes", prefix, s.bytes[op]);
		set_stat(o, "%s_operations", prefix, s.ops[op]);
		set_stat(o, "%s_total_time_ns", prefix, s.time_ns[op]);
		set_stat(o, "failed_%s_operations", prefix, s.errors[op]);
		if (op != BLOCK_FLUSH)
			set_stat(o, "%s_merged", prefix, 0); /* requests are never merged */
	}
	json_object_set_new(o, "account_invalid", json_false());
	json_object_set_new(o, "account_failed", json_true());
	return o;
}

static json_t *query_blockstats(struct qmp_call *call, struct err *e)
{
	bool nodes = qmp_arg_bool(call, "query-nodes", false);
	json_t *list = json_array();
	struct block_info info;

	for (struct block *b = block_next(NULL); b; b = block_next(b)) {
		json_t *o = json_pack("{s:o}", "stats", describe_stats(b));

		block_get_info(b, &info);
		if (*info.node_name)
			json_object_set_new(o, "node-name", qmp_text(info.node_name));
		if (!nodes)
			json_object_set_new(o, "device", qmp_text(info.is_drive ? block_id(b) : ""));
		if (!nodes && attached_to(b))
			json_object_set_new(o, "qdev", qmp_text(attached_to(b)));
		if (nodes ? block_inserted(b) : info.is_drive || block_owner(b))
			json_array_append_new(list, o);
		else
			json_decref(o);
	}
	return list;
}

/* ---- removable media ---- */

/* The drive a command means: device= its name, or id= the device it is attached to. */
static struct block *find_drive(struct qmp_call *call, struct err *e)
{
	const char *device = qmp_arg_str(call, "device"), *id = qmp_arg_str(call, "id");
	struct block *b = NULL;

	if (!device == !id) {
		err_set(e, EINVAL, "Need exactly one of 'device' and 'id'");
		return NULL;
	}
	if (device) {
		struct block_info info;

		b = block_find(device);
		if (b)
			block_get_info(b, &info);
		if (b && !info.is_drive)
			b = NULL;
	}
	for (struct block *i = block_next(NULL); id && !b && i; i = block_next(i))
		if (attached_to(i) && !strcmp(attached_to(i), id))
			b = i;
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

static const struct qmp_type change_mode = QMP_ENUM("BlockdevChangeReadOnlyMode", "retain", "read-only", "read-write");

#define DRIVE_ARGS QMP_OPT("device", qmp_str), QMP_OPT("id", qmp_str)

const struct qmp_command qmp_block_commands[] = {
	{"query-block", "Drives and what is in them.", "0.1", NULL, &QMP_LIST_OF(block_info), 0, 0, query_block},
	{"query-named-block-nodes", "Images that are open.", "0.1", QMP_MEMBERS(QMP_OPT("flat", qmp_bool)),
	 &QMP_LIST_OF(device_info), 0, 0, query_named_block_nodes},
	{"query-blockstats", "Operations, bytes and times of drives.", "0.1",
	 QMP_MEMBERS(QMP_OPT("query-nodes", qmp_bool)), &QMP_LIST_OF(block_stats), 0, 0, query_blockstats},
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
