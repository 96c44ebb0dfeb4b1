/*
 * IDE inside the storage folder: what the controller (piix3_ide.c), the channel (ide_core.c) and the drives (ata.c,
 * atapi.c) share. One mutex, the controller's, covers all of it.
 *
 * A command runs as an "operation" that moves op_left bytes between the medium (at op_pos) and the guest, in chunks:
 * one host request at a time into the PIO buffer or, for DMA, straight into guest RAM. Everything an operation needs to
 * go on is plain data in struct ide_drive, so a drive can be saved between two chunks: in the middle of a PIO data
 * phase, or stopped by an I/O error and to be retried.
 */
#ifndef DEVICES_STORAGE_IDE_H
#define DEVICES_STORAGE_IDE_H

#include "vmm/block.h"
#include "vmm/device.h"

/* Status register */
enum { ST_ERR = 0x01, ST_DRQ = 0x08, ST_DSC = 0x10, ST_DF = 0x20, ST_DRDY = 0x40, ST_BSY = 0x80 };
/* Error register */
enum { ER_ABRT = 0x04, ER_IDNF = 0x10, ER_UNC = 0x40 };
/* Device/head register; interrupt reason (ATAPI: in the sector count register) */
enum { DH_DEV = 0x10, DH_LBA = 0x40, IR_CD = 0x01, IR_IO = 0x02 };
/* Device control register */
enum { DC_NIEN = 0x02, DC_SRST = 0x04, DC_HOB = 0x80 };
/* Command block, offsets from 1F0h */
enum { REG_DATA, REG_FEATURES, REG_COUNT, REG_LBA_LOW, REG_LBA_MID, REG_LBA_HIGH, REG_DEVICE, REG_COMMAND };

enum {
	IDE_SECTOR = 512,
	CD_SECTOR = 2048,
	CD_RAW_SECTOR = 2352,
	IDE_BUFFER = 128 * 1024, /* host requests of PIO transfers read ahead and gather this much */
	IDE_MAX_IOV = 256,
	IDE_MAX_MULTIPLE = 16,
	IDE_MAX_DMA_CHUNK = 1024 * 1024,
};

enum ide_op {
	OP_NONE,
	OP_PIO_READ,
	OP_PIO_WRITE,
	OP_DMA_READ, /* medium to guest RAM without a copy (ATA and ATAPI) */
	OP_DMA_WRITE,
	OP_VERIFY, /* read and forget */
	OP_FLUSH,
	OP_TRIM,      /* DATA SET MANAGEMENT: list by DMA, then one discard per entry */
	OP_PACKET,    /* the guest writes a command packet */
	OP_CD_READ,   /* ATAPI PIO read, or DMA of a sector format that must be assembled */
	OP_REPLY,     /* ATAPI data-in from the buffer */
	OP_MODE_DATA, /* ATAPI data-out into the buffer: MODE SELECT parameter list */
	OP_MAX = OP_MODE_DATA
};
enum ide_step {
	STEP_IDLE,
	STEP_IO,       /* a host request is in flight; never saved */
	STEP_DATA,     /* PIO data phase: the guest moves buf[buf_pos..buf_end) */
	STEP_WAIT_DMA, /* DRQ is up, the bus master has not been started */
	STEP_HELD,     /* to be issued when the machine runs again */
	STEP_MAX = STEP_HELD
};

/* Where the bus master is in its descriptor table. */
struct ide_prd {
	uint32_t next; /* guest address of the next descriptor */
	uint32_t base; /* rest of the current one */
	uint32_t left;
	uint32_t fetched; /* descriptors read: bounds a table without end mark */
	bool eot;         /* the current one is the last */
};

struct ide_channel;
struct piix3_ide;

struct ide_regs { /* "hob": the previous contents, for 48-bit addresses */
	uint8_t feature, count, lba_low, lba_mid, lba_high, device;
	uint8_t hob_feature, hob_count, hob_lba_low, hob_lba_mid, hob_lba_high;
	uint8_t error, status;
};

