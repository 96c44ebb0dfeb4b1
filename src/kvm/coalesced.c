/*
 * Coalesced writes: the guest's writes to zones where a device may learn of them a little later go into a ring that KVM
 * fills without leaving the guest. Source: api.rst 4.116 (KVM_(UN)REGISTER_COALESCED_MMIO).
 *
 * The ring belongs to the VM. It is emptied before any exit is handled, so a vCPU's own writes keep their order;
 * whoever finds it empty knows that all of it was delivered, because an entry leaves the ring after its handler has
 * returned. Zones are never taken back: where RAM is mapped over one KVM has nothing to coalesce, and a write to
 * nothing stays one.
 */
#include "src/kvm/kvm_internal.h"

#define PAGE_SIZE 4096u /* KVM_COALESCED_MMIO_MAX is made of it */

static int register_zone(struct kvm_vm *vm, const struct coalesced_zone *z)
{
	struct kvm_coalesced_mmio_zone k = {.addr = z->addr, .size = z->size, .pio = z->pio};

	return vm_ioctl(vm, KVM_REGISTER_COALESCED_MMIO, &k);
}

void coalesced_register(struct kvm_vm *vm)
{
	struct coalesced *c = &vm->coalesced;

	if (!c->ring_page)
		return;
	pthread_mutex_lock(&c->zone_lock);
	for (; c->n_registered < c->n_zones; c->n_registered++)
		if (register_zone(vm, &c->zone[c->n_registered]) < 0)
			log_debug("kvm", "writes to 0x%llx are not coalesced",
				  (unsigned long long)c->zone[c->n_registered].addr);
	pthread_mutex_unlock(&c->zone_lock);
}

void kvm_coalesce_writes(struct kvm_vm *vm, bool pio, uint64_t addr, uint32_t size)
{
	struct coalesced *c = &vm->coalesced;
	bool known = !c->ring_page || (pio && !c->pio), ready;

	pthread_mutex_lock(&c->zone_lock);
	for (unsigned i = 0; i < c->n_zones; i++)
		known |= c->zone[i].addr == addr && c->zone[i].pio == pio;
	if (!known && c->n_zones < COALESCED_ZONES)
		c->zone[c->n_zones++] = (struct coalesced_zone){addr, size, pio};
	pthread_mutex_unlock(&c->zone_lock);
	pthread_mutex_lock(&vm->setup.lock);
	ready = vm->setup.done;
	pthread_mutex_unlock(&vm->setup.lock);
	if (!known && ready) /* else with the next memory list, on the helper thread: it waits for a grace period */
		coalesced_register(vm);
}

void coalesced_init(struct kvm_vm *vm)
{
	int page = vm_check_extension(vm, KVM_CAP_COALESCED_MMIO);

	pthread_mutex_init(&vm->coalesced.zone_lock, NULL);
	pthread_mutex_init(&vm->coalesced.drain_lock, NULL);
	if (page > 0 && ((size_t)page + 1) * PAGE_SIZE <= vm->run_size)
		vm->coalesced.ring_page = (unsigned)page;
	vm->coalesced.pio = vm_check_extension(vm, KVM_CAP_COALESCED_PIO) > 0;
}

void coalesced_map(struct kvm_vm *vm, struct kvm_run *run)
{
	struct coalesced *c = &vm->coalesced;

	if (c->ring_page && !c->ring)
		c->ring = (struct kvm_coalesced_mmio_ring *)((uint8_t *)run + c->ring_page * PAGE_SIZE);
}

void coalesced_free(struct kvm_vm *vm)
{
	pthread_mutex_destroy(&vm->coalesced.zone_lock);
	pthread_mutex_destroy(&vm->coalesced.drain_lock);
}

static bool is_empty(const struct kvm_coalesced_mmio_ring *ring)
{
	return __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE) == __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);
}

bool kvm_coalesced_waiting(struct kvm_vm *vm)
{
	return vm->coalesced.ring && !is_empty(vm->coalesced.ring);
}

void coalesced_drain(struct kvm_vm *vm)
{
	struct kvm_coalesced_mmio_ring *ring = vm->coalesced.ring;

	if (!ring || is_empty(ring))
		return;
	pthread_mutex_lock(&vm->coalesced.drain_lock);
	while (!is_empty(ring)) {
		uint32_t first = ring->first % KVM_COALESCED_MMIO_MAX;
		struct kvm_coalesced_mmio w = ring->coalesced_mmio[first];

		w.len = MIN(w.len, (uint32_t)sizeof(w.data));
		if (w.pio)
			vm->ops->pio(vm->opaque, (uint16_t)w.phys_addr, true, w.data, w.len, 1);
		else
			vm->ops->mmio(vm->opaque, w.phys_addr, true, w.data, w.len);
		__atomic_store_n(&ring->first, (first + 1) % KVM_COALESCED_MMIO_MAX, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&vm->coalesced.drain_lock);
}
