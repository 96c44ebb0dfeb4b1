/*
 * vCPUs that come and go: the set of CPUs the board has, out of the -smp maxcpus= that are possible. A CPU that the
 * guest ejects is stopped and kept (KVM cannot take one back); the next device_add for the same place uses it again.
 *
 * Source: QEMU docs/specs/acpi_cpu_hotplug.rst for who does what; error texts are QEMU 7.2's, clients match them.
 */
#include "board.h"

#include <errno.h>
#include <stdlib.h>

/* ---- the set ---- */

static bool test_bit(const uint64_t *words, unsigned index)
{
	return __atomic_load_n(&words[index / 64], __ATOMIC_RELAXED) & BIT64(index % 64);
}

static void set_bit(uint64_t *words, unsigned index, bool on)
{
	if (on)
		__atomic_fetch_or(&words[index / 64], BIT64(index % 64), __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(&words[index / 64], ~BIT64(index % 64), __ATOMIC_RELAXED);
}

bool machine_cpu_present(const struct board *board, unsigned index)
{
	return index < board_max_cpus(board) && test_bit(board->cpu_present, index);
}

uint32_t machine_cpu_apic_id(const struct board *board, unsigned index)
{
	return kvm_apic_id(&board->config->smp, index);
}

unsigned board_cpus(const struct board *board)
{
	unsigned n = 0;

	for (unsigned i = 0; i < board_max_cpus(board); i++)
		n += machine_cpu_present(board, i);
	return n;
}

unsigned board_max_cpus(const struct board *board)
{
	return board->config->smp.maxcpus;
}

/* The boot processor is CPU 0 for ever. */
void cpus_init(struct board *b)
{
	const struct config_described *d = b->config->described;

	for (unsigned i = 0; i < board_max_cpus(b); i++)
		if (d ? test_bit(d->cpus, i) : i < b->config->smp.cpus)
			set_bit(b->cpu_present, i, true);
	for (unsigned i = 0; d && i < board_max_cpus(b); i++)
		b->cpu_id[i] = xstrdup(d->cpu_id[i]);
}

int cpus_create(struct board *b, struct err *e)
{
	for (unsigned i = 0; b->kvm && i < board_max_cpus(b); i++)
		if (machine_cpu_present(b, i) && !kvm_vcpu_new(b->kvm, i, e))
			return e && e->code ? -e->code : -ENOMEM;
	return 0;
}

void cpus_free(struct board *b)
{
	for (unsigned i = 0; i < ARRAY_SIZE(b->cpu_id); i++)
		free(b->cpu_id[i]);
}

/* ---- what clients see ---- */

const char *machine_cpu_type(const struct board *b)
{
	static char type[96];
	const char *text = b->config->cpu ? b->config->cpu : "qemu64";

	snprintf(type, sizeof(type), "%.*s-x86_64-cpu", (int)MIN(strcspn(text, ","), (size_t)64), text);
	return type;
}

bool machine_possible_cpu(struct board *b, unsigned index, struct cpu_info *out)
{
	const struct smp_opts *smp = &b->config->smp;
	struct kvm_vcpu *c;

	if (index >= smp->maxcpus || !strcmp(b->config->machine.type, "none"))
		return false;
	*out = (struct cpu_info){
		.index = index,
		.apic_id = kvm_apic_id(smp, index),
		.thread = index % smp->threads,
		.core = index / smp->threads % smp->cores,
		.socket = index / (smp->threads * smp->cores),
		.present = machine_cpu_present(b, index),
		.id = b->cpu_id[index],
	};
	if (!out->present)
		return true;
	c = b->kvm ? kvm_vcpu_get(b->kvm, index) : NULL;
	out->thread_id = c ? kvm_vcpu_thread_id(c) : 0;
	if (out->id)
		snprintf(out->path, sizeof(out->path), "/machine/peripheral/%s", out->id);
	else
		snprintf(out->path, sizeof(out->path), "/machine/unattached/cpu[%u]", index);
	return true;
}

bool machine_cpu_info(struct board *b, unsigned n, struct cpu_info *out)
{
	for (unsigned i = 0; i < board_max_cpus(b); i++)
		if (machine_cpu_present(b, i) && n-- == 0)
			return machine_possible_cpu(b, i, out);
	return false;
}

int cpu_find(struct board *b, const char *id)
{
	struct cpu_info info;

	for (unsigned i = 0; machine_possible_cpu(b, i, &info); i++)
		if (info.present && (!strcmp(id, info.path) || (info.id && !strcmp(id, info.id))))
			return (int)i;
	return -1;
}

/* ---- plugging ---- */

static bool ends_in(const char *text, const char *tail)
{
	size_t n = strlen(text), t = strlen(tail);

	return n > t && !strcmp(text + n - t, tail);
}

bool cpu_type_known(const char *driver)
{
	char model[96];
	const char *name, *summary;

	if (!ends_in(driver, "-x86_64-cpu") || strlen(driver) >= sizeof(model))
		return false;
	snprintf(model, sizeof(model), "%.*s", (int)(strlen(driver) - strlen("-x86_64-cpu")), driver);
	for (size_t i = 0; (name = kvm_cpu_model_name(i, &summary)); i++)
		if (!strcmp(name, model))
			return true;
	return !strcmp(model, "host") || !strcmp(model, "max");
}

struct cpu_place {
	int32_t socket, die, core, thread;
};

static const struct prop place_props[] = {
	PROP_NAMED(struct cpu_place, "socket-id", socket, PROP_I32, .def = (uint64_t)-1, .help = "socket"),
	PROP_NAMED(struct cpu_place, "die-id", die, PROP_I32, .def = 0, .help = "die in the socket (only 0)"),
	PROP_NAMED(struct cpu_place, "core-id", core, PROP_I32, .def = (uint64_t)-1, .help = "core in the die"),
	PROP_NAMED(struct cpu_place, "thread-id", thread, PROP_I32, .def = (uint64_t)-1, .help = "thread in the core"),
	PROP_END,
};

static int check_coordinate(const char *name, int32_t value, uint32_t count, struct err *e)
{
	if (value == -1)
		return err_set(e, EINVAL, "CPU %s is not set", name);
	if (value < 0 || (uint32_t)value >= count)
		return err_set(e, EINVAL, "Invalid CPU %s: %d must be in range 0:%u", name, value, count - 1);
	return 0;
}

static int parse_place(struct board *b, const char *driver, struct opts *o, unsigned *index, struct err *e)
{
	const struct smp_opts *smp = &b->config->smp;
	struct cpu_place p;
	int r;

	props_default(place_props, &p);
	opts_get(o, "driver");
	opts_get(o, "id");
	r = opts_apply(o, place_props, &p, driver, e);
	if (!r)
		r = check_coordinate("socket-id", p.socket, smp->sockets, e);
	if (!r)
		r = check_coordinate("die-id", p.die, smp->dies, e);
	if (!r)
		r = check_coordinate("core-id", p.core, smp->cores, e);
	if (!r)
		r = check_coordinate("thread-id", p.thread, smp->threads, e);
	if (!r)
		*index = ((uint32_t)p.socket * smp->cores + (uint32_t)p.core) * smp->threads + (uint32_t)p.thread;
	return r;
}

static int check_id(struct board *b, const char *id, struct err *e)
{
	if (id && !device_id_valid(id))
		return err_set(e, EINVAL, "Parameter 'id' expects an identifier, not '%s'", id);
	if (id && device_id_taken(b, id))
		return err_set(e, EEXIST, "Duplicate device ID '%s'", id);
	return 0;
}

static void tell_guest(struct board *b, unsigned index)
{
	b->firmware_stale = true;
	if (!b->started || !b->hotplug_dev)
		return;
	pthread_mutex_lock(b->hotplug_dev->lock);
	b->hotplug_ops->cpu_inserted(b->hotplug_dev, index);
	pthread_mutex_unlock(b->hotplug_dev->lock);
}

int cpu_add(struct board *b, const char *driver, struct opts *o, struct err *e)
{
	const char *id = opts_get(o, "id");
	unsigned index;
	int r;

	if (strcmp(driver, machine_cpu_type(b)))
		return err_set(e, EINVAL, "Invalid CPU type, expected cpu type: '%s'", machine_cpu_type(b));
	if (b->started && b->config->machine.acpi == 0)
		return err_set(e, EINVAL, "vCPUs cannot be added: the guest has no ACPI (-no-acpi)");
	r = check_id(b, id, e);
	if (!r)
		r = parse_place(b, driver, o, &index, e);
	if (r)
		return r;
	if (machine_cpu_present(b, index))
		return err_set(e, EEXIST, "CPU[%u] with APIC ID %u exists", index, machine_cpu_apic_id(b, index));
	if (test_bit(b->cpu_ejected, index))
		return err_set(e, EBUSY, "CPU[%u] with APIC ID %u is just being removed", index,
			       machine_cpu_apic_id(b, index));
	/* With -device it is created with those of -smp. */
	if (b->started && b->kvm && !kvm_vcpu_new(b->kvm, index, e))
		return e && e->code ? -e->code : -ENOMEM;
	b->cpu_id[index] = xstrdup(id);
	set_bit(b->cpu_present, index, true);
	tell_guest(b, index);
	return 0;
}

/* ---- unplugging ---- */

int cpu_remove_request(struct board *b, unsigned index, struct err *e)
{
	int r;

	if (index == 0)
		return err_set(e, EPERM, "Boot CPU is unpluggable");
	if (!b->hotplug_dev || b->config->machine.acpi == 0)
		return err_set(e, EINVAL, "vCPUs cannot be removed: the guest has no ACPI (-no-acpi)");
	pthread_mutex_lock(b->hotplug_dev->lock);
	r = b->hotplug_ops->cpu_remove(b->hotplug_dev, index, e);
	pthread_mutex_unlock(b->hotplug_dev->lock);
	return r;
}

void machine_eject_cpu(struct board *board, unsigned index)
{
	if (index == 0 || !machine_cpu_present(board, index))
		return;
	set_bit(board->cpu_present, index, false);
	set_bit(board->cpu_ejected, index, true);
	bh_schedule(&board->eject_bh);
}

void cpu_eject(struct board *b, unsigned index)
{
	struct kvm_vcpu *c = b->kvm ? kvm_vcpu_get(b->kvm, index) : NULL;
	char *data = NULL;

	if (c)
		kvm_vcpu_retire(c);
	if (b->hotplug_dev) {
		pthread_mutex_lock(b->hotplug_dev->lock);
		b->hotplug_ops->cpu_gone(b->hotplug_dev, index);
		pthread_mutex_unlock(b->hotplug_dev->lock);
	}
	if (b->cpu_id[index])
		data = xasprintf("{\"device\": \"%s\", \"path\": \"/machine/peripheral/%s\"}", b->cpu_id[index],
				 b->cpu_id[index]);
	else
		data = xasprintf("{\"path\": \"/machine/unattached/cpu[%u]\"}", index);
	machine_event(b, "DEVICE_DELETED", data);
	free(data);
	free(b->cpu_id[index]);
	b->cpu_id[index] = NULL;
	b->firmware_stale = true;
}

/* ---- _OST ---- */

struct ost {
	struct board *board;
	unsigned index;
	uint32_t event, status;
};

static void report_ost(void *opaque)
{
	enum { EJECT_REQUEST = 3, OSPM_EJECT = 0x103 }; /* ACPI 6.3, tables 6-206 and 6-208 */
	struct ost *o = opaque;
	const char *id = o->board->cpu_id[o->index];
	char *device = id ? xasprintf("\"device\": \"%s\", ", id) : xstrdup("");
	char *data =
		xasprintf("{\"info\": {%s\"slot\": \"%u\", \"slot-type\": \"CPU\", \"source\": %u, \"status\": %u}}",
			  device, o->index, o->event, o->status);

	machine_event(o->board, "ACPI_DEVICE_OST", data);
	free(data);
	/* 0x80..0x84: refused, busy, in use; 0x85: still at it */
	if ((o->event == EJECT_REQUEST || o->event == OSPM_EJECT) && o->status && o->status != 0x85 &&
	    o->status != 0x84) {
		struct cpu_info info;

		machine_possible_cpu(o->board, o->index, &info);
		data = xasprintf("{%s\"path\": \"%s\"}", device, info.path);
		machine_event(o->board, "DEVICE_UNPLUG_GUEST_ERROR", data);
		free(data);
	}
	free(device);
	free(o);
}

bool machine_cpu_ost_status(struct board *board, unsigned index, uint32_t *event, uint32_t *status)
{
	bool reports;

	if (!board->hotplug_dev || index >= board_max_cpus(board))
		return false;
	pthread_mutex_lock(board->hotplug_dev->lock);
	reports = board->hotplug_ops->cpu_ost(board->hotplug_dev, index, event, status);
	pthread_mutex_unlock(board->hotplug_dev->lock);
	return reports;
}

void machine_cpu_ost(struct board *board, unsigned index, uint32_t event, uint32_t status)
{
	struct ost *o = xzalloc(sizeof(*o));

	*o = (struct ost){.board = board, .index = index, .event = event, .status = status};
	loop_post(loop_main(), NULL, report_ost, o);
}
