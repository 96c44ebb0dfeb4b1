/*
 * Memory slots and the dirty log. The machine hands over the complete list of RAM and ROM pieces; here it is compared
 * with what KVM has. Source: api.rst 4.35 (KVM_SET_USER_MEMORY_REGION), 4.8 (KVM_GET_DIRTY_LOG), 4.117
 * (KVM_CLEAR_DIRTY_LOG).
 *
 * Slot ids: KVM wants small numbers below KVM_CAP_NR_MEMSLOTS; ids of deleted slots are used again.
 */
#include "src/kvm/kvm_internal.h"

#include <stdlib.h>
#include <unistd.h>

#define PAGE       4096ull
#define WORD_PAGES 64ull

struct memory_list {
	size_t n;
	struct kvm_memory m[];
};

static int slot_ioctl(struct kvm_vm *vm, const struct slot *s, uint64_t size, struct err *e)
{
	struct kvm_userspace_memory_region r = {
		.slot = s->id,
		.flags = size ? s->flags : 0,
		.guest_phys_addr = s->gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)s->host,
	};
	int err = vm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &r);

	log_debug("kvm", "memory slot %u: %llu KiB at 0x%llx, flags %u", s->id, (unsigned long long)(size / KIB),
		  (unsigned long long)s->gpa, r.flags);
	if (err < 0)
		return err_errno(e, -err, "KVM refuses %s of %llu KiB at guest address 0x%llx",
				 size ? "memory" : "the removal", (unsigned long long)(s->size / KIB),
				 (unsigned long long)s->gpa);
	return 0;
}

static uint32_t wanted_flags(const struct kvm_memory *m)
{
	return (m->readonly ? KVM_MEM_READONLY : 0) | (m->log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0);
}

static const struct kvm_memory *find_same(const struct memory_list *l, const struct slot *s)
{
	size_t lo = 0, hi = l->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (l->m[mid].gpa < s->gpa)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == l->n || l->m[lo].gpa != s->gpa || l->m[lo].size != s->size || l->m[lo].host != s->host)
		return NULL;
	/* KVM cannot turn a live slot read-only or writable. */
	if ((s->flags ^ wanted_flags(&l->m[lo])) & KVM_MEM_READONLY)
		return NULL;
	return &l->m[lo];
}

static int check_list(const struct memory_list *l, struct err *e)
{
	uint64_t end = 0;

	for (size_t i = 0; i < l->n; i++) {
		const struct kvm_memory *m = &l->m[i];

		if (!m->size || (m->gpa | m->size | (uintptr_t)m->host) % PAGE || m->gpa < end ||
		    m->gpa + m->size < m->gpa)
			return err_set(e, EINVAL,
				       "memory piece %zu (0x%llx, %llu bytes) is unaligned, unsorted or overlaps", i,
				       (unsigned long long)m->gpa, (unsigned long long)m->size);
		end = m->gpa + m->size;
	}
	return 0;
}

static int take_id(struct kvm_vm *vm, uint32_t *id, struct err *e)
{
	if (vm->n_free_ids) {
		*id = vm->free_ids[--vm->n_free_ids];
		return 0;
	}
	if (vm->next_slot_id >= vm->caps.max_slots)
		return err_set(e, ENOSPC,
			       "the guest's memory map needs more than the %u pieces this host's KVM can hold",
			       vm->caps.max_slots);
	*id = vm->next_slot_id++;
	return 0;
}

static void release_slot(struct kvm_vm *vm, struct slot *s)
{
	vm->free_ids = xrealloc(vm->free_ids, (vm->n_free_ids + 1) * sizeof(*vm->free_ids));
	vm->free_ids[vm->n_free_ids++] = s->id;
	free(s->carry);
}

/* Old slots: keep what stays (switching the dirty log where asked), delete the rest. */
static int prune(struct kvm_vm *vm, const struct memory_list *l, struct err *e)
{
	size_t kept = 0;
	int r = 0;

	for (size_t i = 0; i < vm->n_slots; i++) {
		struct slot *s = &vm->slots[i];
		const struct kvm_memory *m = r == 0 ? find_same(l, s) : NULL;

		if (r == 0 && !m) {
			r = slot_ioctl(vm, s, 0, e);
			if (r == 0) {
				release_slot(vm, s);
				continue;
			}
		}
		if (m && wanted_flags(m) != s->flags) {
			struct slot changed = *s;

			changed.flags = wanted_flags(m);
			r = slot_ioctl(vm, &changed, s->size, e);
			if (r == 0)
				*s = changed;
		}
		vm->slots[kept++] = *s;
	}
	vm->n_slots = kept;
	return r;
}

