/* The operator's side of migration: see vmm/migration.h. Main thread. */
#include "vmm/migration.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>
#include "postcopy_destination.h"
#include "ram_send.h"
#include "save.h"
#include "session.h"
#include "source.h"
#include "vmm/block.h"
#include "vmm/clock.h"
#include "vmm/hotplug.h"
#include "vmm/log.h"
#include "vmm/net.h"

void migration_init(struct board *b)
{
	session.board = b;
	session.cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	session_calls_init();
	props_default(migration_parameter_props, &session.params);
}

void migration_shutdown(void)
{
	if (!session.board)
		return;
	pthread_mutex_lock(&session.lock);
	session.cancel_asked = true;
	pthread_cond_broadcast(&session.cond);
	pthread_mutex_unlock(&session.lock);
	session_calls_close();
	session_wake();
	if (session.running && session.outgoing)
		pthread_join(session.thread, NULL);
	destination_stop();
	restore_stop();
	if (!migration_guest_torn()) /* else the thread that serves faults still looks at them */
		session_free_blocks();
	session.running = false;
	tls_use(NULL, NULL);
	props_free(migration_parameter_props, &session.params);
	close(session.cancel_fd);
	session.board = NULL;
}

bool migration_guest_torn(void)
{
	return postcopy_on() && postcopy_left();
}

bool migration_busy(void)
{
	return session.running;
}

bool migration_is_incoming(void)
{
	return destination_waits();
}

/* ---- outgoing ---- */

static int check_start(struct err *e)
{
	switch (machine_run_state(session.board)) {
	case RUN_INMIGRATE:
		return err_set(e, EBUSY, "Guest is waiting for an incoming migration");
	case RUN_POSTMIGRATE:
		return err_set(e, EINVAL, "Can't migrate the vm that was paused due to previous migration");
	default:
		break;
	}
	if (session.running)
		return err_set(e, EBUSY, "There's a migration process in progress");
	return 0;
}

static void reset_session(void)
{
	uint64_t junk;

	while (read(session.cancel_fd, &junk, sizeof(junk)) > 0)
		;
	session.cancel_asked = session.continue_asked = session.postcopy_asked = session.handing_over =
		session.unconfirmed = false;
	session.err = ERR_INIT;
	session.info = (struct migration_info){0};
	session.caps = caps_now();
	session.handover = session.params.mode == MODE_CPR_TRANSFER;
	session.outgoing = true;
	session.start_ns = mono_ns();
	session.stopped_ns = 0;
	session.features = 0;
	if (getrandom(&session.id, sizeof(session.id), 0) != sizeof(session.id))
		session.id = mono_ns();
}

void session_begin_outgoing(void)
{
	pthread_mutex_lock(&session.lock);
	reset_session();
	pthread_mutex_unlock(&session.lock);
	machine_hold_devices(session.board, true); /* our list of memory blocks and the description stay true */
	session_status(MIGRATION_SETUP);
}

static int resume_start(const char *uri, struct err *e)
{
	struct address a;
	int r, fd = -1;

	if (!session.running || !session.outgoing || session_get_status() != MIGRATION_POSTCOPY_PAUSED)
		return err_set(e, EINVAL, "Cannot resume if there is no paused migration");
	r = address_parse(uri, &a, e);
	if (!r && (a.kind == ADDRESS_EXEC || a.kind == ADDRESS_FILE))
		r = err_set(e, EINVAL, "%.80s: a post-copy goes on over tcp, unix or fd", uri);
	if (!r && a.kind == ADDRESS_FD)
		r = fd = address_take_fd(&a, false, e);
	return r < 0 ? r : source_resume(&a, fd, e);
}

/*
 * QEMU (10.0, where the mode is from) wants a second channel of type "cpr" besides the main one, and its address twice
 * at the destination; here one unix socket does for both, so what is wrong with an address is said in these terms.
 */
