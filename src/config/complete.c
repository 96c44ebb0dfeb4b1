/* Defaults and checks of the whole command line: what single options cannot know. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CPUS MACHINE_MAX_CPUS
#define MAX_RAM  (1 * TIB)

void config_defaults(struct config *c)
{
	memset(c, 0, sizeof(*c));
	props_default(machine_props, &c->machine);
	props_default(boot_props, &c->boot);
	props_default(rtc_props, &c->rtc);
	c->smp.cpus = 1;
	c->memory.size = 128 * MIB;
	c->sandbox = 1;
}

static int complete_smp(struct config *c, struct err *e)
{
	struct smp_opts *s = &c->smp;
	uint64_t product;

	if (s->cpus > MAX_CPUS || s->maxcpus > MAX_CPUS)
		return err_set(e, EINVAL, "-smp: %u CPUs; the machine 'pc' takes at most %u",
			       s->cpus > MAX_CPUS ? s->cpus : s->maxcpus, MAX_CPUS);
	if (s->dies > 1)
		return err_set(e, EINVAL, "-smp: dies=%u is not offered by the machine 'pc'", s->dies);
	s->dies = 1;
	/* QEMU's rule (prefer sockets): what is missing is computed from what is given. */
	if (!s->maxcpus)
		s->maxcpus = s->sockets && s->cores && s->threads ? s->sockets * s->cores * s->threads : s->cpus;
	if (!s->cpus)
		s->cpus = s->maxcpus;
	if (!s->maxcpus)
		s->maxcpus = s->cpus;
	if (!s->cpus) {
		bool topology = s->sockets || s->cores || s->threads;

		if (!topology)
			return err_set(e, EINVAL, "-smp: 0 CPUs; a machine needs at least one");
		s->sockets = s->sockets ? s->sockets : 1;
		s->cores = s->cores ? s->cores : 1;
		s->threads = s->threads ? s->threads : 1;
		s->cpus = s->maxcpus = s->sockets * s->cores * s->threads;
	}
	if (!s->threads)
		s->threads = s->sockets && s->cores ? MAX(1u, s->maxcpus / MAX(1u, s->sockets * s->cores)) : 1;
	if (!s->cores)
		s->cores = s->sockets ? MAX(1u, s->maxcpus / MAX(1u, s->sockets * s->threads)) : 1;
	if (!s->sockets)
		s->sockets = MAX(1u, s->maxcpus / MAX(1u, s->cores * s->threads));
	product = (uint64_t)s->sockets * s->cores * s->threads;
	if (s->cpus > s->maxcpus)
		return err_set(e, EINVAL, "-smp: cpus=%u is more than maxcpus=%u", s->cpus, s->maxcpus);
	if (product != s->maxcpus)
		return err_set(e, EINVAL, "-smp: sockets (%u) * cores (%u) * threads (%u) make %llu, not maxcpus (%u)",
			       s->sockets, s->cores, s->threads, (unsigned long long)product, s->maxcpus);
	if (s->maxcpus > MAX_CPUS)
		return err_set(e, EINVAL, "-smp: %u CPUs; the machine 'pc' takes at most %u", s->maxcpus, MAX_CPUS);
	return 0;
}

static int complete_memory(struct config *c, struct err *e)
{
	struct memory_opts *m = &c->memory;

	if (m->size < MIB)
		return err_set(e, EINVAL, "-m: %llu bytes of guest memory are too little; the least is 1 MiB",
			       (unsigned long long)m->size);
	if (m->size > MAX_RAM)
		return err_set(e, EINVAL, "-m: %llu MiB of guest memory are too much; the most is 1 TiB",
			       (unsigned long long)(m->size / MIB));
	m->size = ALIGN_UP(m->size, 8192);
	if (m->maxmem && m->maxmem < m->size)
		return err_set(e, EINVAL, "-m: maxmem is less than the initial memory");
	return 0;
}

static int check_machine(struct config *c, struct err *e)
{
	static const char *const types[] = {"pc", "pc-i440fx-7.2", "none"};
	const struct {
		const char *name;
		int value;
	} lacking[] = {{"vmport", c->machine.vmport}, {"hpet", c->machine.hpet}, {"smm", c->machine.smm}};
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		known |= !strcmp(c->machine.type, types[i]);
	if (!known) {
		const char *near = err_nearest(c->machine.type, types, ARRAY_SIZE(types));

		return err_set(e, EINVAL, "-machine: unsupported machine type '%s'%s%s%s", c->machine.type,
			       near ? "; did you mean '" : ", see -machine help", near ? near : "", near ? "'?" : "");
	}
	for (size_t i = 0; i < ARRAY_SIZE(lacking); i++)
		if (lacking[i].value == 1)
			return err_set(e, EINVAL, "-machine: %s=on is not offered; leave it out or say %s=off",
				       lacking[i].name, lacking[i].name);
	if (c->machine.max_ram_below_4g && (c->machine.max_ram_below_4g < MIB || c->machine.max_ram_below_4g % 8192))
		return err_set(e, EINVAL, "-machine: max-ram-below-4g=%llu: at least 1 MiB and a multiple of 8 KiB",
			       (unsigned long long)c->machine.max_ram_below_4g);
	if (c->machine.pit == 0)
		return err_set(e, EINVAL, "-machine: pit=off is not offered: a PC without its timer does not boot");
	if (c->machine.usb)
		return err_set(e, EINVAL, "-usb: USB controllers are not offered by this version");
	return 0;
}

