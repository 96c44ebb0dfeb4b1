/*
 * Incoming migration fuzzer: the input is what a peer sends, over a real socket to the real destination threads. The
 * first byte says how much of a right beginning is put before it (bit 0: preamble; bit 1: description, layout, drives
 * and begin, so that the machine is accepted) and whether the rest are raw bytes (bit 2) or records {u8 type, u8 flags,
 * u16 length, payload} that get a right header and checksum here, so that what is behind the checksums is reached. Bit
 * 3: batches are built from {block, page, count, kind}. Bit 4: it goes to a destination that has no machine yet, in
 * pieces.
 */
#include "fuzz_board.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "src/migration/caller.h"
#include "src/migration/ram_recv.h"
#include "src/migration/session.h"
#include "vmm/block.h"
#include "vmm/bytes.h"
#include "vmm/log.h"

enum { PREAMBLE = 1, HANDSHAKE = 2, RAW = 4, BATCHES = 8, CALLER = 16 };

static struct config config;
static struct board *board;
static struct state_buf stream;
static uint32_t sequence;

static void put(const void *data, size_t len)
{
	if (stream.len + len > stream.cap) {
		stream.cap = (stream.len + len) * 2;
		stream.data = xrealloc(stream.data, stream.cap);
	}
	if (len)
		memcpy(stream.data + stream.len, data, len);
	stream.len += len;
}

static void put_record(uint16_t type, uint16_t flags, const void *payload, size_t len)
{
	uint8_t head[WIRE_HEADER];

	wire_put_header(head, type, flags, (uint32_t)len, sequence++, payload, (uint32_t)len);
	put(head, sizeof(head));
	put(payload, len);
}

static void put_handshake(void)
{
	static const uint8_t begin[4];
	uint8_t *layout, *drives;
	size_t layout_len, drives_len, len;
	struct err e = ERR_INIT;
	void *fdt;

	if (machine_describe(board, &fdt, &len, &e) || describe_layout(&layout, &layout_len, &e) ||
	    describe_drives(&drives, &drives_len, &e))
		abort();
	put_record(WIRE_DESCRIPTION, 0, fdt, len);
	put_record(WIRE_LAYOUT, 0, layout, layout_len);
	put_record(WIRE_DRIVES, 0, drives, drives_len);
	put_record(WIRE_BEGIN, 0, begin, sizeof(begin));
	free(fdt);
	free(layout);
	free(drives);
}

/* One run of pages; kind: right, wrong hash, zero, wrong count. */
static void put_batch(const uint8_t *p)
{
	static uint8_t page[WIRE_PAGE];
	struct wire_runs runs = {0};
	uint32_t n = 1 + p[3] % 8;
	struct wire_batch wb = {.block = p[0] & 7};
	uint8_t head[WIRE_HEADER + WIRE_BATCH_HEAD + 32 + 8 * 8], *at;
	uint32_t hashed;

	page[0] = p[3] | 1;
	wire_runs_add(&runs, get_le16(p + 1), n);
	*((p[3] & 0xc0) == 0x80 ? &wb.zero_pages : &wb.data_pages) = (p[3] & 0xc0) == 0xc0 ? n - 1 : n;
	wb.run_bytes = (uint32_t)runs.len;
	wb.data_bytes = wb.data_pages * WIRE_PAGE;
	wire_put_batch(head + WIRE_HEADER, &wb);
	at = head + WIRE_HEADER + WIRE_BATCH_HEAD;
	memcpy(at, runs.data, runs.len);
	at += runs.len;
	for (uint32_t i = 0; i < wb.data_pages; i++, at += 8)
		put_le64(at, wire_page_hash(page) ^ ((p[3] & 0xc0) == 0x40));
	hashed = (uint32_t)(at - head - WIRE_HEADER);
	wire_put_header(head, WIRE_BATCH, p[0] >> 7, hashed + wb.data_bytes, sequence++, head + WIRE_HEADER, hashed);
	put(head, WIRE_HEADER + hashed);
	for (uint32_t i = 0; i < wb.data_pages; i++)
		put(page, sizeof(page));
	free(runs.data);
}

