/* Jobs and their verbs. The table of what a verb may do in which state is QEMU's (docs/interop: job state machine). */
#include "job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"
#include "types.h"
#include "vmm/machine.h"

static const struct qmp_type job_type = QMP_ENUM("JobType", "create");
static const struct qmp_type job_info =
	QMP_OBJECT("JobInfo", QMP_REQ("id", qmp_str), QMP_REQ("type", job_type), QMP_REQ("status", qmp_job_status),
		   QMP_REQ("current-progress", qmp_int), QMP_REQ("total-progress", qmp_int), QMP_OPT("error", qmp_str));

struct job {
	struct work work;
	char *id;
	const struct job_class *class;
	void *opaque;
	enum job_status status;
	struct err error; /* how it ended */
	int result;
	pthread_mutex_t lock; /* what the job's thread shares: */
	pthread_cond_t resumed;
	bool paused;
	uint64_t current, total;
	struct job *next;
};

static struct job *jobs;

static struct job *find_job(const char *id)
{
	for (struct job *j = jobs; j; j = j->next)
		if (!strcmp(j->id, id))
			return j;
	return NULL;
}

static void set_status(struct job *j, enum job_status status)
{
	json_t *data = json_pack("{s:o, s:s}", "id", qmp_text(j->id), "status", qmp_job_status.values[status]);

	j->status = status;
	qmp_emit("JOB_STATUS_CHANGE", data);
	json_decref(data);
}

static void job_free(struct job *j)
{
	for (struct job **p = &jobs; *p; p = &(*p)->next)
		if (*p == j) {
			*p = j->next;
			break;
		}
	pthread_mutex_destroy(&j->lock);
	pthread_cond_destroy(&j->resumed);
	free(j->id);
	free(j);
}

/* ---- running ---- */

static void run(struct work *w)
{
	struct job *j = container_of(w, struct job, work);

	j->result = job_pause_point(j) ? j->class->run(j, j->opaque, &j->error) : -ECANCELED;
}

static void conclude(struct work *w)
{
	struct job *j = container_of(w, struct job, work);

	if (j->status == JOB_PAUSED)
		set_status(j, JOB_RUNNING);
	if (j->result) {
		if (j->result == -ECANCELED)
			err_set(&j->error, ECANCELED, "Operation canceled");
		else if (!j->error.code)
			err_errno(&j->error, -j->result, "Operation failed");
		if (j->status != JOB_ABORTING)
			set_status(j, JOB_ABORTING);
	} else {
		set_status(j, JOB_WAITING);
		set_status(j, JOB_PENDING);
	}
	j->class->settle(j->opaque, !j->result);
	set_status(j, JOB_CONCLUDED);
}

static bool is_id(const char *id)
{
	if (!((*id | 0x20) >= 'a' && (*id | 0x20) <= 'z'))
		return false;
	for (const char *p = id; *p; p++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._", *p))
			return false;
	return strlen(id) < 128;
}

int job_check_id(const char *id, struct err *e)
{
	if (!is_id(id))
		return err_set(e, EINVAL, "Invalid job ID '%.200s'", id);
	return find_job(id) ? err_set(e, EEXIST, "Job ID '%s' already in use", id) : 0;
}

struct job *job_start(const char *id, const struct job_class *class, void *opaque, struct err *e)
{
	struct job *j;

	if (job_check_id(id, e))
		return NULL;
	j = xzalloc(sizeof(*j));
	*j = (struct job){.work = {.run = run, .done = conclude}, .id = xstrdup(id), .class = class, .opaque = opaque};
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->resumed, NULL);
	if (work_start(&j->work, e)) {
		job_free(j);
		return NULL;
	}
	j->next = jobs;
	jobs = j;
	set_status(j, JOB_CREATED);
	set_status(j, JOB_RUNNING);
	return j;
}

void job_progress(struct job *j, uint64_t done, uint64_t total)
{
	pthread_mutex_lock(&j->lock);
	j->current = done;
	j->total = total;
	pthread_mutex_unlock(&j->lock);
}

bool job_pause_point(struct job *j)
{
	pthread_mutex_lock(&j->lock);
	while (j->paused && !work_cancelled(&j->work))
		pthread_cond_wait(&j->resumed, &j->lock);
	pthread_mutex_unlock(&j->lock);
	return !work_cancelled(&j->work);
}

struct work *job_work(struct job *j)
{
	return &j->work;
}

static void cancel(struct job *j)
{
	pthread_mutex_lock(&j->lock);
	work_cancel(&j->work);
	pthread_cond_signal(&j->resumed);
	pthread_mutex_unlock(&j->lock);
}

void job_cancel_all(void)
{
	for (struct job *j = jobs; j; j = j->next)
		if (j->status < JOB_WAITING)
			cancel(j);
	work_stop_all();
	while (jobs && jobs->status >= JOB_CONCLUDED)
		job_free(jobs);
}

