/*
 * The VM: /dev/kvm, its API version and capabilities, and the helper thread that overlaps slow set-up ioctls with the
 * rest of the start-up. Source: Linux Documentation/virt/kvm/api.rst, sections 4.1..4.4 and 6..8.
 */
#include "src/kvm/kvm_internal.h"
#include "vmm/crash.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int vm_ioctl(struct kvm_vm *vm, unsigned long req, void *arg)
{
	int r = ioctl(vm->fd, req, arg);

	return r < 0 ? -errno : r;
}

int vm_check_extension(struct kvm_vm *vm, int cap)
{
	int r = ioctl(vm->fd, KVM_CHECK_EXTENSION, (unsigned long)cap);

	return r < 0 ? 0 : r;
}

static bool cpu_flag_present(const char *flag)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[8192];
	bool found = false;

	if (!f)
		return true; /* cannot tell */
	while (!found && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "flags", 5) != 0)
			continue;
		for (char *save, *w = strtok_r(line, " \t\n", &save); w; w = strtok_r(NULL, " \t\n", &save))
			found |= strcmp(w, flag) == 0;
		break;
	}
	fclose(f);
	return found;
}

static int explain_open(int error, struct err *e)
{
	bool intel = cpu_flag_present("vmx"), amd = cpu_flag_present("svm");

	switch (error) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		if (!intel && !amd)
			return err_set(
				e, error,
				"/dev/kvm is missing and this CPU shows no virtualization: enable Intel VT-x or AMD-V "
				"(SVM) in the BIOS setup, or nested virtualization if this is itself a virtual "
				"machine");
		return err_set(e, error, "/dev/kvm is missing: load the kernel module with 'modprobe %s'%s",
			       intel ? "kvm_intel" : "kvm_amd",
			       "; if that fails, enable virtualization in the BIOS setup ('dmesg | grep kvm' tells)");
	case EACCES:
	case EPERM:
		return err_set(e, error,
			       "no permission to open /dev/kvm: add your user to the group kvm ('sudo usermod -aG kvm "
			       "$USER', then log in again)");
	default:
		return err_errno(e, error, "cannot open /dev/kvm");
	}
}

static int open_kvm(struct err *e)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int version;

	if (fd < 0)
		return explain_open(errno, e);
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		close(fd);
		return err_set(e, ENOTSUP,
			       "/dev/kvm speaks API version %d, but version %d (Linux 2.6.22 or newer) is needed",
			       version, KVM_API_VERSION);
	}
	return fd;
}

