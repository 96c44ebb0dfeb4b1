/*
 * 16550A UART: the chip, without a bus. Owners (ISA port, later PCI multi-port cards) embed it, route eight byte-wide
 * registers to it and give it an interrupt output. Every call is made with the owner's device lock held.
 */
#ifndef VMM_DEVICES_CHAR_UART16550_H
#define VMM_DEVICES_CHAR_UART16550_H

#include "vmm/chardev.h"
#include "vmm/device.h"

#define UART_FIFO_SIZE  16
#define UART_REGISTERS  8
#define UART_CLOCK_BAUD 115200 /* 1.8432 MHz / 16 */

struct uart16550 {
	/* registers */
	uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
	uint16_t divisor;
	uint8_t rbr; /* what an empty receiver reads: the last character */
	/* Receiver: FIFO, or a single register (depth 1). Errors per character. */
	uint8_t rx[UART_FIFO_SIZE], rx_error[UART_FIFO_SIZE];
	uint8_t rx_head, rx_count;
	/* Transmitter: characters the backend has not taken yet. */
	uint8_t tx[UART_FIFO_SIZE];
	uint8_t tx_head, tx_count;
	bool thre_pending, timeout_pending;
	struct timer timeout;

	/* set by uart16550_init() */
	struct device *dev;
	struct irq_line *irq;
	struct chardev *chardev; /* NULL: nothing is plugged in */
};

/* irq, chardev: stay the owner's; chardev (may be NULL) is attached. */
void uart16550_init(struct uart16550 *u, struct device *dev, struct irq_line *irq, struct chardev *chardev);
void uart16550_reset(struct uart16550 *u);
void uart16550_settle(struct uart16550 *u);
uint8_t uart16550_read(struct uart16550 *u, unsigned reg); /* reg 0..7 */
void uart16550_write(struct uart16550 *u, unsigned reg, uint8_t value);
/* Many characters to the transmitter holding register; returns how many it took (0: use uart16550_write()). */
uint32_t uart16550_write_string(struct uart16550 *u, const uint8_t *buf, uint32_t count);
extern const struct state_table uart16550_state;

#endif
