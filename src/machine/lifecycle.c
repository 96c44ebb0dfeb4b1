/*
 * The machine's life: power on, stop, continue, reset, power off, and what devices and vCPUs ask for from other
 * threads. A request is a bit set by anybody and carried out by a bottom half on the main loop, so that a vCPU never
 * waits for the machine it is part of.
 *
 * Reset: vCPUs stop -> devices quiesce -> every device resets its own fields -> interrupt lines go low -> every device
 * settles -> vCPUs get their reset state -> run. Quiescing takes as long as the slowest request in flight; the guest
 * sees an instant.
 */
#include "board.h"

#include <errno.h>
#include <stdlib.h>
#include "vmm/block.h"
#include "vmm/cmos.h"
#include "vmm/net.h"
#include "boot.h"
#include "chipset.h"
#include "firmware_items.h"

enum machine_request {
	REQ_RESET = BIT(0),
	REQ_SHUTDOWN = BIT(1),
	REQ_EXIT = BIT(2),
	REQ_SUSPEND = BIT(3),
	REQ_WAKEUP = BIT(4),
	REQ_IO_ERROR = BIT(5),
	REQ_PANIC = BIT(6),
	REQ_INTERNAL_ERROR = BIT(7),
	REQ_CRASHLOADED = BIT(8),
	REQ_DEBUG = BIT(9),
	REQ_WATCHDOG = BIT(10),
};

static const char *const state_names[] = {
	[RUN_DEBUG] = "debug",
	[RUN_INMIGRATE] = "inmigrate",
	[RUN_INTERNAL_ERROR] = "internal-error",
	[RUN_IO_ERROR] = "io-error",
	[RUN_PAUSED] = "paused",
	[RUN_POSTMIGRATE] = "postmigrate",
	[RUN_PRELAUNCH] = "prelaunch",
	[RUN_FINISH_MIGRATE] = "finish-migrate",
	[RUN_RESTORE_VM] = "restore-vm",
	[RUN_RUNNING] = "running",
	[RUN_SAVE_VM] = "save-vm",
	[RUN_SHUTDOWN] = "shutdown",
	[RUN_SUSPENDED] = "suspended",
	[RUN_WATCHDOG] = "watchdog",
	[RUN_GUEST_PANICKED] = "guest-panicked",
};

static const char *const cause_names[] = {
	[SHUTDOWN_HOST_QMP_QUIT] = "host-qmp-quit", [SHUTDOWN_HOST_QMP_RESET] = "host-qmp-system-reset",
	[SHUTDOWN_HOST_SIGNAL] = "host-signal",     [SHUTDOWN_HOST_UI] = "host-ui",
	[SHUTDOWN_HOST_ERROR] = "host-error",       [SHUTDOWN_GUEST_SHUTDOWN] = "guest-shutdown",
	[SHUTDOWN_GUEST_RESET] = "guest-reset",     [SHUTDOWN_GUEST_PANIC] = "guest-panic",
};

const char *run_state_name(enum run_state s)
{
	return state_names[s];
}

bool run_state_find(const char *name, enum run_state *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(state_names); i++)
		if (!strcmp(state_names[i], name)) {
			*out = (enum run_state)i;
			return true;
		}
	return false;
}

const char *shutdown_cause_name(enum shutdown_cause c)
{
	return cause_names[c];
}

static bool guest_caused(enum shutdown_cause c)
{
	return c >= SHUTDOWN_GUEST_SHUTDOWN;
}

/* ---- events ---- */

struct subscriber {
	struct subscriber *next;
	machine_event_fn *fn;
	void *opaque;
};
static struct subscriber *subscribers;

void machine_subscribe_events(machine_event_fn *fn, void *opaque)
{
	struct subscriber *s = xzalloc(sizeof(*s));

	*s = (struct subscriber){.next = subscribers, .fn = fn, .opaque = opaque};
	subscribers = s;
}

static void emit(const char *name, const char *data)
{
	for (struct subscriber *s = subscribers; s; s = s->next)
		s->fn(s->opaque, name, data);
}

struct queued_event {
	char *name, *data;
};

