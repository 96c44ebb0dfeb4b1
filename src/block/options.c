/* The options of -drive and -blockdev as typed rows, and what they mean for the layers. */
#include "src/block/block_private.h"

#include <errno.h>

static const char *const if_names[] = {"none", "ide", "scsi", "floppy", "pflash", "mtd", "sd", "virtio", "xen", NULL};
static const char *const media_names[] = {"disk", "cdrom", NULL};
static const char *const aio_names[] = {"threads", "native", "io_uring", NULL};
static const char *const on_error_names[] = {"report", "ignore", "stop", "enospc", NULL};
static const char *const read_error_names[] = {"report", "ignore", "stop", NULL};
static const char *const discard_names[] = {"ignore", "unmap", "off", "on", NULL};
static const char *const detect_names[] = {"off", "on", "unmap", NULL};

#define OPT(nm, member, ty, ...) PROP_NAMED(struct block_opts, nm, member, ty, __VA_ARGS__)
#define TRI(nm, member, h)       OPT(nm, member, PROP_ONOFFAUTO, .def = TRI_UNSET, .help = h)

/* Rows that -drive and -blockdev share */
#define COMMON_ROWS                                                                                                \
	TRI("read-only", read_only, "Open for reading only"),                                                      \
		TRI("auto-read-only", auto_read_only, "Fall back to reading only where writing is not permitted"), \
		TRI("cache.direct", direct, "Bypass the host page cache (O_DIRECT)"),                              \
		TRI("cache.no-flush", no_flush, "Ignore the guest's flushes: fast, unsafe when the host crashes"), \
		OPT("discard", discard, PROP_ENUM, .values = discard_names,                                        \
		    .help = "What to do with the guest's TRIM: pass on (unmap) or ignore"),                        \
		OPT("detect-zeroes", detect_zeroes, PROP_ENUM, .values = detect_names,                             \
		    .help = "Turn writes of zeroes into efficient ones; unmap: deallocate"),                       \
		OPT("aio", aio, PROP_ENUM, .values = aio_names,                                                    \
		    .help = "How to do I/O; native needs cache.direct=on"),                                        \
		TRI("locking", locking, "Lock the image against other processes"),                                 \
		OPT("node-name", node_name, PROP_STR, .help = "Name of the block node"),                           \
		OPT("driver", driver, PROP_STR, .help = "Format (raw) or protocol (file, host_device)"),           \
		OPT("file.driver", file_driver, PROP_STR, .help = "Protocol below the format: file, host_device"), \
		OPT("file.filename", file_filename, PROP_STR, .help = "Path of the image"),                        \
		OPT("file.node-name", file_node_name, PROP_STR, .help = "Name of the protocol node"),              \
		OPT("file.aio", file_aio, PROP_ENUM, .values = aio_names, .help = "As aio"),                       \
		TRI("file.locking", file_locking, "As locking"),                                                   \
		OPT("force-share", force_share, PROP_BOOL, .help = "Open without locks, for reading only")

/* Each limit has two spellings, as in QEMU. */
#define LIMIT(old, new, kind, what)                                                              \
	OPT(old, limits.avg[kind], PROP_U64, .help = "Limit of " what),                          \
		OPT("throttling." new, limits.avg[kind], PROP_U64),                              \
		OPT(old "_max", limits.max[kind], PROP_U64, .help = "Limit in bursts of " what), \
		OPT("throttling." new "-max", limits.max[kind], PROP_U64),                       \
		OPT(old "_max_length", limits.max_length[kind], PROP_U64, .def = 1,              \
		    .help = "Seconds a burst may last"),                                         \
		OPT("throttling." new "-max-length", limits.max_length[kind], PROP_U64, .def = 1)
