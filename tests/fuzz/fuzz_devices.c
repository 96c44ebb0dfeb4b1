/*
 * Register fuzzer for every device of the registry: builds the board with all of them, then reads an input as a program
 * of accesses. Regions of all devices are targets, enabled or not at their fixed place; PCI configuration space and
 * guest RAM too, so that descriptors and BARs come from the input. Time passes in steps; now and then the machine is
 * reset or its state is saved, damaged and loaded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "fuzz_board.h"
#include "vmm/block.h"
#include "vmm/chardev.h"

#define RAM_MIB   8
#define MAX_STEPS 4096

static struct config config;
static struct board *board;
static struct region *target[512];
static size_t n_targets;
static char image[3][32];

/* A small image file with a recognisable pattern. */
static void make_image(char *path, size_t size)
{
	int fd;

	strcpy(path, "/tmp/vmm-fuzz-XXXXXX");
	fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, (off_t)size) || pwrite(fd, "\x55\xaa", 2, 510) != 2)
		abort();
	close(fd);
}

static void remove_images(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(image); i++)
		unlink(image[i]);
}

/* Devices a user can add with nothing but their name, besides what the board has anyway. */
static size_t add_devices(char **argv)
{
	size_t n = 0;

	for (const struct device_class *const *c = device_registry; *c && n < 60; c++) {
		static const char *const given[] = {"ide-hd", "ide-cd", "VGA", "isa-serial", "isa-parallel", "floppy"};
		bool skip = !(*c)->user_creatable || ((*c)->bus != BUS_PCI && (*c)->bus != BUS_ISA);

		for (size_t i = 0; i < ARRAY_SIZE(given); i++)
			skip |= !strcmp((*c)->name, given[i]);
		for (const struct prop *p = (*c)->props; p && p->name; p++)
			skip |= p->type == PROP_DRIVE || p->type == PROP_CHARDEV; /* a NIC does without a network */
		if (skip)
			continue;
		argv[n++] = "-device";
		argv[n++] = (char *)(uintptr_t)(*c)->name;
	}
	return n;
}

static void build(void)
{
	static char drives[3][96];
	char *argv[96] = {"vmm",
			  "-accel",
			  "qtest",
			  "-m",
			  "8",
			  "-vga",
			  "std",
			  "-display",
			  "none",
			  "-serial",
			  "null",
			  "-drive",
			  drives[0],
			  "-drive",
			  drives[1],
			  "-drive",
			  drives[2],
			  "-chardev",
			  "null,id=debug",
			  "-device",
			  "isa-debugcon,chardev=debug"};
	int argc = 21;

	make_image(image[0], 2 * MIB);
	make_image(image[1], MIB);
	make_image(image[2], 1440 * KIB);
	atexit(remove_images);
	snprintf(drives[0], sizeof(drives[0]), "file=%s,format=raw,if=ide,index=0", image[0]);
	snprintf(drives[1], sizeof(drives[1]), "file=%s,format=raw,if=ide,index=2,media=cdrom", image[1]);
	snprintf(drives[2], sizeof(drives[2]), "file=%s,format=raw,if=floppy,index=0", image[2]);
	argc += (int)add_devices(argv + argc);
	board = fuzz_board(&config, argc, argv);
	for (struct device *d = device_next(board, NULL); d; d = device_next(board, d))
		for (unsigned i = 0; i < d->class->n_regions && n_targets < ARRAY_SIZE(target); i++)
			if (d->regions[i].size && d->regions[i].desc->ops)
				target[n_targets++] = &d->regions[i];
}

static void idle(void)
{
	bool busy = true;

	for (unsigned i = 0; busy && i < 10000; i++) {
		busy = loop_step(loop_main(), 0) > 0;
		for (struct block *b = block_next(NULL); b; b = block_next(b))
			if (block_inflight(b)) {
				busy = true;
				loop_step(loop_main(), 1);
			}
	}
}

static void set_flag(void *opaque)
{
	*(bool *)opaque = true;
}

