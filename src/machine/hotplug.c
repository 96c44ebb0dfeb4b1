/*
 * Devices that come and go while the guest runs: see vmm/hotplug.h for the four steps of a removal. A PCI function goes
 * when the guest has ejected its slot, with all functions of that slot; what is on another bus goes at once. Children
 * (ports of a controller) go before their parent.
 *
 * Source: QEMU docs/specs/acpi_pci_hotplug.rst for who does what; error texts are QEMU 7.2's, clients match them.
 */
#include "board.h"

#include <errno.h>
#include <stdlib.h>
#include "vmm/pci.h"

void machine_register_hotplug(struct device *dev, const struct hotplug_ops *ops)
{
	dev->board->hotplug_dev = dev;
	dev->board->hotplug_ops = ops;
}

/* ---- slots ---- */

void hotplug_slots_changed(struct board *b)
{
	uint32_t removable = UINT32_MAX;

	for (struct device *d = b->devices; d; d = d->next)
		if (d->pci && !d->class->hotpluggable)
			removable &= ~BIT(d->pci->devfn >> 3);
	__atomic_store_n(&b->removable_slots, removable, __ATOMIC_RELAXED);
}

uint32_t machine_removable_slots(const struct board *board)
{
	return __atomic_load_n(&board->removable_slots, __ATOMIC_RELAXED);
}

bool machine_slot_ejected(const struct board *board, unsigned slot)
{
	return __atomic_load_n(&board->ejected_slots, __ATOMIC_RELAXED) & BIT(slot);
}

static bool pci_offered(struct board *b)
{
	bool offered;

	if (!b->hotplug_dev || b->config->machine.acpi == 0)
		return false;
	pthread_mutex_lock(b->hotplug_dev->lock);
	offered = b->hotplug_ops->pci_offered(b->hotplug_dev);
	pthread_mutex_unlock(b->hotplug_dev->lock);
	return offered;
}

/* ---- adding ---- */

static const char *bus_of(const struct device_class *c)
{
	switch (c->bus) {
	case BUS_PCI:
		return "pci.0";
	case BUS_ISA:
		return "isa.0";
	case BUS_IDE:
		return "ide.0";
	case BUS_FLOPPY:
		return "floppy-bus.0";
	case BUS_SMBUS:
		return "i2c";
	default:
		return "main-system-bus";
	}
}

int hotplug_check(struct board *b, const struct device_class *c, struct err *e)
{
	if (!c->hotpluggable && c->bus == BUS_PCI)
		return err_set(
			e, EINVAL,
			"Parameter 'driver' expects a pluggable device type: '%s' can only be there from the start",
			c->name);
	if (!c->hotpluggable || (c->bus == BUS_PCI && !pci_offered(b)))
		return err_set(e, EINVAL, "Bus '%s' does not support hotplugging", bus_of(c));
	return 0;
}

void hotplug_device_added(struct device *dev)
{
	struct board *b = dev->board;

	hotplug_slots_changed(b);
	b->firmware_stale = true;
	/* Functions 1 to 7 wait for function 0, which shows them all. */
	if (!dev->pci || dev->pci->devfn & 7 || !b->hotplug_dev)
		return;
	pthread_mutex_lock(b->hotplug_dev->lock);
	b->hotplug_ops->pci_inserted(b->hotplug_dev, dev->pci->devfn >> 3);
	pthread_mutex_unlock(b->hotplug_dev->lock);
}

/* ---- removing ---- */

static bool has_children(const struct device *dev)
{
	for (struct device *d = dev->board->devices; d; d = d->next)
		if (d->parent == dev)
			return true;
	return false;
}

/* A virtio function and the device behind it are two objects in QEMU, and each is told to be gone. */
static void emit_deleted(const struct device *dev)
{
	const char *folder = dev->user_id ? "peripheral" : "peripheral-anon";
	char *data;

	if (dev->pci && !strncmp(dev->class->name, "virtio-", 7)) {
		data = xasprintf("{\"path\": \"/machine/%s/%s/virtio-backend\"}", folder, dev->id);
		machine_event(dev->board, "DEVICE_DELETED", data);
		free(data);
	}
	if (dev->user_id)
		data = xasprintf("{\"device\": \"%s\", \"path\": \"/machine/%s/%s\"}", dev->id, folder, dev->id);
	else
		data = xasprintf("{\"path\": \"/machine/%s/%s\"}", folder, dev->id);
	machine_event(dev->board, "DEVICE_DELETED", data);
	free(data);
}