static void emit_queued(void *opaque)
{
	struct queued_event *q = opaque;

	emit(q->name, q->data);
	free(q->name);
	free(q->data);
	free(q);
}

void machine_event(struct board *board, const char *name, const char *data_json)
{
	struct queued_event *q = xzalloc(sizeof(*q));

	(void)board;
	q->name = xstrdup(name);
	q->data = xstrdup(data_json);
	loop_post(loop_main(), NULL, emit_queued, q);
}

static void emit_cause(const char *name, enum shutdown_cause cause)
{
	char *data = xasprintf("{\"guest\": %s, \"reason\": \"%s\"}", guest_caused(cause) ? "true" : "false",
			       cause_names[cause]);

	emit(name, data);
	free(data);
}

/* ---- running and stopping ---- */

enum run_state machine_run_state(const struct board *b)
{
	return b->state;
}

bool machine_running(const struct board *b)
{
	return b->state == RUN_RUNNING;
}

/* Tell the devices whose hardware counts the host's time. */
static void guest_time(struct board *b, bool runs)
{
	net_guest_runs(runs);
	for (struct device *d = b->devices; d; d = d->next) {
		if (!d->class->guest_time)
			continue;
		pthread_mutex_lock(d->lock);
		d->class->guest_time(d, runs);
		pthread_mutex_unlock(d->lock);
	}
}

static void stop_cpus(struct board *b)
{
	if (b->kvm)
		kvm_vcpus_pause(b->kvm);
	clock_virtual_stop();
	guest_time(b, false);
}

static void run_cpus(struct board *b)
{
	clock_virtual_start();
	guest_time(b, true);
	if (b->kvm)
		kvm_vcpus_resume(b->kvm);
}

void machine_stop(struct board *b, enum run_state s)
{
	bool was_running = b->state == RUN_RUNNING;

	if (was_running)
		stop_cpus(b);
	b->run_after_reset = false;
	b->state = s;
	if (was_running) {
		emit("STOP", NULL);
		/* What the guest believes written must survive whatever the operator does to a stopped guest. */
		for (struct block *blk = block_next(NULL); blk; blk = block_next(blk))
			if (block_inserted(blk) && !block_readonly(blk))
				block_flush_sync(blk);
	}
}

int machine_cont(struct board *b, struct err *e)
{
	switch (b->state) {
	case RUN_RUNNING:
		return 0;
	case RUN_SHUTDOWN:
	case RUN_INTERNAL_ERROR:
	case RUN_GUEST_PANICKED:
		return err_set(e, EINVAL, "Resetting the Virtual Machine is required");
	case RUN_SUSPENDED:
		machine_request_wakeup(b);
		return 0;
	case RUN_INMIGRATE:
		return err_set(e, EINVAL, "Guest is waiting for an incoming migration");
	case RUN_FINISH_MIGRATE:
		return err_set(e, EBUSY, "Migration is not finalized yet");
	default:
		break;
	}
	if (b->memory_given)
		return err_set(e, EINVAL, "The guest runs in another process, with the memory it had here");
	if (block_activate_all(e))
		return e && e->code ? -e->code : -EAGAIN;
	if (b->reset_in_progress) {
		b->run_after_reset = true;
		return 0;
	}
	block_reset_io_status();
	b->state = RUN_RUNNING;
	emit("RESUME", NULL);
	machine_unquiesce(b);
	run_cpus(b);
	return 0;
}

/* ---- migration ---- */

/* The guest is between two processes: whatever it or the operator asks for waits until it is known whose it is. */
static bool between(const struct board *b)
{
	return b->state == RUN_FINISH_MIGRATE || b->state == RUN_INMIGRATE;
}

bool machine_quiet(const struct board *b)
{
	return !b->requests && !b->reset_in_progress && !b->quitting;
}

enum run_state machine_migration_stop(struct board *b)
{
	enum run_state before = b->state;

	if (before == RUN_RUNNING)
		stop_cpus(b);
	b->state = RUN_FINISH_MIGRATE;
	if (before == RUN_RUNNING)
		emit("STOP", NULL);
	return before;
}

