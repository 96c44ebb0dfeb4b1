/*
 * "piix3-ide": the IDE function of the 82371SB (PIIX3): two channels at the legacy ports with IRQ 14 and 15, bus master
 * DMA.
 *
 * Sources: Intel 82371FB/82371SB data sheet (290550), 2.3 (function 1 configuration) and 2.7 (bus master registers);
 * Programming Interface for Bus Master IDE Controller, revision 1.0. Left out: timings have no effect; the legacy ports
 * stay decoded whatever IDETIM bit 15 and the command register say, because firmware-less boots rely on them.
 */
#include "src/devices/storage/ide.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/pci.h"

enum { IDETIM = 0x40, SIDETIM = 0x44, MAX_PRD = 8192 /* a table lies within 64 KiB */ };

struct piix3_ide {
	struct device dev;
	uint32_t irq_primary, irq_secondary;
	struct ide_channel ch[2];
};

/* ---- interrupts ---- */

void ide_channel_irq(struct ide_channel *ch, bool level)
{
	struct irq_line *line = &ch->ctl->dev.irq[ch->index];

	if (level && !line->level)
		ch->bm_status |= BM_INTERRUPT; /* latched on the edge, for PIO commands too */
	irq_set(line, level);
}

/* ---- descriptor tables ---- */

bool bm_mastering(const struct ide_channel *ch)
{
	return pci_bus_master(&ch->ctl->dev);
}

/* The next descriptor into *cur. 1: there is none; -EFAULT: the table is not in memory. */
static int next_descriptor(struct ide_channel *ch, struct ide_prd *cur)
{
	uint8_t prd[8];

	if (cur->eot || cur->fetched >= MAX_PRD)
		return 1;
	if (dma_read(&ch->ctl->dev, cur->next, prd, sizeof(prd)))
		return -EFAULT;
	cur->next += sizeof(prd);
	cur->fetched++;
	cur->base = get_le32(prd) & ~1u; /* words only */
	cur->left = get_le16(prd + 4) & 0xfffe;
	if (!cur->left)
		cur->left = 65536;
	cur->eot = prd[7] & 0x80;
	return 0;
}

static int walk(struct ide_channel *ch, struct ide_prd *cur, enum dma_dir dir, uint64_t want, struct iovec *iov,
		int *n_iov, uint64_t *got)
{
	*n_iov = 0;
	*got = 0;
	while (*got < want) {
		uint32_t take;
		int r = cur->left ? 0 : next_descriptor(ch, cur);

		if (r < 0)
			return r;
		if (r)
			break;
		take = (uint32_t)MIN((uint64_t)cur->left, want - *got);
		r = dma_map(&ch->ctl->dev, cur->base, take, dir, iov + *n_iov, IDE_MAX_IOV - *n_iov);
		if (r == -E2BIG)
			break;
		if (r < 0)
			return r;
		*n_iov += r;
		*got += take;
		cur->base += take;
		cur->left -= take;
	}
	return 0;
}

int bm_map(struct ide_channel *ch, struct ide_prd *cur, enum dma_dir dir, uint64_t want, struct iovec *iov, int *n_iov,
	   uint64_t *got)
{
	struct ide_prd start = *cur;
	int r = walk(ch, cur, dir, want, iov, n_iov, got);

	if (r || *got == want || !(*got % IDE_SECTOR))
		goto out;
	/* Cut at a sector border: again, for less. */
	bm_unmap(ch, dir, iov, *n_iov, 0);
	*cur = start;
	r = walk(ch, cur, dir, ALIGN_DOWN(*got, (uint64_t)IDE_SECTOR), iov, n_iov, got);
out:
	if (r)
		bm_unmap(ch, dir, iov, *n_iov, 0);
	return r;
}

void bm_unmap(struct ide_channel *ch, enum dma_dir dir, const struct iovec *iov, int n_iov, uint64_t done)
{
	dma_unmap(&ch->ctl->dev, dir, iov, n_iov, done);
}

