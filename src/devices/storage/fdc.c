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
 * Flow of a data command: DELAY (head) -> for each chunk of sectors on a track: DISK then HOST for reads, HOST then
 * DISK for writes -> result phase. HOST waits for the DMA controller or the CPU, DISK for the block backend.
 */
#include "../bus/i8237.h"
#include "floppy.h"
#include "vmm/cmos.h"

#include <errno.h>

enum { UNITS = 2, SELECTS = 4 };
enum { SRA, SRB, DOR, TDR, MSR_DSR, FIFO, DIR_CCR = 7 };
enum { DOR_SELECT = 0x03, DOR_NRESET = 0x04, DOR_DMAGATE = 0x08, DOR_MOTOR0 = 0x10, DOR_MOTOR1 = 0x20 };
enum { MSR_CB = 0x10, MSR_NONDMA = 0x20, MSR_DIO = 0x40, MSR_RQM = 0x80 };
enum { DSR_SWRESET = 0x80, DSR_RATE = 0x03, DIR_CHANGE = 0x80 };
enum {
	ST0_ABNORMAL = 0x40,
	ST0_INVALID = 0x80,
	ST0_POLLING = 0xc0,
	ST0_SEEK_END = 0x20,
	ST0_CHECK = 0x10,
	ST0_NR = 0x08
};
enum { ST1_MA = 0x01, ST1_NW = 0x02, ST1_ND = 0x04, ST1_DE = 0x20, ST1_EN = 0x80 };
enum { ST2_BC = 0x02, ST2_SN = 0x04, ST2_SH = 0x08, ST2_WC = 0x10, ST2_DD = 0x20, ST2_CM = 0x40 };
enum { ST3_ALWAYS = 0x28, ST3_WP = 0x40, ST3_T0 = 0x10 };
enum { CONFIG_EIS = 0x40, CONFIG_EFIFO = 0x20, CONFIG_POLL = 0x10 };
enum { CMD_MT = 0x80, CMD_MFM = 0x40, CMD_SK = 0x20 };
enum { RECALIBRATE_STEPS = 79 };
enum phase { PHASE_COMMAND, PHASE_EXECUTION, PHASE_RESULT };
enum op { OP_NONE, OP_READ, OP_WRITE, OP_VERIFY, OP_SCAN, OP_FORMAT, OP_READ_TRACK, OP_READ_ID };
enum stage { STAGE_NONE, STAGE_DELAY, STAGE_DISK, STAGE_HOST };

#define RESET_NS  (50 * NS_PER_US)
#define ACCESS_NS (20 * NS_PER_US)
#define SEEK_NS   (50 * NS_PER_US)
#define STEP_NS   (10 * NS_PER_US)

struct fdc {
	struct device dev;
	uint32_t iobase, irq, dma_channel; /* options */
	char *drive_id[UNITS];
	int drive_type[UNITS];
	int32_t bootindex[UNITS];

	struct floppy_drive drive[UNITS];
	uint8_t dor, tdr, dsr, specify[2], config, precompensation, perpendicular, lock, last_eot;
	uint8_t pcn[SELECTS];
	uint8_t phase;
	uint8_t command[9], command_pos, command_len;
	uint8_t result[10], result_pos, result_len;
	bool interrupt;
	bool reset_pending;           /* the polling interrupt after a reset is on its way */
	uint8_t reset_sense;          /* SENSE INTERRUPT STATUS still to be answered after it */
	uint8_t seek_busy, seek_done; /* a bit per drive select */
	uint8_t seek_st0[SELECTS];

	/* the data command in execution */
	uint8_t op, stage;
	uint8_t select, head;    /* side of the diskette; h is what the ID must say */
	uint8_t c, h, r, n, eot; /* the next sector to find */
	uint8_t sectors;         /* of this chunk */
	uint16_t verify_left;    /* VERIFY with a count */
	bool terminal;           /* TC came */
	bool mismatch;           /* READ TRACK: an ID was not the one asked for */
	uint32_t pos, len;       /* bytes moved to or from the host of those in this chunk */
	uint8_t buf[FLOPPY_MAX_SECTORS * FLOPPY_SECTOR];
	bool disk_wanted; /* a request waits for resume() */

