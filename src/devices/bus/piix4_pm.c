/*
 * 82371AB PIIX4, function 3: ACPI power management and SMBus. The PC of the i440FX has a PIIX3, which knows no ACPI;
 * every hypervisor's PC borrows the PIIX4's PM function (QEMU's PIIX4_PM), and SeaBIOS, Windows and Linux look for it
 * here.
 *
 * Source: Intel 82371AB data sheet (290562-001), chapters 7, 11.3 and 11.4; ACPI 1.0b section 4.7 (fixed hardware). The
 * GPE0 block at 0xAFE0 is QEMU's (docs/specs/acpi_pci_hotplug.rst) in place of the chip's own GPSTS/GPEN.
 * Left out: SMM (a write to port 0xB2 takes effect directly, and DEVACTB's APMC_EN reads as set, which tells SeaBIOS
 * that no SMI handler is to be installed), the device monitors and their idle timers (registers hold what is written),
 * throttling and S1. The hot-plug registers at 0xAE00 and 0xAF00, QEMU's as well, are in files of their own.
 */
#include "acpi_cpu_hotplug.h"
#include "acpi_pci_hotplug.h"
#include "piix4_smbus.h"
#include "vmm/pci.h"

/* configuration space */
enum {
	PMBASE = 0x40,
	DEVACTB = 0x58,
	PMREGMISC = 0x80,
	SMBBA = 0x90,
	SMBHSTCFG = 0xd2,
	SMBSLVC = 0xd3,
	SMBSHDW1 = 0xd4,
	SMBSHDW2 = 0xd5,
};
#define PMREGMISC_PMIOSE 0x01
#define DEVACTB3_APMC_EN 0x02 /* bit 25 of DEVACTB */
#define SMBHSTCFG_EN     0x01
#define SMBHSTCFG_SEL    0x0e
#define SMBHSTCFG_IRQ9   0x08
#define SMBUS_BASE       0xb100

/* PM I/O space */
enum {
	PMSTS = 0x00,
	PMEN = 0x02,
	PMCNTRL = 0x04,
	PMTMR = 0x08,
	PCNTRL = 0x10,
	GLBEN = 0x20,
	GLBCTL = 0x28,
	DEVCTL = 0x2c,
	GPOREG = 0x34,
	PM_PORTS = 0x40,
};
#define PM_TMROF   0x0001
#define PM_BM      0x0010
#define PM_GBL     0x0020
#define PM_PWRBTN  0x0100
#define PM_RTC     0x0400
#define PM_WAK     0x8000
#define PM_STS_W1C (PM_TMROF | PM_BM | PM_GBL | PM_PWRBTN | PM_RTC | PM_WAK)
#define PM_EVENTS  (PM_TMROF | PM_GBL | PM_PWRBTN | PM_RTC)

#define CNT_SCI_EN  0x0001
#define CNT_GBL_RLS 0x0004
#define CNT_SUS_TYP 0x1c00
#define CNT_SUS_EN  0x2000

#define PMTMR_HZ       3579545u
#define PMTMR_MASK     0xffffffu
#define PMTMR_OVERFLOW 0x800000u /* TMROF is set whenever bit 23 changes */

#define GPE_BASE  0xafe0
#define GPE_PORTS 4 /* 16 status bits, 16 enable bits */

#define GPE_PCI_HOTPLUG 0x0002 /* \_GPE._E01 */
#define GPE_CPU_HOTPLUG 0x0004 /* \_GPE._E02 */

#define APM_ACPI_ENABLE  0xf1
#define APM_ACPI_DISABLE 0xf0

enum { REGION_PM, REGION_SMBUS, REGION_GPE, REGION_APM, REGION_PCI_HOTPLUG, REGION_CPU_HOTPLUG };

struct piix4_pm {
	struct device dev;
	uint8_t disable_s3, disable_s4, s4_val, sci_irq;
	bool root_hotplug, bridge_hotplug;
	/* guest-visible */
	uint16_t pmsts, pmen, pmcntrl;
	uint8_t misc[PM_PORTS]; /* registers that only hold what is written */
	uint16_t gpests, gpeen;
	uint8_t apmc, apms;
	bool suspended;
	uint16_t wake_sts;      /* PMSTS bits the wake-up will show: set before the reset that is the wake-up */
	uint64_t next_overflow; /* in timer ticks since virtual time 0 */
	struct timer overflow;
	struct smbus_host smbus;
	struct pci_hotplug pci_hotplug;
	struct cpu_hotplug cpu_hotplug;
};

