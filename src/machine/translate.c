/*
 * Walking the guest's page tables for debuggers and dumps: no paging, 32-bit with 4 MiB pages and PSE-36, PAE, 4 and 5
 * levels. Intel SDM 3A, 4.3 to 4.5. Not looked at: access rights, reserved bits, protection keys. PAE's pointer table
 * is read from memory, where a CPU uses what it loaded with CR3.
 */
#include "vmm/bytes.h"
#include "vmm/debug.h"

#define PRESENT 1u
#define LARGE   0x80u
#define ADDRESS 0x000ffffffffff000ull /* bits 51..12 */

struct walk {
	cpu_read_fn *read;
	void *opaque;
};

static bool entry(const struct walk *w, uint64_t addr, unsigned size, uint64_t *value)
{
	uint8_t raw[8];

	if (w->read(w->opaque, addr, raw, size) != size)
		return false;
	*value = get_le(raw, size);
	return *value & PRESENT;
}

/* Tables of 512 8-byte entries; level 1 is the last. */
static bool walk_wide(const struct walk *w, uint64_t table, unsigned levels, uint64_t linear, uint64_t *physical)
{
	uint64_t e;

	for (unsigned level = levels;; level--) {
		unsigned shift = 12 + 9 * (level - 1);
		uint64_t page = 1ull << shift;

		if (!entry(w, table + (linear >> shift & 0x1ff) * 8, 8, &e))
			return false;
		if (level == 1 || ((level == 2 || level == 3) && e & LARGE)) {
			*physical = (e & ADDRESS & ~(page - 1)) | (linear & (page - 1));
			return true;
		}
		table = e & ADDRESS;
	}
}

static bool walk_pae(const struct walk *w, const struct cpu_regs *r, uint64_t linear, uint64_t *physical)
{
	uint64_t pdpte;

	if (!entry(w, (r->cr3 & 0xffffffe0) + (linear >> 30 & 3) * 8, 8, &pdpte))
		return false;
	return walk_wide(w, pdpte & ADDRESS, 2, linear, physical);
}

static bool walk_32(const struct walk *w, const struct cpu_regs *r, uint64_t linear, uint64_t *physical)
{
	uint64_t pde, pte;

	if (!entry(w, (r->cr3 & 0xfffff000) + (linear >> 22 & 0x3ff) * 4, 4, &pde))
		return false;
	if (pde & LARGE && r->cr4 & CPU_CR4_PSE) {
		/* PSE-36: bits 20..13 are address bits 39..32 */
		*physical = (pde & 0xffc00000) | (pde >> 13 & 0xff) << 32 | (linear & 0x3fffff);
		return true;
	}
	if (!entry(w, (pde & 0xfffff000) + (linear >> 12 & 0x3ff) * 4, 4, &pte))
		return false;
	*physical = (pte & 0xfffff000) | (linear & 0xfff);
	return true;
}

bool cpu_translate(const struct cpu_regs *r, uint64_t linear, uint64_t *physical, cpu_read_fn *read, void *opaque)
{
	struct walk w = {read, opaque};

	if (cpu_in_long_mode(r)) {
		unsigned levels = r->cr4 & CPU_CR4_LA57 ? 5 : 4, bits = 12 + 9 * levels;
		int64_t high = (int64_t)linear >> (bits - 1);

		return (high == 0 || high == -1) && walk_wide(&w, r->cr3 & ADDRESS, levels, linear, physical);
	}
	linear &= 0xffffffff;
	if (!(r->cr0 & CPU_CR0_PG)) {
		*physical = linear;
		return true;
	}
	return r->cr4 & CPU_CR4_PAE ? walk_pae(&w, r, linear, physical) : walk_32(&w, r, linear, physical);
}
