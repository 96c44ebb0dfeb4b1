/*
 * vCPU threads: the KVM_RUN loop, and how other threads get a vCPU out of it.
 *
 * One atomic word per vCPU carries all of it. Bit VCPU_OUTSIDE says that the thread runs no exit handler: it is in the
 * guest or parked. The other bits are requests. The thread enters the guest by changing the word from exactly 0 to
 * VCPU_OUTSIDE, so a request set before is always seen; whoever sets one and finds VCPU_OUTSIDE sets
 * kvm_run.immediate_exit, which the thread cleared before that change, and sends SIGUSR1. If the signal arrives before
 * KVM_RUN has begun, immediate_exit makes KVM_RUN return; if later, the signal does. No signal mask, no lost kick.
 *
 * Before parking, a half-done I/O instruction is completed (api.rst 5, "KVM_EXIT_IO": registers are consistent only
 * after KVM_RUN was entered again) so that reset and save see an instruction boundary.
 */
#include "src/kvm/kvm_internal.h"
#include "vmm/crash.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KICK_SIGNAL SIGUSR1

struct grace {
	void (*fn)(void *arg);
	void *arg;
	uint64_t waiting[(KVM_MAX_VCPUS + 63) / 64];
	struct grace *next;
};

static _Thread_local struct kvm_vcpu *self; /* NULL on other threads */

int vcpu_ioctl(struct kvm_vcpu *c, unsigned long req, void *arg)
{
	int r = ioctl(c->fd, req, arg);

	return r < 0 ? -errno : r;
}

static void set_immediate_exit(struct kvm_vcpu *c, uint8_t on)
{
	__atomic_store_n(&c->run->immediate_exit, on, __ATOMIC_SEQ_CST);
}

static void request(struct kvm_vcpu *c, unsigned bits)
{
	unsigned old = atomic_fetch_or(&c->word, bits);

	if (old & VCPU_OUTSIDE) {
		set_immediate_exit(c, 1);
		syscall(SYS_tgkill, getpid(), atomic_load(&c->tid), KICK_SIGNAL);
	}
}

/* ---- grace periods ---- */

/* vCPU `index` has left its handler: what waited for nobody else runs now. */
static void grace_pass(struct kvm_vm *vm, unsigned index)
{
	struct grace *ready = NULL;

	pthread_mutex_lock(&vm->grace_lock);
	for (struct grace **p = &vm->graces; *p;) {
		struct grace *g = *p;
		bool last = true;

		g->waiting[index / 64] &= ~BIT64(index % 64);
		for (size_t i = 0; i < ARRAY_SIZE(g->waiting); i++)
			last &= g->waiting[i] == 0;
		if (last) {
			*p = g->next;
			g->next = ready;
			ready = g;
		} else {
			p = &g->next;
		}
	}
	pthread_mutex_unlock(&vm->grace_lock);
	while (ready) {
		struct grace *g = ready;

		ready = g->next;
		g->fn(g->arg);
		free(g);
	}
}

/* True if the vCPU is in a handler and will therefore call grace_pass(). */
static bool ask_grace(struct kvm_vcpu *c)
{
	unsigned w = atomic_load(&c->word);

	while (!(w & VCPU_OUTSIDE))
		if (atomic_compare_exchange_weak(&c->word, &w, w | VCPU_REQ_GRACE))
			return true;
	return false;
}

void kvm_call_after_grace(struct kvm_vm *vm, void (*fn)(void *arg), void *arg)
{
	struct grace *g = xzalloc(sizeof(*g));
	bool waits = false;

	g->fn = fn;
	g->arg = arg;
	pthread_mutex_lock(&vm->grace_lock);
	for (unsigned i = 0; i < vm->n_vcpus; i++)
		if (vm->vcpus[i] && ask_grace(vm->vcpus[i])) {
			g->waiting[i / 64] |= BIT64(i % 64);
			waits = true;
		}
	if (waits) {
		g->next = vm->graces;
		vm->graces = g;
	}
	pthread_mutex_unlock(&vm->grace_lock);
	if (!waits) {
		fn(arg);
		free(g);
	}
}

