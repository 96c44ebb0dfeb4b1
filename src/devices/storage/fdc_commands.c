/* 82077AA: the commands, as one table (DS table 5-1; DS is the data sheet of fdc.c), and those that move no data. */
#include "fdc.h"

void fdc_single_result(struct fdc *f, uint8_t value)
{
	f->result[0] = value;
	fdc_to_result_phase(f, 1);
}

/* ---- start of the data commands ---- */

static void start_access(struct fdc *f, enum op op)
{
	f->phase = PHASE_EXECUTION;
	f->op = (uint8_t)op;
	f->stage = STAGE_DELAY;
	f->select = f->command[1] & 3;
	f->head = f->command[1] >> 2 & 1;
	f->c = f->command[2];
	f->h = f->command[3];
	f->r = f->command[4];
	f->n = f->command[5];
	f->eot = f->last_eot = f->command[6];
	f->terminal = false;
	f->mismatch = false;
	f->verify_left = 0;
	fdc_wait(f, ACCESS_NS);
}

static void cmd_read(struct fdc *f)
{
	start_access(f, OP_READ);
}

static void cmd_write(struct fdc *f)
{
	start_access(f, OP_WRITE);
}

static void cmd_read_track(struct fdc *f)
{
	start_access(f, OP_READ_TRACK);
}

static void cmd_scan(struct fdc *f)
{
	start_access(f, OP_SCAN);
}

static void cmd_verify(struct fdc *f)
{
	bool enable_count = f->command[1] & 0x80;

	start_access(f, OP_VERIFY);
	if (enable_count)
		f->verify_left = f->command[8] ? f->command[8] : 256;
}

static void cmd_format(struct fdc *f)
{
	uint8_t n = f->command[2], sc = f->command[3];

	start_access(f, OP_FORMAT);
	f->n = n;
	f->last_eot = sc;
}

static void cmd_read_id(struct fdc *f)
{
	uint8_t eot = f->last_eot;

	start_access(f, OP_READ_ID);
	f->last_eot = eot;
}

/* ---- control commands ---- */

static void start_seek(struct fdc *f, unsigned select, unsigned steps, uint8_t st0)
{
	f->seek_busy |= (uint8_t)BIT(select);
	f->seek_done &= (uint8_t)~BIT(select);
	f->seek_st0[select] = (uint8_t)(st0 | select);
	fdc_to_command_phase(f); /* no result phase: SENSE INTERRUPT STATUS brings the status */
	fdc_wait(f, SEEK_NS + steps * STEP_NS);
}

static void cmd_recalibrate(struct fdc *f)
{
	unsigned select = f->command[1] & 3, cylinder = 0;
	struct floppy_drive *d = fdc_drive(f, select);
	uint8_t st0 = ST0_SEEK_END;

	if (!d) { /* no drive pulls TRK0 */
		st0 |= ST0_ABNORMAL | ST0_CHECK;
	} else {
		cylinder = d->cylinder;
		floppy_step_to(d, cylinder > RECALIBRATE_STEPS ? cylinder - RECALIBRATE_STEPS : 0);
		if (d->cylinder)
			st0 |= ST0_ABNORMAL | ST0_CHECK;
	}
	f->pcn[select] = 0;
	start_seek(f, select, MIN(cylinder, (unsigned)RECALIBRATE_STEPS), st0);
}

static void seek_by(struct fdc *f, int steps)
{
	unsigned select = f->command[1] & 3;
	struct floppy_drive *d = fdc_drive(f, select);
	int to = d ? d->cylinder + steps : 0;

	if (d)
		floppy_step_to(d, to < 0 ? 0 : (unsigned)to);
	f->pcn[select] = (uint8_t)(f->pcn[select] + steps);
	start_seek(f, select, (unsigned)(steps < 0 ? -steps : steps), (uint8_t)(ST0_SEEK_END | (f->command[1] & 4)));
}

static void cmd_seek(struct fdc *f)
{
	seek_by(f, (int)f->command[2] - f->pcn[f->command[1] & 3]);
}

static void cmd_relative_seek(struct fdc *f)
{
	seek_by(f, f->command[0] & 0x40 ? f->command[2] : -(int)f->command[2]);
}