/* What no supported kernel (5.10 or newer) lacks; named so that the message says which one. */
static const struct {
	int cap;
	const char *name;
} required_caps[] = {
	{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},   {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
	{KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},           {KVM_CAP_PIT2, "KVM_CAP_PIT2"},
	{KVM_CAP_PIT_STATE2, "KVM_CAP_PIT_STATE2"},     {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
	{KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},     {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
	{KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},       {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
	{KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},   {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
	{KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"}, {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
};

static int check_caps(struct kvm_vm *vm, struct err *e)
{
	struct caps *c = &vm->caps;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(required_caps); i++)
		if (vm_check_extension(vm, required_caps[i].cap) <= 0)
			return err_set_class(e, ERR_KVM_MISSING_CAP, ENOTSUP,
					     "this kernel's KVM lacks %s: a newer kernel is needed",
					     required_caps[i].name);
	c->readonly_mem = true;
	c->split_irqchip = vm_check_extension(vm, KVM_CAP_SPLIT_IRQCHIP) > 0;
	c->ioeventfd_any_length = vm_check_extension(vm, KVM_CAP_IOEVENTFD_ANY_LENGTH) > 0;
	c->sregs2 = vm_check_extension(vm, KVM_CAP_SREGS2) > 0;
	c->xcrs = vm_check_extension(vm, KVM_CAP_XCRS) > 0;
	c->debugregs = vm_check_extension(vm, KVM_CAP_DEBUGREGS) > 0;
	c->tsc_deadline = vm_check_extension(vm, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	c->get_tsc_khz = vm_check_extension(vm, KVM_CAP_GET_TSC_KHZ) > 0;
	c->tsc_control = vm_check_extension(vm, KVM_CAP_TSC_CONTROL) > 0;
	c->mce = ioctl(vm->sys_fd, KVM_CHECK_EXTENSION, KVM_CAP_MCE) > 0;
	c->tss_addr = vm_check_extension(vm, KVM_CAP_SET_TSS_ADDR) > 0;
	c->identity_map = vm_check_extension(vm, KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0;
	c->triple_fault_event = vm_check_extension(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT) > 0;
	c->exception_payload = vm_check_extension(vm, KVM_CAP_EXCEPTION_PAYLOAD) > 0;
	c->dirty_protect = (unsigned long)vm_check_extension(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) &
			   (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
	r = vm_check_extension(vm, KVM_CAP_XSAVE2);
	c->xsave_size = MAX(r > 0 ? (size_t)r : 0, sizeof(struct kvm_xsave));
	r = vm_check_extension(vm, KVM_CAP_NESTED_STATE);
	c->nested_size = r > 0 ? (size_t)r : 0;
	r = vm_check_extension(vm, KVM_CAP_MAX_VCPUS);
	c->max_vcpus = r > 0 ? (unsigned)r : 4;
	r = vm_check_extension(vm, KVM_CAP_MAX_VCPU_ID);
	c->max_vcpu_id = r > 0 ? (unsigned)r : c->max_vcpus;
	r = vm_check_extension(vm, KVM_CAP_NR_MEMSLOTS);
	c->max_slots = r > 0 ? (unsigned)r : 32;
	r = vm_check_extension(vm, KVM_CAP_ADJUST_CLOCK);
	c->adjust_clock = r > 0 ? (unsigned)r : 0;
	if (c->xsave_size > VCPU_XSAVE_MAX || c->nested_size > VCPU_NESTED_MAX)
		return err_set(e, ENOTSUP,
			       "this host's CPU state (XSAVE %zu, nested %zu bytes) is larger than vmm can save",
			       c->xsave_size, c->nested_size);
	return 0;
}

static int enable_cap(struct kvm_vm *vm, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap ec = {.cap = cap, .args = {arg}};

	return vm_ioctl(vm, KVM_ENABLE_CAP, &ec);
}

/* Optional abilities; a kernel that refuses one works without it. */
static void enable_caps(struct kvm_vm *vm)
{
	/* With dirty rings nothing is ever cleared page by page, so nothing may wait for that to be write-protected. */
	if (vm->ring_entries)
		vm->caps.dirty_protect = 0;
	if (vm->caps.dirty_protect && enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, vm->caps.dirty_protect) < 0)
		vm->caps.dirty_protect = 0;
	if (vm->caps.exception_payload && enable_cap(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1) < 0)
		vm->caps.exception_payload = false;
	if (vm->caps.triple_fault_event && enable_cap(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1) < 0)
		vm->caps.triple_fault_event = false;
}

static int create_vm(struct kvm_vm *vm, struct err *e)
{
	do
		vm->fd = ioctl(vm->sys_fd, KVM_CREATE_VM, 0);
	while (vm->fd < 0 && errno == EINTR); /* a signal during the kernel's set-up of its threads */
	if (vm->fd < 0) {
		if (errno == EBUSY)
			return err_set(e, EBUSY,
				       "KVM cannot create a VM: another hypervisor (VirtualBox, VMware) is using "
				       "this CPU's virtualization; stop it first");
		return err_errno(e, errno, "KVM cannot create a VM");
	}
	return 0;
}

/* ---- queued set-up ---- */

static void *setup_thread(void *arg)
{
	struct kvm_vm *vm = arg;
	struct setup *s = &vm->setup;
	struct err e = ERR_INIT;

	pthread_setname_np(pthread_self(), "kvm-setup");
	pthread_mutex_lock(&s->lock);
	while (s->first || !s->ended) {
		struct setup_job *job = s->first;

		if (!job) {
			pthread_cond_wait(&s->idle, &s->lock);
			continue;
		}
		s->first = job->next;
		if (!s->first)
			s->last = &s->first;
		pthread_mutex_unlock(&s->lock);
		int r = job->fn(vm, job->arg, &e);
		free(job->arg);
		free(job);
		pthread_mutex_lock(&s->lock);
		if (r < 0 && !s->err.code)
			s->err = e;
		s->pending--;
		pthread_cond_broadcast(&s->idle);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int setup_submit(struct kvm_vm *vm, int (*fn)(struct kvm_vm *, void *, struct err *), void *arg, bool replaces,
		 struct err *e)
{
	struct setup *s = &vm->setup;
	struct setup_job *job;
	sigset_t all, old;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	if (s->done) {
		pthread_mutex_unlock(&s->lock);
		r = fn(vm, arg, e);
		free(arg);
		return r;
	}
	if (!s->started) {
		sigfillset(&all);
		crash_unblock(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		r = pthread_create(&s->thread, NULL, setup_thread, vm);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		if (r) {
			pthread_mutex_unlock(&s->lock);
			free(arg);
			return err_errno(e, r, "cannot start the KVM set-up thread");
		}
		s->started = true;
	}
	/* A complete memory list that nobody has begun with is replaced by the next one. */
	job = s->first ? container_of(s->last, struct setup_job, next) : NULL;
	if (replaces && job && job->fn == fn) {
		free(job->arg);
		job->arg = arg;
		pthread_mutex_unlock(&s->lock);
		return 0;
	}
	job = xzalloc(sizeof(*job));
	job->fn = fn;
	job->arg = arg;
	*s->last = job;
	s->last = &job->next;
	s->pending++;
	pthread_cond_broadcast(&s->idle);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

int setup_wait(struct kvm_vm *vm, struct err *e)
{
	struct setup *s = &vm->setup;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	while (s->pending)
		pthread_cond_wait(&s->idle, &s->lock);
	if (s->err.code) {
		if (e)
			*e = s->err;
		r = -s->err.code;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

int kvm_vm_ready(struct kvm_vm *vm, struct err *e)
{
	struct setup *s = &vm->setup;
	bool join;
	int r = setup_wait(vm, e);

	pthread_mutex_lock(&s->lock);
	join = s->started && !s->done;
	s->ended = s->done = true;
	pthread_cond_broadcast(&s->idle);
	pthread_mutex_unlock(&s->lock);
	if (join)
		pthread_join(s->thread, NULL);
	return r;
}

/* ---- life ---- */

static void init_locks(struct kvm_vm *vm)
{
	pthread_mutex_init(&vm->setup.lock, NULL);
	pthread_cond_init(&vm->setup.idle, NULL);
	vm->setup.last = &vm->setup.first;
	pthread_mutex_init(&vm->slots_lock, NULL);
	pthread_mutex_init(&vm->routing_lock, NULL);
	pthread_mutex_init(&vm->run_lock, NULL);
	pthread_cond_init(&vm->parked, NULL);
	pthread_cond_init(&vm->resumed, NULL);
	pthread_mutex_init(&vm->grace_lock, NULL);
}

struct kvm_vm *kvm_vm_new(const struct config *c, const struct kvm_exit_ops *ops, void *opaque, struct err *e)
{
	struct kvm_vm *vm = xzalloc(sizeof(*vm));
	int r;

	vm->ops = ops;
	vm->opaque = opaque;
	vm->ram_end = 4 * GIB + c->memory.size;
	vm->paused = true;
	vm->fd = vm->stats_fd = -1;
	init_locks(vm);
	routing_init(vm);
	vm->sys_fd = open_kvm(e);
	if (vm->sys_fd < 0)
		goto fail;
	if (create_vm(vm, e) < 0 || check_caps(vm, e) < 0)
		goto fail;
	r = ioctl(vm->sys_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (r < (int)sizeof(struct kvm_run)) {
		err_set(e, ENOTSUP, "KVM reports an impossible size of its vCPU mapping (%d bytes)", r);
		goto fail;
	}
	vm->run_size = (size_t)r;
	if (c->machine.dirty_ring_size && ring_enable(vm, c->machine.dirty_ring_size, e))
		goto fail;
	enable_caps(vm);
	coalesced_init(vm);
	vm->stats_fd = stats_open(vm->fd);
	crash_add_dumper(vcpu_dump_exits, vm);
	return vm;
fail:
	kvm_vm_free(vm);
	return NULL;
}

void kvm_vm_free(struct kvm_vm *vm)
{
	if (!vm)
		return;
	kvm_vm_ready(vm, NULL);
	kvm_vcpus_stop(vm);
	crash_remove_dumper(vcpu_dump_exits, vm);
	for (unsigned i = 0; i < vm->n_vcpus; i++) {
		struct kvm_vcpu *v = vm->vcpus[i];

		if (!v)
			continue;
		ring_unmap(v);
		munmap(v->run, vm->run_size);
		if (v->stats_fd >= 0)
			close(v->stats_fd);
		close(v->fd);
		free(v->poweron);
		free(v);
	}
	slots_free(vm);
	routing_free(vm);
	free(vm->supported);
	free(vm->msr_list);
	stats_free(vm);
	coalesced_free(vm);
	if (vm->fd >= 0)
		close(vm->fd);
	if (vm->sys_fd >= 0)
		close(vm->sys_fd);
	pthread_mutex_destroy(&vm->setup.lock);
	pthread_cond_destroy(&vm->setup.idle);
	pthread_mutex_destroy(&vm->slots_lock);
	pthread_mutex_destroy(&vm->routing_lock);
	pthread_mutex_destroy(&vm->run_lock);
	pthread_cond_destroy(&vm->parked);
	pthread_cond_destroy(&vm->resumed);
	pthread_mutex_destroy(&vm->grace_lock);
	free(vm);
}

int kvm_available(struct err *e)
{
	struct kvm_vm vm = {.sys_fd = open_kvm(e), .fd = -1};
	int r;

	if (vm.sys_fd < 0)
		return 0;
	r = create_vm(&vm, e);
	if (r == 0) {
		r = check_caps(&vm, e);
		close(vm.fd);
	}
	close(vm.sys_fd);
	return r == 0;
}

uint64_t kvm_max_gpa(struct kvm_vm *vm)
{
	return (1ull << kvm_cpu_phys_bits(vm)) - 1;
}

/* ---- kvmclock: guest time as the paravirtual clock shows it ---- */

int kvm_clock_get(struct kvm_vm *vm, uint64_t *ns)
{
	struct kvm_clock_data d = {0};
	int r = vm_ioctl(vm, KVM_GET_CLOCK, &d);

	*ns = d.clock;
	return r < 0 ? r : 0;
}

int kvm_clock_set(struct kvm_vm *vm, uint64_t ns)
{
	struct kvm_clock_data d = {.clock = ns};
	int r = vm_ioctl(vm, KVM_SET_CLOCK, &d);

	/* Tell guests with kvmclock that they were stopped, so that soft-lockup watchdogs stay quiet; -EINVAL: the
	   guest does not use kvmclock. */
	for (unsigned i = 0; r == 0 && i < vm->n_vcpus; i++)
		if (vm->vcpus[i])
			vcpu_ioctl(vm->vcpus[i], KVM_KVMCLOCK_CTRL, NULL);
	return r < 0 ? r : 0;
}
