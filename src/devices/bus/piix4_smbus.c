/*
 * SMBus host controller of the 82371AB PIIX4, and the serial-presence-detect EEPROMs of the memory modules.
 * Transactions complete within the start command: HOST_BUSY is never seen set.
 *
 * Source: Intel 82371AB data sheet (290562-001), chapter 7.3 and 11.4; System Management Bus Specification 1.0; JEDEC
 * 21-C 4.1.2.5 (SPD of SDRAM modules). Left out: the slave interface (its registers hold their values; no other master
 * exists), 10-bit addresses and alerts; EEPROM writes move the address pointer but change nothing: modules are
 * write-protected.
 */
#include "piix4_smbus.h"

enum {
	HSTSTS = 0x0,
	SLVSTS = 0x1,
	HSTCNT = 0x2,
	HSTCMD = 0x3,
	HSTADD = 0x4,
	HSTDAT0 = 0x5,
	HSTDAT1 = 0x6,
	BLKDAT = 0x7,
	SLVCNT = 0x8,
	SHDWCMD = 0x9,
	SLVEVT = 0xa,
	SLVDAT = 0xc,
};

#define STS_INTER   0x02
#define STS_DEV_ERR 0x04
#define STS_W1C     0x1e

#define CNT_INTEREN 0x01
#define CNT_KILL    0x02
#define CNT_PROT    0x1c
#define CNT_START   0x40

enum { PROT_QUICK, PROT_BYTE, PROT_BYTE_DATA, PROT_WORD_DATA, PROT_BLOCK = 5 };

#define EEPROM_BASE 0x50

/* ---- memory modules ---- */

/* Byte 31 of the SPD, the capacity of one row: bit n is 4 MiB << n. */
#define ROW_MIN (4 * MIB)
#define ROW_MAX (512 * MIB)

static void spd_fill(uint8_t *spd, uint64_t row, unsigned rows)
{
	static const uint8_t timing[][2] = {
		{2, 0x04},               /* SDRAM */
		{3, 0x0d},               /* row and column address bits */
		{4, 0x0a},   {6, 0x40},  /* 64 data bits */
		{8, 0x01},               /* LVTTL */
		{9, 0xa0},               /* 10 ns at CAS latency 3 */
		{10, 0x60},              /* 6 ns access */
		{12, 0x80},              /* self refresh, 15.6 us */
		{13, 0x08},              /* x8 chips */
		{15, 0x01},  {16, 0x0f}, /* burst lengths 1 to 8 */
		{17, 0x04},              /* banks */
		{18, 0x06},              /* CAS latencies 2 and 3 */
		{19, 0x01},  {20, 0x01}, {22, 0x0e}, {23, 0xc0},
		{27, 0x14},                                      /* precharge, RAS to CAS and activity times in ns */
		{28, 0x14},  {29, 0x14}, {30, 0x32}, {62, 0x12}, /* SPD revision 1.2 */
		{126, 0x64},                                     /* 100 MHz */
		{127, 0xff},
	};
	memset(spd, 0, SPD_SIZE);
	spd[0] = 128; /* bytes used */
	spd[1] = 8;   /* 2^8 bytes in all */
	for (unsigned i = 0; i < ARRAY_SIZE(timing); i++)
		spd[timing[i][0]] = timing[i][1];
	spd[5] = rows;
	spd[31] = row / ROW_MIN;
	uint8_t sum = 0;
	for (unsigned i = 0; i < 63; i++)
		sum += spd[i];
	spd[63] = sum;
}

/* Modules of one or two rows, the largest first. What 8 of them cannot hold stays undescribed, as on a real board. */
void smbus_host_init(struct smbus_host *s, uint64_t ram_bytes)
{
	for (unsigned i = 0; i < SMBUS_EEPROMS && ram_bytes >= ROW_MIN; i++) {
		uint64_t row = ROW_MAX;
		while (row > ram_bytes)
			row /= 2;
		unsigned rows = ram_bytes >= 2 * row ? 2 : 1;
		s->eeprom[i].present = true;
		spd_fill(s->eeprom[i].data, row, rows);
		ram_bytes -= row * rows;
	}
}

static struct smbus_eeprom *slave(struct smbus_host *s)
{
	unsigned n = (s->address >> 1) - EEPROM_BASE;
	return n < SMBUS_EEPROMS && s->eeprom[n].present ? &s->eeprom[n] : NULL;
}

static uint8_t eeprom_next(struct smbus_eeprom *m)
{
	return m->data[m->offset++];
}

/* ---- transactions ---- */

static bool do_read(struct smbus_host *s, struct smbus_eeprom *m, unsigned protocol)
{
	switch (protocol) {
	case PROT_QUICK:
		return true;
	case PROT_BYTE:
		s->data0 = eeprom_next(m);
		return true;
	case PROT_BYTE_DATA:
		m->offset = s->command;
		s->data0 = eeprom_next(m);
		return true;
	case PROT_WORD_DATA:
		m->offset = s->command;
		s->data0 = eeprom_next(m);
		s->data1 = eeprom_next(m);
		return true;
	case PROT_BLOCK:
		m->offset = s->command;
		s->data0 = eeprom_next(m); /* the slave names the count; more than 32 is a protocol error */
		if (s->data0 == 0 || s->data0 > SMBUS_BLOCK)
			return false;
		for (unsigned i = 0; i < s->data0; i++)
			s->block[i] = eeprom_next(m);
		return true;
	default:
		return false;
	}
}

