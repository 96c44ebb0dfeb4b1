/*
 * What each thread role may ask of the kernel, and why. Read by the build-time compiler (compile_profiles.c) only. A call
 * that is not listed ends the process. Arguments may be narrowed: ARG(n, mask, value) demands (arg n & mask) == value.
 */
#ifndef VMM_SANDBOX_PROFILES_H
#define VMM_SANDBOX_PROFILES_H

#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/mman.h>

#define ROLE_MAIN 1
#define ROLE_VCPU 2
#define ROLE_IO	  4
#define ROLE_VNC  8
#define ROLE_MIGRATION 16
#define ROLE_ALL  31

struct rule {
	const char *syscall;
	unsigned roles;
	const char *reason;
	struct {
		bool set;
		unsigned index;
		uint64_t mask, value;
	} arg;
};
#define ARG(n, m, v) { true, (n), (m), (v) }

static const struct rule rules[] = {
	/* every thread */
	{ "futex", ROLE_ALL, "mutexes and condition variables", { 0 } },
	{ "exit", ROLE_ALL, "a thread ends", { 0 } },
	{ "exit_group", ROLE_ALL, "the process ends, also from the violation handler", { 0 } },
	{ "rt_sigreturn", ROLE_ALL, "return from a signal handler (vCPU kicks)", { 0 } },
	{ "rt_sigprocmask", ROLE_ALL, "libc blocks signals around thread start and end", { 0 } },
	{ "brk", ROLE_ALL, "malloc", { 0 } },
	{ "mmap", ROLE_ALL, "malloc and thread stacks: never executable", ARG(2, PROT_EXEC, 0) },
	{ "munmap", ROLE_ALL, "malloc, thread stacks", { 0 } },
	{ "mremap", ROLE_ALL, "realloc of large blocks", { 0 } },
	{ "madvise", ROLE_ALL, "malloc returns memory; stacks of ended threads", { 0 } },
	{ "mprotect", ROLE_ALL, "malloc arenas and guard pages: never executable", ARG(2, PROT_EXEC, 0) },
	{ "clock_gettime", ROLE_ALL, "clocks where the vDSO cannot answer", { 0 } },
	{ "gettimeofday", ROLE_ALL, "log time stamps where the vDSO cannot answer", { 0 } },
	{ "write", ROLE_ALL, "wake the main loop (eventfd), log lines", { 0 } },
	{ "timerfd_settime", ROLE_ALL, "arm a device's timer", { 0 } },
	{ "sched_yield", ROLE_ALL, "libc's locks under contention", { 0 } },
	{ "gettid", ROLE_ALL, "libc's thread identity", { 0 } },
	{ "getpid", ROLE_ALL, "assertions, signals to ourselves", { 0 } },
	{ "tgkill", ROLE_ALL, "kick a vCPU out of the guest; abort()", { 0 } },
	{ "rseq", ROLE_ALL, "libc registers each thread", { 0 } },
	{ "set_robust_list", ROLE_ALL, "libc registers each thread", { 0 } },
	{ "restart_syscall", ROLE_ALL, "the kernel resumes an interrupted wait", { 0 } },
	{ "getrandom", ROLE_ALL, "libc seeds malloc's tcache; MAC addresses, VNC challenges", { 0 } },
	{ "epoll_ctl", ROLE_ALL, "a device starts or stops waiting for a descriptor", { 0 } },
	{ "prctl", ROLE_ALL, "thread names", ARG(0, 0xffffffff, 15 /* PR_SET_NAME */) },
	{ "seccomp", ROLE_MAIN, "a new thread adds its own role's filter", { 0 } },

	/* vCPUs: KVM only */
	{ "ioctl", ROLE_VCPU, "KVM_RUN and interrupt delivery: KVM's commands only", ARG(1, 0xff00, KVMIO << 8) },
	{ "rt_sigtimedwait", ROLE_VCPU | ROLE_MAIN,
	  "take back the kick that ended KVM_RUN with an interrupt half delivered; hot-plugged vCPUs are under both filters",
	  { 0 } },
	{ "io_submit", ROLE_VCPU, "hand a request to the kernel's AIO (does not block)", { 0 } },
	{ "io_uring_enter", ROLE_VCPU, "hand a request to io_uring (does not block)", { 0 } },

	/* block workers */
	{ "read", ROLE_IO | ROLE_MAIN | ROLE_VNC, "descriptors already open", { 0 } },
	{ "preadv", ROLE_IO | ROLE_MAIN, "guest reads", { 0 } },
	{ "preadv2", ROLE_IO | ROLE_MAIN, "guest reads", { 0 } },
	{ "pread64", ROLE_IO | ROLE_MAIN, "guest reads, image probing", { 0 } },
	{ "pwritev", ROLE_IO | ROLE_MAIN, "guest writes", { 0 } },
	{ "pwritev2", ROLE_IO | ROLE_MAIN, "guest writes with FUA", { 0 } },
	{ "pwrite64", ROLE_IO | ROLE_MAIN, "guest writes", { 0 } },
	{ "fdatasync", ROLE_IO | ROLE_MAIN, "guest flushes", { 0 } },
	{ "fsync", ROLE_IO | ROLE_MAIN, "guest flushes", { 0 } },
	{ "fallocate", ROLE_IO | ROLE_MAIN, "discard and write zeroes", { 0 } },
	{ "ftruncate", ROLE_IO | ROLE_MAIN, "grow images and overlays", { 0 } },
	{ "lseek", ROLE_IO | ROLE_MAIN, "find holes, sizes", { 0 } },
	{ "fstat", ROLE_IO | ROLE_MAIN, "sizes", { 0 } },
	{ "newfstatat", ROLE_IO | ROLE_MAIN, "sizes (libc's fstat)", { 0 } },
	{ "ioctl", ROLE_IO, "discard on block devices (BLKDISCARD, BLKZEROOUT ...)", ARG(1, 0xff00, 0x12 << 8) },
	{ "clock_nanosleep", ROLE_IO | ROLE_MAIN | ROLE_VNC, "retry pauses of workers; bounded waits of clients", { 0 } },

	/* migration threads; they add this once they are connected */
	{ "read", ROLE_MIGRATION, "the stream", { 0 } },
	{ "readv", ROLE_MIGRATION, "the stream", { 0 } },
	{ "writev", ROLE_MIGRATION, "the stream", { 0 } },
	{ "sendmsg", ROLE_MIGRATION, "the stream", { 0 } },
	{ "sendto", ROLE_MIGRATION, "the stream under TLS", { 0 } },
	{ "recvfrom", ROLE_MIGRATION, "the stream under TLS", { 0 } },
	{ "recvmsg", ROLE_MIGRATION, "the stream under TLS", { 0 } },
	{ "sendfile", ROLE_MIGRATION | ROLE_MAIN, "guest memory goes out without a copy", { 0 } },
	{ "poll", ROLE_MIGRATION, "wait for the stream or a cancel", { 0 } },
	{ "ppoll", ROLE_MIGRATION, "wait for the stream, a cancel or the bandwidth limit", { 0 } },
	{ "ioctl", ROLE_MIGRATION, "KVM's dirty log", ARG(1, 0xff00, KVMIO << 8) },
	{ "ioctl", ROLE_MIGRATION, "userfaultfd of a post-copy", ARG(1, 0xff00, 0xaa << 8) },
	{ "setpriority", ROLE_MIGRATION | ROLE_MAIN, "helpers that save or load memory leave the processors to the guest", ARG(0, 0xffffffff, 0) },
	{ "pread64", ROLE_MIGRATION, "saved guests", { 0 } },
	{ "pwrite64", ROLE_MIGRATION, "saved guests", { 0 } },
	{ "ftruncate", ROLE_MIGRATION, "saved guests", { 0 } },
	{ "fsync", ROLE_MIGRATION, "saved guests", { 0 } },
	{ "fstat", ROLE_MIGRATION, "saved guests", { 0 } },
	{ "newfstatat", ROLE_MIGRATION, "fstat, by libc", { 0 } },
	{ "lseek", ROLE_MIGRATION, "holes of guest memory", { 0 } },
	{ "fallocate", ROLE_MIGRATION, "empty guest memory before it is received", { 0 } },
	{ "setsockopt", ROLE_MIGRATION, "post-copy keeps its send queue short", { 0 } },
	{ "shutdown", ROLE_MIGRATION, "end a connection", { 0 } },
	{ "close", ROLE_MIGRATION, "connections", { 0 } },
	{ "clock_nanosleep", ROLE_MIGRATION, "pauses between two tries", { 0 } },
	{ "openat", ROLE_MIGRATION, "malloc looks at the overcommit mode before it shrinks a thread's heap: only to read",
	  ARG(2, O_ACCMODE | O_CREAT, O_RDONLY) },
	{ "clone", ROLE_MIGRATION, "channel threads", { 0 } },
	{ "clone3", ROLE_MIGRATION, "channel threads", { 0 } },
	{ "seccomp", ROLE_MIGRATION, "a channel thread confines itself", { 0 } },
	{ "rt_sigaction", ROLE_MIGRATION, "libc's own signal, installed with the first thread", ARG(0, 0xffffffff, 33) },

	/* main thread */
	{ "ioctl", ROLE_MAIN, "KVM control, terminals, sockets; descriptors decide what they take", { 0 } },
	{ "epoll_wait", ROLE_MAIN | ROLE_VNC, "the event loop", { 0 } },
	{ "epoll_pwait", ROLE_MAIN | ROLE_VNC, "the event loop", { 0 } },
	{ "epoll_create1", ROLE_MAIN, "a client's own loop", { 0 } },
	{ "poll", ROLE_MAIN | ROLE_VNC | ROLE_IO, "bounded waits: libraries (VNC), a dump for its reader", { 0 } },
	{ "ppoll", ROLE_MAIN | ROLE_VNC, "bounded waits in libraries (VNC)", { 0 } },
	{ "select", ROLE_MAIN | ROLE_VNC, "bounded waits in libraries (VNC)", { 0 } },
	{ "pselect6", ROLE_MAIN | ROLE_VNC, "bounded waits in libraries (VNC)", { 0 } },
	{ "timerfd_create", ROLE_MAIN, "a client's own loop", { 0 } },
	{ "eventfd2", ROLE_MAIN, "hot-plugged devices", { 0 } },
	{ "signalfd4", ROLE_MAIN, "termination signals", { 0 } },
	{ "readv", ROLE_MAIN | ROLE_VNC, "sockets", { 0 } },
	{ "writev", ROLE_MAIN | ROLE_VNC, "sockets, files", { 0 } },
	{ "close", ROLE_MAIN | ROLE_VNC, "clients and media come and go", { 0 } },
	{ "openat", ROLE_MAIN, "media change, screendump, hot-plug: what the operator names", { 0 } },
	{ "open", ROLE_MAIN, "the same, by libraries", { 0 } },
	{ "unlink", ROLE_MAIN, "sockets and pid file at the end, temporary overlays", { 0 } },
	{ "unlinkat", ROLE_MAIN, "the same", { 0 } },
	{ "rename", ROLE_MAIN, "screendump replaces its file when complete", { 0 } },
	{ "renameat", ROLE_MAIN, "the same", { 0 } },
	{ "renameat2", ROLE_MAIN, "the same", { 0 } },
	{ "readlink", ROLE_MAIN, "where modules lie", { 0 } },
	{ "readlinkat", ROLE_MAIN, "the same", { 0 } },
	{ "access", ROLE_MAIN, "is the module there", { 0 } },
	{ "faccessat", ROLE_MAIN, "the same", { 0 } },
	{ "faccessat2", ROLE_MAIN, "the same", { 0 } },
	{ "stat", ROLE_MAIN, "media", { 0 } },
	{ "lstat", ROLE_MAIN, "media", { 0 } },
	{ "statx", ROLE_MAIN, "media", { 0 } },
	{ "statfs", ROLE_MAIN, "media", { 0 } },
	{ "fstatfs", ROLE_MAIN, "media", { 0 } },
	{ "fcntl", ROLE_MAIN | ROLE_VNC, "image locks, non-blocking mode", { 0 } },
	{ "fadvise64", ROLE_MAIN, "forget what was cached of an image that another host has written", { 0 } },
	{ "flock", ROLE_MAIN, "libraries", { 0 } },
	{ "fchmod", ROLE_MAIN, "permissions of files we create", { 0 } },
	{ "dup", ROLE_MAIN, "descriptor sets", { 0 } },
	{ "dup2", ROLE_MAIN, "detaching from the terminal", { 0 } },
	{ "dup3", ROLE_MAIN, "descriptor sets", { 0 } },
	{ "fadvise64", ROLE_MAIN, "an image that another process wrote: forget its cached pages", { 0 } },
	{ "userfaultfd", ROLE_MAIN, "post-copy: pages that come when the guest touches them", { 0 } },
	{ "pipe2", ROLE_MAIN, "libraries", { 0 } },
	{ "memfd_create", ROLE_MAIN, "RAM of hot-plugged devices", { 0 } },
	{ "socket", ROLE_MAIN, "reconnecting chardevs, blockdev and chardev hot-plug", { 0 } },
	{ "connect", ROLE_MAIN, "reconnecting chardevs", { 0 } },
	{ "bind", ROLE_MAIN, "chardev hot-plug", { 0 } },
	{ "listen", ROLE_MAIN, "chardevs listen again", { 0 } },
	{ "accept", ROLE_MAIN, "clients", { 0 } },
	{ "accept4", ROLE_MAIN | ROLE_VNC, "clients", { 0 } },
	{ "getsockname", ROLE_MAIN | ROLE_VNC, "query-chardev, query-vnc", { 0 } },
	{ "getpeername", ROLE_MAIN | ROLE_VNC, "query-vnc", { 0 } },
	{ "getsockopt", ROLE_MAIN | ROLE_VNC, "connection errors", { 0 } },
	{ "setsockopt", ROLE_MAIN | ROLE_VNC, "TCP_NODELAY", { 0 } },
	{ "shutdown", ROLE_MAIN | ROLE_VNC, "clients", { 0 } },
	{ "recvfrom", ROLE_MAIN | ROLE_VNC, "clients", { 0 } },
	{ "recvmsg", ROLE_MAIN | ROLE_VNC, "clients that pass descriptors", { 0 } },
	{ "sendto", ROLE_MAIN | ROLE_VNC, "clients", { 0 } },
	{ "sendmmsg", ROLE_MAIN, "libc asks name servers", { 0 } },
	{ "sendmsg", ROLE_MAIN | ROLE_VNC, "clients", { 0 } },
	{ "clone", ROLE_MAIN, "worker threads", { 0 } },
	{ "clone3", ROLE_MAIN, "worker threads", { 0 } },
	{ "rt_sigaction", ROLE_MAIN, "libc's own signal, installed with the first thread", ARG(0, 0xffffffff, 32) },
	{ "rt_sigaction", ROLE_MAIN, "libc's own signal, installed with the first thread", ARG(0, 0xffffffff, 33) },
	{ "rt_sigaction", ROLE_MAIN, "ncurses takes and returns its handlers; never SIGSYS, the sandbox's own",
	  ARG(0, 0xffffffff, SIGINT) },
	{ "rt_sigaction", ROLE_MAIN, "ncurses takes and returns its handlers; never SIGSYS, the sandbox's own",
	  ARG(0, 0xffffffff, SIGTERM) },
	{ "rt_sigaction", ROLE_MAIN, "ncurses takes and returns its handlers; never SIGSYS, the sandbox's own",
	  ARG(0, 0xffffffff, SIGTSTP) },
	{ "rt_sigaction", ROLE_MAIN, "ncurses takes and returns its handlers; never SIGSYS, the sandbox's own",
	  ARG(0, 0xffffffff, SIGWINCH) },
	{ "rt_sigaction", ROLE_MAIN, "the first character device of a kind: a broken pipe is an error", ARG(0, 0xffffffff, SIGPIPE) },
	{ "inotify_init1", ROLE_MAIN, "chardev hot-plug: somebody opens a pty", { 0 } },
	{ "inotify_add_watch", ROLE_MAIN, "the same", { 0 } },
	{ "inotify_rm_watch", ROLE_MAIN, "the same", { 0 } },
	{ "sigaltstack", ROLE_MAIN, "sanitizers", { 0 } },
	{ "set_tid_address", ROLE_MAIN, "libc", { 0 } },
	{ "uname", ROLE_MAIN, "libraries", { 0 } },
	{ "getuid", ROLE_MAIN, "libraries", { 0 } },
	{ "geteuid", ROLE_MAIN, "libraries", { 0 } },
	{ "getgid", ROLE_MAIN, "libraries", { 0 } },
	{ "getegid", ROLE_MAIN, "libraries", { 0 } },
	{ "getrusage", ROLE_MAIN, "metrics", { 0 } },
	{ "sysinfo", ROLE_MAIN, "libraries size their pools", { 0 } },
	{ "sched_getaffinity", ROLE_MAIN, "libraries size their pools", { 0 } },
	{ "sched_setaffinity", ROLE_MAIN, "vCPU pinning", { 0 } },
	{ "sched_get_priority_max", ROLE_MAIN, "libraries", { 0 } },
	{ "io_setup", ROLE_MAIN, "aio=native of a medium inserted later", { 0 } },
	{ "io_destroy", ROLE_MAIN, "aio=native", { 0 } },
	{ "io_submit", ROLE_MAIN, "aio=native", { 0 } },
	{ "io_getevents", ROLE_MAIN, "aio=native", { 0 } },
	{ "io_pgetevents", ROLE_MAIN, "aio=native", { 0 } },
	{ "io_cancel", ROLE_MAIN, "aio=native", { 0 } },
	{ "io_uring_setup", ROLE_MAIN, "aio=io_uring of a medium inserted later", { 0 } },
	{ "io_uring_enter", ROLE_MAIN, "aio=io_uring", { 0 } },
	{ "io_uring_register", ROLE_MAIN, "aio=io_uring", { 0 } },
	{ "getdents64", ROLE_MAIN, "terminal descriptions", { 0 } },
	{ "kill", ROLE_MAIN, "libraries", { 0 } },
	{ "mmap", ROLE_MAIN, "map a module's code (PNG, on the first screenshot): only with a file behind it",
	  ARG(2, PROT_EXEC | PROT_WRITE, PROT_EXEC) },
};

#endif