static void sci_update(struct piix4_pm *s)
{
	bool pm1 = s->pmcntrl & CNT_SCI_EN && s->pmsts & s->pmen & PM_EVENTS;
	bool gpe = s->pmcntrl & CNT_SCI_EN && s->gpests & s->gpeen;
	bool smbus =
		(s->dev.pci->config[SMBHSTCFG] & SMBHSTCFG_SEL) == SMBHSTCFG_IRQ9 && smbus_host_interrupt(&s->smbus);
	irq_set(&s->dev.irq[0], pm1 || gpe || smbus);
}

/* ---- PM timer ---- */

static uint64_t ticks_now(void)
{
	return (unsigned __int128)clock_ns(VCLOCK_VIRTUAL) * PMTMR_HZ / NS_PER_SEC;
}

/* First nanosecond at which the tick count has reached `ticks`. */
static uint64_t ticks_to_ns(uint64_t ticks)
{
	return ((unsigned __int128)ticks * NS_PER_SEC + PMTMR_HZ - 1) / PMTMR_HZ;
}

static uint64_t overflow_after(uint64_t ticks)
{
	return (ticks / PMTMR_OVERFLOW + 1) * PMTMR_OVERFLOW;
}

/* Has bit 23 changed since we last looked? */
static void overflow_check(struct piix4_pm *s)
{
	uint64_t now = ticks_now();
	if (now < s->next_overflow)
		return;
	s->pmsts |= PM_TMROF;
	s->next_overflow = overflow_after(now);
}

/* The host timer is needed only while an interrupt would follow; otherwise status is worked out when it is read. */
static void overflow_arm(struct piix4_pm *s)
{
	overflow_check(s);
	if (s->pmen & PM_TMROF && !(s->pmsts & PM_TMROF))
		timer_arm(&s->overflow, ticks_to_ns(s->next_overflow));
	else
		timer_cancel(&s->overflow);
}

static void overflow_fired(void *opaque)
{
	struct piix4_pm *s = opaque;
	overflow_arm(s);
	sci_update(s);
}

/* ---- PM1 ---- */

static void enter_sleep(struct piix4_pm *s)
{
	unsigned typ = (s->pmcntrl & CNT_SUS_TYP) >> 10;
	if (typ == 0) { /* S5 */
		machine_request_shutdown(s->dev.board, SHUTDOWN_GUEST_SHUTDOWN);
	} else if (typ == 1 && !s->disable_s3) {
		s->suspended = true;
		machine_request_suspend(s->dev.board);
	} else if (typ == s->s4_val && !s->disable_s4) {
		machine_event(s->dev.board, "SUSPEND_DISK", NULL);
		machine_request_shutdown(s->dev.board, SHUTDOWN_GUEST_SHUTDOWN);
	} else {
		log_guest(&s->dev.guest_log, "piix4_pm", "sleep type %u is not one this machine has", typ);
	}
}

static void pmcntrl_write(struct piix4_pm *s, uint16_t value)
{
	s->pmcntrl = value & ~(CNT_SUS_EN | CNT_GBL_RLS);
	if (value & CNT_SUS_EN)
		enter_sleep(s);
}

static void power_button(struct device *dev)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	if (s->suspended) {
		s->wake_sts = PM_PWRBTN;
		machine_request_wakeup(dev->board);
		return;
	}
	s->pmsts |= PM_PWRBTN;
	sci_update(s);
}

static uint8_t pm_read_byte(struct piix4_pm *s, unsigned reg)
{
	switch (reg) {
	case PMSTS:
		overflow_check(s);
		return s->pmsts;
	case PMSTS + 1:
		return s->pmsts >> 8;
	case PMEN:
		return s->pmen;
	case PMEN + 1:
		return s->pmen >> 8;
	case PMCNTRL:
		return s->pmcntrl;
	case PMCNTRL + 1:
		return s->pmcntrl >> 8;
	default:
		return s->misc[reg];
	}
}