struct ide_drive {
	struct device dev;
	struct ide_channel *ch;
	unsigned index; /* 0 or 1 on its channel */
	bool is_cd;
	struct block *blk;

	/* properties */
	char *drive, *serial, *version, *model;
	uint64_t wwn;
	int32_t bootindex;
	uint32_t cyls, heads, secs, physical_block_size, logical_block_size, rotation_rate;
	int bios_chs_trans;
	int rerror, werror;   /* enum block_on_error; ON_ERROR_AUTO: the drive's */
	bool own_block;       /* blk is an empty drive made for this device */
	int write_cache_prop; /* 0 off, 1 on, 2 auto: the drive's option */

	/* registers and mode */
	struct ide_regs r;
	bool intrq;                    /* what this drive drives while selected */
	uint8_t mult;                  /* sectors per block of READ/WRITE MULTIPLE; 0: off */
	uint8_t udma_mode, mwdma_mode; /* SET FEATURES transfer mode as IDENTIFY shows it: mode + 1; 0: none */
	bool read_ahead, write_cache;
	bool standby, sleeping;
	uint8_t cur_heads, cur_secs; /* INITIALIZE DEVICE PARAMETERS */
	bool smart_enabled, smart_autosave;
	uint8_t smart_selftests;
	uint8_t smart_log[21 * 24];

	/* ATAPI */
	uint8_t sense_key, asc, ascq;
	uint8_t ua_asc;     /* pending unit attention: its additional sense code; 0: none */
	bool change_unseen; /* the medium changed and no command has failed for it yet */
	bool event_new_media, event_removed, event_eject;
	bool tray_open, tray_locked;
	bool packet_dma;
	uint8_t packet[12];
	uint8_t cd_fields;   /* READ CD: which parts of a sector (byte 9 of the packet) */
	uint32_t byte_limit; /* most bytes per DRQ block, from the PACKET command */
	uint32_t sense_lba;  /* information field of the sense data; valid if sense_lba_valid */
	bool sense_lba_valid;

	/* the operation */
	uint8_t command; /* ATA command code that runs or ran last */
	uint8_t op, step;
	bool lba48;        /* results go to the 48-bit registers */
	bool fua, careful; /* careful: one sector per request, to find the bad one */
	uint64_t op_pos, op_left;
	uint32_t drq_size; /* most bytes per DRQ block */
	uint32_t buf_pos, buf_end, buf_len;

	/* not saved: the host request */
	struct block_req req;
	struct iovec iov[IDE_MAX_IOV];
	int n_iov;
	uint64_t chunk;
	struct ide_prd prd_after;
	bool busy, reset_pending, quiescing;

	uint8_t buf[IDE_BUFFER];
};

struct ide_channel {
	struct piix3_ide *ctl;
	unsigned index;
	struct ide_drive *drive[2];
	uint8_t devctl;
	uint8_t selected;
	/* bus master (BMICX, BMISX, BMIDTPX) */
	uint8_t bm_command, bm_status;
	uint32_t bm_table;
	struct ide_prd prd;
};

/* Values of werror= and rerror= on the device: enum block_on_error's names, then "auto". */
enum { ON_ERROR_AUTO = 4 };
extern const char *const ide_on_error_names[];
/* What both kinds of drives are made of. */
#define IDE_IDENTITY_PROPS(model_name)                                                         \
	PROP(struct ide_drive, serial, PROP_STR,                                               \
	     .help = "Serial number, at most 20 characters; default: the drive's or VM0000n"), \
		PROP_NAMED(struct ide_drive, "ver", version, PROP_STR, .def_str = "1.0",       \
			   .help = "Firmware revision, at most 8 characters"),                 \
		PROP(struct ide_drive, model, PROP_STR, .def_str = model_name,                 \
		     .help = "Model name, at most 40 characters")
#define IDE_BOOTINDEX_PROP \
	PROP(struct ide_drive, bootindex, PROP_I32, .def = (uint64_t)-1, .help = "Boot order, lowest first; -1: none")
#define IDE_COMMON_STATE                                                                                          \
	{                                                                                                         \
		.name = "common", .type = STATE_STRUCT, .since = 1, .count = 1, .size = sizeof(struct ide_drive), \
		.sub = &ide_drive_common_state                                                                    \
	}
