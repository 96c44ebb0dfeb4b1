/*
 * VGA text modes: the character generator, and the text screen as text.
 *
 * A row of characters is drawn again when a cell, the cursor or a blink phase in it changed; `cells` of the view keeps
 * what each cell showed.
 *
 * Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem": Alphanumeric Modes, Character Map Select.
 */
#include "src/devices/display/vga.h"

#include <stdlib.h>

/* Frames per cursor and character blink phase, at the 70 Hz of text modes */
#define FRAME_NS      (NS_PER_SEC / 70)
#define CURSOR_FRAMES 16
#define BLINK_FRAMES  32

/* A cell in the cache: character, attribute << 8 and */
#define CELL_CURSOR 0x10000u
#define CELL_HIDDEN 0x20000u /* blinking, off phase */
#define CELL_NEVER  0xffffffffu

struct text {
	struct vga *v;
	const struct vga_raster *g;
	uint32_t font[2]; /* plane addresses; attribute bit 3 selects */
	unsigned dots, repeat;
	unsigned pan;    /* dots */
	uint32_t cursor; /* memory address counter of the cursor, or UINT32_MAX */
	uint8_t cursor_first, cursor_last;
	bool blink, blink_off;
};

/* Character Map Select: bit 2 of the map numbers is apart, and maps 4-7 lie between 0-3. */
static uint32_t font_address(unsigned map)
{
	return (map & 3) * 0x4000 + (map & 4 ? 0x2000 : 0);
}

static uint32_t cursor_address(const struct vga *v)
{
	return (uint32_t)v->cr[CR_CURSOR_HI] << 8 | v->cr[CR_CURSOR_LO];
}

/* Dots the picture is shifted left: 9-dot modes count 8, 0, 1 .. 7 as no shift, one dot .. eight. */
static unsigned pan_dots(const struct text *t, uint8_t pan)
{
	if (t->dots == 9)
		return (pan >= 8 ? 0 : pan + 1u) * t->repeat;
	return (pan & 7) * t->repeat;
}

static void text_init(struct text *t, struct vga *v, const struct vga_raster *g)
{
	uint8_t map = v->sr[SR_CHAR_MAP], start = v->cr[CR_CURSOR_START];
	uint64_t frame = clock_ns(VCLOCK_VIRTUAL) / FRAME_NS;

	*t = (struct text){
		.v = v,
		.g = g,
		.font = {font_address((map & 3) | (map >> 2 & 4)), font_address((map >> 2 & 3) | (map >> 3 & 4))},
		.dots = v->sr[SR_CLOCKING] & SR01_8DOT ? 8 : 9,
		.repeat = v->sr[SR_CLOCKING] & SR01_HALF_CLOCK ? 2 : 1,
		.cursor = cursor_address(v),
		.cursor_first = start & 0x1f,
		.cursor_last = v->cr[CR_CURSOR_END] & 0x1f,
		.blink = v->ar[AR_MODE] & AR10_BLINK,
		.blink_off = frame / BLINK_FRAMES % 2,
	};
	t->pan = pan_dots(t, g->pixel_pan);
	if (start & 0x20 || t->cursor_first > t->cursor_last || t->cursor_first >= g->row_lines ||
	    frame / CURSOR_FRAMES % 2)
		t->cursor = UINT32_MAX;
}

static uint16_t cell_at(const struct vga *v, uint32_t ma)
{
	return (uint16_t)vga_fetch(v, vga_crtc_address(v, ma & 0xffff, 0));
}

/* Compare a row with the cache and update it; false if it shows the same. [x0, x1]: the columns that differ. */
static bool row_changed(const struct text *t, uint32_t row_ma, uint32_t row, uint32_t *x0, uint32_t *x1)
{
	uint32_t *cached = t->v->view->cells + (size_t)row * (t->g->chars + 1);
	bool changed = false;

	/* Panning shows a part of one more character. */
	for (uint32_t x = 0; x < t->g->chars + (t->pan != 0); x++) {
		uint32_t ma = (row_ma + x) & 0xffff, cell = cell_at(t->v, ma);

		if (ma == t->cursor)
			cell |= CELL_CURSOR;
		if (t->blink && t->blink_off && (cell & 0x8000))
			cell |= CELL_HIDDEN;
		if (cached[x] == cell)
			continue;
		cached[x] = cell;
		if (!changed)
			*x0 = x;
		*x1 = x;
		changed = true;
	}
	return changed;
}

static void draw_cell_line(const struct text *t, uint32_t cell, unsigned scan, uint32_t *dst)
{
	const struct vga *v = t->v;
	unsigned ch = cell & 0xff, attr = cell >> 8 & 0xff;
	uint32_t font = t->font[attr & 8 ? 1 : 0] + ch * 32 + scan;
	unsigned enable = v->ar[AR_PLANE_ENABLE] & 0x0f;
	uint32_t fg = v->view->color[attr & 0x0f & enable];
	uint32_t bg = v->view->color[(t->blink ? attr >> 4 & 7 : attr >> 4) & enable];
	unsigned bits = (*vga_word(v, font) >> 16 & 0xff) << 1;

	/* The ninth dot repeats the eighth for the line graphics characters. */
	if ((v->ar[AR_MODE] & AR10_LINE_GRAPHICS) && (ch & 0xe0) == 0xc0)
		bits |= bits >> 1 & 1;
	if ((attr & 0x77) == 0x01 && scan == (v->cr[CR_UNDERLINE] & 0x1f))
		bits = 0x1ff;
	if (cell & CELL_HIDDEN)
		bits = 0;
	if ((cell & CELL_CURSOR) && scan >= t->cursor_first && scan <= t->cursor_last)
		bits = 0x1ff;
	for (unsigned i = 0; i < t->dots; i++)
		for (unsigned n = 0; n < t->repeat; n++)
			*dst++ = bits & 0x100u >> i ? fg : bg;
}