static int check_upgrade(const struct address *a, const char *uri, struct err *e)
{
	if (a->kind != ADDRESS_UNIX && a->kind != ADDRESS_FD)
		return err_set(e, EINVAL,
			       "%.40s: mode=cpr-transfer is for another vmm on this host: give the unix:PATH it "
			       "listens on (-incoming), "
			       "or fd: with a connected unix socket",
			       uri);
	if (*session.params.tls_creds)
		return err_set(e, EINVAL,
			       "mode=cpr-transfer stays on this host and goes without TLS: set tls-creds to ''");
	if (cap_is_on(caps_now(), CAP_MULTIFD) || cap_is_on(caps_now(), CAP_POSTCOPY_RAM))
		return err_set(e, EINVAL, "mode=cpr-transfer sends no memory: switch %s off",
			       cap_is_on(caps_now(), CAP_MULTIFD) ? "multifd" : "postcopy-ram");
	return 0;
}

int migration_start(const char *uri, bool resume, struct err *e)
{
	struct source_start *st;
	int r = resume ? 0 : check_start(e);

	if (r)
		return r;
	if (resume)
		return resume_start(uri, e);
	st = xzalloc(sizeof(*st));
	st->fd = -1;
	r = address_parse(uri, &st->address, e);
	if (!r && st->address.kind == ADDRESS_FILE) {
		r = save_start(st->address.path, cap_is_on(caps_now(), CAP_BACKGROUND_SNAPSHOT), e);
		free(st);
		return r;
	}
	if (!r && session.params.mode == MODE_CPR_TRANSFER)
		r = check_upgrade(&st->address, uri, e);
	if (!r && cap_is_on(caps_now(), CAP_BACKGROUND_SNAPSHOT))
		r = err_set(e, EINVAL, "%.40s: background-snapshot needs file:PATH", uri);
	if (!r && (st->address.kind == ADDRESS_FD || st->address.kind == ADDRESS_EXEC)) {
		if (cap_is_on(caps_now(), CAP_MULTIFD))
			r = err_set(e, EINVAL, "%.40s: multifd needs tcp or unix", uri);
		else
			r = st->fd = address_take_fd(&st->address, false, e);
		if (r >= 0 && session.params.mode == MODE_CPR_TRANSFER && !address_passes_fds(st->fd))
			r = err_set(
				e, EINVAL,
				"%.40s: mode=cpr-transfer needs a unix socket: descriptors of the memory go over it",
				uri);
	}
	if (r >= 0)
		r = machine_describe(session.board, &st->description, &st->description_len, e);
	if (r >= 0)
		r = describe_drives(&st->drives, &st->drives_len, e);
	if (r >= 0) {
		session_begin_outgoing();
		block_mark_all(session.id, true);
		r = session_thread(&session.thread, "migration", source_thread, st, e);
		session.running = r >= 0;
		if (r >= 0)
			return 0;
		block_mark_all(session.id, false);
		machine_hold_devices(session.board, false);
		session_status(MIGRATION_FAILED);
	}
	if (st->fd >= 0)
		close(st->fd);
	free(st->description);
	free(st->drives);
	free(st);
	return r;
}

int migration_cancel(struct err *e)
{
	bool late;

	if (!session.running || !session.outgoing)
		return 0; /* as QEMU: nothing to cancel is no error */
	pthread_mutex_lock(&session.lock);
	/* "go" of a post-copy that may not have arrived: the operator can look there, and decide. */
	late = (session.handing_over || session.status == MIGRATION_POSTCOPY_PAUSED) &&
	       !(session.unconfirmed && session.status == MIGRATION_POSTCOPY_PAUSED);
	if (!late)
		session.cancel_asked = true;
	pthread_cond_broadcast(&session.cond);
	pthread_mutex_unlock(&session.lock);
	if (late)
		return err_set(e, EBUSY, "The guest is handed over already: it is too late to cancel");
	session_status(MIGRATION_CANCELLING);
	session_wake();
	return 0;
}