#define IDE_DRIVE_CLASS                                                                                  \
	.bus = BUS_IDE, .category = "Storage", .size = sizeof(struct ide_drive), .user_creatable = true, \
	.quiesce = ide_drive_quiesce, .resume = ide_drive_resume
#define IDE_ON_ERROR_PROPS                                                                                    \
	PROP(struct ide_drive, rerror, PROP_ENUM, .def = ON_ERROR_AUTO, .values = ide_on_error_names,         \
	     .help = "What to do when reading fails; auto: as the drive says"),                               \
		PROP(struct ide_drive, werror, PROP_ENUM, .def = ON_ERROR_AUTO, .values = ide_on_error_names, \
		     .help = "What to do when writing fails; auto: as the drive says")

extern const struct state_table ide_drive_common_state;
extern const struct device_class device_class_ata, device_class_atapi;

/* ---- controller (piix3_ide.c) ---- */
enum { BM_START = 0x01, BM_TO_MEMORY = 0x08 };
enum { BM_ACTIVE = 0x01, BM_ERROR = 0x02, BM_INTERRUPT = 0x04 };

/* Plug a drive in (create): finds channel and unit from bus= and unit=. */
int ide_attach(struct ide_drive *d, struct err *e);
void ide_detach(struct ide_drive *d);
/* INTRQ line of a channel. */
void ide_channel_irq(struct ide_channel *ch, bool level);
/*
 * Host addresses for the next `want` bytes of the descriptor table, from *cur on, which moves. *got < want: the table
 * ended (*cur->eot) or the array was full; then *got is a multiple of 512. -EFAULT: not RAM.
 */
int bm_map(struct ide_channel *ch, struct ide_prd *cur, enum dma_dir dir, uint64_t want, struct iovec *iov, int *n_iov,
	   uint64_t *got);
void bm_unmap(struct ide_channel *ch, enum dma_dir dir, const struct iovec *iov, int n_iov, uint64_t done);
/* Copy between buf and the descriptor table; returns bytes moved (less: the table ended) or -EFAULT. */
int64_t bm_copy(struct ide_channel *ch, enum dma_dir dir, void *buf, uint64_t len);
/* The drive's transfer ended. underflow: the table was too short. */
void bm_finish(struct ide_channel *ch, bool underflow);
void bm_fail(struct ide_channel *ch);            /* descriptor or data address is not memory */
bool bm_mastering(const struct ide_channel *ch); /* PCI bus master bit */

/* ---- channel (ide_core.c) ---- */
uint64_t ide_read_command_block(struct ide_channel *ch, unsigned offset, unsigned size);
void ide_write_command_block(struct ide_channel *ch, unsigned offset, uint64_t value, unsigned size);
uint32_t ide_read_data_string(struct ide_channel *ch, void *buf, unsigned size, uint32_t count);
uint32_t ide_write_data_string(struct ide_channel *ch, const void *buf, unsigned size, uint32_t count);
uint8_t ide_alt_status(struct ide_channel *ch);
void ide_write_device_control(struct ide_channel *ch, uint8_t value);
void ide_channel_reset(struct ide_channel *ch);  /* registers only */
void ide_channel_settle(struct ide_channel *ch); /* drive the interrupt line */
/* The bus master was started: serve a drive that waits for it. */
void ide_dma_started(struct ide_channel *ch);

/* Drive life cycle, shared by both classes */
void ide_drive_reset(struct ide_drive *d, bool power_on);
void ide_drive_quiesce(struct device *dev);
void ide_drive_resume(struct device *dev);
int ide_drive_post_load(void *obj, uint16_t version, struct err *e);
int ide_drive_claim(struct ide_drive *d, struct err *e);

