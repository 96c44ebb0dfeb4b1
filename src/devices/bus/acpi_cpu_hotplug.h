/* ACPI CPU hot-plug registers (acpi_cpu_hotplug.c), inside the power management function. */
#ifndef VMM_DEVICES_ACPI_CPU_HOTPLUG_H
#define VMM_DEVICES_ACPI_CPU_HOTPLUG_H

#include "vmm/hotplug.h"

#define CPU_HOTPLUG_BASE  0xaf00
#define CPU_HOTPLUG_PORTS 32 /* of which the modern interface uses 12 */
#define CPU_HOTPLUG_MAX   256

struct cpu_hotplug {
	struct board *board;
	/* guest-visible */
	bool modern; /* else the bitmap of APIC ids */
	uint32_t selector;
	uint8_t command;
	uint8_t inserting[CPU_HOTPLUG_MAX / 8], removing[CPU_HOTPLUG_MAX / 8];
	uint8_t ejected[CPU_HOTPLUG_MAX / 8]; /* given up by the guest, still to be stopped */
	uint32_t ost_event, ost_status;
	/* query-acpi-ospm-status: what was reported last of each. Not state: who takes the guest over has not been told
	 */
	struct {
		uint32_t event, status;
	} ost[CPU_HOTPLUG_MAX];
};

extern const struct state_table cpu_hotplug_state;

void cpu_hotplug_reset(struct cpu_hotplug *h);
uint64_t cpu_hotplug_read(struct cpu_hotplug *h, unsigned offset, unsigned size);
void cpu_hotplug_write(struct cpu_hotplug *h, unsigned offset, uint32_t value);
void cpu_hotplug_inserted(struct cpu_hotplug *h, unsigned index);
/* -ENOTSUP with QEMU's text while the guest has not switched to the modern interface: it could not eject. */
int cpu_hotplug_remove(struct cpu_hotplug *h, unsigned index, struct err *e);
bool cpu_hotplug_has_event(const struct cpu_hotplug *h);
void cpu_hotplug_settle(struct cpu_hotplug *h); /* after a load: ejections the source had not carried out */
void cpu_hotplug_gone(struct cpu_hotplug *h, unsigned index);
bool cpu_hotplug_ost(const struct cpu_hotplug *h, unsigned index, uint32_t *event, uint32_t *status);
bool cpu_hotplug_take_pending(struct cpu_hotplug *h, unsigned index);

#endif