int migration_continue(enum migration_status state, struct err *e)
{
	if (session_get_status() != state || state != MIGRATION_PRE_SWITCHOVER)
		return err_set(e, EINVAL, "Migration not in expected state: %s",
			       migration_status_name(session_get_status()));
	pthread_mutex_lock(&session.lock);
	session.continue_asked = true;
	pthread_cond_broadcast(&session.cond);
	pthread_mutex_unlock(&session.lock);
	return 0;
}

int migration_start_postcopy(struct err *e)
{
	if (!cap_is_on(session.running ? session.caps : caps_now(), CAP_POSTCOPY_RAM))
		return err_set(e, EINVAL, "Enable postcopy with migrate_set_capability before the start of migration");
	if (!session.running || !session.outgoing)
		return err_set(e, EINVAL, "No migration is in progress");
	if (session_get_status() != MIGRATION_ACTIVE)
		return err_set(e, EINVAL, "Post-copy can be started while the status is 'active', it is '%s'",
			       migration_status_name(session_get_status()));
	if (!(session.features & WIRE_F_POSTCOPY))
		return err_set(e, ENOTSUP,
			       "The destination cannot do post-copy (capability postcopy-ram, userfaultfd)");
	pthread_mutex_lock(&session.lock);
	session.postcopy_asked = true;
	pthread_mutex_unlock(&session.lock);
	ram_send_stop();
	return 0;
}

int migration_pause(struct err *e)
{
	bool active;

	pthread_mutex_lock(&session.lock);
	active = session.status == MIGRATION_POSTCOPY_ACTIVE && session.main;
	if (active)
		channel_shutdown(session.main);
	pthread_mutex_unlock(&session.lock);
	return active ? 0
		      : err_set(e, EINVAL, "migrate-pause is currently only supported during postcopy-active state");
}

int migration_recover(const char *uri, struct err *e)
{
	if (!destination_waits() || session_get_status() != MIGRATION_POSTCOPY_PAUSED)
		return err_set(e, EINVAL, "Migrate recover can only be run when postcopy is paused.");
	return destination_listen_again(uri, e);
}

/* ---- incoming ---- */

int migration_incoming(const char *uri, struct err *e)
{
	if (strcmp(uri, "defer") && !destination_waits() && machine_run_state(session.board) != RUN_PRELAUNCH)
		return err_set(e, EINVAL, "'-incoming' was not specified on the command line");
	return destination_listen(uri, e);
}

/* ---- what query-migrate tells ---- */

void migration_query(struct migration_info *out)
{
	struct ram_send_stats st;
	uint64_t total = 0;

	pthread_mutex_lock(&session.lock);
	*out = session.info;
	out->status = session.status;
	out->outgoing = session.outgoing && session.status != MIGRATION_NONE;
	snprintf(out->error, sizeof(out->error), "%s", session.err.msg);
	if (session.running && session.outgoing) {
		out->total_time_ms = (mono_ns() - session.start_ns) / 1000000;
		ram_send_stats(&st);
		out->transferred = st.bytes;
		out->zero_pages = st.zero_pages;
		out->normal_pages = st.data_pages;
		out->multifd_bytes = st.channel_bytes;
		if (session.status >= MIGRATION_POSTCOPY_ACTIVE && session.status <= MIGRATION_POSTCOPY_RECOVER)
			out->postcopy_bytes = st.bytes - MIN(st.bytes, session.info.precopy_bytes);
		out->remaining = ram_send_pending() * WIRE_PAGE;
	}
	pthread_mutex_unlock(&session.lock);
	if (out->outgoing) {
		struct ram_view v;

		for (unsigned i = 0; machine_ram(session.board, i, &v); i++)
			total += v.size;
		out->total = total;
	}
}

void migration_announce(uint32_t initial_ms, uint32_t max_ms, uint32_t rounds, uint32_t step_ms)
{
	struct err e = ERR_INIT;

	if (net_announce(
		    &(struct net_announce){
			    .initial_ms = initial_ms, .max_ms = max_ms, .rounds = rounds, .step_ms = step_ms},
		    &e))
		log_warn("migration", "the guest's network cards cannot announce themselves: %s", e.msg);
}
