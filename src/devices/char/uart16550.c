/*
 * 16550A UART. National Semiconductor PC16550D data sheet, June 1995; section numbers below are its.
 *
 * The transmitter is as fast as its backend: a character the backend takes leaves THR and shift register empty at once.
 * When the backend is busy, characters wait in the 16-byte FIFO and the guest sees THRE clear, as behind a slow line.
 * Input arrives as the guest makes room, so overruns happen only in loopback. Character time matters for one thing, the
 * receiver time-out interrupt.
 *
 * As in QEMU the interrupt is not gated by OUT2, and CTS, DSR and DCD are always on outside loopback.
 * Left out: DMA signalling (no board ever wired TXRDY/RXRDY to the 8237), parity and framing errors on the way in (the
 * backends have none), 5-bit masking of characters.
 */
#include "uart16550.h"

#include <errno.h>

enum { RBR_THR_DLL, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

enum { IER_RDA = 0x01, IER_THRE = 0x02, IER_RLS = 0x04, IER_MSI = 0x08 };
enum {
	IIR_MSI = 0x00,
	IIR_NONE = 0x01,
	IIR_THRE = 0x02,
	IIR_RDA = 0x04,
	IIR_RLS = 0x06,
	IIR_TIMEOUT = 0x0c,
	IIR_FIFOS = 0xc0
};
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_CLEAR_TX = 0x04, FCR_DMA = 0x08, FCR_TRIGGER = 0xc0 };
enum { LCR_STOP = 0x04, LCR_PARITY = 0x08, LCR_EVEN = 0x10, LCR_BREAK = 0x40, LCR_DLAB = 0x80 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10 };
enum {
	LSR_DR = 0x01,
	LSR_OE = 0x02,
	LSR_PE = 0x04,
	LSR_FE = 0x08,
	LSR_BI = 0x10,
	LSR_THRE = 0x20,
	LSR_TEMT = 0x40,
	LSR_FIFO_ERROR = 0x80,
	LSR_ERRORS = LSR_OE | LSR_PE | LSR_FE | LSR_BI
};
enum {
	MSR_DCTS = 0x01,
	MSR_DDSR = 0x02,
	MSR_TERI = 0x04,
	MSR_DDCD = 0x08,
	MSR_CTS = 0x10,
	MSR_DSR = 0x20,
	MSR_RI = 0x40,
	MSR_DCD = 0x80,
	MSR_DELTAS = 0x0f
};

/* ---- interrupts (8.6) ---- */

static bool fifo_on(const struct uart16550 *u)
{
	return u->fcr & FCR_ENABLE;
}

static unsigned rx_depth(const struct uart16550 *u)
{
	return fifo_on(u) ? UART_FIFO_SIZE : 1;
}

static unsigned trigger_level(const struct uart16550 *u)
{
	static const uint8_t levels[] = {1, 4, 8, 14};

	return fifo_on(u) ? levels[u->fcr >> 6] : 1;
}

/* The pending interrupt of highest priority. */
static uint8_t interrupt_id(const struct uart16550 *u)
{
	if ((u->ier & IER_RLS) && (u->lsr & LSR_ERRORS))
		return IIR_RLS;
	if ((u->ier & IER_RDA) && u->timeout_pending)
		return IIR_TIMEOUT;
	if ((u->ier & IER_RDA) && u->rx_count >= trigger_level(u))
		return IIR_RDA;
	if ((u->ier & IER_THRE) && u->thre_pending)
		return IIR_THRE;
	if ((u->ier & IER_MSI) && (u->msr & MSR_DELTAS))
		return IIR_MSI;
	return IIR_NONE;
}

static void update_irq(struct uart16550 *u)
{
	irq_set(u->irq, interrupt_id(u) != IIR_NONE);
}

/* ---- the line ---- */

static uint32_t baud_rate(const struct uart16550 *u)
{
	return u->divisor ? UART_CLOCK_BAUD / u->divisor : UART_CLOCK_BAUD;
}

