/*
 * Consoles: the surface a graphics adapter renders into and the sinks that show it.
 *
 * Main thread only. The source's lock is held around its callbacks; sinks are called from inside them (through
 * console_resize and console_damage), so a sink must not call back into the console from there.
 */
#include "vmm/display.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/util.h"

#define SURFACE_MAX_SIDE  16384u
#define SURFACE_MAX_BYTES (256 * MIB)

struct console {
	char *id;
	const struct console_source *src;
	void *opaque;
	pthread_mutex_t *lock;
	struct surface surface;
	size_t capacity; /* bytes allocated at surface.data */
	struct console_sink *sinks;
	struct console *next;
};

static struct console *consoles;

struct console *console_new(const char *id, const struct console_source *src, void *opaque, pthread_mutex_t *lock)
{
	struct console *c = xzalloc(sizeof(*c)), **p = &consoles;

	*c = (struct console){.id = xstrdup(id), .src = src, .opaque = opaque, .lock = lock};
	while (*p)
		p = &(*p)->next;
	*p = c;
	return c;
}

void console_free(struct console *c)
{
	if (!c)
		return;
	for (struct console **p = &consoles; *p; p = &(*p)->next)
		if (*p == c) {
			*p = c->next;
			break;
		}
	free(c->surface.data);
	free(c->id);
	free(c);
}

struct console *console_first(void)
{
	return consoles;
}

int console_resize(struct console *c, uint32_t width, uint32_t height)
{
	if (!width || !height || width > SURFACE_MAX_SIDE || height > SURFACE_MAX_SIDE)
		return -EINVAL;
	if (c->surface.width == width && c->surface.height == height && c->surface.data)
		return 0;

	size_t bytes = (size_t)width * height * 4;

	if (bytes > SURFACE_MAX_BYTES)
		return -EINVAL;
	if (bytes > c->capacity || bytes < c->capacity / 4) {
		void *data = realloc(c->surface.data, bytes);

		if (!data)
			return -ENOMEM;
		c->surface.data = data;
		c->capacity = bytes;
	}
	memset(c->surface.data, 0, bytes);
	c->surface.width = width;
	c->surface.height = height;
	c->surface.stride = width * 4;
	for (struct console_sink *s = c->sinks; s; s = s->next)
		if (s->resized)
			s->resized(s->opaque, &c->surface);
	return 0;
}

struct surface *console_surface(struct console *c)
{
	return &c->surface;
}

void console_damage(struct console *c, const struct rect *r)
{
	int32_t x0 = MAX(r->x, 0), y0 = MAX(r->y, 0);
	int32_t x1 = MIN(r->x + r->w, (int32_t)c->surface.width), y1 = MIN(r->y + r->h, (int32_t)c->surface.height);
	struct rect clipped = {x0, y0, x1 - x0, y1 - y0};

	if (clipped.w <= 0 || clipped.h <= 0)
		return;
	for (struct console_sink *s = c->sinks; s; s = s->next)
		if (s->damaged)
			s->damaged(s->opaque, &clipped);
}

void console_add_sink(struct console *c, struct console_sink *sink)
{
	sink->next = c->sinks;
	c->sinks = sink;
}

void console_del_sink(struct console *c, struct console_sink *sink)
{
	for (struct console_sink **p = &c->sinks; *p; p = &(*p)->next)
		if (*p == sink) {
			*p = sink->next;
			sink->next = NULL;
			return;
		}
}

void console_refresh(struct console *c, bool full)
{
	pthread_mutex_lock(c->lock);
	c->src->refresh(c->opaque, full);
	pthread_mutex_unlock(c->lock);
}

bool console_text(struct console *c, struct text_screen *t, uint16_t *buf, size_t cells)
{
	bool is_text;

	pthread_mutex_lock(c->lock);
	is_text = c->src->text && c->src->text(c->opaque, t);
	if (is_text) {
		/* More rows than the caller has room for: it gets the upper ones. */
		if ((size_t)t->cols > cells)
			is_text = false;
		else {
			t->rows = MIN((size_t)t->rows, t->cols ? cells / t->cols : 0);
			memcpy(buf, t->cells, (size_t)t->rows * t->cols * sizeof(*buf));
			t->cells = buf;
		}
	}
	pthread_mutex_unlock(c->lock);
	return is_text;
}

