/*
 * Direct kernel boot: -kernel without firmware. Private to the machine room.
 *
 *   boot_bzimage.c boot_elf.c boot_pvh.c boot_multiboot.c   one image format each: parse, and place what it wants to
 * find boot_tables.c                                           ACPI and SMBIOS into guest RAM, as firmware would boot.c
 * files, layout, start state
 *
 * Parsers read hostile files: they look only at (data, len), and every address and size they return is inside the
 * file and inside guest RAM. They are what the fuzzers call.
 */
#ifndef VMM_MACHINE_BOOT_H
#define VMM_MACHINE_BOOT_H

#include "acpi.h"
#include "board.h"
#include "e820.h"
#include "smbios.h"

/* ---- for the rest of the machine ---- */

/* Read and check the kernel and initrd while the file system is still open. 0 when there is no -kernel. */
int boot_direct_prepare(struct board *b, struct err *e);
/* At a reset after devices or vCPUs came or went: the ACPI tables anew. */
int boot_direct_refresh(struct board *b, struct err *e);
/* At every reset, after the devices have settled and the vCPUs were reset: put the images, the boot structures and the
   ACPI tables into guest RAM and give the boot CPU its start state. 0 when there is no -kernel. */
int boot_direct_load(struct board *b, struct err *e);
void boot_direct_free(struct board *b);
/* Copy kernel and initrd into memory blocks, so that another process needs no files. Once; cheap without -kernel. */
int boot_direct_keep(struct board *b, struct err *e);
/* File i, the kernel first: its path and size; false past the last. Kind of kernel, or -1. */
bool boot_direct_file(const struct board *b, unsigned i, const char **path, uint64_t *size);
int boot_direct_kind(const struct board *b);

/* ---- images ---- */

enum boot_kind { BOOT_LINUX, BOOT_PVH, BOOT_MULTIBOOT };

#define BOOT_MAX_SEGMENTS 32
struct boot_segment {
	uint64_t gpa, mem_len;     /* guest memory */
	uint64_t offset, file_len; /* part of the file; zeros follow up to mem_len */
};

/* Linux's setup header, Documentation/arch/x86/boot.rst: bytes 0x1f1..0x28f of the image and of the zero page. */
#define BOOT_SETUP_AT  0x1f1
#define BOOT_SETUP_END 0x290

struct boot_image {
	enum boot_kind kind;
	unsigned n_segments;
	struct boot_segment segment[BOOT_MAX_SEGMENTS];
	uint64_t start, end; /* of all segments in guest memory, with what a kernel needs beyond them */
	uint64_t entry;
	struct {
		uint8_t header[BOOT_SETUP_END - BOOT_SETUP_AT];
		uint16_t version;
		bool entry64; /* has a 64-bit entry point at start + 0x200 */
		uint64_t initrd_max;
		uint32_t cmdline_max; /* without the final zero */
	} bzimage;
	struct {
		uint32_t flags;
		bool wants_graphics;
	} multiboot;
};

/*
 * Parse data as one format. ram_low: bytes of RAM from address 0. 0; -ENOEXEC without a message if it is not of this
 * format; another -errno with a message (without the file's name) if it is, but damaged or unusable.
 */
int boot_parse_bzimage(const uint8_t *data, size_t len, uint64_t ram_low, struct boot_image *out, struct err *e);
int boot_parse_pvh(const uint8_t *data, size_t len, uint64_t ram_low, struct boot_image *out, struct err *e);
int boot_parse_multiboot(const uint8_t *data, size_t len, uint64_t ram_low, struct boot_image *out, struct err *e);
/* Any of them; -ENOEXEC with a message if it is none. */
int boot_parse(const uint8_t *data, size_t len, uint64_t ram_low, struct boot_image *out, struct err *e);
/* Segments and entry point of an ELF file for x86, 32- or 64-bit (boot_elf.c). -ENOEXEC without message: no ELF file.
 */
int boot_parse_elf(const uint8_t *data, size_t len, uint64_t ram_low, struct boot_image *out, struct err *e);
/* The 4- or 8-byte value of a note in a PT_NOTE segment of a valid ELF file; false if there is none. */
bool boot_elf_note(const uint8_t *data, size_t len, const char *name, uint32_t type, uint64_t *value);
/* Append a segment after checking it against RAM and the file; for the parsers. */
int boot_add_segment(struct boot_image *im, const struct boot_segment *s, size_t file_len, uint64_t ram_low,
		     struct err *e);

/* ---- loading ---- */

/* A file that becomes part of guest RAM at every reset. */
struct boot_file {
	char *path;
	char *text; /* multiboot: the module's string */
	int fd;
	struct ram_block *copy; /* the content as guest memory, which migrates; a described machine has only this */
	uint64_t size;
	uint64_t gpa; /* where it was put */
};

struct boot {
	struct boot_file kernel, *module;
	unsigned n_modules, n_copies;
	struct boot_image image;
	struct acpi_blobs acpi;
	struct smbios_blobs smbios;
	bool has_acpi, has_vga, long_mode, loaded, parsed;
	uint8_t *font; /* 256 characters of 16 bytes, or NULL */
	/* while loading */
	struct board *board;
	uint64_t area_next, area_end; /* what is left of the low memory for boot structures */
	uint64_t tables_base;         /* tables that did not fit below 1 MiB begin here; else the end of low RAM */
	uint64_t rsdp;                /* 0: no ACPI */
	struct e820_entry map[16];
	size_t n_map;
};

/* Copy to guest RAM. The range was checked; a range that is not RAM is an error. */
int boot_put(struct boot *boot, uint64_t gpa, const void *data, size_t len, struct err *e);
/* The same, from a file; zeros if fd is -1. */
int boot_put_file(struct boot *boot, uint64_t gpa, const struct boot_file *f, uint64_t offset, uint64_t len,
		  struct err *e);
/* Room for a boot structure in low memory, zero-filled; 0 with a message when it is used up. */
uint64_t boot_area(struct boot *boot, size_t len, size_t align, struct err *e);
/* A string into the area; 0 on failure. */
uint64_t boot_area_string(struct boot *boot, const char *text, struct err *e);
/* Put the initrd as high as possible in [low, high). */
int boot_place_high(struct boot *boot, struct boot_file *f, uint64_t low, uint64_t high, struct err *e);
/* The GDT every start state uses: selector 0x10 is code (64-bit or 32-bit), 0x18 data. */
int boot_put_gdt(struct boot *boot, bool long64, struct kvm_boot_state *s, struct err *e);

/* Per format: place the rest and fill the start state. */
int boot_load_bzimage(struct boot *boot, struct kvm_boot_state *s, struct err *e);
int boot_load_pvh(struct boot *boot, struct kvm_boot_state *s, struct err *e);
int boot_load_multiboot(struct boot *boot, struct kvm_boot_state *s, struct err *e);

/* boot_vga.c: look for a VGA and a font while files can be opened; text mode; Linux's screen_info. */
void boot_find_font(struct boot *boot);
int boot_set_up_screen(struct boot *boot, struct err *e);
void boot_describe_screen(const struct boot *boot, uint8_t *zero_page);

/* Run the ACPI loader script against guest RAM and put SMBIOS beside it: sets tables_base and rsdp. */
int boot_load_tables(struct boot *boot, struct err *e);

#endif
