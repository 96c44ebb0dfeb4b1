/*
 * The two cascaded 8237A DMA controllers of a PC with their page registers: channels 0 to 3 move bytes, 5 to 7 words.
 *
 * Sources: Intel 8237A data sheet (231466-005), called DS; Intel 82371SB (PIIX3) data sheet 2.5.1 and 2.5.2.
 *
 * The device moves the data (i8237.h); the controller decides where to, how much, and whether yet. Single, block and
 * demand mode differ only in who has the bus in between, which no guest can see. The page registers that belong to no
 * channel are plain latches, among them port 80h.
 *
 * Refused with a guest log: memory-to-memory transfers (command bit 0; the PC wires channel 0 to DRAM refresh and the
 * PIIX3 lacks it). Left out: software requests (they are kept and read back; no device answers them), rotating
 * priority, polarities and timing (no effect on contents). Channel 4 need not be set up as cascade: kernels started
 * without a BIOS do not do it. Addresses are 24 bits.
 */
#include "i8237.h"

#include <errno.h>
#include <pthread.h>

enum { CHANNELS = 8, CONTROLLERS = 2, CASCADE_CHANNEL = 4 };

/* Registers above the channels' addresses and counts, DS figure 6 */
enum {
	REG_COMMAND_STATUS = 0x8,
	REG_REQUEST,
	REG_MASK_BIT,
	REG_MODE,
	REG_CLEAR_FLIP_FLOP,
	REG_MASTER_CLEAR_TEMP,
	REG_CLEAR_MASK,
	REG_MASK_ALL
};
enum { COMMAND_MEM_TO_MEM = 0x01, COMMAND_DISABLE = 0x04 };
enum { MODE_TYPE = 0x0c, MODE_WRITE = 0x04, MODE_READ = 0x08, MODE_AUTOINIT = 0x10, MODE_DECREMENT = 0x20 };
enum { MODE_SELECT = 0xc0, MODE_CASCADE = 0xc0 };

struct dma_channel {
	uint16_t base_address, base_count, address, count; /* count: transfers less one */
	uint8_t mode;
};

struct dma_controller {
	uint8_t command, mask, requests, terminal, flip_flop;
};

struct i8237 {
	struct device dev;
	pthread_mutex_t leaf; /* guards everything below */
	struct dma_channel ch[CHANNELS];
	struct dma_controller ctl[CONTROLLERS];
	uint8_t page[16]; /* ports 80h..8fh */
	/* Wiring, not state: */
	uint8_t dreq; /* request lines of the devices */
	struct device *owner[CHANNELS];
	struct bh *ready[CHANNELS];
};

/* Port 80h + n holds channel c's page (PIIX3 2.5.2). */
static const uint8_t page_port[CHANNELS] = {0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa};

static bool can_transfer(const struct i8237 *d, unsigned c)
{
	const struct dma_controller *ctl = &d->ctl[c / 4];

	return !(ctl->mask & BIT(c % 4)) && !(ctl->command & COMMAND_DISABLE) &&
	       (d->ch[c].mode & MODE_SELECT) != MODE_CASCADE;
}

/* After a change that may let devices go on. */
static void notify(struct i8237 *d)
{
	for (unsigned c = 0; c < CHANNELS; c++)
		if (d->dreq & BIT(c) && d->ready[c] && can_transfer(d, c))
			bh_schedule(d->ready[c]);
}

/* ---- the devices' side ---- */

struct i8237 *i8237_find(struct board *board)
{
	struct device *dev = device_find_class(board, "i8237");

	return dev ? DEVICE(dev, struct i8237) : NULL;
}

int i8237_connect(struct i8237 *d, unsigned channel, struct device *dev, struct bh *ready, struct err *e)
{
	int ret = 0;

	if (channel >= CHANNELS || channel == CASCADE_CHANNEL)
		return err_set(e, EINVAL, "%s: there is no ISA DMA channel %u; use 0..3 or 5..7", dev->id, channel);
	pthread_mutex_lock(&d->leaf);
	if (d->owner[channel])
		ret = err_set(e, EBUSY, "%s: ISA DMA channel %u is used by %s", dev->id, channel,
			      d->owner[channel]->id);
	if (ret == 0) {
		d->owner[channel] = dev;
		d->ready[channel] = ready;
	}
	pthread_mutex_unlock(&d->leaf);
	return ret;
}