static uint64_t character_ns(const struct uart16550 *u)
{
	unsigned bits = 1 + 5 + (u->lcr & 3) + (u->lcr & LCR_PARITY ? 1 : 0) + (u->lcr & LCR_STOP ? 2 : 1);

	return bits * NS_PER_SEC / MAX(baud_rate(u), 1u);
}

static void tell_line(struct uart16550 *u)
{
	struct chardev_line line = {
		.baud = baud_rate(u),
		.data_bits = 5 + (u->lcr & 3),
		.stop_bits = u->lcr & LCR_STOP ? 2 : 1,
		.parity = !(u->lcr & LCR_PARITY) ? 'N'
			  : u->lcr & LCR_EVEN    ? 'E'
						 : 'O',
	};

	if (u->chardev)
		chardev_set_line(u->chardev, &line);
}

/* ---- receiver ---- */

/* Errors belong to a character and show when it reaches the top of the FIFO (8.5, LSR bits 2 to 4). */
static void reveal_top(struct uart16550 *u)
{
	if (u->rx_count)
		u->lsr |= LSR_DR | (u->rx_error[u->rx_head] & LSR_ERRORS);
	else
		u->lsr &= (uint8_t)~LSR_DR;
}

static void restart_timeout(struct uart16550 *u)
{
	if (fifo_on(u) && u->rx_count)
		timer_arm(&u->timeout, clock_ns(VCLOCK_VIRTUAL) + 4 * character_ns(u));
	else
		timer_cancel(&u->timeout);
}

static void timeout_fired(void *opaque)
{
	struct uart16550 *u = opaque;

	if (!u->rx_count)
		return;
	u->timeout_pending = true;
	update_irq(u);
}

static void rx_put(struct uart16550 *u, uint8_t ch, uint8_t errors)
{
	unsigned tail;

	if (u->rx_count == rx_depth(u)) {
		u->lsr |= LSR_OE;
		if (!fifo_on(u))
			u->rx[u->rx_head] = ch; /* the FIFO keeps the old ones, the register is overwritten */
		return;
	}
	tail = (u->rx_head + u->rx_count) % UART_FIFO_SIZE;
	u->rx[tail] = ch;
	u->rx_error[tail] = errors;
	if (++u->rx_count == 1)
		reveal_top(u);
}

static uint8_t rx_get(struct uart16550 *u)
{
	if (u->rx_count) {
		u->rbr = u->rx[u->rx_head];
		u->rx_error[u->rx_head] = 0;
		u->rx_head = (u->rx_head + 1) % UART_FIFO_SIZE;
		u->rx_count--;
		reveal_top(u);
		u->timeout_pending = false;
		restart_timeout(u);
		update_irq(u);
		if (u->chardev)
			chardev_accept_input(u->chardev);
	}
	return u->rbr;
}

static void rx_clear(struct uart16550 *u)
{
	u->rx_head = u->rx_count = 0;
	memset(u->rx_error, 0, sizeof(u->rx_error));
	u->lsr &= (uint8_t) ~(LSR_DR | LSR_BI | LSR_FE | LSR_PE);
	u->timeout_pending = false;
	timer_cancel(&u->timeout);
}

static uint8_t lsr_read(struct uart16550 *u)
{
	uint8_t value = u->lsr, waiting = 0;

	for (unsigned i = 0; i < u->rx_count; i++)
		waiting |= u->rx_error[(u->rx_head + i) % UART_FIFO_SIZE];
	if (fifo_on(u) && waiting)
		value |= LSR_FIFO_ERROR;
	if (u->lsr & LSR_ERRORS) {
		u->lsr &= (uint8_t)~LSR_ERRORS;
		if (u->rx_count)
			u->rx_error[u->rx_head] = 0;
		update_irq(u);
	}
	return value;
}

