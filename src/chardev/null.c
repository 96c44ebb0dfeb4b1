/* -chardev null: output is thrown away, no input ever. */
#include "backend.h"

static const struct prop null_props[] = {CHARDEV_COMMON_PROPS, PROP_END};

static int null_open(struct chardev *c, struct err *e)
{
	chardev_opened(c);
	return 0;
}

static void null_close(struct chardev *c)
{
}

static ssize_t null_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	return len;
}

const struct chardev_ops chardev_null_ops = {
	.name = "null",
	.help = "output goes nowhere, no input",
	.props = null_props,
	.size = sizeof(struct chardev),
	.open = null_open,
	.close = null_close,
	.write = null_write,
	.discards = true,
};