static int add_slot(struct kvm_vm *vm, const struct kvm_memory *m, size_t at, struct err *e)
{
	struct slot s = {.flags = wanted_flags(m), .gpa = m->gpa, .size = m->size, .host = m->host};
	int r = take_id(vm, &s.id, e);

	if (r < 0)
		return r;
	r = slot_ioctl(vm, &s, s.size, e);
	if (r < 0) {
		release_slot(vm, &s);
		return r;
	}
	vm->slots = xrealloc(vm->slots, (vm->n_slots + 1) * sizeof(*vm->slots));
	memmove(&vm->slots[at + 1], &vm->slots[at], (vm->n_slots - at) * sizeof(*vm->slots));
	vm->slots[at] = s;
	vm->n_slots++;
	return 0;
}

static int apply_list(struct kvm_vm *vm, void *arg, struct err *e)
{
	const struct memory_list *l = arg;
	int r = check_list(l, e);
	bool hold = false; /* only a slot that goes away can leave a gap */

	if (r < 0)
		return r;
	pthread_mutex_lock(&vm->slots_lock);
	for (size_t i = 0; i < vm->n_slots && !hold; i++)
		hold = !find_same(l, &vm->slots[i]);
	if (hold)
		vcpus_hold(vm);
	r = prune(vm, l, e);
	/* What prune() kept is a subset of the list in the same order. */
	for (size_t i = 0; r == 0 && i < l->n; i++)
		if (i >= vm->n_slots || vm->slots[i].gpa != l->m[i].gpa)
			r = add_slot(vm, &l->m[i], i, e);
	if (hold)
		vcpus_release(vm);
	pthread_mutex_unlock(&vm->slots_lock);
	coalesced_register(vm);
	return r;
}

int kvm_set_memory(struct kvm_vm *vm, const struct kvm_memory *list, size_t n, struct err *e)
{
	struct memory_list *l = xzalloc(sizeof(*l) + n * sizeof(*list));

	l->n = n;
	if (n)
		memcpy(l->m, list, n * sizeof(*list));
	return setup_submit(vm, apply_list, l, true, e);
}

void slots_free(struct kvm_vm *vm)
{
	for (size_t i = 0; i < vm->n_slots; i++)
		free(vm->slots[i].carry);
	free(vm->slots);
	free(vm->free_ids);
}

void *slots_host(struct kvm_vm *vm, uint64_t gpa, size_t len)
{
	void *p = NULL;

	pthread_mutex_lock(&vm->slots_lock);
	for (size_t i = 0; i < vm->n_slots && !p; i++) {
		const struct slot *s = &vm->slots[i];

		if (gpa >= s->gpa && gpa - s->gpa < s->size && len <= s->size - (gpa - s->gpa))
			p = s->host + (gpa - s->gpa);
	}
	pthread_mutex_unlock(&vm->slots_lock);
	return p;
}

/* ---- dirty log ---- */

static bool test_and_clear(unsigned long *map, uint64_t n)
{
	bool set = map[n / WORD_PAGES] >> (n % WORD_PAGES) & 1;

	map[n / WORD_PAGES] &= ~(1ul << (n % WORD_PAGES));
	return set;
}

/* Move bits [from, to) of the slot's log into out, whose bit `base + n` stands for page n of the slot. Whole words at a
   time where both sides are aligned (guest RAM), bit by bit at the ends. */
static void move_bits(unsigned long *log, uint64_t from, uint64_t to, unsigned long *out, int64_t base)
{
	for (uint64_t n = from; n < to;) {
		uint64_t o = (uint64_t)((int64_t)n + base);

		if (n % WORD_PAGES == 0 && !log[n / WORD_PAGES]) {
			n += WORD_PAGES;
		} else if (n % WORD_PAGES == 0 && o % WORD_PAGES == 0 && to - n >= WORD_PAGES) {
			out[o / WORD_PAGES] |= log[n / WORD_PAGES];
			log[n / WORD_PAGES] = 0;
			n += WORD_PAGES;
		} else {
			if (test_and_clear(log, n))
				out[o / WORD_PAGES] |= 1ul << (o % WORD_PAGES);
			n++;
		}
	}
}

int slot_carry(struct slot *s)
{
	if (!s->carry) {
		s->carry_words = (s->size / PAGE + WORD_PAGES - 1) / WORD_PAGES;
		s->carry = calloc(s->carry_words, sizeof(*s->carry));
	}
	return s->carry ? 0 : -ENOMEM;
}

static int clear_log(struct kvm_vm *vm, const struct slot *s, uint64_t w0, uint64_t w1, unsigned long *words)
{
	struct kvm_clear_dirty_log clear = {
		.slot = s->id,
		.first_page = w0 * WORD_PAGES,
		.num_pages = (uint32_t)(MIN(w1 * WORD_PAGES, s->size / PAGE) - w0 * WORD_PAGES),
		.dirty_bitmap = words,
	};

	return vm_ioctl(vm, KVM_CLEAR_DIRTY_LOG, &clear);
}

