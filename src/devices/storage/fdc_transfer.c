/*
 * 82077AA: the execution phase of commands that move data. DS is the data sheet of fdc.c.
 *
 * DELAY (head) -> for each chunk of sectors on a track: DISK then HOST for reads, HOST then DISK for writes -> result
 * phase. HOST waits for the DMA controller or the CPU, DISK for the block backend.
 */
#include "fdc.h"

static void next_chunk(struct fdc *f);
static void chunk_done(struct fdc *f);

static bool writes_disk(const struct fdc *f)
{
	return f->op == OP_WRITE || f->op == OP_FORMAT;
}

/* ---- the end ---- */

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
	fdc_to_result_phase(f, sizeof(result));
	fdc_set_interrupt(f, true);
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

/* ---- which sectors are next ---- */

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
	struct floppy_drive *d = fdc_drive(f, f->select);
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
	struct floppy_drive *d = fdc_drive(f, f->select);
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

void fdc_host_done(struct fdc *f)
{
	uint32_t padded = ALIGN_UP(f->pos, (uint32_t)FLOPPY_SECTOR);

	if (f->dma)
		i8237_set_request(f->dma, f->dma_channel, false);
	if (fdc_non_dma(f))
		fdc_set_interrupt(f, false);
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
	if (fdc_host_sends(f))
		f->pos += (uint32_t)i8237_from_memory(f->dma, f->dma_channel, f->buf + f->pos, f->len - f->pos, &tc);
	else
		f->pos += (uint32_t)i8237_to_memory(f->dma, f->dma_channel, f->buf + f->pos, f->len - f->pos, &tc);
	f->terminal |= tc;
	if (tc || f->pos == f->len)
		fdc_host_done(f);
}

/* Carry on with the stage just entered. Neither stage leads to itself, and disk requests complete later: no recursion.
 */
void fdc_run(struct fdc *f)
{
	if (f->phase == PHASE_EXECUTION && f->stage == STAGE_HOST) {
		if (fdc_non_dma(f))
			fdc_set_interrupt(f, true);
		else
			dma_run(f);
	}
	if (f->phase == PHASE_EXECUTION && f->stage == STAGE_DISK)
		fdc_disk_start(f);
}

void fdc_dma_became_ready(void *opaque)
{
	struct fdc *f = opaque;

	if (f->phase == PHASE_EXECUTION && f->stage == STAGE_HOST && !fdc_non_dma(f))
		fdc_run(f);
}

/* ---- the disk's side ---- */

static void disk_done(struct block_req *req, int ret)
{
	struct fdc *f = req->opaque;
	bool current = f->phase == PHASE_EXECUTION && f->stage == STAGE_DISK && !f->disk_wanted;
	enum block_error_action action;

	f->disk_busy = false;
	if (current && ret < 0) {
		action = block_error_action(fdc_drive(f, f->select)->block, req->op, -ret);
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
		fdc_run(f);
	}
	if (f->quiescing && !f->disk_busy)
		device_quiesced(&f->dev);
}

void fdc_disk_start(struct fdc *f)
{
	struct floppy_drive *d = fdc_drive(f, f->select);
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

/* ---- the head has settled ---- */

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
void fdc_begin_access(struct fdc *f)
{
	struct floppy_drive *d = fdc_drive(f, f->select);

	if (f->disk_busy) { /* a request abandoned by a reset still uses the buffer */
		fdc_wait(f, ACCESS_NS);
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
		fdc_run(f);
}
