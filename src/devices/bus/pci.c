/*
 * PCI bus 0: slots and the configuration space of each function. What a guest sees in the 256 bytes is kept here; what
 * is behind the BARs belongs to the device.
 *
 * Source: PCI Local Bus Specification 3.0, chapter 6 (header, BARs, capabilities, MSI 6.8.1, MSI-X 6.8.2); the INTx to
 * PIRQ wiring is that of the i440FX board every BIOS expects: (pin - 1 + device - 1) & 3.
 * Left out: bridges (header type 1), power management and VPD capabilities (a device that wants one adds it), 32-bit
 * configuration beyond 256 bytes (PCI Express), BARs below 16 bytes of memory or 4 of I/O, MSI with several messages.
 */
#include "pci_bus.h"
#include "vmm/hotplug.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	CFG_VENDOR = 0x00,
	CFG_DEVICE = 0x02,
	CFG_COMMAND = 0x04,
	CFG_STATUS = 0x06,
	CFG_REVISION = 0x08,
	CFG_CLASS = 0x09,
	CFG_CACHE_LINE = 0x0c,
	CFG_LATENCY = 0x0d,
	CFG_HEADER_TYPE = 0x0e,
	CFG_BAR0 = 0x10,
	CFG_SUBSYSTEM_VENDOR = 0x2c,
	CFG_SUBSYSTEM = 0x2e,
	CFG_ROM = 0x30,
	CFG_CAPABILITIES = 0x34,
	CFG_FIRST_FREE = 0x40,
};

#define CMD_SERR             0x0100
#define STATUS_INTERRUPT     0x08
#define STATUS_CAP_LIST      0x10
#define HEADER_MULTIFUNCTION 0x80
#define ROM_ENABLE           1u

#define CAP_MSI          0x05
#define CAP_MSIX         0x11
#define MSI_ENABLE       0x0001
#define MSI_64BIT        0x0080
#define MSIX_ENABLE      0x8000
#define MSIX_FUNC_MASK   0x4000
#define MSIX_ENTRY       16
#define MSIX_MAX         255
#define MSIX_VECTOR_MASK 1u

#define BAR_UNMAPPED UINT64_MAX
#define ROM_BAR      6
#define BARS         7

struct pci_bar {
	uint64_t size;   /* 0: no BAR here */
	uint64_t mapped; /* where the regions are now, or BAR_UNMAPPED */
};

/* The bus's view of a function. `f` first: the state table addresses both through one pointer. */
struct pci_slot {
	struct pci_function f;
	struct device *bus;
	uint8_t power_on[256];
	struct pci_bar bar[BARS];
	uint8_t msi_cap, msix_cap; /* offsets, 0: none */
	uint16_t next_cap;         /* where the next capability may start */
	bool intx_wired;           /* dev->irq[0] is the INTx pin */
	bool master;               /* copy of the command bit, read without the lock by dma_*() */
	bool intx_level;           /* what the device drives, before the disable bit */
	uint32_t msix_table_len;
	uint8_t msix_table[MSIX_MAX * MSIX_ENTRY];
	uint8_t msix_pending[(MSIX_MAX + 63) / 64 * 8];
	struct region msix_region[2]; /* table, pending bits */
	struct region rom_region;
	struct ram_block *rom;
};

static struct pci_slot *slot_of(const struct device *dev)
{
	return container_of(dev->pci, struct pci_slot, f);
}

static uint64_t pow2_ceil(uint64_t v)
{
	return v <= 1 ? 1 : 1ull << (64 - __builtin_clzll(v - 1));
}

/* ---- BARs ---- */

static bool bar_is_io(const struct device *dev, unsigned n)
{
	return n != ROM_BAR && dev->class->pci->bar[n].kind == PCI_BAR_IO;
}

static bool bar_is_64(const struct device *dev, unsigned n)
{
	return n != ROM_BAR && dev->class->pci->bar[n].kind == PCI_BAR_MEM64_PREFETCH;
}

static unsigned bar_offset(unsigned n)
{
	return n == ROM_BAR ? CFG_ROM : CFG_BAR0 + 4 * n;
}