static uint64_t pm_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	if (offset >= PMTMR && offset < PMTMR + 4)
		return (ticks_now() & PMTMR_MASK) >> 8 * (offset - PMTMR);
	uint64_t value = 0;
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)pm_read_byte(s, offset + i) << 8 * i;
	return value;
}

/* Writable bits of the registers that only hold their value. */
static uint8_t misc_mask(unsigned reg)
{
	switch (reg) {
	case PCNTRL:
		return 0x1e;
	case PCNTRL + 1:
		return 0x3e;
	case GLBEN:
	case GLBEN + 1:
		return 0x0f;
	case GLBCTL ... GLBCTL + 3:
	case DEVCTL ... DEVCTL + 3:
	case GPOREG ... GPOREG + 3:
		return 0xff;
	default:
		return 0;
	}
}

static void set_byte(uint16_t *reg, unsigned n, uint8_t value)
{
	*reg = (*reg & ~(0xff << 8 * n)) | value << 8 * n;
}

static void pm_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	uint16_t cntrl = s->pmcntrl;
	bool cntrl_written = false;
	overflow_check(s);
	for (unsigned i = 0; i < size; i++) {
		unsigned reg = offset + i;
		uint8_t v = value >> 8 * i;
		if (reg < PMEN) {
			s->pmsts &= ~((v << 8 * (reg - PMSTS)) & PM_STS_W1C);
		} else if (reg < PMCNTRL) {
			set_byte(&s->pmen, reg - PMEN, v);
		} else if (reg < PMCNTRL + 2) {
			set_byte(&cntrl, reg - PMCNTRL, v);
			cntrl_written = true;
		} else {
			s->misc[reg] = (s->misc[reg] & ~misc_mask(reg)) | (v & misc_mask(reg));
		}
	}
	s->pmen &= PM_EVENTS;
	if (cntrl_written)
		pmcntrl_write(s, cntrl);
	overflow_arm(s);
	sci_update(s);
}

/* ---- GPE0, APM ---- */

static uint64_t gpe_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	return (s->gpests | (uint32_t)s->gpeen << 16) >> 8 * offset;
}

static void gpe_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	for (unsigned i = 0; i < size; i++) {
		unsigned reg = offset + i;
		uint8_t v = value >> 8 * i;
		if (reg < 2)
			s->gpests &= ~(v << 8 * reg);
		else
			set_byte(&s->gpeen, reg - 2, v);
	}
	sci_update(s);
}

static uint64_t apm_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	return offset == 0 ? s->apmc : s->apms;
}

static void apm_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	if (offset == 1) {
		s->apms = value;
		return;
	}
	s->apmc = value;
	if (value == APM_ACPI_ENABLE)
		s->pmcntrl |= CNT_SCI_EN;
	else if (value == APM_ACPI_DISABLE)
		s->pmcntrl &= ~CNT_SCI_EN;
	sci_update(s);
}

static uint64_t smbus_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return smbus_host_read(&DEVICE(dev, struct piix4_pm)->smbus, offset);
}

static void smbus_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	smbus_host_write(&s->smbus, offset, value);
	sci_update(s);
}

/* ---- hot-plug ---- */

static uint64_t pci_hotplug_in(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return pci_hotplug_read(&DEVICE(dev, struct piix4_pm)->pci_hotplug, offset);
}

static void pci_hotplug_out(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	pci_hotplug_write(&DEVICE(dev, struct piix4_pm)->pci_hotplug, offset, value);
}

static uint64_t cpu_hotplug_in(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return cpu_hotplug_read(&DEVICE(dev, struct piix4_pm)->cpu_hotplug, offset, size);
}

static void cpu_hotplug_out(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	cpu_hotplug_write(&DEVICE(dev, struct piix4_pm)->cpu_hotplug, offset, value);
}

static void general_purpose_event(struct piix4_pm *s, uint16_t event)
{
	s->gpests |= event;
	sci_update(s);
}

static bool pci_offered(struct device *dev)
{
	return DEVICE(dev, struct piix4_pm)->root_hotplug;
}