static void draw_text_line(const struct text *t, uint32_t row, unsigned scan, unsigned pan, uint32_t y)
{
	const uint32_t *cells = t->v->view->cells + (size_t)row * (t->g->chars + 1);
	struct surface *s = console_surface(t->v->console);
	unsigned width = t->dots * t->repeat;
	uint32_t *line = t->v->view->line;

	for (uint32_t x = 0; x <= t->g->chars; x++)
		draw_cell_line(t, cells[x], scan, line + x * width);
	memcpy(s->data + (size_t)y * s->stride, line + pan, (size_t)t->g->chars * width * sizeof(*line));
}

/* The character rows of a frame: counters as in the hardware, one call per scan line. */
struct row_state {
	uint32_t ma;  /* at the left end */
	uint32_t row; /* counts rows on the screen */
	unsigned scan, pan;
	bool fresh; /* first scan line of the row on the screen */
	bool draw;
	uint32_t first_y, x0, x1;
};

static void damage_row(const struct text *t, const struct row_state *r, uint32_t end_y)
{
	unsigned width = t->dots * t->repeat;

	/* Panning moves the edges of cells: one more to the left covers it. */
	if (r->draw && end_y > r->first_y)
		console_damage(t->v->console,
			       &(struct rect){((int32_t)r->x0 - 1) * (int32_t)width, (int32_t)r->first_y,
					      (int32_t)((r->x1 - r->x0 + 2) * width), (int32_t)(end_y - r->first_y)});
}

static void next_row(struct row_state *r, uint32_t ma, uint32_t y)
{
	r->ma = ma;
	r->row++;
	r->scan = 0;
	r->fresh = true;
	r->first_y = y;
}

void vga_text_refresh(struct vga *v, const struct vga_raster *g, bool full)
{
	size_t need = (size_t)(g->lines + 2) * (g->chars + 1);
	struct row_state r = {.ma = g->start + g->byte_pan, .scan = g->preset_row, .fresh = true};
	struct text t;

	text_init(&t, v, g);
	if (v->view->cells_size < need) {
		v->view->cells = xrealloc(v->view->cells, need * sizeof(uint32_t));
		v->view->cells_size = need;
		full = true;
	}
	/* Fonts share pages with the planes of text, which change through the shadow only: any change is a new font. */
	if (full || vga_page_dirty(v->view, 0, VGA_MEMORY))
		memset(v->view->cells, 0xff, need * sizeof(uint32_t));
	r.pan = t.pan;
	for (uint32_t y = 0; y < g->lines; y++) {
		if (r.fresh)
			r.draw = row_changed(&t, r.ma, r.row, &r.x0, &r.x1);
		r.fresh = false;
		if (r.draw)
			draw_text_line(&t, r.row, r.scan, r.pan, y);
		if (y == g->line_compare) { /* split screen: the part below starts at address 0 */
			damage_row(&t, &r, y + 1);
			next_row(&r, 0, y + 1);
			if (v->ar[AR_MODE] & AR10_PAN_COMPAT)
				r.pan = 0;
		} else if (!g->double_scan || y % 2) {
			if (r.scan++ == g->row_lines - 1) {
				damage_row(&t, &r, y + 1);
				next_row(&r, r.ma + g->pitch, y + 1);
			}
			r.scan &= 0x1f;
		}
	}
	damage_row(&t, &r, g->lines);
}

/* ---- the text screen as text ---- */

#define TEXT_COLS_MAX 256
#define TEXT_ROWS_MAX 256

static bool cursor_position(const struct vga *v, const struct vga_raster *g, struct text_screen *s)
{
	uint32_t at = (cursor_address(v) - g->start) & 0xffff;
	uint8_t start = v->cr[CR_CURSOR_START];

	if (start & 0x20 || (start & 0x1f) > (v->cr[CR_CURSOR_END] & 0x1f) || !g->pitch || at / g->pitch >= s->rows ||
	    at % g->pitch >= s->cols)
		return false;
	s->cursor_x = (int32_t)(at % g->pitch);
	s->cursor_y = (int32_t)(at / g->pitch);
	return true;
}

bool vga_text_screen(void *opaque, struct text_screen *s)
{
	static uint16_t cells[TEXT_COLS_MAX * TEXT_ROWS_MAX];
	struct vga *v = opaque;
	struct vga_raster g;
	uint32_t rows;

	vga_raster(v, &g);
	rows = g.lines / (g.row_lines << g.double_scan);
	if (vga_vbe_on(v) || (v->gr[GR_MISC] & GR06_GRAPHICS))
		return false;
	if (g.chars < 2 || !rows) {
		/* Power-on values: no mode was set yet, and the screen is empty. */
		memset(cells, 0, 80 * 25 * sizeof(cells[0]));
		*s = (struct text_screen){.cols = 80, .rows = 25, .cells = cells, .cursor_x = -1, .cursor_y = -1};
		return true;
	}
	*s = (struct text_screen){.cols = MIN(g.chars, (uint32_t)TEXT_COLS_MAX),
				  .rows = MIN(rows, (uint32_t)TEXT_ROWS_MAX),
				  .cells = cells,
				  .cursor_x = -1,
				  .cursor_y = -1};
	for (uint32_t y = 0; y < s->rows; y++)
		for (uint32_t x = 0; x < s->cols; x++)
			cells[y * s->cols + x] = cell_at(v, g.start + y * g.pitch + x);
	cursor_position(v, &g, s);
	return true;
}