/* ---- transmitter ---- */

static void tx_empty(struct uart16550 *u)
{
	u->lsr |= LSR_THRE | LSR_TEMT;
	u->thre_pending = true;
	update_irq(u);
}

static void tx_flush(struct uart16550 *u)
{
	while (u->tx_count) {
		unsigned n = MIN((unsigned)u->tx_count, (unsigned)(UART_FIFO_SIZE - u->tx_head));
		size_t done = u->chardev ? chardev_write(u->chardev, u->tx + u->tx_head, n) : n;

		if (!done)
			return;
		u->tx_head = (u->tx_head + done) % UART_FIFO_SIZE;
		u->tx_count -= done;
	}
	tx_empty(u);
}

static void tx_put(struct uart16550 *u, uint8_t ch)
{
	unsigned depth = fifo_on(u) ? UART_FIFO_SIZE : 1;

	/* Writing THR takes the interrupt back, also for the instant until the character is gone: edge-triggered
	   controllers need to see the line fall. */
	u->thre_pending = false;
	u->lsr &= (uint8_t) ~(LSR_THRE | LSR_TEMT);
	update_irq(u);
	if (u->mcr & MCR_LOOP) {
		rx_put(u, ch, 0);
		restart_timeout(u);
		tx_empty(u);
		return;
	}
	if (u->tx_count == depth) /* written without looking at THRE: the last character is overwritten */
		u->tx_count--;
	u->tx[(u->tx_head + u->tx_count) % UART_FIFO_SIZE] = ch;
	u->tx_count++;
	if (u->tx_count == 1)
		tx_flush(u);
}

uint32_t uart16550_write_string(struct uart16550 *u, const uint8_t *buf, uint32_t count)
{
	size_t done;

	if ((u->lcr & LCR_DLAB) || (u->mcr & MCR_LOOP) || u->tx_count)
		return 0;
	done = u->chardev ? chardev_write(u->chardev, buf, count) : count;
	if (!done)
		return 0;
	u->thre_pending = false;
	update_irq(u);
	tx_empty(u);
	return (uint32_t)done;
}

static void tx_clear(struct uart16550 *u)
{
	bool had = u->tx_count;

	u->tx_head = u->tx_count = 0;
	if (had)
		tx_empty(u);
}

/* ---- registers ---- */

static void fcr_write(struct uart16550 *u, uint8_t value)
{
	/* Switching the FIFOs on or off empties them; bits other than 0 count only while bit 0 is 1 (8.4). */
	if ((value ^ u->fcr) & FCR_ENABLE)
		value |= FCR_CLEAR_RX | FCR_CLEAR_TX;
	u->fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER) : 0;
	if (value & FCR_CLEAR_RX)
		rx_clear(u);
	if (value & FCR_CLEAR_TX)
		tx_clear(u);
	update_irq(u);
	if (u->chardev)
		chardev_accept_input(u->chardev);
}

static void ier_write(struct uart16550 *u, uint8_t value)
{
	uint8_t raised;

	value &= IER_RDA | IER_THRE | IER_RLS | IER_MSI;
	raised = value & (uint8_t)~u->ier;
	u->ier = value;
	if (raised & IER_THRE) /* enabling it with an empty THR interrupts at once; drivers start output so */
		u->thre_pending = u->lsr & LSR_THRE;
	update_irq(u);
}