void i8237_disconnect(struct i8237 *d, unsigned channel)
{
	pthread_mutex_lock(&d->leaf);
	d->owner[channel] = NULL;
	d->ready[channel] = NULL;
	d->dreq &= (uint8_t)~BIT(channel);
	pthread_mutex_unlock(&d->leaf);
}

void i8237_set_request(struct i8237 *d, unsigned channel, bool on)
{
	pthread_mutex_lock(&d->leaf);
	d->dreq = (uint8_t)(on ? d->dreq | BIT(channel) : d->dreq & ~BIT(channel));
	pthread_mutex_unlock(&d->leaf);
}

static uint32_t bus_address(const struct i8237 *d, unsigned c)
{
	uint32_t page = d->page[page_port[c]], address = d->ch[c].address;

	return c < 4 ? page << 16 | address : (page & 0xfe) << 16 | address << 1;
}

static void copy(struct i8237 *d, unsigned c, uint8_t *buf, size_t len, bool to_memory)
{
	uint32_t address = bus_address(d, c);

	if (to_memory && (d->ch[c].mode & MODE_TYPE) == MODE_WRITE)
		dma_write(&d->dev, address, buf, len);
	else if (!to_memory && (d->ch[c].mode & MODE_TYPE) == MODE_READ)
		dma_read(&d->dev, address, buf, len);
	else if (!to_memory)
		memset(buf, 0xff, len);
}

/* Step over `n` transfers; true at terminal count. */
static bool advance(struct i8237 *d, unsigned c, uint32_t n)
{
	struct dma_channel *ch = &d->ch[c];
	struct dma_controller *ctl = &d->ctl[c / 4];
	bool terminal = n == (uint32_t)ch->count + 1;

	ch->address = (uint16_t)(ch->mode & MODE_DECREMENT ? ch->address - n : ch->address + n);
	ch->count = (uint16_t)(ch->count - n);
	if (!terminal)
		return false;
	ctl->terminal |= (uint8_t)BIT(c % 4);
	ctl->requests &= (uint8_t)~BIT(c % 4);
	if (ch->mode & MODE_AUTOINIT) {
		ch->address = ch->base_address;
		ch->count = ch->base_count;
	} else {
		ctl->mask |= (uint8_t)BIT(c % 4);
	}
	return true;
}

static size_t transfer(struct i8237 *d, unsigned c, uint8_t *buf, size_t len, bool to_memory, bool *tc)
{
	unsigned shift = c < 4 ? 0 : 1;
	struct dma_channel *ch = &d->ch[c];
	size_t done = 0;
	uint32_t n;

	*tc = false;
	pthread_mutex_lock(&d->leaf);
	while (done < len && !*tc && can_transfer(d, c)) {
		/* One run: to the end of the data, of the count, or to where the 16-bit address wraps. */
		n = (uint32_t)MIN((len - done) >> shift, (size_t)ch->count + 1);
		n = MIN(n, ch->mode & MODE_DECREMENT ? 1u : 0x10000u - ch->address);
		if (!n)
			break;
		copy(d, c, buf + done, (size_t)n << shift, to_memory);
		done += (size_t)n << shift;
		*tc = advance(d, c, n);
	}
	pthread_mutex_unlock(&d->leaf);
	return done;
}

size_t i8237_to_memory(struct i8237 *d, unsigned channel, const void *buf, size_t len, bool *tc)
{
	return transfer(d, channel, (uint8_t *)buf, len, true, tc);
}

size_t i8237_from_memory(struct i8237 *d, unsigned channel, void *buf, size_t len, bool *tc)
{
	return transfer(d, channel, buf, len, false, tc);
}

/* ---- the guest's side ---- */