static void build(void)
{
	char *argv[] = {"vmm", "-accel", "qtest", "-m", "8", "-nodefaults", "-display", "none", "-S"};
	struct err e = ERR_INIT;

	log_set_level(LOG_ERROR);
	log_open("/dev/null", &e);
	board = fuzz_board(&config, ARRAY_SIZE(argv), argv);
	migration_init(board);
}

/* Let the destination have it all; read what it answers until it hangs up. */
static void deliver(void)
{
	int pair[2];
	char uri[32], waste[4096];
	size_t sent = 0;
	struct err e = ERR_INIT;
	bool open = true;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		abort();
	snprintf(uri, sizeof(uri), "fd:%d", pair[1]);
	if (destination_listen_again(uri, &e))
		abort();
	while (open || destination_talks()) {
		struct pollfd p = {.fd = open ? pair[0] : -1,
				   .events = (short)(POLLIN | (sent < stream.len ? POLLOUT : 0))};
		ssize_t n;

		loop_step(loop_main(), 0);
		poll(&p, 1, 1);
		if (p.revents & POLLOUT && sent < stream.len) {
			n = send(pair[0], stream.data + sent, stream.len - sent, MSG_NOSIGNAL);
			sent += n > 0 ? (size_t)n : 0;
			if (n < 0 && errno != EAGAIN)
				sent = stream.len;
		}
		if (sent == stream.len)
			shutdown(pair[0], SHUT_WR);
		n = open ? recv(pair[0], waste, sizeof(waste), 0) : 0;
		if (open && (n == 0 || (n < 0 && errno != EAGAIN))) {
			close(pair[0]);
			open = false;
		}
	}
	for (int i = 0; i < 8; i++)
		loop_step(loop_main(), 0);
}

/* The same before there is a machine: whatever comes, in whatever pieces, is taken or refused. */
static void call(void)
{
	struct caller c;
	struct err e = ERR_INIT;
	int pair[2], r = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		abort();
	caller_begin(&c, channel_new(pair[1], session.cancel_fd, "fuzz"), UINT64_MAX);
	for (size_t sent = 0, piece = 1; !r && sent < stream.len; piece = piece * 3 % 4093) {
		ssize_t n = send(pair[0], stream.data + sent, MIN(piece, stream.len - sent), MSG_NOSIGNAL);

		sent += n > 0 ? (size_t)n : 0;
		r = caller_advance(&c, &e);
	}
	if (r > 0 &&
	    (!c.description || c.rec.type != WIRE_DESCRIPTION || wire_check(c.head, &c.rec, c.description, &e)))
		abort(); /* he is through, and it is not what he said */
	close(pair[0]);
	if (!r)
		r = caller_advance(&c, &e);
	if (r < 0) {
		caller_refuse(&c, e.msg);
		caller_linger(&c);
	}
	caller_end(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_preamble p = {.kind = WIRE_MAIN, .session = 1};
	uint8_t raw[WIRE_PREAMBLE], how;

	if (!board)
		build();
	if (!size || size > 65536)
		return 0;
	stream.len = 0;
	sequence = 0;
	how = *data++;
	size--;
	wire_put_preamble(raw, &p);
	if (how & (PREAMBLE | HANDSHAKE))
		put(raw, sizeof(raw));
	if (how & HANDSHAKE)
		put_handshake();
	while (size && !(how & RAW)) {
		size_t len;

		if (how & BATCHES && size >= 4) {
			put_batch(data);
			data += 4;
			size -= 4;
			how ^= data < data + size && size && data[0] == 0xff ? BATCHES : 0;
			continue;
		}
		if (size < 4)
			break;
		len = MIN((size_t)get_le16(data + 2), size - 4);
		put_record(data[0], data[1], data + 4, len);
		data += 4 + len;
		size -= 4 + len;
	}
	if (how & RAW)
		put(data, size);
	if (how & CALLER)
		call();
	else
		deliver();
	return 0;
}
