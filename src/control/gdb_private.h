/*
 * The gdb stub's parts: gdb_packet.c frames and unframes, gdb_commands.c answers, gdb_regs.c is the register file,
 * gdb_target.c the guest, gdbstub.c the socket. Protocol: GDB manual, appendix E (Remote Serial Protocol); what QEMU
 * adds to it: docs/system/gdb.rst of QEMU 7.2.
 */
#ifndef VMM_CONTROL_GDB_PRIVATE_H
#define VMM_CONTROL_GDB_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "vmm/cpu_regs.h"
#include "vmm/err.h"

#define GDB_MAX_PACKET 16384u /* what PacketSize promises: characters between $ and # */
#define GDB_MAX_CPUS   256u
#define GDB_MAX_POINTS 256u

enum gdb_signal { /* GDB's own numbers */
		  GDB_SIGNAL_INT = 2,
		  GDB_SIGNAL_QUIT = 3,
		  GDB_SIGNAL_TRAP = 5,
		  GDB_SIGNAL_ABRT = 6,
		  GDB_SIGNAL_ALRM = 14,
		  GDB_SIGNAL_IO = 23,
		  GDB_SIGNAL_UNKNOWN = 143,
};

enum gdb_action { GDB_STAY, GDB_CONTINUE, GDB_STEP };
enum gdb_point_type { GDB_POINT_SOFTWARE, GDB_POINT_HARDWARE, GDB_POINT_WRITE, GDB_POINT_READ, GDB_POINT_ACCESS };
#define GDB_STEP_NOIRQ   2u
#define GDB_STEP_NOTIMER 4u

/* Why the guest stopped, for a stop reply. */
struct gdb_stop {
	int signal;
	unsigned cpu;
	bool software, hardware; /* a breakpoint */
	int watch;               /* enum gdb_point_type of the watchpoint at addr; 0: none */
	uint64_t addr;
};

/* The guest as the protocol sees it. Main thread. A fake one serves tests and the fuzzer. */
struct gdb_target {
	unsigned (*cpus)(void *opaque); /* one more than the highest number */
	bool (*has_cpu)(void *opaque, unsigned cpu);
	bool (*running)(void *opaque);
	/* Stops the vCPUs; the owner reports it with gdb_stopped(). */
	void (*stop)(void *opaque);
	/* action[cpu]; false: e says why the guest cannot go on. */
	bool (*resume)(void *opaque, const uint8_t *action, unsigned sstep, struct err *e);
	int (*get_regs)(void *opaque, unsigned cpu, struct cpu_regs *r);
	int (*set_regs)(void *opaque, unsigned cpu, const struct cpu_regs *r);
	/* Bytes done, from the first on. Physical addresses, or linear ones in cpu's address space. */
	size_t (*read)(void *opaque, unsigned cpu, bool physical, uint64_t addr, void *buf, size_t len);
	size_t (*write)(void *opaque, unsigned cpu, bool physical, uint64_t addr, const void *buf, size_t len);
	/* -ENOSYS: this kind does not exist here. */
	int (*set_point)(void *opaque, unsigned cpu, enum gdb_point_type type, uint64_t addr, uint64_t len, bool on);
	void (*clear_points)(void *opaque);
	unsigned sstep_bits;                                 /* GDB_STEP_NOIRQ | ... that can be had */
	char *(*monitor)(void *opaque, const char *command); /* malloc'ed output */
	void (*kill)(void *opaque);
};

struct gdb {
	const struct gdb_target *target;
	void *opaque;
	void (*send)(void *send_opaque, const char *data, size_t len);
	void *send_opaque;
	/* input: gdb_packet.c */
	enum { GDB_IDLE, GDB_DATA, GDB_SUM1, GDB_SUM2 } state;
	char in[GDB_MAX_PACKET + 1];
	size_t in_len;
	bool overflow;
	uint8_t sum, told_sum;
	/* output */
	char *out; /* packet being made */
	size_t out_len, out_cap;
	char *last; /* framed, for a retransmission */
	size_t last_len;
	/* what the client agreed to or set */
	bool no_ack, multiprocess, swbreak, hwbreak, physical;
	unsigned sstep;
	unsigned g_cpu, c_cpu;
	unsigned listed; /* next of qsThreadInfo */
	bool waiting;    /* for a stop reply */
	struct gdb_stop stop;
	bool wide; /* register file of 64-bit CPUs */
};

/* ---- gdb_packet.c ---- */
void gdb_init(struct gdb *g, const struct gdb_target *t, void *opaque, bool wide,
	      void (*send)(void *send_opaque, const char *data, size_t len), void *send_opaque);
void gdb_free(struct gdb *g);
void gdb_reset(struct gdb *g); /* a new client */
void gdb_feed(struct gdb *g, const uint8_t *data, size_t len);
/* Make and send one packet. */
void gdb_begin(struct gdb *g);
void gdb_put(struct gdb *g, const char *text);
void gdb_printf(struct gdb *g, const char *fmt, ...) VMM_PRINTF(2, 3);
void gdb_put_hex(struct gdb *g, const void *data, size_t len);
void gdb_put_binary(struct gdb *g, const void *data, size_t len); /* escaped */
void gdb_end(struct gdb *g);
void gdb_reply(struct gdb *g, const char *text); /* begin, put, end */
/* Hex digits up to the first other character; false: none, or more than 64 bits. *p moves on. */
bool gdb_take_number(const char **p, uint64_t *value);
/* Hex pairs: len bytes, and nothing behind. */
bool gdb_take_hex(const char *p, uint8_t *out, size_t len);

/* ---- gdb_commands.c ---- */
void gdb_command(struct gdb *g, char *packet, size_t len); /* packet[len] is 0 */
void gdb_interrupt(struct gdb *g);                         /* Ctrl-C */
/* The guest stopped: a waiting client is told. */
void gdb_stopped(struct gdb *g, const struct gdb_stop *stop);

/* ---- gdb_regs.c ---- */
/* How many registers; the size of all. */
unsigned gdb_regs_count(bool wide);
size_t gdb_regs_size(bool wide);
/* Bytes of register n into buf (16 are enough); 0: no such register. */
size_t gdb_reg_get(bool wide, const struct cpu_regs *r, unsigned n, uint8_t *buf);
/* Descriptor tables are read through `read` where a selector is loaded. Returns its size; 0: none. */
typedef size_t gdb_linear_read_fn(void *opaque, uint64_t linear, void *buf, size_t len);
size_t gdb_reg_set(bool wide, struct cpu_regs *r, unsigned n, const uint8_t *buf, gdb_linear_read_fn *read,
		   void *opaque);
char *gdb_regs_xml(bool wide); /* target.xml, malloc'ed */

#endif