/* Memory decodes in PCI space only: what overlaps guest RAM stays invisible, as behind the real host bridge. */
static bool overlaps_ram(const struct device *dev, uint64_t addr, uint64_t size)
{
	uint64_t high = board_ram_above_4g(dev->board);
	return addr < board_ram_below_4g(dev->board) || (addr < 4 * GIB + high && addr + size > 4 * GIB);
}

/*
 * Where BAR n decodes now. Not at 0 (unprogrammed) and not at the very top of its space: that is what a BAR reads while
 * its size is being probed.
 */
static uint64_t bar_address(const struct pci_slot *s, unsigned n)
{
	const struct device *dev = s->f.dev;
	const uint8_t *cfg = s->f.config;
	uint16_t command = get_le16(cfg + CFG_COMMAND);
	uint64_t size = s->bar[n].size;
	uint64_t addr = get_le32(cfg + bar_offset(n));
	if (!(command & (bar_is_io(dev, n) ? PCI_CMD_IO : PCI_CMD_MEM)))
		return BAR_UNMAPPED;
	if (n == ROM_BAR && !(addr & ROM_ENABLE))
		return BAR_UNMAPPED;
	if (bar_is_64(dev, n))
		addr |= (uint64_t)get_le32(cfg + bar_offset(n) + 4) << 32;
	addr &= ~(size - 1);
	if (addr == 0)
		return BAR_UNMAPPED;
	if (bar_is_io(dev, n))
		return addr + size <= 0x10000 ? addr : BAR_UNMAPPED;
	if (addr + size - 1 < addr || addr + size == 4 * GIB || addr + size == 0 || overlaps_ram(dev, addr, size))
		return BAR_UNMAPPED;
	return addr;
}

static void region_place(struct region *r, uint64_t bar_addr)
{
	if (bar_addr != BAR_UNMAPPED)
		region_move(r, bar_addr + r->desc->base);
	region_enable(r, bar_addr != BAR_UNMAPPED);
}

static void bar_map(struct pci_slot *s, unsigned n, uint64_t addr)
{
	struct device *dev = s->f.dev;
	s->bar[n].mapped = addr;
	if (n == ROM_BAR) {
		region_place(&s->rom_region, addr);
		return;
	}
	for (unsigned i = 0; i < dev->class->n_regions; i++)
		if (dev->class->regions[i].bar == (int)n)
			region_place(&dev->regions[i], addr);
	if (s->msix_cap && dev->class->pci->msix_bar == n) {
		for (unsigned i = 0; i < 2; i++) {
			struct region *r = &s->msix_region[i];
			unsigned field = s->msix_cap + 4 + 4 * i;
			if (addr != BAR_UNMAPPED)
				region_move(r, addr + (get_le32(s->f.config + field) & ~7u));
			region_enable(r, addr != BAR_UNMAPPED);
		}
	}
}

static void bars_update(struct pci_slot *s)
{
	struct device *dev = s->f.dev;
	bool batch = false;
	for (unsigned n = 0; n < BARS; n++) {
		if (!s->bar[n].size)
			continue;
		uint64_t addr = bar_address(s, n);
		if (addr == s->bar[n].mapped)
			continue;
		if (!batch)
			region_batch_begin(dev);
		batch = true;
		bar_map(s, n, addr);
	}
	if (batch)
		region_batch_end(dev);
}

static void bars_unmap(struct pci_slot *s)
{
	region_batch_begin(s->f.dev);
	for (unsigned n = 0; n < BARS; n++)
		if (s->bar[n].size && s->bar[n].mapped != BAR_UNMAPPED)
			bar_map(s, n, BAR_UNMAPPED);
	region_batch_end(s->f.dev);
}

/* Bytes that the regions of BAR n span. */
static uint64_t bar_span(const struct device *dev, unsigned n)
{
	uint64_t span = 0;
	for (unsigned i = 0; i < dev->class->n_regions; i++)
		if (dev->class->regions[i].bar == (int)n)
			span = MAX(span, dev->class->regions[i].base + dev->regions[i].size);
	return span;
}

