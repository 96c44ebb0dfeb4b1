/* The device bench: see bench.h. */
#include "bench.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "bench_cable.h"
#include "src/machine/board.h"
#include "vmm/block.h"
#include "vmm/bytes.h"
#include "vmm/chardev.h"

#define MAX_ARGS   128
#define N_GSI      24
#define HOST_EPOCH 1000000000ull /* 2001-09-09 01:46:40 UTC */

static struct {
	char *text;
	char *argv[MAX_ARGS];
	struct config config;
	unsigned edges[N_GSI];
	bool intr;
	unsigned msis;
	uint32_t msi_data;
	struct {
		char name[48], data[512];
	} event[32];
	unsigned n_events;
} bench;

static void capture(void *opaque, unsigned chip, unsigned n, bool level)
{
	(void)opaque;
	if (chip == 0 && level && n < N_GSI)
		bench.edges[n]++;
	else if (chip == 1)
		bench.intr = level;
	else if (chip == 2) {
		bench.msis++;
		bench.msi_data = n;
	}
}

static void on_event(void *opaque, const char *name, const char *data)
{
	unsigned i = bench.n_events++ % ARRAY_SIZE(bench.event);

	(void)opaque;
	snprintf(bench.event[i].name, sizeof(bench.event[i].name), "%s", name);
	snprintf(bench.event[i].data, sizeof(bench.event[i].data), "%s", data ? data : "");
}

/* All but the board. */
static void release(void)
{
	netdev_close_all();
	block_close_all();
	chardev_close_all();
	loop_free(loop_main());
	config_free(&bench.config);
	free(bench.text);
	memset(&bench, 0, sizeof(bench));
}

static struct board *build_described(const char *options, const void *fdt, size_t fdt_len, struct err *e)
{
	char *save = NULL;
	int argc = 0;
	struct board *b;

	netdev_set_test_backend(&bench_cable_ops);
	bench.text = xasprintf("vmm -accel qtest %s %s", fdt ? "" : "-nodefaults", options ? options : "");
	for (char *w = strtok_r(bench.text, " ", &save); w && argc < MAX_ARGS - 1; w = strtok_r(NULL, " ", &save))
		bench.argv[argc++] = w;
	if (config_parse(&bench.config, argc, bench.argv, e))
		return NULL;
	if (fdt && machine_config_from_description(&bench.config, fdt, fdt_len, e))
		return NULL;
	if (loop_init_main(e))
		return NULL;
	clock_use_manual(HOST_EPOCH * NS_PER_SEC);
	machine_subscribe_events(on_event, NULL);
	b = machine_new(&bench.config, e);
	if (!b)
		return NULL;
	irq_set_capture(b, capture, NULL);
	if (machine_start(b, e))
		return NULL;
	bench_idle(b);
	return b;
}

static struct board *build(const char *options, struct err *e)
{
	return build_described(options, NULL, 0, e);
}

struct board *bench_new_described(const char *options, const void *fdt, size_t len)
{
	struct err e = ERR_INIT;
	struct board *b = build_described(options, fdt, len, &e);

	ck_assert_msg(b, "the described board cannot be built: %s", e.msg);
	return b;
}

const char *bench_new_described_fails(const char *options, const void *fdt, size_t len)
{
	static struct err e;

	e = ERR_INIT;
	ck_assert_msg(!build_described(options, fdt, len, &e),
		      "the described board was built, although it should be refused");
	release();
	return e.msg;
}

struct board *bench_new(const char *options)
{
	struct err e = ERR_INIT;
	struct board *b = build(options, &e);

	ck_assert_msg(b, "the board cannot be built: %s", e.msg);
	return b;
}

const char *bench_new_fails(const char *options)
{
	static struct err e;
	struct board *b;

	e = ERR_INIT;
	b = build(options, &e);
	ck_assert_msg(!b, "the board was built, although it should be refused: %s", options);
	release();
	return e.msg;
}

void bench_free(struct board *b)
{
	bench_idle(b); /* events still queued would leak with the loop */
	machine_free(b);
	release();
}

/* ---- access ---- */

