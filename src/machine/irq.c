/*
 * The interrupt fabric: see vmm/irq.h. Inputs are ORed from all sources that share them; behind an input are KVM's
 * chips or our own. PCI PIRQs pass through PIIX3's router first. One leaf mutex guards it all, our own PIC and IOAPIC
 * included.
 */
#include "board.h"

#include <errno.h>

static void capture(struct irq_fabric *f, unsigned chip, unsigned n, bool level)
{
	if (f->capture)
		f->capture(f->capture_opaque, chip, n, level);
}

/* The level of a GSI changed. Lock held. */
static void drive(struct irq_fabric *f, unsigned gsi, bool level)
{
	struct board *b = f->board;

	capture(f, 0, gsi, level);
	if (f->silent)
		return;
	if (b->kvm && b->config->machine.kernel_irqchip == IRQCHIP_ON) {
		kvm_irq_line(b->kvm, gsi, level);
		return;
	}
	if (f->pic && gsi < 16)
		f->pic_ops->set_input(f->pic, gsi, level);
	if (f->ioapic) /* the PIT's interrupt arrives at pin 2, where a PIC would be cascaded (MADT override) */
		f->ioapic_ops->set_input(f->ioapic, gsi == 0 ? 2 : gsi, level);
}

static void change_gsi(struct irq_fabric *f, unsigned gsi, bool level)
{
	if (level ? f->asserted[gsi]++ == 0 : --f->asserted[gsi] == 0)
		drive(f, gsi, level);
}

void irq_set(struct irq_line *line, bool level)
{
	struct irq_fabric *f = line->fabric;

	if (line->level == level || !f || line->kind == IRQ_NONE)
		return;
	pthread_mutex_lock(&f->lock);
	line->level = level;
	if (line->kind == IRQ_GSI) {
		change_gsi(f, line->input, level);
	} else if (level ? f->pirq[line->input].asserted++ == 0 : --f->pirq[line->input].asserted == 0) {
		if (f->pirq[line->input].gsi >= 0)
			change_gsi(f, (unsigned)f->pirq[line->input].gsi, level);
	}
	pthread_mutex_unlock(&f->lock);
}

void irq_line_for_gsi(struct board *b, struct irq_line *line, unsigned gsi)
{
	*line = (struct irq_line){.fabric = &b->irq, .kind = IRQ_GSI, .input = (uint8_t)gsi};
}

void irq_pulse(struct irq_line *line)
{
	irq_set(line, true);
	irq_set(line, false);
}

void irq_route_pirq(struct device *dev, unsigned pirq, int gsi)
{
	struct irq_fabric *f = &dev->board->irq;

	if (gsi >= 16)
		gsi = -1;
	pthread_mutex_lock(&f->lock);
	if (f->pirq[pirq].gsi != gsi) {
		bool asserted = f->pirq[pirq].asserted > 0;

		if (asserted && f->pirq[pirq].gsi >= 0)
			change_gsi(f, (unsigned)f->pirq[pirq].gsi, false);
		f->pirq[pirq].gsi = gsi;
		if (asserted && gsi >= 0)
			change_gsi(f, (unsigned)gsi, true);
	}
	pthread_mutex_unlock(&f->lock);
}

static void send_msi(struct irq_fabric *f, uint64_t address, uint32_t data)
{
	capture(f, 2, data, true);
	if (f->board->kvm)
		kvm_signal_msi(f->board->kvm, address, data);
}

void irq_msi(struct device *dev, uint64_t address, uint32_t data)
{
	struct irq_fabric *f = &dev->board->irq;

	pthread_mutex_lock(&f->lock);
	send_msi(f, address, data);
	pthread_mutex_unlock(&f->lock);
}

/* ---- our own chips ---- */

void irq_attach_chip(struct device *chip, enum irq_chip_role role, const struct irq_chip_ops *ops)
{
	struct irq_fabric *f = &chip->board->irq;

	if (role == IRQ_CHIP_PIC) {
		f->pic = chip;
		f->pic_ops = ops;
	} else {
		f->ioapic = chip;
		f->ioapic_ops = ops;
	}
}

void irq_pic_output(struct device *chip, bool level)
{
	struct irq_fabric *f = &chip->board->irq;

	capture(f, 1, 0, level);
	if (f->board->kvm)
		kvm_pic_output(f->board->kvm, level);
}

