/*
 * KVM's own counters of a VM and its vCPUs, through the binary statistics file. Source: api.rst 4.133
 * (KVM_GET_STATS_FD): a header, descriptors, and the values, which are read afresh each time. The files are opened when
 * the VM and the vCPUs are made: asking a vCPU later would wait until it leaves the guest. What the descriptors say is
 * read once, on first use.
 */
#include "src/kvm/kvm_internal.h"

#include <stdlib.h>
#include <unistd.h>

#define MAX_STATS  1024u
#define MAX_VALUES 65536u

static int read_all(int fd, void *buf, size_t len, off_t offset)
{
	ssize_t n = pread(fd, buf, len, offset);

	return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EIO;
}

static void decode(struct kvm_stat *s, const struct kvm_stats_desc *d, size_t name_size)
{
	uint32_t type = (d->flags & KVM_STATS_TYPE_MASK) >> KVM_STATS_TYPE_SHIFT;
	uint32_t unit = (d->flags & KVM_STATS_UNIT_MASK) >> KVM_STATS_UNIT_SHIFT;

	*s = (struct kvm_stat){
		.type = type <= KVM_STAT_LOG2_HISTOGRAM ? (enum kvm_stat_type)type : KVM_STAT_INSTANT,
		.unit = unit <= KVM_STAT_BOOLEAN ? (enum kvm_stat_unit)unit : KVM_STAT_NO_UNIT,
		.base = d->flags & KVM_STATS_BASE_MASK ? 2 : 10,
		.exponent = d->exponent,
		.size = d->size,
		.bucket_size = d->bucket_size,
		.offset = d->offset,
	};
	snprintf(s->name, sizeof(s->name), "%.*s", (int)name_size, d->name);
}

/* The kernel is trusted, but not to have the layout of today for ever. */
static int load(struct stats_layout *l, int fd)
{
	struct kvm_stats_header h;
	uint8_t *raw;
	size_t step;
	int r;

	if (fd < 0)
		return -ENOTSUP;
	r = read_all(fd, &h, sizeof(h), 0);
	if (r)
		return r;
	step = sizeof(struct kvm_stats_desc) + h.name_size;
	if (h.num_desc > MAX_STATS || h.name_size > 256)
		return -EINVAL;
	raw = xzalloc(step * h.num_desc + 1);
	r = read_all(fd, raw, step * h.num_desc, h.desc_offset);
	if (!r) {
		l->stat = xcalloc(h.num_desc + 1, sizeof(*l->stat));
		for (uint32_t i = 0; i < h.num_desc; i++) {
			decode(&l->stat[l->n], (const struct kvm_stats_desc *)(raw + i * step), h.name_size);
			if (!l->stat[l->n].size || l->stat[l->n].offset > MAX_VALUES * 8)
				continue;
			l->data_size = MAX(l->data_size, l->stat[l->n].offset + l->stat[l->n].size * 8ull);
			l->n++;
		}
		l->data_offset = h.data_offset;
	}
	free(raw);
	return r;
}

static int layout(struct kvm_vm *vm, int vcpu, struct stats_layout **l, int *fd)
{
	struct kvm_vcpu *c = vcpu >= 0 ? kvm_vcpu_get(vm, (unsigned)vcpu) : NULL;

	if (vcpu >= 0 && !c)
		return -ENOENT;
	*fd = c ? c->stats_fd : vm->stats_fd;
	*l = &vm->stats[c != NULL];
	return (*l)->stat ? 0 : load(*l, *fd);
}

int kvm_stats_get(struct kvm_vm *vm, int vcpu, const struct kvm_stat **stats, uint64_t **values)
{
	struct stats_layout *l;
	size_t total = 0, at = 0;
	uint8_t *raw;
	uint64_t *v;
	int fd, r = layout(vm, vcpu, &l, &fd);

	if (r)
		return r;
	*stats = l->stat;
	if (!values)
		return (int)l->n;
	raw = xzalloc(l->data_size + 1);
	r = read_all(fd, raw, l->data_size, (off_t)l->data_offset);
	if (r) {
		free(raw);
		return r;
	}
	for (size_t i = 0; i < l->n; i++)
		total += l->stat[i].size;
	*values = v = xcalloc(total + 1, sizeof(*v));
	for (size_t i = 0; i < l->n; at += l->stat[i++].size)
		memcpy(v + at, raw + l->stat[i].offset, l->stat[i].size * sizeof(*v));
	free(raw);
	return (int)l->n;
}

int stats_open(int fd)
{
	return ioctl(fd, KVM_GET_STATS_FD, NULL);
}

void stats_free(struct kvm_vm *vm)
{
	if (vm->stats_fd >= 0)
		close(vm->stats_fd);
	free(vm->stats[0].stat);
	free(vm->stats[1].stat);
}