void bench_outb(struct board *b, uint16_t port, uint8_t v)
{
	map_pio_write(b, port, v, 1);
}
void bench_outw(struct board *b, uint16_t port, uint16_t v)
{
	map_pio_write(b, port, v, 2);
}
void bench_outl(struct board *b, uint16_t port, uint32_t v)
{
	map_pio_write(b, port, v, 4);
}
uint8_t bench_inb(struct board *b, uint16_t port)
{
	return (uint8_t)map_pio_read(b, port, 1);
}
uint16_t bench_inw(struct board *b, uint16_t port)
{
	return (uint16_t)map_pio_read(b, port, 2);
}
uint32_t bench_inl(struct board *b, uint16_t port)
{
	return (uint32_t)map_pio_read(b, port, 4);
}
void bench_write(struct board *b, uint64_t addr, const void *buf, size_t len)
{
	map_mem_write(b, addr, buf, len);
}
void bench_read(struct board *b, uint64_t addr, void *buf, size_t len)
{
	map_mem_read(b, addr, buf, len);
}

static uint64_t read_le(struct board *b, uint64_t addr, unsigned size)
{
	uint8_t v[8];

	map_mem_read(b, addr, v, size);
	return get_le(v, size);
}

static void write_le(struct board *b, uint64_t addr, uint64_t value, unsigned size)
{
	uint8_t v[8];

	put_le(v, value, size);
	map_mem_write(b, addr, v, size);
}

uint8_t bench_readb(struct board *b, uint64_t addr)
{
	return (uint8_t)read_le(b, addr, 1);
}
uint16_t bench_readw(struct board *b, uint64_t addr)
{
	return (uint16_t)read_le(b, addr, 2);
}
uint32_t bench_readl(struct board *b, uint64_t addr)
{
	return (uint32_t)read_le(b, addr, 4);
}
void bench_writeb(struct board *b, uint64_t addr, uint8_t v)
{
	write_le(b, addr, v, 1);
}
void bench_writew(struct board *b, uint64_t addr, uint16_t v)
{
	write_le(b, addr, v, 2);
}
void bench_writel(struct board *b, uint64_t addr, uint32_t v)
{
	write_le(b, addr, v, 4);
}

static uint16_t select_config(struct board *b, unsigned devfn, unsigned reg)
{
	bench_outl(b, 0xcf8, 0x80000000u | devfn << 8 | (reg & ~3u));
	return (uint16_t)(0xcfc + (reg & 3));
}

uint32_t bench_pci_readl(struct board *b, unsigned devfn, unsigned reg)
{
	return bench_inl(b, select_config(b, devfn, reg));
}
uint16_t bench_pci_readw(struct board *b, unsigned devfn, unsigned reg)
{
	return bench_inw(b, select_config(b, devfn, reg));
}
uint8_t bench_pci_readb(struct board *b, unsigned devfn, unsigned reg)
{
	return bench_inb(b, select_config(b, devfn, reg));
}
void bench_pci_writel(struct board *b, unsigned devfn, unsigned reg, uint32_t v)
{
	bench_outl(b, select_config(b, devfn, reg), v);
}
void bench_pci_writew(struct board *b, unsigned devfn, unsigned reg, uint16_t v)
{
	bench_outw(b, select_config(b, devfn, reg), v);
}
void bench_pci_writeb(struct board *b, unsigned devfn, unsigned reg, uint8_t v)
{
	bench_outb(b, select_config(b, devfn, reg), v);
}

/* ---- time ---- */

void bench_idle(struct board *b)
{
	(void)b;
	/* A request handed to a worker thread completes on the loop: wait for those, too. */
	for (;;) {
		bool busy = false;

		while (loop_step(loop_main(), 0) > 0)
			;
		for (struct block *blk = block_next(NULL); blk; blk = block_next(blk))
			busy |= block_inflight(blk) > 0;
		if (!busy && loop_step(loop_main(), 0) == 0)
			return;
		if (busy)
			loop_step(loop_main(), 10);
	}
}

void bench_step(struct board *b, uint64_t ns)
{
	bench_idle(b);
	clock_manual_step(ns);
	bench_idle(b);
}

void bench_wait(struct board *b, bool (*cond)(void *opaque), void *opaque)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (!cond(opaque)) {
		loop_step(loop_main(), 10);
		clock_gettime(CLOCK_MONOTONIC, &now);
		ck_assert_msg(now.tv_sec - start.tv_sec < 5, "the condition did not come true within 5 s");
	}
	(void)b;
}

/* ---- what the guest would notice ---- */

bool bench_gsi(struct board *b, unsigned gsi)
{
	return irq_gsi_level(b, gsi);
}

