/*
 * Image formats by their magic. Only raw can be opened at present; the others are recognised so that an image in one of
 * them is refused by name instead of being offered to the guest as raw bytes, and so that a guest cannot turn a probed
 * raw image into one of them by writing block 0.
 */
#include "src/block/block_private.h"

#include <errno.h>
#include <string.h>

static const struct {
	const char *name, *magic;
	uint8_t len, offset;
} magics[] = {
	{"qcow2", "QFI\xfb\0\0\0\2", 8, 0},
	{"qcow2", "QFI\xfb\0\0\0\3", 8, 0},
	{"qcow", "QFI\xfb\0\0\0\1", 8, 0},
	{"qed", "QED\0", 4, 0},
	{"vmdk", "KDMV", 4, 0},
	{"vmdk", "COWD", 4, 0},
	{"vmdk", "# Disk DescriptorFile", 21, 0},
	{"vdi", "\x7f\x10\xda\xbe", 4, 0x40},
	{"vpc", "conectix", 8, 0},
	{"vhdx", "vhdxfile", 8, 0},
	{"parallels", "WithoutFreeSpace", 16, 0},
	{"parallels", "WithouFreSpacExt", 16, 0},
	{"luks", "LUKS\xba\xbe", 6, 0},
	{"bochs", "Bochs Virtual HD Image", 22, 0},
};

static const char *const known_formats[] = {"qcow2", "qcow",  "qed",   "vmdk", "vdi",   "vpc", "vhdx",     "parallels",
					    "luks",  "bochs", "cloop", "dmg",  "vvfat", "nbd", "blkdebug", "quorum",
					    "ssh",   "https", "http",  "ftp",  "iscsi", "nfs", "rbd",      "throttle"};

const char *probe_format(const uint8_t *head, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
		if ((size_t)magics[i].offset + magics[i].len <= len &&
		    !memcmp(head + magics[i].offset, magics[i].magic, magics[i].len))
			return magics[i].name;
	return NULL;
}

int format_check_name(const char *format, struct err *e)
{
	if (!strcmp(format, "raw"))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(known_formats); i++)
		if (!strcmp(format, known_formats[i]))
			return err_set(e, ENOTSUP, "Driver '%s' is not supported by this version; 'raw' is", format);
	return err_set(e, EINVAL, "Unknown driver '%s'", format);
}
