/*
 * Memory windows ahead of the guest that uses them. Every change of KVM's memory slots waits for a grace period: a
 * tenth of a millisecond on an idle host, many on one at work. So a guest that moves tells its windows while it still
 * runs, and the destination has given them to KVM when the state comes; what turns out different changes then, as ever.
 */
#include "board.h"
#include "vmm/log.h"
#include "vmm/ram.h"

#include <errno.h>
#include <stdlib.h>

static bool find_block(struct board *b, const uint8_t *host, struct machine_window *w)
{
	struct ram_view v;

	for (unsigned i = 0; i <= UINT16_MAX && machine_ram(b, i, &v); i++)
		if (host >= v.host && (uint64_t)(host - v.host) < v.size) {
			w->block = (uint16_t)i;
			w->offset = (uint64_t)(host - v.host);
			return true;
		}
	return false;
}

unsigned machine_windows(struct board *b, struct machine_window out[MACHINE_WINDOWS])
{
	struct kvm_memory *list;
	unsigned kept = 0;
	size_t n;

	pthread_mutex_lock(&b->map.lock);
	n = map_list_memory(b->map.view, false, &list);
	pthread_mutex_unlock(&b->map.lock);
	for (size_t i = 0; i < n && kept < MACHINE_WINDOWS; i++) {
		struct machine_window *w = &out[kept];

		*w = (struct machine_window){.gpa = list[i].gpa,
					     .size = list[i].size,
					     .readonly = list[i].readonly,
					     .log_dirty = list[i].log_dirty};
		kept += find_block(b, list[i].host, w);
	}
	free(list);
	return kept;
}

static bool is_sound(struct board *b, const struct machine_window *w, uint64_t from, struct ram_view *v)
{
	return machine_ram(b, w->block, v) && w->size && w->offset <= v->size && w->size <= v->size - w->offset &&
	       (w->gpa | w->size | w->offset) % RAM_PAGE == 0 && w->gpa >= from && w->gpa + w->size > w->gpa;
}

int machine_expect_windows(struct board *b, const struct machine_window *w, unsigned n, struct err *e)
{
	struct err ignored = ERR_INIT;
	struct kvm_memory *list;
	uint64_t end = 0;
	int r = 0;

	list = xcalloc(n + 1, sizeof(*list));
	for (unsigned i = 0; !r && i < n; i++) {
		struct ram_view v;

		if (!is_sound(b, &w[i], end, &v))
			r = err_set(e, EINVAL, "memory window %u (0x%llx, %llu bytes) is in no block, or overlaps", i,
				    (unsigned long long)w[i].gpa, (unsigned long long)w[i].size);
		else
			list[i] = (struct kvm_memory){.gpa = w[i].gpa,
						      .size = w[i].size,
						      .host = v.host + w[i].offset,
						      .readonly = w[i].readonly,
						      .log_dirty = w[i].log_dirty};
		end = w[i].gpa + w[i].size;
	}
	if (!r && b->kvm && b->map.slots_held) {
		pthread_mutex_lock(&b->map.lock);
		if (kvm_set_memory(b->kvm, list, n, &ignored)) /* then when the state comes, which will say so too */
			log_debug("machine", "memory windows in advance: %s", ignored.msg);
		pthread_mutex_unlock(&b->map.lock);
	}
	free(list);
	return r;
}
