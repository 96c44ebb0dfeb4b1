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
	char *path;
	FILE *f;
	bool regular;
};

static void screenshot_free(struct screenshot *s)
{
	free(s->copy.data);
	free(s->path);
	free(s);
}

static int copy_surface(struct screenshot *s, const struct surface *from, struct err *e)
{
	size_t size = (size_t)from->stride * from->height;

	s->copy = *from;
	s->copy.data = malloc(size);
	if (!s->copy.data)
		return err_errno(e, ENOMEM, "screendump '%s'", s->path);
	memcpy(s->copy.data, from->data, size);
	return 0;
}

static int create_file(struct screenshot *s, struct err *e)
{
	/* Not to wait for the reader of a pipe: without one it is an error. */
	int fd = open(s->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
	struct stat st;

	if (fd < 0)
		return err_errno(e, errno, "screendump: cannot create '%s'", s->path);
	s->regular = !fstat(fd, &st) && S_ISREG(st.st_mode);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	s->f = fdopen(fd, "w");
	if (s->f)
		return 0;
	close(fd);
	return err_errno(e, errno, "screendump '%s'", s->path);
}

struct screenshot *screenshot_take(struct console *c, const char *path, const char *format, struct err *e)
{
	bool png = format && !strcmp(format, "png");
	struct screenshot *s;
	int rc = 0;

	if (format && !png && strcmp(format, "ppm"))
		err_set(e, EINVAL, "screendump: format '%s' is not known; use ppm or png", format);
	else if (!c)
		err_set(e, ENODEV, "screendump: this machine has no graphics adapter");
	if (!c || (format && !png && strcmp(format, "ppm")))
		return NULL;
	console_refresh(c, false); /* sinks beside the screenshot are shown the same, so nothing is lost for them */
	if (!console_surface(c)->data) {
		err_set(e, EAGAIN, "screendump: the screen is off: nothing has been shown yet");
		return NULL;
	}
	s = xzalloc(sizeof(*s));
	s->path = xstrdup(path);
	if (png) {
		s->png = module_load("png", "vmm_module_png", e);
		if (!s->png)
			rc = err_prefix(e, "screendump '%s'", path);
	}
	if (!rc)
		rc = copy_surface(s, console_surface(c), e);
	if (!rc)
		rc = create_file(s, e);
	if (!rc)
		return s;
	screenshot_free(s);
	return NULL;
}

int screenshot_write(struct screenshot *s, struct err *e)
{
	int rc;

	if (s->png) {
		rc = s->png->write(s->f, &s->copy, e);
		if (rc < 0) {
			err_prefix(e, "screendump '%s'", s->path);
			return rc;
		}
	} else {
		rc = write_ppm(s->f, &s->copy);
	}
	errno = 0;
	if (rc == -ENOMEM)
		return err_errno(e, ENOMEM, "screendump '%s'", s->path);
	if (rc < 0 || fflush(s->f) || ferror(s->f))
		return err_errno(e, errno ? errno : EIO, "screendump '%s': cannot write", s->path);
	return 0;
}

int screenshot_finish(struct screenshot *s, int rc, struct err *e)
{
	if (fclose(s->f) && !rc)
		rc = err_errno(e, errno, "screendump '%s': cannot write", s->path);
	if (rc < 0 && s->regular)
		unlink(s->path); /* half a picture is worth nothing; a device or pipe is not ours to remove */
	screenshot_free(s);
	return rc;
}

int screendump_write(struct console *c, const char *path, const char *format, struct err *e)
{
	struct screenshot *s = screenshot_take(c, path, format, e);

	return s ? screenshot_finish(s, screenshot_write(s, e), e) : e && e->code ? -e->code : -EINVAL;
}