#define LIMIT_ROWS                                                                                         \
	LIMIT("bps", "bps-total", BLOCK_BPS, "bytes per second"),                                          \
		LIMIT("bps_rd", "bps-read", BLOCK_BPS_RD, "bytes read per second"),                        \
		LIMIT("bps_wr", "bps-write", BLOCK_BPS_WR, "bytes written per second"),                    \
		LIMIT("iops", "iops-total", BLOCK_IOPS, "operations per second"),                          \
		LIMIT("iops_rd", "iops-read", BLOCK_IOPS_RD, "reads per second"),                          \
		LIMIT("iops_wr", "iops-write", BLOCK_IOPS_WR, "writes per second"),                        \
		OPT("iops_size", limits.iops_size, PROP_U64, .help = "Bytes that count as one operation"), \
		OPT("throttling.iops-size", limits.iops_size, PROP_U64),                                   \
		OPT("group", throttle_group, PROP_STR, .help = "Drives of one group share its limits"),    \
		OPT("throttling.group", throttle_group, PROP_STR)

const struct prop block_drive_props[] = {
	OPT("file", file, PROP_STR, .help = "Path of the image; empty: no medium"),
	OPT("format", format, PROP_STR, .help = "Image format: raw; default: probe"),
	OPT("id", id, PROP_STR, .help = "Name of the drive"),
	OPT("if", interface, PROP_ENUM, .def = BLOCK_IF_IDE, .values = if_names, .help = "Where it is plugged in"),
	OPT("index", index, PROP_I32, .def = (uint64_t)-1, .help = "Number of the connector on its interface"),
	OPT("bus", bus, PROP_I32, .def = (uint64_t)-1, .help = "Bus (IDE: channel) number"),
	OPT("unit", unit, PROP_I32, .def = (uint64_t)-1, .help = "Unit number on its bus"),
	OPT("media", media, PROP_ENUM, .values = media_names, .help = "Kind of drive"),
	OPT("cache", cache, PROP_STR, .def_str = "writeback",
	    .help = "none, writeback, writethrough, directsync or unsafe"),
	TRI("cache.writeback", writeback, "The drive has a write cache, which the guest flushes"),
	TRI("readonly", read_only, "As read-only"),
	TRI("snapshot", snapshot, "Keep writes in a temporary file and discard them at the end"),
	OPT("werror", werror, PROP_ENUM, .def = BLOCK_ERR_ENOSPC, .values = on_error_names,
	    .help = "What to do when writing fails; enospc: stop the guest when the disk is full, else report"),
	OPT("rerror", rerror, PROP_ENUM, .values = read_error_names, .help = "What to do when reading fails"),
	OPT("stats-account-invalid", account_invalid, PROP_BOOL, .def = 1,
	    .help = "Count requests that were never tried as accesses"),
	OPT("stats-account-failed", account_failed, PROP_BOOL, .def = 1, .help = "Count the time of failed requests"),
	OPT("serial", serial, PROP_STR, .help = "Serial number for the drive that shows it to the guest"),
	OPT("copy-on-read", copy_on_read, PROP_BOOL, .help = "Only off: raw images have no backing file"),
	LIMIT_ROWS,
	COMMON_ROWS,
	PROP_END,
};

const struct prop block_blockdev_props[] = {
	OPT("file", file, PROP_STR, .help = "Name of the node below"),
	OPT("filename", filename, PROP_STR, .help = "Path of the image (driver=file, host_device)"),
	COMMON_ROWS,
	PROP_END,
};

/* Options of QEMU's that would change what the guest or the operator gets: refused by name with the reason. */
static int refuse_known(const struct opts *o, bool drive, const char *owner, struct err *e)
{
	static const char *const prefixes[] = {"throttling.", "bps", "iops", "group"};

	for (size_t i = 0; i < o->n; i++) {
		const char *k = o->v[i].key;

		for (size_t p = 0; !drive && p < ARRAY_SIZE(prefixes); p++)
			if (!strncmp(k, prefixes[p], strlen(prefixes[p])))
				return err_set(
					e, ENOTSUP,
					"%s: '%s': limits belong to -drive, or set them with block_set_io_throttle",
					owner, k);
		if (!strncmp(k, "backing", 7) && (k[7] == '.' || !k[7]))
			return err_set(e, ENOTSUP, "%s: '%s': raw images have no backing file", owner, k);
		if (!strcmp(k, "cyls") || !strcmp(k, "heads") || !strcmp(k, "secs") || !strcmp(k, "trans"))
			return err_set(e, EINVAL, "%s: '%s': give it to the device instead (-device ide-hd,cyls=...)",
				       owner, k);
	}
	return 0;
}