static void pci_inserted(struct device *dev, unsigned slot)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	s->pci_hotplug.up |= BIT(slot);
	general_purpose_event(s, GPE_PCI_HOTPLUG);
}

static void pci_remove(struct device *dev, unsigned slot)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	s->pci_hotplug.down |= BIT(slot);
	general_purpose_event(s, GPE_PCI_HOTPLUG);
}

static uint32_t pci_take_pending(struct device *dev)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	uint32_t slots = s->pci_hotplug.down;
	s->pci_hotplug.down = 0;
	return slots;
}

static void pci_gone(struct device *dev, uint32_t slots)
{
	DEVICE(dev, struct piix4_pm)->pci_hotplug.ejected &= ~slots;
}

static void cpu_inserted(struct device *dev, unsigned index)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	cpu_hotplug_inserted(&s->cpu_hotplug, index);
	general_purpose_event(s, GPE_CPU_HOTPLUG);
}

static int cpu_remove(struct device *dev, unsigned index, struct err *e)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	int ret = cpu_hotplug_remove(&s->cpu_hotplug, index, e);
	if (ret == 0)
		general_purpose_event(s, GPE_CPU_HOTPLUG);
	return ret;
}

static bool cpu_take_pending(struct device *dev, unsigned index)
{
	return cpu_hotplug_take_pending(&DEVICE(dev, struct piix4_pm)->cpu_hotplug, index);
}

static bool cpu_ost(struct device *dev, unsigned index, uint32_t *event, uint32_t *status)
{
	return cpu_hotplug_ost(&DEVICE(dev, struct piix4_pm)->cpu_hotplug, index, event, status);
}

static void cpu_gone(struct device *dev, unsigned index)
{
	cpu_hotplug_gone(&DEVICE(dev, struct piix4_pm)->cpu_hotplug, index);
}

static const struct hotplug_ops hotplug_ops = {
	.pci_offered = pci_offered,
	.pci_inserted = pci_inserted,
	.pci_remove = pci_remove,
	.pci_take_pending = pci_take_pending,
	.pci_gone = pci_gone,
	.cpu_inserted = cpu_inserted,
	.cpu_remove = cpu_remove,
	.cpu_take_pending = cpu_take_pending,
	.cpu_gone = cpu_gone,
	.cpu_ost = cpu_ost,
};

static const struct region_ops pm_ops = {.read = pm_read, .write = pm_write};
static const struct region_ops smbus_ops = {.read = smbus_read, .write = smbus_write, .max_access = 1};
static const struct region_ops gpe_ops = {.read = gpe_read, .write = gpe_write};
static const struct region_ops apm_ops = {.read = apm_read, .write = apm_write, .max_access = 1};
static const struct region_ops pci_hotplug_ops = {
	.read = pci_hotplug_in, .write = pci_hotplug_out, .min_access = 4, .max_access = 4};
static const struct region_ops cpu_hotplug_ops = {.read = cpu_hotplug_in, .write = cpu_hotplug_out};

#define PORTS(nm, at, sz, o, off)                                                                               \
	{                                                                                                       \
		.name = nm, .space = SPACE_PIO, .base = at, .size = sz, .bar = REGION_NOT_BAR, .disabled = off, \
		.ops = o                                                                                        \
	}
static const struct region_desc piix4_regions[] = {
	[REGION_PM] = PORTS("pm", 0x600, PM_PORTS, &pm_ops, true),
	[REGION_SMBUS] = PORTS("smbus", SMBUS_BASE, SMBUS_PORTS, &smbus_ops, true),
	[REGION_GPE] = PORTS("gpe0", GPE_BASE, GPE_PORTS, &gpe_ops, false),
	[REGION_APM] = PORTS("apm", 0xb2, 2, &apm_ops, false),
	[REGION_PCI_HOTPLUG] = PORTS("pci-hotplug", PCI_HOTPLUG_BASE, PCI_HOTPLUG_PORTS, &pci_hotplug_ops, true),
	[REGION_CPU_HOTPLUG] = PORTS("cpu-hotplug", CPU_HOTPLUG_BASE, CPU_HOTPLUG_PORTS, &cpu_hotplug_ops, false),
};

/* ---- configuration space ---- */

