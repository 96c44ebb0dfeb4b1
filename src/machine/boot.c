/*
 * Direct kernel boot: files, layout in guest memory and the start state. There is no firmware: the boot CPU begins in
 * the kernel, at every reset again.
 *
 *   0x00400  the two BIOS data area words that say where conventional memory ends
 *   0x10000  boot structures (128 KiB; elsewhere if the kernel itself wants to be here)
 *   0xe0000  ACPI, SMBIOS (boot_tables.c)
 *   1 MiB    kernel; modules behind it (multiboot) or as high as possible (initrd)
 */
#include "boot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define AREA_SIZE 0x20000ull
#define LOW_END   0x9fc00ull /* the extended BIOS data area begins */
#define VGA_BASE  0xa0000ull

/* ---- images ---- */

int boot_add_segment(struct boot_image *im, const struct boot_segment *s, size_t file_len, uint64_t ram_low,
		     struct err *e)
{
	uint64_t limit = s->gpa < VGA_BASE ? MIN(ram_low, VGA_BASE) : ram_low;

	if (im->n_segments == BOOT_MAX_SEGMENTS)
		return err_set(e, EINVAL, "it has more than %u parts to load", BOOT_MAX_SEGMENTS);
	if (s->offset > file_len || s->file_len > file_len - s->offset)
		return err_set(e, EINVAL, "it is cut off: %llu bytes at offset %llu are not all there",
			       (unsigned long long)s->file_len, (unsigned long long)s->offset);
	if (s->file_len > s->mem_len)
		return err_set(e, EINVAL, "one of its parts is larger in the file than in memory");
	if ((s->gpa >= VGA_BASE && s->gpa < MIB) || s->gpa >= limit || s->mem_len > limit - s->gpa)
		return err_set(e, ENOMEM,
			       "it wants %llu KiB at guest address 0x%llx, where this guest with %llu MiB below the "
			       "PCI hole has no "
			       "RAM (more with -m)",
			       (unsigned long long)((s->mem_len + KIB - 1) / KIB), (unsigned long long)s->gpa,
			       (unsigned long long)(ram_low / MIB));
	if (!im->n_segments || s->gpa < im->start)
		im->start = s->gpa;
	im->end = MAX(im->end, s->gpa + s->mem_len);
	im->segment[im->n_segments++] = *s;
	return 0;
}

int boot_parse(const uint8_t *data, size_t len, uint64_t ram_low, struct boot_image *out, struct err *e)
{
	static int (*const parsers[])(const uint8_t *, size_t, uint64_t, struct boot_image *,
				      struct err *) = {boot_parse_bzimage, boot_parse_pvh, boot_parse_multiboot};

	for (size_t i = 0; i < ARRAY_SIZE(parsers); i++) {
		int r = parsers[i](data, len, ram_low, out, e);

		if (r != -ENOEXEC)
			return r;
	}
	return err_set(
		e, ENOEXEC,
		"this is no kernel vmm can boot: a Linux bzImage, an ELF file with a PVH entry note, or a multiboot 1 "
		"image is needed");
}

/* ---- files ---- */

/* Its content arrives with the memory. */
static int described_boot_file(struct boot *boot, struct boot_file *f, struct err *e)
{
	const struct described_file *d = boot->board->config->described->files;
	char name[32];

	while (d && strcmp(d->name, f->path))
		d = d->next;
	if (!d || !d->size || d->size > GIB)
		return err_set(e, EINVAL, "the machine's description lacks the boot file '%s'", f->path);
	f->size = d->size;
	snprintf(name, sizeof(name), "boot/%u", boot->n_copies++);
	f->copy = ram_block_create(boot->board, name, f->size, e);
	return f->copy ? 0 : -ENOMEM;
}

static int open_boot_file(struct boot *boot, const char *option, const char *path, struct boot_file *f, struct err *e)
{
	struct stat st;

	f->path = xstrdup(path);
	if (boot->board->config->described)
		return described_boot_file(boot, f, e);
	f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (f->fd < 0)
		return err_errno(e, errno, "%s %s: cannot open the file", option, path);
	if (fstat(f->fd, &st) < 0)
		return err_errno(e, errno, "%s %s", option, path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "%s %s: %s", option, path,
			       S_ISDIR(st.st_mode) ? "this is a directory" : "this is not a regular file");
	if (st.st_size == 0)
		return err_set(e, EINVAL, "%s %s: the file is empty", option, path);
	f->size = (uint64_t)st.st_size;
	return 0;
}

