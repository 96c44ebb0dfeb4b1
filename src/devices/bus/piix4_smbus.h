/* The SMBus host controller inside the PIIX4 and the memory modules' EEPROMs on its bus: private to the PM function. */
#ifndef BUS_PIIX4_SMBUS_H
#define BUS_PIIX4_SMBUS_H

#include "vmm/device.h"

#define SMBUS_PORTS   16
#define SMBUS_BLOCK   32
#define SMBUS_EEPROMS 8 /* at addresses 0x50..0x57 */
#define SPD_SIZE      256

struct smbus_eeprom {
	uint8_t offset; /* address pointer of the next byte */
	bool present;
	uint8_t data[SPD_SIZE]; /* made from the RAM size: not state */
};

struct smbus_host {
	uint8_t status, control, command, address, data0, data1;
	uint8_t slave_control, shadow_command;
	uint16_t slave_event;
	uint8_t block[SMBUS_BLOCK], block_index;
	struct smbus_eeprom eeprom[SMBUS_EEPROMS];
};

extern const struct state_table smbus_host_state; /* obj: struct smbus_host */

void smbus_host_init(struct smbus_host *s, uint64_t ram_bytes);
void smbus_host_reset(struct smbus_host *s);
uint8_t smbus_host_read(struct smbus_host *s, unsigned reg);
void smbus_host_write(struct smbus_host *s, unsigned reg, uint8_t value);
/* The host controller wants its interrupt. */
bool smbus_host_interrupt(const struct smbus_host *s);

#endif
