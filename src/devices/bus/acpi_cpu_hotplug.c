/*
 * The registers through which the guest's ACPI code learns of vCPUs that came or shall go. They start as a read-only
 * bitmap of APIC ids ("legacy"); writing 0 to its first byte switches to selector, status and command registers, until
 * the next reset.
 *
 * Source: QEMU docs/specs/acpi_cpu_hotplug.rst. Left out: bit 4 of the status register, by which an OS hands the
 * ejection to firmware in system management mode, which this machine does not have.
 */
#include "acpi_cpu_hotplug.h"

#include <errno.h>

enum { REG_SELECTOR = 0x0, REG_DATA2 = 0x0, REG_STATUS = 0x4, REG_COMMAND = 0x5, REG_DATA = 0x8, MODERN_PORTS = 12 };
enum { STATUS_ENABLED = BIT(0), STATUS_INSERT = BIT(1), STATUS_REMOVE = BIT(2), STATUS_EJECT = BIT(3) };
enum { COMMAND_NEXT_EVENT = 0, COMMAND_OST_EVENT = 1, COMMAND_OST_STATUS = 2, COMMAND_ARCH_ID = 3 };

static bool get(const uint8_t *map, unsigned index)
{
	return map[index / 8] & BIT(index % 8);
}

static void set(uint8_t *map, unsigned index, bool on)
{
	if (on)
		map[index / 8] |= BIT(index % 8);
	else
		map[index / 8] &= ~BIT(index % 8);
}

static bool possible(const struct cpu_hotplug *h, uint32_t index)
{
	return index < board_max_cpus(h->board);
}

void cpu_hotplug_reset(struct cpu_hotplug *h)
{
	struct cpu_hotplug fresh = {.board = h->board};

	memcpy(fresh.ejected, h->ejected, sizeof(fresh.ejected)); /* what was ejected stays so */
	*h = fresh;
}

void cpu_hotplug_settle(struct cpu_hotplug *h)
{
	for (unsigned i = 1; i < board_max_cpus(h->board); i++)
		if (get(h->ejected, i))
			machine_eject_cpu(h->board, i);
}

void cpu_hotplug_gone(struct cpu_hotplug *h, unsigned index)
{
	set(h->ejected, index, false);
}

/* ---- legacy ---- */

static uint8_t legacy_byte(const struct cpu_hotplug *h, unsigned offset)
{
	uint8_t v = 0;

	for (unsigned i = 0; i < board_max_cpus(h->board); i++) {
		uint32_t id = machine_cpu_apic_id(h->board, i);

		if (id / 8 == offset && machine_cpu_present(h->board, i))
			v |= BIT(id % 8);
	}
	return v;
}

/* ---- modern ---- */

static uint8_t status(const struct cpu_hotplug *h)
{
	uint8_t v = machine_cpu_present(h->board, h->selector) ? STATUS_ENABLED : 0;

	v |= get(h->inserting, h->selector) ? STATUS_INSERT : 0;
	v |= get(h->removing, h->selector) ? STATUS_REMOVE : 0;
	return v;
}

static void next_event(struct cpu_hotplug *h)
{
	unsigned n = board_max_cpus(h->board);

	for (unsigned k = 0; k < n; k++) {
		unsigned i = (h->selector + k) % n;

		if (get(h->inserting, i) || get(h->removing, i)) {
			h->selector = i;
			return;
		}
	}
}

static void write_status(struct cpu_hotplug *h, uint8_t v)
{
	if (v & STATUS_INSERT) {
		set(h->inserting, h->selector, false);
	} else if (v & STATUS_REMOVE) {
		set(h->removing, h->selector, false);
	} else if (v & STATUS_EJECT) {
		set(h->inserting, h->selector, false);
		set(h->removing, h->selector, false);
		if (h->selector && machine_cpu_present(h->board, h->selector))
			set(h->ejected, h->selector, true);
		machine_eject_cpu(h->board, h->selector);
	}
}

