/*
 * QMP: guest memory into files: dump-guest-memory (an ELF core, or compressed as kdump does), memsave, pmemsave.
 * Windows' own format is refused. The guest stands still meanwhile; the writing is done on a thread of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "commands.h"
#include "dump.h"
#include "kdump.h"
#include "types.h"
#include "work.h"
#include "vmm/debug.h"
#include "vmm/fdset.h"
#include "vmm/kvm.h"
#include "vmm/log.h"
#include "vmm/module.h"
#include "vmm/vmcoreinfo.h"

static const struct qmp_type dump_format =
	QMP_ENUM("DumpGuestMemoryFormat", "elf", "kdump-zlib", "kdump-lzo", "kdump-snappy", "win-dmp");
static const struct qmp_type dump_capability =
	QMP_OBJECT("DumpGuestMemoryCapability", QMP_REQ("formats", QMP_LIST_OF(dump_format)));

/* ---- what a dump needs of the machine ---- */

/* Guest RAM by guest physical address. */
static void describe_ram(struct board *board, struct dump *d)
{
	uint64_t low = board_ram_below_4g(board), high = board_ram_above_4g(board);
	const uint8_t *host = board_ram(board) ? ram_block_ptr(board_ram(board)) : NULL;

	if (host)
		d->ram[d->n_ram++] = (struct dump_block){.gpa = 0, .size = low, .host = host};
	if (host && high)
		d->ram[d->n_ram++] = (struct dump_block){.gpa = 1ull << 32, .size = high, .host = host + low};
}

/* A running vCPU is stopped for the moment this takes. */
static int read_cpu(struct board *board, unsigned index, struct cpu_regs *r, struct err *e)
{
	struct kvm_vm *vm = machine_kvm(board);
	struct kvm_vcpu *c = vm ? kvm_vcpu_get(vm, index) : NULL;
	bool running = machine_running(board);
	int ret;

	if (!c)
		return err_set(e, EINVAL, "Invalid parameter 'cpu-index': there is no CPU %u", index);
	if (running)
		kvm_vcpus_pause(vm);
	ret = kvm_vcpu_get_regs(c, r);
	if (running)
		kvm_vcpus_resume(vm);
	return ret ? err_errno(e, -ret, "Cannot read the registers of CPU %u", index) : 0;
}

static struct cpu_regs *read_cpus(struct board *board, unsigned *n, struct err *e)
{
	struct cpu_regs *r = xcalloc(board_max_cpus(board), sizeof(*r));
	struct cpu_info info;

	*n = 0;
	for (unsigned i = 0; machine_kvm(board) && machine_cpu_info(board, i, &info); i++)
		if (read_cpu(board, info.index, &r[(*n)++], e)) {
			free(r);
			return NULL;
		}
	return r;
}

#define GUEST_NOTE_MAX (1u << 20)

/* The note of the guest's kernel, where it told of one; malloc'ed. The guest stands still. What it tells may be
   nonsense: then the dump goes without. */
static uint8_t *read_guest_note(struct board *board, const struct dump *d, size_t *size)
{
	struct vmcoreinfo v = vmcoreinfo_get(board);
	uint8_t *note;

	*size = 0;
	if (v.format == VMCOREINFO_NONE)
		return NULL;
	if (v.format != VMCOREINFO_ELF || v.size > GUEST_NOTE_MAX) {
		log_warn("control", "the guest's note is left out: format %u, %u bytes", v.format, v.size);
		return NULL;
	}
	note = xzalloc(v.size + 1);
	if (dump_read(d, v.addr, note, v.size) == v.size)
		*size = dump_note_size(note, v.size);
	if (!*size) {
		log_warn("control", "the guest's note is left out: there is none at 0x%llx",
			 (unsigned long long)v.addr);
		free(note);
		return NULL;
	}
	return note;
}

/* ---- dump-guest-memory ---- */

static struct {
	struct work work;
	struct board *board;
	struct qmp_later *later; /* NULL: detached */
	struct dump dump;
	const struct kdump_codec *codec; /* NULL: ELF */
	struct cpu_regs *cpus;
	uint8_t *guest_note;
	int fd, ret;
	bool active, sparse, was_running;
	enum { NONE, ACTIVE, COMPLETED, FAILED } status;
	struct err e;
} job;

bool dump_in_progress(void)
{
	return job.active;
}

static const char *const status_names[] = {"none", "active", "completed", "failed"};

static json_t *describe_dump(void)
{
	return json_pack("{s:s, s:I, s:I}", "status", status_names[job.status], "completed",
			 (json_int_t)__atomic_load_n(&job.dump.done, __ATOMIC_RELAXED), "total",
			 (json_int_t)job.dump.total);
}

static json_t *query_dump(struct qmp_call *call, struct err *e)
{
	return describe_dump();
}

static void write_dump(struct work *w)
{
	job.ret = job.codec ? kdump_write(&job.dump, w, job.fd, job.codec, &job.e)
			    : dump_write(&job.dump, w, job.fd, job.sparse, &job.e);
}

static void forget_guest(void)
{
	free(job.cpus);
	job.cpus = NULL;
	free(job.guest_note);
	job.guest_note = NULL;
}