/* Fetch words [w0, w1) of the slot's log into carry (which holds earlier leftovers), and clear them in KVM; if `look`,
   they stay there. Without manual protection the fetch clears everything and carry keeps the rest. */
static int fetch_log(struct kvm_vm *vm, struct slot *s, uint64_t w0, uint64_t w1, bool look)
{
	size_t words = (s->size / PAGE + WORD_PAGES - 1) / WORD_PAGES;
	unsigned long *log;
	struct kvm_dirty_log get = {.slot = s->id};
	int r = slot_carry(s);

	if (r)
		return r;
	if (vm->ring_entries) {
		ring_reap_locked(vm);
		return 0;
	}
	log = get.dirty_bitmap = calloc(words, sizeof(*log));
	if (!log)
		return -ENOMEM;
	r = vm_ioctl(vm, KVM_GET_DIRTY_LOG, &get);
	if (!vm->caps.dirty_protect) {
		w0 = 0;
		w1 = words;
	} else if (r >= 0 && !look) {
		r = clear_log(vm, s, w0, w1, log + w0);
	}
	for (uint64_t w = w0; r >= 0 && w < w1; w++)
		s->carry[w] |= log[w];
	free(log);
	return r < 0 ? r : 0;
}

static int get_dirty(struct kvm_vm *vm, uint64_t gpa, uint64_t size, unsigned long *bitmap, bool look)
{
	int r = 0;

	pthread_mutex_lock(&vm->slots_lock);
	for (size_t i = 0; i < vm->n_slots && r == 0; i++) {
		struct slot *s = &vm->slots[i];
		uint64_t from = MAX(gpa, s->gpa), to = MIN(gpa + size, s->gpa + s->size);

		if (!(s->flags & KVM_MEM_LOG_DIRTY_PAGES) || from >= to)
			continue;
		uint64_t p0 = (from - s->gpa) / PAGE, p1 = (to - s->gpa) / PAGE;

		r = fetch_log(vm, s, p0 / WORD_PAGES, (p1 + WORD_PAGES - 1) / WORD_PAGES, look);
		if (r == 0)
			move_bits(s->carry, p0, p1, bitmap, ((int64_t)s->gpa - (int64_t)gpa) / (int64_t)PAGE);
	}
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}

int kvm_get_dirty(struct kvm_vm *vm, uint64_t gpa, uint64_t size, unsigned long *bitmap)
{
	return get_dirty(vm, gpa, size, bitmap, false);
}

int kvm_look_dirty(struct kvm_vm *vm, uint64_t gpa, uint64_t size, unsigned long *bitmap)
{
	return get_dirty(vm, gpa, size, bitmap, true);
}

/* Clear those of the slot's pages [p0, p1) whose bit in map, at `base + n`, is set. */
static int clear_pages(struct kvm_vm *vm, const struct slot *s, uint64_t p0, uint64_t p1, const unsigned long *map,
		       int64_t base)
{
	uint64_t w0 = p0 / WORD_PAGES, w1 = (p1 + WORD_PAGES - 1) / WORD_PAGES;
	unsigned long *words = calloc(w1 - w0, sizeof(*words));
	int r;

	if (!words)
		return -ENOMEM;
	for (uint64_t n = p0; n < p1; n++) {
		uint64_t at = (uint64_t)((int64_t)n + base);

		if (n % WORD_PAGES == 0 && at % WORD_PAGES == 0 && p1 - n >= WORD_PAGES) {
			words[n / WORD_PAGES - w0] = map[at / WORD_PAGES];
			n += WORD_PAGES - 1;
		} else {
			words[n / WORD_PAGES - w0] |= (map[at / WORD_PAGES] >> at % WORD_PAGES & 1) << n % WORD_PAGES;
		}
	}
	r = clear_log(vm, s, w0, w1, words);
	free(words);
	return r;
}

int kvm_clear_dirty(struct kvm_vm *vm, uint64_t gpa, uint64_t size, const unsigned long *bitmap, uint64_t first)
{
	int r = 0;

	if (!vm->caps.dirty_protect)
		return 0;
	pthread_mutex_lock(&vm->slots_lock);
	for (size_t i = 0; i < vm->n_slots && r >= 0; i++) {
		const struct slot *s = &vm->slots[i];
		uint64_t from = MAX(gpa, s->gpa), to = MIN(gpa + size, s->gpa + s->size);

		if (s->flags & KVM_MEM_LOG_DIRTY_PAGES && from < to)
			r = clear_pages(vm, s, (from - s->gpa) / PAGE, (to - s->gpa) / PAGE, bitmap,
					(int64_t)first + ((int64_t)s->gpa - (int64_t)gpa) / (int64_t)PAGE);
	}
	pthread_mutex_unlock(&vm->slots_lock);
	return r < 0 ? r : 1;
}