	/* not saved */
	bool disk_busy, quiescing;
	struct block_req req;
	struct iovec iov;
	struct timer timer;
	struct i8237 *dma;
	struct bh dma_ready;
};

static void next_chunk(struct fdc *f);
static void chunk_done(struct fdc *f);
static void disk_start(struct fdc *f);

/* ---- small views ---- */

static struct floppy_drive *drive_of(struct fdc *f, unsigned select)
{
	return select < UNITS && f->drive[select].block ? &f->drive[select] : NULL;
}

static bool in_reset(const struct fdc *f)
{
	return !(f->dor & DOR_NRESET);
}

static bool non_dma(const struct fdc *f)
{
	return f->specify[1] & 1;
}

static bool writes_disk(const struct fdc *f)
{
	return f->op == OP_WRITE || f->op == OP_FORMAT;
}

static bool host_sends(const struct fdc *f)
{
	return f->op == OP_WRITE || f->op == OP_FORMAT || f->op == OP_SCAN;
}

static void update_irq(struct fdc *f)
{
	irq_set(&f->dev.irq[0], f->interrupt && f->dor & DOR_DMAGATE && !in_reset(f));
}

static void set_interrupt(struct fdc *f, bool on)
{
	f->interrupt = on;
	update_irq(f);
}

static void wait_ns(struct fdc *f, uint64_t ns)
{
	uint64_t at = clock_ns(VCLOCK_VIRTUAL) + ns;

	if (!timer_pending(&f->timer) || f->timer.deadline < at)
		timer_arm(&f->timer, at);
}

/* ---- phases ---- */

static void to_command_phase(struct fdc *f)
{
	f->phase = PHASE_COMMAND;
	f->command_pos = 0;
	f->command_len = 0;
	f->op = OP_NONE;
	f->stage = STAGE_NONE;
}

static void to_result_phase(struct fdc *f, unsigned len)
{
	f->phase = PHASE_RESULT;
	f->result_pos = 0;
	f->result_len = (uint8_t)len;
	f->op = OP_NONE;
	f->stage = STAGE_NONE;
}

static void single_result(struct fdc *f, uint8_t value)
{
	f->result[0] = value;
	to_result_phase(f, 1);
}

/* End of a data command, DS 6.1: status and the sector's ID, and the interrupt. */
static void finish(struct fdc *f, uint8_t st0, uint8_t st1, uint8_t st2)
{
	const uint8_t result[7] = {(uint8_t)(st0 | f->head << 2 | f->select),
				   (uint8_t)(st1 | (f->mismatch ? ST1_ND : 0)),
				   st2,
				   f->c,
				   f->h,
				   f->r,
				   f->n};

	if (f->dma)
		i8237_set_request(f->dma, f->dma_channel, false);
	memcpy(f->result, result, sizeof(result));
	to_result_phase(f, sizeof(result));
	set_interrupt(f, true);
}

/* End after sector f->r was transferred: the ID of the sector that would be next, DS table 5-3. */
static void finish_after(struct fdc *f, uint8_t st0, uint8_t st1, uint8_t st2)
{
	uint8_t head = f->head;

	if (f->r != f->eot) {
		f->r++;
	} else {
		f->r = 1;
		if (!(f->command[0] & CMD_MT)) {
			f->c++;
		} else {
			f->c = (uint8_t)(f->c + head);
			f->h ^= 1;
		}
	}
	finish(f, st0, st1, st2);
}

/* ---- data transfer ---- */

/* Is the sector wanted next under the head? Ends the command if not. */
static bool find_sector(struct fdc *f, const struct floppy_drive *d)
{
	const struct floppy_format *format = d->format;

	if (f->head >= format->heads || d->cylinder >= 2 * format->cylinders) {
		finish(f, ST0_ABNORMAL, ST1_MA, 0); /* that track was never formatted */
	} else if (!floppy_on_cylinder(d, f->c)) {
		finish(f, ST0_ABNORMAL, ST1_ND, f->c == 0xff ? ST2_BC : ST2_WC);
	} else if (f->h != f->head || f->n != FLOPPY_SIZE_CODE || f->r == 0 || f->r > format->sectors ||
		   floppy_offset(d, f->c, f->head, f->r) == UINT64_MAX) {
		finish(f, ST0_ABNORMAL, ST1_ND, 0);
	} else {
		return true;
	}
	return false;
}

