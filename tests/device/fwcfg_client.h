/* A fw_cfg driver as firmware has one: for the tests of fw_cfg itself and of what the board publishes through it. */
#ifndef VMM_TEST_FWCFG_CLIENT_H
#define VMM_TEST_FWCFG_CLIENT_H

#include "bench.h"
#include "vmm/bytes.h"

#include <stdlib.h>
#include <string.h>

enum { FW_ERROR = 1, FW_READ = 2, FW_SKIP = 4, FW_SELECT = 8, FW_WRITE = 16 };

/* One DMA request whose descriptor is at 0x7000; returns the control word it leaves. */
static inline uint32_t fw_dma(struct board *b, uint32_t control, uint32_t len, uint64_t addr)
{
	uint8_t d[16];

	put_be32(d, control);
	put_be32(d + 4, len);
	put_be64(d + 8, addr);
	bench_write(b, 0x7000, d, sizeof(d));
	bench_outl(b, 0x514, 0);
	bench_outl(b, 0x518, htobe32(0x7000));
	bench_read(b, 0x7000, d, 4);
	return get_be32(d);
}

static inline void fw_read_key(struct board *b, uint16_t key, void *buf, size_t len)
{
	bench_outw(b, 0x510, key);
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = bench_inb(b, 0x511);
}

static inline bool fw_find(struct board *b, const char *name, uint16_t *key, uint32_t *len)
{
	uint8_t count[4], entry[64];

	fw_read_key(b, 0x19, count, 4);
	for (uint32_t i = 0; i < get_be32(count); i++) {
		for (unsigned j = 0; j < 64; j++)
			entry[j] = bench_inb(b, 0x511);
		if (strcmp((char *)entry + 8, name))
			continue;
		*len = get_be32(entry);
		*key = get_be16(entry + 4);
		return true;
	}
	return false;
}

/* A file's contents with a NUL behind them; malloc'ed. Fails the test if there is none. */
static inline uint8_t *fw_file(struct board *b, const char *name, uint32_t *len)
{
	uint16_t key;

	ck_assert_msg(fw_find(b, name, &key, len), "no fw_cfg file %s", name);
	uint8_t *p = calloc(1, *len + 1);
	ck_assert_ptr_nonnull(p);
	fw_read_key(b, key, p, *len);
	return p;
}

#endif
