/*
 * The module vmm-curses.so: -display curses. Shows the text screen in the terminal vmm was started on and types into
 * the guest; for a graphics mode it says so. Main thread.
 *
 * A terminal sends characters, not keys: Shift, Ctrl and Alt are pressed around a key as its character needs them, and
 * nothing can be held down. Ctrl-A is the escape key, as with -nographic: Ctrl-A x ends vmm, Ctrl-A Ctrl-A sends
 * Ctrl-A, Ctrl-A d sends Ctrl-Alt-Delete, Ctrl-A h shows help.
 */
#define _XOPEN_SOURCE_EXTENDED 1
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <ncurses.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "src/display/modules.h"
#include "vmm/clock.h"
#include "vmm/input.h"
#include "vmm/loop.h"

#define CELLS_MAX      (256 * 256)
#define REFRESH_MIN_MS 30
#define REFRESH_MAX_MS 240
/* While the guest is in a graphics mode its size is asked for so often, which means drawing the picture. */
#define GRAPHICS_MS 1000

#define ESCAPE_KEY 0x01 /* Ctrl-A */
#define HELP       "Ctrl-A x: end vmm   Ctrl-A d: Ctrl-Alt-Delete   Ctrl-A Ctrl-A: Ctrl-A   (any key goes on)"

static struct {
	bool on;
	struct console *console;
	SCREEN *terminal;
	struct watch *watch;
	struct timer timer;
	bool utf8, sixteen_colors;
	unsigned interval_ms;

	uint16_t cells[CELLS_MAX], shown[CELLS_MAX];
	struct text_screen last; /* as drawn; cols 0: nothing or graphics */
	bool escape, help;       /* Ctrl-A was typed; the help line is shown */
	bool alt;                /* ESC was read and may be the prefix of Alt and a key */
} tui;

/* ---- output ---- */

/* VGA's colours have red and blue the other way round. */
static short color_of(unsigned vga)
{
	static const short order[8] = {COLOR_BLACK, COLOR_BLUE,    COLOR_GREEN,  COLOR_CYAN,
				       COLOR_RED,   COLOR_MAGENTA, COLOR_YELLOW, COLOR_WHITE};

	return (short)(order[vga & 7] + (tui.sixteen_colors && (vga & 8) ? 8 : 0));
}

static void make_pairs(void)
{
	unsigned fgs = tui.sixteen_colors ? 16 : 8;

	for (unsigned bg = 0; bg < 8; bg++)
		for (unsigned fg = 0; fg < fgs; fg++)
			init_pair((short)(1 + bg * fgs + fg), color_of(fg), color_of(bg));
}

static short pair_of(unsigned attr)
{
	unsigned fgs = tui.sixteen_colors ? 16 : 8;

	return has_colors() ? (short)(1 + (attr >> 4 & 7) * fgs + (attr & (fgs - 1))) : 0;
}

/* Terminals without UTF-8 get what ASCII can do for lines and blocks. */
static wchar_t ascii_for(wchar_t c)
{
	if (c < 0x7f)
		return c;
	if (c == 0x2500 || c == 0x2550)
		return L'-';
	if (c == 0x2502 || c == 0x2551)
		return L'|';
	if (c > 0x2500 && c < 0x2580)
		return L'+';
	if (c >= 0x2580 && c < 0x25a0)
		return L'#';
	return c == 0xa0 ? L' ' : L'?';
}

static void put_cell(int y, int x, uint16_t cell)
{
	unsigned attr = cell >> 8;
	wchar_t text[2] = {cp437_to_unicode[cell & 0xff], 0};
	attr_t style = (attr & 0x80 ? A_BLINK : 0) | (!tui.sixteen_colors && (attr & 8) ? A_BOLD : 0);
	cchar_t c;

	if (!tui.utf8)
		text[0] = ascii_for(text[0]);
	if (!has_colors() && (attr & 0x77) == 0x70)
		style |= A_REVERSE;
	setcchar(&c, text, style, pair_of(attr), NULL);
	mvadd_wch(y, x, &c);
}

/* The first line and column of the guest's screen that fit the terminal: the part with the cursor. */
static void viewport(const struct text_screen *t, int *top, int *left)
{
	*top = *left = 0;
	if ((int)t->rows > LINES && t->cursor_y >= LINES)
		*top = t->cursor_y - LINES + 1;
	if ((int)t->cols > COLS && t->cursor_x >= COLS)
		*left = t->cursor_x - COLS + 1;
}