int machine_migration_return(struct board *b, enum run_state before, struct err *e)
{
	b->state = before == RUN_RUNNING ? RUN_PAUSED : before;
	bh_schedule(&b->request_bh);
	if (before == RUN_RUNNING)
		return machine_cont(b, e);
	machine_unquiesce(b);
	return 0;
}

void machine_migration_arrived(struct board *b, enum run_state s)
{
	pthread_mutex_lock(&b->request_lock);
	b->requests &= REQ_EXIT; /* the empty machine's */
	pthread_mutex_unlock(&b->request_lock);
	b->state = s;
}

void machine_settle_writes(struct board *b)
{
	if (!b->kvm || !machine_running(b) || !kvm_coalesced_waiting(b->kvm))
		return;
	kvm_vcpus_pause(b->kvm); /* a vCPU that leaves the guest delivers them */
	kvm_vcpus_resume(b->kvm);
}

/* ---- quiesce ---- */

static void quiesce_finished(void *opaque)
{
	struct board *b = opaque;
	void (*done)(void *opaque) = b->quiesce_done;

	b->quiesce_done = NULL;
	if (done)
		done(b->quiesce_opaque);
}

static void quiesce_put(struct board *b)
{
	if (__atomic_sub_fetch(&b->quiesce_pending, 1, __ATOMIC_ACQ_REL) == 0)
		loop_post(loop_main(), NULL, quiesce_finished, b);
}

/* This device no longer holds up the whole machine's quiesce. */
void lifecycle_release_quiesce(struct device *dev)
{
	if (dev->holds_quiesce) {
		dev->holds_quiesce = false;
		quiesce_put(dev->board);
	}
}

void device_quiesced(struct device *dev)
{
	if (dev->quiesced)
		return;
	dev->quiesced = true;
	if (dev->leaving)
		hotplug_device_quiesced(dev); /* releases when the device is gone */
	else
		lifecycle_release_quiesce(dev);
}

void machine_quiesce(struct board *b, void (*done)(void *opaque), void *opaque)
{
	b->quiesce_done = done;
	b->quiesce_opaque = opaque;
	b->quiesced = true;
	__atomic_store_n(&b->quiesce_pending, 1, __ATOMIC_RELEASE); /* our own, until all were asked */
	for (struct device *d = b->devices; d; d = d->next) {
		if (d->leaving ? b->quitting
			       : !d->class->quiesce) /* when all ends, removals are not finished any more */
			continue;
		__atomic_add_fetch(&b->quiesce_pending, 1, __ATOMIC_ACQ_REL);
		pthread_mutex_lock(d->lock);
		d->holds_quiesce = true;
		if (!d->leaving) { /* one that leaves is waited for until it is gone */
			d->quiesced = false;
			d->quiesce_asked = true;
			d->class->quiesce(d);
		}
		pthread_mutex_unlock(d->lock);
	}
	block_release_throttled(); /* what a limit holds back would be waited for */
	quiesce_put(b);
}

/* Quiescing stopped intake only where devices were asked; resume also lets them retry what an I/O error held back. */
void machine_unquiesce(struct board *b)
{
	b->quiesced = false;
	for (struct device *d = b->devices; d; d = d->next) {
		if (d->leaving)
			continue;
		pthread_mutex_lock(d->lock);
		d->quiesced = d->quiesce_asked = false;
		if (d->class->resume)
			d->class->resume(d);
		pthread_mutex_unlock(d->lock);
	}
}

/* ---- reset ---- */

/* The synchronous core of a reset; vCPUs paused, devices quiesced. */
static int reset_all(struct board *b, struct err *e)
{
	bool arrives = b->config->incoming && !b->started; /* the guest's own layout comes with its state */
	int r;

	for (struct device *d = b->devices; d; d = d->next)
		device_reset_own(d);
	irq_fabric_clear(b, false);
	if (arrives)
		map_hold_slots(b, true);
	map_defer(b);
	for (struct device *d = b->devices; d; d = d->next)
		device_settle_own(d);
	if (b->config->kernel && !b->firmware && b->pci_bus && !arrives)
		chipset_setup(b);
	map_commit(b);
	if (b->kvm)
		for (unsigned i = 0; i < kvm_vcpu_count(b->kvm); i++)
			if (kvm_vcpu_get(b->kvm, i))
				kvm_vcpu_reset(kvm_vcpu_get(b->kvm, i));
	dirty_all(b);               /* firmware and kernel images go into RAM again */
	r = boot_direct_load(b, e); /* -kernel without firmware: the image again, and the start state */
	if (!r)
		debug_after_reset(b);
	return r;
}

