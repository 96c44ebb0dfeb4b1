/*
 * Intel 82077AA floppy disk controller (isa-fdc) in PC/AT mode, with two drives.
 *
 * Source: Intel 82077AA data sheet (290166-007), called DS.
 *
 * Registers SRA, SRB, DOR, TDR, MSR, DSR, FIFO, DIR, CCR; every command of DS table 5-1; DMA and non-DMA data transfer,
 * implied seek, multi-track, the polling interrupts after a reset, LOCK. Commands of later chips (PART ID, SAVE,
 * POWERDOWN MODE ...) are answered with 80h, by which drivers recognise an 82077AA.
 *
 * Seeks take tens of microseconds, transfers as long as the image takes, not the milliseconds of turning metal; a whole
 * track moves in one request. What an image cannot hold is left out: deleted data marks (WRITE DELETED DATA writes
 * ordinary data; READ DELETED DATA finds the ordinary mark), FM encoding (not found), formatting to another layout than
 * the image's (ends with "sector not found"). An empty drive ends a command as "not ready" at once, where the chip
 * would wait for an index hole until it is reset. FIFO thresholds and overruns have no meaning here: data waits.
 * Power-down and tape bits are kept and read back.
 *
 * Here: registers, reset, life cycle. fdc_commands.c: the commands; fdc_transfer.c: how data moves.
 */
#include "fdc.h"
#include "vmm/cmos.h"

#include <errno.h>

void fdc_update_irq(struct fdc *f)
{
	irq_set(&f->dev.irq[0], f->interrupt && f->dor & DOR_DMAGATE && !fdc_in_reset(f));
}

void fdc_set_interrupt(struct fdc *f, bool on)
{
	f->interrupt = on;
	fdc_update_irq(f);
}

void fdc_wait(struct fdc *f, uint64_t ns)
{
	uint64_t at = clock_ns(VCLOCK_VIRTUAL) + ns;

	if (!timer_pending(&f->timer) || f->timer.deadline < at)
		timer_arm(&f->timer, at);
}

void fdc_to_command_phase(struct fdc *f)
{
	f->phase = PHASE_COMMAND;
	f->command_pos = 0;
	f->command_len = 0;
	f->op = OP_NONE;
	f->stage = STAGE_NONE;
}

void fdc_to_result_phase(struct fdc *f, unsigned len)
{
	f->phase = PHASE_RESULT;
	f->result_pos = 0;
	f->result_len = (uint8_t)len;
	f->op = OP_NONE;
	f->stage = STAGE_NONE;
}

/* ---- reset ---- */

static void abandon(struct fdc *f)
{
	if (f->dma)
		i8237_set_request(f->dma, f->dma_channel, false);
	f->disk_wanted = false;
	fdc_to_command_phase(f);
	/* A request in flight completes into a buffer nobody looks at; the next command waits for it. */
}

/* What both kinds of reset do, DS 4.1 and 5.2.4 LOCK. */
static void controller_reset(struct fdc *f)
{
	abandon(f);
	f->interrupt = false;
	f->reset_sense = 0;
	f->seek_busy = f->seek_done = 0;
	f->perpendicular &= 0x3c;
	if (!f->lock) {
		f->config = CONFIG_EFIFO;
		f->precompensation = 0;
	}
}

static void software_reset(struct fdc *f, bool release)
{
	controller_reset(f);
	f->reset_pending = release;
	fdc_update_irq(f);
	if (release)
		fdc_wait(f, RESET_NS);
}

static void fdc_timer(void *opaque)
{
	struct fdc *f = opaque;

	if (f->reset_pending) {
		f->reset_pending = false;
		if (!(f->config & CONFIG_POLL)) {
			f->reset_sense = SELECTS;
			fdc_set_interrupt(f, true);
		}
	}
	if (f->seek_busy) {
		f->seek_done |= f->seek_busy;
		f->seek_busy = 0;
		fdc_set_interrupt(f, true);
	}
	if (f->stage == STAGE_DELAY)
		fdc_begin_access(f);
}

/* ---- registers ---- */