/* Put the MSI-X structures behind the device's own registers in their BAR; returns the new span. */
static uint64_t msix_place(struct pci_slot *s, uint64_t span)
{
	const struct pci_identity *id = s->f.dev->class->pci;
	uint8_t *cap = s->f.config + s->msix_cap;
	uint64_t table = ALIGN_UP(span, 0x1000), pba = table + ALIGN_UP(s->f.msix_vectors * MSIX_ENTRY, 0x800u);
	put_le16(cap + 2, s->f.msix_vectors - 1);
	put_le16(s->f.wmask + s->msix_cap + 2, MSIX_ENABLE | MSIX_FUNC_MASK);
	put_le32(cap + 4, table | id->msix_bar);
	put_le32(cap + 8, pba | id->msix_bar);
	s->msix_region[0].size = s->msix_table_len = s->f.msix_vectors * MSIX_ENTRY;
	s->msix_region[1].size = (s->f.msix_vectors + 63) / 64 * 8;
	return MAX(pba + s->msix_region[1].size, 0x1000ull);
}

static int bar_realize(struct pci_slot *s, unsigned n, struct err *e)
{
	struct device *dev = s->f.dev;
	enum pci_bar_kind kind = dev->class->pci->bar[n].kind;
	uint64_t span = bar_span(dev, n);
	if (!kind || s->f.absent_bars & BIT(n))
		return 0;
	if (s->msix_cap && dev->class->pci->msix_bar == n)
		span = msix_place(s, span);
	uint64_t size = pow2_ceil(MAX(span, kind == PCI_BAR_IO ? 4ull : 16ull));
	uint64_t limit = kind == PCI_BAR_IO ? 256 : kind == PCI_BAR_MEM64_PREFETCH ? TIB : 2 * GIB;
	if (!span || size > limit)
		return err_set(e, EINVAL, "device '%s': BAR %u would have %llu bytes, allowed are 1 to %llu", dev->id,
			       n, (unsigned long long)span, (unsigned long long)limit);
	static const uint8_t type_bits[] = {
		[PCI_BAR_IO] = 1, [PCI_BAR_MEM32] = 0, [PCI_BAR_MEM32_PREFETCH] = 8, [PCI_BAR_MEM64_PREFETCH] = 0xc};
	unsigned off = bar_offset(n);
	put_le32(s->f.config + off, type_bits[kind]);
	put_le32(s->f.wmask + off, ~(size - 1));
	if (bar_is_64(dev, n))
		put_le32(s->f.wmask + off + 4, ~(size - 1) >> 32);
	s->bar[n].size = size;
	return 0;
}

/* ---- expansion ROM ---- */

static const struct region_desc rom_desc = {
	.name = "rom", .space = SPACE_MMIO, .kind = REGION_ROM, .bar = ROM_BAR, .disabled = true};

static const char *rom_file(const struct device *dev)
{
	const struct prop *p = dev->class->props ? prop_find(dev->class->props, "romfile") : NULL;
	if (!p || p->type != PROP_STR)
		return NULL;
	const char *name = *(char *const *)((const char *)dev + p->offset);
	return name && *name ? name : NULL;
}

/*
 * Firmware runs an image only on the function whose IDs it names (6.3.1.2). Debian's iPXE for virtio names the modern
 * one's, and serves transitional functions as well: an image of the function's vendor is made to name this function.
 * Byte 6 takes up the difference, so that the image still sums to zero.
 */
static void rom_name_function(const struct pci_function *f, uint8_t *rom, size_t len)
{
	size_t at = len > 0x1a ? get_le16(rom + 0x18) : len;
	uint8_t *pcir = rom + at;
	int change;

	if (at + 0x18 > len || get_le16(rom) != 0xaa55 || memcmp(pcir, "PCIR", 4) || pcir[0x14] != 0)
		return;
	if (get_le16(pcir + 4) != get_le16(f->config + PCI_VENDOR) ||
	    get_le16(pcir + 6) == get_le16(f->config + PCI_VENDOR + 2))
		return;
	change = pcir[6] + pcir[7] - f->config[PCI_VENDOR + 2] - f->config[PCI_VENDOR + 3];
	memcpy(pcir + 6, f->config + PCI_VENDOR + 2, 2);
	rom[6] = (uint8_t)(rom[6] + change);
}