/* READ TRACK takes the sectors as they come and only notes whether the first is the one asked for. */
static void begin_track(struct fdc *f, const struct floppy_drive *d)
{
	f->mismatch = f->r != 1 || f->h != f->head || f->n != FLOPPY_SIZE_CODE || !floppy_on_cylinder(d, f->c);
	f->h = f->head;
	f->r = 1;
	f->n = FLOPPY_SIZE_CODE;
	f->c = d->cylinder < d->format->cylinders ? d->cylinder : d->cylinder / 2;
}

static void next_chunk(struct fdc *f)
{
	struct floppy_drive *d = drive_of(f, f->select);
	unsigned last;

	if (!d || !d->format) { /* taken out meanwhile */
		finish(f, ST0_ABNORMAL | ST0_NR, ST1_MA, 0);
		return;
	}
	if (!find_sector(f, d))
		return;
	last = f->eot >= f->r ? MIN(f->eot, d->format->sectors) : d->format->sectors;
	if (f->op == OP_VERIFY && f->verify_left)
		last = MIN(last, (unsigned)f->r + f->verify_left - 1);
	/* One sector at a time where each decides on the next: scans, and a mark that is not the one asked for. */
	if (f->op == OP_SCAN || (f->command[0] & 0x1f) == 0x0c)
		last = f->r;
	while (floppy_offset(d, f->c, f->head, last) == UINT64_MAX)
		last--;
	f->sectors = (uint8_t)(last - f->r + 1);
	f->pos = 0;
	f->len = f->sectors * (uint32_t)FLOPPY_SECTOR;
	f->stage = f->op == OP_WRITE ? STAGE_HOST : STAGE_DISK;
}

/* ---- the host's side ---- */

static bool scan_matches(const struct fdc *f, bool *equal)
{
	unsigned kind = f->command[0] >> 2 & 3; /* 11h equal, 19h disk <= host, 1dh disk >= host */
	const uint8_t *host = f->buf, *disk = f->buf + FLOPPY_SECTOR;
	bool matches = true;

	*equal = true;
	for (unsigned i = 0; i < FLOPPY_SECTOR; i++) {
		if (host[i] == disk[i] || host[i] == 0xff || disk[i] == 0xff)
			continue;
		*equal = false;
		matches &= (kind == 2 && disk[i] < host[i]) || (kind == 3 && disk[i] > host[i]);
	}
	return matches;
}

static void scan_compare(struct fdc *f)
{
	unsigned step = f->command[8] == 2 ? 2 : 1;
	bool equal, matches = scan_matches(f, &equal);

	if (matches)
		finish_after(f, 0, 0, equal ? ST2_SH : 0);
	else if (f->terminal || (unsigned)f->r + step > f->eot)
		finish_after(f, 0, 0, ST2_SN);
	else {
		f->r = (uint8_t)(f->r + step);
		next_chunk(f);
	}
}

/* FORMAT TRACK: the host has sent the IDs. The image has room for its own layout only. */
static void format_track(struct fdc *f)
{
	struct floppy_drive *d = drive_of(f, f->select);
	uint64_t seen = 0;
	bool fits =
		d && d->format && f->pos == f->len && f->len == 4u * d->format->sectors && f->head < d->format->heads;

	for (uint32_t i = 0; fits && i < f->len; i += 4) {
		const uint8_t *id = f->buf + i;

		fits = floppy_on_cylinder(d, id[0]) && id[1] == f->head && id[2] >= 1 && id[2] <= d->format->sectors &&
		       id[3] == FLOPPY_SIZE_CODE && !(seen & BIT64(id[2]));
		seen |= fits ? BIT64(id[2]) : 0;
		f->c = id[0];
	}
	if (!fits || floppy_offset(d, f->c, f->head, d->format->sectors) == UINT64_MAX) {
		log_guest(&f->dev.guest_log, "fdc", "%s: the image cannot be formatted to another layout", f->dev.id);
		finish(f, ST0_ABNORMAL, ST1_ND, 0);
		return;
	}
	f->h = f->head;
	f->r = 1;
	f->sectors = d->format->sectors;
	f->len = f->pos = f->sectors * (uint32_t)FLOPPY_SECTOR;
	memset(f->buf, f->command[5], f->len);
	f->stage = STAGE_DISK;
}

