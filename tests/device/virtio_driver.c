/* See virtio_driver.h. Register layouts: VIRTIO 1.2 sections 4.1.4.3 and 4.1.4.10. */
#include "virtio_driver.h"

#include "vmm/bytes.h"

#define CONFIG_ADDRESS 0xcf8

static uint64_t region(const struct vd *d, unsigned page)
{
	return d->bar + page * 0x1000ull;
}

static void place_bars(struct vd *d)
{
	d->io = 0xc000 + (uint16_t)(d->devfn >> 3) * 0x100;
	d->msix = 0xe0000000ull + (d->devfn >> 3) * 0x100000ull;
	d->bar = d->msix + 0x80000;
	bench_pci_writel(d->b, d->devfn, 0x10, d->io);
	bench_pci_writel(d->b, d->devfn, 0x14, (uint32_t)d->msix);
	bench_pci_writel(d->b, d->devfn, 0x20, (uint32_t)d->bar);
	bench_pci_writel(d->b, d->devfn, 0x24, 0);
	bench_pci_writew(d->b, d->devfn, 4, 7);
}

void vd_init(struct vd *d, struct board *b, unsigned slot, int kind)
{
	*d = (struct vd){.b = b, .devfn = slot << 3, .kind = kind};
	place_bars(d);
	vd_set_status(d, 0);
	ck_assert_uint_eq(vd_status(d), 0);
	vd_set_status(d, VD_ACK);
	vd_set_status(d, VD_ACK | VD_DRIVER);
}

void vd_moved(struct vd *d, struct board *b)
{
	d->b = b;
}

uint64_t vd_offered(struct vd *d)
{
	uint64_t v;

	if (d->kind == VD_LEGACY)
		return bench_inl(d->b, d->io);
	bench_writel(d->b, d->bar + 0, 1);
	v = (uint64_t)bench_readl(d->b, d->bar + 4) << 32;
	bench_writel(d->b, d->bar + 0, 0);
	return v | bench_readl(d->b, d->bar + 4);
}

bool vd_negotiate(struct vd *d, uint64_t wanted)
{
	uint64_t features = vd_offered(d) & (wanted | VD_VERSION_1);

	d->features = features;
	if (d->kind == VD_LEGACY) {
		bench_outl(d->b, d->io + 4, (uint32_t)features);
		return true;
	}
	for (unsigned i = 0; i < 2; i++) {
		bench_writel(d->b, d->bar + 8, i);
		bench_writel(d->b, d->bar + 12, (uint32_t)(features >> (32 * i)));
	}
	vd_set_status(d, VD_ACK | VD_DRIVER | VD_FEATURES_OK);
	return vd_status(d) & VD_FEATURES_OK;
}

static void set64(struct vd *d, unsigned offset, uint64_t v)
{
	bench_writel(d->b, d->bar + offset, (uint32_t)v);
	bench_writel(d->b, d->bar + offset + 4, (uint32_t)(v >> 32));
}

static void zero(struct board *b, uint64_t addr, size_t len)
{
	static const uint8_t zeroes[VQ_STRIDE];

	bench_write(b, addr, zeroes, len);
}

void vd_queue(struct vd *d, unsigned n, uint16_t size)
{
	struct vd_queue *q = &d->q[n];

	*q = (struct vd_queue){.desc = VQ_BASE + n * VQ_STRIDE};
	zero(d->b, q->desc, VQ_STRIDE);
	if (d->kind == VD_LEGACY) {
		bench_outw(d->b, d->io + 14, (uint16_t)n);
		q->size = bench_inw(d->b, d->io + 12);
		ck_assert_uint_ne(q->size, 0);
		q->avail = q->desc + 16ull * q->size;
		q->used = (q->avail + 6 + 2ull * q->size + 0xfff) & ~0xfffull;
		if (d->msix_on) {
			bench_outw(d->b, d->io + 22, (uint16_t)(n + 1));
			ck_assert_uint_eq(bench_inw(d->b, d->io + 22), n + 1);
		}
		bench_outl(d->b, d->io + 8, (uint32_t)(q->desc >> 12));
		return;
	}
	bench_writew(d->b, d->bar + 22, (uint16_t)n);
	if (size)
		bench_writew(d->b, d->bar + 24, size);
	q->size = bench_readw(d->b, d->bar + 24);
	ck_assert_uint_ne(q->size, 0);
	q->avail = q->desc + 0x4000;
	q->used = q->desc + 0x5000;
	set64(d, 32, q->desc);
	set64(d, 40, q->avail);
	set64(d, 48, q->used);
	if (d->msix_on) {
		bench_writew(d->b, d->bar + 26, (uint16_t)(n + 1));
		ck_assert_uint_eq(bench_readw(d->b, d->bar + 26), n + 1);
	}
	bench_writew(d->b, d->bar + 28, 1);
}

