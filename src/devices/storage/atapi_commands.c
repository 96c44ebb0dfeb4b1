/*
 * The command packets of a CD/DVD-ROM drive.
 *
 * Sources: MMC-5 (T10/1675D) clause 6 for the commands and 7 for mode pages; SPC-3 for INQUIRY and REQUEST SENSE;
 * SFF-8020i for what old drivers use. A one-track, one-session disc: what an ISO image is.
 */
#include "src/devices/storage/ide.h"

enum { NOT_READY = 2, ILLEGAL_REQUEST = 5, UNIT_ATTENTION = 6 };
enum { ASC_OUT_OF_RANGE = 0x21, ASC_INVALID_FIELD = 0x24, ASC_NO_MEDIUM = 0x3a };

/* ---- common parts ---- */

static uint32_t disc_sectors(const struct ide_drive *d)
{
	return (uint32_t)MIN(block_size(d->blk) / CD_SECTOR, (uint64_t)UINT32_MAX);
}

/* A disc larger than an 80-minute CD is a DVD. */
static bool is_dvd(const struct ide_drive *d)
{
	return atapi_medium_present(d) && disc_sectors(d) > 80 * 60 * 75;
}

static void invalid_field(struct ide_drive *d)
{
	atapi_check(d, ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0x00);
}

static void no_medium(struct ide_drive *d)
{
	d->change_unseen = false;
	atapi_check(d, NOT_READY, ASC_NO_MEDIUM, d->tray_open ? 0x02 : 0x01);
}

static uint8_t *clear_reply(struct ide_drive *d, size_t len)
{
	return memset(d->buf, 0, len);
}

/* ---- state of the unit ---- */

static void test_unit_ready(struct ide_drive *d)
{
	atapi_complete(d);
}

static void request_sense(struct ide_drive *d)
{
	uint8_t *p = clear_reply(d, 18);

	if (!d->sense_key && d->ua_asc) { /* a pending attention may be fetched this way too */
		d->sense_key = UNIT_ATTENTION;
		d->asc = d->ua_asc;
		d->ua_asc = 0;
	}
	p[0] = 0x70 | (d->sense_lba_valid ? 0x80 : 0);
	p[2] = d->sense_key;
	if (d->sense_lba_valid)
		put_be32(p + 3, d->sense_lba);
	p[7] = 10;
	p[12] = d->asc;
	p[13] = d->ascq;
	d->sense_key = d->asc = d->ascq = 0;
	d->sense_lba_valid = false;
	atapi_reply(d, 18, d->packet[4]);
}

static void pad(uint8_t *field, size_t len, const char *text)
{
	for (size_t i = 0; i < len; i++)
		field[i] = text && *text ? (uint8_t)*text++ : ' ';
}

static void inquiry(struct ide_drive *d)
{
	uint8_t *p = clear_reply(d, 36);

	if (d->packet[1] & 1 || d->packet[2]) { /* vital product data: optional */
		invalid_field(d);
		return;
	}
	p[0] = 0x05; /* CD/DVD */
	p[1] = 0x80; /* removable */
	p[2] = 0x00; /* ATAPI devices claim no SCSI version */
	p[3] = 0x21; /* ATAPI version 2, response format 1 */
	p[4] = 31;
	pad(p + 8, 8, "VMM");
	pad(p + 16, 16, d->model);
	pad(p + 32, 4, d->version);
	atapi_reply(d, 36, get_be16(d->packet + 3));
}

static void start_stop_unit(struct ide_drive *d)
{
	bool load_eject = d->packet[4] & 2, start = d->packet[4] & 1;

	if (d->packet[4] & 0xf0 || !load_eject) { /* power conditions; spinning up or down */
		atapi_complete(d);
		return;
	}
	if (atapi_move_tray(d, !start))
		atapi_complete(d);
	else
		atapi_check(d, ILLEGAL_REQUEST, 0x53, 0x02); /* MEDIUM REMOVAL PREVENTED */
}