static int rom_realize(struct pci_slot *s, struct err *e)
{
	struct device *dev = s->f.dev;
	const char *name = dev->class->pci->rom_bar ? rom_file(dev) : NULL;
	void *data;
	size_t len;
	if (!name)
		return 0;
	int ret = board_load_firmware(dev->board, name, 16 * MIB, &data, &len, e);
	if (ret < 0)
		return err_prefix(e, "device '%s': romfile", dev->id);
	uint64_t size = pow2_ceil(MAX((uint64_t)len, 0x1000ull));
	char *block = xasprintf("%s.rom", dev->id);
	s->rom = ram_block_new(dev, block, size, e);
	free(block);
	if (!s->rom) {
		free(data);
		return -ENOMEM;
	}
	rom_name_function(&s->f, data, len);
	memcpy(ram_block_ptr(s->rom), data, len);
	free(data);
	s->rom_region = (struct region){.desc = &rom_desc, .dev = dev, .size = size, .ram = s->rom, .kind = REGION_ROM};
	s->bar[ROM_BAR] = (struct pci_bar){.size = size, .mapped = BAR_UNMAPPED};
	put_le32(s->f.wmask + CFG_ROM, (~(size - 1) & 0xfffff800u) | ROM_ENABLE);
	return 0;
}

/* ---- capabilities ---- */

static bool bytes_free(const struct pci_function *f, unsigned off, unsigned len)
{
	for (unsigned i = off; i < off + len; i++)
		if (f->config[i] || f->wmask[i] || f->w1cmask[i])
			return false;
	return true;
}

int pci_add_capability(struct device *dev, uint8_t id, uint8_t len)
{
	struct pci_slot *s = slot_of(dev);
	struct pci_function *f = &s->f;
	unsigned off = s->next_cap, link = CFG_CAPABILITIES;
	while (off + len <= 256 && !bytes_free(f, off, len))
		off += 4;
	if (off + len > 256)
		return -ENOSPC;
	for (unsigned p = f->config[link]; p; p = f->config[link])
		link = p + 1;
	f->config[link] = off;
	f->config[off] = id;
	f->config[CFG_STATUS] |= STATUS_CAP_LIST;
	s->next_cap = ALIGN_UP(off + len, 4u);
	return off;
}

/* ---- MSI ---- */

static int msi_add(struct pci_slot *s)
{
	int off = pci_add_capability(s->f.dev, CAP_MSI, 14);
	if (off < 0)
		return off;
	s->msi_cap = off;
	put_le16(s->f.config + off + 2, MSI_64BIT);
	put_le16(s->f.wmask + off + 2, MSI_ENABLE);
	put_le32(s->f.wmask + off + 4, 0xfffffffcu);
	put_le32(s->f.wmask + off + 8, 0xffffffffu);
	put_le16(s->f.wmask + off + 12, 0xffff);
	return 0;
}

bool pci_msi_enabled(const struct device *dev)
{
	const struct pci_slot *s = slot_of(dev);
	return s->msi_cap && get_le16(s->f.config + s->msi_cap + 2) & MSI_ENABLE;
}

static void msi_send(struct pci_slot *s)
{
	const uint8_t *cap = s->f.config + s->msi_cap;
	irq_msi(s->f.dev, get_le64(cap + 4), get_le16(cap + 12));
}

/* ---- MSI-X ---- */

static bool msix_function_masked(const struct pci_slot *s)
{
	return get_le16(s->f.config + s->msix_cap + 2) & MSIX_FUNC_MASK;
}

bool pci_msix_enabled(const struct device *dev)
{
	const struct pci_slot *s = slot_of(dev);
	return s->msix_cap && get_le16(s->f.config + s->msix_cap + 2) & MSIX_ENABLE;
}

static void msix_send(struct pci_slot *s, unsigned vector)
{
	const uint8_t *entry = s->msix_table + vector * MSIX_ENTRY;
	irq_msi(s->f.dev, get_le64(entry), get_le32(entry + 8));
}

static bool msix_vector_masked(const struct pci_slot *s, unsigned vector)
{
	return msix_function_masked(s) || get_le32(s->msix_table + vector * MSIX_ENTRY + 12) & MSIX_VECTOR_MASK;
}

static void msix_deliver_pending(struct pci_slot *s, unsigned first, unsigned last)
{
	if (!pci_msix_enabled(s->f.dev))
		return;
	for (unsigned v = first; v <= last; v++) {
		if (!(s->msix_pending[v / 8] & BIT(v % 8)) || msix_vector_masked(s, v))
			continue;
		s->msix_pending[v / 8] &= ~BIT(v % 8);
		msix_send(s, v);
	}
}

