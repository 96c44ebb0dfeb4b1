/*
 * What the files of a migration share: one session at a time, its status and numbers, and the way to the main thread.
 *
 * Threads: the main thread owns the machine and answers the operator; the session's thread ("migration") runs the
 * protocol and may wait; channel threads move pages. Only the session's thread changes the status. lock guards what
 * both sides read.
 */
#ifndef VMM_MIGRATION_SESSION_H
#define VMM_MIGRATION_SESSION_H

#include <pthread.h>
#include "channel.h"
#include "params.h"
#include "vmm/loop.h"
#include "vmm/machine.h"
#include "vmm/migration.h"
#include "vmm/ram.h"

#define MAX_BLOCKS   64
#define MAX_CHANNELS 32
#define HANDSHAKE_MS 10000 /* a peer has this long to introduce itself */

/* A RAM block with what a migration knows about it. */
struct mig_block {
	struct ram_view v;
	char name[64];
	uint64_t pages;
	unsigned long *bitmap; /* source: pages to send this round; destination: see ram_recv.c */
};

struct session {
	struct board *board;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	pthread_t thread;
	bool outgoing, running; /* a thread is there (main thread) */
	bool cancel_asked;      /* lock */
	bool continue_asked;    /* lock: migrate-continue */
	bool handover;          /* mode=cpr-transfer: memory stays where it is */
	bool postcopy_asked;    /* lock */
	bool handing_over;      /* lock: "go" was sent or received: too late to cancel */
	bool unconfirmed;       /* lock: post-copy broke after "go", before anything said that it arrived */
	int cancel_fd;
	enum migration_status status;   /* lock */
	struct err err;                 /* lock: why it failed */
	struct migration_params params; /* as they are now; lock */
	uint32_t caps;                  /* enum mig_cap bits, fixed at the start */
	struct limiter limit;
	struct channel *main;
	uint64_t id;
	uint32_t features; /* enum wire_feature both have */
	struct mig_block block[MAX_BLOCKS];
	unsigned n_blocks;
	struct migration_info info; /* lock */
	uint64_t start_ns, stopped_ns;
};

/* The one session; also holds the last one's results. */
extern struct session session;

/* Change the status and tell clients. Any thread. */
void session_status(enum migration_status s);
enum migration_status session_get_status(void);
/* The session's thread is at its end: the main thread joins it, then changes the status. err: for FAILED; NULL: none.
   With a cancel asked for FAILED becomes CANCELLED. The thread must return right after. */
void session_end(enum migration_status s, const struct err *err);
bool session_cancelled(void);
void session_wake(void); /* cancel_fd readable */
/* QMP event MIGRATION_PASS. */
void session_pass(uint64_t pass);
/* Fill block[] from the board; main thread or while the set of blocks stands still. */
int session_take_blocks(struct err *e);
void session_free_blocks(void);
/* Seccomp, thread name; first thing of each thread after it opened what it needs. */
void session_confine(void);
/* The calling thread's work can wait: the guest and who serves its faults go first. After session_confine(). */
void session_stand_back(void);
/* Page faults of the calling thread so far, those that read nothing from a disk. */
long session_faults(void);
/* Wait for a condition of the default clock, `ns` at most. */
void session_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns);
/* Threads with all signals blocked. */
int session_thread(pthread_t *t, const char *name, void *(*fn)(void *), void *arg, struct err *e);

/*
 * Have the main thread do something and wait for it: fn(call) runs there and ends, at once or later, with
 * main_call_done(). -ECANCELED if vmm ends meanwhile. Migration threads only.
 */
struct main_call {
	void (*fn)(struct main_call *c);
	void *arg;
	int ret;
	struct err err;
	unsigned refs; /* private from here on */
	bool done;
};
int main_call(void (*fn)(struct main_call *c), void *arg, struct err *e);
/* In two steps, with something else in between; every start needs its wait. every_ms while it waits tick(tick_arg) is
   called on the waiting thread (0: never). */
struct main_call *main_call_start(void (*fn)(struct main_call *c), void *arg);
int main_call_wait(struct main_call *c, unsigned every_ms, void (*tick)(void *), void *tick_arg, struct err *e);
bool main_call_over(struct main_call *c); /* wait would not block */
void main_call_done(struct main_call *c, int ret);
void session_calls_init(void);
void session_calls_close(void); /* vmm ends: who waits gives up */
bool session_closing(void);