static void reset_quiesced(void *opaque)
{
	struct board *b = opaque;
	struct err e = ERR_INIT;

	b->reset_in_progress = false;
	if (b->quitting)
		return;
	if (!machine_waking(b)) /* nothing is taken away from an OS that sleeps */
		hotplug_reset(b);
	if (firmware_refresh(b, &e) || reset_all(b, &e)) {
		log_error("machine", "reset: %s", e.msg);
		machine_stop(b, RUN_INTERNAL_ERROR);
		return;
	}
	if (b->config->boot.once)
		cmos_set_boot_order(b, b->config->boot.order, NULL);
	b->quiesced = false;
	if (b->run_after_reset) {
		machine_unquiesce(b);
		b->state = RUN_RUNNING;
		run_cpus(b);
	}
}

void machine_reset(struct board *b, enum shutdown_cause cause)
{
	bool was_running = b->state == RUN_RUNNING;

	if (between(b)) {
		machine_request_reset(b, cause);
		return;
	}
	emit_cause("RESET", cause);
	if (b->reset_in_progress)
		return;
	if (was_running)
		stop_cpus(b);
	b->run_after_reset = was_running;
	/* A guest that was stopped by its end stays stopped, but may be continued from here. */
	if (b->state == RUN_SHUTDOWN || b->state == RUN_INTERNAL_ERROR || b->state == RUN_GUEST_PANICKED ||
	    b->state == RUN_SUSPENDED || b->state == RUN_IO_ERROR)
		b->state = b->state == RUN_SUSPENDED ? RUN_PAUSED : RUN_PRELAUNCH;
	b->reset_in_progress = true;
	machine_quiesce(b, reset_quiesced, b);
}

/* ---- power and exit ---- */

void machine_register_powerdown(struct device *dev, void (*fn)(struct device *dev))
{
	dev->board->powerdown_dev = dev;
	dev->board->powerdown_fn = fn;
}

void machine_powerdown(struct board *b)
{
	struct device *dev = b->powerdown_dev;

	if (dev) {
		pthread_mutex_lock(dev->lock);
		b->powerdown_fn(dev);
		pthread_mutex_unlock(dev->lock);
	}
	emit("POWERDOWN", NULL);
}

static void end(struct board *b, enum shutdown_cause cause)
{
	emit_cause("SHUTDOWN", cause);
	b->quitting = true;
	loop_stop(loop_main());
}

void machine_quit(struct board *b, enum shutdown_cause cause)
{
	if (!b->quitting)
		end(b, cause);
}

/* The guest's own end may leave it for inspection. */
static void power_off(struct board *b, enum shutdown_cause cause)
{
	if (b->shutdown_action != SHUTDOWN_PAUSE || !guest_caused(cause)) {
		end(b, cause);
		return;
	}
	emit_cause("SHUTDOWN", cause);
	machine_stop(b, RUN_SHUTDOWN);
}

int machine_exit_status(const struct board *b)
{
	return b->exit_status;
}

void machine_set_watchdog_action(struct board *b, int action)
{
	b->watchdog_action = action;
}

void machine_set_actions(struct board *b, int reboot, int shutdown, int panic)
{
	if (reboot >= 0)
		b->reboot_action = reboot;
	if (shutdown >= 0)
		b->shutdown_action = shutdown;
	if (panic >= 0)
		b->panic_action = panic;
}

/* ---- requests from devices and vCPUs ---- */

static void request(struct board *b, enum machine_request what, int cause)
{
	pthread_mutex_lock(&b->request_lock);
	if (!(b->requests & what) && cause >= 0)
		b->requested_cause = cause;
	b->requests |= what;
	pthread_mutex_unlock(&b->request_lock);
	bh_schedule(&b->request_bh);
}

