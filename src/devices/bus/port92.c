/*
 * System control port A (port 92h of PS/2 and later): A20 gate and fast reset.
 *
 * Source: IBM PS/2 Hardware Interface Technical Reference, "System Control Port A".
 * Left out: bit 1 keeps what is written but address line 20 is never masked, because KVM offers no A20 mask; it starts
 * as 1, which is what a program that tests for wrap-around finds. The fast reset resets the whole board. The password
 * lock and the drive lamps (bits 3, 6, 7) only hold their value.
 */
#include "vmm/device.h"

#define FAST_RESET 0x01
#define A20        0x02

struct port92 {
	struct device dev;
	uint8_t value;
};

static uint64_t port92_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return DEVICE(dev, struct port92)->value;
}

static void port92_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct port92 *p = DEVICE(dev, struct port92);
	bool was = p->value & FAST_RESET;
	p->value = value;
	if (value & FAST_RESET && !was)
		machine_request_reset(dev->board, SHUTDOWN_GUEST_RESET);
}

static const struct region_ops port92_ops = {.read = port92_read, .write = port92_write, .max_access = 1};
static const struct region_desc port92_regions[] = {
	{.name = "port92", .space = SPACE_PIO, .base = 0x92, .size = 1, .bar = REGION_NOT_BAR, .ops = &port92_ops},
};

static void port92_reset(struct device *dev)
{
	DEVICE(dev, struct port92)->value = A20;
}

static const struct prop port92_props[] = {PROP_END};

static const struct state_field port92_fields[] = {
	STATE_U(struct port92, value),
	STATE_FIELDS_END,
};
static const struct state_table port92_state = {.name = "port92", .version = 1, .oldest = 1, .fields = port92_fields};

DEVICE_CLASS(port92) = {
	.name = "port92",
	.summary = "system control port A: A20 gate, fast reset",
	.bus = BUS_SYSTEM,
	.category = "Misc",
	.size = sizeof(struct port92),
	.props = port92_props,
	.regions = port92_regions,
	.n_regions = ARRAY_SIZE(port92_regions),
	.state = &port92_state,
	.reset = port92_reset,
};