static void window_update(struct device *dev, unsigned region, bool on, uint16_t base)
{
	if (on && base)
		region_move(&dev->regions[region], base);
	region_enable(&dev->regions[region], on && base);
}

static void windows_update(struct device *dev)
{
	const uint8_t *cfg = dev->pci->config;
	region_batch_begin(dev);
	window_update(dev, REGION_PM, cfg[PMREGMISC] & PMREGMISC_PMIOSE, get_le16(cfg + PMBASE) & 0xffc0);
	window_update(dev, REGION_SMBUS, cfg[SMBHSTCFG] & SMBHSTCFG_EN, get_le16(cfg + SMBBA) & 0xfff0);
	region_batch_end(dev);
}

static void config_written(struct device *dev, unsigned offset, unsigned size)
{
	if (offset + size <= PMBASE)
		return;
	windows_update(dev);
	sci_update(DEVICE(dev, struct piix4_pm));
}

static void config_init(struct pci_function *f)
{
	f->wmask[PCI_COMMAND_REG] = 0x01;
	f->wmask[PCI_COMMAND_REG + 1] = 0;
	f->config[PCI_STATUS_REG] = 0x80;
	f->config[PCI_STATUS_REG + 1] = 0x02;
	f->config[PMBASE] = 0x01;
	put_le32(f->wmask + PMBASE, 0xffc0);
	for (unsigned reg = 0x44; reg < 0x80; reg++) /* counters, device activity and resources */
		f->wmask[reg] = 0xff;
	f->config[DEVACTB + 3] = DEVACTB3_APMC_EN;
	f->wmask[PMREGMISC] = PMREGMISC_PMIOSE;
	put_le32(f->config + SMBBA, SMBUS_BASE | 1);
	put_le32(f->wmask + SMBBA, 0xfff0);
	f->config[SMBHSTCFG] = SMBHSTCFG_IRQ9 | SMBHSTCFG_EN;
	f->wmask[SMBHSTCFG] = SMBHSTCFG_SEL | SMBHSTCFG_EN;
	f->wmask[SMBSLVC] = f->wmask[SMBSHDW1] = f->wmask[SMBSHDW2] = 0xff;
	f->config_written = config_written;
}

/* ---- life cycle ---- */

static int piix4_create(struct device *dev, struct err *e)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	config_init(dev->pci);
	device_timer_init(dev, &s->overflow, VCLOCK_VIRTUAL, overflow_fired);
	smbus_host_init(&s->smbus, board_ram_below_4g(dev->board) + board_ram_above_4g(dev->board));
	s->pci_hotplug = (struct pci_hotplug){.board = dev->board, .legacy = !s->bridge_hotplug};
	s->cpu_hotplug = (struct cpu_hotplug){.board = dev->board};
	return 0;
}

static int piix4_wire(struct device *dev, struct err *e)
{
	machine_register_powerdown(dev, power_button);
	machine_register_hotplug(dev, &hotplug_ops);
	return 0;
}

static void piix4_destroy(struct device *dev)
{
	timer_cancel(&DEVICE(dev, struct piix4_pm)->overflow);
}

static void piix4_reset(struct device *dev)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	/* Waking up from S3 is a reset that the OS can tell from a cold start. */
	s->pmsts = machine_waking(dev->board) ? PM_WAK | s->wake_sts : 0;
	s->suspended = false;
	s->wake_sts = 0;
	s->pmen = s->pmcntrl = 0;
	memset(s->misc, 0, sizeof(s->misc));
	put_le32(s->misc + GPOREG, 0x7fffbfff);
	s->gpests = s->gpeen = 0;
	if (machine_waking(dev->board)) { /* the OS goes on with what it knew; what it did not is announced again */
		s->gpests |= s->pci_hotplug.up | s->pci_hotplug.down ? GPE_PCI_HOTPLUG : 0;
		s->gpests |= cpu_hotplug_has_event(&s->cpu_hotplug) ? GPE_CPU_HOTPLUG : 0;
	} else {
		pci_hotplug_reset(&s->pci_hotplug);
		cpu_hotplug_reset(&s->cpu_hotplug);
	}
	s->apmc = s->apms = 0;
	s->next_overflow = overflow_after(ticks_now());
	smbus_host_reset(&s->smbus);
}