void irq_ioapic_route(struct device *chip, unsigned pin, uint64_t address, uint32_t data, bool masked, bool level_trig)
{
	struct board *b = chip->board;

	if (b->kvm)
		kvm_ioapic_route(b->kvm, pin, address, data, masked, level_trig);
}

void irq_ioapic_send(struct device *chip, uint64_t address, uint32_t data)
{
	send_msi(&chip->board->irq, address, data);
}

void irq_exit_eoi(struct board *b, uint8_t vector)
{
	struct irq_fabric *f = &b->irq;

	pthread_mutex_lock(&f->lock);
	if (f->ioapic && f->ioapic_ops->eoi)
		f->ioapic_ops->eoi(f->ioapic, vector);
	pthread_mutex_unlock(&f->lock);
}

uint8_t irq_exit_pic_ack(struct board *b)
{
	struct irq_fabric *f = &b->irq;
	uint8_t vector = 0;

	pthread_mutex_lock(&f->lock);
	if (f->pic)
		vector = f->pic_ops->ack(f->pic);
	pthread_mutex_unlock(&f->lock);
	return vector;
}

/* ---- life cycle ---- */

void irq_fabric_init(struct board *b)
{
	pthread_mutex_init(&b->irq.lock, NULL);
	b->irq.board = b;
	for (unsigned i = 0; i < N_PIRQ; i++)
		b->irq.pirq[i].gsi = -1;
}

void irq_fabric_clear(struct board *b, bool silent)
{
	struct irq_fabric *f = &b->irq;

	pthread_mutex_lock(&f->lock);
	f->silent = silent;
	for (struct device *d = b->devices; d; d = d->next)
		for (unsigned i = 0; i < DEVICE_MAX_IRQS; i++)
			d->irq[i].level = false;
	for (unsigned i = 0; i < N_PIRQ; i++) {
		f->pirq[i].asserted = 0;
		f->pirq[i].gsi = -1;
	}
	for (unsigned i = 0; i < N_GSI; i++)
		if (f->asserted[i]) {
			f->asserted[i] = 0;
			drive(f, i, false);
		}
	pthread_mutex_unlock(&f->lock);
}

void irq_fabric_settled(struct board *b)
{
	pthread_mutex_lock(&b->irq.lock);
	b->irq.silent = false;
	pthread_mutex_unlock(&b->irq.lock);
}

void irq_set_capture(struct board *b, irq_capture_fn *fn, void *opaque)
{
	pthread_mutex_lock(&b->irq.lock);
	b->irq.capture = fn;
	b->irq.capture_opaque = opaque;
	pthread_mutex_unlock(&b->irq.lock);
}

bool irq_gsi_level(struct board *b, unsigned gsi)
{
	bool level;

	pthread_mutex_lock(&b->irq.lock);
	level = gsi < N_GSI && b->irq.asserted[gsi];
	pthread_mutex_unlock(&b->irq.lock);
	return level;
}

/* ---- chips that live in KVM ---- */

bool irq_chips_in_kernel(struct device *dev)
{
	return dev->board->kvm && dev->board->config->machine.kernel_irqchip == IRQCHIP_ON;
}

#define KERNEL_CHIP(name, proto, call)         \
	int name proto                         \
	{                                      \
		if (!irq_chips_in_kernel(dev)) \
			return -ENOSYS;        \
		return call;                   \
	}
KERNEL_CHIP(irq_kernel_get_pic, (struct device * dev, unsigned which, struct pic_state *s),
	    kvm_get_pic(dev->board->kvm, which, s))
KERNEL_CHIP(irq_kernel_set_pic, (struct device * dev, unsigned which, const struct pic_state *s),
	    kvm_set_pic(dev->board->kvm, which, s))
KERNEL_CHIP(irq_kernel_get_ioapic, (struct device * dev, struct ioapic_state *s), kvm_get_ioapic(dev->board->kvm, s))
KERNEL_CHIP(irq_kernel_set_ioapic, (struct device * dev, const struct ioapic_state *s),
	    kvm_set_ioapic(dev->board->kvm, s))
KERNEL_CHIP(irq_kernel_get_pit, (struct device * dev, struct pit_channel_state ch[3]), kvm_get_pit(dev->board->kvm, ch))
KERNEL_CHIP(irq_kernel_set_pit, (struct device * dev, const struct pit_channel_state ch[3]),
	    kvm_set_pit(dev->board->kvm, ch))
KERNEL_CHIP(irq_kernel_pit_reinject, (struct device * dev, bool on), kvm_pit_reinject(dev->board->kvm, on))