static void go_outside(struct kvm_vcpu *c)
{
	if (atomic_fetch_or(&c->word, VCPU_OUTSIDE) & VCPU_REQ_GRACE) {
		atomic_fetch_and(&c->word, ~VCPU_REQ_GRACE);
		grace_pass(c->vm, c->index);
	}
}

/* Let KVM finish the instruction whose exit was handled last, without running further ones. A page-crossing MMIO access
   may exit again for its second part. */
static void complete_io(struct kvm_vcpu *c)
{
	while (c->pending_io) {
		c->pending_io = false;
		set_immediate_exit(c, 1);
		if (ioctl(c->fd, KVM_RUN, 0) == 0 && !vcpu_handle_exit(c))
			c->stuck = true;
	}
	coalesced_drain(c->vm);
}

/* ---- interrupts from outside ---- */

/*
 * Split irqchip, boot CPU, before KVM_RUN: acknowledge our i8259 and inject its vector if the CPU takes it now, else
 * ask KVM to exit when it will. ready_for_interrupt_injection includes LINT0 (ExtINT, unmasked), IF and shadows. KVM
 * holds one vector; while it has not delivered that (a REP string instruction may exit many times before), the next
 * waits in held_vector.
 */
static void offer_extint(struct kvm_vcpu *c)
{
	struct kvm_vm *vm = c->vm;
	struct kvm_interrupt irq;
	bool wanted = c->held_vector >= 0 || atomic_load(&vm->pic_level);

	/* After a load or reset nobody has asked KVM yet, and a halted CPU would not tell: ask without entering. */
	if (wanted && c->ready_stale) {
		set_immediate_exit(c, 1);
		if (ioctl(c->fd, KVM_RUN, 0) < 0 && errno == EINTR)
			c->ready_stale = false;
	}
	if (wanted && !c->ready_stale && c->run->ready_for_interrupt_injection) {
		if (c->held_vector < 0)
			c->held_vector = vm->ops->pic_ack(vm->opaque);
		irq.irq = (uint32_t)c->held_vector;
		if (vcpu_ioctl(c, KVM_INTERRUPT, &irq) == 0) {
			c->held_vector = -1;
			c->extint = true;
		}
		wanted = c->held_vector >= 0 || atomic_load(&vm->pic_level);
	}
	c->run->request_interrupt_window = wanted;
}

/*
 * KVM_INTERRUPT leaves the vector in a place that no state call returns until the next guest entry moves it into the
 * CPU's own event state. Before parking, make sure that this has happened, without running guest code: with a signal
 * pending that only KVM_RUN unblocks, KVM injects, notices the signal and cancels into the saved events. A halted CPU
 * needs a first round to wake.
 */
static void flush_extint(struct kvm_vcpu *c)
{
	union {
		struct kvm_signal_mask mask;
		uint8_t room[sizeof(struct kvm_signal_mask) + 8];
	} unblocked = {.room = {0}};
	struct timespec none = {0};
	sigset_t kick, old;

	if (!c->extint || c->stuck)
		return;
	sigemptyset(&kick);
	sigaddset(&kick, KICK_SIGNAL);
	pthread_sigmask(SIG_BLOCK, &kick, &old);
	unblocked.mask.len = 8;
	memset(unblocked.mask.sigset, 0xff, 8);
	unblocked.mask.sigset[(KICK_SIGNAL - 1) / 8] &= (uint8_t) ~(1u << (KICK_SIGNAL - 1) % 8);
	vcpu_ioctl(c, KVM_SET_SIGNAL_MASK, &unblocked);
	for (int round = 0; round < 2; round++) {
		syscall(SYS_tgkill, getpid(), atomic_load(&c->tid), KICK_SIGNAL);
		set_immediate_exit(c, 0);
		if (ioctl(c->fd, KVM_RUN, 0) == 0 && !vcpu_handle_exit(c))
			c->stuck = true;
	}
	vcpu_ioctl(c, KVM_SET_SIGNAL_MASK, NULL);
	while (sigtimedwait(&kick, NULL, &none) > 0)
		;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	c->extint = false;
	complete_io(c);
}

