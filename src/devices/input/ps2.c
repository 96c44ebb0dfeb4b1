/* The device side of a PS/2 link: its queues. See ps2.h. */
#include "src/devices/input/ps2.h"

#include <errno.h>

static int queue_post_load(void *obj, uint16_t version, struct err *e)
{
	const struct ps2_device *p = obj;

	if (p->reply_len > PS2_REPLY_MAX || p->data_len > PS2_DATA_MAX)
		return err_set(e, EINVAL, "PS/2 queue longer than its buffer");
	return 0;
}

static const struct state_field queue_fields[] = {
	STATE_VBUF(struct ps2_device, reply, reply_len),
	STATE_VBUF(struct ps2_device, data, data_len),
	STATE_U(struct ps2_device, last),
	STATE_FIELDS_END,
};
const struct state_table ps2_queue_state = {
	.name = "ps2-queue", .version = 1, .oldest = 1, .fields = queue_fields, .post_load = queue_post_load};

bool ps2_pending(const struct ps2_device *p)
{
	return p->reply_len || p->data_len;
}

uint8_t ps2_take(struct ps2_device *p)
{
	uint8_t *buf = p->reply_len ? p->reply : p->data;
	uint32_t *len = p->reply_len ? &p->reply_len : &p->data_len;

	p->last = buf[0];
	memmove(buf, buf + 1, --*len);
	return p->last;
}

void ps2_clear_data(struct ps2_device *p)
{
	p->data_len = 0;
}

void ps2_clear_replies(struct ps2_device *p)
{
	p->reply_len = 0;
}

void ps2_clear(struct ps2_device *p)
{
	ps2_clear_replies(p);
	ps2_clear_data(p);
}

void ps2_reply(struct ps2_device *p, uint8_t byte)
{
	if (p->reply_len < PS2_REPLY_MAX)
		p->reply[p->reply_len++] = byte;
	if (p->ready)
		p->ready(p->controller);
}

bool ps2_send(struct ps2_device *p, const uint8_t *bytes, unsigned n, unsigned reserve)
{
	if (p->data_len + n + reserve > PS2_DATA_MAX)
		return false;
	memcpy(p->data + p->data_len, bytes, n);
	p->data_len += n;
	if (p->ready)
		p->ready(p->controller);
	return true;
}