static void prevent_allow(struct ide_drive *d)
{
	d->tray_locked = d->packet[4] & 1;
	atapi_complete(d);
}

static void get_event_status(struct ide_drive *d)
{
	uint8_t *p = clear_reply(d, 8), code = 0;
	uint32_t allocation = get_be16(d->packet + 7);

	if (!(d->packet[1] & 1)) { /* asynchronous reporting: not on ATAPI */
		invalid_field(d);
		return;
	}
	p[3] = 0x10; /* classes supported: media */
	if (!(d->packet[4] & 0x10)) {
		put_be16(p, 2);
		p[2] = 0x80; /* no event available */
		atapi_reply(d, 4, allocation);
		return;
	}
	if (d->event_eject) {
		code = 1;
		d->event_eject = false;
	} else if (d->event_removed) {
		code = 3;
		d->event_removed = false;
	} else if (d->event_new_media) {
		code = 2;
		d->event_new_media = false;
	}
	put_be16(p, 6);
	p[2] = 0x04; /* media class */
	p[4] = code;
	p[5] = (d->tray_open ? 1 : 0) | (atapi_medium_present(d) ? 2 : 0);
	atapi_reply(d, 8, allocation);
}

static void mechanism_status(struct ide_drive *d)
{
	uint8_t *p = clear_reply(d, 8);

	p[1] = d->tray_open ? 0x10 : 0x00; /* door open */
	p[5] = 1;                          /* one slot, no changer table */
	atapi_reply(d, 8, get_be16(d->packet + 8));
}

/* ---- reading ---- */

static void read_capacity(struct ide_drive *d)
{
	uint8_t *p = clear_reply(d, 8);

	put_be32(p, disc_sectors(d) ? disc_sectors(d) - 1 : 0);
	put_be32(p + 4, CD_SECTOR);
	atapi_reply(d, 8, 8);
}

static bool range_ok(struct ide_drive *d, uint32_t lba, uint32_t n)
{
	if (lba <= disc_sectors(d) && n <= disc_sectors(d) - lba)
		return true;
	atapi_check(d, ILLEGAL_REQUEST, ASC_OUT_OF_RANGE, 0x00);
	return false;
}

static void read_10_12(struct ide_drive *d)
{
	uint32_t lba = get_be32(d->packet + 2);
	uint32_t n = d->packet[0] == 0x28 ? get_be16(d->packet + 7) : get_be32(d->packet + 6);

	if (range_ok(d, lba, n))
		atapi_start_read(d, lba, n, 0x10);
}

static void seek_10(struct ide_drive *d)
{
	if (range_ok(d, get_be32(d->packet + 2), 1))
		atapi_complete(d);
}

static uint32_t msf_to_lba(const uint8_t *msf)
{
	return (msf[0] * 60u + msf[1]) * 75 + msf[2] - 150;
}

/* READ CD (BEh) and READ CD MSF (B9h). */
static void read_cd(struct ide_drive *d)
{
	const uint8_t *c = d->packet;
	uint8_t type = c[1] >> 2 & 7, fields = c[9] & 0xf8;
	uint32_t lba, n;

	if (c[0] == 0xbe) {
		lba = get_be32(c + 2);
		n = (uint32_t)c[6] << 16 | get_be16(c + 7);
	} else {
		lba = msf_to_lba(c + 3);
		n = msf_to_lba(c + 6) - lba;
		if (msf_to_lba(c + 6) < lba) {
			invalid_field(d);
			return;
		}
	}
	if (type != 0 && type != 2) {                        /* any, or Mode 1; there is no other track */
		atapi_check(d, ILLEGAL_REQUEST, 0x64, 0x00); /* ILLEGAL MODE FOR THIS TRACK */
		return;
	}
	if (c[9] & 0x06 || c[10] & 7) { /* C2 errors and subchannels are not in an image */
		invalid_field(d);
		return;
	}
	if (range_ok(d, lba, n))
		atapi_start_read(d, lba, n, fields);
}

