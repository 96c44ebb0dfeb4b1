/*
 * VGA: display memory to pixels. The raster is drawn as a monitor shows it (mode 13h is 640 x 400), scan line by scan
 * line, and only where memory changed since the last time.
 *
 * Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem": CRT Controller, Attribute Controller.
 * Main thread, device lock held.
 */
#include "src/devices/display/vga.h"

#include <stdlib.h>

#define PAGE          4096u
#define BITS_PER_LONG (8 * sizeof(unsigned long))
/* 256 characters of 18 dots, and room to pan by one character and byte panning by three */
#define LINE_MAX_DOTS ((256 + 4) * 18)
#define OFF_WIDTH     640
#define OFF_HEIGHT    400

void vga_view_free(struct vga_view *view)
{
	if (!view)
		return;
	free(view->dirty);
	free(view->line);
	free(view->cells);
	free(view);
}

static struct vga_view *view_of(struct vga *v)
{
	if (!v->view) {
		uint64_t pages = (v->mem_size + VGA_SHADOW_SIZE) / PAGE;

		v->view = xzalloc(sizeof(*v->view));
		v->view->dirty = xcalloc((pages + BITS_PER_LONG - 1) / BITS_PER_LONG, sizeof(unsigned long));
		v->view->line = xcalloc(LINE_MAX_DOTS, sizeof(uint32_t));
		v->view->palette_version = v->palette_version - 1;
	}
	return v->view;
}

/* ---- CRT controller ---- */

void vga_raster(const struct vga *v, struct vga_raster *g)
{
	uint8_t o = v->cr[CR_OVERFLOW], scan = v->cr[CR_MAX_SCAN];

	*g = (struct vga_raster){
		.chars = v->cr[CR_HDISP_END] + 1u,
		.lines = (v->cr[CR_VDISP_END] | (o & 0x02) << 7 | (o & 0x40) << 3) + 1u,
		.start = (uint32_t)v->cr[CR_START_HI] << 8 | v->cr[CR_START_LO],
		.pitch = v->cr[CR_OFFSET] * 2u,
		.line_compare = v->cr[CR_LINE_COMPARE] | (o & 0x10u) << 4 | (scan & 0x40u) << 3,
		.row_lines = (scan & 0x1f) + 1u,
		.double_scan = scan & 0x80,
		.preset_row = v->cr[CR_PRESET_ROW] & 0x1f,
		.byte_pan = v->cr[CR_PRESET_ROW] >> 5 & 3,
		.pixel_pan = v->ar[AR_PIXEL_PAN] & 0x0f,
	};
}

uint32_t vga_crtc_address(const struct vga *v, uint32_t ma, unsigned rs)
{
	uint8_t mode = v->cr[CR_MODE];
	uint32_t a;

	if (v->cr[CR_UNDERLINE] & 0x40) /* doubleword; with chain-4 our memory is dense, see vga.h */
		a = v->sr[SR_MEMORY_MODE] & SR04_CHAIN4 ? ma : ma << 2 | (ma >> 12 & 3);
	else if (mode & 0x40)
		a = ma;
	else
		a = ma << 1 | (ma >> (mode & 0x20 ? 15 : 13) & 1);
	/* Bits 13 and 14 come from the row scan counter where CGA and Hercules interleave lines. */
	if (!(mode & 1))
		a = (a & ~0x2000u) | (rs & 1u) << 13;
	if (!(mode & 2))
		a = (a & ~0x4000u) | (rs >> 1 & 1u) << 14;
	return a & (VGA_PLANE_SIZE - 1);
}

/* ---- colours ---- */

static uint32_t dac_color(const struct vga *v, uint8_t index)
{
	const uint8_t *p = v->palette + 3 * (index & v->dac_mask);
	uint8_t rgb[3];

	for (int i = 0; i < 3; i++)
		rgb[i] = v->vbe[VBE_ENABLE] & VBE_8BIT_DAC ? p[i] : (uint8_t)((p[i] & 0x3f) << 2 | (p[i] & 0x3f) >> 4);
	return (uint32_t)rgb[0] << 16 | (uint32_t)rgb[1] << 8 | rgb[2];
}