/* Ends of commands */
void ide_finish(struct ide_drive *d);               /* success, with interrupt */
void ide_abort(struct ide_drive *d, uint8_t error); /* failure: ERR and the error register, with interrupt */
void ide_set_intrq(struct ide_drive *d);
/* Start the operation prepared in d->op, op_pos, op_left, drq_size. */
void ide_start(struct ide_drive *d);
/* Issue the next host request of the operation, or hold it while the machine is being stopped. */
void ide_next_chunk(struct ide_drive *d);
/* The guest reads or writes the next DRQ block of buf[buf_pos..buf_len); then the operation goes on by itself. */
void ide_data_in(struct ide_drive *d);
void ide_data_out(struct ide_drive *d, bool interrupt);
void ide_set_signature(struct ide_drive *d);
void ide_dma_failed(struct ide_drive *d); /* the bus master met an address without memory */

/* ---- ata.c ---- */
void ata_read_write(struct ide_drive *d);
void ata_progress(struct ide_drive *d, uint64_t bytes); /* address and count registers follow the transfer */
void ata_locate_error(struct ide_drive *d);             /* address registers show the failing sector */
void ata_set_features(struct ide_drive *d);
void ata_identify(struct ide_drive *d);
void ata_check_power(struct ide_drive *d);
void ata_power(struct ide_drive *d);
void ata_flush(struct ide_drive *d);
void ata_set_multiple(struct ide_drive *d);
void ata_init_params(struct ide_drive *d);
void ata_seek(struct ide_drive *d);
void ata_native_max(struct ide_drive *d);
void ata_smart(struct ide_drive *d);
void ata_data_set_management(struct ide_drive *d);
void ata_trim_next(struct ide_drive *d);
void ata_trim_entry(struct ide_drive *d, uint64_t *offset, uint64_t *len);
void ata_reset(struct ide_drive *d, bool power_on);
/* ata_identify.c */
void ata_fill_identify(const struct ide_drive *d, uint8_t page[IDE_SECTOR]);
void ata_put_string(uint8_t *field, size_t len, const char *text); /* ATA order: bytes swapped, space-padded */
void ata_smart_data(struct ide_drive *d, uint8_t page[IDE_SECTOR]);
void ata_smart_thresholds(uint8_t page[IDE_SECTOR]);
bool ata_smart_read_log(struct ide_drive *d, uint8_t log, uint8_t page[IDE_SECTOR]); /* false: no such log */
bool ata_smart_self_test(struct ide_drive *d, uint8_t kind);
int ata_guess_geometry(struct ide_drive *d, struct err *e);

/* ---- atapi.c ---- */
void atapi_identify_packet(struct ide_drive *d);
void atapi_identify_refused(struct ide_drive *d); /* ATA commands a packet device answers with its signature */
void atapi_packet(struct ide_drive *d);
void atapi_device_reset(struct ide_drive *d);
void atapi_run_packet(struct ide_drive *d);
void atapi_read_done(struct ide_drive *d); /* a chunk is in buf */
void atapi_next_chunk(struct ide_drive *d);
void atapi_complete(struct ide_drive *d);
void atapi_check(struct ide_drive *d, uint8_t key, uint8_t asc, uint8_t ascq); /* CHECK CONDITION */
void atapi_io_error(struct ide_drive *d, int err);
void atapi_mode_select(struct ide_drive *d);
void atapi_reset(struct ide_drive *d, bool power_on);
bool atapi_medium_present(const struct ide_drive *d);
uint32_t atapi_sector_size(const struct ide_drive *d); /* bytes per sector of the running READ CD */
bool atapi_move_tray(struct ide_drive *d, bool open);  /* false: locked */
/* atapi_commands.c: carry out d->packet */
void atapi_command(struct ide_drive *d);
void atapi_reply(struct ide_drive *d, uint32_t len, uint32_t allocation);
void atapi_start_read(struct ide_drive *d, uint64_t lba, uint32_t sectors, uint8_t fields);
/* cd_sector.c: a Mode 1 raw sector around 2048 bytes of user data at raw + 16 (ECMA-130 clause 14) */
void cd_make_raw_sector(uint8_t raw[CD_RAW_SECTOR], uint32_t lba);
uint32_t cd_lba_to_msf(uint32_t lba); /* minute << 16 | second << 8 | frame, with the 2-second pregap */

#endif
