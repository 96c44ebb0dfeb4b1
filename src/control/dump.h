/*
 * A guest's memory and registers as an ELF core file that gdb and crash read: System V ABI, chapters 4 and 5; notes as
 * Linux (NT_PRSTATUS) and QEMU (control registers and segments, name "QEMU") write them. No machine is needed here:
 * what to write is given, so it can run on any thread and be tested alone.
 */
#ifndef VMM_CONTROL_DUMP_H
#define VMM_CONTROL_DUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "vmm/cpu_regs.h"
#include "vmm/err.h"

struct work;

struct dump_block { /* guest physical memory */
	uint64_t gpa, size;
	const uint8_t *host;
	uint64_t file_offset; /* private */
};
#define DUMP_MAX_BLOCKS 4

struct dump_map { /* linear memory */
	uint64_t linear, physical, size;
};
struct dump_maps {
	struct dump_map *v;
	size_t n, cap;
};

struct dump {
	struct dump_block ram[DUMP_MAX_BLOCKS]; /* all of it: page tables are read from there; ascending */
	unsigned n_ram;
	uint64_t begin, length; /* which part to write; length 0: all */
	bool paging;            /* program headers for linear addresses, through the guest's page tables */
	const struct cpu_regs *cpus;
	unsigned n_cpus;
	const uint8_t *guest_note; /* the guest kernel's own (VMCOREINFO), as dump_note_size() accepts it; or NULL */
	size_t guest_note_size;
	/* dump_walk() gives up beyond so many page tables and ranges; 0: far more than a kernel has. */
	unsigned max_tables, max_maps;
	uint64_t total, done; /* bytes of memory; done: atomic, for progress */
};

/* Write it to fd from its position on; pages of zeroes become holes where `sparse`. 0, -ECANCELED or -errno with e. */
int dump_write(struct dump *d, struct work *w, int fd, bool sparse, struct err *e);
void dump_measure(struct dump *d); /* sets total */
/* Bytes, with padding, of the ELF note at the beginning of `note`; 0: there is none that fits into `len` bytes. */
size_t dump_note_size(const uint8_t *note, size_t len);

/* dump_walk.c: every range of linear memory that r's page tables map to memory in d->ram, ascending and merged. Page
   tables are the guest's: -E2BIG when they are absurdly large or go in circles. */
int dump_walk(const struct dump *d, const struct cpu_regs *r, struct dump_maps *out, struct err *e);
void dump_maps_tidy(struct dump_maps *maps); /* sort and merge what several walks found */
/* Read guest physical memory; returns how many bytes lie in RAM before the first that does not. */
size_t dump_read(const struct dump *d, uint64_t gpa, void *buf, size_t len);

#endif
