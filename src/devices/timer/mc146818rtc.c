/*
 * MC146818A real-time clock and 128 bytes of CMOS RAM behind ports 70h/71h.
 *
 * Sources: Motorola MC146818A data sheet (MC146818AR2, 1984), called DS; Intel 82371SB (PIIX3) data sheet 2.5.7.
 *
 * The clock is an offset to a clock of the host (-rtc clock=): nothing runs once a second. Time registers, the
 * update-in-progress bit and the flags of register C are computed when they are read, and a timer is armed only for
 * an interrupt that is enabled. An update happens at the full second; UIP is set in the 244 us before it (DS figure 14)
 * and clears with it: the 1984 us in which a real chip shifts its registers take no time here.
 *
 * A time the calendar does not have (31 February, 25 h) is normalised when it is set. Left out: the daylight-saving
 * changes of register B bit 0 (the bit is kept; every PC sets it to 0), the square wave pin, the PIIX3's second bank at
 * ports 72h/73h. The NMI mask (bit 7 of port 70h) is kept; the board's only NMI source, the operator, is not masked.
 *
 * Periodic interrupts a guest has not acknowledged in time are lost on hardware. With lost_tick_policy=slew they are
 * counted and delivered later, for guests that keep time by counting them.
 */
#include "vmm/cmos.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
	RTC_SECONDS,
	RTC_SECONDS_ALARM,
	RTC_MINUTES,
	RTC_MINUTES_ALARM,
	RTC_HOURS,
	RTC_HOURS_ALARM,
	RTC_WEEKDAY,
	RTC_DAY,
	RTC_MONTH,
	RTC_YEAR,
	RTC_A,
	RTC_B,
	RTC_C,
	RTC_D,
	RTC_RAM,
	RTC_CENTURY = 0x32,
	RTC_SIZE = 0x80
};
enum { A_UIP = 0x80, A_RATE = 0x0f, A_DIVIDER = 0x70, A_DIVIDER_32K = 0x20, A_DIVIDER_RESET = 0x60 };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_SQWE = 0x08, B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VRT = 0x80 };
enum { ALARM_ANY = 0xc0, HOURS_PM = 0x80 };
enum { POLICY_DISCARD, POLICY_SLEW };

#define UIP_NS         244141ull /* 8 periods of 32768 Hz */
#define DIVIDER_HZ     32768u
#define MAX_LOST_TICKS 100000u
#define DAY            86400ll

struct mc146818 {
	struct device dev;
	char *base; /* options */
	int clock, lost_tick_policy;
	uint32_t irq;
	int64_t base_offset; /* seconds; what -rtc base= asked for: the guest's clock at start minus the host's */

	uint8_t cmos[RTC_SIZE]; /* time registers are current only while the clock stands still */
	uint8_t index;
	uint8_t nmi_mask;
	/* Guest time since 1970-01-01 = host's clock + offset; in two parts, because the calendar outlasts 64-bit ns.
	 */
	int64_t offset_s;
	uint32_t offset_ns;    /* 0..999999999 */
	uint32_t stopped_ns;   /* fraction of the second at which the clock was stopped (SET bit) */
	uint8_t weekday_shift; /* what the guest set as day of the week, relative to the calendar's; 0..6 */
	int64_t seen_second;   /* update cycles up to this second are accounted for in register C */
	uint64_t seen_period;  /* periodic cycles likewise (guest time in cycles) */
	uint32_t lost;         /* periodic ticks owed to the guest */
	int64_t saved_second;  /* guest time when the state was saved (clock=rt) */
	uint32_t saved_ns;
	int64_t reported; /* offset in the last RTC_CHANGE event */
	struct timer periodic, update, catch_up;
};

static enum clock_kind rtc_clock(const struct mc146818 *r)
{
	static const enum clock_kind kinds[] = {VCLOCK_HOST, VCLOCK_REAL, VCLOCK_VIRTUAL};

	return kinds[r->clock];
}

/* ---- calendar: proleptic Gregorian, days since 1970-01-01 ---- */

