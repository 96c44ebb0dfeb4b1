/*
 * Interrupts. A device drives `struct irq_line`s and sends MSIs; it does not know whether KVM's chips or our own are
 * behind them. The fabric (src/machine/irq.c) ORs the lines that share an input (a GSI or a PCI PIRQ) and drives the
 * interrupt controllers. All calls are leaf services: any thread, any device lock held.
 */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include <stdbool.h>
#include <stdint.h>
#include "vmm/err.h"

struct device;
struct irq_fabric;

enum irq_input_kind {
	IRQ_NONE, /* not wired */
	IRQ_GSI,  /* ISA IRQ 0..15 / IOAPIC pin 0..23 (GSI 0 is IOAPIC pin 2) */
	IRQ_PIRQ, /* PCI interrupt router input PIRQA..PIRQD (0..3); PIIX3 routes it to a GSI */
};

struct irq_line {
	struct irq_fabric *fabric;
	enum irq_input_kind kind;
	uint8_t input;
	bool level; /* what this source drives at present */
};

/* Drive the line; no-op when the level does not change or the line is not wired. */
void irq_set(struct irq_line *line, bool level);
/* The same by name. */
static inline void irq_raise(struct irq_line *line)
{
	irq_set(line, true);
}
static inline void irq_lower(struct irq_line *line)
{
	irq_set(line, false);
}
/* An edge: up and down. */
void irq_pulse(struct irq_line *line);

/* Deliver a message-signalled interrupt (address 0xFEExxxxx, x86 format). */
void irq_msi(struct device *dev, uint64_t address, uint32_t data);
/* PIIX3: PIRQ n (0..3) goes to ISA IRQ gsi, or nowhere (-1). Levels follow at once. */
void irq_route_pirq(struct device *dev, unsigned pirq, int gsi);

/*
 * The chips' side, used by our own i8259 and IOAPIC (split irqchip and qtest). The fabric owns ONE leaf mutex; these
 * chips use it as their device lock (device_class.lock_is_fabric), so that any device may drive a line into them.
 */
struct irq_chip_ops {
	/* GSI input changed. Fabric lock held. */
	void (*set_input)(struct device *chip, unsigned pin, bool level);
	/* IOAPIC only: the local APICs broadcast an EOI for this vector. Fabric lock held. */
	void (*eoi)(struct device *chip, uint8_t vector);
	/* PIC only: the CPU acknowledges: returns the vector (spurious: IRQ 7's). Fabric lock held. */
	uint8_t (*ack)(struct device *chip);
};
enum irq_chip_role { IRQ_CHIP_PIC, IRQ_CHIP_IOAPIC };
/* In create(). ops are used from then on. */
void irq_attach_chip(struct device *chip, enum irq_chip_role role, const struct irq_chip_ops *ops);
/* PIC: the INTR output (to LINT0/ExtINT of the boot CPU). Fabric lock held. */
void irq_pic_output(struct device *chip, bool level);
/* IOAPIC: routes changed: pin -> MSI (address, data) or masked; lets KVM know which vectors need EOI exits. Fabric lock
 * held. */
void irq_ioapic_route(struct device *chip, unsigned pin, uint64_t address, uint32_t data, bool masked, bool level_trig);
/* IOAPIC: send the interrupt of an unmasked pin. Fabric lock held. */
void irq_ioapic_send(struct device *chip, uint64_t address, uint32_t data);

/*
 * kernel-irqchip=on: the chip's state lives in KVM. The chip files use one state format for both and call these in
 * pre_save, post_load/settle and reset. Structures below mirror the architected chip state, not KVM's ABI;
 * src/kvm/irqchip.c converts. Each returns 0 or -errno; -ENOSYS when the chip is ours.
 */
struct pic_state { /* one 8259A; layout follows the data sheet's registers */
	uint8_t last_irr, irr, imr, isr, priority_add, irq_base, read_reg_select, poll, special_mask, init_state;
	uint8_t auto_eoi, rotate_on_auto_eoi, special_fully_nested_mode, init4, elcr, elcr_mask;
};
struct ioapic_state {
	uint32_t id, ioregsel, irr;
	uint64_t base_address, redirtbl[24];
};
struct pit_channel_state {
	uint32_t count; /* 1..65536 */
	uint16_t latched_count;
	uint8_t count_latched, status_latched, status, read_state, write_state, write_latch, rw_mode, mode, bcd, gate;
	int64_t count_load_ns; /* VCLOCK_VIRTUAL time at which the count was loaded */
};
bool irq_chips_in_kernel(struct device *dev); /* PIC, IOAPIC and PIT live in KVM */
/* which: 0 master, 1 slave. */
int irq_kernel_get_pic(struct device *dev, unsigned which, struct pic_state *s);
int irq_kernel_set_pic(struct device *dev, unsigned which, const struct pic_state *s);
int irq_kernel_get_ioapic(struct device *dev, struct ioapic_state *s);
int irq_kernel_set_ioapic(struct device *dev, const struct ioapic_state *s);
int irq_kernel_get_pit(struct device *dev, struct pit_channel_state ch[3]);
int irq_kernel_set_pit(struct device *dev, const struct pit_channel_state ch[3]);
/* Whether KVM's PIT delivers ticks again that the guest had no time to take (lost_tick_policy=delay). */
int irq_kernel_pit_reinject(struct device *dev, bool on);

#endif
