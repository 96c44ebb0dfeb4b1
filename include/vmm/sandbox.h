/*
 * The sandbox: one seccomp filter per thread role, an allow-list with a reason per rule (src/sandbox/profiles.h). The
 * BPF programs are compiled by libseccomp at build time. A violation prints which role called what and ends the
 * process.
 */
#ifndef VMM_SANDBOX_H
#define VMM_SANDBOX_H

#include "vmm/err.h"

enum sandbox_role {
	SANDBOX_MAIN,      /* loop, control, display, characters; opens what the operator asks for */
	SANDBOX_VCPU,      /* KVM_RUN and exits: no files, no sockets */
	SANDBOX_IO,        /* block workers: transfers on descriptors already open */
	SANDBOX_VNC,       /* the VNC server: its clients' sockets and nothing else */
	SANDBOX_MIGRATION, /* the migration's threads: its stream, guest memory and KVM's dirty log */
	SANDBOX_SLIRP,     /* libslirp: sockets for the guest; files only to read */
	SANDBOX_N_ROLES
};

/* Confine the calling thread for good. Threads it creates afterwards inherit the filter and may add their own role's.
   Needs no_new_privs or CAP_SYS_ADMIN. */
int sandbox_enter(enum sandbox_role role, struct err *e);
/* -sandbox on: what thread hooks check, set by main before threads run. */
void sandbox_enable(void);
/* For thread entry points (kvm and block room hooks): enter if enabled; a failure ends the process. */
void sandbox_thread_vcpu(void);
void sandbox_thread_io(void);
void sandbox_thread_vnc(void);
void sandbox_thread_migration(void);
void sandbox_thread_slirp(void);
const char *sandbox_role_name(enum sandbox_role role); /* "main", "vcpu", ... */

#endif