void kvm_pic_output(struct kvm_vm *vm, bool level)
{
	bool old = atomic_exchange(&vm->pic_level, level);

	if (level && !old && vm->n_vcpus)
		request(vm->vcpus[0], VCPU_REQ_INTR);
}

void kvm_inject_nmi(struct kvm_vm *vm, int cpu)
{
	pthread_mutex_lock(&vm->grace_lock);
	for (unsigned i = 0; i < vm->n_vcpus; i++)
		if (vm->vcpus[i] && (cpu < 0 || (unsigned)cpu == i))
			request(vm->vcpus[i], VCPU_REQ_NMI);
	pthread_mutex_unlock(&vm->grace_lock);
}

/* The board's NMI sources are wired to LINT1. APIC LVT LINT1 is at offset 360h: bit 16 masks, bits 10..8 are the
   delivery mode, 100b = NMI (Intel SDM 3A, 11.5.1). */
static void deliver_nmi(struct kvm_vcpu *c)
{
	struct kvm_lapic_state lapic;
	uint32_t lvt;

	if (vcpu_ioctl(c, KVM_GET_LAPIC, &lapic) < 0)
		return;
	lvt = get_le32(lapic.regs + 0x360);
	if (!(lvt & BIT(16)) && (lvt >> 8 & 7) == 4)
		vcpu_ioctl(c, KVM_NMI, NULL);
}

void kvm_hurry_coalesced(struct kvm_vm *vm)
{
	if (kvm_coalesced_waiting(vm) && vm->vcpus[0])
		request(vm->vcpus[0], VCPU_REQ_INTR); /* any request will do: it makes the vCPU leave the guest */
}

/* ---- the thread ---- */

/* Wait while paused or stuck. Returns false when the thread shall end. */
static bool park(struct kvm_vcpu *c)
{
	struct kvm_vm *vm = c->vm;
	bool go_on;

	complete_io(c);
	flush_extint(c);
	go_outside(c);
	pthread_mutex_lock(&vm->run_lock);
	/* Slots being replaced keep everybody out; whoever replaces them does not wait for the parked. */
	while ((vm->paused || c->stuck || c->frozen || vm->held || c->retired) && !vm->stopping) {
		if (!c->parked) {
			c->parked = true;
			pthread_cond_broadcast(&vm->parked);
		}
		pthread_cond_wait(&vm->resumed, &vm->run_lock);
	}
	c->parked = false;
	atomic_fetch_and(&c->word, ~(VCPU_REQ_PAUSE | VCPU_OUTSIDE));
	c->touched = true;
	go_on = !vm->stopping;
	pthread_mutex_unlock(&vm->run_lock);
	return go_on;
}

/* Slots are being replaced: wait until the new ones are there. */
static void wait_held(struct kvm_vcpu *c)
{
	struct kvm_vm *vm = c->vm;

	pthread_mutex_lock(&vm->run_lock);
	while (vm->held)
		pthread_cond_wait(&vm->resumed, &vm->run_lock);
	atomic_fetch_and(&c->word, ~VCPU_REQ_HOLD);
	pthread_mutex_unlock(&vm->run_lock);
}

/* In the guest, or about to enter it without another look at the requests. */
static bool in_guest(const struct kvm_vcpu *c)
{
	return c != self && (atomic_load(&c->word) & VCPU_OUTSIDE) && !c->parked;
}

