/* What the host says of this process and its threads. Main thread. Source: proc(5). */
#ifndef VMM_CONTROL_HOST_STATS_H
#define VMM_CONTROL_HOST_STATS_H

#include <stdbool.h>
#include <stdint.h>

/* Open what is read later: before a chroot. Idempotent. */
void host_stats_open(void);
void host_stats_close(void);

struct host_thread_times {
	uint64_t cpu_ns;   /* on a CPU, guest included */
	uint64_t guest_ns; /* thereof in the guest, in steps of a clock tick; 0 where the host does not account it */
	uint64_t wait_ns;  /* ready to run, but the host ran others: what a guest sees as steal */
};
bool host_thread_times(int tid, struct host_thread_times *t);

struct host_process {
	uint64_t cpu_ns, resident_bytes, virtual_bytes, open_fds, max_fds, threads;
	double start_time; /* seconds since 1970 */
};
bool host_process(struct host_process *p);

#endif