static void host_done(struct fdc *f)
{
	uint32_t padded = ALIGN_UP(f->pos, (uint32_t)FLOPPY_SECTOR);

	if (f->dma)
		i8237_set_request(f->dma, f->dma_channel, false);
	if (non_dma(f))
		set_interrupt(f, false);
	switch (f->op) {
	case OP_WRITE: /* DS "Write data": the rest of a sector cut short by TC is filled with zeros */
		memset(f->buf + f->pos, 0, padded - f->pos);
		f->stage = STAGE_DISK;
		break;
	case OP_FORMAT:
		format_track(f);
		break;
	case OP_SCAN:
		scan_compare(f);
		break;
	default:
		chunk_done(f);
	}
}

static void dma_run(struct fdc *f)
{
	bool tc = false;

	if (!f->dma || !(f->dor & DOR_DMAGATE))
		return;
	i8237_set_request(f->dma, f->dma_channel, true);
	if (host_sends(f))
		f->pos += (uint32_t)i8237_from_memory(f->dma, f->dma_channel, f->buf + f->pos, f->len - f->pos, &tc);
	else
		f->pos += (uint32_t)i8237_to_memory(f->dma, f->dma_channel, f->buf + f->pos, f->len - f->pos, &tc);
	f->terminal |= tc;
	if (tc || f->pos == f->len)
		host_done(f);
}

/* Carry on with the stage just entered. Neither stage leads to itself, and disk requests complete later: no recursion.
 */
static void run(struct fdc *f)
{
	if (f->phase == PHASE_EXECUTION && f->stage == STAGE_HOST) {
		if (non_dma(f))
			set_interrupt(f, true);
		else
			dma_run(f);
	}
	if (f->phase == PHASE_EXECUTION && f->stage == STAGE_DISK)
		disk_start(f);
}

static void dma_became_ready(void *opaque)
{
	struct fdc *f = opaque;

	if (f->phase == PHASE_EXECUTION && f->stage == STAGE_HOST && !non_dma(f))
		run(f);
}

/* ---- the disk's side ---- */

static void disk_done(struct block_req *req, int ret)
{
	struct fdc *f = req->opaque;
	bool current = f->phase == PHASE_EXECUTION && f->stage == STAGE_DISK && !f->disk_wanted;
	enum block_error_action action;

	f->disk_busy = false;
	if (current && ret < 0) {
		action = block_error_action(drive_of(f, f->select)->block, req->op, -ret);
		if (action == BLOCK_ACTION_STOP) {
			f->disk_wanted = true; /* again in resume() */
			machine_request_stop_on_io_error(f->dev.board);
			current = false;
		} else if (action == BLOCK_ACTION_REPORT) {
			finish(f, ST0_ABNORMAL, ST1_DE, ST2_DD);
			current = false;
		}
	}
	if (current) {
		if (f->op == OP_READ || f->op == OP_READ_TRACK || f->op == OP_SCAN)
			f->stage = STAGE_HOST;
		else if (f->op == OP_FORMAT)
			finish(f, 0, 0, 0);
		else
			chunk_done(f);
		run(f);
	}
	if (f->quiescing && !f->disk_busy)
		device_quiesced(&f->dev);
}

static void disk_start(struct fdc *f)
{
	struct floppy_drive *d = drive_of(f, f->select);
	uint64_t offset;

	if (f->quiescing) {
		f->disk_wanted = true;
		return;
	}
	f->disk_wanted = false;
	/* The medium may have changed since the chunk was chosen. */
	if (!d || !d->format || floppy_offset(d, f->c, f->head, f->r + f->sectors - 1u) == UINT64_MAX) {
		finish(f, ST0_ABNORMAL | ST0_NR, ST1_MA, 0);
		return;
	}
	offset = floppy_offset(d, f->c, f->head, f->r);
	f->iov.iov_base = f->buf + (f->op == OP_SCAN ? FLOPPY_SECTOR : 0);
	f->iov.iov_len =
		f->op == OP_WRITE ? ALIGN_UP(f->pos, (uint32_t)FLOPPY_SECTOR) : f->sectors * (size_t)FLOPPY_SECTOR;
	f->req = (struct block_req){
		.op = writes_disk(f) ? BLOCK_WRITE : BLOCK_READ,
		.offset = offset,
		.len = f->iov.iov_len,
		.iov = &f->iov,
		.n_iov = 1,
		.lock = f->dev.lock,
		.done = disk_done,
		.opaque = f,
	};
	f->disk_busy = true;
	block_submit(d->block, &f->req);
}