int64_t bm_copy(struct ide_channel *ch, enum dma_dir dir, void *buf, uint64_t len)
{
	struct ide_prd *cur = &ch->prd;
	uint64_t done = 0;

	while (done < len) {
		uint32_t take;
		int r = cur->left ? 0 : next_descriptor(ch, cur);

		if (r < 0)
			return r;
		if (r)
			break;
		take = (uint32_t)MIN((uint64_t)cur->left, len - done);
		if (dir == DMA_FROM_DEVICE)
			r = dma_write(&ch->ctl->dev, cur->base, (uint8_t *)buf + done, take);
		else
			r = dma_read(&ch->ctl->dev, cur->base, (uint8_t *)buf + done, take);
		if (r)
			return r;
		cur->base += take;
		cur->left -= take;
		done += take;
	}
	return (int64_t)done;
}

/* Active stays set while the table has more than the drive wanted (data sheet 2.7.2, interrupt/activity table). */
void bm_finish(struct ide_channel *ch, bool underflow)
{
	bool more = ch->prd.left || !ch->prd.eot;

	if (underflow || !more)
		ch->bm_status &= ~BM_ACTIVE;
}

void bm_fail(struct ide_channel *ch)
{
	ch->bm_status |= BM_ERROR;
	ch->bm_status &= ~BM_ACTIVE;
}

/* ---- bus master registers: command +0, status +2, table +4, per channel ---- */

static uint64_t bm_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct piix3_ide *s = DEVICE(dev, struct piix3_ide);
	struct ide_channel *ch = &s->ch[offset >> 3 & 1];
	uint8_t regs[16] = {ch->bm_command, 0, ch->bm_status, 0};

	put_le32(regs + 4, ch->bm_table);
	return get_le(regs + (offset & 7), size);
}

static void write_bm_command(struct ide_channel *ch, uint8_t v)
{
	bool was = ch->bm_command & BM_START, start = v & BM_START;

	ch->bm_command = v & (BM_START | BM_TO_MEMORY);
	if (was && !start) {
		/* Stopped. A host request in flight still ends, before the drive's BSY or DRQ clears. */
		ch->bm_status &= ~BM_ACTIVE;
	} else if (!was && start) {
		ch->prd = (struct ide_prd){.next = ch->bm_table};
		ch->bm_status |= BM_ACTIVE;
		ide_dma_started(ch);
	}
}

static void write_bm_byte(struct ide_channel *ch, unsigned reg, uint8_t v)
{
	switch (reg) {
	case 0:
		write_bm_command(ch, v);
		break;
	case 2: /* interrupt and error are cleared by writing 1; bits 5 and 6 are the host's notes */
		ch->bm_status =
			(v & 0x60) | (ch->bm_status & BM_ACTIVE) | (ch->bm_status & ~v & (BM_ERROR | BM_INTERRUPT));
		break;
	case 4:
	case 5:
	case 6:
	case 7: {
		unsigned shift = 8 * (reg - 4);

		ch->bm_table = ((ch->bm_table & ~(0xffu << shift)) | (uint32_t)v << shift) & ~3u;
		break;
	}
	}
}

static void bm_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct piix3_ide *s = DEVICE(dev, struct piix3_ide);

	for (unsigned i = 0; i < size; i++)
		write_bm_byte(&s->ch[(offset + i) >> 3 & 1], (offset + i) & 7, (uint8_t)(value >> (8 * i)));
}

/* ---- legacy ports ---- */

enum { REGION_CMD0, REGION_CTL0, REGION_CMD1, REGION_CTL1, REGION_BM };

static struct ide_channel *channel_of(struct device *dev, const struct region *r)
{
	return &DEVICE(dev, struct piix3_ide)->ch[r - dev->regions >= REGION_CMD1];
}

static uint64_t cmd_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return ide_read_command_block(channel_of(dev, r), (unsigned)offset, size);
}

static void cmd_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	ide_write_command_block(channel_of(dev, r), (unsigned)offset, value, size);
}

