/*
 * The monitor for people: -monitor DEV, -mon chardev=ID, and behind Ctrl-A c on a terminal shared with a serial port. A
 * line editor (Emacs keys, arrows, history, Tab) on any character device: it echoes, so it wants a terminal in raw
 * mode.
 *
 * The prompt is QEMU's, because scripts wait for it. Not there: searching the history, kill rings, lines longer than
 * LINE_MAX_LEN.
 */
#include "hmp.h"

#include <stdlib.h>
#include <string.h>
#include "vmm-config.h"
#include "vmm/block.h"
#include "vmm/chardev.h"
#include "vmm/loop.h"

#define PROMPT       "(qemu) "
#define LINE_MAX_LEN 1024
#define HISTORY_MAX  64
#define QUEUE_STOP   (256 * 1024)
#define MAX_PEOPLE   8

enum {
	CTRL_A = 1,
	CTRL_B,
	CTRL_C,
	CTRL_D,
	CTRL_E,
	CTRL_F,
	CTRL_H = 8,
	TAB,
	CTRL_K = 11,
	CTRL_L,
	CTRL_N = 14,
	CTRL_P = 16,
	CTRL_U = 21,
	CTRL_W = 23,
	ESC = 27,
	DELETE = 127
};

struct person {
	struct board *board;
	struct chardev *c;
	bool own_chardev, open, busy, closing;
	bool greeted; /* on a shared terminal: only once it is talked to */
	struct hmp h;
	char line[LINE_MAX_LEN + 1];
	size_t len, at;
	char *history[HISTORY_MAX];
	size_t n_history, history_at;
	char escape[8]; /* an escape sequence so far */
	size_t n_escape;
	bool after_cr;
	char *out;
	size_t out_len, out_cap;
	struct bh free_bh;
	struct person *next;
};

struct listener {
	struct board *board;
	struct chardev *c;
	struct listener *next;
};

static struct person *people;
static struct listener *listeners;

/* ---- output ---- */

static void flush(struct person *p)
{
	size_t done = 0, n;

	while (done < p->out_len && (n = chardev_write(p->c, p->out + done, p->out_len - done)))
		done += n;
	memmove(p->out, p->out + done, p->out_len - done);
	p->out_len -= done;
}

static void put_n(struct person *p, const char *text, size_t n)
{
	if (!p->open || !n)
		return;
	if (p->out_len + n > p->out_cap) {
		p->out_cap = ALIGN_UP(p->out_len + n, (size_t)4096);
		p->out = xrealloc(p->out, p->out_cap);
	}
	memcpy(p->out + p->out_len, text, n);
	p->out_len += n;
	flush(p);
}

static void put(struct person *p, const char *text)
{
	put_n(p, text, strlen(text));
}

static void prompt(struct person *p)
{
	p->len = p->at = 0;
	p->line[0] = 0;
	p->history_at = p->n_history;
	put(p, PROMPT);
}

static void greet(struct person *p)
{
	if (p->greeted)
		return;
	p->greeted = true;
	put(p, "vmm " VMM_VERSION " monitor - type 'help' for more information\r\n");
	prompt(p);
}

/* ---- editing ---- */

static void left(struct person *p, size_t n)
{
	while (n--)
		put(p, "\b");
}

/* Show the line from the cursor on; `gone` characters behind it have disappeared. */
static void show_tail(struct person *p, size_t gone)
{
	put_n(p, p->line + p->at, p->len - p->at);
	for (size_t i = 0; i < gone; i++)
		put(p, " ");
	left(p, p->len - p->at + gone);
}

static void insert(struct person *p, const char *text, size_t n)
{
	if (p->len + n > LINE_MAX_LEN)
		return;
	memmove(p->line + p->at + n, p->line + p->at, p->len - p->at + 1);
	memcpy(p->line + p->at, text, n);
	p->len += n;
	put_n(p, p->line + p->at, n);
	p->at += n;
	show_tail(p, 0);
}

/* Take out n characters in front of the cursor. */
static void rub_out(struct person *p, size_t n)
{
	left(p, n);
	memmove(p->line + p->at - n, p->line + p->at, p->len - p->at + 1);
	p->at -= n;
	p->len -= n;
	show_tail(p, n);
}

static void delete_here(struct person *p, size_t n)
{
	memmove(p->line + p->at, p->line + p->at + n, p->len - p->at - n + 1);
	p->len -= n;
	show_tail(p, n);
}

static void move_to(struct person *p, size_t at)
{
	if (at < p->at)
		left(p, p->at - at);
	else
		put_n(p, p->line + p->at, at - p->at);
	p->at = at;
}

static void replace_line(struct person *p, const char *text)
{
	move_to(p, 0);
	delete_here(p, p->len);
	insert(p, text, strlen(text));
}

static size_t word_before(const struct person *p)
{
	size_t at = p->at;

	while (at && p->line[at - 1] == ' ')
		at--;
	while (at && p->line[at - 1] != ' ')
		at--;
	return p->at - at;
}

static void recall(struct person *p, bool older)
{
	if (older ? !p->history_at : p->history_at >= p->n_history)
		return;
	p->history_at += older ? -1 : 1;
	replace_line(p, p->history_at < p->n_history ? p->history[p->history_at] : "");
}

