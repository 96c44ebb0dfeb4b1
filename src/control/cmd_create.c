/* QMP blockdev-create: new image files, as a job. Driver file; QEMU's raw driver has nothing to create either. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "commands.h"
#include "job.h"
#include "types.h"
#include "vmm/block.h"

const struct qmp_type qmp_blockdev_driver = QMP_ENUM("BlockdevDriver", "file", "host_device", "raw");
static const struct qmp_type prealloc = QMP_ENUM("PreallocMode", "off", "metadata", "falloc", "full");
static const struct qmp_type create_options = {
	.name = "BlockdevCreateOptions",
	.kind = QMP_KIND_OBJECT,
	.members = QMP_MEMBERS(QMP_REQ("driver", qmp_blockdev_driver)),
	.tag = "driver",
	.variants =
		(const struct qmp_variant[]){
			{"file", QMP_MEMBERS(QMP_REQ("filename", qmp_str), QMP_REQ("size", qmp_size),
					     QMP_OPT("preallocation", prealloc))},
			{NULL, NULL},
		},
};

#define STEP (1 * MIB)

struct create {
	int fd;
	uint64_t size;
	char *path;
	bool falloc, full;
};

/* In steps, so that the job can be stopped and shows how far it is. */
static int fill(struct job *job, const struct create *c, struct err *e)
{
	void *zeroes = xzalloc(STEP);
	int r = 0;

	for (uint64_t done = 0; !r && done < c->size; done += MIN(STEP, c->size - done)) {
		size_t n = (size_t)MIN(STEP, c->size - done);

		job_progress(job, done, c->size);
		if (!job_pause_point(job))
			r = -ECANCELED;
		else if (c->full ? pwrite(c->fd, zeroes, n, (off_t)done) != (ssize_t)n
				 : fallocate(c->fd, 0, (off_t)done, (off_t)n))
			r = err_errno(e, errno ? errno : ENOSPC, "Could not allocate '%s'", c->path);
	}
	free(zeroes);
	return r;
}

static int create_run(struct job *job, void *opaque, struct err *e)
{
	const struct create *c = opaque;
	int r = 0;

	if (ftruncate(c->fd, (off_t)c->size))
		return err_errno(e, errno, "Could not resize '%s'", c->path);
	if (c->falloc || c->full)
		r = fill(job, c, e);
	if (!r)
		job_progress(job, c->size, c->size);
	return r;
}

/* What could not be finished does not stay around as an image. */
static void create_settle(void *opaque, bool ok)
{
	struct create *c = opaque;

	close(c->fd);
	if (!ok)
		unlink(c->path);
	free(c->path);
	free(c);
}

static const struct job_class create_class = {.type = "create", .run = create_run, .settle = create_settle};

static json_t *blockdev_create(struct qmp_call *call, struct err *e)
{
	const json_t *o = json_object_get(call->args, "options");
	const char *driver = json_string_value(json_object_get(o, "driver"));
	const char *mode = json_string_value(json_object_get(o, "preallocation"));
	struct create *c;

	if (strcmp(driver, "file")) {
		err_set(e, ENOTSUP, "Driver does not support blockdev-create");
		return NULL;
	}
	if (mode && !strcmp(mode, "metadata")) {
		err_set(e, ENOTSUP, "Unsupported preallocation mode '%s'", mode);
		return NULL;
	}
	if (job_check_id(qmp_arg_str(call, "job-id"), e))
		return NULL; /* before an existing file is cut */
	c = xzalloc(sizeof(*c));
	c->path = xstrdup(json_string_value(json_object_get(o, "filename")));
	c->size = (uint64_t)json_integer_value(json_object_get(o, "size"));
	c->falloc = mode && !strcmp(mode, "falloc");
	c->full = mode && !strcmp(mode, "full");
	c->fd = block_create_file(c->path, e);
	if (c->fd >= 0 && job_start(qmp_arg_str(call, "job-id"), &create_class, c, e))
		return json_object();
	if (c->fd >= 0)
		close(c->fd);
	free(c->path);
	free(c);
	return NULL;
}

const struct qmp_command qmp_create_commands[] = {
	{"blockdev-create", "Create an image file, as a job; an existing one is overwritten.", "0.2",
	 QMP_MEMBERS(QMP_REQ("job-id", qmp_str), QMP_REQ("options", create_options)), NULL, 0, 0, blockdev_create},
	{NULL},
};
