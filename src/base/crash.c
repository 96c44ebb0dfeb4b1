/*
 * Crash reports: see vmm/crash.h. Addresses are printed as MODULE+OFFSET, for addr2line: names would need a symbol
 * table, which a crashed process should not look for. The unwinder comes with the compiler and is linked statically:
 * loading a library in a signal handler is not an option. Neither it nor dl_iterate_phdr() allocates.
 */
#include "vmm/crash.h"

#include <link.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>
#include "vmm/log.h"

#define MAX_FRAMES 48
#define STACK_SIZE 65536

static const struct {
	int number;
	const char *name;
} signals[] = {
	{SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"}, {SIGILL, "SIGILL"}, {SIGFPE, "SIGFPE"}, {SIGABRT, "SIGABRT"},
};

static struct {
	void (*fn)(void *opaque);
	void *opaque;
} dumpers[CRASH_MAX_DUMPERS];
static void (*cleanup)(void);
static atomic_int reporting; /* the thread that reports */

/* ---- lines, without stdio ---- */

static char line[2048];
static size_t line_len;

static void flush(void)
{
	if (!line_len)
		return;
	if (log_is_json()) {
		line[line_len++] = '"';
		line[line_len++] = '}';
	}
	line[line_len++] = '\n';
	if (write(log_raw_fd(), line, line_len) < 0 ||
	    (log_raw_fd() != STDERR_FILENO && write(STDERR_FILENO, line, line_len) < 0)) {
		/* nothing left to tell it to */
	}
	line_len = 0;
}

void crash_text(const char *text)
{
	for (; *text && line_len < sizeof(line) - 4; text++)
		line[line_len++] = (unsigned char)*text < 0x20 || *text == '"' || *text == '\\' ? '?' : *text;
}

static void raw_text(const char *text)
{
	for (; *text && line_len < sizeof(line) - 4; text++)
		line[line_len++] = *text;
}

static void number(uint64_t value, unsigned base)
{
	char digits[24];
	size_t n = sizeof(digits) - 1;

	digits[n] = 0;
	do
		digits[--n] = "0123456789abcdef"[value % base];
	while (value /= base);
	crash_text(digits + n);
}

void crash_hex(uint64_t value)
{
	crash_text("0x");
	number(value, 16);
}

void crash_dec(uint64_t value)
{
	number(value, 10);
}

void crash_line(void)
{
	flush();
	raw_text(log_is_json() ? "{\"level\": \"crash\", \"room\": \"crash\", \"text\": \"" : "vmm: crash: ");
}

/* ---- the backtrace ---- */

struct where {
	uintptr_t pc, base;
	const char *name;
};

static int match_object(struct dl_phdr_info *info, size_t size, void *opaque)
{
	struct where *w = opaque;

	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && w->pc - (info->dlpi_addr + p->p_vaddr) < p->p_memsz) {
			w->base = info->dlpi_addr;
			w->name = info->dlpi_name;
			return 1;
		}
	}
	return 0;
}

static void put_address(uintptr_t pc)
{
	struct where w = {.pc = pc};
	const char *slash;

	if (!dl_iterate_phdr(match_object, &w)) {
		crash_hex(pc);
		return;
	}
	slash = w.name ? strrchr(w.name, '/') : NULL;
	crash_text(!w.name || !*w.name ? "vmm" : slash ? slash + 1 : w.name);
	crash_text("+");
	crash_hex(pc - w.base);
}

struct walk {
	unsigned n;
	uintptr_t last;
};

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *opaque)
{
	struct walk *w = opaque;
	int before = 0;
	uintptr_t pc = _Unwind_GetIPInfo(context, &before);

	if (!pc || pc == w->last || w->n++ == MAX_FRAMES)
		return _URC_END_OF_STACK;
	w->last = pc;
	crash_text(" ");
	put_address(before ? pc : pc - 1); /* a return address: the call before it */
	return _URC_NO_REASON;
}

/* ---- the report ---- */

void crash_report(const char *what, uintptr_t address)
{
	int tid = (int)syscall(SYS_gettid), nobody = 0;
	struct walk w = {0};

	/* A second thread that crashes meanwhile waits for its turn to die; a crash in here is not reported. */
	if (!atomic_compare_exchange_strong(&reporting, &nobody, tid)) {
		for (unsigned i = 0; nobody != tid && i < 1000000 && atomic_load(&reporting); i++)
			sched_yield();
		return;
	}
	crash_line();
	crash_text(what);
	crash_text(" at address ");
	crash_hex(address);
	crash_text(" in thread ");
	crash_dec((uint64_t)tid);
	if (tid == (int)syscall(SYS_getpid))
		crash_text(" (main)");
	crash_line();
	crash_text("backtrace:");
	_Unwind_Backtrace(on_frame, &w);
	for (unsigned i = 0; i < CRASH_MAX_DUMPERS; i++)
		if (dumpers[i].fn)
			dumpers[i].fn(dumpers[i].opaque);
	crash_line();
	crash_text("addresses are for addr2line -e; please report this with the lines above");
	flush();
	if (cleanup && tid == (int)syscall(SYS_getpid))
		cleanup();
	atomic_store(&reporting, 0);
}

/* SA_RESETHAND has put the default action back: the signal sent here kills as soon as the handler returns. */
static void on_crash(int number, siginfo_t *si, void *context)
{
	const char *name = "signal";

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		if (signals[i].number == number)
			name = signals[i].name;
	crash_report(name, si->si_code > 0 ? (uintptr_t)si->si_addr : 0);
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), number);
}

/* A sanitizer reports by itself. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

void crash_init(void)
{
	struct sigaction sa = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_ONSTACK};
	void *stack;
	stack_t ss = {.ss_size = STACK_SIZE};

	if (SANITIZED)
		return;
	stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ss.ss_sp = stack;
	if (stack != MAP_FAILED) /* of the main thread: it may be its stack that ran out */
		sigaltstack(&ss, NULL);
	sigfillset(&sa.sa_mask);
	crash_unblock(&sa.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i].number, &sa, NULL);
}

void crash_unblock(sigset_t *set)
{
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigdelset(set, signals[i].number);
	sigdelset(set, SIGSYS);
}

void crash_add_dumper(void (*fn)(void *opaque), void *opaque)
{
	for (unsigned i = 0; i < CRASH_MAX_DUMPERS; i++)
		if (!dumpers[i].fn) {
			dumpers[i].opaque = opaque;
			dumpers[i].fn = fn;
			return;
		}
}

void crash_remove_dumper(void (*fn)(void *opaque), void *opaque)
{
	for (unsigned i = 0; i < CRASH_MAX_DUMPERS; i++)
		if (dumpers[i].fn == fn && dumpers[i].opaque == opaque)
			dumpers[i].fn = NULL;
}

void crash_set_cleanup(void (*fn)(void))
{
	cleanup = fn;
}