unsigned bench_gsi_edges(struct board *b, unsigned gsi)
{
	unsigned n = bench.edges[gsi];

	(void)b;
	bench.edges[gsi] = 0;
	return n;
}

bool bench_intr(struct board *b)
{
	(void)b;
	return bench.intr;
}

unsigned bench_msis(struct board *b, uint32_t *data)
{
	unsigned n = bench.msis;

	(void)b;
	if (data)
		*data = bench.msi_data;
	bench.msis = 0;
	return n;
}

const char *bench_event(struct board *b, const char *name)
{
	static char data[512];
	const char *found = NULL;

	bench_idle(b);
	for (unsigned i = 0; i < MIN(bench.n_events, (unsigned)ARRAY_SIZE(bench.event)); i++)
		if (!strcmp(bench.event[i].name, name)) {
			memcpy(data, bench.event[i].data, sizeof(data));
			bench.event[i].name[0] = '\0';
			found = data;
		}
	return found;
}

void bench_reset(struct board *b)
{
	machine_reset(b, SHUTDOWN_HOST_QMP_RESET);
	bench_idle(b);
}

static void set_flag(void *opaque)
{
	*(bool *)opaque = true;
}

static bool is_set(void *opaque)
{
	return *(bool *)opaque;
}

static void save(struct board *b, struct state_buf *out)
{
	struct err e = ERR_INIT;
	bool done = false;

	machine_quiesce(b, set_flag, &done);
	bench_wait(b, is_set, &done);
	ck_assert_msg(!machine_save_state(b, out, &e), "saving failed: %s", e.msg);
}

/* Name the section that differs first. */
static void compare(const struct state_buf *a, const struct state_buf *b)
{
	size_t pos = 0, ua, ub;
	struct state_section sa, sb;

	while (pos < a->len && pos < b->len) {
		ck_assert_int_eq(state_section_parse(a->data + pos, a->len - pos, &sa, &ua, NULL), 0);
		ck_assert_int_eq(state_section_parse(b->data + pos, b->len - pos, &sb, &ub, NULL), 0);
		ck_assert_msg(ua == ub && !memcmp(a->data + pos, b->data + pos, ua),
			      "the state of '%s' differs after save, load and save", sa.id);
		pos += ua;
	}
	ck_assert_uint_eq(a->len, b->len);
}

/* Memory travels beside the state, block by block: guest RAM, VRAM. */
struct ram_copy {
	char name[64];
	uint64_t size;
	void *data;
	struct ram_copy *next;
};

static struct ram_copy *copy_ram(const struct board *b)
{
	struct ram_copy *list = NULL;

	for (struct ram_block *rb = b->blocks; rb; rb = rb->next) {
		struct ram_copy *c = xzalloc(sizeof(*c));

		memcpy(c->name, rb->name, sizeof(c->name));
		c->size = rb->size;
		c->data = xmemdup(rb->host, rb->size);
		c->next = list;
		list = c;
	}
	return list;
}

static void put_ram(const struct board *b, struct ram_copy *list)
{
	while (list) {
		struct ram_copy *c = list;

		for (struct ram_block *rb = b->blocks; rb; rb = rb->next)
			if (!strcmp(rb->name, c->name) && rb->size == c->size)
				memcpy(rb->host, c->data, c->size);
		list = c->next;
		free(c->data);
		free(c);
	}
}

struct board *bench_save_load(struct board *b)
{
	struct state_buf first = {0}, second = {0};
	struct err e = ERR_INIT;
	struct ram_copy *ram;
	uint64_t now;
	char *options;

	save(b, &first);
	now = clock_ns(VCLOCK_VIRTUAL);
	ram = copy_ram(b);
	options = xstrdup("");
	for (int i = 4; i < MAX_ARGS && bench.argv[i]; i++) { /* behind vmm -accel qtest -nodefaults */
		char *more = xasprintf("%s %s", options, bench.argv[i]);

		free(options);
		options = more;
	}
	bench_free(b);
	b = bench_new(options);
	free(options);
	put_ram(b, ram);
	ck_assert_msg(!machine_load_state(b, first.data, first.len, &e), "loading failed: %s", e.msg);
	ck_assert_uint_eq(clock_ns(VCLOCK_VIRTUAL), now);
	save(b, &second);
	compare(&first, &second);
	machine_unquiesce(b);
	state_buf_free(&first);
	state_buf_free(&second);
	return b;
}
