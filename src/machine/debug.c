/* The machine under a debugger: see vmm/debug.h. */
#include "vmm/debug.h"

#include <errno.h>
#include "board.h"

void machine_set_debugger(struct board *b, const struct machine_debugger *d, void *opaque)
{
	bool running = machine_running(b) && b->kvm;

	/* No vCPU may be inside trapped() while it changes. */
	if (running)
		kvm_vcpus_pause(b->kvm);
	b->debugger = d;
	b->debugger_opaque = opaque;
	if (running)
		kvm_vcpus_resume(b->kvm);
}

bool debug_exit(struct board *b, unsigned cpu, const struct kvm_trap *trap)
{
	if (!b->debugger || !b->debugger->trapped(b->debugger_opaque, cpu, trap))
		return false;
	machine_request_debug_stop(b);
	return true;
}

void debug_after_reset(struct board *b)
{
	if (b->debugger)
		b->debugger->reset(b->debugger_opaque);
}

unsigned machine_cpu_count(struct board *b)
{
	return b->kvm ? kvm_vcpu_count(b->kvm) : 0;
}

static struct kvm_vcpu *find_cpu(struct board *b, unsigned cpu)
{
	return b->kvm ? kvm_vcpu_get(b->kvm, cpu) : NULL;
}

bool machine_has_cpu(struct board *b, unsigned cpu)
{
	return find_cpu(b, cpu) != NULL;
}

int machine_get_cpu_regs(struct board *b, unsigned cpu, struct cpu_regs *r)
{
	struct kvm_vcpu *c = find_cpu(b, cpu);

	return c ? kvm_vcpu_get_regs(c, r) : -ENOENT;
}

int machine_set_cpu_regs(struct board *b, unsigned cpu, const struct cpu_regs *r)
{
	struct kvm_vcpu *c = find_cpu(b, cpu);

	return c ? kvm_vcpu_set_regs(c, r) : -ENOENT;
}

int machine_set_cpu_debug(struct board *b, unsigned cpu, const struct kvm_debug *d, bool frozen)
{
	struct kvm_vcpu *c = find_cpu(b, cpu);
	bool running = machine_running(b);
	int r;

	if (!c)
		return -ENOENT;
	if (running)
		kvm_vcpus_pause(b->kvm);
	kvm_vcpu_freeze(c, frozen);
	r = kvm_vcpu_set_debug(c, d);
	if (running)
		kvm_vcpus_resume(b->kvm);
	return r;
}

bool machine_cpu_has_long_mode(struct board *b)
{
	return b->kvm && kvm_cpu_has_long_mode(b->kvm);
}

bool machine_can_step_without_irqs(struct board *b)
{
	return b->kvm && kvm_can_block_irqs(b->kvm);
}

/* ---- memory ---- */

/* A register is reached by an access of its width: aligned words as far as they go. */
static size_t device_part(uint64_t addr, size_t len)
{
	for (size_t size = 4; size > 1; size /= 2)
		if (len >= size && addr % size == 0)
			return size;
	return 1;
}

static size_t debug_access(struct board *b, uint64_t addr, uint8_t *buf, size_t len, bool write)
{
	size_t done = 0;

	while (done < len) {
		uint64_t avail, offset;
		struct ram_block *rb;
		size_t part;
		void *host = map_ram_ptr(b, addr + done, false, &avail, &rb, &offset);

		if (host) {
			part = MIN(len - done, avail);
			if (write) {
				memcpy(host, buf + done, part);
				ram_block_mark_dirty(rb, offset, part);
			} else {
				memcpy(buf + done, host, part);
			}
		} else if (map_is_mapped(b, addr + done)) {
			part = device_part(addr + done, len - done);
			if (write)
				map_mem_write(b, addr + done, buf + done, part);
			else
				map_mem_read(b, addr + done, buf + done, part);
		} else {
			break;
		}
		done += part;
	}
	return done;
}

size_t machine_debug_read(struct board *b, uint64_t addr, void *buf, size_t len)
{
	return debug_access(b, addr, buf, len, false);
}

size_t machine_debug_write(struct board *b, uint64_t addr, const void *buf, size_t len)
{
	return debug_access(b, addr, (uint8_t *)(uintptr_t)buf, len, true);
}
