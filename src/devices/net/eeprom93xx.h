/*
 * 93C46: a serial EEPROM of 64 words of 16 bits on a Microwire bus, as network adapters carry it for their address and
 * set-up.
 *
 * Source: Microchip 93C46A/B/C data sheet (DS21749), 64 x 16 organisation: start bit, two bits of operation, six of
 * address; sequential reads; EWEN/EWDS, ERASE, WRITE, ERAL, WRAL. Left out: programming takes no time, so the ready
 * signal is there at once.
 */
#ifndef VMM_DEVICES_NET_EEPROM93XX_H
#define VMM_DEVICES_NET_EEPROM93XX_H

#include "vmm/device.h"

#define EEPROM_WORDS 64

struct eeprom93xx {
	uint16_t words[EEPROM_WORDS];
	bool cs, sk;        /* the lines as they were last */
	bool out;           /* DO; high where the chip does not drive it */
	bool write_enabled; /* EWEN */
	uint8_t phase, bits;
	uint16_t shift;
	uint8_t command; /* operation and address */
};

extern const struct state_table eeprom93xx_state;

/* Power-on: contents stay. */
void eeprom93xx_power_on(struct eeprom93xx *e);
/* The lines from the adapter; DO is then e->out. */
void eeprom93xx_drive(struct eeprom93xx *e, bool cs, bool sk, bool di);

#endif