static int apply_cache_mode(struct block_opts *bo, struct err *e)
{
	static const struct {
		const char *name;
		int direct, no_flush, writeback;
	} modes[] = {
		{"none", TRI_ON, TRI_OFF, TRI_ON},        {"off", TRI_ON, TRI_OFF, TRI_ON},
		{"writeback", TRI_OFF, TRI_OFF, TRI_ON},  {"writethrough", TRI_OFF, TRI_OFF, TRI_OFF},
		{"directsync", TRI_ON, TRI_OFF, TRI_OFF}, {"unsafe", TRI_OFF, TRI_ON, TRI_ON},
	};

	if (!bo->cache)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		if (strcmp(bo->cache, modes[i].name))
			continue;
		if (bo->direct == TRI_UNSET)
			bo->direct = modes[i].direct;
		if (bo->no_flush == TRI_UNSET)
			bo->no_flush = modes[i].no_flush;
		if (bo->writeback == TRI_UNSET)
			bo->writeback = modes[i].writeback;
		return 0;
	}
	return err_set(e, EINVAL,
		       "invalid cache option '%s': allowed are none, writeback, writethrough, directsync, unsafe",
		       bo->cache);
}

int options_parse(struct block_opts *bo, struct opts *o, bool drive, struct err *e)
{
	const struct prop *table = drive ? block_drive_props : block_blockdev_props;
	const char *owner = drive ? "-drive" : "-blockdev";
	int r;

	props_default(table, bo);
	if (!drive) {
		bo->interface = BLOCK_IF_NONE;
		bo->writeback = bo->snapshot = TRI_UNSET;
		bo->werror = BLOCK_ERR_ENOSPC;
		bo->index = bo->bus = bo->unit = -1;
	}
	r = refuse_known(o, drive, owner, e);
	if (!r)
		r = opts_apply(o, table, bo, owner, e);
	if (!r)
		r = apply_cache_mode(bo, e);
	if (!r && bo->copy_on_read)
		r = err_set(e, EINVAL, "%s: copy-on-read=on: raw images have no backing file to copy from", owner);
	if (r)
		options_free(bo);
	return r;
}

void options_free(struct block_opts *bo)
{
	/* The tables share members, so one free each: those of -drive, then what only -blockdev has. */
	props_free(block_drive_props, bo);
	props_free(block_blockdev_props, bo);
}

bool options_writeback(const struct block_opts *bo)
{
	return bo->writeback != TRI_OFF;
}

const char *options_aio_name(int aio)
{
	return aio_names[aio];
}

const char *options_detect_zeroes_name(int v)
{
	return detect_names[v];
}

/* "file:PATH" is PATH; any other "word:" before the first slash names a protocol we do not have. */
static int strip_protocol(const char **path, struct err *e)
{
	const char *p = *path;
	size_t word = strcspn(p, ":/");

	if (p[word] != ':')
		return 0;
	if (!strncmp(p, "file:", 5)) {
		*path = p + 5;
		return 0;
	}
	return err_set(e, EINVAL, "Unknown protocol '%.*s' in '%s' (a file name with a colon is written ./NAME)",
		       (int)word, p, p);
}

static bool is_protocol(const char *driver)
{
	return !strcmp(driver, "file") || !strcmp(driver, "host_device");
}