void vcpus_hold(struct kvm_vm *vm)
{
	pthread_mutex_lock(&vm->run_lock);
	vm->held = true;
	for (unsigned i = 0; i < vm->n_vcpus; i++)
		if (vm->vcpus[i] && vm->vcpus[i] != self && !vm->vcpus[i]->parked)
			request(vm->vcpus[i], VCPU_REQ_HOLD);
	for (unsigned i = 0; i < vm->n_vcpus; i++)
		while (vm->vcpus[i] && in_guest(vm->vcpus[i]))
			pthread_cond_wait(&vm->parked, &vm->run_lock);
	pthread_mutex_unlock(&vm->run_lock);
}

void vcpus_release(struct kvm_vm *vm)
{
	pthread_mutex_lock(&vm->run_lock);
	vm->held = false;
	pthread_cond_broadcast(&vm->resumed);
	pthread_mutex_unlock(&vm->run_lock);
}

/*
 * Sleep, for auto-converge. A kick ends it: requests are served at once, the rest of the nap is dropped. The signal is
 * blocked while the word is looked at, so that none is missed.
 */
static void doze(struct kvm_vcpu *c)
{
	uint64_t ns = atomic_exchange(&c->doze_ns, 0);
	struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000ull), .tv_nsec = (long)(ns % 1000000000ull)};
	sigset_t kick, old;

	sigemptyset(&kick);
	sigaddset(&kick, KICK_SIGNAL);
	pthread_sigmask(SIG_BLOCK, &kick, &old);
	go_outside(c);
	if (!(atomic_load(&c->word) & VCPU_REQUESTS))
		sigtimedwait(&kick, NULL, &ts);
	atomic_fetch_and(&c->word, ~VCPU_OUTSIDE);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void kvm_vcpu_doze(struct kvm_vcpu *c, uint64_t ns)
{
	atomic_store(&c->doze_ns, ns);
	request(c, VCPU_REQ_DOZE);
}

/* False: end. */
static bool serve_requests(struct kvm_vcpu *c)
{
	unsigned w = atomic_fetch_and(&c->word, ~(VCPU_REQ_GRACE | VCPU_REQ_NMI | VCPU_REQ_INTR | VCPU_REQ_DOZE));

	if (w & VCPU_REQ_GRACE)
		grace_pass(c->vm, c->index);
	if (w & VCPU_REQ_NMI) {
		complete_io(c);
		deliver_nmi(c);
	}
	if (w & VCPU_REQ_HOLD)
		wait_held(c);
	if (w & VCPU_REQ_PAUSE || c->stuck)
		return park(c);
	if (w & VCPU_REQ_DOZE)
		doze(c);
	return true;
}

static void run_failed(struct kvm_vcpu *c, int error)
{
	char text[128];

	snprintf(text, sizeof(text), "KVM_RUN failed: %s%s", strerror(error),
		 error == EFAULT ? " (the guest's memory could not be accessed)" : "");
	vcpu_internal_error(c, text);
	c->stuck = true;
}

/* One round: into the guest and back. False: look at the requests first. */
static bool run_once(struct kvm_vcpu *c)
{
	unsigned idle = 0, word;
	int r, error;

	if (c->index == 0 && c->vm->irqchip == IRQCHIP_SPLIT)
		offer_extint(c);
	set_immediate_exit(c, 0);
	if (atomic_load_explicit(&c->vm->routes_dirty, memory_order_acquire))
		routing_flush(c->vm);
	if (!atomic_compare_exchange_strong(&c->word, &idle, VCPU_OUTSIDE))
		return false;
	r = ioctl(c->fd, KVM_RUN, 0);
	error = errno;
	word = atomic_fetch_and(&c->word, ~VCPU_OUTSIDE);
	if (word & VCPU_REQ_HOLD) {
		pthread_mutex_lock(&c->vm->run_lock);
		pthread_cond_broadcast(&c->vm->parked);
		pthread_mutex_unlock(&c->vm->run_lock);
	}
	if (r != 0)
		coalesced_drain(c->vm);
	if (c->memory_error) {
		c->memory_error = false;
		run_failed(c, EFAULT);
	} else if (r == 0) {
		c->pending_io = false;
		c->stuck = !vcpu_handle_exit(c);
	} else if (error == EINTR) {
		c->pending_io = false; /* completed on entry */
	} else if (error != EAGAIN) {  /* EAGAIN: an AP got its INIT or SIPI */
		run_failed(c, error);
	}
	return !c->stuck;
}