/* All sectors of the chunk, or those before TC, are where they belong. */
static void chunk_done(struct fdc *f)
{
	unsigned done = f->terminal && f->op != OP_VERIFY ? (f->pos + FLOPPY_SECTOR - 1) / FLOPPY_SECTOR : f->sectors;
	bool counted = f->op == OP_VERIFY && f->verify_left;

	f->r = (uint8_t)(f->r + done - 1);
	if (counted) {
		f->verify_left = (uint16_t)(f->verify_left - done);
		f->terminal = !f->verify_left;
	}
	if ((f->command[0] & 0x1f) == 0x0c) { /* READ DELETED DATA ends with the first sector of the other kind */
		finish_after(f, 0, 0, ST2_CM);
	} else if (f->terminal) {
		finish_after(f, 0, 0, 0);
	} else if (f->r != f->eot) {
		f->r++;
		next_chunk(f);
	} else if (f->command[0] & CMD_MT && f->head == 0 && f->op != OP_READ_TRACK) {
		f->head = f->h = 1;
		f->r = 1;
		next_chunk(f);
	} else if (f->op == OP_VERIFY && !counted) {
		finish_after(f, 0, 0, 0);
	} else {
		finish_after(f, ST0_ABNORMAL, ST1_EN, 0);
	}
}

/* ---- start of the data commands ---- */

static void implied_seek(struct fdc *f, struct floppy_drive *d)
{
	if (!(f->config & CONFIG_EIS) || f->op == OP_FORMAT || f->op == OP_READ_ID)
		return;
	floppy_step_to(d, f->c);
	f->pcn[f->select] = f->c;
}

static void answer_read_id(struct fdc *f, const struct floppy_drive *d)
{
	unsigned cylinder = d->cylinder < d->format->cylinders ? d->cylinder : d->cylinder / 2;

	if (f->head >= d->format->heads || cylinder >= d->format->cylinders) {
		finish(f, ST0_ABNORMAL, ST1_MA, 0);
		return;
	}
	f->c = (uint8_t)cylinder;
	f->h = f->head;
	/* Whichever sector comes by: 300 turns a minute */
	f->r = (uint8_t)(clock_ns(VCLOCK_VIRTUAL) / (200 * NS_PER_MS / d->format->sectors) % d->format->sectors + 1);
	f->n = FLOPPY_SIZE_CODE;
	finish(f, 0, 0, 0);
}

/* The head has settled: DS 6.1. */
static void begin_access(struct fdc *f)
{
	struct floppy_drive *d = drive_of(f, f->select);

	if (f->disk_busy) { /* a request abandoned by a reset still uses the buffer */
		wait_ns(f, ACCESS_NS);
		return;
	}
	f->stage = STAGE_NONE;
	if (!d || !d->format) {
		finish(f, ST0_ABNORMAL | ST0_NR, ST1_MA, 0);
		return;
	}
	implied_seek(f, d);
	if (!(f->command[0] & CMD_MFM) || !floppy_rate_fits(d, f->dsr & DSR_RATE)) {
		finish(f, ST0_ABNORMAL, ST1_MA, 0); /* no address mark makes sense at this speed */
	} else if (writes_disk(f) && floppy_write_protected(d)) {
		finish(f, ST0_ABNORMAL, ST1_NW, 0);
	} else if (f->op == OP_READ_ID) {
		answer_read_id(f, d);
	} else if (f->op == OP_FORMAT) {
		f->pos = 0;
		f->len = 4u * f->command[3];
		f->stage = STAGE_HOST;
		if (!f->len)
			finish(f, ST0_ABNORMAL, ST1_ND, 0);
	} else if (f->op == OP_READ && (f->command[0] & 0x1f) == 0x0c && f->command[0] & CMD_SK) {
		finish(f, ST0_ABNORMAL, ST1_ND, 0); /* every sector of the other kind is skipped: none is left */
	} else {
		if (f->op == OP_READ_TRACK)
			begin_track(f, d);
		next_chunk(f);
	}
	if (f->phase == PHASE_EXECUTION)
		run(f);
}

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
	wait_ns(f, ACCESS_NS);
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
	to_command_phase(f); /* no result phase: SENSE INTERRUPT STATUS brings the status */
	wait_ns(f, SEEK_NS + steps * STEP_NS);
}