/* Modem inputs: in loopback the outputs (8.7 bit 4), else a peer that is always ready. */
static void update_modem_inputs(struct uart16550 *u)
{
	uint8_t in = MSR_CTS | MSR_DSR | MSR_DCD, changed;

	if (u->mcr & MCR_LOOP)
		in = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
		     (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
	changed = in ^ (u->msr & 0xf0);
	u->msr = in | (u->msr & MSR_DELTAS);
	u->msr |= (changed & (MSR_CTS | MSR_DSR | MSR_DCD)) >> 4;
	if ((changed & MSR_RI) && !(in & MSR_RI))
		u->msr |= MSR_TERI;
}

static void mcr_write(struct uart16550 *u, uint8_t value)
{
	u->mcr = value & (MCR_DTR | MCR_RTS | MCR_OUT1 | MCR_OUT2 | MCR_LOOP);
	update_modem_inputs(u);
	update_irq(u);
	if (u->chardev && !(u->mcr & MCR_LOOP))
		chardev_accept_input(u->chardev);
}

static void lcr_write(struct uart16550 *u, uint8_t value)
{
	uint8_t changed = value ^ u->lcr;

	u->lcr = value;
	if (changed & (uint8_t) ~(LCR_BREAK | LCR_DLAB))
		tell_line(u);
	if ((changed & value & LCR_BREAK) && u->chardev)
		chardev_send_break(u->chardev);
	if ((changed & value & LCR_BREAK) && (u->mcr & MCR_LOOP)) {
		rx_put(u, 0, LSR_BI | LSR_FE);
		update_irq(u);
	}
}

static uint8_t iir_read(struct uart16550 *u)
{
	uint8_t id = interrupt_id(u);

	if (id == IIR_THRE) {
		u->thre_pending = false;
		update_irq(u);
	}
	return id | (fifo_on(u) ? IIR_FIFOS : 0);
}

static uint8_t msr_read(struct uart16550 *u)
{
	uint8_t value = u->msr;

	u->msr &= (uint8_t)~MSR_DELTAS;
	if (value & MSR_DELTAS)
		update_irq(u);
	return value;
}

uint8_t uart16550_read(struct uart16550 *u, unsigned reg)
{
	switch (reg) {
	case RBR_THR_DLL:
		return u->lcr & LCR_DLAB ? u->divisor & 0xff : rx_get(u);
	case IER_DLM:
		return u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
	case IIR_FCR:
		return iir_read(u);
	case LCR:
		return u->lcr;
	case MCR:
		return u->mcr;
	case LSR:
		return lsr_read(u);
	case MSR:
		return msr_read(u);
	default:
		return u->scr;
	}
}

static void divisor_write(struct uart16550 *u, uint16_t divisor)
{
	u->divisor = divisor;
	tell_line(u);
}

void uart16550_write(struct uart16550 *u, unsigned reg, uint8_t value)
{
	switch (reg) {
	case RBR_THR_DLL:
		if (u->lcr & LCR_DLAB)
			divisor_write(u, (u->divisor & 0xff00) | value);
		else
			tx_put(u, value);
		break;
	case IER_DLM:
		if (u->lcr & LCR_DLAB)
			divisor_write(u, (uint16_t)(u->divisor & 0xff) | (uint16_t)(value << 8));
		else
			ier_write(u, value);
		break;
	case IIR_FCR:
		fcr_write(u, value);
		break;
	case LCR:
		lcr_write(u, value);
		break;
	case MCR:
		mcr_write(u, value);
		break;
	case SCR:
		u->scr = value;
		break;
	default: /* LSR and MSR: writing them is for factory tests (8.5, 8.8) */
		break;
	}
}

/* ---- character device ---- */

static size_t uart_can_receive(void *opaque)
{
	struct uart16550 *u = opaque;

	return u->mcr & MCR_LOOP ? 0 : rx_depth(u) - u->rx_count;
}

static void uart_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct uart16550 *u = opaque;

	for (size_t i = 0; i < len; i++)
		rx_put(u, buf[i], 0);
	restart_timeout(u);
	update_irq(u);
}

static void uart_event(void *opaque, enum chardev_event ev)
{
	struct uart16550 *u = opaque;

	if (ev != CHARDEV_BREAK || (u->mcr & MCR_LOOP))
		return;
	rx_put(u, 0, LSR_BI | LSR_FE);
	restart_timeout(u);
	update_irq(u);
}