static void fifo_write(struct fdc *f, uint8_t v)
{
	const struct fdc_command *command;

	if (f->phase == PHASE_EXECUTION && f->stage == STAGE_HOST && fdc_non_dma(f) && fdc_host_sends(f)) {
		f->buf[f->pos++] = v;
		fdc_set_interrupt(f, false);
		if (f->pos == f->len)
			fdc_host_done(f);
		fdc_run(f);
		return;
	}
	if (f->phase != PHASE_COMMAND) {
		log_guest(&f->dev.guest_log, "fdc", "%s: %#x written to the FIFO while it is not expected", f->dev.id,
			  v);
		return;
	}
	if (f->command_pos == 0) {
		command = fdc_find_command(v);
		if (!command) {
			f->command[0] = v;
			fdc_single_result(f, ST0_INVALID);
			return;
		}
		if (command->code != CMD_SENSE_INTERRUPT) /* whoever goes on has seen the reset */
			f->reset_sense = 0;
		f->command_len = (uint8_t)(command->parameters + 1);
	}
	f->command[f->command_pos++] = v;
	if (f->command_pos == f->command_len)
		fdc_find_command(f->command[0])->run(f);
}

static uint8_t fifo_read(struct fdc *f)
{
	uint8_t v;

	if (f->phase == PHASE_EXECUTION && f->stage == STAGE_HOST && fdc_non_dma(f) && !fdc_host_sends(f)) {
		v = f->buf[f->pos++];
		fdc_set_interrupt(f, false);
		if (f->pos == f->len)
			fdc_host_done(f);
		fdc_run(f);
		return v;
	}
	if (f->phase != PHASE_RESULT)
		return 0xff;
	if (f->result_pos == 0 && !f->seek_done) /* DS 6.3: the first byte read clears the interrupt */
		fdc_set_interrupt(f, false);
	v = f->result[f->result_pos++];
	if (f->result_pos == f->result_len)
		fdc_to_command_phase(f);
	return v;
}

static uint8_t msr_read(const struct fdc *f)
{
	uint8_t v = f->seek_busy;

	if (fdc_in_reset(f))
		return 0;
	switch (f->phase) {
	case PHASE_COMMAND:
		return (uint8_t)(v | MSR_RQM | (f->command_pos ? MSR_CB : 0));
	case PHASE_RESULT:
		return v | MSR_RQM | MSR_DIO | MSR_CB;
	default:
		if (f->stage == STAGE_HOST && fdc_non_dma(f))
			v |= (uint8_t)(MSR_RQM | MSR_NONDMA | (fdc_host_sends(f) ? 0 : MSR_DIO));
		return v | MSR_CB;
	}
}

/* DS 2.1.1 and 2.1.2, as a PS/2 sees them; lines are active low. */
static uint8_t sra_read(struct fdc *f)
{
	struct floppy_drive *d = fdc_drive(f, f->dor & DOR_SELECT);
	uint8_t v = 0x04; /* no index hole */

	v |= (uint8_t)(f->interrupt ? 0x80 : 0);
	v |= (uint8_t)(f->drive[1].block ? 0 : 0x40);
	v |= (uint8_t)(d && d->cylinder == 0 ? 0 : 0x10);
	v |= (uint8_t)(f->head ? 0x08 : 0);
	v |= (uint8_t)(d && floppy_write_protected(d) ? 0 : 0x02);
	return v;
}

static uint8_t srb_read(const struct fdc *f)
{
	return (uint8_t)(0xc0 | (f->dor & 1) << 5 | (f->dor & (DOR_MOTOR0 | DOR_MOTOR1)) >> 4);
}

static uint64_t fdc_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct fdc *f = DEVICE(dev, struct fdc);
	struct floppy_drive *d;

	switch (offset + (r == &dev->regions[1] ? DIR_CCR : 0)) {
	case SRA:
		return sra_read(f);
	case SRB:
		return srb_read(f);
	case DOR:
		return f->dor;
	case TDR:
		return f->tdr;
	case MSR_DSR:
		return msr_read(f);
	case FIFO:
		return fifo_read(f);
	default:
		d = fdc_drive(f, f->dor & DOR_SELECT);
		return d && floppy_change_line(d) ? DIR_CHANGE : 0;
	}
}

