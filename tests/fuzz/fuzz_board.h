/* What targets that drive devices on a whole board share: the board, time, saving and loading in mid-operation. */
#ifndef VMM_TEST_FUZZ_BOARD_H
#define VMM_TEST_FUZZ_BOARD_H

#include <stdio.h>
#include <stdlib.h>
#include "fuzz.h"
#include "vmm/bytes.h"
#include "vmm/clock.h"
#include "vmm/config.h"
#include "vmm/loop.h"
#include "vmm/machine.h"

/* The board of a command line, with a clock of ours, started. config must live as long as the board. */
static inline struct board *fuzz_board(struct config *config, int argc, char **argv)
{
	struct err e = ERR_INIT;
	struct board *board;

	if (config_parse(config, argc, argv, &e) || loop_init_main(&e))
		goto fail;
	clock_use_manual(1000000000ull * NS_PER_SEC);
	board = machine_new(config, &e);
	if (board && !machine_start(board, &e))
		return board;
fail:
	fprintf(stderr, "%s\n", e.msg);
	abort();
}

static inline void fuzz_write_memory(struct board *board, uint64_t addr, uint64_t value, unsigned size)
{
	uint8_t raw[8];

	put_le64(raw, value);
	map_mem_write(board, addr, raw, size);
}

static inline void fuzz_write_pci(struct board *board, unsigned slot, unsigned reg, uint32_t value)
{
	map_pio_write(board, 0xcf8, 0x80000000u | slot << 11 | reg, 4);
	map_pio_write(board, 0xcfc, value, 4);
}

static inline void fuzz_flag(void *opaque)
{
	*(bool *)opaque = true;
}

/* Stop in whatever is under way, save, load, go on. */
static inline void fuzz_save_and_load(struct board *board)
{
	struct state_buf buf = {0};
	struct err e = ERR_INIT;
	bool done = false;

	machine_quiesce(board, fuzz_flag, &done);
	for (unsigned i = 0; !done && i < 1000; i++)
		loop_step(loop_main(), 0);
	if (!done || machine_save_state(board, &buf, &e) || machine_load_state(board, buf.data, buf.len, &e)) {
		fprintf(stderr, "saving: %s\n", e.msg);
		abort();
	}
	state_buf_free(&buf);
	machine_unquiesce(board);
}

#endif
