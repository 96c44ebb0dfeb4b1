/*
 * GSI routing: which interrupt an irqfd or KVM_IRQ_LINE raises. GSIs 0..23 are the board's: with kernel-irqchip=on they
 * go to the PICs and the IOAPIC, with split to the MSI of the IOAPIC pin, once the guest has programmed it. GSIs from
 * 24 up are handed out for MSI/MSI-X vectors.
 *
 * KVM_SET_GSI_ROUTING replaces the whole table and costs a grace period, so changes are collected and handed over by
 * the next one who needs them: a vCPU entry, kvm_signal_msi(), kvm_irqfd(). Source: api.rst 4.52 (KVM_SET_GSI_ROUTING),
 * 4.75 (KVM_IRQFD), 4.59 (KVM_IOEVENTFD), 4.70 (KVM_SIGNAL_MSI).
 */
#include "src/kvm/kvm_internal.h"

#include <stdlib.h>

/* on: 8 + 8 PIC inputs, 23 IOAPIC pins, then the MSIs. */
#define MAX_ROUTES (16 + IOAPIC_PINS + KVM_MAX_GSI)

static struct kvm_irq_routing_entry *find_msi(struct kvm_vm *vm, unsigned gsi)
{
	for (unsigned i = 0; i < vm->n_routes; i++)
		if (vm->routes[i].gsi == gsi && vm->routes[i].type == KVM_IRQ_ROUTING_MSI)
			return &vm->routes[i];
	return NULL;
}

static void add_chip_route(struct kvm_vm *vm, unsigned gsi, unsigned chip, unsigned pin)
{
	vm->routes[vm->n_routes++] = (struct kvm_irq_routing_entry){
		.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {.irqchip = chip, .pin = pin}};
}

/* kernel-irqchip=on: once routes are changed at all, the board's own have to be in the table, too. GSI 0 (the timer) is
   IOAPIC pin 2, as the MADT's override says. */
static void add_board_routes(struct kvm_vm *vm)
{
	for (unsigned gsi = 0; gsi < IOAPIC_PINS; gsi++) {
		if (gsi < 16)
			add_chip_route(vm, gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8);
		if (gsi == 0)
			add_chip_route(vm, 0, KVM_IRQCHIP_IOAPIC, 2);
		else if (gsi != 2)
			add_chip_route(vm, gsi, KVM_IRQCHIP_IOAPIC, gsi);
	}
}

void routing_init(struct kvm_vm *vm)
{
	vm->gsi_used[0] = (1ull << IOAPIC_PINS) - 1;
}

void routing_free(struct kvm_vm *vm)
{
	free(vm->routes);
}

/* The table is built when the first route is set: a guest without MSIs never pays for it. */
static void ensure_table(struct kvm_vm *vm)
{
	if (vm->routes)
		return;
	vm->routes = xcalloc(MAX_ROUTES, sizeof(*vm->routes));
	if (vm->irqchip == IRQCHIP_ON)
		add_board_routes(vm);
}

static int set_msi_locked(struct kvm_vm *vm, unsigned gsi, uint64_t address, uint32_t data)
{
	struct kvm_irq_routing_entry *r;

	ensure_table(vm);
	r = find_msi(vm, gsi);
	if (r && r->u.msi.address_lo == (uint32_t)address && r->u.msi.address_hi == (uint32_t)(address >> 32) &&
	    r->u.msi.data == data)
		return 0;
	if (!r) {
		if (vm->n_routes == MAX_ROUTES)
			return -ENOSPC;
		r = &vm->routes[vm->n_routes++];
	}
	*r = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = {.address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data}};
	atomic_store(&vm->routes_dirty, true);
	return 0;
}

int routing_flush(struct kvm_vm *vm)
{
	struct kvm_irq_routing *t;
	int r = 0;

	pthread_mutex_lock(&vm->routing_lock);
	if (atomic_load(&vm->routes_dirty)) {
		t = xzalloc(sizeof(*t) + vm->n_routes * sizeof(t->entries[0]));
		t->nr = vm->n_routes;
		memcpy(t->entries, vm->routes, vm->n_routes * sizeof(t->entries[0]));
		r = vm_ioctl(vm, KVM_SET_GSI_ROUTING, t);
		if (r < 0)
			log_error("kvm", "KVM refuses a table of %u interrupt routes: %s", vm->n_routes, strerror(-r));
		atomic_store(&vm->routes_dirty, false);
		free(t);
	}
	pthread_mutex_unlock(&vm->routing_lock);
	return r < 0 ? r : 0;
}

