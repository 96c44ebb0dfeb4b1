/*
 * fw_cfg: items and files the machine hands to the firmware. Selector port 0x510, data port 0x511, DMA at 0x514.
 *
 * Source: QEMU docs/specs/fw_cfg.rst ("QEMU Firmware Configuration (fw_cfg) Device"), the x86 register layout.
 * Left out: writing through the data port (dropped, as QEMU does since 2.4); the kernel and initrd items: direct boot
 * puts them into guest RAM itself.
 */
#include "vmm/fw_cfg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	KEY_SIGNATURE = 0x00,
	KEY_ID = 0x01,
	KEY_FILE_DIR = 0x19,
	KEY_FILE_FIRST = 0x20,
};
#define KEY_WRITE_CHANNEL 0x4000 /* obsolete; ignored in a selector */
#define KEY_INVALID       0xffff

#define ID_TRADITIONAL 1
#define ID_DMA         2

#define DMA_CTL_ERROR  0x01
#define DMA_CTL_READ   0x02
#define DMA_CTL_SKIP   0x04
#define DMA_CTL_SELECT 0x08
#define DMA_CTL_WRITE  0x10

#define FILE_SLOTS     128
#define FILE_NAME      56
#define ITEMS          64
#define WRITABLE_FILES 8
#define WRITABLE_MAX   256
#define DIR_ENTRY      64

struct fw_item {
	uint16_t key;
	uint8_t *data;
	uint32_t len;
};

/* What the guest can change; travels in the state. */
struct fw_writable {
	uint32_t len;
	uint8_t data[WRITABLE_MAX];
};

struct fw_file {
	char name[FILE_NAME];
	uint8_t *data; /* owned unless writable >= 0 */
	uint32_t len;
	int writable;     /* index into fw_cfg.writable, or -1 */
	uint8_t *initial; /* of a writable file: what it is after a reset */
	void (*written)(void *opaque, const uint8_t *data, size_t len);
	void *opaque;
};

struct fw_cfg {
	struct device dev;
	struct fw_item items[ITEMS];
	unsigned n_items;
	struct fw_file files[FILE_SLOTS]; /* sorted by name; file i has key KEY_FILE_FIRST + i */
	unsigned n_files;
	uint8_t directory[4 + FILE_SLOTS * DIR_ENTRY];
	uint32_t directory_len;
	unsigned n_writable;
	/* guest-visible */
	struct fw_writable writable[WRITABLE_FILES];
	uint16_t key;
	uint32_t offset;
	uint64_t dma_addr;
};

/* ---- contents ---- */

struct view {
	uint8_t *data;
	uint32_t len;
	struct fw_file *file; /* or NULL */
};

static struct view selected(struct fw_cfg *s)
{
	unsigned index = s->key - KEY_FILE_FIRST;
	if (s->key == KEY_FILE_DIR)
		return (struct view){s->directory, s->directory_len, NULL};
	if (s->key >= KEY_FILE_FIRST && index < s->n_files)
		return (struct view){s->files[index].data, s->files[index].len, &s->files[index]};
	for (unsigned i = 0; i < s->n_items; i++)
		if (s->items[i].key == s->key)
			return (struct view){s->items[i].data, s->items[i].len, NULL};
	return (struct view){NULL, 0, NULL};
}

static void directory_update(struct fw_cfg *s)
{
	put_be32(s->directory, s->n_files);
	for (unsigned i = 0; i < s->n_files; i++) {
		uint8_t *entry = s->directory + 4 + i * DIR_ENTRY;
		memset(entry, 0, DIR_ENTRY);
		put_be32(entry, s->files[i].len);
		put_be16(entry + 4, KEY_FILE_FIRST + i);
		memcpy(entry + 8, s->files[i].name, FILE_NAME);
	}
	s->directory_len = 4 + s->n_files * DIR_ENTRY;
}