static void master_clear(struct dma_controller *ctl)
{
	*ctl = (struct dma_controller){.mask = 0xf};
}

static void set_byte(uint16_t *v, bool high, uint8_t value)
{
	*v = high ? (uint16_t)((*v & 0x00ff) | value << 8) : (uint16_t)((*v & 0xff00) | value);
}

static void channel_write(struct i8237 *d, unsigned which, unsigned reg, uint8_t v)
{
	struct dma_controller *ctl = &d->ctl[which];
	struct dma_channel *ch = &d->ch[4 * which + reg / 2];

	if (reg & 1) {
		set_byte(&ch->base_count, ctl->flip_flop, v);
		ch->count = ch->base_count;
	} else {
		set_byte(&ch->base_address, ctl->flip_flop, v);
		ch->address = ch->base_address;
	}
	ctl->flip_flop ^= 1;
}

static uint8_t channel_read(struct i8237 *d, unsigned which, unsigned reg)
{
	struct dma_controller *ctl = &d->ctl[which];
	const struct dma_channel *ch = &d->ch[4 * which + reg / 2];
	uint16_t v = reg & 1 ? ch->count : ch->address;

	ctl->flip_flop ^= 1;
	return (uint8_t)(ctl->flip_flop ? v : v >> 8);
}

static void control_write(struct i8237 *d, unsigned which, unsigned reg, uint8_t v)
{
	struct dma_controller *ctl = &d->ctl[which];
	uint8_t bit = (uint8_t)BIT(v & 3);

	switch (reg) {
	case REG_COMMAND_STATUS:
		if (v & COMMAND_MEM_TO_MEM)
			log_guest(&d->dev.guest_log, "i8237", "memory-to-memory DMA is not available on this board");
		ctl->command = v & (uint8_t)~COMMAND_MEM_TO_MEM;
		break;
	case REG_REQUEST:
		ctl->requests = (uint8_t)(v & 4 ? ctl->requests | bit : ctl->requests & ~bit);
		break;
	case REG_MASK_BIT:
		ctl->mask = (uint8_t)(v & 4 ? ctl->mask | bit : ctl->mask & ~bit);
		break;
	case REG_MODE:
		d->ch[4 * which + (v & 3)].mode = v & 0xfc;
		break;
	case REG_CLEAR_FLIP_FLOP:
		ctl->flip_flop = 0;
		break;
	case REG_MASTER_CLEAR_TEMP:
		master_clear(ctl);
		break;
	case REG_CLEAR_MASK:
		ctl->mask = 0;
		break;
	case REG_MASK_ALL:
		ctl->mask = v & 0xf;
		break;
	}
}

static uint8_t control_read(struct i8237 *d, unsigned which, unsigned reg)
{
	struct dma_controller *ctl = &d->ctl[which];
	uint8_t v;

	switch (reg) {
	case REG_COMMAND_STATUS: /* requests, and terminal counts that reading clears */
		v = (uint8_t)((ctl->requests | (d->dreq >> (4 * which) & 0xf)) << 4 | ctl->terminal);
		ctl->terminal = 0;
		return v;
	case REG_MASTER_CLEAR_TEMP: /* the temporary register belongs to memory-to-memory transfers */
		return 0;
	case REG_MASK_ALL:
		return (uint8_t)(0xf0 | ctl->mask);
	}
	return 0xff;
}

/* The second controller's registers are two ports apart. */
static unsigned register_of(const struct device *dev, const struct region *r, uint64_t offset, unsigned *which)
{
	*which = (unsigned)(r - dev->regions);
	return (unsigned)(*which ? offset >> 1 : offset);
}

static void i8237_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8237 *d = DEVICE(dev, struct i8237);
	unsigned which, reg = register_of(dev, r, offset, &which);

	pthread_mutex_lock(&d->leaf);
	if (reg < REG_COMMAND_STATUS)
		channel_write(d, which, reg, (uint8_t)value);
	else
		control_write(d, which, reg, (uint8_t)value);
	notify(d);
	pthread_mutex_unlock(&d->leaf);
}