static int64_t days_from_date(int64_t year, int64_t month, int64_t day)
{
	int64_t era, year_of_era, day_of_year;

	year += (month - 1) / 12;
	month = (month - 1) % 12 + 1;
	year -= month <= 2; /* years start in March: the leap day comes last */
	era = (year >= 0 ? year : year - 399) / 400;
	year_of_era = year - era * 400;
	day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static void date_from_days(int64_t days, int *year, int *month, int *day)
{
	int64_t era, day_of_era, year_of_era, day_of_year, m;

	days += 719468;
	era = (days >= 0 ? days : days - 146096) / 146097;
	day_of_era = days - era * 146097;
	year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	m = (5 * day_of_year + 2) / 153;
	*day = (int)(day_of_year - (153 * m + 2) / 5 + 1);
	*month = (int)(m < 10 ? m + 3 : m - 9);
	*year = (int)(year_of_era + era * 400 + (*month <= 2));
}

/* Floor division: times before 1970 are negative. */
static int64_t div_floor(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

/* ---- time <-> registers ---- */

static bool rtc_running(const struct mc146818 *r)
{
	return !(r->cmos[RTC_B] & B_SET) && (r->cmos[RTC_A] & A_DIVIDER_RESET) != A_DIVIDER_RESET;
}

/* Guest time: the second, and the ns that have passed of it. */
static int64_t rtc_now(const struct mc146818 *r, uint32_t *fraction)
{
	uint64_t ns = clock_ns(rtc_clock(r)) + r->offset_ns;

	*fraction = (uint32_t)(ns % NS_PER_SEC);
	return (int64_t)(ns / NS_PER_SEC) + r->offset_s;
}

static int64_t rtc_second(const struct mc146818 *r)
{
	uint32_t fraction;

	return rtc_now(r, &fraction);
}

/* Let guest time be this now. */
static void rtc_set_now(struct mc146818 *r, int64_t second, uint32_t fraction)
{
	uint64_t clock = clock_ns(rtc_clock(r));

	r->offset_ns = (uint32_t)((fraction + NS_PER_SEC - clock % NS_PER_SEC) % NS_PER_SEC);
	r->offset_s = second - (int64_t)((clock + r->offset_ns) / NS_PER_SEC);
}

static uint8_t encode(const struct mc146818 *r, int v)
{
	return (uint8_t)(r->cmos[RTC_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct mc146818 *r, uint8_t v)
{
	return r->cmos[RTC_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct mc146818 *r, int hour)
{
	if (r->cmos[RTC_B] & B_24H)
		return encode(r, hour);
	return (uint8_t)(encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOURS_PM : 0));
}

static int decode_hour(const struct mc146818 *r, uint8_t v)
{
	if (r->cmos[RTC_B] & B_24H)
		return decode(r, v);
	return decode(r, v & (uint8_t)~HOURS_PM) % 12 + (v & HOURS_PM ? 12 : 0);
}

/* Bring the time registers up to date. */
static void rtc_fill(struct mc146818 *r, int64_t second)
{
	int64_t days = div_floor(second, DAY), t = second - days * DAY;
	int year, month, day;

	date_from_days(days, &year, &month, &day);
	r->cmos[RTC_SECONDS] = encode(r, (int)(t % 60));
	r->cmos[RTC_MINUTES] = encode(r, (int)(t / 60 % 60));
	r->cmos[RTC_HOURS] = encode_hour(r, (int)(t / 3600));
	/* 1970-01-01 was a Thursday: 5, with Sunday as 1 */
	r->cmos[RTC_WEEKDAY] = encode(r, (int)((days % 7 + 7 + 4 + r->weekday_shift) % 7) + 1);
	r->cmos[RTC_DAY] = encode(r, day);
	r->cmos[RTC_MONTH] = encode(r, month);
	r->cmos[RTC_YEAR] = encode(r, year % 100);
	/* The century byte is RAM the chip does not know; it is BCD by convention unless the clock is binary. */
	r->cmos[RTC_CENTURY] = encode(r, year / 100 % 100);
}

/* The second the time registers name. */
static int64_t rtc_decode(struct mc146818 *r)
{
	int month = decode(r, r->cmos[RTC_MONTH]), day = decode(r, r->cmos[RTC_DAY]);
	int year = decode(r, r->cmos[RTC_CENTURY]) * 100 + decode(r, r->cmos[RTC_YEAR]);
	int64_t days = days_from_date(year, month < 1 ? 1 : month, day < 1 ? 1 : day);
	int weekday = decode(r, r->cmos[RTC_WEEKDAY]);

	r->weekday_shift = (uint8_t)(((weekday - 1 - (int)((days % 7 + 7 + 4) % 7)) % 7 + 7) % 7);
	return days * DAY + decode_hour(r, r->cmos[RTC_HOURS]) * 3600 + decode(r, r->cmos[RTC_MINUTES]) * 60 +
	       decode(r, r->cmos[RTC_SECONDS]);
}

/* ---- flags and interrupts ---- */

static void rtc_update_irq(struct mc146818 *r)
{
	uint8_t pending = r->cmos[RTC_B] & r->cmos[RTC_C] & (B_PIE | B_AIE | B_UIE); /* same bits in B and C */

	r->cmos[RTC_C] = (uint8_t)((r->cmos[RTC_C] & ~C_IRQF) | (pending ? C_IRQF : 0));
	irq_set(&r->dev.irq[0], pending);
}

/* Whether an alarm byte with the top two bits set ("don't care") or the value v is in force. */
static bool alarm_matches(const struct mc146818 *r, unsigned reg, int v)
{
	uint8_t alarm = r->cmos[reg];

	if ((alarm & ALARM_ANY) == ALARM_ANY)
		return true;
	return (reg == RTC_HOURS_ALARM ? decode_hour(r, alarm) : decode(r, alarm)) == v;
}

/* The first second after `after` at which the alarm matches; INT64_MAX if its bytes name no time of day. */
static int64_t next_alarm(const struct mc146818 *r, int64_t after)
{
	int64_t t = after + 1, of_day;

	/* Skip to the next hour, then minute, that matches: a day has few steps. */
	for (unsigned steps = 0; steps < 400; steps++) {
		of_day = t - div_floor(t, DAY) * DAY;
		if (!alarm_matches(r, RTC_HOURS_ALARM, (int)(of_day / 3600)))
			t += 3600 - of_day % 3600;
		else if (!alarm_matches(r, RTC_MINUTES_ALARM, (int)(of_day / 60 % 60)))
			t += 60 - of_day % 60;
		else if (!alarm_matches(r, RTC_SECONDS_ALARM, (int)(of_day % 60)))
			t++;
		else
			return t;
	}
	return INT64_MAX;
}

/* Periods of 32768 Hz between periodic interrupts; 0: none (DS table 5: rates 1 and 2 repeat 8 and 9). */
static uint32_t rtc_rate(const struct mc146818 *r)
{
	unsigned rate = r->cmos[RTC_A] & A_RATE;

	if (!rate || (r->cmos[RTC_A] & A_DIVIDER) != A_DIVIDER_32K)
		return 0;
	return 1u << ((rate <= 2 ? rate + 7 : rate) - 1);
}

/* Periodic interrupts count guest time, which stands still with the guest. */
static uint64_t period_index(const struct mc146818 *r)
{
	return (uint64_t)((unsigned __int128)clock_ns(VCLOCK_VIRTUAL) * DIVIDER_HZ / NS_PER_SEC / rtc_rate(r));
}

static uint64_t period_start_ns(const struct mc146818 *r, uint64_t index)
{
	return (uint64_t)(((unsigned __int128)index * rtc_rate(r) * NS_PER_SEC + DIVIDER_HZ - 1) / DIVIDER_HZ);
}

/* Account in register C for everything that happened up to now. */
static void rtc_sync(struct mc146818 *r)
{
	int64_t second;
	uint64_t index, passed;

	if (rtc_running(r)) {
		second = rtc_second(r);
		if (second > r->seen_second) {
			r->cmos[RTC_C] |= C_UF;
			if (next_alarm(r, r->seen_second) <= second)
				r->cmos[RTC_C] |= C_AF;
		}
		r->seen_second = second; /* also when the host's clock was set back */
	}
	if (rtc_rate(r)) {
		index = period_index(r);
		passed = index > r->seen_period ? index - r->seen_period : 0;
		if (passed) {
			if (r->lost_tick_policy == POLICY_SLEW && r->cmos[RTC_B] & B_PIE) {
				passed -= !(r->cmos[RTC_C] & C_PF);
				r->lost = (uint32_t)MIN(r->lost + passed, (uint64_t)MAX_LOST_TICKS);
			}
			r->cmos[RTC_C] |= C_PF;
		}
		r->seen_period = index;
	}
}

static uint64_t guest_to_clock(const struct mc146818 *r, int64_t second)
{
	int64_t s = second - r->offset_s;

	return s <= 0 ? 0 : (uint64_t)s * NS_PER_SEC - r->offset_ns;
}

/* Wait for the next event that raises an interrupt; one already flagged raises none again until C is read. */
static void rtc_arm(struct mc146818 *r)
{
	uint8_t wanted = r->cmos[RTC_B] & (uint8_t)~r->cmos[RTC_C];
	int64_t second = INT64_MAX;
	bool slew = r->lost_tick_policy == POLICY_SLEW && r->cmos[RTC_B] & B_PIE;

	if (rtc_rate(r) && (wanted & B_PIE || slew))
		timer_arm(&r->periodic, period_start_ns(r, r->seen_period + 1));
	else
		timer_cancel(&r->periodic);
	if (rtc_running(r)) {
		if (wanted & B_UIE)
			second = r->seen_second + 1;
		else if (wanted & B_AIE)
			second = next_alarm(r, r->seen_second);
	}
	/* A year ahead is as good as never, and safe to convert. */
	if (second < r->seen_second + 366 * DAY)
		timer_arm(&r->update, guest_to_clock(r, second));
	else
		timer_cancel(&r->update);
}

static void rtc_event(void *opaque)
{
	struct mc146818 *r = opaque;
	bool alarm_before = r->cmos[RTC_C] & C_AF;

	rtc_sync(r);
	rtc_update_irq(r);
	rtc_arm(r);
	if (!alarm_before && r->cmos[RTC_B] & r->cmos[RTC_C] & C_AF)
		machine_request_wakeup(r->dev.board);
}

/* ---- owed periodic ticks ---- */

static void rtc_catch_up(void *opaque)
{
	struct mc146818 *r = opaque;

	if (!r->lost || r->cmos[RTC_C] & C_PF)
		return;
	r->lost--;
	r->cmos[RTC_C] |= C_PF;
	rtc_update_irq(r);
}

/* The guest took a tick: deliver an owed one well before the next regular one. */
static void rtc_tick_taken(struct mc146818 *r)
{
	uint64_t period_ns;

	if (!r->lost || !(r->cmos[RTC_B] & B_PIE) || !rtc_rate(r))
		return;
	period_ns = (uint64_t)rtc_rate(r) * NS_PER_SEC / DIVIDER_HZ;
	timer_arm(&r->catch_up, clock_ns(VCLOCK_VIRTUAL) + period_ns / 4);
}

/* ---- registers ---- */

/* The guest set the clock: tell the management software, as QEMU does. */
static void rtc_changed(struct mc146818 *r)
{
	int64_t base = (int64_t)(clock_ns(VCLOCK_HOST) / NS_PER_SEC) + r->base_offset;
	int64_t offset = rtc_second(r) - base;
	char data[128];

	if (offset == r->reported)
		return;
	r->reported = offset;
	snprintf(data, sizeof(data), "{\"offset\": %lld, \"qom-path\": \"/machine/%s\"}", (long long)offset, r->dev.id);
	machine_event(r->dev.board, "RTC_CHANGE", data);
}

/* Continue from the time in the registers, `fraction` ns into that second. */
static void rtc_set_time(struct mc146818 *r, uint32_t fraction)
{
	r->seen_second = rtc_decode(r);
	rtc_set_now(r, r->seen_second, fraction);
	rtc_changed(r);
}

static bool is_time_register(unsigned index)
{
	switch (index) {
	case RTC_SECONDS:
	case RTC_MINUTES:
	case RTC_HOURS:
	case RTC_WEEKDAY:
	case RTC_DAY:
	case RTC_MONTH:
	case RTC_YEAR:
	case RTC_CENTURY:
		return true;
	}
	return false;
}

static void write_time(struct mc146818 *r, unsigned index, uint8_t value)
{
	uint32_t fraction;

	if (!rtc_running(r)) { /* takes effect when the clock starts */
		r->cmos[index] = value;
		return;
	}
	rtc_fill(r, rtc_now(r, &fraction));
	if (r->cmos[index] == value)
		return;
	r->cmos[index] = value;
	rtc_set_time(r, fraction);
}

/* Registers A and B start and stop the clock and its interrupts. */
static void write_control(struct mc146818 *r, unsigned index, uint8_t value)
{
	bool was_running = rtc_running(r), was_reset = (r->cmos[RTC_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
	uint32_t old_rate = rtc_rate(r), rate;

	if (was_running) /* in the old format, as it stays if the clock stops now */
		rtc_fill(r, rtc_now(r, &r->stopped_ns));
	if (index == RTC_A)
		value &= (uint8_t)~A_UIP;
	else if (value & B_SET)
		value &= (uint8_t)~B_UIE; /* DS register B: SET clears UIE */
	r->cmos[index] = value;
	if (!was_running && rtc_running(r)) /* DS "Divider": the first update half a second after its release */
		rtc_set_time(r, was_reset ? (uint32_t)(NS_PER_SEC / 2) : r->stopped_ns);
	rate = rtc_rate(r);
	if (rate != old_rate) {
		r->seen_period = rate ? period_index(r) : 0;
		r->lost = rate && old_rate
				  ? (uint32_t)MIN((uint64_t)r->lost * old_rate / rate, (uint64_t)MAX_LOST_TICKS)
				  : 0;
	}
	if (!(r->cmos[RTC_B] & B_PIE))
		r->lost = 0;
}

static void data_write(struct mc146818 *r, uint8_t value)
{
	unsigned index = r->index;

	rtc_sync(r);
	if (index == RTC_A || index == RTC_B)
		write_control(r, index, value);
	else if (is_time_register(index))
		write_time(r, index, value);
	else if (index != RTC_C && index != RTC_D) /* alarms and RAM; C and D are read-only */
		r->cmos[index] = value;
	rtc_update_irq(r);
	rtc_arm(r);
}

static uint8_t data_read(struct mc146818 *r)
{
	unsigned index = r->index;
	uint32_t fraction;
	uint8_t v;

	if (is_time_register(index) && rtc_running(r))
		rtc_fill(r, rtc_second(r));
	v = r->cmos[index];
	switch (index) {
	case RTC_A:
		rtc_now(r, &fraction);
		if (rtc_running(r) && fraction >= NS_PER_SEC - UIP_NS)
			v |= A_UIP;
		break;
	case RTC_C: /* reading clears the flags and the interrupt */
		rtc_sync(r);
		rtc_update_irq(r);
		v = r->cmos[RTC_C];
		r->cmos[RTC_C] = 0;
		rtc_update_irq(r);
		rtc_arm(r);
		if (v & C_PF)
			rtc_tick_taken(r);
		break;
	case RTC_D:
		v = D_VRT;
		break;
	}
	return v;
}

static void rtc_write(struct device *dev, struct region *reg, uint64_t offset, uint64_t value, unsigned size)
{
	struct mc146818 *r = DEVICE(dev, struct mc146818);

	if (offset == 0) {
		r->index = value & 0x7f;
		r->nmi_mask = value & 0x80;
	} else {
		data_write(r, (uint8_t)value);
	}
}

static uint64_t rtc_read(struct device *dev, struct region *reg, uint64_t offset, unsigned size)
{
	if (offset == 0) /* write-only on a PC */
		return 0xff;
	return data_read(DEVICE(dev, struct mc146818));
}

int rtc_set_cmos(struct board *board, unsigned index, uint8_t value)
{
	struct device *dev = device_find_class(board, "mc146818rtc");

	if (!dev)
		return -ENODEV;
	if (index < RTC_RAM || index >= RTC_SIZE)
		return -EINVAL;
	DEVICE(dev, struct mc146818)->cmos[index] = value;
	return 0;
}

/* ---- life cycle ---- */

static void rtc_reset(struct device *dev)
{
	struct mc146818 *r = DEVICE(dev, struct mc146818);

	/* DS "RESET": the time and RAM stay, the interrupts go. */
	r->cmos[RTC_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
	r->cmos[RTC_C] = 0;
	r->index = 0;
	r->nmi_mask = 0;
	r->lost = 0;
	timer_cancel(&r->catch_up);
}

static void rtc_settle(struct device *dev)
{
	struct mc146818 *r = DEVICE(dev, struct mc146818);

	rtc_update_irq(r);
	rtc_arm(r);
	timer_settle(&r->catch_up);
}

/* The host's clock runs on while the guest is paused: hold back interrupts. */
static void rtc_quiesce(struct device *dev)
{
	timer_cancel(&DEVICE(dev, struct mc146818)->update);
	device_quiesced(dev);
}

static void rtc_resume(struct device *dev)
{
	rtc_arm(DEVICE(dev, struct mc146818));
}

/* "2026-11-21" or "2026-11-21T16:01:21" as seconds since 1970. */
static bool parse_date(const char *text, int64_t *second)
{
	int y, mo, d, h = 0, mi = 0, s = 0, end = 0;

	if (sscanf(text, "%d-%d-%d%n", &y, &mo, &d, &end) != 3)
		return false;
	if (text[end] == 'T' && sscanf(text, "%d-%d-%dT%d:%d:%d%n", &y, &mo, &d, &h, &mi, &s, &end) != 6)
		return false;
	if (text[end] || y < 1970 || y > 9999 || mo < 1 || mo > 12 || d < 1 || d > 31 || h < 0 || h > 23 || mi < 0 ||
	    mi > 59 || s < 0 || s > 59)
		return false;
	*second = days_from_date(y, mo, d) * DAY + h * 3600 + mi * 60 + s;
	return true;
}

static int rtc_create(struct device *dev, struct err *e)
{
	struct mc146818 *r = DEVICE(dev, struct mc146818);
	uint64_t ns = clock_ns(VCLOCK_HOST);
	int64_t host = (int64_t)(ns / NS_PER_SEC), start = host;
	time_t seconds = (time_t)host;
	uint32_t fraction = (uint32_t)(ns % NS_PER_SEC);
	struct tm tm;

	if (r->base && !strcmp(r->base, "localtime")) {
		localtime_r(&seconds, &tm);
		start += tm.tm_gmtoff;
	} else if (r->base && strcmp(r->base, "utc")) {
		fraction = 0;
		if (!parse_date(r->base, &start))
			return err_set(
				e, EINVAL,
				"-rtc base=%s: not a time; use utc, localtime, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss",
				r->base);
	}
	r->base_offset = start - host;
	r->seen_second = start;
	rtc_set_now(r, start, fraction);
	r->cmos[RTC_A] = A_DIVIDER_32K | 6; /* 1024 Hz: what a PC's BIOS leaves */
	r->cmos[RTC_B] = B_24H;
	r->cmos[RTC_D] = D_VRT;
	device_timer_init(dev, &r->periodic, VCLOCK_VIRTUAL, rtc_event);
	device_timer_init(dev, &r->update, rtc_clock(r), rtc_event);
	device_timer_init(dev, &r->catch_up, VCLOCK_VIRTUAL, rtc_catch_up);
	return 0;
}

static void rtc_destroy(struct device *dev)
{
	struct mc146818 *r = DEVICE(dev, struct mc146818);

	timer_cancel(&r->periodic);
	timer_cancel(&r->update);
	timer_cancel(&r->catch_up);
}

static int rtc_pre_save(void *obj, struct err *e)
{
	struct mc146818 *r = obj;

	r->saved_second = rtc_now(r, &r->saved_ns);
	return 0;
}

#define CLOCK_RT 1

static int rtc_post_load(void *obj, uint16_t version, struct err *e)
{
	struct mc146818 *r = obj;
	const int64_t limit = 1000 * days_from_date(10000, 1, 1) * DAY; /* sums of such seconds do not overflow */

	/* Wall clocks agree between hosts and guest time travels with the guest; a monotonic clock starts anew. */
	if (r->saved_second > limit || r->saved_second < -limit || r->offset_s > limit || r->offset_s < -limit ||
	    r->seen_second > limit || r->seen_second < -limit || r->base_offset > limit || r->base_offset < -limit)
		return err_set(e, EINVAL, "%s: a time is out of range: offset %lld s, second %lld", r->dev.id,
			       (long long)r->offset_s, (long long)r->seen_second);
	if (r->clock == CLOCK_RT)
		rtc_set_now(r, r->saved_second, r->saved_ns);
	return 0;
}

static const struct state_field rtc_fields[] = {
	STATE_BUF(struct mc146818, cmos),
	STATE_U_MAX(struct mc146818, index, 0x7f),
	STATE_U(struct mc146818, nmi_mask),
	STATE_U(struct mc146818, offset_s),
	STATE_U_MAX(struct mc146818, offset_ns, NS_PER_SEC - 1),
	STATE_U(struct mc146818, base_offset),
	STATE_U_MAX(struct mc146818, stopped_ns, NS_PER_SEC - 1),
	STATE_U_MAX(struct mc146818, weekday_shift, 6),
	STATE_U(struct mc146818, seen_second),
	STATE_U(struct mc146818, seen_period),
	STATE_U_MAX(struct mc146818, lost, MAX_LOST_TICKS),
	STATE_U(struct mc146818, saved_second),
	STATE_U_MAX(struct mc146818, saved_ns, NS_PER_SEC - 1),
	STATE_T(struct mc146818, catch_up),
	STATE_FIELDS_END,
};
static const struct state_table rtc_state = {
	.name = "mc146818rtc",
	.version = 1,
	.oldest = 1,
	.fields = rtc_fields,
	.pre_save = rtc_pre_save,
	.post_load = rtc_post_load,
};

static const char *const clocks[] = {"host", "rt", "vm", NULL};
static const char *const policies[] = {"discard", "slew", NULL};
static const struct prop rtc_props[] = {
	PROP(struct mc146818, base, PROP_STR, .def_str = "utc", .help = "utc, localtime or a date (-rtc base=)"),
	PROP(struct mc146818, clock, PROP_ENUM, .values = clocks, .help = "Clock of the host it follows (-rtc clock=)"),
	PROP(struct mc146818, lost_tick_policy, PROP_ENUM, .values = policies,
	     .help = "Periodic interrupts the guest was too slow to take (-rtc driftfix=)"),
	PROP(struct mc146818, irq, PROP_U32, .def = 8, .max = 15, .help = "Interrupt"),
	PROP_END,
};

static char *rtc_lost_ticks(struct device *dev)
{
	return xasprintf("%u", DEVICE(dev, struct mc146818)->lost);
}

/* QMP rtc-reset-reinjection: the operator set the guest's clock, what is owed must not move it on. */
static int rtc_set_lost_ticks(struct device *dev, const char *json, struct err *e)
{
	struct mc146818 *r = DEVICE(dev, struct mc146818);

	if (strcmp(json, "0"))
		return err_set(e, EINVAL, "Property 'mc146818rtc.lost-ticks' can be set to 0 only");
	r->lost = 0;
	timer_cancel(&r->catch_up);
	return 0;
}

/* The time the guest reads, as QEMU tells it: C's struct tm. A clock that is held keeps the time it was held at. */
static char *rtc_date(struct device *dev)
{
	struct mc146818 *r = DEVICE(dev, struct mc146818);
	int64_t second = rtc_running(r) ? rtc_second(r) : rtc_decode(r), days = div_floor(second, DAY);
	int64_t t = second - days * DAY;
	int year, month, day;

	date_from_days(days, &year, &month, &day);
	return xasprintf(
		"{\"tm_year\": %d, \"tm_mon\": %d, \"tm_mday\": %d, \"tm_hour\": %d, \"tm_min\": %d, \"tm_sec\": %d}",
		year - 1900, month - 1, day, (int)(t / 3600), (int)(t / 60 % 60), (int)(t % 60));
}

static const struct device_property rtc_properties[] = {
	{"date", "struct tm", rtc_date, NULL},
	{"lost-ticks", "int", rtc_lost_ticks, rtc_set_lost_ticks},
	{NULL},
};

static const struct region_ops rtc_ops = {.read = rtc_read, .write = rtc_write, .max_access = 1};
static const struct region_desc rtc_regions[] = {
	{.name = "rtc", .base = 0x70, .size = 2, .coalesced = 1, .bar = REGION_NOT_BAR, .ops = &rtc_ops},
};

DEVICE_CLASS(mc146818rtc) = {
	.name = "mc146818rtc",
	.summary = "MC146818A real-time clock and CMOS RAM",
	.bus = BUS_ISA,
	.category = "Misc",
	.size = sizeof(struct mc146818),
	.props = rtc_props,
	.properties = rtc_properties,
	.regions = rtc_regions,
	.n_regions = ARRAY_SIZE(rtc_regions),
	.irq_prop = {"irq"},
	.n_irqs = 1,
	.state = &rtc_state,
	.create = rtc_create,
	.destroy = rtc_destroy,
	.reset = rtc_reset,
	.settle = rtc_settle,
	.quiesce = rtc_quiesce,
	.resume = rtc_resume,
};