void pci_msix_notify(struct device *dev, unsigned vector)
{
	struct pci_slot *s = slot_of(dev);
	if (pci_msix_enabled(dev)) {
		if (vector >= dev->pci->msix_vectors)
			return;
		if (msix_vector_masked(s, vector))
			s->msix_pending[vector / 8] |= BIT(vector % 8);
		else
			msix_send(s, vector);
	} else if (vector == 0 && pci_msi_enabled(dev)) {
		msi_send(s);
	}
}

static uint64_t msix_table_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return get_le(slot_of(dev)->msix_table + offset, size);
}

static void msix_table_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_slot *s = slot_of(dev);
	unsigned vector = offset / MSIX_ENTRY;
	put_le(s->msix_table + offset, value, size);
	/* Of Vector Control only the mask bit exists. */
	s->msix_table[vector * MSIX_ENTRY + 12] &= MSIX_VECTOR_MASK;
	memset(s->msix_table + vector * MSIX_ENTRY + 13, 0, 3);
	msix_deliver_pending(s, vector, vector);
}

static uint64_t msix_pba_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return get_le(slot_of(dev)->msix_pending + offset, size);
}

static void msix_pba_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	log_guest(&dev->guest_log, "pci", "%s: write to the read-only MSI-X pending bits", dev->id);
}

static const struct region_ops msix_ops[] = {
	{.read = msix_table_read, .write = msix_table_write, .min_access = 4, .max_access = 8},
	{.read = msix_pba_read, .write = msix_pba_write, .min_access = 4, .max_access = 8},
};
static const struct region_desc msix_desc[] = {
	{.name = "msix-table", .space = SPACE_MMIO, .disabled = true, .ops = &msix_ops[0]},
	{.name = "msix-pba", .space = SPACE_MMIO, .disabled = true, .ops = &msix_ops[1]},
};

static int msix_add(struct pci_slot *s)
{
	int off = pci_add_capability(s->f.dev, CAP_MSIX, 12);
	if (off < 0)
		return off;
	s->msix_cap = off;
	for (unsigned i = 0; i < 2; i++)
		s->msix_region[i] = (struct region){.desc = &msix_desc[i], .dev = s->f.dev, .kind = REGION_IO};
	return 0;
}

static void msix_reset(struct pci_slot *s)
{
	memset(s->msix_table, 0, sizeof(s->msix_table));
	memset(s->msix_pending, 0, sizeof(s->msix_pending));
	for (unsigned v = 0; v < s->f.msix_vectors; v++)
		s->msix_table[v * MSIX_ENTRY + 12] = MSIX_VECTOR_MASK;
}

/* ---- INTx ---- */

static void intx_update(struct pci_slot *s)
{
	struct pci_function *f = &s->f;
	if (s->intx_level)
		f->config[CFG_STATUS] |= STATUS_INTERRUPT;
	else
		f->config[CFG_STATUS] &= ~STATUS_INTERRUPT;
	if (s->intx_wired)
		irq_set(&f->dev->irq[0], s->intx_level && !(get_le16(f->config + CFG_COMMAND) & PCI_CMD_INTX_OFF));
}

void pci_set_intx(struct device *dev, bool level)
{
	struct pci_slot *s = slot_of(dev);
	if (s->intx_level == level)
		return;
	s->intx_level = level;
	intx_update(s);
}

/* ---- configuration cycles ---- */

static void command_update(struct pci_slot *s)
{
	uint16_t command = get_le16(s->f.config + CFG_COMMAND);
	__atomic_store_n(&s->master, (command & PCI_CMD_MASTER) != 0, __ATOMIC_RELAXED);
}

bool pci_bus_master(const struct device *dev)
{
	return __atomic_load_n(&slot_of(dev)->master, __ATOMIC_RELAXED);
}

void pci_enable_bus_master(struct device *dev)
{
	struct pci_slot *s = slot_of(dev);
	s->f.config[CFG_COMMAND] |= PCI_CMD_MASTER;
	command_update(s);
}

static bool overlap(unsigned offset, unsigned size, unsigned first, unsigned len)
{
	return offset < first + len && first < offset + size;
}