static void prepare_thread(struct kvm_vcpu *c)
{
	sigset_t set;
	char name[16];

	snprintf(name, sizeof(name), "CPU %u/KVM", c->index);
	pthread_setname_np(pthread_self(), name);
	sigfillset(&set);
	sigdelset(&set, KICK_SIGNAL);
	crash_unblock(&set);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	self = c;
}

static void *vcpu_thread(void *arg)
{
	struct kvm_vcpu *c = arg;
	struct kvm_vm *vm = c->vm;
	struct err e = ERR_INIT;
	bool go_on;

	prepare_thread(c);
	/* While the main thread goes on building the machine. */
	if (vcpu_capture_poweron(c, &e) < 0)
		log_error("kvm", "CPU %u: %s", c->index, e.msg);
	pthread_mutex_lock(&vm->run_lock);
	atomic_store(&c->tid, (int)syscall(SYS_gettid));
	pthread_cond_broadcast(&vm->parked);
	pthread_mutex_unlock(&vm->run_lock);
	go_on = park(c);
	if (go_on && vm->thread_hook)
		vm->thread_hook();
	while (go_on)
		if (!run_once(c))
			go_on = serve_requests(c);
	go_outside(c);
	pthread_mutex_lock(&vm->run_lock);
	c->parked = true; /* for good: nobody has to wait for a thread that has ended */
	pthread_cond_broadcast(&vm->parked);
	pthread_mutex_unlock(&vm->run_lock);
	return NULL;
}

static void on_kick(int signal)
{
	(void)signal; /* its arrival is all that is needed */
}

/* Memory that cannot be had (a damaged page of a saved guest, the host's own broken memory): KVM raises this for a
   guest that touches it. The guest stops with an internal error; anybody else ends the process, as without a handler.
 */
static void on_bus_error(int signal)
{
	(void)signal;
	if (!self || !(atomic_load(&self->word) & VCPU_OUTSIDE))
		abort();
	self->memory_error = true;
	set_immediate_exit(self, 1);
}

static void install_kick_handler(void)
{
	static bool installed; /* the sandbox lets nobody change handlers when the guest runs */
	struct sigaction sa = {.sa_handler = on_kick}, bus = {.sa_handler = on_bus_error};

	if (installed)
		return;
	sigemptyset(&sa.sa_mask);
	sigaction(KICK_SIGNAL, &sa, NULL);
	sigemptyset(&bus.sa_mask);
	sigaction(SIGBUS, &bus, NULL);
	installed = true;
}

bool kvm_vcpu_is_self(void)
{
	return self != NULL;
}

/* ---- creation ---- */

static int start_thread(struct kvm_vcpu *c, struct err *e)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	install_kick_handler();
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 512 * KIB);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&c->thread, &attr, vcpu_thread, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r)
		return err_errno(e, r, "cannot start the thread of CPU %u", c->index);
	c->thread_started = true;
	return 0;
}

static int open_vcpu(struct kvm_vcpu *c, struct err *e)
{
	struct kvm_vm *vm = c->vm;

	c->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)c->apic_id);
	if (c->fd < 0)
		return err_errno(e, errno, "KVM cannot create CPU %u (APIC id %u)", c->index, c->apic_id);
	c->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (c->run == MAP_FAILED) {
		close(c->fd);
		return err_errno(e, errno, "cannot map CPU %u", c->index);
	}
	if (ring_map(c, e)) {
		munmap(c->run, vm->run_size);
		close(c->fd);
		return -e->code;
	}
	c->stats_fd = stats_open(c->fd);
	coalesced_map(vm, c->run);
	return 0;
}