static void cmd_recalibrate(struct fdc *f)
{
	unsigned select = f->command[1] & 3, cylinder = 0;
	struct floppy_drive *d = drive_of(f, select);
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
	struct floppy_drive *d = drive_of(f, select);
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
		single_result(f, ST0_INVALID);
		return;
	}
	f->result[1] = f->pcn[select];
	to_result_phase(f, 2);
	set_interrupt(f, f->seek_done);
}

static void cmd_sense_drive(struct fdc *f)
{
	struct floppy_drive *d = drive_of(f, f->command[1] & 3);
	uint8_t st3 = (uint8_t)(ST3_ALWAYS | (f->command[1] & 7));

	if (d && floppy_write_protected(d))
		st3 |= ST3_WP;
	if (d && d->cylinder == 0)
		st3 |= ST3_T0;
	single_result(f, st3);
}

static void cmd_specify(struct fdc *f)
{
	f->specify[0] = f->command[1];
	f->specify[1] = f->command[2];
	to_command_phase(f);
}

static void cmd_configure(struct fdc *f)
{
	f->config = f->command[2] & 0x7f;
	f->precompensation = f->command[3];
	to_command_phase(f);
}

static void cmd_perpendicular(struct fdc *f)
{
	if (f->command[1] & 0x80) /* OW: the drive bits count */
		f->perpendicular = f->command[1] & 0x3f;
	else
		f->perpendicular = (uint8_t)((f->perpendicular & 0x3c) | (f->command[1] & 3));
	to_command_phase(f);
}

static void cmd_lock(struct fdc *f)
{
	f->lock = f->command[0] >> 7;
	single_result(f, (uint8_t)(f->lock << 4));
}

static void cmd_version(struct fdc *f)
{
	single_result(f, 0x90); /* enhanced controller */
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
	to_result_phase(f, 10);
}

static const struct command {
	uint8_t code, mask, parameters;
	void (*run)(struct fdc *f);
} commands[] = {
	{0x06, 0x1f, 8, cmd_read},          {0x0c, 0x1f, 8, cmd_read},  /* deleted data */
	{0x05, 0x3f, 8, cmd_write},         {0x09, 0x3f, 8, cmd_write}, /* deleted data */
	{0x02, 0x9f, 8, cmd_read_track},    {0x16, 0x1f, 8, cmd_verify},      {0x11, 0x1f, 8, cmd_scan},
	{0x19, 0x1f, 8, cmd_scan},          {0x1d, 0x1f, 8, cmd_scan},        {0x0d, 0xbf, 5, cmd_format},
	{0x0a, 0xbf, 1, cmd_read_id},       {0x07, 0xff, 1, cmd_recalibrate}, {0x08, 0xff, 0, cmd_sense_interrupt},
	{0x03, 0xff, 2, cmd_specify},       {0x04, 0xff, 1, cmd_sense_drive}, {0x0f, 0xff, 2, cmd_seek},
	{0x8f, 0xbf, 2, cmd_relative_seek}, {0x13, 0xff, 3, cmd_configure},   {0x12, 0xff, 1, cmd_perpendicular},
	{0x14, 0x7f, 0, cmd_lock},          {0x10, 0xff, 0, cmd_version},     {0x0e, 0xff, 0, cmd_dumpreg},
};

static const struct command *find_command(uint8_t code)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if ((code & commands[i].mask) == commands[i].code)
			return &commands[i];
	return NULL;
}

/* ---- reset ---- */

static void abandon(struct fdc *f)
{
	if (f->dma)
		i8237_set_request(f->dma, f->dma_channel, false);
	f->disk_wanted = false;
	to_command_phase(f);
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
	update_irq(f);
	if (release)
		wait_ns(f, RESET_NS);
}

static void fdc_timer(void *opaque)
{
	struct fdc *f = opaque;

	if (f->reset_pending) {
		f->reset_pending = false;
		if (!(f->config & CONFIG_POLL)) {
			f->reset_sense = SELECTS;
			set_interrupt(f, true);
		}
	}
	if (f->seek_busy) {
		f->seek_done |= f->seek_busy;
		f->seek_busy = 0;
		set_interrupt(f, true);
	}
	if (f->stage == STAGE_DELAY)
		begin_access(f);
}