static void update_colors(const struct vga *v, struct vga_view *view)
{
	uint8_t select = v->ar[AR_COLOR_SELECT];

	for (unsigned i = 0; i < 256; i++)
		view->dac[i] = dac_color(v, (uint8_t)i);
	for (unsigned i = 0; i < 16; i++) {
		uint8_t p = v->ar[i] & 0x3f;

		if (v->ar[AR_MODE] & AR10_P54_SELECT)
			p = (uint8_t)((p & 0x0f) | (select & 0x0f) << 4);
		else
			p = (uint8_t)(p | (select & 0x0c) << 4);
		view->color[i] = view->dac[p];
	}
}

/* ---- dirty pages ---- */

static void fetch_range(struct vga *v, uint64_t first, uint64_t len)
{
	uint64_t page = first / PAGE, end = (first + len + PAGE - 1) / PAGE;
	unsigned long bits[64];

	/* Fetched in pieces of whole longs so that pieces land in place in the view's bitmap. */
	page -= page % BITS_PER_LONG;
	for (; page < end; page += ARRAY_SIZE(bits) * BITS_PER_LONG) {
		uint64_t n = MIN(end - page, (uint64_t)ARRAY_SIZE(bits) * BITS_PER_LONG);
		size_t longs = (n + BITS_PER_LONG - 1) / BITS_PER_LONG;

		memset(bits, 0, sizeof(bits));
		ram_block_fetch_dirty(v->vram, page * PAGE, n * PAGE, bits);
		memcpy(v->view->dirty + page / BITS_PER_LONG, bits, longs * sizeof(*bits));
	}
}

bool vga_page_dirty(const struct vga_view *view, uint64_t first, uint64_t len)
{
	for (uint64_t page = first / PAGE; page <= (first + len - 1) / PAGE; page++)
		if (view->dirty[page / BITS_PER_LONG] & 1ul << page % BITS_PER_LONG)
			return true;
	return false;
}

/* ---- graphics modes ---- */

/* Collects lines drawn one after the other into one rectangle. */
struct damage {
	struct console *console;
	uint32_t width, first, count;
};

static void damage_flush(struct damage *d)
{
	if (d->count)
		console_damage(d->console, &(struct rect){0, (int32_t)d->first, (int32_t)d->width, (int32_t)d->count});
	d->count = 0;
}

static void damage_line(struct damage *d, uint32_t y)
{
	if (d->count && d->first + d->count != y)
		damage_flush(d);
	if (!d->count)
		d->first = y;
	d->count++;
}

static uint32_t *surface_line(struct console *c, uint32_t y)
{
	struct surface *s = console_surface(c);

	return (uint32_t *)(s->data + (size_t)y * s->stride);
}

/* One bit of each plane makes a pixel. */
static void draw_planar(const struct vga *v, uint32_t planes, unsigned repeat, uint32_t *dst)
{
	const uint32_t *color = v->view->color;
	unsigned enable = v->ar[AR_PLANE_ENABLE] & 0x0f;

	for (int bit = 7; bit >= 0; bit--) {
		uint32_t b = planes >> bit & 0x01010101u;
		unsigned index = (b | b >> 7 | b >> 14 | b >> 21) & enable;

		for (unsigned i = 0; i < repeat; i++)
			*dst++ = color[index];
	}
}