/* ---- the disc ---- */

static uint8_t *put_address(uint8_t *p, bool msf, uint32_t lba)
{
	if (msf)
		put_be32(p, cd_lba_to_msf(lba));
	else
		put_be32(p, lba);
	return p + 4;
}

static uint8_t *toc_entry(uint8_t *p, uint8_t track, bool msf, uint32_t lba)
{
	*p++ = 0;
	*p++ = 0x14; /* ADR 1: position; data track, uninterrupted */
	*p++ = track;
	*p++ = 0;
	return put_address(p, msf, lba);
}

/* Format 2: the lead-in's Q channel: session, ADR/control, TNO 0, POINT, running time, 0, PMIN PSEC PFRAME. */
static uint8_t *raw_toc_entry(uint8_t *p, uint8_t point, uint32_t pmsf)
{
	memset(p, 0, 11);
	p[0] = 1;
	p[1] = 0x14;
	p[3] = point;
	p[8] = (uint8_t)(pmsf >> 16);
	p[9] = (uint8_t)(pmsf >> 8);
	p[10] = (uint8_t)pmsf;
	return p + 11;
}

static void read_toc(struct ide_drive *d)
{
	const uint8_t *c = d->packet;
	bool msf = c[1] & 2;
	uint8_t format = c[2] & 15, first = c[6], *p = clear_reply(d, 64) + 4;

	if (!format)
		format = c[9] >> 6; /* SFF-8020i has it in the control byte */
	d->buf[2] = d->buf[3] = 1;  /* first and last track, or session */
	switch (format) {
	case 0:
		if (first > 1 && first != 0xaa) {
			invalid_field(d);
			return;
		}
		if (first <= 1)
			p = toc_entry(p, 1, msf, 0);
		p = toc_entry(p, 0xaa, msf, disc_sectors(d));
		break;
	case 1: /* one session, which starts with track 1 */
		p = toc_entry(p, 1, msf, 0);
		break;
	case 2:
		p = raw_toc_entry(p, 0xa0, 1 << 16); /* first track; disc type CD-ROM */
		p = raw_toc_entry(p, 0xa1, 1 << 16); /* last track */
		p = raw_toc_entry(p, 0xa2, cd_lba_to_msf(disc_sectors(d)));
		p = raw_toc_entry(p, 0x01, cd_lba_to_msf(0));
		break;
	default: /* PMA, ATIP, CD-TEXT: recordable and audio discs */
		invalid_field(d);
		return;
	}
	put_be16(d->buf, (uint16_t)(p - d->buf - 2));
	atapi_reply(d, (uint32_t)(p - d->buf), get_be16(c + 7));
}

static void read_subchannel(struct ide_drive *d)
{
	bool msf = d->packet[1] & 2, sub_q = d->packet[2] & 0x40;
	uint8_t *p = clear_reply(d, 16);

	p[1] = 0x15; /* audio status: nothing playing */
	if (!sub_q) {
		atapi_reply(d, 4, get_be16(d->packet + 7));
		return;
	}
	if (d->packet[3] != 1) { /* only the current position */
		invalid_field(d);
		return;
	}
	put_be16(p + 2, 12);
	p[4] = 1;
	p[5] = 0x14;
	p[6] = p[7] = 1;
	put_address(p + 8, msf, 0);
	put_address(p + 12, msf, 0);
	atapi_reply(d, 16, get_be16(d->packet + 7));
}

static void read_disc_information(struct ide_drive *d)
{
	uint8_t *p = clear_reply(d, 34);

	if (d->packet[1] & 7) { /* track resources, POW resources */
		invalid_field(d);
		return;
	}
	put_be16(p, 32);
	p[2] = 0x0e; /* last session complete, disc finalised */
	p[3] = p[4] = p[5] = p[6] = 1;
	p[7] = 0x20;             /* unrestricted use */
	memset(p + 16, 0xff, 8); /* no further session can start */
	atapi_reply(d, 34, get_be16(d->packet + 7));
}

