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

/* Sinks beside the screenshot are shown the same refresh, so nothing is lost for them. */
static int write_file(FILE *f, const struct surface *s, bool png, const char *path, struct err *e)
{
	int rc;

	if (png) {
		const struct png_module *m = module_load("png", "vmm_module_png", e);

		rc = m ? m->write(f, s, e) : -ENOENT;
		if (rc < 0) {
			err_prefix(e, "screendump '%s'", path);
			return rc;
		}
	} else {
		rc = write_ppm(f, s);
	}
	errno = 0;
	if (rc == -ENOMEM)
		return err_errno(e, ENOMEM, "screendump '%s'", path);
	if (rc < 0 || fflush(f) || ferror(f))
		return err_errno(e, errno ? errno : EIO, "screendump '%s': cannot write", path);
	return 0;
}

int screendump_write(struct console *c, const char *path, const char *format, struct err *e)
{
	bool png = format && !strcmp(format, "png");

	if (format && !png && strcmp(format, "ppm"))
		return err_set(e, EINVAL, "screendump: format '%s' is not known; use ppm or png", format);
	if (!c)
		return err_set(e, ENODEV, "screendump: this machine has no graphics adapter");
	console_refresh(c, false);

	struct surface *s = console_surface(c);

	if (!s->data)
		return err_set(e, EAGAIN, "screendump: the screen is off: nothing has been shown yet");

	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0)
		return err_errno(e, errno, "screendump: cannot create '%s'", path);

	struct stat st;
	bool regular = !fstat(fd, &st) && S_ISREG(st.st_mode);
	FILE *f = fdopen(fd, "w");
	int rc;

	if (!f) {
		rc = err_errno(e, errno, "screendump '%s'", path);
		close(fd);
	} else {
		rc = write_file(f, s, png, path, e);
		if (fclose(f) && !rc)
			rc = err_errno(e, errno, "screendump '%s': cannot write", path);
	}
	if (rc < 0 && regular)
		unlink(path); /* half a picture is worth nothing; a device or pipe is not ours to remove */
	return rc;
}