/* Off its bus, no vCPU inside, nothing in flight. */
static void finish(void *opaque)
{
	struct device *dev = opaque, *parent = dev->parent;
	struct board *b = dev->board;

	if (b->quitting)
		return;
	dev->awaits_children = has_children(dev);
	if (dev->awaits_children) /* the last one comes back for its parent */
		return;
	if (!dev->withdrawn)
		emit_deleted(dev);
	lifecycle_release_quiesce(dev);
	device_dispose(dev);
	hotplug_slots_changed(b);
	b->firmware_stale = true;
	if (parent && parent->awaits_children)
		finish(parent);
}

void hotplug_device_quiesced(struct device *dev)
{
	loop_post(loop_main(), NULL, finish, dev);
}

/* The grace period is over. */
static void quiesce(void *opaque)
{
	struct device *dev = opaque;

	if (dev->board->quitting)
		return;
	pthread_mutex_lock(dev->lock);
	if (dev->quiesced) { /* with the whole machine */
		hotplug_device_quiesced(dev);
	} else if (!dev->class->quiesce) {
		device_quiesced(dev);
	} else if (!dev->quiesce_asked) {
		dev->quiesce_asked = true;
		dev->class->quiesce(dev);
	}
	pthread_mutex_unlock(dev->lock);
}

static void leave(struct device *dev)
{
	if (dev->leaving)
		return;
	for (struct device *d = dev->board->devices; d; d = d->next)
		if (d->parent == dev)
			leave(d);
	pthread_mutex_lock(dev->lock);
	dev->leaving = true;
	pthread_mutex_unlock(dev->lock);
	device_unmap(dev);
	map_call_after_grace(dev->board, quiesce, dev);
}

/* The whole machine stands still: nobody can be inside and nothing is in flight. */
static void leave_now(struct device *dev)
{
	for (struct device *d = dev->board->devices, *next; d; d = next) {
		next = d->next;
		if (d->parent == dev) {
			leave_now(d);
			next = dev->board->devices; /* its children went with it */
		}
	}
	dev->leaving = true;
	device_unmap(dev);
	finish(dev);
}

void hotplug_withdraw(struct device *dev)
{
	dev->withdrawn = true;
	leave(dev);
}

static struct device *find(struct board *b, const char *id)
{
	static const char *const containers[] = {"/machine/peripheral/", "/machine/peripheral-anon/",
						 "/machine/unattached/"};
	struct device *dev;

	for (size_t i = 0; i < ARRAY_SIZE(containers); i++)
		if (!strncmp(id, containers[i], strlen(containers[i]))) {
			dev = device_find(b, id + strlen(containers[i]));
			return dev && dev->user_id == (i == 0) ? dev : NULL;
		}
	dev = device_find(b, id);
	return dev && dev->user_id ? dev : NULL;
}

static int remove_pci(struct device *dev, struct err *e)
{
	struct board *b = dev->board;

	if (!pci_offered(b))
		return err_set(e, EINVAL, "Bus 'pci.0' does not support hotplugging");
	if (!(machine_removable_slots(b) & BIT(dev->pci->devfn >> 3)))
		return err_set(e, EBUSY, "Device '%s' shares its slot with a device that does not support hotplugging",
			       dev->id);
	pthread_mutex_lock(b->hotplug_dev->lock);
	b->hotplug_ops->pci_remove(b->hotplug_dev, dev->pci->devfn >> 3);
	pthread_mutex_unlock(b->hotplug_dev->lock);
	return 0;
}