/* Shift register interleave: two bits of planes 0 and 2, then of 1 and 3; 8 pixels. */
static void draw_cga(const struct vga *v, uint32_t planes, unsigned repeat, uint32_t *dst)
{
	const uint32_t *color = v->view->color;
	unsigned enable = v->ar[AR_PLANE_ENABLE] & 0x0f;

	for (int half = 0; half < 2; half++)
		for (int shift = 6; shift >= 0; shift -= 2) {
			uint32_t w = planes >> (8 * half + shift);
			unsigned index = ((w & 3) | (w >> 16 & 3) << 2) & enable;

			for (unsigned i = 0; i < repeat; i++)
				*dst++ = color[index];
		}
}

/* A byte of each plane in turn, two dots wide. */
static void draw_256(const struct vga *v, uint32_t planes, unsigned repeat, uint32_t *dst)
{
	for (int plane = 0; plane < 4; plane++) {
		uint32_t c = v->view->dac[planes >> 8 * plane & 0xff];

		for (unsigned i = 0; i < 2 * repeat; i++)
			*dst++ = c;
	}
}

/* Plane addresses per character: how far apart the bytes of neighbouring characters lie. */
static unsigned address_step(const struct vga *v)
{
	if (v->cr[CR_UNDERLINE] & 0x40)
		return v->sr[SR_MEMORY_MODE] & SR04_CHAIN4 ? 1 : 4;
	return v->cr[CR_MODE] & 0x40 ? 1 : 2;
}

static bool raster_line_dirty(const struct vga *v, uint32_t first, uint32_t n)
{
	if (first + n > VGA_PLANE_SIZE && vga_page_dirty(v->view, 0, 4 * (first + n - VGA_PLANE_SIZE)))
		return true;
	n = MIN(n, VGA_PLANE_SIZE - first);
	if (vga_page_dirty(v->view, 4 * (uint64_t)first, 4 * n))
		return true;
	return v->shadow && first < VGA_SHADOW_SIZE &&
	       vga_page_dirty(v->view, v->mem_size + first, MIN(n, VGA_SHADOW_SIZE - first));
}

/* Where a graphics scan line gets its memory from. */
struct scan {
	uint32_t ma, rs; /* memory address counter at its left end, row scan */
	unsigned pan;    /* dots */
};

static void draw_raster_line(const struct vga *v, const struct vga_raster *g, const struct scan *s, uint32_t *out)
{
	unsigned repeat = v->sr[SR_CLOCKING] & SR01_HALF_CLOCK ? 2 : 1, dots = 8 * repeat;
	uint32_t *line = v->view->line;

	for (uint32_t c = 0; c <= g->chars; c++) {
		uint32_t planes = vga_fetch(v, vga_crtc_address(v, (s->ma + c) & 0xffff, s->rs));

		if (v->gr[GR_MODE] & GR05_SHIFT_256)
			draw_256(v, planes, repeat, line + c * dots);
		else if (v->gr[GR_MODE] & GR05_SHIFT_CGA)
			draw_cga(v, planes, repeat, line + c * dots);
		else
			draw_planar(v, planes, repeat, line + c * dots);
	}
	memcpy(out, line + s->pan * repeat, g->chars * dots * sizeof(*out));
}

static void graphics_refresh(struct vga *v, const struct vga_raster *g, bool full)
{
	unsigned dots = v->sr[SR_CLOCKING] & SR01_HALF_CLOCK ? 16 : 8, step = address_step(v);
	struct damage d = {.console = v->console, .width = g->chars * dots};
	uint32_t row = g->start + g->byte_pan, rs = g->preset_row;
	unsigned pan = g->pixel_pan & 7;

	for (uint32_t y = 0; y < g->lines; y++) {
		struct scan s = {row, rs, pan};

		if (full || raster_line_dirty(v, vga_crtc_address(v, row & 0xffff, rs), (g->chars + 1) * step)) {
			draw_raster_line(v, g, &s, surface_line(v->console, y));
			damage_line(&d, y);
		}
		if (y == g->line_compare) { /* split screen: the part below starts at address 0 */
			row = 0;
			rs = 0;
			if (v->ar[AR_MODE] & AR10_PAN_COMPAT)
				pan = 0;
		} else if (!g->double_scan || y % 2) {
			if (rs++ == g->row_lines - 1) {
				rs = 0;
				row += g->pitch;
			}
			rs &= 0x1f;
		}
	}
	damage_flush(&d);
}