static void dor_write(struct fdc *f, uint8_t v)
{
	uint8_t old = f->dor;

	f->dor = v;
	if (old & DOR_NRESET && !(v & DOR_NRESET))
		software_reset(f, false);
	else if (!(old & DOR_NRESET) && v & DOR_NRESET)
		software_reset(f, true);
	fdc_update_irq(f);
	if (v & ~old & DOR_DMAGATE && f->stage == STAGE_HOST)
		fdc_run(f);
}

static void fdc_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct fdc *f = DEVICE(dev, struct fdc);
	uint8_t v = (uint8_t)value;

	switch (offset + (r == &dev->regions[1] ? DIR_CCR : 0)) {
	case DOR:
		dor_write(f, v);
		break;
	case TDR:
		f->tdr = v & 3;
		break;
	case MSR_DSR:
		f->dsr = v & (uint8_t)~DSR_SWRESET;
		if (v & DSR_SWRESET && !fdc_in_reset(f))
			software_reset(f, true);
		break;
	case FIFO:
		if (!fdc_in_reset(f))
			fifo_write(f, v);
		break;
	case DIR_CCR:
		f->dsr = (uint8_t)((f->dsr & ~DSR_RATE) | (v & DSR_RATE));
		break;
	}
}

/* ---- drives ---- */

int fdc_attach_drive(struct device *dev, int unit, struct device *owner, struct block *block, int type, struct err *e)
{
	struct fdc *f = DEVICE(dev, struct fdc);
	int ret;

	if (unit < 0)
		unit = f->drive[0].block ? 1 : 0;
	if (f->drive[unit].block)
		return err_set(e, EBUSY, "%s: unit %d of %s is taken by %s", owner->id, unit, dev->id,
			       block_id(f->drive[unit].block));
	ret = floppy_attach(&f->drive[unit], owner, block, type, e);
	return ret < 0 ? ret : unit;
}

void fdc_detach_drive(struct device *dev, int unit)
{
	struct fdc *f = DEVICE(dev, struct fdc);

	if (f->drive[unit].block)
		block_set_media_ops(f->drive[unit].block, NULL, NULL, NULL, NULL);
	f->drive[unit] = (struct floppy_drive){.type = FLOPPY_NONE};
}

unsigned floppy_cmos_type(struct board *board, unsigned unit)
{
	struct device *dev = device_find_class(board, "isa-fdc");

	return dev && unit < UNITS ? floppy_cmos(&DEVICE(dev, struct fdc)->drive[unit]) : 0;
}

/* ---- life cycle ---- */

static void fdc_reset(struct device *dev)
{
	struct fdc *f = DEVICE(dev, struct fdc);

	timer_cancel(&f->timer);
	f->lock = 0;
	controller_reset(f);
	f->dor = f->tdr = 0;
	f->dsr = RATE_250K; /* DS 2.1.6 */
	f->specify[0] = f->specify[1] = 0;
	f->perpendicular = f->last_eot = 0;
	f->reset_pending = false;
	memset(f->pcn, 0, sizeof(f->pcn));
	for (unsigned i = 0; i < UNITS; i++) {
		f->drive[i].cylinder = 0;
		f->drive[i].changed = true;
	}
}

static void fdc_settle(struct device *dev)
{
	struct fdc *f = DEVICE(dev, struct fdc);

	fdc_update_irq(f);
	timer_settle(&f->timer);
	if (f->dma && f->phase == PHASE_EXECUTION && f->stage == STAGE_HOST && !fdc_non_dma(f))
		bh_schedule(&f->dma_ready);
}

static void fdc_quiesce(struct device *dev)
{
	struct fdc *f = DEVICE(dev, struct fdc);

	f->quiescing = true;
	if (!f->disk_busy)
		device_quiesced(dev);
}

static void fdc_resume(struct device *dev)
{
	struct fdc *f = DEVICE(dev, struct fdc);

	f->quiescing = false;
	if (f->disk_wanted)
		fdc_disk_start(f);
}

