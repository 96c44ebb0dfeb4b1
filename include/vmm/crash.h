/*
 * When vmm itself crashes: what a post-mortem needs goes to the log and to stderr before the process dies. Everything
 * here that runs then is async-signal-safe.
 */
#ifndef VMM_CRASH_H
#define VMM_CRASH_H

#include <signal.h>
#include <stdint.h>

/* Catch SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT: report, then die of the signal (core dump included). Main thread,
   at start; before the sandbox, which forbids it. */
void crash_init(void);
/* Take these signals and the sandbox's SIGSYS out of a set that is going to be blocked: for new threads. */
void crash_unblock(sigset_t *set);
/* fn adds to a report, with the functions below; its data may be in any state. At most CRASH_MAX_DUMPERS; NULL opaque
   removes nothing, see crash_remove_dumper(). Main thread. */
#define CRASH_MAX_DUMPERS 4
void crash_add_dumper(void (*fn)(void *opaque), void *opaque);
void crash_remove_dumper(void (*fn)(void *opaque), void *opaque);
/* Called once on the main thread if it is the one that crashes: give the terminal back. */
void crash_set_cleanup(void (*fn)(void));
/* Report now, as if by a signal; returns. For the sandbox, which ends the process itself. what: "SIGSYS". */
void crash_report(const char *what, uintptr_t address);

/* ---- in a dumper: one line at a time ---- */
void crash_line(void);             /* begin; the one before is written */
void crash_text(const char *text); /* cut where the line is full */
void crash_hex(uint64_t value);    /* "0x..." */
void crash_dec(uint64_t value);

#endif
