/* Callers: see caller.h. */
#include "caller.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "meet.h"
#include "vmm/log.h"

#define FIRST_ROOM (64u << 10)
#define TURN       (1u << 20) /* bytes read before others have their turn */
#define LINGER_MS  500        /* how long a refused peer may take to read the reason */

void caller_begin(struct caller *c, struct channel *channel, uint64_t until)
{
	*c = (struct caller){.channel = channel, .until = until};
}

/* Into buf until it has `want` bytes: 1 then, 0: not yet. */
static int fill(struct caller *c, uint8_t *buf, size_t want, struct err *e)
{
	while (c->have < want) {
		ssize_t n = read(c->channel->fd, buf + c->have, want - c->have);

		if (n > 0)
			c->have += (size_t)n;
		else if (n == 0)
			return err_set(e, EPIPE, "%s: the other side closed the connection", c->channel->peer);
		else if (errno == EAGAIN)
			return 0;
		else if (errno != EINTR)
			return err_errno(e, errno, "%s", c->channel->peer);
	}
	c->have = 0;
	return 1;
}

static int greet(struct caller *c, struct err *e)
{
	struct channel *ch = c->channel;
	struct wire_preamble answer;
	int r = wire_get_preamble(c->head, &c->preamble, e);

	if (!r && c->preamble.kind != WIRE_MAIN)
		r = err_set(e, EBADMSG, "a stream of kind %u cannot be received here", c->preamble.kind);
	if (r)
		return r;
	ch->one_way = c->preamble.flags & WIRE_ONE_WAY;
	answer = c->preamble;
	answer.features = c->features =
		c->preamble.features & (ch->one_way ? (uint32_t)WIRE_F_ZSTD : destination_features(ch));
	ch->stall_ms = 1; /* a new connection has room for it */
	if (!ch->one_way)
		r = channel_send_preamble(ch, &answer, e);
	ch->stall_ms = 0;
	return r;
}

static int expect_description(struct caller *c, struct err *e)
{
	int r = wire_get_header(c->head, c->channel->seq_in++, &c->rec, e);

	if (r)
		return r;
	if (c->rec.type != WIRE_DESCRIPTION)
		return err_set(e, EBADMSG, "%s: the stream begins with '%s' instead of the machine's description",
			       c->channel->peer, wire_type_name(c->rec.type));
	return 0;
}

/* Memory is taken as it is filled: a length alone costs nothing. */
static int read_description(struct caller *c, struct err *e)
{
	for (size_t turn = 0; turn < TURN;) {
		size_t want = MIN((size_t)c->rec.length, c->room), had = c->have;
		int r = fill(c, c->description, want, e);

		if (r < 0 || (r == 0 && c->have == had))
			return r;
		turn += (r ? want : c->have) - had;
		if (r && want == c->rec.length)
			return wire_check(c->head, &c->rec, c->description, e) ? -e->code : 1;
		if (r) {
			c->have = want;
			c->room = MIN(c->room * 2, (size_t)c->rec.length);
			c->description = xrealloc(c->description, c->room + 1);
		}
	}
	return 0;
}

int caller_advance(struct caller *c, struct err *e)
{
	int r = 0;

	switch (c->stage) {
	case CALLER_PREAMBLE:
		r = fill(c, c->head, WIRE_PREAMBLE, e);
		if (r == 1)
			r = greet(c, e) ? -e->code : 1;
		if (r != 1)
			return r;
		c->stage = CALLER_HEADER;
		/* fallthrough */
	case CALLER_HEADER:
		r = fill(c, c->head, WIRE_HEADER, e);
		if (r == 1)
			r = expect_description(c, e) ? -e->code : 1;
		if (r != 1)
			return r;
		c->room = MIN((size_t)c->rec.length, (size_t)FIRST_ROOM);
		c->description = xzalloc(c->room + 1);
		c->stage = CALLER_DESCRIPTION;
		/* fallthrough */
	case CALLER_DESCRIPTION:
		return read_description(c, e);
	case CALLER_LEAVING:
		break;
	}
	return 0;
}

void caller_refuse(struct caller *c, const char *why)
{
	struct channel *ch = c->channel;
	struct err ignored = ERR_INIT;

	log_warn("migration", "%s: refused: %s", ch->peer, why);
	ch->stall_ms = 1;
	if (!ch->one_way)
		channel_put_text(ch, WIRE_REFUSE, why, &ignored);
	if (ch->socket)
		shutdown(ch->fd, SHUT_WR);
	free(c->description);
	c->description = NULL;
	c->room = 0;
	c->stage = CALLER_LEAVING;
	c->until = mono_ns() + LINGER_MS * 1000000ull;
}

bool caller_gone(struct caller *c)
{
	uint8_t waste[4096];
	ssize_t n = read(c->channel->fd, waste, sizeof(waste));

	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

void caller_linger(struct caller *c)
{
	struct err ignored = ERR_INIT;

	while (c->channel->socket && mono_ns() < c->until && channel_wait(c->channel, LINGER_MS, &ignored) > 0 &&
	       !caller_gone(c))
		continue;
}

void caller_end(struct caller *c)
{
	channel_free(c->channel);
	free(c->description);
	*c = (struct caller){0};
}