/* ---- verbs ---- */

#define IN(s) (1u << JOB_##s)
static const struct verb {
	const char *name;
	unsigned states;
} cancel_verb = {"cancel",
		 IN(CREATED) | IN(RUNNING) | IN(PAUSED) | IN(READY) | IN(STANDBY) | IN(WAITING) | IN(PENDING)},
  pause_verb = {"pause", IN(CREATED) | IN(RUNNING) | IN(PAUSED) | IN(READY) | IN(STANDBY)},
  resume_verb = {"resume", IN(CREATED) | IN(RUNNING) | IN(PAUSED) | IN(READY) | IN(STANDBY)},
  complete_verb = {"complete", IN(READY)}, finalize_verb = {"finalize", IN(PENDING)},
  dismiss_verb = {"dismiss", IN(CONCLUDED)};

static struct job *job_for(struct qmp_call *call, const struct verb *v, struct err *e)
{
	struct job *j = find_job(qmp_arg_str(call, "id"));

	if (!j)
		err_set(e, ENOENT, "Job not found");
	else if (!(v->states & 1u << j->status))
		err_set(e, EBUSY, "Job '%s' in state '%s' cannot accept command verb '%s'", j->id,
			qmp_job_status.values[j->status], v->name);
	return e->code ? NULL : j;
}

static json_t *job_cancel(struct qmp_call *call, struct err *e)
{
	struct job *j = job_for(call, &cancel_verb, e);

	if (!j)
		return NULL;
	cancel(j);
	return json_object();
}

static json_t *set_paused(struct qmp_call *call, const struct verb *v, bool paused, struct err *e)
{
	struct job *j = job_for(call, v, e);

	if (!j)
		return NULL;
	if (j->paused == paused) {
		err_set(e, EINVAL, paused ? "Job is already paused" : "Can't resume a job that was not paused");
		return NULL;
	}
	pthread_mutex_lock(&j->lock);
	j->paused = paused;
	pthread_cond_signal(&j->resumed);
	pthread_mutex_unlock(&j->lock);
	set_status(j, paused ? JOB_PAUSED : JOB_RUNNING);
	return json_object();
}

static json_t *job_pause(struct qmp_call *call, struct err *e)
{
	return set_paused(call, &pause_verb, true, e);
}

static json_t *job_resume(struct qmp_call *call, struct err *e)
{
	return set_paused(call, &resume_verb, false, e);
}

/* No job of ours has a part after "ready", nor waits to be finalized. */
static json_t *job_complete(struct qmp_call *call, struct err *e)
{
	return job_for(call, &complete_verb, e) ? json_object() : NULL;
}

static json_t *job_finalize(struct qmp_call *call, struct err *e)
{
	return job_for(call, &finalize_verb, e) ? json_object() : NULL;
}

static json_t *job_dismiss(struct qmp_call *call, struct err *e)
{
	struct job *j = job_for(call, &dismiss_verb, e);

	if (!j)
		return NULL;
	set_status(j, JOB_NULL);
	job_free(j);
	return json_object();
}

static json_t *query_jobs(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();

	for (struct job *j = jobs; j; j = j->next) {
		json_t *o;

		pthread_mutex_lock(&j->lock);
		o = json_pack("{s:o, s:s, s:s, s:I, s:I}", "id", qmp_text(j->id), "type", j->class->type, "status",
			      qmp_job_status.values[j->status], "current-progress", (json_int_t)j->current,
			      "total-progress", (json_int_t)j->total);
		pthread_mutex_unlock(&j->lock);
		if (j->status == JOB_CONCLUDED && j->result)
			json_object_set_new(o, "error", qmp_text(j->error.msg));
		json_array_append_new(list, o);
	}
	return list;
}

#define ID_ARG QMP_MEMBERS(QMP_REQ("id", qmp_str))

const struct qmp_command qmp_job_commands[] = {
	{"query-jobs", "Jobs, also those that are over and not dismissed.", "0.2", NULL, &QMP_LIST_OF(job_info), 0, 0,
	 query_jobs},
	{"job-cancel", "Ask a job to end without its result.", "0.2", ID_ARG, NULL, 0, 0, job_cancel},
	{"job-pause", "Let a job wait at its next step.", "0.2", ID_ARG, NULL, 0, 0, job_pause},
	{"job-resume", "Let a paused job go on.", "0.2", ID_ARG, NULL, 0, 0, job_resume},
	{"job-complete", "Finish a job that is ready.", "0.2", ID_ARG, NULL, 0, 0, job_complete},
	{"job-finalize", "Put a pending job's result into effect.", "0.2", ID_ARG, NULL, 0, 0, job_finalize},
	{"job-dismiss", "Forget a job that is concluded.", "0.2", ID_ARG, NULL, 0, 0, job_dismiss},
	{NULL},
};