int kvm_ioapic_route(struct kvm_vm *vm, unsigned pin, uint64_t address, uint32_t data, bool masked, bool level_trig)
{
	int r = 0;

	if (pin >= IOAPIC_PINS || vm->irqchip != IRQCHIP_SPLIT)
		return -EINVAL;
	if (masked)
		return 0;
	/* KVM asks for EOI exits for routes whose trigger-mode bit says level. */
	data = level_trig ? data | BIT(15) : data & ~BIT(15);
	pthread_mutex_lock(&vm->routing_lock);
	r = set_msi_locked(vm, pin, address, data);
	pthread_mutex_unlock(&vm->routing_lock);
	return r;
}

int kvm_signal_msi(struct kvm_vm *vm, uint64_t address, uint32_t data)
{
	struct kvm_msi msi = {.address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};
	int r;

	/* The EOI of a level interrupt sent now must find its route. */
	if (atomic_load_explicit(&vm->routes_dirty, memory_order_acquire))
		routing_flush(vm);
	r = vm_ioctl(vm, KVM_SIGNAL_MSI, &msi);
	return r < 0 ? r : 0; /* r == 0: no CPU took it, which is the guest's choice */
}

int kvm_msi_route_alloc(struct kvm_vm *vm, struct err *e)
{
	int gsi = -1;

	pthread_mutex_lock(&vm->routing_lock);
	for (unsigned w = 0; w < ARRAY_SIZE(vm->gsi_used) && gsi < 0; w++)
		if (~vm->gsi_used[w]) {
			unsigned bit = (unsigned)__builtin_ctzll(~vm->gsi_used[w]);

			vm->gsi_used[w] |= BIT64(bit);
			gsi = (int)(w * 64 + bit);
		}
	pthread_mutex_unlock(&vm->routing_lock);
	if (gsi < 0)
		return err_set(e, ENOSPC, "all %u interrupt routes are taken: use fewer MSI-X vectors", KVM_MAX_GSI);
	return gsi;
}

int kvm_msi_route_set(struct kvm_vm *vm, int gsi, uint64_t address, uint32_t data)
{
	int r;

	if (gsi < IOAPIC_PINS || gsi >= KVM_MAX_GSI)
		return -EINVAL;
	pthread_mutex_lock(&vm->routing_lock);
	r = set_msi_locked(vm, (unsigned)gsi, address, data);
	pthread_mutex_unlock(&vm->routing_lock);
	return r;
}

void kvm_msi_route_free(struct kvm_vm *vm, int gsi)
{
	struct kvm_irq_routing_entry *r;

	if (gsi < IOAPIC_PINS || gsi >= KVM_MAX_GSI)
		return;
	pthread_mutex_lock(&vm->routing_lock);
	r = vm->routes ? find_msi(vm, (unsigned)gsi) : NULL;
	if (r) {
		*r = vm->routes[--vm->n_routes];
		atomic_store(&vm->routes_dirty, true);
	}
	vm->gsi_used[gsi / 64] &= ~BIT64(gsi % 64);
	pthread_mutex_unlock(&vm->routing_lock);
}

int kvm_irqfd(struct kvm_vm *vm, int gsi, int fd, int resample_fd, bool assign)
{
	struct kvm_irqfd k = {.fd = (uint32_t)fd, .gsi = (uint32_t)gsi};
	int r;

	if (!assign)
		k.flags |= KVM_IRQFD_FLAG_DEASSIGN;
	if (assign && resample_fd >= 0) {
		k.flags |= KVM_IRQFD_FLAG_RESAMPLE;
		k.resamplefd = (uint32_t)resample_fd;
	}
	if (atomic_load(&vm->routes_dirty))
		routing_flush(vm);
	r = vm_ioctl(vm, KVM_IRQFD, &k);
	return r < 0 ? r : 0;
}

int kvm_ioeventfd(struct kvm_vm *vm, bool pio, uint64_t addr, unsigned len, bool match, uint64_t value, int fd,
		  bool assign)
{
	struct kvm_ioeventfd k = {.addr = addr, .len = len, .fd = fd, .datamatch = value};
	int r;

	if (len == 0 && !vm->caps.ioeventfd_any_length)
		return -ENOTSUP;
	if (pio)
		k.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (match && len)
		k.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	if (!assign)
		k.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	r = vm_ioctl(vm, KVM_IOEVENTFD, &k);
	return r < 0 ? r : 0;
}
