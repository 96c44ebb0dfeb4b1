/* Shared by the writers of dumps: dump.c (ELF) and kdump.c. */
#ifndef VMM_CONTROL_DUMP_PRIVATE_H
#define VMM_CONTROL_DUMP_PRIVATE_H

#include "dump.h"
#include "vmm/bytes.h"

#define DUMP_PAGE 4096u

/* A buffer that grows; words are as wide as the ELF class says. */
struct dump_out {
	uint8_t *v; /* the owner's to free */
	size_t n, cap;
	bool wide; /* ELFCLASS64 */
};

/* size bytes, little endian; beyond 8 they are 0. */
void dump_put(struct dump_out *o, uint64_t value, size_t size);
void dump_put_word(struct dump_out *o, uint64_t value);
void dump_put_notes(struct dump_out *o, const struct dump *d);

bool dump_long_mode(const struct dump *d);
bool dump_is_wide(const struct dump *d); /* the 64-bit forms: a 64-bit guest, or memory that needs them */
bool dump_is_zero(const uint8_t *p, size_t len);
/* What of the RAM is written; returns how many. */
unsigned dump_choose_parts(const struct dump *d, struct dump_block part[DUMP_MAX_BLOCKS]);

#endif