static void write_data(struct cpu_hotplug *h, uint32_t v)
{
	if (h->command == COMMAND_OST_EVENT) {
		h->ost_event = v;
	} else if (h->command == COMMAND_OST_STATUS) {
		h->ost_status = v;
		h->ost[h->selector].event = h->ost_event;
		h->ost[h->selector].status = v;
		machine_cpu_ost(h->board, h->selector, h->ost_event, h->ost_status);
	}
}

uint64_t cpu_hotplug_read(struct cpu_hotplug *h, unsigned offset, unsigned size)
{
	uint64_t v = 0;

	if (!h->modern) {
		for (unsigned i = 0; i < size; i++)
			v |= (uint64_t)legacy_byte(h, offset + i) << 8 * i;
		return v;
	}
	if (!possible(h, h->selector))
		return 0;
	switch (offset) {
	case REG_STATUS:
		return status(h);
	case REG_DATA:
		return h->command == COMMAND_NEXT_EVENT ? h->selector
		       : h->command == COMMAND_ARCH_ID  ? machine_cpu_apic_id(h->board, h->selector)
							: 0;
	default: /* REG_DATA2: the upper half of an APIC id */
		return 0;
	}
}

void cpu_hotplug_write(struct cpu_hotplug *h, unsigned offset, uint32_t value)
{
	if (!h->modern) {
		h->modern = offset == 0 && value == 0;
		return;
	}
	if (offset == REG_SELECTOR)
		h->selector = value;
	if (!possible(h, h->selector))
		return;
	if (offset == REG_STATUS) {
		write_status(h, (uint8_t)value);
	} else if (offset == REG_COMMAND) {
		h->command = (uint8_t)value;
		if (h->command == COMMAND_NEXT_EVENT)
			next_event(h);
	} else if (offset == REG_DATA) {
		write_data(h, value);
	}
}

/* ---- the board's side ---- */

void cpu_hotplug_inserted(struct cpu_hotplug *h, unsigned index)
{
	set(h->removing, index, false);
	set(h->inserting, index, true);
}

int cpu_hotplug_remove(struct cpu_hotplug *h, unsigned index, struct err *e)
{
	if (!h->modern)
		return err_set(e, ENOTSUP,
			       "acpi: device unplug request for not supported device type: the guest has not started "
			       "using CPU hot-plug");
	set(h->removing, index, true);
	return 0;
}

bool cpu_hotplug_has_event(const struct cpu_hotplug *h)
{
	for (unsigned i = 0; i < CPU_HOTPLUG_MAX / 8; i++)
		if (h->inserting[i] | h->removing[i])
			return true;
	return false;
}

bool cpu_hotplug_ost(const struct cpu_hotplug *h, unsigned index, uint32_t *event, uint32_t *status)
{
	*event = h->ost[index].event;
	*status = h->ost[index].status;
	return h->modern;
}

bool cpu_hotplug_take_pending(struct cpu_hotplug *h, unsigned index)
{
	bool pending = get(h->removing, index);

	set(h->removing, index, false);
	return pending;
}

static int post_load(void *obj, uint16_t version, struct err *e)
{
	struct cpu_hotplug *h = obj;

	for (unsigned i = 0; i < CPU_HOTPLUG_MAX; i++)
		if (!possible(h, i) && (get(h->inserting, i) || get(h->removing, i) || get(h->ejected, i)))
			return err_set(e, EINVAL,
				       "CPU hot-plug: an event for CPU %u, but this machine can have only %u", i,
				       board_max_cpus(h->board));
	return 0;
}

static const struct state_field fields[] = {
	STATE_B(struct cpu_hotplug, modern),
	STATE_U(struct cpu_hotplug, selector),
	STATE_U(struct cpu_hotplug, command),
	STATE_BUF(struct cpu_hotplug, inserting),
	STATE_BUF(struct cpu_hotplug, removing),
	STATE_BUF(struct cpu_hotplug, ejected),
	STATE_U(struct cpu_hotplug, ost_event),
	STATE_U(struct cpu_hotplug, ost_status),
	STATE_FIELDS_END,
};

const struct state_table cpu_hotplug_state = {
	.name = "acpi_cpu_hotplug", .version = 1, .oldest = 1, .fields = fields, .post_load = post_load};
