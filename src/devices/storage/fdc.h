/* The floppy controller's inside, shared by fdc.c (registers, reset, life cycle), fdc_commands.c and fdc_transfer.c. */
#ifndef STORAGE_FDC_H
#define STORAGE_FDC_H

#include "../bus/i8237.h"
#include "floppy.h"

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
enum { CMD_SENSE_INTERRUPT = 0x08 };
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

/* ---- small views ---- */

static inline struct floppy_drive *fdc_drive(struct fdc *f, unsigned select)
{
	return select < UNITS && f->drive[select].block ? &f->drive[select] : NULL;
}

static inline bool fdc_in_reset(const struct fdc *f)
{
	return !(f->dor & DOR_NRESET);
}

static inline bool fdc_non_dma(const struct fdc *f)
{
	return f->specify[1] & 1;
}

static inline bool fdc_host_sends(const struct fdc *f)
{
	return f->op == OP_WRITE || f->op == OP_FORMAT || f->op == OP_SCAN;
}

/* ---- fdc.c ---- */
void fdc_update_irq(struct fdc *f);
void fdc_set_interrupt(struct fdc *f, bool on);
/* fdc_begin_access() or what else is due, not before so many nanoseconds are over. */
void fdc_wait(struct fdc *f, uint64_t ns);
void fdc_to_command_phase(struct fdc *f);
void fdc_to_result_phase(struct fdc *f, unsigned len); /* of f->result */

/* ---- fdc_transfer.c: a data command from the head's settling to its result ---- */
void fdc_begin_access(struct fdc *f);
void fdc_host_done(struct fdc *f); /* all bytes of the chunk went to or came from the host */
void fdc_disk_start(struct fdc *f);
/* Carry on with the stage just entered. */
void fdc_run(struct fdc *f);
void fdc_dma_became_ready(void *opaque);

/* ---- fdc_commands.c ---- */
struct fdc_command {
	uint8_t code, mask, parameters;
	void (*run)(struct fdc *f);
};
const struct fdc_command *fdc_find_command(uint8_t code); /* NULL: invalid */
void fdc_single_result(struct fdc *f, uint8_t value);

#endif