uint32_t pci_config_read(struct device *bus, uint8_t devfn, unsigned offset, unsigned size)
{
	struct device *dev = machine_slot_ejected(bus->board, devfn >> 3) ? NULL : pci_find(bus, devfn);
	if (!dev || offset + size > 256)
		return UINT32_MAX;
	pthread_mutex_lock(dev->lock);
	struct pci_function *f = dev->pci;
	if (f->config_read)
		f->config_read(dev, offset, size);
	uint32_t value = get_le(f->config + offset, size);
	pthread_mutex_unlock(dev->lock);
	return value;
}

static void config_write_locked(struct device *dev, unsigned offset, uint32_t value, unsigned size)
{
	struct pci_slot *s = slot_of(dev);
	struct pci_function *f = &s->f;
	for (unsigned i = 0; i < size; i++) {
		uint8_t v = value >> (8 * i), *reg = &f->config[offset + i];
		*reg = (*reg & ~f->wmask[offset + i]) | (v & f->wmask[offset + i]);
		*reg &= ~(v & f->w1cmask[offset + i]);
	}
	if (overlap(offset, size, CFG_COMMAND, 2)) {
		command_update(s);
		intx_update(s);
	}
	if (overlap(offset, size, CFG_COMMAND, 2) || overlap(offset, size, CFG_BAR0, 24) ||
	    overlap(offset, size, CFG_ROM, 4))
		bars_update(s);
	if (s->msix_cap && overlap(offset, size, s->msix_cap + 2, 2))
		msix_deliver_pending(s, 0, dev->pci->msix_vectors - 1);
	if (f->config_written)
		f->config_written(dev, offset, size);
}

void pci_config_write(struct device *bus, uint8_t devfn, unsigned offset, uint32_t value, unsigned size)
{
	struct device *dev = machine_slot_ejected(bus->board, devfn >> 3) ? NULL : pci_find(bus, devfn);
	if (!dev || offset + size > 256)
		return;
	pthread_mutex_lock(dev->lock);
	config_write_locked(dev, offset, value, size);
	pthread_mutex_unlock(dev->lock);
}

/* ---- slots ---- */

struct device *pci_find(struct device *bus, uint8_t devfn)
{
	return container_of(bus, struct pci_bus, dev)->functions[devfn];
}

static int choose_slot(struct pci_bus *bus, const struct device *dev, int32_t addr, struct err *e)
{
	if (addr < 0) {
		for (unsigned slot = 0; slot < 32; slot++) {
			bool empty = true;
			for (unsigned fn = 0; fn < 8; fn++)
				empty &= !bus->functions[slot << 3 | fn];
			if (empty)
				return slot << 3;
		}
		return err_set(e, ENOSPC, "device '%s': all 32 slots of the PCI bus are taken", dev->id);
	}
	if (addr >= PCI_DEVFNS)
		return err_set(e, EINVAL, "device '%s': addr=0x%x is outside the bus (devices 0 to 0x1f)", dev->id,
			       (unsigned)addr);
	if (addr & 7 && bus->functions[addr & ~7] && machine_started(dev->board))
		return err_set(
			e, EBUSY,
			"PCI: slot %u function 0 already occupied by %s, new func %s cannot be exposed to guest.",
			(unsigned)addr >> 3, bus->functions[addr & ~7]->class->name, dev->class->name);
	if (bus->functions[addr])
		return err_set(e, EBUSY, "device '%s': PCI address 0x%x.%x is taken by '%s'", dev->id,
			       (unsigned)addr >> 3, (unsigned)addr & 7, bus->functions[addr]->id);
	return addr;
}

/* A guest looks for functions 1 to 7 only where function 0 says so. Bus's lock held. */
static void mark_multifunction(struct pci_bus *bus, uint8_t devfn)
{
	struct device *first = bus->functions[devfn & ~7];
	bool multi = false;
	for (unsigned fn = 1; fn < 8; fn++)
		multi |= bus->functions[(devfn & ~7) | fn] != NULL;
	if (!first)
		return;
	pthread_mutex_lock(first->lock);
	struct pci_slot *s = slot_of(first);
	uint8_t *const copies[] = {&s->f.config[CFG_HEADER_TYPE], &s->power_on[CFG_HEADER_TYPE]};
	for (unsigned i = 0; i < ARRAY_SIZE(copies); i++)
		*copies[i] = multi ? *copies[i] | HEADER_MULTIFUNCTION : *copies[i] & ~HEADER_MULTIFUNCTION;
	pthread_mutex_unlock(first->lock);
}