static uint64_t i8237_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct i8237 *d = DEVICE(dev, struct i8237);
	unsigned which, reg = register_of(dev, r, offset, &which);
	uint8_t v;

	pthread_mutex_lock(&d->leaf);
	v = reg < REG_COMMAND_STATUS ? channel_read(d, which, reg) : control_read(d, which, reg);
	pthread_mutex_unlock(&d->leaf);
	return v;
}

static void page_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8237 *d = DEVICE(dev, struct i8237);

	pthread_mutex_lock(&d->leaf);
	d->page[offset] = (uint8_t)value;
	pthread_mutex_unlock(&d->leaf);
}

static uint64_t page_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return DEVICE(dev, struct i8237)->page[offset];
}

static void i8237_reset(struct device *dev)
{
	struct i8237 *d = DEVICE(dev, struct i8237);

	pthread_mutex_lock(&d->leaf);
	memset(d->ch, 0, sizeof(d->ch));
	memset(d->page, 0, sizeof(d->page));
	for (unsigned i = 0; i < CONTROLLERS; i++)
		master_clear(&d->ctl[i]);
	pthread_mutex_unlock(&d->leaf);
}

static int i8237_create(struct device *dev, struct err *e)
{
	pthread_mutex_init(&DEVICE(dev, struct i8237)->leaf, NULL);
	return 0;
}

static void i8237_destroy(struct device *dev)
{
	pthread_mutex_destroy(&DEVICE(dev, struct i8237)->leaf);
}

static const struct state_field channel_fields[] = {
	STATE_U(struct dma_channel, base_address), STATE_U(struct dma_channel, base_count),
	STATE_U(struct dma_channel, address),      STATE_U(struct dma_channel, count),
	STATE_U(struct dma_channel, mode),         STATE_FIELDS_END,
};
static const struct state_table channel_table = {
	.name = "dma-channel", .version = 1, .oldest = 1, .fields = channel_fields};

static const struct state_field controller_fields[] = {
	STATE_U(struct dma_controller, command),           STATE_U_MAX(struct dma_controller, mask, 0xf),
	STATE_U_MAX(struct dma_controller, requests, 0xf), STATE_U_MAX(struct dma_controller, terminal, 0xf),
	STATE_U_MAX(struct dma_controller, flip_flop, 1),  STATE_FIELDS_END,
};
static const struct state_table controller_table = {
	.name = "dma-controller", .version = 1, .oldest = 1, .fields = controller_fields};

static const struct state_field i8237_fields[] = {
	STATE_SUBA(struct i8237, ch, &channel_table),
	STATE_SUBA(struct i8237, ctl, &controller_table),
	STATE_BUF(struct i8237, page),
	STATE_FIELDS_END,
};
static const struct state_table i8237_state = {.name = "i8237", .version = 1, .oldest = 1, .fields = i8237_fields};

static const struct region_ops i8237_ops = {.read = i8237_read, .write = i8237_write, .max_access = 1};
static const struct region_ops page_ops = {.read = page_read, .write = page_write, .max_access = 1};
static const struct region_desc i8237_regions[] = {
	{.name = "dma1", .base = 0x00, .size = 0x10, .bar = REGION_NOT_BAR, .ops = &i8237_ops},
	{.name = "dma2", .base = 0xc0, .size = 0x20, .bar = REGION_NOT_BAR, .ops = &i8237_ops},
	{.name = "dma-page", .base = 0x80, .size = 0x10, .bar = REGION_NOT_BAR, .ops = &page_ops},
};

DEVICE_CLASS(i8237) = {
	.name = "i8237",
	.alias = "i8257",
	.summary = "Pair of 8237A DMA controllers",
	.bus = BUS_SYSTEM,
	.category = "Misc",
	.size = sizeof(struct i8237),
	.regions = i8237_regions,
	.n_regions = ARRAY_SIZE(i8237_regions),
	.state = &i8237_state,
	.create = i8237_create,
	.destroy = i8237_destroy,
	.reset = i8237_reset,
};
