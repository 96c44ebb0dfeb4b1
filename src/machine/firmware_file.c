/*
 * Firmware files: BIOS images and option ROMs, looked up by name. Debian's seabios, qemu-system-data and ipxe-qemu
 * packages are the usual sources.
 */
#include "board.h"
#include "vmm-config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const firmware_dirs[] = {
	VMM_DATADIR,
	"/usr/share/seabios",
	"/usr/share/qemu",
	"/usr/lib/ipxe/qemu",
};

static int open_file(const char *dir, const char *name)
{
	char *path = xasprintf("%s/%s", dir, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int err = errno;
	free(path);
	return fd >= 0 ? fd : -err;
}

/* An open descriptor or -errno: a file that exists but cannot be opened ends the search. */
static int find_file(const struct config *c, const char *name)
{
	if (strchr(name, '/')) {
		int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		return fd >= 0 ? fd : -errno;
	}
	if (c && c->firmware_dir) {
		int fd = open_file(c->firmware_dir, name);
		if (fd != -ENOENT)
			return fd;
	}
	for (size_t i = 0; i < ARRAY_SIZE(firmware_dirs); i++) {
		int fd = open_file(firmware_dirs[i], name);
		if (fd != -ENOENT && fd != -ENOTDIR)
			return fd;
	}
	return -ENOENT;
}

static int read_whole(int fd, const char *name, size_t max, void **data, size_t *len, struct err *e)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "firmware file '%s'", name);
	if (!S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "firmware file '%s' is not a regular file", name);
	if (st.st_size == 0)
		return err_set(e, EINVAL, "firmware file '%s' is empty", name);
	if ((uint64_t)st.st_size > max)
		return err_set(e, EFBIG, "firmware file '%s' has %lld bytes, at most %zu are allowed", name,
			       (long long)st.st_size, max);
	size_t size = st.st_size, got = 0;
	uint8_t *buf = malloc(size);
	if (!buf)
		return err_set(e, ENOMEM, "firmware file '%s': no memory for %zu bytes", name, size);
	while (got < size) {
		ssize_t n = read(fd, buf + got, size - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int code = n < 0 ? errno : EIO;
			free(buf);
			return err_errno(e, code, "cannot read firmware file '%s'", name);
		}
		got += n;
	}
	*data = buf;
	*len = size;
	return 0;
}

static int load(struct board *board, const char *name, size_t max, void **data, size_t *len, struct err *e)
{
	int fd = find_file(machine_config(board), name);
	if (fd == -ENOENT && !strchr(name, '/'))
		return err_set(
			e, ENOENT,
			"firmware file '%s' not found: install the packages seabios and qemu-system-data, or name "
			"its directory with -L DIR",
			name);
	if (fd < 0)
		return err_errno(e, -fd, "cannot open firmware file '%s'", name);
	int ret = read_whole(fd, name, max, data, len, e);
	close(fd);
	return ret;
}

/* ---- what became part of the machine ---- */

static struct described_file *find(struct described_file *list, const char *name)
{
	for (; list; list = list->next)
		if (!strcmp(list->name, name))
			return list;
	return NULL;
}

bool board_file_described(const struct board *b, const char *name)
{
	return b->config->described && find(b->config->described->files, name);
}

void board_file_record(struct board *b, const char *name, const void *data, uint64_t size)
{
	struct described_file *f = find(b->files, name), **tail = &b->files;

	if (!f) {
		f = xzalloc(sizeof(*f));
		f->name = xstrdup(name);
		f->size = size;
		while (*tail)
			tail = &(*tail)->next;
		*tail = f;
	}
	if (data && !f->data && f->size == size)
		f->data = xmemdup(data, size);
}

void board_files_free(struct board *b)
{
	while (b->files) {
		struct described_file *next = b->files->next;

		free(b->files->name);
		free(b->files->data);
		free(b->files);
		b->files = next;
	}
}

/* 1: not described; else as load(). A ROM's content is zero: it comes with the memory. */
static int load_described(struct board *b, const char *name, size_t max, bool content, void **data, size_t *len,
			  struct err *e)
{
	const struct described_file *f = b->config->described ? find(b->config->described->files, name) : NULL;

	if (!b->config->described || (b->started && !f))
		return 1;
	if (!f || (content && !f->data))
		return err_set(e, ENOENT, "the machine's description has no file '%s'", name);
	if (f->size > max || !f->size)
		return err_set(e, EINVAL, "the machine's description: file '%s' has %llu bytes, 1 to %zu are allowed",
			       name, (unsigned long long)f->size, max);
	*data = calloc(1, f->size);
	if (!*data)
		return err_errno(e, ENOMEM, "file '%s'", name);
	if (f->data)
		memcpy(*data, f->data, f->size);
	*len = f->size;
	return 0;
}

int board_load_firmware(struct board *board, const char *name, size_t max, void **data, size_t *len, struct err *e)
{
	int r = load_described(board, name, max, false, data, len, e);

	if (r > 0)
		r = load(board, name, max, data, len, e);
	if (!r)
		board_file_record(board, name, NULL, *len);
	return r;
}

int board_load_file(struct board *board, const char *name, size_t max, void **data, size_t *len, struct err *e)
{
	const struct described_file *f = find(board->files, name);
	int r;

	if (f && f->data && f->size <= max) { /* the tables are built anew: the file as it was */
		*data = xmemdup(f->data, f->size);
		*len = f->size;
		return 0;
	}
	r = load_described(board, name, max, true, data, len, e);
	if (r > 0)
		r = load(board, name, max, data, len, e);
	if (!r)
		board_file_record(board, name, *data, *len);
	return r;
}