void machine_request_reset(struct board *board, enum shutdown_cause cause)
{
	request(board, REQ_RESET, (int)cause);
}

void machine_request_shutdown(struct board *board, enum shutdown_cause cause)
{
	request(board, REQ_SHUTDOWN, (int)cause);
}

void machine_request_exit(struct board *board, int status)
{
	board->requested_exit = status;
	request(board, REQ_EXIT, -1);
}

void machine_request_suspend(struct board *board)
{
	request(board, REQ_SUSPEND, -1);
}

void machine_request_wakeup(struct board *board)
{
	request(board, REQ_WAKEUP, -1);
}

void machine_request_stop_on_io_error(struct board *board)
{
	request(board, REQ_IO_ERROR, -1);
}

void machine_guest_panicked(struct board *board, const char *action_info)
{
	(void)action_info;
	request(board, REQ_PANIC, -1);
}

void machine_guest_crashloaded(struct board *board)
{
	request(board, REQ_CRASHLOADED, -1);
}

void machine_request_debug_stop(struct board *board)
{
	request(board, REQ_DEBUG, -1);
}

void machine_inject_nmi(struct board *board)
{
	if (board->kvm)
		kvm_inject_nmi(board->kvm, -1);
}

void lifecycle_vcpu_error(struct board *b, unsigned cpu, const char *text)
{
	pthread_mutex_lock(&b->request_lock);
	snprintf(b->internal_error, sizeof(b->internal_error), "CPU %u: %s", cpu, text);
	pthread_mutex_unlock(&b->request_lock);
	request(b, REQ_INTERNAL_ERROR, -1);
}

void machine_watchdog_fired(struct board *board)
{
	request(board, REQ_WATCHDOG, -1);
}

static void watchdog_fired(struct board *b)
{
	char *data = xasprintf("{\"action\": \"%s\"}", watchdog_action_names[b->watchdog_action]);

	emit("WATCHDOG", data);
	free(data);
	switch ((enum watchdog_action)b->watchdog_action) {
	case WATCHDOG_RESET:
		machine_request_reset(b, SHUTDOWN_GUEST_RESET);
		break;
	case WATCHDOG_SHUTDOWN: /* ask; a guest that hangs will not answer */
		machine_powerdown(b);
		break;
	case WATCHDOG_POWEROFF:
		machine_quit(b, SHUTDOWN_GUEST_SHUTDOWN);
		break;
	case WATCHDOG_PAUSE:
		if (b->state == RUN_RUNNING)
			machine_stop(b, RUN_WATCHDOG);
		break;
	case WATCHDOG_DEBUG:
		log_warn("machine", "watchdog: timer fired");
		break;
	case WATCHDOG_NONE:
		break;
	case WATCHDOG_INJECT_NMI:
		machine_inject_nmi(b);
		break;
	}
}

static void panicked(struct board *b)
{
	static const char *const actions[] = {[PANIC_SHUTDOWN] = "poweroff",
					      [PANIC_PAUSE] = "pause",
					      [PANIC_EXIT_FAILURE] = "poweroff",
					      [PANIC_NONE] = "run"};
	char *data = xasprintf("{\"action\": \"%s\"}", actions[b->panic_action]);

	emit("GUEST_PANICKED", data);
	free(data);
	switch (b->panic_action) {
	case PANIC_NONE:
		break;
	case PANIC_PAUSE:
		machine_stop(b, RUN_GUEST_PANICKED);
		break;
	case PANIC_EXIT_FAILURE:
		b->exit_status = 1;
		machine_quit(b, SHUTDOWN_GUEST_PANIC);
		break;
	case PANIC_SHUTDOWN:
		/* -no-shutdown keeps a panicked guest for the post-mortem */
		if (b->shutdown_action == SHUTDOWN_PAUSE)
			machine_stop(b, RUN_GUEST_PANICKED);
		else
			power_off(b, SHUTDOWN_GUEST_PANIC);
		break;
	}
}

