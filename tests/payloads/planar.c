/*
 * Planar VGA memory, whose writes a VMM may collect and deliver late: what is read back and what is seen must be as if
 * it did not.
 *
 * Programs mode 12h (640 x 480, 16 colours), checks plane by plane that data read back are those written, in the order
 * written, also where a register changes in between, and prints "PASS order writes=N" or "FAIL ...".  Then waits for a
 * character, draws 16 stripes of 40 pixels and stops without leaving the guest again: nothing tells the VMM that it has
 * drawn.
 *
 * Registers: IBM VGA, as its BIOS sets mode 12h; the palette is i * 4, i * 2, i for colour i.
 */
#include "payload.h"

static volatile uint8_t *const window = (volatile uint8_t *)0xa0000;

static void indexed(uint16_t port, uint8_t index, uint8_t value)
{
	outb(port, index);
	outb((uint16_t)(port + 1), value);
}

static void map_mask(unsigned planes)
{
	indexed(0x3c4, 2, (uint8_t)planes);
}

static void read_plane(unsigned plane)
{
	indexed(0x3ce, 4, (uint8_t)plane);
}

static void mode_12h(void)
{
	static const uint8_t sr[5] = {3, 1, 0x0f, 0, 6};
	static const uint8_t cr[25] = {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0,    0x40, 0,    0,   0,
				       0,    0,    0,    0xea, 0x8c, 0xdf, 0x28, 0,    0xe7, 4,    0xe3, 0xff};
	static const uint8_t gr[9] = {0, 0, 0, 0, 0, 0, 5, 0x0f, 0xff};
	static const uint8_t ar[5] = {1, 0, 0x0f, 0, 0};
	outb(0x3c2, 0xe3);
	for (unsigned i = 0; i < 5; i++)
		indexed(0x3c4, (uint8_t)i, sr[i]);
	indexed(0x3d4, 0x11, 0);
	for (unsigned i = 0; i < 25; i++)
		indexed(0x3d4, (uint8_t)i, cr[i]);
	for (unsigned i = 0; i < 9; i++)
		indexed(0x3ce, (uint8_t)i, gr[i]);
	inb(0x3da);
	for (unsigned i = 0; i < 21; i++) {
		outb(0x3c0, (uint8_t)i);
		outb(0x3c0, i < 16 ? (uint8_t)i : ar[i - 16]);
	}
	outb(0x3c0, 0x20);
	outb(0x3c6, 0xff);
	outb(0x3c8, 0);
	for (unsigned i = 0; i < 16; i++) {
		outb(0x3c9, (uint8_t)(i * 4));
		outb(0x3c9, (uint8_t)(i * 2));
		outb(0x3c9, (uint8_t)i);
	}
}

/* A byte that depends on place, plane and round. */
static uint8_t pattern(unsigned at, unsigned plane, unsigned round)
{
	return (uint8_t)((at * 7 + plane * 61 + round * 131) ^ (at >> 8));
}

static bool check_plane(unsigned first, unsigned count, unsigned plane, unsigned round)
{
	read_plane(plane);
	for (unsigned i = first; i < first + count; i++)
		if (window[i] != pattern(i, plane, round)) {
			put_string("FAIL plane ");
			put_dec(plane);
			put_string(" offset ");
			put_dec(i);
			put_string(" holds ");
			put_hex(window[i]);
			put_string(" in round ");
			put_dec(round);
			put_string("\n");
			return false;
		}
	return true;
}

/* More writes than the ring of a VMM holds, then few; the mask changes between planes, the last write to a place
 * counts. */
static bool check_order(unsigned *writes)
{
	for (unsigned round = 0; round < 6; round++) {
		unsigned first = round * 640, count = round & 1 ? 20 : 400;
		for (unsigned plane = 0; plane < 4; plane++) {
			map_mask(1u << plane);
			for (unsigned i = first; i < first + count; i++) {
				window[i] = (uint8_t)~pattern(i, plane, round);
				window[i] = pattern(i, plane, round);
				*writes += 2;
			}
		}
		for (unsigned plane = 0; plane < 4; plane++)
			if (!check_plane(first, count, plane, round))
				return false;
	}
	return true;
}

static void fill(unsigned first, unsigned bytes)
{
	for (unsigned plane = 0; plane < 4; plane++) {
		map_mask(1u << plane);
		for (unsigned i = first; i < first + bytes; i++)
			window[i] = i % 80 / 5 >> plane & 1 ? 0xff : 0;
	}
}

int payload_main(void)
{
	unsigned writes = 0;

	for (unsigned slot = 0; slot < 32; slot++)
		if (pci_read32(slot << 3, 8) >> 16 == 0x0300)
			pci_write32(slot << 3, 4, pci_read32(slot << 3, 4) | 3);
	mode_12h();
	if (!check_order(&writes))
		return 0x11;
	fill(0, 80 * 4);
	put_string("PASS order writes=");
	put_dec(writes);
	put_string("\n");
	while (get_char() < 0)
		barrier();
	map_mask(0x0f);
	for (unsigned i = 0; i < 40; i++) /* half a line in white, as the last thing ever */
		window[80 * 4 + i] = 0xff;
	for (;;)
		__asm__ volatile("pause");
}