static void draw_text(const struct text_screen *t)
{
	int top, left, rows, cols;

	viewport(t, &top, &left);
	rows = MIN((int)t->rows - top, LINES);
	cols = MIN((int)t->cols - left, COLS);
	/* A screen of another size may leave parts of the old one. */
	if (t->rows != tui.last.rows || t->cols != tui.last.cols)
		erase();
	for (int y = 0; y < rows; y++)
		for (int x = 0; x < cols; x++)
			put_cell(y, x, t->cells[(size_t)(y + top) * t->cols + (size_t)(x + left)]);
	if (tui.help)
		mvprintw(LINES - 1, 0, "%.*s", COLS - 1, HELP);
	if (t->cursor_x >= 0 && t->cursor_y - top < LINES && t->cursor_x - left < COLS) {
		curs_set(1);
		move(t->cursor_y - top, t->cursor_x - left);
	} else {
		curs_set(0);
	}
	refresh();
}

static void draw_graphics_note(void)
{
	const struct surface *s;
	char note[80];

	console_refresh(tui.console, false);
	s = console_surface(tui.console);
	snprintf(note, sizeof(note), "%u x %u graphics mode (use -vnc to see it)", s->width, s->height);
	erase();
	curs_set(0);
	mvprintw(LINES / 2, MAX((COLS - (int)strlen(note)) / 2, 0), "%.*s", COLS - 1, note);
	if (tui.help)
		mvprintw(LINES - 1, 0, "%.*s", COLS - 1, HELP);
	refresh();
	tui.last.cols = 0;
}

/* Bring the terminal up to date; true if something had changed. */
static bool update(bool force)
{
	struct text_screen t;
	size_t bytes;

	if (!console_text(tui.console, &t, tui.cells, CELLS_MAX)) {
		draw_graphics_note();
		return false;
	}
	bytes = (size_t)t.rows * t.cols * sizeof(tui.cells[0]);
	if (!force && t.rows == tui.last.rows && t.cols == tui.last.cols && t.cursor_x == tui.last.cursor_x &&
	    t.cursor_y == tui.last.cursor_y && !memcmp(tui.cells, tui.shown, bytes))
		return false;
	draw_text(&t);
	memcpy(tui.shown, tui.cells, bytes);
	tui.last = t;
	return true;
}

/* ---- input ---- */

static void stroke(keycode_t key, bool shift, bool ctrl, bool alt)
{
	keycode_t mods[3] = {shift ? keycode_from_name("shift") : 0, ctrl ? keycode_from_name("ctrl") : 0,
			     alt ? keycode_from_name("alt") : 0};

	if (!key)
		return;
	for (int i = 0; i < 3; i++)
		input_key(mods[i], true);
	input_key(key, true);
	input_key(key, false);
	for (int i = 2; i >= 0; i--)
		input_key(mods[i], false);
}

static const struct {
	int code;
	const char *name;
	bool shift;
} keys[] = {
	{KEY_UP, "up", false},          {KEY_DOWN, "down", false},  {KEY_LEFT, "left", false},
	{KEY_RIGHT, "right", false},    {KEY_HOME, "home", false},  {KEY_END, "end", false},
	{KEY_LL, "end", false},         {KEY_PPAGE, "pgup", false}, {KEY_NPAGE, "pgdn", false},
	{KEY_IC, "insert", false},      {KEY_DC, "delete", false},  {KEY_BACKSPACE, "backspace", false},
	{KEY_ENTER, "kp_enter", false}, {KEY_BTAB, "tab", true},    {KEY_SR, "up", true},
	{KEY_SF, "down", true},         {KEY_SLEFT, "left", true},  {KEY_SRIGHT, "right", true},
	{KEY_SHOME, "home", true},      {KEY_SEND, "end", true},    {KEY_SDC, "delete", true},
	{KEY_SIC, "insert", true},      {KEY_A1, "kp_7", false},    {KEY_A3, "kp_9", false},
	{KEY_B2, "kp_5", false},        {KEY_C1, "kp_1", false},    {KEY_C3, "kp_3", false},
	{KEY_PRINT, "print", false},
};

static void function_key(int code, bool alt)
{
	char name[8];

	/* terminfo: F1-F12, then with Shift, Ctrl, Ctrl and Shift, Alt */
	if (code >= KEY_F(1) && code <= KEY_F(60)) {
		int n = code - KEY_F(1), set = n / 12;

		snprintf(name, sizeof(name), "f%d", n % 12 + 1);
		stroke(keycode_from_name(name), set == 1 || set == 3, set == 2 || set == 3, alt || set == 4);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].code == code) {
			stroke(keycode_from_name(keys[i].name), keys[i].shift, false, alt);
			return;
		}
}