int machine_device_del(struct board *b, const char *id, struct err *e)
{
	int cpu = cpu_find(b, id);
	struct device *dev;

	if (b->dirty_log)
		return err_set(e, EBUSY, "device_del not allowed while migrating");
	if (cpu >= 0)
		return cpu_remove_request(b, (unsigned)cpu, e);
	dev = find(b, id);
	if (!dev)
		return err_set_class(e, ERR_DEVICE_NOT_FOUND, ENODEV, "Device '%s' not found", id);
	if (!dev->class->hotpluggable)
		return err_set(e, EINVAL, "Device '%s' does not support hotplugging", dev->class->name);
	if (dev->leaving)
		return err_set(e, EBUSY, "Device %s is already in the process of unplug", dev->id);
	if (dev->pci)
		return remove_pci(dev, e);
	leave(dev);
	return 0;
}

/* ---- ejection by the guest ---- */

void machine_eject_pci(struct board *board, unsigned slot)
{
	/* Gone for the guest before the main loop gets to it, but never what is soldered in. */
	if (!(machine_removable_slots(board) & BIT(slot)))
		return;
	__atomic_fetch_or(&board->ejected_slots, BIT(slot), __ATOMIC_RELAXED);
	bh_schedule(&board->eject_bh);
}

static struct device *removable_in(struct board *b, uint32_t slots)
{
	for (struct device *d = b->devices; d; d = d->next)
		if (d->pci && slots & BIT(d->pci->devfn >> 3) && d->class->hotpluggable && !d->leaving)
			return d;
	return NULL;
}

static bool held(const struct board *b)
{
	return __atomic_load_n(&b->devices_held, __ATOMIC_ACQUIRE);
}

void machine_hold_devices(struct board *board, bool on)
{
	__atomic_store_n(&board->devices_held, on, __ATOMIC_RELEASE);
	if (!on)
		bh_schedule(&board->eject_bh);
}

static void slots_are_empty(struct board *b, uint32_t slots)
{
	if (!slots || !b->hotplug_dev)
		return;
	pthread_mutex_lock(b->hotplug_dev->lock);
	b->hotplug_ops->pci_gone(b->hotplug_dev, slots);
	pthread_mutex_unlock(b->hotplug_dev->lock);
}

static void eject_cpus(struct board *b)
{
	for (unsigned w = 0; w < CPU_WORDS; w++) {
		uint64_t cpus = __atomic_exchange_n(&b->cpu_ejected[w], 0, __ATOMIC_RELAXED);

		for (unsigned i = 0; i < 64; i++)
			if (cpus & BIT64(i))
				cpu_eject(b, w * 64 + i);
	}
}

static void eject(void *opaque)
{
	struct board *b = opaque;
	uint32_t slots = __atomic_load_n(&b->ejected_slots, __ATOMIC_RELAXED);
	struct device *d;

	if (held(b))
		return;
	while ((d = removable_in(b, slots)))
		leave(d);
	slots_are_empty(b, slots);
	__atomic_fetch_and(&b->ejected_slots, ~slots, __ATOMIC_RELAXED); /* off the bus by now */
	eject_cpus(b);
}

void hotplug_reset(struct board *b)
{
	uint32_t slots;
	struct device *d;

	if (held(b)) /* requests are lost with the reset; what was ejected goes later */
		return;
	slots = __atomic_exchange_n(&b->ejected_slots, 0, __ATOMIC_RELAXED);
	if (b->hotplug_dev) {
		pthread_mutex_lock(b->hotplug_dev->lock);
		slots |= b->hotplug_ops->pci_take_pending(b->hotplug_dev);
		pthread_mutex_unlock(b->hotplug_dev->lock);
	}
	while ((d = removable_in(b, slots)))
		leave_now(d);
	slots_are_empty(b, slots);
	for (unsigned i = 1; i < board_max_cpus(b) && b->hotplug_dev; i++) {
		pthread_mutex_lock(b->hotplug_dev->lock);
		if (b->hotplug_ops->cpu_take_pending(b->hotplug_dev, i))
			machine_eject_cpu(b, i);
		pthread_mutex_unlock(b->hotplug_dev->lock);
	}
	eject_cpus(b);
}

void hotplug_init(struct board *b)
{
	bh_init(&b->eject_bh, loop_main(), NULL, eject, b);
	b->removable_slots = UINT32_MAX;
}

void hotplug_free(struct board *b)
{
	bh_cancel(&b->eject_bh);
}