static void cmd_sense_interrupt(struct fdc *f)
{
	unsigned select;

	if (f->reset_sense) { /* DS 7.4: one for each drive select after a reset */
		select = SELECTS - f->reset_sense--;
		f->result[0] = (uint8_t)(ST0_POLLING | select);
	} else if (f->seek_done) {
		select = (unsigned)__builtin_ctz(f->seek_done);
		f->seek_done &= (uint8_t)~BIT(select);
		f->result[0] = f->seek_st0[select];
	} else {
		fdc_single_result(f, ST0_INVALID);
		return;
	}
	f->result[1] = f->pcn[select];
	fdc_to_result_phase(f, 2);
	fdc_set_interrupt(f, f->seek_done);
}

static void cmd_sense_drive(struct fdc *f)
{
	struct floppy_drive *d = fdc_drive(f, f->command[1] & 3);
	uint8_t st3 = (uint8_t)(ST3_ALWAYS | (f->command[1] & 7));

	if (d && floppy_write_protected(d))
		st3 |= ST3_WP;
	if (d && d->cylinder == 0)
		st3 |= ST3_T0;
	fdc_single_result(f, st3);
}

static void cmd_specify(struct fdc *f)
{
	f->specify[0] = f->command[1];
	f->specify[1] = f->command[2];
	fdc_to_command_phase(f);
}

static void cmd_configure(struct fdc *f)
{
	f->config = f->command[2] & 0x7f;
	f->precompensation = f->command[3];
	fdc_to_command_phase(f);
}

static void cmd_perpendicular(struct fdc *f)
{
	if (f->command[1] & 0x80) /* OW: the drive bits count */
		f->perpendicular = f->command[1] & 0x3f;
	else
		f->perpendicular = (uint8_t)((f->perpendicular & 0x3c) | (f->command[1] & 3));
	fdc_to_command_phase(f);
}

static void cmd_lock(struct fdc *f)
{
	f->lock = f->command[0] >> 7;
	fdc_single_result(f, (uint8_t)(f->lock << 4));
}

static void cmd_version(struct fdc *f)
{
	fdc_single_result(f, 0x90); /* enhanced controller */
}

static void cmd_dumpreg(struct fdc *f)
{
	memcpy(f->result, f->pcn, SELECTS);
	f->result[4] = f->specify[0];
	f->result[5] = f->specify[1];
	f->result[6] = f->last_eot;
	f->result[7] = (uint8_t)(f->lock << 7 | f->perpendicular);
	f->result[8] = f->config;
	f->result[9] = f->precompensation;
	fdc_to_result_phase(f, 10);
}

static const struct fdc_command commands[] = {
	{0x06, 0x1f, 8, cmd_read},
	{0x0c, 0x1f, 8, cmd_read}, /* deleted data */
	{0x05, 0x3f, 8, cmd_write},
	{0x09, 0x3f, 8, cmd_write}, /* deleted data */
	{0x02, 0x9f, 8, cmd_read_track},
	{0x16, 0x1f, 8, cmd_verify},
	{0x11, 0x1f, 8, cmd_scan},
	{0x19, 0x1f, 8, cmd_scan},
	{0x1d, 0x1f, 8, cmd_scan},
	{0x0d, 0xbf, 5, cmd_format},
	{0x0a, 0xbf, 1, cmd_read_id},
	{0x07, 0xff, 1, cmd_recalibrate},
	{CMD_SENSE_INTERRUPT, 0xff, 0, cmd_sense_interrupt},
	{0x03, 0xff, 2, cmd_specify},
	{0x04, 0xff, 1, cmd_sense_drive},
	{0x0f, 0xff, 2, cmd_seek},
	{0x8f, 0xbf, 2, cmd_relative_seek},
	{0x13, 0xff, 3, cmd_configure},
	{0x12, 0xff, 1, cmd_perpendicular},
	{0x14, 0x7f, 0, cmd_lock},
	{0x10, 0xff, 0, cmd_version},
	{0x0e, 0xff, 0, cmd_dumpreg},
};

const struct fdc_command *fdc_find_command(uint8_t code)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if ((code & commands[i].mask) == commands[i].code)
			return &commands[i];
	return NULL;
}