static bool do_write(struct smbus_host *s, struct smbus_eeprom *m, unsigned protocol)
{
	switch (protocol) {
	case PROT_QUICK:
		return true;
	case PROT_BYTE:
		m->offset = s->command;
		return true;
	case PROT_BYTE_DATA:
		m->offset = s->command + 1;
		return true;
	case PROT_WORD_DATA:
		m->offset = s->command + 2;
		return true;
	case PROT_BLOCK:
		if (s->data0 == 0 || s->data0 > SMBUS_BLOCK)
			return false;
		m->offset = s->command + 1 + s->data0;
		return true;
	default:
		return false;
	}
}

static void start(struct smbus_host *s)
{
	struct smbus_eeprom *m = slave(s);
	unsigned protocol = (s->control & CNT_PROT) >> 2;
	bool read = s->address & 1;
	bool ok = m && (read ? do_read(s, m, protocol) : do_write(s, m, protocol));
	s->status |= ok ? STS_INTER : STS_DEV_ERR;
	s->block_index = 0;
}

/* ---- registers ---- */

uint8_t smbus_host_read(struct smbus_host *s, unsigned reg)
{
	switch (reg) {
	case HSTSTS:
		return s->status;
	case HSTCNT:
		s->block_index = 0; /* reading it rewinds the block buffer */
		return s->control;
	case HSTCMD:
		return s->command;
	case HSTADD:
		return s->address;
	case HSTDAT0:
		return s->data0;
	case HSTDAT1:
		return s->data1;
	case BLKDAT:
		return s->block[s->block_index++ % SMBUS_BLOCK];
	case SLVCNT:
		return s->slave_control;
	case SHDWCMD:
		return s->shadow_command;
	case SLVEVT:
	case SLVEVT + 1:
		return s->slave_event >> 8 * (reg - SLVEVT);
	default: /* SLVSTS, SLVDAT: nobody addresses us as a slave */
		return 0;
	}
}

void smbus_host_write(struct smbus_host *s, unsigned reg, uint8_t value)
{
	switch (reg) {
	case HSTSTS:
		s->status &= ~(value & STS_W1C);
		break;
	case HSTCNT:
		s->control = value & (CNT_INTEREN | CNT_PROT);
		if (value & CNT_START && !(value & CNT_KILL))
			start(s);
		break;
	case HSTCMD:
		s->command = value;
		break;
	case HSTADD:
		s->address = value;
		break;
	case HSTDAT0:
		s->data0 = value;
		break;
	case HSTDAT1:
		s->data1 = value;
		break;
	case BLKDAT:
		s->block[s->block_index++ % SMBUS_BLOCK] = value;
		break;
	case SLVCNT:
		s->slave_control = value & 0x07;
		break;
	case SLVEVT:
	case SLVEVT + 1:
		s->slave_event &= 0xff << 8 * (1 - (reg - SLVEVT));
		s->slave_event |= value << 8 * (reg - SLVEVT);
		break;
	}
}

bool smbus_host_interrupt(const struct smbus_host *s)
{
	return s->control & CNT_INTEREN && s->status & STS_W1C;
}

void smbus_host_reset(struct smbus_host *s)
{
	s->status = s->control = s->command = s->address = s->data0 = s->data1 = 0;
	s->slave_control = 0;
	s->slave_event = 0;
	s->block_index = 0;
	memset(s->block, 0, sizeof(s->block));
	for (unsigned i = 0; i < SMBUS_EEPROMS; i++)
		s->eeprom[i].offset = 0;
}

static const struct state_field eeprom_fields[] = {
	STATE_U(struct smbus_eeprom, offset),
	STATE_FIELDS_END,
};
static const struct state_table eeprom_state = {
	.name = "smbus-eeprom", .version = 1, .oldest = 1, .fields = eeprom_fields};

static const struct state_field smbus_fields[] = {
	STATE_U(struct smbus_host, status),
	STATE_U(struct smbus_host, control),
	STATE_U(struct smbus_host, command),
	STATE_U(struct smbus_host, address),
	STATE_U(struct smbus_host, data0),
	STATE_U(struct smbus_host, data1),
	STATE_U(struct smbus_host, slave_control),
	STATE_U(struct smbus_host, slave_event),
	STATE_BUF(struct smbus_host, block),
	STATE_U(struct smbus_host, block_index),
	STATE_SUBA(struct smbus_host, eeprom, &eeprom_state),
	STATE_FIELDS_END,
};
const struct state_table smbus_host_state = {.name = "piix4-smbus", .version = 1, .oldest = 1, .fields = smbus_fields};