static int fdc_create(struct device *dev, struct err *e)
{
	struct fdc *f = DEVICE(dev, struct fdc);
	struct block *block;
	int ret;

	device_timer_init(dev, &f->timer, VCLOCK_VIRTUAL, fdc_timer);
	device_bh_init(dev, &f->dma_ready, fdc_dma_became_ready);
	for (int i = 0; i < UNITS; i++) {
		if (!f->drive_id[i])
			continue;
		block = device_claim_block(dev, f->drive_id[i], e);
		ret = block ? fdc_attach_drive(dev, i, dev, block, f->drive_type[i], e) : -EINVAL;
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int fdc_wire(struct device *dev, struct err *e)
{
	struct fdc *f = DEVICE(dev, struct fdc);
	int ret;

	f->dma = i8237_find(dev->board);
	if (!f->dma)
		return 0; /* a board without DMA: programmed I/O still works */
	ret = i8237_connect(f->dma, f->dma_channel, dev, &f->dma_ready, e);
	if (ret < 0)
		f->dma = NULL;
	return ret;
}

static void fdc_destroy(struct device *dev)
{
	struct fdc *f = DEVICE(dev, struct fdc);

	timer_cancel(&f->timer);
	if (f->dma)
		i8237_disconnect(f->dma, f->dma_channel);
	bh_cancel(&f->dma_ready);
	for (int i = 0; i < UNITS; i++)
		fdc_detach_drive(dev, i);
}

static int fdc_post_load(void *obj, uint16_t version, struct err *e)
{
	struct fdc *f = obj;
	bool sane = true;

	if (f->phase == PHASE_COMMAND)
		sane = f->command_pos ? f->command_pos < f->command_len && fdc_find_command(f->command[0]) &&
						f->command_len == fdc_find_command(f->command[0])->parameters + 1
				      : f->command_len == 0;
	else if (f->phase == PHASE_RESULT)
		sane = f->result_pos < f->result_len;
	else
		sane = f->op != OP_NONE && f->stage != STAGE_NONE && fdc_find_command(f->command[0]);
	if (f->phase != PHASE_EXECUTION)
		sane = sane && f->op == OP_NONE && f->stage == STAGE_NONE;
	if (f->stage == STAGE_DISK || f->stage == STAGE_HOST)
		sane = sane && f->pos <= f->len && (f->stage == STAGE_DISK || f->pos < f->len) && f->sectors >= 1 &&
		       (f->op == OP_FORMAT || (f->r >= 1 && f->len == f->sectors * (uint32_t)FLOPPY_SECTOR)) &&
		       (f->op != OP_WRITE || f->stage == STAGE_HOST || f->pos);
	if (f->op == OP_SCAN)
		sane = sane && f->sectors <= 1;
	if (!sane)
		return err_set(e, EINVAL, "%s: phase %u, operation %u, stage %u, %u of %u bytes do not go together",
			       f->dev.id, f->phase, f->op, f->stage, f->pos, f->len);
	f->disk_wanted = f->stage == STAGE_DISK;
	return 0;
}

static const struct state_field drive_fields[] = {
	STATE_U_MAX(struct floppy_drive, cylinder, FLOPPY_LAST_CYLINDER),
	STATE_B(struct floppy_drive, changed),
	STATE_FIELDS_END,
};
static const struct state_table drive_table = {
	.name = "floppy-drive", .version = 1, .oldest = 1, .fields = drive_fields};

static const struct state_field fdc_fields[] = {
	STATE_SUBA(struct fdc, drive, &drive_table),
	STATE_U(struct fdc, dor),
	STATE_U_MAX(struct fdc, tdr, 3),
	STATE_U_MAX(struct fdc, dsr, 0x7f),
	STATE_BUF(struct fdc, specify),
	STATE_U_MAX(struct fdc, config, 0x7f),
	STATE_U(struct fdc, precompensation),
	STATE_U_MAX(struct fdc, perpendicular, 0x3f),
	STATE_U_MAX(struct fdc, lock, 1),
	STATE_U(struct fdc, last_eot),
	STATE_BUF(struct fdc, pcn),
	STATE_U_MAX(struct fdc, phase, PHASE_RESULT),
	STATE_BUF(struct fdc, command),
	STATE_U_MAX(struct fdc, command_pos, 9),
	STATE_U_MAX(struct fdc, command_len, 9),
	STATE_BUF(struct fdc, result),
	STATE_U_MAX(struct fdc, result_pos, 10),
	STATE_U_MAX(struct fdc, result_len, 10),
	STATE_B(struct fdc, interrupt),
	STATE_B(struct fdc, reset_pending),
	STATE_U_MAX(struct fdc, reset_sense, SELECTS),
	STATE_U_MAX(struct fdc, seek_busy, 15),
	STATE_U_MAX(struct fdc, seek_done, 15),
	STATE_BUF(struct fdc, seek_st0),
	STATE_U_MAX(struct fdc, op, OP_READ_ID),
	STATE_U_MAX(struct fdc, stage, STAGE_HOST),
	STATE_U_MAX(struct fdc, select, 3),
	STATE_U_MAX(struct fdc, head, 1),
	STATE_U(struct fdc, c),
	STATE_U(struct fdc, h),
	STATE_U(struct fdc, r),
	STATE_U(struct fdc, n),
	STATE_U(struct fdc, eot),
	STATE_U_MAX(struct fdc, sectors, FLOPPY_MAX_SECTORS),
	STATE_U_MAX(struct fdc, verify_left, 256),
	STATE_B(struct fdc, terminal),
	STATE_B(struct fdc, mismatch),
	STATE_U_MAX(struct fdc, pos, FLOPPY_MAX_SECTORS *FLOPPY_SECTOR),
	STATE_U_MAX(struct fdc, len, FLOPPY_MAX_SECTORS *FLOPPY_SECTOR),
	STATE_BUF(struct fdc, buf),
	STATE_T(struct fdc, timer),
	STATE_FIELDS_END,
};
static const struct state_table fdc_state = {
	.name = "fdc", .version = 1, .oldest = 1, .fields = fdc_fields, .post_load = fdc_post_load};

static const char *const types[] = {"auto", "none", "120", "144", "288", NULL};
static const struct prop fdc_props[] = {
	PROP(struct fdc, iobase, PROP_U32, .def = 0x3f0, .max = 0xfff8, .help = "First of the ports"),
	PROP(struct fdc, irq, PROP_U32, .def = 6, .max = 15, .help = "Interrupt"),
	PROP_NAMED(struct fdc, "dma", dma_channel, PROP_U32, .def = 2, .max = 3, .help = "DMA channel"),
	PROP_NAMED(struct fdc, "driveA", drive_id[0], PROP_DRIVE, .help = "Backend of drive A"),
	PROP_NAMED(struct fdc, "driveB", drive_id[1], PROP_DRIVE, .help = "Backend of drive B"),
	PROP_NAMED(struct fdc, "fdtypeA", drive_type[0], PROP_ENUM, .values = types, .help = "Type of drive A"),
	PROP_NAMED(struct fdc, "fdtypeB", drive_type[1], PROP_ENUM, .values = types, .help = "Type of drive B"),
	PROP_NAMED(struct fdc, "bootindexA", bootindex[0], PROP_I32, .def = (uint64_t)-1, .min = (uint64_t)-1,
		   .max = INT32_MAX, .help = "Place of drive A in the boot order"),
	PROP_NAMED(struct fdc, "bootindexB", bootindex[1], PROP_I32, .def = (uint64_t)-1, .min = (uint64_t)-1,
		   .max = INT32_MAX, .help = "Place of drive B in the boot order"),
	PROP_END,
};

static const struct region_ops fdc_ops = {.read = fdc_read, .write = fdc_write, .max_access = 1};
static const struct region_desc fdc_regions[] = {
	/* Port 6 belongs to the IDE controller. */
	{.name = "fdc", .base_prop = "iobase", .size = 6, .bar = REGION_NOT_BAR, .ops = &fdc_ops},
	{.name = "fdc-dir", .base_prop = "iobase", .base_offset = 7, .size = 1, .bar = REGION_NOT_BAR, .ops = &fdc_ops},
};

DEVICE_CLASS(fdc) = {
	.name = "isa-fdc",
	.summary = "82077AA floppy disk controller",
	.bus = BUS_ISA,
	.category = "Storage",
	.size = sizeof(struct fdc),
	.props = fdc_props,
	.regions = fdc_regions,
	.n_regions = ARRAY_SIZE(fdc_regions),
	.irq_prop = {"irq"},
	.n_irqs = 1,
	.state = &fdc_state,
	.create = fdc_create,
	.destroy = fdc_destroy,
	.wire = fdc_wire,
	.reset = fdc_reset,
	.settle = fdc_settle,
	.quiesce = fdc_quiesce,
	.resume = fdc_resume,
};