static void suspend(struct board *b)
{
	if (b->state != RUN_RUNNING)
		return;
	stop_cpus(b);
	/* CMOS shutdown status "resume": how the firmware knows, after the reset that ends the sleep, to look for the
	   waking vector instead of booting. The address latch needs no restoring, the CPU starts afresh. */
	map_pio_write(b, 0x70, 0x8f, 1);
	map_pio_write(b, 0x71, 0xfe, 1);
	b->state = RUN_SUSPENDED;
	emit("SUSPEND", NULL);
}

/* A reset of another cause has left RUN_SUSPENDED before the devices see it. */
bool machine_waking(const struct board *board)
{
	return board->state == RUN_SUSPENDED;
}

bool machine_started(const struct board *board)
{
	return board->started;
}

static void wakeup(struct board *b)
{
	if (b->state != RUN_SUSPENDED)
		return;
	/* ACPI S3: RAM keeps its contents, everything else starts as after reset; the firmware finds CMOS and FACS. */
	emit("WAKEUP", NULL);
	b->reset_in_progress = true;
	b->run_after_reset = true;
	machine_quiesce(b, reset_quiesced, b);
}

static void internal_error(struct board *b)
{
	char text[sizeof(b->internal_error)];

	pthread_mutex_lock(&b->request_lock);
	memcpy(text, b->internal_error, sizeof(text));
	pthread_mutex_unlock(&b->request_lock);
	log_error("kvm", "%s", text);
	machine_stop(b, RUN_INTERNAL_ERROR);
}

static void carry_out(void *opaque)
{
	struct board *b = opaque;
	uint32_t what;
	enum shutdown_cause cause;

	pthread_mutex_lock(&b->request_lock);
	what = between(b) ? b->requests & REQ_EXIT : b->requests;
	b->requests &= ~what;
	cause = (enum shutdown_cause)b->requested_cause;
	pthread_mutex_unlock(&b->request_lock);
	if (b->quitting)
		return;
	if (what & REQ_INTERNAL_ERROR)
		internal_error(b);
	if (what & REQ_EXIT) {
		b->exit_status = b->requested_exit;
		machine_quit(b, SHUTDOWN_GUEST_SHUTDOWN);
		return;
	}
	if (what & REQ_CRASHLOADED)
		emit("GUEST_CRASHLOADED", "{\"action\": \"run\"}");
	if (what & REQ_PANIC)
		panicked(b);
	if (what & REQ_WATCHDOG)
		watchdog_fired(b);
	if (b->quitting)
		return;
	if (what & REQ_IO_ERROR && b->state == RUN_RUNNING)
		machine_stop(b, RUN_IO_ERROR);
	if (what & REQ_DEBUG && b->state == RUN_RUNNING)
		machine_stop(b, RUN_DEBUG);
	if (what & REQ_SUSPEND)
		suspend(b);
	if (what & REQ_WAKEUP)
		wakeup(b);
	if (what & REQ_SHUTDOWN) {
		power_off(b, cause);
	} else if (what & REQ_RESET) {
		if (b->reboot_action == REBOOT_SHUTDOWN && guest_caused(cause))
			power_off(b, cause);
		else
			machine_reset(b, cause);
	}
}

void lifecycle_init(struct board *b)
{
	pthread_mutex_init(&b->request_lock, NULL);
	bh_init(&b->request_bh, loop_main(), NULL, carry_out, b);
	b->state = RUN_PRELAUNCH;
	machine_set_actions(b, b->config->reboot, b->config->shutdown, b->config->panic);
	machine_set_watchdog_action(b, b->config->watchdog);
}

void lifecycle_free(struct board *b)
{
	bh_cancel(&b->request_bh);
	while (subscribers) {
		struct subscriber *next = subscribers->next;

		free(subscribers);
		subscribers = next;
	}
	pthread_mutex_destroy(&b->request_lock);
}

int machine_start(struct board *b, struct err *e)
{
	int r = reset_all(b, e);

	if (!r && b->kvm)
		r = kvm_vm_ready(b->kvm, e);
	if (r)
		return r;
	b->started = true;
	if (b->config->incoming) {
		b->state = RUN_INMIGRATE;
		return 0;
	}
	if (b->config->stopped)
		return 0;
	b->state = RUN_RUNNING;
	emit("RESUME", NULL);
	run_cpus(b);
	return 0;
}