static void remember(struct person *p)
{
	if (!p->len || (p->n_history && !strcmp(p->history[p->n_history - 1], p->line)))
		return;
	if (p->n_history == HISTORY_MAX) {
		free(p->history[0]);
		memmove(p->history, p->history + 1, sizeof(p->history) - sizeof(p->history[0]));
		p->n_history--;
	}
	p->history[p->n_history++] = xstrdup(p->line);
}

/* ---- completion ---- */

struct candidates {
	const char *word;
	size_t len, n;
	char common[128];
	char list[2048];
};

static void consider(struct candidates *c, const char *name)
{
	size_t used = strlen(c->list), same = 0;

	if (!name || !*name || strncmp(name, c->word, c->len))
		return;
	if (!c->n++)
		snprintf(c->common, sizeof(c->common), "%s", name);
	while (c->common[same] && c->common[same] == name[same])
		same++;
	c->common[same] = 0;
	snprintf(c->list + used, sizeof(c->list) - used, "%s\r\n", name);
}

static void consider_ids(struct candidates *c, struct board *board, enum hmp_ids ids)
{
	for (struct block *b = ids == HMP_DRIVES ? block_next(NULL) : NULL; b; b = block_next(b))
		consider(c, block_id(b));
	for (struct device *d = ids == HMP_DEVICES ? device_next(board, NULL) : NULL; d; d = device_next(board, d))
		if (d->user_id)
			consider(c, d->id);
	for (struct chardev *d = ids == HMP_CHARDEVS ? chardev_next(NULL) : NULL; d; d = chardev_next(d))
		consider(c, chardev_id(d));
}

static void complete(struct person *p)
{
	size_t start = p->at;
	struct candidates c = {.len = 0};
	char first[64];
	const char *name;

	while (start && p->line[start - 1] != ' ')
		start--;
	c.word = p->line + start;
	c.len = p->at - start;
	snprintf(first, sizeof(first), "%.*s", (int)strcspn(p->line, " "), p->line);
	if (!start || !strcmp(first, "help") || !strcmp(first, "?"))
		for (size_t i = 0; (name = hmp_command_at(i)); i++)
			consider(&c, name);
	else if (!strcmp(first, "info"))
		for (size_t i = 0; (name = hmp_info_at(i, NULL)); i++)
			consider(&c, name);
	else
		consider_ids(&c, p->board, hmp_completes(first));
	if (c.n && strlen(c.common) > c.len)
		insert(p, c.common + c.len, strlen(c.common) - c.len);
	else if (c.n > 1) {
		put(p, "\r\n");
		put(p, c.list);
		put(p, PROMPT);
		put_n(p, p->line, p->len);
		left(p, p->len - p->at);
	}
	if (c.n == 1)
		insert(p, " ", 1);
}

/* ---- running ---- */

static void answered(struct hmp *h, const char *text)
{
	struct person *p = container_of(h, struct person, h);

	p->busy = false;
	if (p->closing)
		bh_schedule(&p->free_bh);
	put(p, text);
	if (!p->closing && p->open)
		prompt(p);
	if (!p->closing)
		chardev_accept_input(p->c);
}

static void print_history(struct person *p)
{
	char text[LINE_MAX_LEN + 16];

	for (size_t i = 0; i < p->n_history; i++) {
		snprintf(text, sizeof(text), "%zu: '%s'\r\n", i, p->history[i]);
		put(p, text);
	}
	prompt(p);
}

static void enter(struct person *p)
{
	char line[LINE_MAX_LEN + 1];

	put(p, "\r\n");
	remember(p);
	memcpy(line, p->line, p->len + 1);
	if (!strncmp(line, "info history", 12) && strspn(line + 12, " ") == strlen(line + 12)) {
		print_history(p);
		return;
	}
	p->busy = true;
	hmp_run(&p->h, line);
}

/* ---- keys ---- */

/* CSI and SS3 sequences: arrows, Home, End, Delete. */
static void escape_key(struct person *p, char last)
{
	switch (last) {
	case 'A':
		recall(p, true);
		break;
	case 'B':
		recall(p, false);
		break;
	case 'C':
		move_to(p, MIN(p->at + 1, p->len));
		break;
	case 'D':
		move_to(p, p->at ? p->at - 1 : 0);
		break;
	case 'H':
		move_to(p, 0);
		break;
	case 'F':
		move_to(p, p->len);
		break;
	case '~':
		if (p->escape[2] == '1' || p->escape[2] == '7')
			move_to(p, 0);
		else if (p->escape[2] == '4' || p->escape[2] == '8')
			move_to(p, p->len);
		else if (p->escape[2] == '3' && p->at < p->len)
			delete_here(p, 1);
		break;
	default:
		break;
	}
}

static void in_escape(struct person *p, char ch)
{
	if (p->n_escape < sizeof(p->escape) - 1)
		p->escape[p->n_escape++] = ch;
	if (p->n_escape == 2 && (ch == '[' || ch == 'O'))
		return;
	if (p->n_escape > 2 && ((ch >= '0' && ch <= '9') || ch == ';'))
		return;
	if (p->n_escape > 2)
		escape_key(p, ch);
	memset(p->escape, 0, sizeof(p->escape));
	p->n_escape = 0;
}