static struct fw_cfg *find(struct board *board, struct err *e)
{
	struct device *dev = device_find_class(board, "fw_cfg_io");
	if (!dev)
		err_set(e, ENODEV, "this machine has no fw_cfg device");
	return dev ? DEVICE(dev, struct fw_cfg) : NULL;
}

static int copy_in(uint8_t **dst, const void *data, size_t len, const char *what, struct err *e)
{
	if (len > UINT32_MAX)
		return err_set(e, EFBIG, "fw_cfg: '%s' has more than 4 GiB", what);
	*dst = malloc(len ? len : 1);
	if (!*dst)
		return err_set(e, ENOMEM, "fw_cfg: no memory for the %zu bytes of '%s'", len, what);
	if (len)
		memcpy(*dst, data, len);
	return 0;
}

static struct fw_file *file_find(struct fw_cfg *s, const char *name)
{
	for (unsigned i = 0; i < s->n_files; i++)
		if (!strcmp(s->files[i].name, name))
			return &s->files[i];
	return NULL;
}

/* A new, empty file at its place in the order. Lock held. */
static int file_insert(struct fw_cfg *s, const char *name, struct fw_file **out, struct err *e)
{
	if (!*name || strlen(name) >= FILE_NAME)
		return err_set(e, EINVAL, "fw_cfg: file name '%s' must have 1 to %d characters", name, FILE_NAME - 1);
	if (file_find(s, name))
		return err_set(e, EEXIST, "fw_cfg: there is already a file '%s'", name);
	if (s->n_files == FILE_SLOTS)
		return err_set(e, ENOSPC, "fw_cfg: no room for file '%s': %d files are the limit", name, FILE_SLOTS);
	unsigned at = 0;
	while (at < s->n_files && strcmp(s->files[at].name, name) < 0)
		at++;
	memmove(&s->files[at + 1], &s->files[at], (s->n_files - at) * sizeof(s->files[0]));
	s->n_files++;
	*out = &s->files[at];
	**out = (struct fw_file){.writable = -1};
	strcpy((*out)->name, name);
	return 0;
}

static int item_put(struct fw_cfg *s, uint16_t key, const void *data, size_t len, struct err *e)
{
	char what[16];
	snprintf(what, sizeof(what), "item 0x%x", key);
	for (unsigned i = 0; i < s->n_items; i++)
		if (s->items[i].key == key)
			return err_set(e, EEXIST, "fw_cfg: there is already an %s", what);
	if (s->n_items == ITEMS)
		return err_set(e, ENOSPC, "fw_cfg: no room for %s", what);
	struct fw_item item = {.key = key, .len = len};
	int ret = copy_in(&item.data, data, len, what, e);
	if (ret == 0)
		s->items[s->n_items++] = item;
	return ret;
}

int fw_cfg_add_item(struct board *board, uint16_t key, const void *data, size_t len, struct err *e)
{
	struct fw_cfg *s = find(board, e);
	if (!s)
		return -ENODEV;
	pthread_mutex_lock(s->dev.lock);
	int ret = item_put(s, key, data, len, e);
	pthread_mutex_unlock(s->dev.lock);
	return ret;
}

int fw_cfg_add_file(struct board *board, const char *name, const void *data, size_t len, struct err *e)
{
	struct fw_cfg *s = find(board, e);
	struct fw_file *f;
	uint8_t *copy;
	if (!s)
		return -ENODEV;
	int ret = copy_in(&copy, data, len, name, e);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(s->dev.lock);
	ret = file_insert(s, name, &f, e);
	if (ret == 0) {
		f->data = copy;
		f->len = len;
		directory_update(s);
	} else {
		free(copy);
	}
	pthread_mutex_unlock(s->dev.lock);
	return ret;
}

