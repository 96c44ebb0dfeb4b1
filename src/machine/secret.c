/*
 * Secrets: given in the option (data=), where other users of the host may see it, or in a file (file=), as they are or
 * in base64. They are wiped when the object goes.
 *
 * Left out: secrets that are themselves encrypted with another (keyid, iv).
 */
#include "vmm/secret.h"
#include "vmm/base64.h"
#include "vmm/loop.h"
#include "vmm/object.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET_MAX (64 * KIB)

enum { FORMAT_RAW, FORMAT_BASE64 };
static const char *const formats[] = {"raw", "base64", NULL};

struct secret {
	struct object object;
	char *data, *file, *keyid, *iv;
	int format;
	char *bytes; /* NUL-terminated */
	size_t len;
};

static struct secret *of(const struct object *o)
{
	return container_of(o, struct secret, object);
}

static int read_file(struct secret *s, struct err *e)
{
	int fd = open(s->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	ssize_t n = -1;

	/* What has to be waited for is, on the command line only. */
	if (fd >= 0 && !loop_has_run(loop_main())) {
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	} else if (fd >= 0 && !fstat(fd, &st) && S_ISFIFO(st.st_mode)) {
		close(fd);
		return err_set(e, EINVAL, "Unable to read %s: a pipe can be given on the command line only", s->file);
	}
	s->bytes = xzalloc(SECRET_MAX + 2);
	while (fd >= 0 && s->len <= SECRET_MAX && (n = read(fd, s->bytes + s->len, SECRET_MAX + 1 - s->len)) > 0)
		s->len += (size_t)n;
	if (fd < 0 || n < 0)
		err_errno(e, errno, "Unable to read %s", s->file);
	else if (s->len > SECRET_MAX)
		err_set(e, EFBIG, "Unable to read %s: a secret has at most %llu KiB", s->file, SECRET_MAX / KIB);
	else
		n = 0;
	if (fd >= 0)
		close(fd);
	return n ? -EINVAL : 0;
}

static int decode(struct secret *s, struct err *e)
{
	ssize_t n;

	if (s->format == FORMAT_RAW)
		return 0;
	s->bytes[strcspn(s->bytes, "\r\n")] = 0; /* editors end files with a newline */
	n = base64_decode(s->bytes);
	if (n < 0)
		return err_set(e, EINVAL, "Base64 data contains invalid characters");
	s->len = (size_t)n;
	s->bytes[n] = 0;
	return 0;
}

static void wipe(struct secret *s)
{
	if (s->bytes)
		explicit_bzero(s->bytes, s->len);
	free(s->bytes);
	s->bytes = NULL;
	if (s->data)
		explicit_bzero(s->data, strlen(s->data));
}

static int create(struct object *o, struct err *e)
{
	struct secret *s = of(o);
	int r = 0;

	if (s->keyid || s->iv)
		return err_set(e, ENOTSUP,
			       "secret '%s': keyid and iv are not offered: give the secret in a file instead", o->id);
	if (s->file && s->data)
		return err_set(e, EINVAL, "'file' and 'data' are mutually exclusive");
	if (!s->file && !s->data)
		return err_set(e, EINVAL, "Either 'file' or 'data' must be provided");
	if (s->file) {
		r = read_file(s, e);
	} else {
		s->bytes = xstrdup(s->data);
		s->len = strlen(s->bytes);
		explicit_bzero(s->data, s->len); /* qom-get shows none of it */
		s->data[0] = 0;
	}
	if (!r)
		r = decode(s, e);
	if (r)
		wipe(s);
	return r;
}

static void destroy(struct object *o)
{
	wipe(of(o));
}

const char *secret_find(const char *id, size_t *len, struct err *e)
{
	struct object *o = object_find(id);

	if (!o || strcmp(o->type->parent, "secret_common")) {
		err_set(e, ENOENT, o ? "Object with id '%s' is not a secret" : "No secret with id '%s'", id);
		return NULL;
	}
	*len = of(o)->len;
	return of(o)->bytes;
}

const char *secret_text(const char *id, struct err *e)
{
	size_t len;
	const char *text = secret_find(id, &len, e);

	if (text && strlen(text) != len) {
		err_set(e, EINVAL, "Data from secret '%s' is no text: it holds NUL bytes", id);
		return NULL;
	}
	return text;
}

static const struct prop props[] = {
	PROP(struct secret, data, PROP_STR, .help = "the secret itself; other users of the host can see it"),
	PROP(struct secret, file, PROP_STR, .help = "file that holds it"),
	PROP(struct secret, format, PROP_ENUM, .values = formats, .help = "how it is written there"),
	PROP(struct secret, keyid, PROP_STR, .help = "refused"),
	PROP(struct secret, iv, PROP_STR, .help = "refused"),
	PROP_END,
};

const struct object_type secret_type = {
	.name = "secret",
	.parent = "secret_common",
	.summary = "a password or key that others refer to",
	.size = sizeof(struct secret),
	.props = props,
	.create = create,
	.destroy = destroy,
};
