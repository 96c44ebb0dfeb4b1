/* Output: aligned tables, colour on a terminal, progress, quantities for people. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "ctl.h"

#define MAX_COLUMNS 16

static void cell_text(const json_t *v, const char *suffix, char *buf, size_t size)
{
	switch (v ? json_typeof(v) : JSON_NULL) {
	case JSON_STRING:
		snprintf(buf, size, "%s%s", json_string_value(v), suffix);
		break;
	case JSON_INTEGER:
		snprintf(buf, size, "%lld%s", (long long)json_integer_value(v), suffix);
		break;
	case JSON_REAL:
		snprintf(buf, size, "%.1f%s", json_real_value(v), suffix);
		break;
	case JSON_TRUE:
		snprintf(buf, size, "yes");
		break;
	case JSON_FALSE:
		snprintf(buf, size, "no");
		break;
	default:
		snprintf(buf, size, "-");
	}
	/* what a guest or a file can set does not reach the terminal's escape sequences */
	for (char *s = buf; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			*s = '?';
}

/* Columns, not bytes: sparklines are UTF-8. */
static size_t width_of(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

static const char *color_of(const char *text)
{
	static const char *const colors[][2] = {
		{"running", "32"}, {"paused", "33"}, {"shutdown", "33"}, {"crashed", "31"},
		{"dead", "31"},    {"?", "31"},      {"stale", "31"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(colors); i++)
		if (!strcmp(colors[i][0], text))
			return colors[i][1];
	return NULL;
}

static void print_cell(const struct ctl *c, const char *text, size_t width, bool right, bool last)
{
	const char *color = c->color ? color_of(text) : NULL;
	int fill = (int)(width - width_of(text));

	if (right)
		printf("%*s", fill, "");
	if (color)
		printf("\033[%sm%s\033[0m", color, text);
	else
		fputs(text, stdout);
	if (!last)
		printf("%*s", (right ? 0 : fill) + 2, "");
	else
		putchar('\n');
}

void table_print(const struct ctl *c, const struct column *columns, const json_t *rows)
{
	size_t width[MAX_COLUMNS], n = 0, i;
	char text[512];
	json_t *row;

	if (c->json)
		return;
	for (; n < MAX_COLUMNS && columns[n].title; n++)
		width[n] = width_of(columns[n].title);
	json_array_foreach((json_t *)rows, i, row)
	{
		for (size_t k = 0; k < n; k++) {
			cell_text(json_object_get(row, columns[k].key), columns[k].suffix ? columns[k].suffix : "",
				  text, sizeof(text));
			width[k] = MAX(width[k], width_of(text));
		}
	}
	if (c->color)
		fputs("\033[1m", stdout);
	for (size_t k = 0; k < n; k++)
		print_cell(c, columns[k].title, width[k], columns[k].right, k == n - 1);
	if (c->color)
		fputs("\033[0m", stdout);
	json_array_foreach((json_t *)rows, i, row)
	{
		for (size_t k = 0; k < n; k++) {
			cell_text(json_object_get(row, columns[k].key), columns[k].suffix ? columns[k].suffix : "",
				  text, sizeof(text));
			print_cell(c, text, width[k], columns[k].right, k == n - 1);
		}
	}
}

void table_print_object(const struct ctl *c, const json_t *object)
{
	size_t width = 0;
	const char *key;
	char text[1024];
	json_t *v;

	if (c->json)
		return;
	json_object_foreach((json_t *)object, key, v) width = MAX(width, strlen(key));
	json_object_foreach((json_t *)object, key, v)
	{
		cell_text(v, "", text, sizeof(text));
		printf("%-*s : %s\n", (int)width, key, text);
	}
}

const char *format_bytes(char *buf, size_t size, double bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	size_t u = 0;

	while (bytes >= 1024 && u < ARRAY_SIZE(units) - 1) {
		bytes /= 1024;
		u++;
	}
	snprintf(buf, size, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
	return buf;
}

const char *format_seconds(char *buf, size_t size, double seconds)
{
	unsigned long s = seconds > 0 ? (unsigned long)seconds : 0, days = s / 86400;
	char day[40] = "";

	if (days)
		snprintf(day, sizeof(day), "%lu day%s, ", days, days == 1 ? "" : "s");
	snprintf(buf, size, "%s%02lu:%02lu:%02lu", day, s / 3600 % 24, s / 60 % 60, s % 60);
	return buf;
}

/* ---- progress ---- */

#define DRAW_EVERY_MS 100
#define BAR_WIDTH     30

void progress_begin(struct progress *p, const struct ctl *c, const char *what)
{
	*p = (struct progress){.c = c, .what = what, .start_ms = now_ms()};
}

/* "migrating [#######-----]  58%  1.2 GiB of 2.0 GiB  310.4 MiB/s  3 s left" on stderr, where no pipe takes it for
 * output. */
void progress_draw(struct progress *p, uint64_t done, uint64_t total, double bytes_per_s)
{
	char bar[BAR_WIDTH + 1], a[32], b[32], rate[32], left[48] = "";
	int64_t now = now_ms();
	double part = total ? (double)MIN(done, total) / (double)total : 0;

	if (p->c->json || !isatty(STDERR_FILENO) || (p->drawn && now - p->drawn_ms < DRAW_EVERY_MS))
		return;
	for (int i = 0; i < BAR_WIDTH; i++)
		bar[i] = i < part * BAR_WIDTH ? '#' : '-';
	bar[BAR_WIDTH] = 0;
	if (bytes_per_s <= 0 && now > p->start_ms)
		bytes_per_s = (double)done * 1000 / (double)(now - p->start_ms);
	if (bytes_per_s > 0 && total > done)
		snprintf(left, sizeof(left), "  %.0f s left", (double)(total - done) / bytes_per_s + 0.5);
	fprintf(stderr, "\r%s [%s] %3.0f%%  %s of %s  %s/s%s\033[K", p->what, bar, part * 100,
		format_bytes(a, sizeof(a), (double)done), format_bytes(b, sizeof(b), (double)total),
		format_bytes(rate, sizeof(rate), bytes_per_s), left);
	p->drawn = true;
	p->drawn_ms = now;
}

void progress_end(struct progress *p)
{
	if (p->drawn)
		fputs("\r\033[K", stderr);
}