static void control_key(struct person *p, char ch)
{
	switch (ch) {
	case CTRL_A:
		move_to(p, 0);
		break;
	case CTRL_B:
		move_to(p, p->at ? p->at - 1 : 0);
		break;
	case CTRL_C:
		put(p, "^C\r\n");
		prompt(p);
		break;
	case CTRL_D:
		if (p->at < p->len)
			delete_here(p, 1);
		break;
	case CTRL_E:
		move_to(p, p->len);
		break;
	case CTRL_F:
		move_to(p, MIN(p->at + 1, p->len));
		break;
	case CTRL_H:
	case DELETE:
		if (p->at)
			rub_out(p, 1);
		break;
	case TAB:
		complete(p);
		break;
	case CTRL_K:
		delete_here(p, p->len - p->at);
		break;
	case CTRL_L:
		put(p, "\033[H\033[2J" PROMPT);
		put_n(p, p->line, p->len);
		left(p, p->len - p->at);
		break;
	case CTRL_N:
		recall(p, false);
		break;
	case CTRL_P:
		recall(p, true);
		break;
	case CTRL_U:
		rub_out(p, p->at);
		break;
	case CTRL_W:
		rub_out(p, word_before(p));
		break;
	default:
		break;
	}
}

static void key(struct person *p, char ch)
{
	bool after_cr = p->after_cr;

	p->after_cr = ch == '\r';
	if (p->n_escape)
		in_escape(p, ch);
	else if (ch == ESC)
		p->escape[p->n_escape++] = ch;
	else if (ch == '\r' || (ch == '\n' && !after_cr))
		enter(p);
	else if ((unsigned char)ch < ' ' || ch == DELETE)
		control_key(p, ch);
	else
		insert(p, &ch, 1);
}

/* ---- the character device ---- */

/* One byte at a time while a command is running would be too many: none at all. */
static size_t can_receive(void *opaque)
{
	const struct person *p = opaque;

	return p->busy || p->out_len > QUEUE_STOP ? 0 : 1;
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct person *p = opaque;

	greet(p);
	for (size_t i = 0; i < len; i++)
		key(p, (char)buf[i]);
}

static void writable(void *opaque)
{
	struct person *p = opaque;

	flush(p);
	if (can_receive(p))
		chardev_accept_input(p->c);
}

static void person_free(struct person *p)
{
	for (struct person **at = &people; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	bh_cancel(&p->free_bh);
	if (p->own_chardev)
		chardev_close(p->c);
	else
		chardev_release(p->c);
	for (size_t i = 0; i < p->n_history; i++)
		free(p->history[i]);
	free(p->out);
	free(p);
}

/* After the peer has gone, unless a command is still running: then its answer comes first. */
static void free_later(void *opaque)
{
	struct person *p = opaque;

	if (!p->busy)
		person_free(p);
}

static void event(void *opaque, enum chardev_event ev)
{
	struct person *p = opaque;

	if (ev == CHARDEV_OPENED && !p->open) {
		p->open = true;
		if (!chardev_is_shared(p->c))
			greet(p);
	} else if (ev == CHARDEV_FOCUS) {
		if (p->greeted)
			put(p, PROMPT);
		else
			greet(p);
	} else if (ev == CHARDEV_CLOSED) {
		p->open = p->greeted = false;
		p->out_len = p->n_escape = 0;
		if (p->own_chardev && !p->closing) {
			p->closing = true;
			bh_schedule(&p->free_bh);
		}
	}
}

static const struct chardev_frontend frontend = {
	.can_receive = can_receive,
	.receive = receive,
	.event = event,
	.writable = writable,
	.lossless = true,
};

static void person_new(struct board *board, struct chardev *c, bool own_chardev)
{
	struct person *p = xzalloc(sizeof(*p));

	*p = (struct person){.board = board,
			     .c = c,
			     .own_chardev = own_chardev,
			     .h = {.board = board, .done = answered},
			     .next = people};
	people = p;
	bh_init(&p->free_bh, loop_main(), NULL, free_later, p);
	chardev_attach(c, &frontend, p, NULL);
}

static void on_peer(void *opaque, struct chardev *peer)
{
	person_new(((struct listener *)opaque)->board, peer, true);
}

int readline_monitor_add(struct board *board, struct chardev *c, struct err *e)
{
	struct listener *l = xzalloc(sizeof(*l));

	*l = (struct listener){.board = board, .c = c, .next = listeners};
	if (chardev_serve(c, MAX_PEOPLE, on_peer, l) == 0) {
		listeners = l;
		return 0;
	}
	free(l);
	person_new(board, c, false);
	return 0;
}

void readline_monitors_close(void)
{
	while (people) {
		flush(people);
		chardev_flush(people->c);
		person_free(people);
	}
	while (listeners) {
		struct listener *l = listeners;

		listeners = l->next;
		chardev_release(l->c);
		free(l);
	}
}