static void dump_written(struct work *w)
{
	struct err e = ERR_INIT;
	json_t *data;

	if (close(job.fd) && !job.ret)
		job.ret = err_errno(&job.e, errno, "dump: failed to save memory");
	job.active = false;
	job.status = job.ret ? FAILED : COMPLETED;
	data = json_pack("{s:o}", "result", describe_dump());
	if (job.ret)
		json_object_set_new(data, "error", qmp_text(job.e.msg));
	qmp_emit("DUMP_COMPLETED", data);
	json_decref(data);
	if (job.was_running && job.ret != -ECANCELED && machine_run_state(job.board) == RUN_SAVE_VM)
		machine_cont(job.board, &e);
	if (job.later)
		qmp_later_finish(job.later, job.ret ? NULL : json_object(), &job.e);
	forget_guest();
}

/* Where a hole may be left instead of zeroes: in a file that has nothing there. */
static bool may_be_sparse(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode) && !(fcntl(fd, F_GETFL) & O_APPEND) &&
	       lseek(fd, 0, SEEK_CUR) >= st.st_size;
}

static int open_protocol(const char *protocol, struct err *e)
{
	if (!strncmp(protocol, "fd:", 3))
		return fd_name_take(protocol + 3, e);
	if (!strncmp(protocol, "file:", 5))
		return fdset_open(protocol + 5, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0600, e);
	return err_set(e, EINVAL, "Invalid parameter 'protocol'");
}

/* Formats of which this installation has the compressor: "kdump-zlib" is in the module vmm-kdump-zlib.so. */
static bool format_available(const char *format)
{
	return !strcmp(format, "elf") || (!strncmp(format, "kdump-", 6) && module_present(format));
}

static int load_codec(const char *format, struct err *e)
{
	job.codec = NULL;
	if (!format || !strcmp(format, "elf"))
		return 0;
	if (!format_available(format))
		return err_set(e, ENOTSUP, "%s is not available now", format);
	job.codec = module_load(format, "vmm_module_kdump", e);
	return job.codec ? 0 : -ENOTSUP;
}

static int check_dump(struct qmp_call *call, struct err *e)
{
	const char *format = qmp_arg_str(call, "format");
	bool begin = qmp_has_arg(call, "begin"), length = qmp_has_arg(call, "length");

	if (machine_run_state(call->board) == RUN_INMIGRATE)
		return err_set(e, EBUSY, "Dump not allowed during incoming migration.");
	if (job.active)
		return err_set(e, EBUSY, "There is a dump in process, please wait.");
	if (format && strcmp(format, "elf") && (begin || length || qmp_arg_bool(call, "paging", false)))
		return err_set(e, EINVAL, "kdump-compressed format doesn't support paging or filter");
	if (begin != length)
		return err_set(e, EINVAL, "Parameter '%s' is missing", begin ? "length" : "begin");
	if (length && (qmp_arg_int(call, "begin", 0) < 0 || qmp_arg_int(call, "length", 0) <= 0))
		return err_set(e, EINVAL, "Invalid parameter 'length'");
	return load_codec(format, e);
}

static int prepare_dump(struct qmp_call *call, struct err *e)
{
	struct dump *d = &job.dump;

	*d = (struct dump){.paging = qmp_arg_bool(call, "paging", false),
			   .begin = (uint64_t)qmp_arg_int(call, "begin", 0),
			   .length = (uint64_t)qmp_arg_int(call, "length", 0)};
	describe_ram(call->board, d);
	dump_measure(d);
	if (!d->total)
		return err_set(e, EINVAL, "Invalid parameter 'begin': there is no memory in that range");
	job.fd = open_protocol(qmp_arg_str(call, "protocol"), e);
	if (job.fd < 0)
		return job.fd;
	work_prepare_fd(job.fd);
	job.sparse = may_be_sparse(job.fd);
	return 0;
}

static void stop_guest(struct board *board)
{
	job.was_running = machine_running(board);
	if (job.was_running)
		machine_stop(board, RUN_SAVE_VM);
}

static json_t *dump_guest_memory(struct qmp_call *call, struct err *e)
{
	bool detach = qmp_arg_bool(call, "detach", false);

	if (check_dump(call, e) || prepare_dump(call, e))
		return NULL;
	stop_guest(call->board);
	job.board = call->board;
	job.work = (struct work){.run = write_dump, .done = dump_written};
	job.e = ERR_INIT;
	job.later = NULL;
	job.cpus = read_cpus(call->board, &job.dump.n_cpus, e);
	job.dump.cpus = job.cpus;
	job.dump.guest_note = job.guest_note = read_guest_note(call->board, &job.dump, &job.dump.guest_note_size);
	if (!job.cpus || work_start(&job.work, e)) {
		close(job.fd);
		forget_guest();
		if (job.was_running)
			machine_cont(call->board, &job.e);
		return NULL;
	}
	job.active = true;
	job.status = ACTIVE;
	if (detach)
		return json_object();
	job.later = qmp_later(call);
	return NULL;
}