static void header_init(struct pci_function *f, const struct pci_identity *id)
{
	put_le16(f->config + CFG_VENDOR, id->vendor);
	put_le16(f->config + CFG_DEVICE, id->device);
	f->config[CFG_REVISION] = id->revision;
	f->config[CFG_CLASS] = id->class_code;
	put_le16(f->config + CFG_CLASS + 1, id->class_code >> 8);
	if (!id->bridge_like) {
		put_le16(f->config + CFG_SUBSYSTEM_VENDOR, id->subsystem_vendor);
		put_le16(f->config + CFG_SUBSYSTEM, id->subsystem);
	}
	f->config[PCI_INT_PIN] = id->int_pin;
	put_le16(f->wmask + CFG_COMMAND, PCI_CMD_IO | PCI_CMD_MEM | PCI_CMD_MASTER | CMD_SERR | PCI_CMD_INTX_OFF);
	/* Error and abort bits; a device that can set one does. */
	put_le16(f->w1cmask + CFG_STATUS, 0xf900);
	f->wmask[CFG_CACHE_LINE] = 0xff;
	f->wmask[CFG_LATENCY] = 0xf8;
	f->wmask[PCI_INT_LINE] = 0xff;
}

int pci_attach(struct device *bus_dev, struct device *dev, int32_t addr, struct err *e)
{
	struct pci_bus *bus = container_of(bus_dev, struct pci_bus, dev);
	const struct pci_identity *id = dev->class->pci;
	pthread_mutex_lock(bus_dev->lock);
	int devfn = choose_slot(bus, dev, addr, e);
	pthread_mutex_unlock(bus_dev->lock);
	if (devfn < 0)
		return devfn;

	struct pci_slot *s = xzalloc(sizeof(*s));
	s->f.dev = dev;
	s->f.devfn = devfn;
	s->bus = bus_dev;
	s->next_cap = CFG_FIRST_FREE;
	for (unsigned n = 0; n < BARS; n++)
		s->bar[n].mapped = BAR_UNMAPPED;
	header_init(&s->f, id);
	dev->pci = &s->f;
	if (id->int_pin && dev->class->n_irqs && !dev->class->irq_prop[0]) {
		s->intx_wired = true;
		dev->irq[0].kind = IRQ_PIRQ;
		dev->irq[0].input = (id->int_pin - 1 + (devfn >> 3) - 1) & 3;
	}
	s->f.msix_vectors = id->msix_vectors;
	if (id->msi && msi_add(s) < 0) {
		dev->pci = NULL;
		free(s);
		return err_set(e, ENOSPC, "device '%s': no room for its PCI capabilities", dev->id);
	}
	return 0;
}

int pci_realize(struct device *dev, struct err *e)
{
	struct pci_slot *s = slot_of(dev);
	struct pci_bus *bus = container_of(s->bus, struct pci_bus, dev);
	if (s->f.msix_vectors && msix_add(s) < 0)
		return err_set(e, ENOSPC, "device '%s': no room for its MSI-X capability", dev->id);
	for (unsigned n = 0; n < ROM_BAR; n++) {
		int ret = bar_realize(s, n, e);
		if (ret < 0)
			return ret;
	}
	int ret = rom_realize(s, e);
	if (ret < 0)
		return ret;
	memcpy(s->power_on, s->f.config, sizeof(s->power_on));
	msix_reset(s);
	command_update(s);
	/* Visible from here on: a configuration cycle never meets a half-built function. */
	pthread_mutex_lock(s->bus->lock);
	bus->functions[s->f.devfn] = dev;
	mark_multifunction(bus, s->f.devfn);
	pthread_mutex_unlock(s->bus->lock);
	return 0;
}