/*
 * Let a vCPU join the others: one that was unplugged (KVM never lets go of it, so it is kept), or a new one while the
 * guest runs. Its power-on state is set even if it is new: KVM looks for destinations of interrupts in a map that it
 * makes when a local APIC is set, and creation comes too early for that (kvm_recalculate_apic_map()).
 */
static struct kvm_vcpu *join(struct kvm_vcpu *c)
{
	struct kvm_vm *vm = c->vm;

	c->touched = true;
	kvm_vcpu_reset(c);
	pthread_mutex_lock(&vm->run_lock);
	c->retired = false;
	pthread_cond_broadcast(&vm->resumed);
	pthread_mutex_unlock(&vm->run_lock);
	return c;
}

/* From here on everybody who goes through all vCPUs finds c. Its thread has not started yet. */
static void publish(struct kvm_vcpu *c)
{
	struct kvm_vm *vm = c->vm;

	pthread_mutex_lock(&vm->run_lock);
	pthread_mutex_lock(&vm->grace_lock);
	vm->vcpus[c->index] = c;
	vm->n_vcpus = MAX(vm->n_vcpus, c->index + 1);
	pthread_mutex_unlock(&vm->grace_lock);
	pthread_mutex_unlock(&vm->run_lock);
}

static void withdraw(struct kvm_vcpu *c)
{
	struct kvm_vm *vm = c->vm;

	pthread_mutex_lock(&vm->run_lock);
	pthread_mutex_lock(&vm->grace_lock);
	vm->vcpus[c->index] = NULL;
	pthread_mutex_unlock(&vm->grace_lock);
	pthread_cond_broadcast(&vm->parked);
	pthread_mutex_unlock(&vm->run_lock);
}

struct kvm_vcpu *kvm_vcpu_new(struct kvm_vm *vm, unsigned index, struct err *e)
{
	struct kvm_vcpu *c;

	if (index >= MIN(vm->caps.max_vcpus, KVM_MAX_VCPUS)) {
		err_set(e, EINVAL, "CPU %u cannot be created: this host's KVM allows %u", index,
			MIN(vm->caps.max_vcpus, KVM_MAX_VCPUS));
		return NULL;
	}
	if (vm->vcpus[index] && vm->vcpus[index]->retired)
		return join(vm->vcpus[index]);
	if (vm->vcpus[index]) {
		err_set(e, EEXIST, "CPU %u exists", index);
		return NULL;
	}
	if (setup_wait(vm, e) < 0)
		return NULL;
	c = xzalloc(sizeof(*c));
	c->vm = vm;
	c->index = index;
	c->apic_id = kvm_apic_id(&vm->cpu.smp, index);
	c->held_vector = -1;
	c->retired = vm->setup.done;
	atomic_init(&c->word, VCPU_OUTSIDE);
	if (c->apic_id >= KVM_MAX_VCPUS || c->apic_id >= vm->caps.max_vcpu_id) {
		err_set(e, EINVAL,
			"CPU %u would get APIC id %u, but only ids below %u work: choose -smp cores and threads "
			"that are powers of two",
			index, c->apic_id, MIN(vm->caps.max_vcpu_id, KVM_MAX_VCPUS));
		goto fail_free;
	}
	if (open_vcpu(c, e) < 0)
		goto fail_free;
	if (cpuid_apply(c, e) < 0)
		goto fail_unmap;
	publish(c);
	if (start_thread(c, e) < 0)
		goto fail_withdraw;
	return c->retired ? join(c) : c;
fail_withdraw:
	withdraw(c);
fail_unmap:
	munmap(c->run, vm->run_size);
	if (c->stats_fd >= 0)
		close(c->stats_fd);
	close(c->fd);
fail_free:
	free(c);
	return NULL;
}