static json_t *query_dump_capability(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();

	for (const char *const *format = dump_format.values; *format; format++)
		if (format_available(*format))
			json_array_append_new(list, json_string(*format));
	return json_pack("{s:o}", "formats", list);
}

/* ---- memsave, pmemsave ---- */

struct save {
	struct work work;
	struct dump ram;
	struct cpu_regs regs;
	bool linear;
	uint64_t addr, size;
	int fd, ret;
	struct qmp_later *later;
	struct err e;
};

static size_t read_ram(void *opaque, uint64_t addr, void *buf, size_t len)
{
	return dump_read(opaque, addr, buf, len);
}

/* The next piece, at most up to the end of a page; 0: not there. */
static size_t read_piece(struct save *s, uint64_t addr, void *buf, size_t len)
{
	uint64_t physical = addr;

	len = MIN(len, 4096 - (addr & 4095));
	if (s->linear && !cpu_translate(&s->regs, addr, &physical, read_ram, &s->ram))
		return 0;
	return dump_read(&s->ram, physical, buf, len);
}

static void save_memory(struct work *w)
{
	struct save *s = container_of(w, struct save, work);
	uint64_t addr = s->addr;
	uint8_t buf[65536];

	for (uint64_t left = s->size; !s->ret && left;) {
		size_t n = 0, want = (size_t)MIN(left, sizeof(buf)), got;

		while (n < want && (got = read_piece(s, addr + n, buf + n, want - n)))
			n += got;
		if (!n)
			s->ret = err_set(&s->e, EINVAL, "Invalid addr 0x%016llx/size %llu specified",
					 (unsigned long long)s->addr, (unsigned long long)s->size);
		else if ((s->ret = work_write(w, s->fd, buf, n)))
			err_errno(&s->e, -s->ret, "Cannot write the memory");
		addr += n;
		left -= n;
	}
}

static void memory_saved(struct work *w)
{
	struct save *s = container_of(w, struct save, work);

	if (close(s->fd) && !s->ret)
		s->ret = err_errno(&s->e, errno, "Cannot write the memory");
	if (s->later)
		qmp_later_finish(s->later, s->ret ? NULL : json_object(), &s->e);
	free(s);
}

static json_t *start_save(struct qmp_call *call, bool linear, struct err *e)
{
	const char *path = qmp_arg_str(call, "filename");
	int64_t cpu = qmp_arg_int(call, "cpu-index", 0);
	struct save *s = xzalloc(sizeof(*s));
	int r = 0;

	*s = (struct save){.work = {.run = save_memory, .done = memory_saved},
			   .linear = linear,
			   .addr = (uint64_t)qmp_arg_int(call, "val", 0),
			   .size = (uint64_t)qmp_arg_int(call, "size", 0)};
	describe_ram(call->board, &s->ram);
	if (linear)
		r = cpu < 0 || cpu > MACHINE_MAX_CPUS ? err_set(e, EINVAL, "Parameter 'cpu-index' expects a CPU number")
						      : read_cpu(call->board, (unsigned)cpu, &s->regs, e);
	if (!r) {
		r = s->fd = fdset_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666, e);
		if (r >= 0)
			work_prepare_fd(s->fd);
	}
	if (r >= 0 && work_start(&s->work, e)) {
		close(s->fd);
		r = -EBUSY;
	}
	if (r < 0) {
		free(s);
		return NULL;
	}
	s->later = qmp_later(call);
	return NULL;
}

static json_t *memsave(struct qmp_call *call, struct err *e)
{
	return start_save(call, true, e);
}

static json_t *pmemsave(struct qmp_call *call, struct err *e)
{
	return start_save(call, false, e);
}

const struct qmp_command qmp_dump_commands[] = {
	{"dump-guest-memory", "Write guest memory and registers, an ELF core or a kdump, to file:PATH or fd:NAME.",
	 "0.2",
	 QMP_MEMBERS(QMP_REQ("paging", qmp_bool), QMP_REQ("protocol", qmp_str), QMP_OPT("detach", qmp_bool),
		     QMP_OPT("begin", qmp_int), QMP_OPT("length", qmp_int), QMP_OPT("format", dump_format)),
	 NULL, 0, 0, dump_guest_memory},
	{"query-dump", "How far the dump is.", "0.2", NULL, &qmp_dump_result, 0, 0, query_dump},
	{"query-dump-guest-memory-capability", "Formats of dumps.", "0.2", NULL, &dump_capability, 0, 0,
	 query_dump_capability},
	{"memsave", "Write linear memory, as a vCPU maps it, to a file.", "0.2",
	 QMP_MEMBERS(QMP_REQ("val", qmp_int), QMP_REQ("size", qmp_size), QMP_REQ("filename", qmp_str),
		     QMP_OPT("cpu-index", qmp_int)),
	 NULL, 0, 0, memsave},
	{"pmemsave", "Write physical memory to a file.", "0.2",
	 QMP_MEMBERS(QMP_REQ("val", qmp_int), QMP_REQ("size", qmp_size), QMP_REQ("filename", qmp_str)), NULL, 0, 0,
	 pmemsave},
	{NULL},
};
