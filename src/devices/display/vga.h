/*
 * Standard VGA with Bochs VBE extensions: what its files share.
 *
 *	vga.c         PCI function, registers, windows, state
 *	vga_mem.c     the CPU's way to display memory: write and read modes, latches
 *	vga_vbe.c     the DISPI registers
 *	vga_render.c  display memory to pixels
 *	vga_text.c    the character generator and the text screen as text
 *
 * Display memory. Standard modes see four planes of 64 KiB, kept interleaved: 32-bit word n of VRAM holds byte n of
 * planes 0 (low byte) to 3. Where the hardware spreads linear addresses over the planes (chain-4) we keep them dense,
 * so that word A/4 is what CPU address A means and the window can be mapped as RAM; the CRTC's doubleword mode is
 * dense in the same way. Software cannot tell unless it mixes chain-4 with planar access to one picture.
 *
 * Text shadow. Text modes write pairs of bytes to planes 0 and 1. While the registers say that nothing else can
 * happen, these pairs live in a block of their own behind the VRAM, mapped into the guest as RAM: a text screen costs
 * no exits. `shadow` tells where the truth is; vga_update_windows() moves it.
 */
#ifndef DEVICES_DISPLAY_VGA_H
#define DEVICES_DISPLAY_VGA_H

#include "vmm/device.h"
#include "vmm/display.h"

#define VGA_PLANE_SIZE  0x10000u
#define VGA_MEMORY      (4 * VGA_PLANE_SIZE)
#define VGA_SHADOW_SIZE 0x8000u

/* Sequencer */
enum { SR_RESET, SR_CLOCKING, SR_MAP_MASK, SR_CHAR_MAP, SR_MEMORY_MODE };
/* Graphics controller */
enum {
	GR_SET_RESET,
	GR_ENABLE_SR,
	GR_COLOR_COMPARE,
	GR_ROTATE,
	GR_READ_MAP,
	GR_MODE,
	GR_MISC,
	GR_DONT_CARE,
	GR_BIT_MASK
};
/* CRT controller */
enum {
	CR_HTOTAL = 0x00,
	CR_HDISP_END = 0x01,
	CR_VTOTAL = 0x06,
	CR_OVERFLOW = 0x07,
	CR_PRESET_ROW = 0x08,
	CR_MAX_SCAN = 0x09,
	CR_CURSOR_START = 0x0a,
	CR_CURSOR_END = 0x0b,
	CR_START_HI = 0x0c,
	CR_START_LO = 0x0d,
	CR_CURSOR_HI = 0x0e,
	CR_CURSOR_LO = 0x0f,
	CR_VSYNC_START = 0x10,
	CR_VSYNC_END = 0x11,
	CR_VDISP_END = 0x12,
	CR_OFFSET = 0x13,
	CR_UNDERLINE = 0x14,
	CR_MODE = 0x17,
	CR_LINE_COMPARE = 0x18,
	CR_COUNT = 0x19
};
/* Attribute controller */
enum { AR_MODE = 0x10, AR_OVERSCAN, AR_PLANE_ENABLE, AR_PIXEL_PAN, AR_COLOR_SELECT, AR_COUNT };

#define SR01_8DOT           0x01
#define SR01_HALF_CLOCK     0x08
#define SR01_SCREEN_OFF     0x20
#define SR04_NO_ODD_EVEN    0x04
#define SR04_CHAIN4         0x08
#define GR05_ODD_EVEN       0x10
#define GR05_SHIFT_CGA      0x20
#define GR05_SHIFT_256      0x40
#define GR06_GRAPHICS       0x01
#define GR06_CHAIN_ODD_EVEN 0x02
#define AR10_LINE_GRAPHICS  0x04
#define AR10_BLINK          0x08
#define AR10_PAN_COMPAT     0x20
#define AR10_P54_SELECT     0x80
#define AR_INDEX_PAS        0x20 /* palette address source: the screen is on */
#define MISC_COLOR_PORTS    0x01
#define MISC_RAM_ENABLE     0x02

/* Bochs DISPI (bochs.sourceforge.io, "VBE display extensions"; QEMU docs/specs/standard-vga) */
enum {
	VBE_ID,
	VBE_XRES,
	VBE_YRES,
	VBE_BPP,
	VBE_ENABLE,
	VBE_BANK,
	VBE_VIRT_WIDTH,
	VBE_VIRT_HEIGHT,
	VBE_X_OFFSET,
	VBE_Y_OFFSET,
	VBE_MEMORY_64K,
	VBE_STORED = VBE_MEMORY_64K /* registers with a value of their own */
};
#define VBE_ENABLED  0x01
#define VBE_GETCAPS  0x02
#define VBE_8BIT_DAC 0x20
#define VBE_NOCLEAR  0x80