/* ---- VBE modes ---- */

static uint32_t rgb565(uint32_t p)
{
	uint32_t r = p >> 11 & 0x1f, g = p >> 5 & 0x3f, b = p & 0x1f;

	return (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | (b << 3 | b >> 2);
}

static uint32_t rgb555(uint32_t p)
{
	uint32_t r = p >> 10 & 0x1f, g = p >> 5 & 0x1f, b = p & 0x1f;

	return (r << 3 | r >> 2) << 16 | (g << 3 | g >> 2) << 8 | (b << 3 | b >> 2);
}

static void draw_linear_line(const struct vga *v, const uint8_t *src, uint32_t *out)
{
	uint32_t w = v->vbe[VBE_XRES];

	switch (v->vbe[VBE_BPP]) {
	case 8:
		for (uint32_t x = 0; x < w; x++)
			out[x] = v->view->dac[src[x]];
		break;
	case 15:
		for (uint32_t x = 0; x < w; x++)
			out[x] = rgb555(get_le16(src + 2 * x));
		break;
	case 16:
		for (uint32_t x = 0; x < w; x++)
			out[x] = rgb565(get_le16(src + 2 * x));
		break;
	case 24:
		for (uint32_t x = 0; x < w; x++)
			out[x] = src[3 * x] | src[3 * x + 1] << 8 | src[3 * x + 2] << 16;
		break;
	case 32:
		for (uint32_t x = 0; x < w; x++)
			out[x] = get_le32(src + 4 * x) & 0xffffff;
		break;
	}
}

static void vbe_refresh(struct vga *v, bool full)
{
	uint32_t pitch = vga_vbe_pitch(v), w = v->vbe[VBE_XRES];
	bool planar = v->vbe[VBE_BPP] == 4;
	uint64_t start = vga_vbe_start(v);
	uint32_t shown = planar ? w / 8 : (w * (v->vbe[VBE_BPP] == 15 ? 16 : v->vbe[VBE_BPP]) + 7) / 8;
	unsigned unit = planar ? 4 : 1;
	struct damage d = {.console = v->console, .width = w};

	for (uint32_t y = 0; y < v->vbe[VBE_YRES]; y++) {
		uint64_t first = start + (uint64_t)y * pitch;
		uint32_t *out = surface_line(v->console, y);

		if (!full && !vga_page_dirty(v->view, first * unit, (uint64_t)shown * unit))
			continue;
		if (planar)
			for (uint32_t c = 0; c < shown; c++)
				draw_planar(v, *vga_word(v, (uint32_t)first + c), 1, out + 8 * c);
		else
			draw_linear_line(v, v->mem + first, out);
		damage_line(&d, y);
	}
	damage_flush(&d);
}

/* ---- refresh ---- */

static bool screen_on(const struct vga *v)
{
	return (v->ar_index & AR_INDEX_PAS) && (vga_vbe_on(v) || !(v->sr[SR_CLOCKING] & SR01_SCREEN_OFF));
}

static uint8_t *put(uint8_t *p, const void *data, size_t len)
{
	memcpy(p, data, len);
	return p + len;
}

/* Everything but memory and DAC colours that decides about every pixel. True if it changed. */
static bool view_changed(struct vga *v, struct vga_view *view)
{
	uint8_t key[sizeof(view->key)] = {0}, *p = key;
	bool text = !vga_vbe_on(v) && !(v->gr[GR_MISC] & GR06_GRAPHICS), changed;
	uint16_t vbe[VBE_STORED];
	uint8_t cr[CR_COUNT];

	memcpy(vbe, v->vbe, sizeof(vbe));
	vbe[VBE_ID] = vbe[VBE_BANK] = 0;
	*p++ = screen_on(v);
	*p++ = text;
	p = put(p, vbe, sizeof(vbe));
	memcpy(cr, v->cr, sizeof(cr));
	cr[CR_CURSOR_START] = cr[CR_CURSOR_END] = cr[CR_CURSOR_HI] = cr[CR_CURSOR_LO] = 0;
	if (text) /* scrolling by start address: the text renderer compares cells */
		cr[CR_START_HI] = cr[CR_START_LO] = 0;
	p = put(p, cr, sizeof(cr));
	p = put(p, v->ar, sizeof(v->ar));
	*p++ = v->sr[SR_CLOCKING];
	*p++ = v->sr[SR_CHAR_MAP];
	*p++ = v->sr[SR_MEMORY_MODE] & SR04_CHAIN4;
	*p++ = v->gr[GR_MODE] & (GR05_SHIFT_CGA | GR05_SHIFT_256);
	changed = !view->valid || memcmp(key, view->key, sizeof(key));
	memcpy(view->key, key, sizeof(key));
	view->valid = true;
	return changed;
}

static void blank(struct vga *v, bool changed)
{
	struct surface *s = console_surface(v->console);

	if (!s->data && console_resize(v->console, OFF_WIDTH, OFF_HEIGHT))
		return;
	if (!changed)
		return;
	memset(s->data, 0, (size_t)s->stride * s->height);
	console_damage(v->console, &(struct rect){0, 0, (int32_t)s->width, (int32_t)s->height});
}

static int resize(struct vga *v, uint32_t w, uint32_t h, bool *full)
{
	struct surface *s = console_surface(v->console);

	if (!s->data || s->width != w || s->height != h)
		*full = true;
	return console_resize(v->console, w, h);
}

static void refresh_vga(struct vga *v, bool full)
{
	struct vga_raster g;
	bool text = !(v->gr[GR_MISC] & GR06_GRAPHICS);
	unsigned dots = text && !(v->sr[SR_CLOCKING] & SR01_8DOT) ? 9 : 8;

	if (v->sr[SR_CLOCKING] & SR01_HALF_CLOCK)
		dots *= 2;
	vga_raster(v, &g);
	fetch_range(v, 0, VGA_MEMORY);
	fetch_range(v, v->mem_size, VGA_SHADOW_SIZE);
	if (resize(v, g.chars * dots, g.lines, &full)) {
		v->view->valid = false;
		return;
	}
	if (text)
		vga_text_refresh(v, &g, full);
	else
		graphics_refresh(v, &g, full);
}

static void refresh_vbe(struct vga *v, bool full)
{
	unsigned unit = v->vbe[VBE_BPP] == 4 ? 4 : 1;

	uint64_t start = vga_vbe_start(v) * unit, len = (uint64_t)vga_vbe_pitch(v) * v->vbe[VBE_YRES] * unit;

	fetch_range(v, start, MIN(len, v->mem_size - start));
	if (resize(v, v->vbe[VBE_XRES], v->vbe[VBE_YRES], &full)) {
		v->view->valid = false;
		return;
	}
	vbe_refresh(v, full);
}

static void vga_refresh(void *opaque, bool full)
{
	struct vga *v = opaque;
	struct vga_view *view = view_of(v);
	bool changed = view_changed(v, view);

	region_hurry_writes(&v->dev); /* for the next picture: what is drawn below may miss the guest's last strokes */
	if (!screen_on(v)) {
		blank(v, changed || full);
		return;
	}
	full |= changed;
	if (view->palette_version != v->palette_version || changed) {
		update_colors(v, view);
		view->palette_version = v->palette_version;
		full = true;
	}
	if (vga_vbe_on(v))
		refresh_vbe(v, full);
	else
		refresh_vga(v, full);
}

const struct console_source vga_console_source = {.refresh = vga_refresh, .text = vga_text_screen};