static void read_track_information(struct ide_drive *d)
{
	uint8_t *p = clear_reply(d, 36);
	uint32_t what = get_be32(d->packet + 2);
	uint8_t kind = d->packet[1] & 3;

	if (kind == 3 || (kind && what != 1) || (!kind && what >= disc_sectors(d))) {
		invalid_field(d);
		return;
	}
	put_be16(p, 34);
	p[2] = p[3] = 1; /* track, session */
	p[5] = 0x04;     /* data track, uninterrupted */
	p[6] = 0x01;     /* Mode 1 */
	put_be32(p + 24, disc_sectors(d));
	atapi_reply(d, 36, get_be16(d->packet + 7));
}

/* Layer descriptor (MMC-5 6.27.3.2.1): DVD-ROM, single layer, 120 mm. */
static uint32_t dvd_physical(struct ide_drive *d, uint8_t *p)
{
	p[0] = 0x01; /* book type 0, part version 1 */
	p[1] = 0x0f; /* 120 mm, no maximum rate given */
	p[2] = 0x01; /* one layer, embossed */
	p[3] = 0x00;
	put_be32(p + 4, 0x030000); /* data start */
	put_be32(p + 8, 0x030000 + (disc_sectors(d) ? disc_sectors(d) - 1 : 0));
	return 2048;
}

/* One header of the list of structures: format code, sendable/readable, length. */
static uint8_t *dvd_list_entry(uint8_t *p, uint8_t format, uint16_t len)
{
	p[0] = format;
	p[1] = 0x40; /* readable */
	put_be16(p + 2, len);
	return p + 4;
}

static void read_dvd_structure(struct ide_drive *d)
{
	uint8_t media = d->packet[1] & 15, format = d->packet[7], layer = d->packet[6];
	uint8_t *p = clear_reply(d, 4 + 2048) + 4;
	uint32_t len;

	if (media) {
		invalid_field(d);
		return;
	}
	if (format < 0xc0 && !atapi_medium_present(d)) {
		no_medium(d);
		return;
	}
	if (format < 0xc0 && !is_dvd(d)) {
		atapi_check(d, ILLEGAL_REQUEST, 0x30, 0x02); /* CANNOT READ MEDIUM - INCOMPATIBLE FORMAT */
		return;
	}
	switch (layer ? 0xfe : format) {
	case 0x00:
		len = dvd_physical(d, p);
		break;
	case 0x01: /* copyright: no protection, all regions */
		len = 4;
		break;
	case 0x04: /* manufacturing information: none */
		len = 2048;
		break;
	case 0xff:
		p = dvd_list_entry(p, 0x00, 4 + 2048);
		p = dvd_list_entry(p, 0x01, 4 + 4);
		p = dvd_list_entry(p, 0x04, 4 + 2048);
		p = dvd_list_entry(p, 0xff, 4 + 16);
		len = 16;
		break;
	default:
		invalid_field(d);
		return;
	}
	put_be16(d->buf, (uint16_t)(len + 2));
	atapi_reply(d, 4 + len, get_be16(d->packet + 8));
}

/* ---- configuration ---- */

enum { PROFILE_CD_ROM = 0x08, PROFILE_DVD_ROM = 0x10 };

/* Feature descriptor header: code, version/persistent/current, additional length. */
static uint8_t *feature(uint8_t *p, uint16_t code, uint8_t flags, uint8_t len)
{
	put_be16(p, code);
	p[2] = flags;
	p[3] = len;
	memset(p + 4, 0, len);
	return p + 4;
}

enum { FEATURE_CURRENT = 1, FEATURE_PERSISTENT = 2 };

static uint8_t *profile_list(uint8_t *p, uint16_t current)
{
	static const uint16_t profiles[] = {PROFILE_DVD_ROM, PROFILE_CD_ROM};

	p = feature(p, 0x0000, FEATURE_CURRENT | FEATURE_PERSISTENT, 8);
	for (size_t i = 0; i < ARRAY_SIZE(profiles); i++, p += 4) {
		put_be16(p, profiles[i]);
		p[2] = profiles[i] == current;
	}
	return p;
}

