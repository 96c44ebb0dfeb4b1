/*
 * Jobs: long work that goes on after its command was answered, shown by query-jobs and JOB_STATUS_CHANGE, with QEMU's
 * states and verbs. A job's work runs on a thread of its own (work.h). Main thread, except where noted.
 */
#ifndef VMM_CONTROL_JOB_H
#define VMM_CONTROL_JOB_H

#include "work.h"

enum job_status {
	JOB_UNDEFINED,
	JOB_CREATED,
	JOB_RUNNING,
	JOB_PAUSED,
	JOB_READY,
	JOB_STANDBY,
	JOB_WAITING,
	JOB_PENDING,
	JOB_ABORTING,
	JOB_CONCLUDED,
	JOB_NULL,
};

struct job;

struct job_class {
	const char *type; /* QMP's JobType: "create" */
	/* On the job's thread: do it, calling job_progress() and, at every step, job_pause_point(). 0 or -errno with e.
	 */
	int (*run)(struct job *job, void *opaque, struct err *e);
	/* Main thread, when it is over: keep the result (ok) or undo; release opaque. */
	void (*settle)(void *opaque, bool ok);
};

int job_check_id(const char *id, struct err *e); /* could a new job have this id? */
/* Create and start. Jobs conclude and stay until job-dismiss. opaque is the caller's on failure. */
struct job *job_start(const char *id, const struct job_class *class, void *opaque, struct err *e);
void job_progress(struct job *job, uint64_t done, uint64_t total); /* any thread */
/* Waits while the job is paused; false: it was cancelled, return -ECANCELED. The job's thread. */
bool job_pause_point(struct job *job);
struct work *job_work(struct job *job);
void job_cancel_all(void); /* at the end of the process */

#endif