static void character(wint_t c, bool alt)
{
	bool shift, ctrl;
	keycode_t key = c < 0x80 ? keycode_from_ascii((unsigned char)c, &shift, &ctrl) : 0;

	/* Terminals send DEL for Backspace and ^H for Ctrl-Backspace or Backspace: both are Backspace here. */
	if (key)
		stroke(key, shift, ctrl, alt);
}

/* What follows Ctrl-A. */
static void escape_command(wint_t c)
{
	switch (c) {
	case 'x':
	case 'X':
		raise(SIGTERM); /* as a user's kill: main ends the machine in order */
		break;
	case 'd':
		stroke(keycode_from_name("delete"), false, true, true);
		break;
	case 'h':
	case '?':
		tui.help = true;
		break;
	case ESCAPE_KEY:
	case 'a':
		character(ESCAPE_KEY, false);
		break;
	}
}

static void typed(int kind, wint_t c)
{
	bool alt = tui.alt;

	tui.alt = false;
	if (kind == KEY_CODE_YES && c == KEY_RESIZE) {
		update(true);
		return;
	}
	tui.help = false;
	if (tui.escape) {
		tui.escape = false;
		if (kind == OK)
			escape_command(c);
		update(true);
	} else if (kind == KEY_CODE_YES) {
		function_key((int)c, alt);
	} else if (c == ESCAPE_KEY) {
		tui.escape = true;
	} else if (c == 0x1b && !alt) {
		tui.alt = true;
	} else {
		character(c, alt);
	}
}

/* True if anything was typed. */
static bool read_keys(void)
{
	bool any = false;
	wint_t c;
	int kind;

	while ((kind = get_wch(&c)) != ERR) {
		typed(kind, c);
		any = true;
	}
	/* Nothing came right behind the ESC: it was the Esc key. */
	if (tui.alt) {
		tui.alt = false;
		stroke(keycode_from_name("esc"), false, false, false);
	}
	return any;
}

/* ---- loop ---- */

static void rearm(unsigned ms)
{
	tui.interval_ms = ms;
	timer_arm(&tui.timer, clock_ns(VCLOCK_REAL) + ms * NS_PER_MS);
}

static void on_timer(void *opaque)
{
	/* A change of the terminal's size reaches us as a key, without anything to read. */
	bool typed = read_keys(), changed = update(false), busy = typed || changed;

	if (!tui.last.cols)
		rearm(GRAPHICS_MS);
	else
		rearm(busy ? REFRESH_MIN_MS : MIN(tui.interval_ms + REFRESH_MIN_MS, (unsigned)REFRESH_MAX_MS));
}

static void on_readable(void *opaque, int fd, unsigned events)
{
	if (read_keys()) {
		rearm(REFRESH_MIN_MS);
	} else if (events & LOOP_WRITE) { /* hang-up: the terminal is gone */
		loop_watch_set(tui.watch, 0);
		raise(SIGTERM);
	}
}

static void stop(void)
{
	if (!tui.on)
		return;
	tui.on = false;
	timer_cancel(&tui.timer);
	loop_unwatch(tui.watch);
	curs_set(1);
	endwin();
}

/* exit() from elsewhere: at least the terminal is as before. */
static void at_exit(void)
{
	if (tui.on)
		endwin();
}

static int start(struct console *c, struct err *e)
{
	if (!c)
		return err_set(e, ENODEV, "-display curses: this machine has no graphics adapter; use -vga std");
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return err_set(e, ENOTTY, "-display curses: standard input and output must be a terminal");
	setlocale(LC_CTYPE, "");
	tui.utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
	tui.terminal = newterm(NULL, stdout, stdin);
	if (!tui.terminal)
		return err_set(e, ENOTSUP, "-display curses: the terminal type '%s' is not known; set TERM",
			       getenv("TERM") ? getenv("TERM") : "");
	tui.on = true;
	tui.console = c;
	atexit(at_exit);
	raw();
	noecho();
	nonl();
	nodelay(stdscr, TRUE);
	keypad(stdscr, TRUE);
	set_escdelay(25);
	if (has_colors()) {
		start_color();
		tui.sixteen_colors = COLORS >= 16 && COLOR_PAIRS > 128;
		make_pairs();
	}
	timer_init(&tui.timer, loop_main(), VCLOCK_REAL, NULL, on_timer, NULL);
	tui.watch = loop_watch(loop_main(), STDIN_FILENO, LOOP_READ, NULL, on_readable, NULL, e);
	if (!tui.watch) {
		stop();
		return -e->code;
	}
	rearm(REFRESH_MIN_MS);
	return 0;
}

const struct curses_module vmm_module_curses = {.start = start, .stop = stop};