static int drive_layers(const struct block_opts *bo, struct node_config *c, struct err *e)
{
	c->format = bo->format;
	c->filename = bo->file ? bo->file : bo->file_filename;
	if (bo->driver && bo->format && strcmp(bo->driver, bo->format))
		return err_set(e, EINVAL, "Cannot specify both 'driver' and 'format'");
	if (bo->driver && is_protocol(bo->driver))
		c->protocol = bo->driver;
	else if (bo->driver)
		c->format = bo->driver;
	if (bo->file && bo->file_filename)
		return err_set(e, EINVAL, "Cannot specify both 'file' and 'file.filename'");
	return bo->file && *bo->file ? strip_protocol(&c->filename, e) : 0;
}

static int blockdev_layers(const struct block_opts *bo, struct node_config *c, struct err *e)
{
	if (!bo->driver)
		return err_set(e, EINVAL, "-blockdev: parameter 'driver' is missing");
	if (!bo->node_name)
		return err_set(e, EINVAL, "-blockdev: parameter 'node-name' is missing");
	if (is_protocol(bo->driver)) {
		if (!bo->filename || !*bo->filename)
			return err_set(e, EINVAL, "-blockdev driver=%s: parameter 'filename' is missing", bo->driver);
		if (bo->file || bo->file_filename)
			return err_set(e, EINVAL, "-blockdev driver=%s: a protocol has no 'file'", bo->driver);
		c->protocol = bo->driver;
		c->filename = bo->filename;
		return 0;
	}
	if (bo->filename)
		return err_set(e, EINVAL, "-blockdev driver=%s: 'filename' belongs to the protocol: file.filename=%s",
			       bo->driver, bo->filename);
	c->format = bo->driver;
	c->filename = bo->file_filename;
	if (!bo->file && !bo->file_filename)
		return err_set(e, EINVAL, "-blockdev driver=%s: parameter 'file' is missing", bo->driver);
	return format_check_name(bo->driver, e);
}

/* With cache.* from libvirt on the protocol node only, or on both: whoever says so counts. */
int options_node_config(const struct block_opts *bo, bool drive, struct node_config *c, struct err *e)
{
	int lock = bo->file_locking != TRI_UNSET ? bo->file_locking : bo->locking;
	int r;

	*c = (struct node_config){
		.node_name = bo->node_name,
		.file_node_name = bo->file_node_name,
		.readonly = bo->read_only == TRI_ON || (drive && bo->media == 1 && bo->read_only == TRI_UNSET),
		.auto_readonly = bo->auto_read_only == TRI_ON,
		.direct = bo->direct == TRI_ON,
		.no_flush = bo->no_flush == TRI_ON,
		.unmap = bo->discard == 1 || bo->discard == 3,
		.snapshot = bo->snapshot == TRI_ON,
		.lock = lock != TRI_OFF && !bo->force_share,
		.lock_required = lock == TRI_ON,
		.aio = bo->file_aio ? bo->file_aio : bo->aio,
		.detect_zeroes = bo->detect_zeroes,
	};
	if (c->readonly) /* nobody writes: -snapshot has nothing to keep */
		c->snapshot = false;
	r = drive ? drive_layers(bo, c, e) : blockdev_layers(bo, c, e);
	if (r)
		return r;
	if (bo->file_driver) {
		if (!is_protocol(bo->file_driver))
			return err_set(e, EINVAL, "Unknown driver '%s' for 'file': 'file' and 'host_device' are known",
				       bo->file_driver);
		c->protocol = bo->file_driver;
	}
	if (c->aio == AIO_NATIVE && !c->direct)
		return err_set(e, EINVAL,
			       "aio=native was specified, but it requires cache.direct=on, which was not specified.");
	if (c->detect_zeroes == DETECT_ZEROES_UNMAP && !c->unmap)
		return err_set(
			e, EINVAL,
			"setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
	if (bo->force_share && !c->readonly)
		return err_set(e, EINVAL, "force-share=on can only be used with read-only images");
	return 0;
}