void vd_start(struct vd *d, struct board *b, unsigned slot, int kind, uint64_t features, unsigned n)
{
	vd_init(d, b, slot, kind);
	ck_assert(vd_negotiate(d, features));
	for (unsigned i = 0; i < n; i++)
		vd_queue(d, i, 0);
	vd_set_status(d, vd_status(d) | VD_OK);
	bench_idle(b);
}

uint8_t vd_status(struct vd *d)
{
	return d->kind == VD_LEGACY ? bench_inb(d->b, d->io + 18) : bench_readb(d->b, d->bar + 20);
}

void vd_set_status(struct vd *d, uint8_t status)
{
	if (d->kind == VD_LEGACY)
		bench_outb(d->b, d->io + 18, status);
	else
		bench_writeb(d->b, d->bar + 20, status);
}

uint8_t vd_isr(struct vd *d)
{
	return d->kind == VD_LEGACY ? bench_inb(d->b, d->io + 19) : bench_readb(d->b, region(d, 1));
}

uint32_t vd_config(struct vd *d, unsigned offset, unsigned size)
{
	uint8_t raw[4];

	if (d->kind == VD_LEGACY)
		return (uint32_t)(map_pio_read(d->b, (uint16_t)(d->io + (d->msix_on ? 24 : 20) + offset), size) &
				  ((1ull << (8 * size)) - 1));
	bench_read(d->b, region(d, 2) + offset, raw, size);
	return (uint32_t)get_le(raw, size);
}

void vd_set_config(struct vd *d, unsigned offset, uint32_t value, unsigned size)
{
	uint8_t raw[4];

	put_le(raw, value, size);
	if (d->kind == VD_LEGACY)
		map_pio_write(d->b, (uint16_t)(d->io + (d->msix_on ? 24 : 20) + offset), value, size);
	else
		bench_write(d->b, region(d, 2) + offset, raw, size);
}

uint8_t vd_generation(struct vd *d)
{
	return bench_readb(d->b, d->bar + 21);
}

void vd_msix(struct vd *d, unsigned vectors)
{
	unsigned cap = bench_pci_readb(d->b, d->devfn, 0x34);

	while (cap && bench_pci_readb(d->b, d->devfn, cap) != 0x11)
		cap = bench_pci_readb(d->b, d->devfn, cap + 1);
	ck_assert_uint_ne(cap, 0);
	for (unsigned i = 0; i < vectors; i++) {
		bench_writel(d->b, d->msix + 16 * i, 0xfee00000);
		bench_writel(d->b, d->msix + 16 * i + 4, 0);
		bench_writel(d->b, d->msix + 16 * i + 8, i);
		bench_writel(d->b, d->msix + 16 * i + 12, 0);
	}
	bench_pci_writew(d->b, d->devfn, cap + 2, 0x8000);
	d->msix_on = true;
	if (d->kind == VD_LEGACY)
		bench_outw(d->b, d->io + 20, 0);
	else
		bench_writew(d->b, d->bar + 16, 0);
}

void vd_desc(struct vd *d, unsigned n, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	uint8_t raw[16];

	put_le64(raw, addr);
	put_le32(raw + 8, len);
	put_le16(raw + 12, flags);
	put_le16(raw + 14, next);
	bench_write(d->b, d->q[n].desc + 16ull * i, raw, sizeof(raw));
}

void vd_offer(struct vd *d, unsigned n, uint16_t head)
{
	struct vd_queue *q = &d->q[n];

	bench_writew(d->b, q->avail + 4 + 2ull * (q->avail_idx % q->size), head);
	q->avail_idx++;
	bench_writew(d->b, q->avail + 2, q->avail_idx);
}

uint16_t vd_add(struct vd *d, unsigned n, const struct vd_seg *seg, unsigned n_seg)
{
	struct vd_queue *q = &d->q[n];
	uint16_t head = (uint16_t)(q->next_desc % q->size);

	for (unsigned i = 0; i < n_seg; i++) {
		uint16_t at = (uint16_t)(q->next_desc++ % q->size), next = (uint16_t)(q->next_desc % q->size);

		vd_desc(d, n, at, seg[i].addr, seg[i].len, (uint16_t)((i + 1 < n_seg) | (seg[i].in ? 2 : 0)), next);
	}
	vd_offer(d, n, head);
	return head;
}

void vd_ring(struct vd *d, unsigned n)
{
	if (d->kind == VD_LEGACY)
		bench_outw(d->b, d->io + 16, (uint16_t)n);
	else
		bench_writew(d->b, region(d, 3) + 4ull * n, (uint16_t)n);
	bench_idle(d->b);
}

int vd_used(struct vd *d, unsigned n, uint32_t *len)
{
	struct vd_queue *q = &d->q[n];
	uint64_t entry = q->used + 4 + 8ull * (q->last_used % q->size);

	if (bench_readw(d->b, q->used + 2) == q->last_used)
		return -1;
	q->last_used++;
	if (len)
		*len = bench_readl(d->b, entry + 4);
	return (int)bench_readl(d->b, entry);
}