/* Save, flip what the input says, load: must be refused or work, and the machine must survive a reset afterwards. */
static void save_and_load(struct input *in)
{
	struct state_buf buf = {0};
	struct err e = ERR_INIT;
	bool done = false;

	machine_quiesce(board, set_flag, &done);
	for (unsigned i = 0; !done && i < 10000; i++)
		loop_step(loop_main(), 1);
	if (!machine_save_state(board, &buf, &e)) {
		/* Behind the checksum: sections are loaded one by one with a valid frame around a changed payload. */
		size_t pos = 0, used;
		struct state_section s;
		struct device *d = device_next(board, NULL);
		unsigned which = (unsigned)take(in, 1);

		while (pos < buf.len && !state_section_parse(buf.data + pos, buf.len - pos, &s, &used, NULL)) {
			d = device_find(board, s.id);
			if (d && d->class->state && which-- == 0 && s.len) {
				uint8_t *payload = buf.data + (s.payload - buf.data);

				for (unsigned k = 0; k < 8; k++)
					payload[take(in, 2) % s.len] = (uint8_t)take(in, 1);
				pthread_mutex_lock(d->lock);
				if (state_load(&s, d->class->state, d, &e))
					d->class->reset(d);
				if (d->class->settle)
					d->class->settle(d);
				pthread_mutex_unlock(d->lock);
				break;
			}
			pos += used;
		}
	}
	state_buf_free(&buf);
	machine_unquiesce(board);
}

static void access_region(struct input *in, bool write)
{
	struct region *r = target[take(in, 1) % n_targets];
	unsigned size = 1u << (take(in, 1) & 3);
	uint64_t offset = take(in, 2);
	uint8_t v[8];

	if (r->size > 65536)
		offset |= take(in, 2) << 16;
	offset %= r->size;
	if (r->desc->space == SPACE_PIO) {
		size = MIN(size, 4u);
		if (write)
			map_pio_write(board, (uint16_t)(r->base + offset), take(in, size), size);
		else
			map_pio_read(board, (uint16_t)(r->base + offset), size);
		return;
	}
	put_le64(v, write ? take(in, size) : 0);
	if (write)
		map_mem_write(board, r->base + offset, v, size);
	else
		map_mem_read(board, r->base + offset, v, size);
}

static void one_step(struct input *in)
{
	uint8_t op = (uint8_t)take(in, 1);
	uint8_t block[64];
	uint64_t v;

	switch (op & 15) {
	case 0 ... 5:
		access_region(in, true);
		break;
	case 6 ... 8:
		access_region(in, false);
		break;
	case 9: /* PCI configuration */
		map_pio_write(board, 0xcf8, 0x80000000u | (uint32_t)(take(in, 1) % 48) << 8 | (take(in, 1) & 0xfc), 4);
		map_pio_write(board, (uint16_t)(0xcfc + (op >> 6)), take(in, 4), op & 16 ? 4 : 1);
		break;
	case 10: /* descriptors in RAM */
		v = take(in, 3) % (RAM_MIB * MIB - sizeof(block));
		for (size_t i = 0; i < sizeof(block); i += 8)
			put_le64(block + i, take(in, 8));
		map_mem_write(board, v, block, sizeof(block));
		break;
	case 11:
		clock_manual_step((take(in, 1) + 1) * 1000);
		break;
	case 12:
		clock_manual_step((take(in, 1) % 16 + 1) * NS_PER_MS);
		idle();
		break;
	case 13:
		idle();
		break;
	case 14:
		if (op & 0x80)
			save_and_load(in);
		break;
	case 15:
		if (op == 0xff) {
			machine_reset(board, SHUTDOWN_HOST_QMP_RESET);
			idle();
		}
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	if (!board)
		build();
	for (unsigned i = 0; in.left && i < MAX_STEPS; i++)
		one_step(&in);
	idle();
	/* Whatever the input did, a reset brings the machine back: each input starts from there. */
	machine_reset(board, SHUTDOWN_HOST_QMP_RESET);
	idle();
	return 0;
}