static void uart_writable(void *opaque)
{
	struct uart16550 *u = opaque;

	if (u->tx_count)
		tx_flush(u);
}

static void uart_replaced(void *opaque, struct chardev *by)
{
	struct uart16550 *u = opaque;

	device_replace_chardev(u->dev, u->chardev, by);
	u->chardev = by;
	tell_line(u);
	if (u->lcr & LCR_BREAK)
		chardev_send_break(by);
}

static const struct chardev_frontend uart_frontend = {
	.can_receive = uart_can_receive,
	.receive = uart_receive,
	.event = uart_event,
	.writable = uart_writable,
	.replaced = uart_replaced,
};

/* ---- life cycle ---- */

void uart16550_init(struct uart16550 *u, struct device *dev, struct irq_line *irq, struct chardev *chardev)
{
	u->dev = dev;
	u->irq = irq;
	u->chardev = chardev;
	timer_init(&u->timeout, loop_main(), VCLOCK_VIRTUAL, dev->lock, timeout_fired, u);
	if (chardev)
		chardev_attach(chardev, &uart_frontend, u, dev->lock);
}

void uart16550_reset(struct uart16550 *u)
{
	u->ier = u->fcr = u->lcr = u->mcr = u->scr = 0;
	u->rbr = 0;
	u->divisor = 12; /* 9600; the data sheet leaves it open */
	u->lsr = LSR_THRE | LSR_TEMT;
	u->msr = MSR_CTS | MSR_DSR | MSR_DCD;
	u->rx_head = u->rx_count = u->tx_head = u->tx_count = 0;
	memset(u->rx, 0, sizeof(u->rx));
	memset(u->tx, 0, sizeof(u->tx));
	memset(u->rx_error, 0, sizeof(u->rx_error));
	u->thre_pending = u->timeout_pending = false;
	u->timeout.deadline = TIMER_NEVER;
}

void uart16550_settle(struct uart16550 *u)
{
	timer_settle(&u->timeout);
	tell_line(u);
	if (u->tx_count)
		tx_flush(u);
	update_irq(u);
	if (u->chardev)
		chardev_accept_input(u->chardev);
}

static int uart_post_load(void *obj, uint16_t version, struct err *e)
{
	const struct uart16550 *u = obj;

	if (u->rx_count > rx_depth(u))
		return err_set(e, EINVAL, "16550: %u characters in a receiver for %u", u->rx_count, rx_depth(u));
	return 0;
}

static const struct state_field uart_fields[] = {
	STATE_U_MAX(struct uart16550, ier, 0x0f),
	STATE_U(struct uart16550, fcr),
	STATE_U(struct uart16550, lcr),
	STATE_U_MAX(struct uart16550, mcr, 0x1f),
	STATE_U(struct uart16550, lsr),
	STATE_U(struct uart16550, msr),
	STATE_U(struct uart16550, scr),
	STATE_U(struct uart16550, divisor),
	STATE_U(struct uart16550, rbr),
	STATE_BUF(struct uart16550, rx),
	STATE_BUF(struct uart16550, rx_error),
	STATE_U_MAX(struct uart16550, rx_head, UART_FIFO_SIZE - 1),
	STATE_U_MAX(struct uart16550, rx_count, UART_FIFO_SIZE),
	STATE_BUF(struct uart16550, tx),
	STATE_U_MAX(struct uart16550, tx_head, UART_FIFO_SIZE - 1),
	STATE_U_MAX(struct uart16550, tx_count, UART_FIFO_SIZE),
	STATE_B(struct uart16550, thre_pending),
	STATE_B(struct uart16550, timeout_pending),
	STATE_T(struct uart16550, timeout),
	STATE_FIELDS_END,
};
const struct state_table uart16550_state = {
	.name = "16550",
	.version = 1,
	.oldest = 1,
	.fields = uart_fields,
	.post_load = uart_post_load,
};