/* Code page 437 as a PC's character generator draws it (0x00..0x1f are glyphs, not controls); Unicode, CP437.TXT. */
const uint16_t cp437_to_unicode[256] = {
	0x0020, 0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022, 0x25d8, 0x25cb, 0x25d9, 0x2642, 0x2640, 0x266a,
	0x266b, 0x263c, 0x25ba, 0x25c4, 0x2195, 0x203c, 0x00b6, 0x00a7, 0x25ac, 0x21a8, 0x2191, 0x2193, 0x2192, 0x2190,
	0x221f, 0x2194, 0x25b2, 0x25bc, 0x0020, 0x0021, 0x0022, 0x0023, 0x0024, 0x0025, 0x0026, 0x0027, 0x0028, 0x0029,
	0x002a, 0x002b, 0x002c, 0x002d, 0x002e, 0x002f, 0x0030, 0x0031, 0x0032, 0x0033, 0x0034, 0x0035, 0x0036, 0x0037,
	0x0038, 0x0039, 0x003a, 0x003b, 0x003c, 0x003d, 0x003e, 0x003f, 0x0040, 0x0041, 0x0042, 0x0043, 0x0044, 0x0045,
	0x0046, 0x0047, 0x0048, 0x0049, 0x004a, 0x004b, 0x004c, 0x004d, 0x004e, 0x004f, 0x0050, 0x0051, 0x0052, 0x0053,
	0x0054, 0x0055, 0x0056, 0x0057, 0x0058, 0x0059, 0x005a, 0x005b, 0x005c, 0x005d, 0x005e, 0x005f, 0x0060, 0x0061,
	0x0062, 0x0063, 0x0064, 0x0065, 0x0066, 0x0067, 0x0068, 0x0069, 0x006a, 0x006b, 0x006c, 0x006d, 0x006e, 0x006f,
	0x0070, 0x0071, 0x0072, 0x0073, 0x0074, 0x0075, 0x0076, 0x0077, 0x0078, 0x0079, 0x007a, 0x007b, 0x007c, 0x007d,
	0x007e, 0x2302, 0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef,
	0x00ee, 0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9, 0x00ff, 0x00d6,
	0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa, 0x00f1, 0x00d1, 0x00aa, 0x00ba,
	0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb, 0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561,
	0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c,
	0x2500, 0x253c, 0x255e, 0x255f, 0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564,
	0x2565, 0x2559, 0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580,
	0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4, 0x221e, 0x03c6,
	0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7, 0x2248, 0x00b0, 0x2219, 0x00b7, 0x221a,
	0x207f, 0x00b2, 0x25a0, 0x00a0,
};

static char *put_utf8(char *p, uint16_t u)
{
	if (u < 0x80) {
		*p++ = (char)u;
	} else if (u < 0x800) {
		*p++ = (char)(0xc0 | u >> 6);
		*p++ = (char)(0x80 | (u & 0x3f));
	} else {
		*p++ = (char)(0xe0 | u >> 12);
		*p++ = (char)(0x80 | (u >> 6 & 0x3f));
		*p++ = (char)(0x80 | (u & 0x3f));
	}
	return p;
}

#define TEXT_CELLS_MAX (256u * 256)

char *console_text_utf8(struct console *c)
{
	struct text_screen t = {0};
	uint16_t *cells = xcalloc(TEXT_CELLS_MAX, sizeof(*cells));

	if (!console_text(c, &t, cells, TEXT_CELLS_MAX)) {
		free(cells);
		return NULL;
	}

	char *text = xzalloc((size_t)t.rows * (t.cols * 3 + 1) + 1), *p = text;

	for (uint32_t y = 0; y < t.rows; y++) {
		const uint16_t *row = cells + (size_t)y * t.cols;
		uint32_t n = t.cols;

		while (n && cp437_to_unicode[row[n - 1] & 0xff] == ' ')
			n--;
		for (uint32_t x = 0; x < n; x++)
			p = put_utf8(p, cp437_to_unicode[row[x] & 0xff]);
		*p++ = '\n';
	}
	*p = 0;
	free(cells);
	return text;
}