/* Append feature `code`; NULL: the drive does not have it. */
static uint8_t *put_feature(struct ide_drive *d, uint8_t *p, uint16_t code, uint16_t profile)
{
	uint8_t always = FEATURE_CURRENT | FEATURE_PERSISTENT, with_medium = profile ? FEATURE_CURRENT : 0;

	switch (code) {
	case 0x0000:
		return profile_list(p, profile);
	case 0x0001: /* core: ATAPI, GET EVENT STATUS polled */
		p = feature(p, code, 2 << 2 | always, 8);
		put_be32(p, 2);
		p[4] = 1; /* device busy events need no class of their own */
		return p + 8;
	case 0x0002: /* morphing: operational changes are announced */
		p = feature(p, code, 1 << 2 | always, 4);
		p[0] = 2;
		return p + 4;
	case 0x0003: /* removable medium: tray, eject, lock */
		p = feature(p, code, always, 4);
		p[0] = 0x29;
		return p + 4;
	case 0x0010: /* random readable */
		p = feature(p, code, with_medium, 8);
		put_be32(p, CD_SECTOR);
		put_be16(p + 4, 1);
		return p + 8;
	case 0x001e: /* CD read */
		return feature(p, code, 2 << 2 | (profile == PROFILE_CD_ROM), 4) + 4;
	case 0x001f: /* DVD read */
		return feature(p, code, profile == PROFILE_DVD_ROM, 0);
	case 0x0100: /* power management */
		return feature(p, code, always, 0);
	case 0x0105: /* timeouts */
		return feature(p, code, always, 0);
	}
	return NULL;
}

static void get_configuration(struct ide_drive *d)
{
	static const uint16_t codes[] = {0x0000, 0x0001, 0x0002, 0x0003, 0x0010, 0x001e, 0x001f, 0x0100, 0x0105};
	uint8_t rt = d->packet[1] & 3, *p = clear_reply(d, 8) + 8;
	uint16_t start = get_be16(d->packet + 2), profile;

	if (rt == 3) {
		invalid_field(d);
		return;
	}
	profile = !atapi_medium_present(d) ? 0 : is_dvd(d) ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		uint8_t *next;

		if (rt == 2 ? codes[i] != start : codes[i] < start)
			continue;
		next = put_feature(d, p, codes[i], profile);
		if (rt == 1 && !(p[2] & FEATURE_CURRENT))
			continue;
		p = next;
	}
	put_be32(d->buf, (uint32_t)(p - d->buf - 4));
	put_be16(d->buf + 6, profile);
	atapi_reply(d, (uint32_t)(p - d->buf), get_be16(d->packet + 7));
}

/* ---- mode pages ---- */

static uint8_t *error_recovery_page(uint8_t *p)
{
	memset(p, 0, 8);
	p[0] = 0x01;
	p[1] = 6;
	p[3] = 5; /* read retries */
	return p + 8;
}

static uint8_t *audio_control_page(uint8_t *p)
{
	memset(p, 0, 16);
	p[0] = 0x0e;
	p[1] = 14;
	p[2] = 4; /* immediate */
	p[7] = 75;
	p[8] = 1; /* ports 0 and 1 play channels 0 and 1 at full volume */
	p[9] = 0xff;
	p[10] = 2;
	p[11] = 0xff;
	return p + 16;
}

/* MM capabilities and mechanical status (MMC-3 6.3.11) */
static uint8_t *capabilities_page(const struct ide_drive *d, uint8_t *p)
{
	memset(p, 0, 22);
	p[0] = 0x2a;
	p[1] = 20;
	p[2] = 0x3b;                               /* reads CD-R, CD-RW, DVD-ROM, DVD-R, DVD-RAM */
	p[4] = 0x70;                               /* Mode 2 form 1 and 2, multi-session */
	p[6] = 0x29 | (d->tray_locked ? 0x02 : 0); /* tray, eject, lock */
	put_be16(p + 8, 706);                      /* maximum speed in kB/s: 4x */
	put_be16(p + 10, 2);                       /* volume levels */
	put_be16(p + 12, 512);                     /* buffer in KiB */
	put_be16(p + 14, 706);                     /* current speed */
	return p + 22;
}

