/*
 * The dirty ring, the other way in which KVM tells what the guest wrote (-accel kvm,dirty-ring-size=N): instead of one
 * bitmap for each memory slot a ring for each vCPU, into which KVM puts the pages this vCPU wrote. Source: api.rst 8.29
 * (KVM_CAP_DIRTY_LOG_RING, _ACQ_REL). It replaces KVM_GET_DIRTY_LOG and excludes manual protection.
 *
 * An entry is taken in three steps: read, given back (flag RESET), and write-protected again by KVM_RESET_DIRTY_RINGS.
 * All happens under slots_lock, and so does reading the result: nobody sees a page as written before its next write
 * would be seen again. A vCPU whose ring is full leaves the guest and empties all rings itself.
 *
 * Pages end in the slots' carry bitmaps, where kvm_get_dirty() finds them. How many each vCPU wrote is counted.
 */
#include "src/kvm/kvm_internal.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE       4096ull
#define WORD_PAGES 64ull

int ring_enable(struct kvm_vm *vm, uint32_t entries, struct err *e)
{
	uint64_t bytes = (uint64_t)entries * sizeof(struct kvm_dirty_gfn);
	int cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL, max = vm_check_extension(vm, cap);
	struct kvm_enable_cap ec = {0};
	int r;

	if (max <= 0) {
		cap = KVM_CAP_DIRTY_LOG_RING;
		max = vm_check_extension(vm, cap);
	}
	if (max <= 0) {
		log_warn("kvm", "KVM dirty ring not available, using bitmap method");
		return 0;
	}
	if (bytes > (uint64_t)max)
		return err_set(e, EINVAL, "KVM dirty ring size %u too big (maximum is %u). Please use a smaller value.",
			       entries, (unsigned)((size_t)max / sizeof(struct kvm_dirty_gfn)));
	ec.cap = (uint32_t)cap;
	ec.args[0] = bytes;
	r = vm_ioctl(vm, KVM_ENABLE_CAP, &ec);
	if (r < 0)
		return err_errno(e, -r, "Enabling of KVM dirty ring failed. Suggested minimum value is 1024");
	vm->ring_entries = entries;
	return 0;
}

int ring_map(struct kvm_vcpu *c, struct err *e)
{
	size_t size = c->vm->ring_entries * sizeof(struct kvm_dirty_gfn);

	if (!size)
		return 0;
	c->ring = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, KVM_DIRTY_LOG_PAGE_OFFSET * (off_t)PAGE);
	if (c->ring != MAP_FAILED)
		return 0;
	c->ring = NULL;
	return err_errno(e, errno, "cannot map the dirty ring of CPU %u", c->index);
}

void ring_unmap(struct kvm_vcpu *c)
{
	if (c->ring)
		munmap(c->ring, c->vm->ring_entries * sizeof(struct kvm_dirty_gfn));
	c->ring = NULL;
}

/* slots_lock is held. An entry may be of a slot that has gone, whose pages all count as written (machine/dirty.c), and
   its id may be another one's by now: a page too many there. */
static void mark(struct kvm_vm *vm, uint32_t id, uint64_t page)
{
	for (size_t i = 0; i < vm->n_slots; i++) {
		struct slot *s = &vm->slots[i];

		if (s->id != id)
			continue;
		if (page >= s->size / PAGE || slot_carry(s))
			return;
		s->carry[page / WORD_PAGES] |= 1ul << page % WORD_PAGES;
		return;
	}
}

/* What is in one ring; slots_lock is held. */
static uint32_t collect(struct kvm_vm *vm, struct kvm_vcpu *c)
{
	uint32_t n = 0;

	for (; n < vm->ring_entries; n++) {
		struct kvm_dirty_gfn *g = &c->ring[c->ring_next % vm->ring_entries];

		if (!(__atomic_load_n(&g->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			break;
		mark(vm, g->slot & 0xffff, g->offset); /* the high half is the address space: SMM, which is not used */
		__atomic_store_n(&g->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		c->ring_next++;
	}
	atomic_fetch_add_explicit(&c->ring_pages, n, memory_order_relaxed);
	return n;
}

void ring_reap_locked(struct kvm_vm *vm)
{
	uint64_t n = 0;
	int r;

	for (unsigned i = 0; i < vm->n_vcpus; i++)
		if (vm->vcpus[i] && vm->vcpus[i]->ring)
			n += collect(vm, vm->vcpus[i]);
	if (!n)
		return;
	r = vm_ioctl(vm, KVM_RESET_DIRTY_RINGS, NULL);
	if (r < 0)
		log_error("kvm", "KVM_RESET_DIRTY_RINGS: error %d; the guest's writes may go unnoticed", -r);
}

void ring_full(struct kvm_vcpu *c)
{
	pthread_mutex_lock(&c->vm->slots_lock);
	ring_reap_locked(c->vm);
	pthread_mutex_unlock(&c->vm->slots_lock);
}

bool kvm_vcpu_dirty_pages(struct kvm_vcpu *c, uint64_t *pages)
{
	*pages = atomic_load_explicit(&c->ring_pages, memory_order_relaxed);
	return c->ring;
}
