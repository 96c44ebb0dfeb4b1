/*
 * fw_cfg fuzzer: an input is a program of selections, port reads and DMA requests, most of them nearly right. Whatever
 * it does, the files the guest cannot write keep their contents and the device answers afterwards.
 */
#include "fuzz.h"
#include "vmm/bytes.h"
#include "vmm/fw_cfg.h"
#include "vmm/machine.h"

#include <stdio.h>
#include <stdlib.h>

#define RAM_SIZE   (8 * MIB)
#define DESCRIPTOR 0x7000
#define TEXT       "0123456789abcdef"

static struct config config;
static struct board *board;

static void written(void *opaque, const uint8_t *data, size_t len)
{
	if (len != sizeof(TEXT) - 1)
		abort();
}

static void build(void)
{
	static const char item[] = "opt/text,string=" TEXT;
	char *argv[] = {"vmm",         "-accel",   "qtest", "-m",      "8",
			"-nodefaults", "-display", "none",  "-fw_cfg", (char *)item};
	struct err e = ERR_INIT;

	if (config_parse(&config, ARRAY_SIZE(argv), argv, &e) || loop_init_main(&e))
		goto fail;
	clock_use_manual(1000000000ull * NS_PER_SEC);
	board = machine_new(&config, &e);
	if (!board || fw_cfg_add_writable(board, "opt/writable", TEXT, sizeof(TEXT) - 1, written, NULL, &e) ||
	    machine_start(board, &e))
		goto fail;
	return;
fail:
	fprintf(stderr, "%s\n", e.msg);
	abort();
}

/* A key that exists more often than chance has it. */
static uint16_t take_key(struct input *in)
{
	uint16_t v = take(in, 2);

	return v & 0x8000 ? v : v % 0x40;
}

static void dma(struct input *in)
{
	static const uint8_t commands[] = {0x02, 0x04, 0x08, 0x0a, 0x0c, 0x10, 0x18, 0x1a};
	uint8_t op = take(in, 1), d[16];
	uint32_t control = commands[op % ARRAY_SIZE(commands)] | (uint32_t)take_key(in) << 16;
	uint32_t len = op & 0x10 ? take(in, 4) : take(in, 1);
	uint64_t addr = op & 0x20 ? take(in, 8) : take(in, 3) % (RAM_SIZE + 4096);

	if (op & 0x40)
		control = take(in, 4);
	put_be32(d, control);
	put_be32(d + 4, len);
	put_be64(d + 8, addr);
	map_mem_write(board, DESCRIPTOR, d, sizeof(d));
	map_pio_write(board, 0x514, op & 0x80 ? take(in, 4) : 0, 4);
	map_pio_write(board, 0x518, op & 0x80 ? take(in, 4) : htobe32(DESCRIPTOR), 4);
}

static void one_step(struct input *in)
{
	uint8_t op = take(in, 1);

	switch (op % 4) {
	case 0:
		map_pio_write(board, 0x510, take_key(in), 2);
		break;
	case 1:
		for (unsigned n = op >> 2; n; n--)
			map_pio_read(board, 0x511, 1);
		break;
	case 2:
		map_pio_write(board, 0x510 + take(in, 1) % 12, take(in, 4), 1u << (op >> 2) % 3);
		break;
	case 3:
		dma(in);
		break;
	}
}

static void check_contents(void)
{
	char text[sizeof(TEXT)] = "";

	/* Its key depends on how many files sort before it. */
	for (uint16_t key = 0x20; key < 0x40; key++) {
		map_pio_write(board, 0x510, key, 2);
		for (unsigned i = 0; i < sizeof(TEXT) - 1; i++)
			text[i] = map_pio_read(board, 0x511, 1);
		if (!strcmp(text, TEXT) && !map_pio_read(board, 0x511, 1))
			return;
	}
	abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	if (!board)
		build();
	while (in.left)
		one_step(&in);
	check_contents();
	return 0;
}