static void mode_sense(struct ide_drive *d)
{
	uint8_t code = d->packet[2] & 0x3f, control = d->packet[2] >> 6, *first = clear_reply(d, 8) + 8, *p = first;

	if (control == 3) {
		atapi_check(d, ILLEGAL_REQUEST, 0x39, 0x00); /* SAVING PARAMETERS NOT SUPPORTED */
		return;
	}
	if (code == 0x01 || code == 0x3f)
		p = error_recovery_page(p);
	if (code == 0x0e || code == 0x3f)
		p = audio_control_page(p);
	if (code == 0x2a || code == 0x3f)
		p = capabilities_page(d, p);
	if (p == first) {
		invalid_field(d);
		return;
	}
	if (control == 1) /* changeable values: none; only the page headers remain */
		for (uint8_t *page = first; page < p; page += page[1] + 2)
			memset(page + 2, 0, page[1]);
	put_be16(d->buf, (uint16_t)(p - d->buf - 2));
	/* Medium type as SFF-8020i has it: 70h door closed without disc, 71h open, 01h data disc of 120 mm */
	d->buf[2] = d->tray_open ? 0x71 : atapi_medium_present(d) ? 0x01 : 0x70;
	atapi_reply(d, (uint32_t)(p - d->buf), get_be16(d->packet + 7));
}

static void mode_select_start(struct ide_drive *d)
{
	uint32_t len = get_be16(d->packet + 7);

	if (d->packet[1] & 1) {
		invalid_field(d); /* pages cannot be saved */
		return;
	}
	if (!len) {
		atapi_complete(d);
		return;
	}
	if (d->packet_dma) { /* data-out by DMA */
		invalid_field(d);
		return;
	}
	d->op = OP_MODE_DATA;
	d->op_left = 0;
	d->buf_pos = 0;
	d->buf_len = len;
	d->drq_size = MIN(len, d->byte_limit);
	d->r.count = 0;
	d->r.lba_mid = (uint8_t)d->drq_size;
	d->r.lba_high = (uint8_t)(d->drq_size >> 8);
	ide_data_out(d, true);
}

/* A DRQ block of the parameter list arrived. Nothing in the pages is changeable; what is no page is refused. */
void atapi_mode_select(struct ide_drive *d)
{
	uint32_t len = d->buf_len, at = 8;

	if (d->buf_pos < d->buf_len) {
		ide_data_out(d, true);
		return;
	}
	if (len >= 8)
		at += get_be16(d->buf + 6); /* block descriptors */
	while (at + 2 <= len) {
		uint8_t code = d->buf[at] & 0x3f;

		if (code != 0x01 && code != 0x0e && code != 0x2a) {
			atapi_check(d, ILLEGAL_REQUEST, 0x26, 0x00); /* INVALID FIELD IN PARAMETER LIST */
			return;
		}
		at += d->buf[at + 1] + 2u;
	}
	if (at != len)
		atapi_check(d, ILLEGAL_REQUEST, 0x1a, 0x00); /* PARAMETER LIST LENGTH ERROR */
	else
		atapi_complete(d);
}

/* ---- dispatch ---- */

enum {
	NEEDS_MEDIUM = 1,
	IGNORES_ATTENTION = 2, /* neither reports nor clears a pending unit attention (MMC-5 4.1.7) */
};

