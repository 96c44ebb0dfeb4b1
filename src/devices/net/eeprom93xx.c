/* 93C46 serial EEPROM: see eeprom93xx.h. */
#include "src/devices/net/eeprom93xx.h"

#include <string.h>

/* PHASE_FULL: all bits of a writing operation are there; it takes place when CS goes low. PHASE_OVER: nothing more
 * until then. */
enum { PHASE_IDLE, PHASE_COMMAND, PHASE_READ, PHASE_DATA, PHASE_FULL, PHASE_OVER };
enum { OP_EXTENDED, OP_WRITE, OP_READ, OP_ERASE };
enum { EXT_EWDS, EXT_WRAL, EXT_ERAL, EXT_EWEN };

static unsigned op_of(const struct eeprom93xx *e)
{
	return e->command >> 6;
}

static unsigned address_of(const struct eeprom93xx *e)
{
	return e->command & (EEPROM_WORDS - 1);
}

static unsigned extension_of(const struct eeprom93xx *e)
{
	return e->command >> 4 & 3;
}

void eeprom93xx_power_on(struct eeprom93xx *e)
{
	e->cs = e->sk = e->write_enabled = false;
	e->out = true;
	e->phase = PHASE_IDLE;
	e->bits = 0;
	e->shift = 0;
	e->command = 0;
}

static void start_command(struct eeprom93xx *e)
{
	e->bits = 0;
	e->phase = PHASE_FULL;
	switch (op_of(e)) {
	case OP_READ:
		e->phase = PHASE_READ;
		e->shift = e->words[address_of(e)];
		e->out = false; /* a dummy bit before the data */
		break;
	case OP_WRITE:
		e->phase = PHASE_DATA;
		break;
	case OP_ERASE:
		break;
	default:
		if (extension_of(e) == EXT_WRAL)
			e->phase = PHASE_DATA;
		else if (extension_of(e) != EXT_ERAL) {
			e->write_enabled = extension_of(e) == EXT_EWEN;
			e->phase = PHASE_OVER;
		}
		break;
	}
}

static void clock_in(struct eeprom93xx *e, bool di)
{
	switch (e->phase) {
	case PHASE_IDLE:
		if (!di)
			break;
		e->phase = PHASE_COMMAND;
		e->bits = 0;
		e->command = 0;
		break;
	case PHASE_COMMAND:
		e->command = (uint8_t)(e->command << 1 | di);
		if (++e->bits == 8)
			start_command(e);
		break;
	case PHASE_READ:
		if (e->bits == 16) { /* the next word follows without a dummy bit */
			e->command = (uint8_t)(OP_READ << 6 | ((address_of(e) + 1) & (EEPROM_WORDS - 1)));
			e->shift = e->words[address_of(e)];
			e->bits = 0;
		}
		e->out = e->shift >> 15;
		e->shift = (uint16_t)(e->shift << 1);
		e->bits++;
		break;
	case PHASE_DATA:
		e->shift = (uint16_t)(e->shift << 1 | di);
		if (++e->bits == 16)
			e->phase = PHASE_FULL;
		break;
	default:
		break;
	}
}

static void program(struct eeprom93xx *e)
{
	bool all = op_of(e) == OP_EXTENDED;
	bool data = op_of(e) == OP_WRITE || (all && extension_of(e) == EXT_WRAL);
	uint16_t value = data ? e->shift : 0xffff;

	if (!e->write_enabled)
		return;
	for (unsigned i = 0; i < EEPROM_WORDS; i++)
		if (all || i == address_of(e))
			e->words[i] = value;
}

void eeprom93xx_drive(struct eeprom93xx *e, bool cs, bool sk, bool di)
{
	if (e->cs && !cs) {
		if (e->phase == PHASE_FULL)
			program(e);
		e->phase = PHASE_IDLE;
		e->out = true;
	} else if (cs && sk && !e->sk) {
		clock_in(e, di);
	}
	e->cs = cs;
	e->sk = sk;
}

static const struct state_field fields[] = {
	STATE_UA(struct eeprom93xx, words),
	STATE_B(struct eeprom93xx, cs),
	STATE_B(struct eeprom93xx, sk),
	STATE_B(struct eeprom93xx, out),
	STATE_B(struct eeprom93xx, write_enabled),
	STATE_U_MAX(struct eeprom93xx, phase, PHASE_OVER),
	STATE_U_MAX(struct eeprom93xx, bits, 16),
	STATE_U(struct eeprom93xx, shift),
	STATE_U(struct eeprom93xx, command),
	STATE_FIELDS_END,
};
const struct state_table eeprom93xx_state = {.name = "eeprom93xx", .version = 1, .oldest = 1, .fields = fields};