static int parse_kernel(struct boot *boot, struct err *e)
{
	struct boot_file *f = &boot->kernel;
	void *data;
	int r;

	if (f->copy) {
		r = boot_parse(f->copy->host, f->size, board_ram_below_4g(boot->board), &boot->image, e);
		boot->parsed = r == 0;
		return r < 0 ? err_prefix(e, "-kernel %s", f->path) : 0;
	}
	/* Mapped for the parsers only, which touch a few pages of it; loading reads the file. */
	data = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, f->fd, 0);
	if (data == MAP_FAILED)
		return err_errno(e, errno, "-kernel %s: cannot read the file", f->path);
	r = boot_parse(data, f->size, board_ram_below_4g(boot->board), &boot->image, e);
	munmap(data, f->size);
	boot->parsed = r == 0;
	return r < 0 ? err_prefix(e, "-kernel %s", f->path) : 0;
}

/* Multiboot: "file args,file2 args", with ",," for a comma in a name; other kernels take the one file as it is. */
static int open_modules(struct boot *boot, const char *text, struct err *e)
{
	const struct config_described *d = boot->board->config->described;
	bool many = (d ? d->boot_kind : (int)boot->image.kind) == BOOT_MULTIBOOT;
	int r = 0;

	while (r == 0 && text && *text) {
		char *item = xzalloc(strlen(text) + 1), *out = item, *path;
		struct boot_file *f;

		for (; *text && !(many && *text == ',' && text[1] != ','); text++) {
			text += many && *text == ',';
			*out++ = *text;
		}
		text += *text == ',';
		boot->module = xrealloc(boot->module, (boot->n_modules + 1) * sizeof(*boot->module));
		f = &boot->module[boot->n_modules++];
		*f = (struct boot_file){.text = item, .fd = -1};
		path = xstrndup(item, many ? strcspn(item, " ") : strlen(item));
		r = open_boot_file(boot, "-initrd", path, f, e);
		free(path);
	}
	return r;
}

int boot_direct_prepare(struct board *b, struct err *e)
{
	const struct config *c = b->config;
	struct boot *boot;
	int r;

	if (!c->kernel)
		return 0;
	if (c->bios)
		return err_set(e, EINVAL, "-kernel starts without firmware: leave out -bios, or boot a disk");
	boot = b->boot = xzalloc(sizeof(*boot));
	boot->board = b;
	boot->kernel.fd = -1;
	if (board_ram_below_4g(b) < 2 * MIB)
		return err_set(e, EINVAL, "-kernel needs at least 2 MiB of RAM: use -m");
	r = open_boot_file(boot, "-kernel", c->kernel, &boot->kernel, e);
	if (r == 0 && !c->described)
		r = parse_kernel(boot, e);
	if (r == 0)
		r = open_modules(boot, c->initrd, e);
	if (r == 0)
		boot_find_font(boot);
	if (r == 0 && c->machine.acpi != 0) {
		r = acpi_build(b, &boot->acpi, e);
		boot->has_acpi = r == 0;
	}
	if (r == 0)
		r = smbios_build(b, &boot->smbios, e);
	return r == 0 && c->incoming && !c->described ? boot_direct_keep(b, e) : r; /* the blocks the source has, too */
}

int boot_direct_refresh(struct board *b, struct err *e)
{
	struct boot *boot = b->boot;
	int r;

	if (!boot || !boot->has_acpi)
		return 0;
	acpi_blobs_free(&boot->acpi);
	r = acpi_build(b, &boot->acpi, e);
	boot->has_acpi = r == 0;
	return r;
}

static void free_file(struct boot_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f->text);
}

void boot_direct_free(struct board *b)
{
	struct boot *boot = b->boot;

	if (!boot)
		return;
	free_file(&boot->kernel);
	for (unsigned i = 0; i < boot->n_modules; i++)
		free_file(&boot->module[i]);
	free(boot->module);
	free(boot->font);
	if (boot->has_acpi)
		acpi_blobs_free(&boot->acpi);
	smbios_blobs_free(&boot->smbios);
	free(boot);
	b->boot = NULL;
}

/* ---- for another process ---- */

static int read_fully(const struct boot_file *f, void *to, uint64_t offset, uint64_t len, struct err *e);

static struct boot_file *file_at(struct boot *boot, unsigned i)
{
	if (!boot || i > boot->n_modules)
		return NULL;
	return i ? &boot->module[i - 1] : &boot->kernel;
}

int boot_direct_keep(struct board *b, struct err *e)
{
	struct boot_file *f;

	for (unsigned i = 0; (f = file_at(b->boot, i)); i++) {
		struct ram_block *rb;
		char name[32];
		int r;

		if (f->copy)
			continue;
		snprintf(name, sizeof(name), "boot/%u", b->boot->n_copies++);
		rb = ram_block_create(b, name, f->size, e);
		if (!rb)
			return -ENOMEM;
		r = read_fully(f, rb->host, 0, f->size, e);
		if (r < 0)
			return r;
		f->copy = rb;
	}
	return 0;
}