static uint32_t cmd_read_string(struct device *dev, struct region *r, uint64_t offset, void *buf, unsigned size,
				uint32_t count)
{
	return offset == REG_DATA && size >= 2 ? ide_read_data_string(channel_of(dev, r), buf, size, count) : 0;
}

static uint32_t cmd_write_string(struct device *dev, struct region *r, uint64_t offset, const void *buf, unsigned size,
				 uint32_t count)
{
	return offset == REG_DATA && size >= 2 ? ide_write_data_string(channel_of(dev, r), buf, size, count) : 0;
}

static uint64_t ctl_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return ide_alt_status(channel_of(dev, r));
}

static void ctl_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	ide_write_device_control(channel_of(dev, r), (uint8_t)value);
}

static const struct region_ops cmd_ops = {
	.read = cmd_read,
	.write = cmd_write,
	.read_string = cmd_read_string,
	.write_string = cmd_write_string,
	.max_access = 4,
};
static const struct region_ops ctl_ops = {.read = ctl_read, .write = ctl_write, .max_access = 1};
static const struct region_ops bm_ops = {.read = bm_read, .write = bm_write, .max_access = 4};

static const struct region_desc regions[] = {
	[REGION_CMD0] = {"ide0-command", SPACE_PIO, REGION_IO, .base = 0x1f0, .size = 8, .bar = REGION_NOT_BAR,
			 .ops = &cmd_ops},
	[REGION_CTL0] = {"ide0-control", SPACE_PIO, REGION_IO, .base = 0x3f6, .size = 1, .bar = REGION_NOT_BAR,
			 .ops = &ctl_ops},
	[REGION_CMD1] = {"ide1-command", SPACE_PIO, REGION_IO, .base = 0x170, .size = 8, .bar = REGION_NOT_BAR,
			 .ops = &cmd_ops},
	[REGION_CTL1] = {"ide1-control", SPACE_PIO, REGION_IO, .base = 0x376, .size = 1, .bar = REGION_NOT_BAR,
			 .ops = &ctl_ops},
	[REGION_BM] = {"bmdma", SPACE_PIO, REGION_IO, .base = 0, .size = 16, .bar = 4, .ops = &bm_ops},
};

/* ---- drives ---- */

/* "ide.N" names the channel; without a name the first one with room. */
static int find_channel(const struct piix3_ide *s, const struct ide_drive *d, struct err *e)
{
	const char *bus = d->dev.bus_id, *dot = bus ? strrchr(bus, '.') : NULL;

	if (dot && (!strcmp(dot, ".0") || !strcmp(dot, ".1")))
		return dot[1] - '0';
	if (bus)
		return err_set(e, ENODEV, "Bus '%s' not found", bus);
	for (int i = 0; i < 2; i++)
		if (d->dev.unit >= 0 ? !s->ch[i].drive[d->dev.unit & 1] : !s->ch[i].drive[0] || !s->ch[i].drive[1])
			return i;
	return err_set(e, ENOSPC, "No free IDE connector for device '%s'", d->dev.id);
}

int ide_attach(struct ide_drive *d, struct err *e)
{
	struct piix3_ide *s = DEVICE(d->dev.parent, struct piix3_ide);
	int n, unit = d->dev.unit;

	if (unit > 1)
		return err_set(e, EINVAL, "Can't create IDE unit %d, bus supports only 2 units", unit);
	n = find_channel(s, d, e);
	if (n < 0)
		return n;
	if (unit < 0)
		unit = s->ch[n].drive[0] ? 1 : 0;
	if (s->ch[n].drive[unit])
		return err_set(e, EBUSY, "IDE unit %d is in use", unit);
	d->ch = &s->ch[n];
	d->index = (unsigned)unit;
	d->dev.unit = unit;
	if (!d->dev.bus_id) /* boot order and the machine description name the place */
		d->dev.bus_id = xasprintf("ide.%d", n);
	s->ch[n].drive[unit] = d;
	if (!d->serial)
		d->serial =
			block_serial(d->blk) ? xstrdup(block_serial(d->blk)) : xasprintf("VM%05d", n * 2 + unit + 1);
	return 0;
}