int fw_cfg_add_writable(struct board *board, const char *name, const void *data, size_t len,
			void (*written)(void *opaque, const uint8_t *data, size_t len), void *opaque, struct err *e)
{
	struct fw_cfg *s = find(board, e);
	struct fw_file *f;
	if (!s)
		return -ENODEV;
	uint8_t *initial;
	if (len > WRITABLE_MAX || s->n_writable == WRITABLE_FILES)
		return err_set(e, ENOSPC, "fw_cfg: writable file '%s': at most %d files of %d bytes", name,
			       WRITABLE_FILES, WRITABLE_MAX);
	int ret = copy_in(&initial, data, len, name, e);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(s->dev.lock);
	ret = file_insert(s, name, &f, e);
	if (ret < 0) {
		free(initial);
	} else {
		f->initial = initial;
		f->writable = s->n_writable++;
		struct fw_writable *w = &s->writable[f->writable];
		w->len = f->len = len;
		memcpy(w->data, data, len);
		f->data = w->data;
		f->written = written;
		f->opaque = opaque;
		directory_update(s);
	}
	pthread_mutex_unlock(s->dev.lock);
	return ret;
}

int fw_cfg_read_file(struct board *board, const char *name, void *buf, size_t len)
{
	struct fw_cfg *s = find(board, NULL);
	if (!s)
		return -ENOENT;
	pthread_mutex_lock(s->dev.lock);
	const struct fw_file *f = file_find(s, name);
	if (f)
		memcpy(buf, f->data, MIN(len, (size_t)f->len));
	int ret = f ? (int)MIN(f->len, (uint32_t)INT32_MAX) : -ENOENT;
	pthread_mutex_unlock(s->dev.lock);
	return ret;
}

int fw_cfg_update(struct board *board, const char *name, const void *data, size_t len, struct err *e)
{
	struct fw_cfg *s = find(board, e);
	uint8_t *copy;
	if (!s)
		return -ENODEV;
	int ret = copy_in(&copy, data, len, name, e);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(s->dev.lock);
	struct fw_file *f = file_find(s, name);
	if (!f || f->writable >= 0) {
		free(copy);
		ret = err_set(e, ENOENT, "fw_cfg: no file '%s' to replace", name);
	} else {
		free(f->data);
		f->data = copy;
		f->len = len;
		directory_update(s);
	}
	pthread_mutex_unlock(s->dev.lock);
	return ret;
}

int fw_cfg_update_item(struct board *board, uint16_t key, const void *data, size_t len, struct err *e)
{
	struct fw_cfg *s = find(board, e);
	char what[16];
	uint8_t *copy;
	snprintf(what, sizeof(what), "item 0x%x", key);
	int ret = s ? copy_in(&copy, data, len, what, e) : -ENODEV;
	if (ret < 0)
		return ret;
	ret = err_set(e, ENOENT, "fw_cfg: no %s to replace", what);
	pthread_mutex_lock(s->dev.lock);
	for (unsigned i = 0; i < s->n_items; i++)
		if (s->items[i].key == key) {
			free(s->items[i].data);
			s->items[i].data = copy;
			s->items[i].len = len;
			ret = 0;
		}
	pthread_mutex_unlock(s->dev.lock);
	if (ret < 0)
		free(copy);
	return ret;
}

/* ---- selector and data ports ---- */

static void select_item(struct fw_cfg *s, uint16_t key)
{
	s->key = key & ~KEY_WRITE_CHANNEL;
	s->offset = 0;
}

/* Beyond the end, and for a key nobody filled, an item reads as zeros. */
static void read_bytes(struct fw_cfg *s, uint8_t *buf, size_t len)
{
	struct view v = selected(s);
	size_t n = s->offset < v.len ? MIN(len, (size_t)v.len - s->offset) : 0;
	if (n)
		memcpy(buf, v.data + s->offset, n);
	memset(buf + n, 0, len - n);
	s->offset += n;
}

static uint64_t port_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	uint8_t value = 0;
	if (size == 1)
		read_bytes(DEVICE(dev, struct fw_cfg), &value, 1);
	return value;
}

