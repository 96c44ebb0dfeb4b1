/*
 * The machine's state as sections: the clock, every device in board order with its PCI configuration space behind it,
 * the vCPUs. Loading resets nothing by itself: the board was built and reset before; a section whose device is missing,
 * or a device whose section is missing, is refused by name.
 */
#include "board.h"

#include <errno.h>
#include <stdlib.h>
#include "vmm/pci.h"

struct clock_state {
	uint64_t virtual_ns, kvmclock_ns;
};
static const struct state_field clock_fields[] = {
	STATE_U(struct clock_state, virtual_ns),
	STATE_U(struct clock_state, kvmclock_ns),
	STATE_FIELDS_END,
};
const struct state_table machine_clock_state = {.name = "clock", .version = 1, .oldest = 1, .fields = clock_fields};

static void pci_section_id(const struct device *d, char *id, size_t size)
{
	snprintf(id, size, "%.58s.pci", d->id);
}

static int save_device(struct device *d, struct state_buf *out, struct err *e)
{
	char id[64];
	int r = 0;

	pthread_mutex_lock(d->lock);
	if (d->pci) {
		pci_section_id(d, id, sizeof(id));
		r = state_save(out, id, &pci_function_state, d->pci, e);
	}
	if (!r && d->class->state)
		r = state_save(out, d->id, d->class->state, d, e);
	pthread_mutex_unlock(d->lock);
	return r;
}

int machine_save_state(struct board *b, struct state_buf *out, struct err *e)
{
	struct clock_state clock = {.virtual_ns = clock_ns(VCLOCK_VIRTUAL)};
	int r = 0;

	if (b->kvm)
		r = kvm_clock_get(b->kvm, &clock.kvmclock_ns);
	if (r)
		return err_errno(e, -r, "cannot read the paravirtual clock");
	r = state_save(out, "clock", &machine_clock_state, &clock, e);
	for (struct device *d = b->devices; !r && d; d = d->next)
		r = save_device(d, out, e);
	for (unsigned i = 0; !r && b->kvm && i < kvm_vcpu_count(b->kvm); i++) {
		struct kvm_vcpu *c = kvm_vcpu_get(b->kvm, i);
		char id[64];

		if (!c)
			continue;
		snprintf(id, sizeof(id), "cpu%u", i);
		r = state_save(out, id, &kvm_vcpu_state, c, e);
	}
	return r;
}

/* ---- loading ---- */

struct sections {
	struct state_section *v;
	bool *used;
	size_t n;
};

static int collect(struct sections *s, const uint8_t *data, size_t len, struct err *e)
{
	while (len) {
		size_t used;
		int r;

		if (s->n == 4096)
			return err_set(e, E2BIG, "the machine's state has more than 4096 sections");
		if (!(s->n & 63)) {
			s->v = xrealloc(s->v, (s->n + 64) * sizeof(*s->v));
			s->used = xrealloc(s->used, (s->n + 64) * sizeof(*s->used));
		}
		r = state_section_parse(data, len, &s->v[s->n], &used, e);
		if (r)
			return r;
		for (size_t i = 0; i < s->n; i++)
			if (!strcmp(s->v[i].id, s->v[s->n].id))
				return err_set(e, EBADMSG, "the machine's state has two sections '%s'", s->v[i].id);
		s->used[s->n++] = false;
		data += used;
		len -= used;
	}
	return 0;
}

static int load_one(struct sections *s, const char *id, const struct state_table *t, void *obj, struct err *e)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->v[i].id, id)) {
			s->used[i] = true;
			return state_load(&s->v[i], t, obj, e);
		}
	return err_set(e, ENOENT, "the machine's state has no section for '%s'", id);
}

static int load_device(struct sections *s, struct device *d, struct err *e)
{
	char id[64];
	int r = 0;

	pthread_mutex_lock(d->lock);
	if (d->pci) {
		pci_section_id(d, id, sizeof(id));
		r = load_one(s, id, &pci_function_state, d->pci, e);
	}
	if (!r && d->class->state)
		r = load_one(s, d->id, d->class->state, d, e);
	pthread_mutex_unlock(d->lock);
	return r;
}

static int load_all(struct board *b, struct sections *s, struct err *e)
{
	struct clock_state clock = {0};
	int r = load_one(s, "clock", &machine_clock_state, &clock, e);

	if (r)
		return r;
	clock_virtual_set(clock.virtual_ns); /* before the devices: their timers are relative to it */
	if (b->kvm && (r = kvm_clock_set(b->kvm, clock.kvmclock_ns)))
		return err_errno(e, -r, "cannot set the paravirtual clock");
	for (struct device *d = b->devices; !r && d; d = d->next)
		r = load_device(s, d, e);
	for (unsigned i = 0; !r && b->kvm && i < kvm_vcpu_count(b->kvm); i++) {
		struct kvm_vcpu *c = kvm_vcpu_get(b->kvm, i);
		char id[64];

		if (!c)
			continue;
		snprintf(id, sizeof(id), "cpu%u", i);
		r = load_one(s, id, &kvm_vcpu_state, c, e);
	}
	for (size_t i = 0; !r && i < s->n; i++)
		if (!s->used[i])
			r = err_set(e, ENODEV,
				    "the machine's state has a section '%s' (%s), but this machine has no such device",
				    s->v[i].id, s->v[i].table);
	return r;
}

int machine_load_state(struct board *b, const uint8_t *data, size_t len, struct err *e)
{
	struct sections s = {0};
	int r = collect(&s, data, len, e);

	if (!r)
		r = load_all(b, &s, e);
	free(s.v);
	free(s.used);
	if (r)
		return r;
	irq_fabric_clear(b, true);
	map_defer(b);
	map_hold_slots(b, false);
	for (struct device *d = b->devices; d; d = d->next)
		device_settle_own(d);
	map_commit(b);
	irq_fabric_settled(b);
	for (unsigned i = 0; !r && b->kvm && i < kvm_vcpu_count(b->kvm); i++)
		if (kvm_vcpu_get(b->kvm, i))
			r = kvm_vcpu_settle(kvm_vcpu_get(b->kvm, i), e);
	return r;
}