bool boot_direct_file(const struct board *b, unsigned i, const char **path, uint64_t *size)
{
	const struct boot_file *f = file_at(b->boot, i);

	if (f) {
		*path = f->path;
		*size = f->size;
	}
	return f != NULL;
}

int boot_direct_kind(const struct board *b)
{
	if (!b->boot)
		return -1;
	return b->boot->parsed || !b->config->described ? (int)b->boot->image.kind : b->config->described->boot_kind;
}

/* ---- guest memory ---- */

/* Host memory at gpa; *len shrinks to what is contiguous. */
static void *ram_at(struct boot *boot, uint64_t gpa, uint64_t *len, struct err *e)
{
	struct ram_block *rb;
	uint64_t avail, offset;
	void *host = map_ram_ptr(boot->board, gpa, true, &avail, &rb, &offset);

	if (!host) {
		err_set(e, EFAULT, "direct boot: guest address 0x%llx is not RAM", (unsigned long long)gpa);
		return NULL;
	}
	*len = MIN(*len, avail);
	ram_block_mark_dirty(rb, offset, *len);
	return host;
}

int boot_put(struct boot *boot, uint64_t gpa, const void *data, size_t len, struct err *e)
{
	const uint8_t *from = data;

	while (len) {
		uint64_t n = len;
		void *to = ram_at(boot, gpa, &n, e);

		if (!to)
			return -EFAULT;
		memcpy(to, from, n);
		gpa += n;
		from += n;
		len -= n;
	}
	return 0;
}