void ide_detach(struct ide_drive *d)
{
	if (d->ch)
		d->ch->drive[d->index] = NULL;
}

/* ---- class ---- */

static int create(struct device *dev, struct err *e)
{
	struct piix3_ide *s = DEVICE(dev, struct piix3_ide);

	for (unsigned i = 0; i < 2; i++) {
		s->ch[i].ctl = s;
		s->ch[i].index = i;
	}
	memset(dev->pci->wmask + IDETIM, 0xff, 5); /* IDETIM of both channels, SIDETIM */
	/* Decode enabled, as firmware sets it: a kernel booted without one finds the channels. */
	put_le16(dev->pci->config + IDETIM, 0x8000);
	put_le16(dev->pci->config + IDETIM + 2, 0x8000);
	return 0;
}

static void reset(struct device *dev)
{
	struct piix3_ide *s = DEVICE(dev, struct piix3_ide);

	for (unsigned i = 0; i < 2; i++)
		ide_channel_reset(&s->ch[i]);
}

static void settle(struct device *dev)
{
	struct piix3_ide *s = DEVICE(dev, struct piix3_ide);

	for (unsigned i = 0; i < 2; i++) {
		uint8_t status = s->ch[i].bm_status; /* the line goes up again: no new edge */

		ide_channel_settle(&s->ch[i]);
		s->ch[i].bm_status = status;
	}
}

static const struct prop props[] = {
	PROP_NAMED(struct piix3_ide, "irq-primary", irq_primary, PROP_U32, .def = 14, .max = 15,
		   .help = "ISA interrupt of channel 0", .internal = true),
	PROP_NAMED(struct piix3_ide, "irq-secondary", irq_secondary, PROP_U32, .def = 15, .max = 15,
		   .help = "ISA interrupt of channel 1", .internal = true),
	PROP_END,
};

static const struct state_field prd_fields[] = {
	STATE_U(struct ide_prd, next),
	STATE_U(struct ide_prd, base),
	STATE_U(struct ide_prd, left, .max = 65536),
	STATE_U(struct ide_prd, fetched, .max = MAX_PRD),
	STATE_B(struct ide_prd, eot),
	STATE_FIELDS_END,
};
static const struct state_table prd_table = {.name = "ide-prd", .version = 1, .oldest = 1, .fields = prd_fields};
static const struct state_field channel_fields[] = {
	STATE_U(struct ide_channel, devctl),
	STATE_U(struct ide_channel, selected, .max = 1),
	STATE_U(struct ide_channel, bm_command),
	STATE_U(struct ide_channel, bm_status),
	STATE_U(struct ide_channel, bm_table),
	STATE_SUB(struct ide_channel, prd, &prd_table),
	STATE_FIELDS_END,
};
static const struct state_table channel_table = {
	.name = "ide-channel",
	.version = 1,
	.oldest = 1,
	.fields = channel_fields,
};
static const struct state_field fields[] = {
	STATE_SUBA(struct piix3_ide, ch, &channel_table),
	STATE_FIELDS_END,
};
static const struct state_table state = {.name = "piix3-ide", .version = 1, .oldest = 1, .fields = fields};

static const struct pci_identity identity = {
	.vendor = 0x8086,
	.device = 0x7010,
	.class_code = 0x010180, /* IDE, compatibility mode, bus master */
	.bridge_like = true,
	.bar = {[4] = {PCI_BAR_IO}},
};

DEVICE_CLASS(piix3_ide) = {
	.name = "piix3-ide",
	.summary = "Intel 82371SB (PIIX3) IDE controller",
	.bus = BUS_PCI,
	.category = "Storage",
	.size = sizeof(struct piix3_ide),
	.props = props,
	.regions = regions,
	.n_regions = ARRAY_SIZE(regions),
	.irq_prop = {"irq-primary", "irq-secondary"},
	.n_irqs = 2,
	.pci = &identity,
	.state = &state,
	.create = create,
	.reset = reset,
	.settle = settle,
};