void kvm_vcpu_retire(struct kvm_vcpu *c)
{
	struct kvm_vm *vm = c->vm;

	pthread_mutex_lock(&vm->run_lock);
	c->retired = true;
	if (!c->parked)
		request(c, VCPU_REQ_PAUSE);
	while (!c->parked)
		pthread_cond_wait(&vm->parked, &vm->run_lock);
	pthread_mutex_unlock(&vm->run_lock);
	/* With its local APIC off no interrupt is sent to it any more. */
	c->touched = true;
	kvm_vcpu_reset(c);
}

void kvm_set_thread_hook(struct kvm_vm *vm, void (*hook)(void))
{
	vm->thread_hook = hook;
}

unsigned kvm_vcpu_count(struct kvm_vm *vm)
{
	return vm->n_vcpus;
}

struct kvm_vcpu *kvm_vcpu_get(struct kvm_vm *vm, unsigned index)
{
	struct kvm_vcpu *c = index < vm->n_vcpus ? vm->vcpus[index] : NULL;

	return c && !c->retired ? c : NULL;
}

uint32_t kvm_vcpu_apic_id(const struct kvm_vcpu *c)
{
	return c->apic_id;
}

int kvm_vcpu_thread_id(const struct kvm_vcpu *c)
{
	struct kvm_vm *vm = c->vm;
	int tid;

	pthread_mutex_lock(&vm->run_lock);
	while (!(tid = atomic_load(&c->tid)))
		pthread_cond_wait(&vm->parked, &vm->run_lock);
	pthread_mutex_unlock(&vm->run_lock);
	return tid;
}

/* ---- run control ---- */

void kvm_vcpus_resume(struct kvm_vm *vm)
{
	struct err e = ERR_INIT;

	if (kvm_vm_ready(vm, &e) < 0) {
		log_error("kvm", "%s", e.msg);
		return;
	}
	pthread_mutex_lock(&vm->run_lock);
	vm->paused = false;
	for (unsigned i = 0; i < vm->n_vcpus; i++)
		if (vm->vcpus[i] && vm->vcpus[i]->trapped)
			vm->vcpus[i]->trapped = vm->vcpus[i]->stuck = false;
	pthread_cond_broadcast(&vm->resumed);
	pthread_mutex_unlock(&vm->run_lock);
}

void kvm_vcpus_pause(struct kvm_vm *vm)
{
	pthread_mutex_lock(&vm->run_lock);
	vm->paused = true;
	for (unsigned i = 0; i < vm->n_vcpus; i++)
		if (vm->vcpus[i] && !vm->vcpus[i]->parked)
			request(vm->vcpus[i], VCPU_REQ_PAUSE);
	for (unsigned i = 0; i < vm->n_vcpus; i++)
		while (vm->vcpus[i] && !vm->vcpus[i]->parked)
			pthread_cond_wait(&vm->parked, &vm->run_lock);
	pthread_mutex_unlock(&vm->run_lock);
}

void kvm_vcpus_stop(struct kvm_vm *vm)
{
	pthread_mutex_lock(&vm->run_lock);
	vm->stopping = true;
	for (unsigned i = 0; i < vm->n_vcpus; i++)
		if (vm->vcpus[i])
			request(vm->vcpus[i], VCPU_REQ_PAUSE);
	pthread_cond_broadcast(&vm->resumed);
	pthread_mutex_unlock(&vm->run_lock);
	for (unsigned i = 0; i < vm->n_vcpus; i++)
		if (vm->vcpus[i] && vm->vcpus[i]->thread_started) {
			pthread_join(vm->vcpus[i]->thread, NULL);
			vm->vcpus[i]->thread_started = false;
		}
}

size_t kvm_exit_counts(struct kvm_vcpu *c, const char **names, uint64_t *counts, size_t max)
{
	size_t n = 0;

	for (unsigned i = 0; i < N_EXIT_REASONS && n < max; i++)
		if (vcpu_exit_name(i)) {
			names[n] = vcpu_exit_name(i);
			counts[n++] = atomic_load_explicit(&c->exits[i], memory_order_relaxed);
		}
	return n;
}