static void port_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	if (offset == 0 && size == 2)
		select_item(DEVICE(dev, struct fw_cfg), value);
}

static uint32_t port_read_string(struct device *dev, struct region *r, uint64_t offset, void *buf, unsigned size,
				 uint32_t count)
{
	if (size != 1)
		return 0;
	read_bytes(DEVICE(dev, struct fw_cfg), buf, count);
	return count;
}

/* ---- DMA ---- */

struct dma_request {
	uint32_t control, length;
	uint64_t address;
};

static int dma_read_item(struct fw_cfg *s, const struct dma_request *q)
{
	struct view v = selected(s);
	uint32_t n = s->offset < v.len ? MIN(q->length, v.len - s->offset) : 0;
	if (n && dma_write(&s->dev, q->address, v.data + s->offset, n) < 0)
		return -EFAULT;
	s->offset += n;
	/* Zeros behind the end: guest RAM bounds the loop, the first address that is none ends it. */
	static const uint8_t zeros[4096];
	for (uint32_t done = n; done < q->length;) {
		uint32_t chunk = MIN(q->length - done, (uint32_t)sizeof(zeros));
		if (dma_write(&s->dev, q->address + done, zeros, chunk) < 0)
			return -EFAULT;
		done += chunk;
	}
	return 0;
}

static int dma_write_item(struct fw_cfg *s, const struct dma_request *q)
{
	struct view v = selected(s);
	uint8_t buf[WRITABLE_MAX];
	if (!v.file || v.file->writable < 0 || s->offset > v.len || q->length > v.len - s->offset)
		return -EACCES;
	if (dma_read(&s->dev, q->address, buf, q->length) < 0)
		return -EFAULT;
	memcpy(v.data + s->offset, buf, q->length);
	s->offset += q->length;
	if (v.file->written)
		v.file->written(v.file->opaque, v.data, v.len);
	return 0;
}

static int dma_execute(struct fw_cfg *s, const struct dma_request *q)
{
	if (q->control & DMA_CTL_SELECT)
		select_item(s, q->control >> 16);
	if (q->control & DMA_CTL_READ)
		return dma_read_item(s, q);
	if (q->control & DMA_CTL_WRITE)
		return dma_write_item(s, q);
	if (q->control & DMA_CTL_SKIP) {
		uint32_t len = selected(s).len;
		s->offset += s->offset < len ? MIN(q->length, len - s->offset) : 0;
	}
	return 0;
}

/* The guest waits for control to become 0 or to show the error bit. */
static void dma_start(struct fw_cfg *s)
{
	uint64_t at = s->dma_addr;
	uint8_t raw[16];
	s->dma_addr = 0;
	uint32_t result = DMA_CTL_ERROR;
	if (dma_read(&s->dev, at, raw, sizeof(raw)) == 0) {
		struct dma_request q = {get_be32(raw), get_be32(raw + 4), get_be64(raw + 8)};
		if (dma_execute(s, &q) == 0)
			result = 0;
	}
	uint8_t control[4];
	put_be32(control, result);
	if (dma_write(&s->dev, at, control, sizeof(control)) < 0 || result)
		log_guest(&s->dev.guest_log, "fw_cfg", "DMA request at 0x%llx failed", (unsigned long long)at);
}

static uint64_t dma_port_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	static const char signature[] = "QEMU CFG";

	return get_le(&signature[offset], size);
}

/* Big-endian: the high half goes to 0x514, the low half to 0x518, which starts the transfer. */
static void dma_port_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct fw_cfg *s = DEVICE(dev, struct fw_cfg);
	if (size != 4 || offset % 4)
		return;
	uint32_t half = be32toh((uint32_t)value);
	if (offset == 0) {
		s->dma_addr = (uint64_t)half << 32;
	} else {
		s->dma_addr |= half;
		dma_start(s);
	}
}