struct vga_view;

struct vga {
	struct device dev;
	uint32_t vgamem_mb;
	char *romfile;

	struct ram_block *vram; /* display memory, then the text shadow */
	uint8_t *mem;
	uint32_t mem_size; /* without the shadow */
	struct console *console;
	struct vga_view *view; /* what was rendered last */

	uint8_t misc, feature;
	uint8_t sr_index, sr[8];
	uint8_t gr_index, gr[9];
	uint8_t cr_index, cr[CR_COUNT];
	uint8_t ar_index, ar[AR_COUNT];
	bool ar_data; /* flip-flop of port 3C0h: the next write is data */
	uint8_t dac_mask, dac_state, dac_read, dac_write, dac_part;
	uint8_t dac_latch[2];
	uint8_t palette[768];
	uint32_t latch;
	uint16_t vbe_index, vbe[VBE_STORED];
	bool shadow;

	uint32_t palette_version; /* changes with everything that changes a colour of the DAC */
};

static inline bool vga_vbe_on(const struct vga *v)
{
	return v->vbe[VBE_ENABLE] & VBE_ENABLED;
}
/* VBE modes but 4 bpp have linear memory, and the window at A0000h is a bank of it. */
static inline bool vga_linear(const struct vga *v)
{
	return vga_vbe_on(v) && v->vbe[VBE_BPP] != 4;
}
/* The four planes at plane address a (bounded by the caller). */
static inline uint32_t *vga_word(const struct vga *v, uint32_t a)
{
	return (uint32_t *)(v->mem + (size_t)a * 4);
}
static inline uint16_t *vga_shadow(const struct vga *v)
{
	return (uint16_t *)(v->mem + v->mem_size);
}

/* vga.c: registers changed that decide how the CPU's window is mapped. Cheap when nothing changed. */
void vga_update_windows(struct vga *v);

/* vga_mem.c; addr: offset from A0000h */
uint8_t vga_mem_read(struct vga *v, uint32_t addr);
void vga_mem_write(struct vga *v, uint32_t addr, uint8_t value);

/* vga_vbe.c */
void vga_vbe_reset(struct vga *v);
uint16_t vga_vbe_read(const struct vga *v, unsigned index);
void vga_vbe_write(struct vga *v, unsigned index, uint16_t value);
bool vga_vbe_valid(const struct vga *v);     /* loaded registers describe a picture inside VRAM */
uint32_t vga_vbe_pitch(const struct vga *v); /* bytes per line; 4 bpp: plane bytes */
uint64_t vga_vbe_start(const struct vga *v); /* first byte shown; 4 bpp: plane address */

/* The CRT controller's counters as the renderers need them. */
struct vga_raster {
	uint32_t chars, lines; /* displayed characters per line, scan lines */
	uint32_t start, pitch; /* memory address counter: first, per character row */
	uint32_t line_compare;
	uint32_t row_lines; /* scan lines per character row, before doubling */
	bool double_scan;
	uint8_t preset_row, byte_pan, pixel_pan;
};
void vga_raster(const struct vga *v, struct vga_raster *g);
/* Plane address of memory address counter ma in row scan rs. */
uint32_t vga_crtc_address(const struct vga *v, uint32_t ma, unsigned rs);
/* The four planes at plane address a (0..FFFFh), wherever the truth about them is. */
static inline uint32_t vga_fetch(const struct vga *v, uint32_t a)
{
	uint32_t w = *vga_word(v, a);

	if (v->shadow && a < VGA_SHADOW_SIZE && !(a & 1))
		w = (w & 0xffff0000u) | vga_shadow(v)[a >> 1];
	return w;
}

/* vga_render.c and vga_text.c: what the last picture was made of */
struct vga_view {
	uint8_t key[96]; /* registers that change the whole picture */
	uint32_t palette_version;
	bool valid;
	unsigned long *dirty; /* bitmap of VRAM pages for this refresh */
	uint32_t dac[256];    /* XRGB */
	uint32_t color[16];   /* attribute controller's output through the DAC */
	uint32_t *line;       /* one scan line being drawn, with room for panning */
	uint32_t *cells;      /* text: what each cell showed, rows x (cols + 1) */
	size_t cells_size;
};
extern const struct console_source vga_console_source;
void vga_view_free(struct vga_view *view);
bool vga_page_dirty(const struct vga_view *view, uint64_t first, uint64_t len);
void vga_text_refresh(struct vga *v, const struct vga_raster *g, bool full);
bool vga_text_screen(void *opaque, struct text_screen *t);

#endif