static int check_combinations(struct config *c, struct err *e)
{
	if (c->initrd && !c->kernel)
		return err_set(e, EINVAL, "-initrd only allowed with -kernel option");
	if (c->append && !c->kernel)
		return err_set(e, EINVAL, "-append only allowed with -kernel option");
	if (c->nographic && c->display && !strcmp(c->display, "curses"))
		return err_set(e, EINVAL, "-nographic cannot be used with -display curses");
	if (c->nographic && c->daemonize && !c->nodefaults) /* without defaults nothing goes to the terminal */
		return err_set(e, EINVAL, "-nographic cannot be used with -daemonize");
	if (c->daemonize && c->display && !strcmp(c->display, "curses"))
		return err_set(e, EINVAL, "-display curses cannot be used with -daemonize");
	if (c->qtest && c->machine.accel != ACCEL_QTEST)
		return err_set(e, EINVAL, "-qtest needs -accel qtest");
	if (c->mem_path && c->machine.memory_backend)
		return err_set(e, EINVAL, "'-mem-path' can't be used together with '-machine memory-backend'");
	if (c->loadvm)
		return err_set(e, EINVAL, "-loadvm %s: internal snapshots are not offered by this version", c->loadvm);
	if (c->vga && strcmp(c->vga, "std") && strcmp(c->vga, "none"))
		return err_set(e, EINVAL, "-vga %s: not offered; vmm has std and none", c->vga);
	for (struct opt_item *i = c->audiodev.first; i; i = i->next) {
		const char *driver = opts_get(&i->opts, "driver");

		if (!driver || strcmp(driver, "none"))
			return err_set(e, EINVAL, "-audiodev %s: not offered; vmm has only the driver 'none'", i->text);
	}
	return 0;
}

int config_each_set(struct config *c, struct opts *(*device)(struct config *c, const char *id), struct err *e)
{
	for (struct opt_item *i = c->set.first; i; i = i->next) {
		char id[64], prop[64];
		struct opts *o;

		if (i->opts.n != 1 || sscanf(i->opts.v[0].key, "device.%63[^.].%63s", id, prop) != 2)
			return err_set(e, EINVAL, "-set %s: expected device.ID.PROPERTY=VALUE", i->text);
		o = device(c, id);
		if (!o)
			return err_set(e, ENODEV, "-set %s: there is no device '%s'", i->text, id);
		opts_set(o, prop, i->opts.v[0].value);
	}
	return 0;
}

static struct opts *find_device(struct config *c, const char *id)
{
	for (struct opt_item *i = c->device.first; i; i = i->next) {
		const char *name = opts_get(&i->opts, "id");

		if (name && !strcmp(name, id))
			return &i->opts;
	}
	return NULL;
}

/* With -incoming and nothing else the devices are not known yet. */
static bool machine_is_known(const struct config *c)
{
	return !c->incoming || c->guest_option || !strcmp(c->incoming, "defer");
}

int config_complete(struct config *c, struct err *e)
{
	int r = check_machine(c, e);

	if (!r)
		r = complete_smp(c, e);
	if (!r)
		r = complete_memory(c, e);
	if (!r)
		r = check_combinations(c, e);
	if (!r && machine_is_known(c))
		r = config_each_set(c, find_device, e);
	return r;
}

void config_list_free(struct opt_list *l)
{
	while (l->first) {
		struct opt_item *next = l->first->next;

		opts_free(&l->first->opts);
		free(l->first->text);
		free(l->first);
		l->first = next;
	}
	l->last = NULL;
}

void config_described_free(struct config_described *d)
{
	if (!d)
		return;
	while (d->devices) {
		struct described_device *next = d->devices->next;

		free(d->devices->class);
		free(d->devices->id);
		opts_free(&d->devices->opts);
		free(d->devices);
		d->devices = next;
	}
	while (d->files) {
		struct described_file *next = d->files->next;

		free(d->files->name);
		free(d->files->data);
		free(d->files);
		d->files = next;
	}
	free(d->cpu_features);
	for (size_t i = 0; i < ARRAY_SIZE(d->cpu_id); i++)
		free(d->cpu_id[i]);
	free(d);
}

void config_free(struct config *c)
{
	char **strings[] = {
		&c->cpu,       &c->name,     &c->bios,       &c->firmware_dir, &c->kernel,          &c->initrd,
		&c->append,    &c->vga,      &c->display,    &c->incoming,     &c->migration_allow, &c->loadvm,
		&c->pidfile,   &c->log_file, &c->log_filter, &c->runas,        &c->chroot,          &c->qtest,
		&c->qtest_log, &c->gdb,      &c->metrics,    &c->run_with,     &c->mem_path};
	struct opt_list *lists[] = {&c->vnc,        &c->serial, &c->parallel,  &c->debugcon, &c->monitor,  &c->qmp,
				    &c->qmp_pretty, &c->mon,    &c->chardev,   &c->drive,    &c->blockdev, &c->netdev,
				    &c->nic,        &c->net,    &c->device,    &c->global,   &c->object,   &c->smbios,
				    &c->fw_cfg,     &c->add_fd, &c->acpitable, &c->msg,      &c->audiodev, &c->set};

	for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
		free(*strings[i]);
		*strings[i] = NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		config_list_free(lists[i]);
	config_described_free(c->described);
	c->described = NULL;
	props_free(machine_props, &c->machine);
	props_free(boot_props, &c->boot);
	props_free(rtc_props, &c->rtc);
}