static const struct packet_command {
	uint8_t code, flags;
	void (*run)(struct ide_drive *d);
	const char *name, *spec;
} packet_commands[] = {
	{0x00, NEEDS_MEDIUM, test_unit_ready, "TEST UNIT READY", "SPC-3"},
	{0x03, IGNORES_ATTENTION, request_sense, "REQUEST SENSE", "SPC-3"},
	{0x12, IGNORES_ATTENTION, inquiry, "INQUIRY", "SPC-3"},
	{0x1b, 0, start_stop_unit, "START STOP UNIT", "MMC-5 6.43"},
	{0x1e, 0, prevent_allow, "PREVENT ALLOW MEDIUM REMOVAL", "MMC-5 6.18"},
	{0x25, NEEDS_MEDIUM, read_capacity, "READ CAPACITY", "MMC-5 6.25"},
	{0x28, NEEDS_MEDIUM, read_10_12, "READ (10)", "MMC-5 6.19"},
	{0x2b, NEEDS_MEDIUM, seek_10, "SEEK (10)", "MMC-5 6.36"},
	{0x42, NEEDS_MEDIUM, read_subchannel, "READ SUB-CHANNEL", "MMC-3"},
	{0x43, NEEDS_MEDIUM, read_toc, "READ TOC/PMA/ATIP", "MMC-5 6.30"},
	{0x46, IGNORES_ATTENTION, get_configuration, "GET CONFIGURATION", "MMC-5 6.6"},
	{0x4a, IGNORES_ATTENTION, get_event_status, "GET EVENT STATUS NOTIFICATION", "MMC-5 6.7"},
	{0x51, NEEDS_MEDIUM, read_disc_information, "READ DISC INFORMATION", "MMC-5 6.26"},
	{0x52, NEEDS_MEDIUM, read_track_information, "READ TRACK INFORMATION", "MMC-5 6.31"},
	{0x55, 0, mode_select_start, "MODE SELECT (10)", "MMC-5 6.12"},
	{0x5a, 0, mode_sense, "MODE SENSE (10)", "MMC-5 6.13"},
	{0xa8, NEEDS_MEDIUM, read_10_12, "READ (12)", "MMC-5 6.20"},
	{0xad, 0, read_dvd_structure, "READ DISC STRUCTURE", "MMC-5 6.27"},
	{0xb9, NEEDS_MEDIUM, read_cd, "READ CD MSF", "MMC-5 6.24"},
	{0xbb, 0, test_unit_ready, "SET CD SPEED", "MMC-5 6.37"},
	{0xbd, 0, mechanism_status, "MECHANISM STATUS", "MMC-5 6.11"},
	{0xbe, NEEDS_MEDIUM, read_cd, "READ CD", "MMC-5 6.23"},
};

/* Conditions that come before the command. true: reported. */
static bool check_condition(struct ide_drive *d, uint8_t flags)
{
	uint8_t asc = d->ua_asc;

	if (flags & IGNORES_ATTENTION)
		return false;
	/* A change between two commands: drivers learn of it by seeing the drive empty once. */
	if (flags & NEEDS_MEDIUM && d->change_unseen && atapi_medium_present(d)) {
		d->change_unseen = false;
		atapi_check(d, NOT_READY, ASC_NO_MEDIUM, 0x02);
		return true;
	}
	if (asc) {
		d->ua_asc = 0;
		atapi_check(d, UNIT_ATTENTION, asc, 0x00);
		return true;
	}
	if (flags & NEEDS_MEDIUM && !atapi_medium_present(d)) {
		no_medium(d);
		return true;
	}
	return false;
}

void atapi_command(struct ide_drive *d)
{
	for (size_t i = 0; i < ARRAY_SIZE(packet_commands); i++) {
		const struct packet_command *c = &packet_commands[i];

		if (c->code != d->packet[0])
			continue;
		if (c->run != request_sense) {
			d->sense_key = d->asc = d->ascq = 0;
			d->sense_lba_valid = false;
		}
		if (!check_condition(d, c->flags))
			c->run(d);
		return;
	}
	atapi_check(d, ILLEGAL_REQUEST, 0x20, 0x00); /* INVALID COMMAND OPERATION CODE */
}