static int read_fully(const struct boot_file *f, void *to, uint64_t offset, uint64_t len, struct err *e)
{
	uint8_t *p = to;

	if (f->copy) {
		if (offset > f->size || len > f->size - offset)
			return err_set(e, EIO, "direct boot: %s ends early", f->path);
		memcpy(to, f->copy->host + offset, len);
		return 0;
	}
	while (len) {
		ssize_t n = pread(f->fd, p, MIN(len, (uint64_t)GIB), (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "direct boot: cannot read %s", f->path);
		if (n == 0)
			return err_set(e, EIO, "direct boot: %s has become shorter since it was opened", f->path);
		p += n;
		offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int boot_put_file(struct boot *boot, uint64_t gpa, const struct boot_file *f, uint64_t offset, uint64_t len,
		  struct err *e)
{
	while (len) {
		uint64_t n = len;
		void *to = ram_at(boot, gpa, &n, e);
		int r;

		if (!to)
			return -EFAULT;
		r = read_fully(f, to, offset, n, e);
		if (r < 0)
			return r;
		gpa += n;
		offset += n;
		len -= n;
	}
	return 0;
}

static int clear(struct boot *boot, uint64_t gpa, uint64_t len, struct err *e)
{
	while (len) {
		uint64_t n = len;
		void *to = ram_at(boot, gpa, &n, e);

		if (!to)
			return -EFAULT;
		memset(to, 0, n);
		gpa += n;
		len -= n;
	}
	return 0;
}

/* Low memory the kernel's own parts leave free. */
static int choose_area(struct boot *boot, struct err *e)
{
	const struct boot_image *im = &boot->image;

	for (uint64_t base = 0x10000; base + AREA_SIZE <= 0x90000; base += 0x10000) {
		bool is_free = true;

		for (unsigned i = 0; i < im->n_segments; i++)
			is_free &= base >= im->segment[i].gpa + im->segment[i].mem_len ||
				   base + AREA_SIZE <= im->segment[i].gpa;
		if (is_free) {
			boot->area_next = base;
			boot->area_end = base + AREA_SIZE;
			return boot->loaded ? clear(boot, base, AREA_SIZE, e) : 0;
		}
	}
	return err_set(e, ENOSPC, "-kernel %s: the image leaves no room for the boot structures below 576 KiB",
		       boot->kernel.path);
}

uint64_t boot_area(struct boot *boot, size_t len, size_t align, struct err *e)
{
	uint64_t at = ALIGN_UP(boot->area_next, (uint64_t)align);

	if (at > boot->area_end || len > boot->area_end - at) {
		err_set(e, ENOSPC,
			"the kernel's command line and module list do not fit into %llu KiB: shorten -append",
			AREA_SIZE / KIB);
		return 0;
	}
	boot->area_next = at + len;
	return at;
}

uint64_t boot_area_string(struct boot *boot, const char *text, struct err *e)
{
	uint64_t at = boot_area(boot, strlen(text) + 1, 16, e);

	return at && boot_put(boot, at, text, strlen(text) + 1, e) == 0 ? at : 0;
}

int boot_place_high(struct boot *boot, struct boot_file *f, uint64_t low, uint64_t high, struct err *e)
{
	uint64_t from = MAX(ALIGN_UP(low, 4096), MIB);

	if (high < from || f->size > ALIGN_DOWN(high, 4096) - MIN(from, ALIGN_DOWN(high, 4096)))
		return err_set(e, ENOMEM,
			       "-initrd %s: %llu KiB do not fit into the guest's RAM beside the kernel (more with -m)",
			       f->path, (unsigned long long)((f->size + KIB - 1) / KIB));
	f->gpa = ALIGN_DOWN(ALIGN_DOWN(high, 4096) - f->size, 4096);
	return boot_put_file(boot, f->gpa, f, 0, f->size, e);
}

int boot_put_gdt(struct boot *boot, bool long64, struct kvm_boot_state *s, struct err *e)
{
	const uint64_t gdt[4] = {0, 0, htole64(long64 ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull),
				 htole64(0x00cf93000000ffffull)};
	uint64_t at = boot_area(boot, sizeof(gdt), 8, e), stack = boot_area(boot, 4096, 16, e);

	if (!at || !stack)
		return -ENOSPC;
	s->gdt_base = at;
	s->gdt_limit = sizeof(gdt) - 1;
	s->cs = 0x10;
	s->ds = 0x18;
	s->rsp = stack + 4096;
	return boot_put(boot, at, gdt, sizeof(gdt), e);
}

/* ---- at every reset ---- */

static int load_segments(struct boot *boot, struct err *e)
{
	for (unsigned i = 0; i < boot->image.n_segments; i++) {
		const struct boot_segment *s = &boot->image.segment[i];
		int r = boot_put_file(boot, s->gpa, &boot->kernel, s->offset, s->file_len, e);

		/* RAM is zero when the guest is new; Linux clears what it needs itself. */
		if (r == 0 && boot->loaded && boot->image.kind != BOOT_LINUX)
			r = clear(boot, s->gpa + s->file_len, s->mem_len - s->file_len, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* 40Eh: segment of the extended BIOS data area, whose first byte is its size in KiB; 413h: KiB below it. */
static int put_bios_data(struct boot *boot, struct err *e)
{
	const uint8_t ebda[2] = {LOW_END >> 4 & 0xff, LOW_END >> 12}, memory[2] = {639 & 0xff, 639 >> 8}, size = 1;
	int r = boot_put(boot, 0x40e, ebda, 2, e);

	if (r == 0)
		r = boot_put(boot, 0x413, memory, 2, e);
	return r == 0 ? boot_put(boot, LOW_END, &size, 1, e) : r;
}

static bool has_long_mode(struct board *b)
{
	char *features, *save = NULL;
	bool found = false;

	if (!b->kvm)
		return true;
	features = kvm_cpu_features(b->kvm);
	for (char *w = strtok_r(features, " ", &save); w; w = strtok_r(NULL, " ", &save))
		found |= strcmp(w, "lm") == 0;
	free(features);
	return found;
}

static int load(struct boot *boot, struct kvm_boot_state *s, struct err *e)
{
	int r = boot_load_tables(boot, e);

	if (r < 0)
		return r;
	if (boot->image.end > boot->tables_base)
		return err_set(e, ENOMEM,
			       "-kernel %s: the kernel leaves no room for the ACPI tables: use more RAM (-m)",
			       boot->kernel.path);
	boot->n_map = e820_build_booted(boot->board, boot->tables_base, boot->map, ARRAY_SIZE(boot->map));
	r = load_segments(boot, e);
	if (r == 0)
		r = choose_area(boot, e);
	if (r == 0)
		r = put_bios_data(boot, e);
	if (r == 0)
		r = boot_set_up_screen(boot, e);
	if (r < 0)
		return r;
	switch (boot->image.kind) {
	case BOOT_LINUX:
		return boot_load_bzimage(boot, s, e);
	case BOOT_PVH:
		return boot_load_pvh(boot, s, e);
	default:
		return boot_load_multiboot(boot, s, e);
	}
}

int boot_direct_load(struct board *b, struct err *e)
{
	struct boot *boot = b->boot;
	struct kvm_boot_state s;
	int r;

	if (!boot || (b->config->incoming && !b->started)) /* what arrives is past this */
		return 0;
	if (!boot->parsed && (r = parse_kernel(boot, e)) < 0)
		return r;
	boot->long_mode = has_long_mode(b);
	r = load(boot, &s, e);
	boot->loaded = true;
	if (r < 0)
		return r;
	if (b->kvm && (r = kvm_vcpu_set_boot_state(kvm_vcpu_get(b->kvm, 0), &s)) < 0)
		return err_errno(e, -r, "direct boot: KVM refuses the kernel's start state");
	return 0;
}