static const struct region_ops port_ops = {
	.read = port_read, .write = port_write, .read_string = port_read_string, .max_access = 2};
static const struct region_ops dma_ops = {.read = dma_port_read, .write = dma_port_write, .max_access = 4};

static const struct region_desc fw_cfg_regions[] = {
	{.name = "fwcfg", .space = SPACE_PIO, .base = 0x510, .size = 2, .bar = REGION_NOT_BAR, .ops = &port_ops},
	{.name = "fwcfg-dma", .space = SPACE_PIO, .base = 0x514, .size = 8, .bar = REGION_NOT_BAR, .ops = &dma_ops},
};

/* ---- life cycle ---- */

static int fw_cfg_create(struct device *dev, struct err *e)
{
	struct fw_cfg *s = DEVICE(dev, struct fw_cfg);
	uint8_t id[4];
	put_le32(id, ID_TRADITIONAL | ID_DMA);
	directory_update(s);
	item_put(s, KEY_SIGNATURE, "QEMU", 4, NULL);
	item_put(s, KEY_ID, id, sizeof(id), NULL);
	return 0;
}

static void fw_cfg_destroy(struct device *dev)
{
	struct fw_cfg *s = DEVICE(dev, struct fw_cfg);
	for (unsigned i = 0; i < s->n_items; i++)
		free(s->items[i].data);
	for (unsigned i = 0; i < s->n_files; i++)
		free(s->files[i].writable < 0 ? s->files[i].data : s->files[i].initial);
}

static void fw_cfg_reset(struct device *dev)
{
	struct fw_cfg *s = DEVICE(dev, struct fw_cfg);
	select_item(s, KEY_SIGNATURE);
	s->dma_addr = 0;
	for (unsigned i = 0; i < s->n_files; i++)
		if (s->files[i].writable >= 0)
			memcpy(s->files[i].data, s->files[i].initial, s->files[i].len);
}

static const struct state_field writable_fields[] = {
	STATE_VBUF(struct fw_writable, data, len),
	STATE_FIELDS_END,
};
static const struct state_table writable_state = {
	.name = "fw-cfg-writable", .version = 1, .oldest = 1, .fields = writable_fields};

/* Contents the guest cannot change come from this machine's own configuration; a file it can has its size fixed. */
static int fw_cfg_post_load(void *obj, uint16_t version, struct err *e)
{
	struct fw_cfg *s = obj;
	for (unsigned i = 0; i < s->n_files; i++) {
		struct fw_file *f = &s->files[i];
		if (f->writable >= 0 && s->writable[f->writable].len != f->len)
			return err_set(e, EINVAL, "fw_cfg: file '%s' has %u bytes here, %u in the saved state", f->name,
				       f->len, s->writable[f->writable].len);
	}
	return 0;
}

static const struct state_field fw_cfg_fields[] = {
	STATE_U(struct fw_cfg, key),
	STATE_U(struct fw_cfg, offset),
	STATE_U(struct fw_cfg, dma_addr),
	STATE_SUBA(struct fw_cfg, writable, &writable_state),
	STATE_FIELDS_END,
};
static const struct state_table fw_cfg_state = {
	.name = "fw_cfg", .version = 1, .oldest = 1, .fields = fw_cfg_fields, .post_load = fw_cfg_post_load};

static const struct prop fw_cfg_props[] = {PROP_END};

DEVICE_CLASS(fw_cfg_io) = {
	.name = "fw_cfg_io",
	.summary = "firmware configuration items, files and DMA",
	.bus = BUS_SYSTEM,
	.category = "Misc",
	.size = sizeof(struct fw_cfg),
	.props = fw_cfg_props,
	.regions = fw_cfg_regions,
	.n_regions = ARRAY_SIZE(fw_cfg_regions),
	.state = &fw_cfg_state,
	.create = fw_cfg_create,
	.destroy = fw_cfg_destroy,
	.reset = fw_cfg_reset,
};
