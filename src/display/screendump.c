/*
 * Screenshots: PPM (netpbm's P6) by our own hand, PNG through the module vmm-png.so.
 *
 * Sandbox: the PNG module is loaded here, on the main thread, at the first PNG. That needs openat (read-only), fstat,
 * read, pread64, readlink, access, mmap with PROT_EXEC of a file, mprotect, munmap and close. Every screenshot needs
 * openat for writing, fstat, write, close and unlink.
 */
#include "vmm/display.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "src/display/modules.h"
#include "vmm/fdset.h"
#include "vmm/module.h"

static int write_ppm(FILE *f, const struct surface *s)
{
	uint8_t *line = malloc((size_t)s->width * 3);

	if (!line)
		return -ENOMEM;
	fprintf(f, "P6\n%u %u\n255\n", s->width, s->height);
	for (uint32_t y = 0; y < s->height; y++) {
		const uint32_t *px = (const uint32_t *)(s->data + (size_t)y * s->stride);

		for (uint32_t x = 0; x < s->width; x++) {
			line[3 * x] = (uint8_t)(px[x] >> 16);
			line[3 * x + 1] = (uint8_t)(px[x] >> 8);
			line[3 * x + 2] = (uint8_t)px[x];
		}
		if (fwrite(line, 3, s->width, f) != s->width)
			break;
	}
	free(line);
	return ferror(f) ? -EIO : 0;
}

struct screenshot {
	struct surface copy;
	const struct png_module *png; /* NULL: PPM */
};

void screenshot_free(struct screenshot *s)
{
	free(s->copy.data);
	free(s);
}

static int copy_surface(struct screenshot *s, const struct surface *from, struct err *e)
{
	size_t size = (size_t)from->stride * from->height;

	s->copy = *from;
	s->copy.data = malloc(size);
	if (!s->copy.data)
		return err_errno(e, ENOMEM, "screendump");
	memcpy(s->copy.data, from->data, size);
	return 0;
}

struct screenshot *screenshot_take(struct console *c, const char *format, struct err *e)
{
	bool png = format && !strcmp(format, "png"), known = png || !format || !strcmp(format, "ppm");
	struct screenshot *s;
	int rc = 0;

	if (!known)
		err_set(e, EINVAL, "screendump: format '%s' is not known; use ppm or png", format);
	else if (!c)
		err_set(e, ENODEV, "screendump: this machine has no graphics adapter");
	if (!c || !known)
		return NULL;
	console_refresh(c, false); /* sinks beside the screenshot are shown the same, so nothing is lost for them */
	if (!console_surface(c)->data) {
		err_set(e, EAGAIN, "screendump: the screen is off: nothing has been shown yet");
		return NULL;
	}
	s = xzalloc(sizeof(*s));
	if (png) {
		s->png = module_load("png", "vmm_module_png", e);
		if (!s->png)
			rc = err_prefix(e, "screendump");
	}
	if (!rc)
		rc = copy_surface(s, console_surface(c), e);
	if (!rc)
		return s;
	screenshot_free(s);
	return NULL;
}

int screenshot_encode(const struct screenshot *s, char **data, size_t *len, struct err *e)
{
	FILE *f = open_memstream(data, len);
	int rc;

	if (!f)
		return err_errno(e, errno, "screendump");
	rc = s->png ? s->png->write(f, &s->copy, e) : write_ppm(f, &s->copy);
	if (fclose(f) && !rc)
		rc = -ENOMEM;
	if (rc < 0 && !(e && e->code))
		err_errno(e, -rc, "screendump");
	if (rc < 0) {
		free(*data);
		*data = NULL;
	}
	return rc;
}

int screenshot_create(const char *path, bool *regular, struct err *e)
{
	int fd = fdset_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666, e);
	struct stat st;

	if (fd < 0)
		return err_prefix(e, "screendump");
	*regular = strncmp(path, "/dev/fdset/", 11) && !fstat(fd, &st) && S_ISREG(st.st_mode);
	return fd;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

int screendump_write(struct console *c, const char *path, const char *format, struct err *e)
{
	struct screenshot *s = screenshot_take(c, format, e);
	bool regular = false;
	char *data = NULL;
	size_t len = 0;
	int rc, fd;

	if (!s)
		return e && e->code ? -e->code : -EINVAL;
	fd = screenshot_create(path, &regular, e);
	rc = fd < 0 ? fd : screenshot_encode(s, &data, &len, e);
	if (!rc) {
		rc = write_all(fd, data, len);
		if (rc)
			err_errno(e, -rc, "screendump '%s': cannot write", path);
	}
	if (fd >= 0)
		close(fd);
	if (rc < 0 && regular)
		unlink(path); /* half a picture is worth nothing; a device or pipe is not ours to remove */
	free(data);
	screenshot_free(s);
	return rc;
}