/* ---- registers ---- */

static void fifo_write(struct fdc *f, uint8_t v)
{
	const struct command *command;

	if (f->phase == PHASE_EXECUTION && f->stage == STAGE_HOST && non_dma(f) && host_sends(f)) {
		f->buf[f->pos++] = v;
		set_interrupt(f, false);
		if (f->pos == f->len)
			host_done(f);
		run(f);
		return;
	}
	if (f->phase != PHASE_COMMAND) {
		log_guest(&f->dev.guest_log, "fdc", "%s: %#x written to the FIFO while it is not expected", f->dev.id,
			  v);
		return;
	}
	if (f->command_pos == 0) {
		command = find_command(v);
		if (!command) {
			f->command[0] = v;
			single_result(f, ST0_INVALID);
			return;
		}
		if (command->run != cmd_sense_interrupt) /* whoever goes on has seen the reset */
			f->reset_sense = 0;
		f->command_len = (uint8_t)(command->parameters + 1);
	}
	f->command[f->command_pos++] = v;
	if (f->command_pos == f->command_len)
		find_command(f->command[0])->run(f);
}

static uint8_t fifo_read(struct fdc *f)
{
	uint8_t v;

	if (f->phase == PHASE_EXECUTION && f->stage == STAGE_HOST && non_dma(f) && !host_sends(f)) {
		v = f->buf[f->pos++];
		set_interrupt(f, false);
		if (f->pos == f->len)
			host_done(f);
		run(f);
		return v;
	}
	if (f->phase != PHASE_RESULT)
		return 0xff;
	if (f->result_pos == 0 && !f->seek_done) /* DS 6.3: the first byte read clears the interrupt */
		set_interrupt(f, false);
	v = f->result[f->result_pos++];
	if (f->result_pos == f->result_len)
		to_command_phase(f);
	return v;
}

static uint8_t msr_read(const struct fdc *f)
{
	uint8_t v = f->seek_busy;

	if (in_reset(f))
		return 0;
	switch (f->phase) {
	case PHASE_COMMAND:
		return (uint8_t)(v | MSR_RQM | (f->command_pos ? MSR_CB : 0));
	case PHASE_RESULT:
		return v | MSR_RQM | MSR_DIO | MSR_CB;
	default:
		if (f->stage == STAGE_HOST && non_dma(f))
			v |= (uint8_t)(MSR_RQM | MSR_NONDMA | (host_sends(f) ? 0 : MSR_DIO));
		return v | MSR_CB;
	}
}

/* DS 2.1.1 and 2.1.2, as a PS/2 sees them; lines are active low. */
static uint8_t sra_read(struct fdc *f)
{
	struct floppy_drive *d = drive_of(f, f->dor & DOR_SELECT);
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
		d = drive_of(f, f->dor & DOR_SELECT);
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
	update_irq(f);
	if (v & ~old & DOR_DMAGATE && f->stage == STAGE_HOST)
		run(f);
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
		if (v & DSR_SWRESET && !in_reset(f))
			software_reset(f, true);
		break;
	case FIFO:
		if (!in_reset(f))
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

	update_irq(f);
	timer_settle(&f->timer);
	if (f->dma && f->phase == PHASE_EXECUTION && f->stage == STAGE_HOST && !non_dma(f))
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
		disk_start(f);
}

static int fdc_create(struct device *dev, struct err *e)
{
	struct fdc *f = DEVICE(dev, struct fdc);
	struct block *block;
	int ret;

	device_timer_init(dev, &f->timer, VCLOCK_VIRTUAL, fdc_timer);
	device_bh_init(dev, &f->dma_ready, dma_became_ready);
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
		sane = f->command_pos ? f->command_pos < f->command_len && find_command(f->command[0]) &&
						f->command_len == find_command(f->command[0])->parameters + 1
				      : f->command_len == 0;
	else if (f->phase == PHASE_RESULT)
		sane = f->result_pos < f->result_len;
	else
		sane = f->op != OP_NONE && f->stage != STAGE_NONE && find_command(f->command[0]);
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