/* address.c */
enum address_kind { ADDRESS_TCP, ADDRESS_UNIX, ADDRESS_FD, ADDRESS_EXEC, ADDRESS_FILE };
struct address {
	enum address_kind kind;
	char host[256], port[32]; /* TCP; host "" is any */
	char path[512];           /* unix, file, exec: the command, fd: name or number */
};
int address_parse(const char *uri, struct address *a, struct err *e);
/* Blocking with the session's cancel, each of a name's addresses for timeout_ms at most; a connected descriptor.
   Session's thread. */
int address_connect(const struct address *a, int timeout_ms, int cancel_fd, struct err *e);
/* Listening descriptors (a name may have several addresses): their number or an error. Main thread. */
int address_listen(const struct address *a, int *fds, int max, char *bound, size_t bound_size, struct err *e);
/* fd: and exec: on the main thread: what is to be read (incoming) or written. */
int address_take_fd(const struct address *a, bool incoming, struct err *e);
/* Who is at the other end of an accepted or connected socket. */
void address_peer(int fd, char *text, size_t size);
bool address_allowed(int fd, char *text, size_t size); /* -migration-allow; text: the peer */
bool address_is_remote(int fd);                        /* TCP beyond loopback */
bool address_passes_fds(int fd);                       /* a unix socket */
/* A connection that is ours, connected or accepted: small answers go at once, a peer that vanished is noticed. */
void address_tune(int fd);
void address_warn_plain(int fd); /* TCP without TLS beyond loopback: one warning */

/* switchover.c: the machine's part of a hand-over; functions for main_call(). */
struct switchover {
	enum run_state before; /* what the guest did when it was stopped */
	bool stopped, quiesced, released;
	bool same_host;         /* the page cache is shared: nothing to flush */
	struct state_buf state; /* saved device state */
	uint64_t stop_us, flush_us, state_us;
	unsigned flushes;
	int flush_error;
	uint64_t flush_since;
	void (*flushed)(struct switchover *s);
	char run_state[32]; /* destination: what the source says the guest was doing */
	const uint8_t *data;
	size_t len;
	bool activate;
	struct main_call *call;
};
void switchover_flush(struct main_call *c);          /* the disks, while the guest runs; arg: struct switchover */
void switchover_stop(struct main_call *c);           /* vCPUs stand; arg: the same from here on */
void switchover_save(struct main_call *c);           /* quiesce, flush, release locks, save */
void switchover_take_back(struct main_call *c);      /* locks again, run as before */
void switchover_done(struct main_call *c);           /* the guest has left: postmigrate */
void switchover_unknown(struct main_call *c);        /* it may have left: paused, disks released */
void switchover_load(struct main_call *c);           /* destination: data/len into the machine, take locks */
void switchover_run(struct main_call *c);            /* destination: run it or leave it as run_state says */
void switchover_arrived_paused(struct main_call *c); /* destination: state is here, but nobody said go */
const char *switchover_state_to_send(const struct switchover *s);

/* source.c: thread function; destination_listen.c. */
void *source_thread(void *arg);                               /* struct source_start */
int destination_listen(const char *uri, struct err *e);       /* main thread */
void destination_stop(void);                                  /* main thread, at exit */
int destination_listen_again(const char *uri, struct err *e); /* main thread: another address for a recovery */
bool destination_talks(void);                                 /* connections are being served */
bool destination_waits(void);                                 /* a guest is to come or is coming */

struct source_start {
	struct address address;
	int fd; /* fd:, exec: taken on the main thread; -1: connect */
	void *description;
	size_t description_len;
	uint8_t *drives;
	size_t drives_len;
};
/* windows.c: where the guest's memory is mapped, told before it stops. Source: again only if it is not as last time
   (first: there was none). Destination: a record of them. */
int windows_tell(struct channel *c, bool first, struct err *e);
int windows_expect(const uint8_t *payload, size_t len, struct err *e);
/* handshake.c */
int describe_drives(uint8_t **out, size_t *len, struct err *e);   /* main thread */
int check_drives(const uint8_t *data, size_t len, struct err *e); /* main thread */
int describe_layout(uint8_t **out, size_t *len, struct err *e);
int check_layout(const uint8_t *data, size_t len, struct err *e);

#endif