static void piix4_settle(struct device *dev)
{
	struct piix4_pm *s = DEVICE(dev, struct piix4_pm);
	windows_update(dev);
	region_enable(&dev->regions[REGION_PCI_HOTPLUG], s->root_hotplug);
	pci_hotplug_settle(&s->pci_hotplug);
	cpu_hotplug_settle(&s->cpu_hotplug);
	overflow_arm(s);
	sci_update(s);
}

static int piix4_post_load(void *obj, uint16_t version, struct err *e)
{
	struct piix4_pm *s = obj;
	s->pmsts &= PM_STS_W1C;
	s->pmen &= PM_EVENTS;
	return 0;
}

static const struct prop piix4_props[] = {
	PROP(struct piix4_pm, disable_s3, PROP_U8, .max = 1, .help = "do not offer suspend to RAM (0 or 1)"),
	PROP(struct piix4_pm, disable_s4, PROP_U8, .max = 1, .help = "do not offer suspend to disk (0 or 1)"),
	PROP(struct piix4_pm, s4_val, PROP_U8, .def = 2, .min = 2, .max = 7, .help = "sleep type that means S4"),
	PROP(struct piix4_pm, sci_irq, PROP_U8, .def = 9, .min = 9, .max = 9, .help = "interrupt of ACPI events",
	     .internal = true),
	PROP_NAMED(struct piix4_pm, "acpi-root-pci-hotplug", root_hotplug, PROP_BOOL, .def = 1,
		   .help = "devices of the root bus can be added and removed while the guest runs"),
	PROP_NAMED(struct piix4_pm, "acpi-pci-hotplug-with-bridge-support", bridge_hotplug, PROP_BOOL, .def = 1,
		   .help = "registers as of QEMU 1.7: a bus selector, and reading \"up\" clears it"),
	PROP_END,
};

#define SINCE_2(m, table)                                                                                         \
	{                                                                                                         \
		.name = #m, .type = STATE_STRUCT, .since = 2, .offset = offsetof(struct piix4_pm, m), .count = 1, \
		.size = sizeof(((struct piix4_pm *)0)->m), .sub = &(table)                                        \
	}
static const struct state_field piix4_fields[] = {
	STATE_U(struct piix4_pm, pmsts),
	STATE_U(struct piix4_pm, pmen),
	STATE_U(struct piix4_pm, pmcntrl),
	STATE_BUF(struct piix4_pm, misc),
	STATE_U(struct piix4_pm, gpests),
	STATE_U(struct piix4_pm, gpeen),
	STATE_U(struct piix4_pm, apmc),
	STATE_U(struct piix4_pm, apms),
	STATE_B(struct piix4_pm, suspended),
	STATE_U(struct piix4_pm, next_overflow),
	STATE_SUB(struct piix4_pm, smbus, &smbus_host_state),
	SINCE_2(pci_hotplug, pci_hotplug_state),
	SINCE_2(cpu_hotplug, cpu_hotplug_state),
	STATE_FIELDS_END,
};

static const struct state_table piix4_state = {
	.name = "piix4_pm",
	.version = 2,
	.oldest = 1,
	.fields = piix4_fields,
	.post_load = piix4_post_load,
};

static const struct pci_identity piix4_pci = {
	.vendor = 0x8086,
	.device = 0x7113,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.revision = 3,
	.class_code = 0x068000,
	.int_pin = 1,
};

DEVICE_CLASS(piix4_pm) = {
	.name = "PIIX4_PM",
	.alias = "piix4-pm",
	.summary = "82371AB power management: ACPI and SMBus",
	.bus = BUS_PCI,
	.category = "Controller/Bridge",
	.size = sizeof(struct piix4_pm),
	.props = piix4_props,
	.regions = piix4_regions,
	.n_regions = ARRAY_SIZE(piix4_regions),
	.irq_prop = {"sci_irq"},
	.n_irqs = 1,
	.pci = &piix4_pci,
	.state = &piix4_state,
	.create = piix4_create,
	.destroy = piix4_destroy,
	.wire = piix4_wire,
	.reset = piix4_reset,
	.settle = piix4_settle,
};