void pci_detach(struct device *dev)
{
	if (!dev->pci)
		return;
	struct pci_slot *s = slot_of(dev);
	struct pci_bus *bus = container_of(s->bus, struct pci_bus, dev);
	pthread_mutex_lock(s->bus->lock);
	if (bus->functions[s->f.devfn] == dev) {
		bus->functions[s->f.devfn] = NULL;
		mark_multifunction(bus, s->f.devfn);
	}
	pthread_mutex_unlock(s->bus->lock);
	pthread_mutex_lock(dev->lock);
	if (s->intx_wired)
		irq_lower(&dev->irq[0]);
	bars_unmap(s);
	pthread_mutex_unlock(dev->lock);
}

void pci_free(struct device *dev)
{
	if (!dev->pci)
		return;
	struct pci_slot *s = slot_of(dev);
	dev->pci = NULL;
	free(s);
}

/* ---- life cycle ---- */

void pci_function_reset(struct device *dev)
{
	struct pci_slot *s = slot_of(dev);
	memcpy(s->f.config, s->power_on, sizeof(s->power_on));
	s->intx_level = false;
	msix_reset(s);
	command_update(s);
}

void pci_function_settle(struct device *dev)
{
	struct pci_slot *s = slot_of(dev);
	command_update(s);
	bars_update(s);
	intx_update(s);
	if (s->msix_cap)
		msix_deliver_pending(s, 0, dev->pci->msix_vectors - 1);
}

/* ---- state ---- */

/*
 * The stream may hold values the guest or the device wrote, not another chip: identity and layout must be ours. The
 * class code's low byte is exempt (IDE controllers switch modes through it).
 */
static int slot_post_load(void *obj, uint16_t version, struct err *e)
{
	struct pci_slot *s = obj;
	struct device *dev = s->f.dev;
	static const struct {
		uint8_t first, len;
	} fixed[] = {{CFG_VENDOR, 4},           {CFG_REVISION, 1},     {CFG_CLASS + 1, 2}, {CFG_HEADER_TYPE, 1},
		     {CFG_SUBSYSTEM_VENDOR, 4}, {CFG_CAPABILITIES, 1}, {PCI_INT_PIN, 1}};
	for (unsigned i = 0; i < ARRAY_SIZE(fixed); i++)
		if (memcmp(s->f.config + fixed[i].first, s->power_on + fixed[i].first, fixed[i].len))
			return err_set(e, EINVAL,
				       "PCI device '%s': the saved configuration space differs at 0x%02x: not "
				       "the same device",
				       dev->id, fixed[i].first);
	if (s->msix_table_len != (uint32_t)dev->pci->msix_vectors * MSIX_ENTRY)
		return err_set(e, EINVAL, "PCI device '%s': the saved state has %u MSI-X vectors, this device %u",
			       dev->id, s->msix_table_len / MSIX_ENTRY, dev->pci->msix_vectors);
	/* Read-only bits of BARs, capability headers and pointers are what they always were. */
	for (unsigned i = CFG_BAR0; i < CFG_BAR0 + 24; i++)
		s->f.config[i] = (s->f.config[i] & s->f.wmask[i]) | (s->power_on[i] & ~s->f.wmask[i]);
	for (unsigned p = s->power_on[CFG_CAPABILITIES]; p; p = s->power_on[p + 1])
		memcpy(s->f.config + p, s->power_on + p, 2);
	for (unsigned i = s->msix_cap; s->msix_cap && i < s->msix_cap + 12u; i++)
		s->f.config[i] = (s->f.config[i] & s->f.wmask[i]) | (s->power_on[i] & ~s->f.wmask[i]);
	for (unsigned v = 0; v < dev->pci->msix_vectors; v++)
		put_le32(s->msix_table + v * MSIX_ENTRY + 12,
			 get_le32(s->msix_table + v * MSIX_ENTRY + 12) & MSIX_VECTOR_MASK);
	return 0;
}

static const struct state_field slot_fields[] = {
	STATE_FIELD_(struct pci_slot, f.config, STATE_BYTES),
	STATE_B(struct pci_slot, intx_level),
	STATE_VBUF(struct pci_slot, msix_table, msix_table_len),
	STATE_BUF(struct pci_slot, msix_pending),
	STATE_FIELDS_END,
};

const struct state_table pci_function_state = {
	.name = "pci-function",
	.version = 1,
	.oldest = 1,
	.fields = slot_fields,
	.post_load = slot_post_load,
};
