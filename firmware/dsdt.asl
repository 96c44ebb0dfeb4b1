/*
 * The board as ACPI sees it: PCI root bus with its interrupt links, the ISA chips, and the firmware interface devices.
 * What depends on the configuration is either patched by src/machine/acpi.c, which looks for
 * the values 0x5A5A...; or it lives in the SSDT built there (processors, sleep states).
 *
 * Revision 1, so that integers have 32 bits: Windows XP's interpreter knows no other. For its sake, too, only ACPI 1.0
 * operators and descriptors, but for the 64-bit window, which it skips.
 * Source: ACPI 1.0b and 6.3; PCI Firmware Specification 3.0; 82371SB data sheet for the PIRQ route control registers.
 */

/* Slot n: the pins A-D and the links they reach, (pin + n - 1) & 3 */
#define SLOT(n, a, b, c, d) \
	Package () { n##FFFF, 0, a, 0 }, Package () { n##FFFF, 1, b, 0 }, \
	Package () { n##FFFF, 2, c, 0 }, Package () { n##FFFF, 3, d, 0 }

/*
 * Slot n, whose devices come and go. acpi.c hides _EJ0 where a device is fixed: what has one is offered for removal.
 * Slots 0 and 1 are the chip set's.
 */
#define HOTSLOT_BODY(n) \
	Name (_ADR, 0x00##n##0000) \
	Name (_SUN, 0x##n) \
	Method (_EJ0, 1) { PCEJ (0x##n) }
#define HOTSLOT(name, n) \
	Device (name) { HOTSLOT_BODY (n) }

DefinitionBlock ("dsdt.aml", "DSDT", 1, "VMM", "VMMPC", 1)
{
	/* patched: the optional ISA devices there are, ACPI_HAS_... in src/machine/acpi.c */
	Name (PRES, 0x5A5A0001)
	/* Interrupt model chosen by the OS: 0 PIC, 1 APIC. The links lead to the same inputs of both. */
	Name (PICF, 0)
	Method (_PIC, 1)
	{
		Store (Arg0, PICF)
	}

	Scope (\_GPE)
	{
		Name (_HID, "ACPI0006")
		Method (_E01) { \_SB.PCI0.PCNT () }
	}

	Scope (\_SB)
	{
		Device (PCI0)
		{
			Name (_HID, EisaId ("PNP0A03"))
			Name (_UID, 0)
			Name (_CRS, ResourceTemplate ()
			{
				WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
					0, 0, 0xFF, 0, 0x100)
				IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
					0, 0x0000, 0x0CF7, 0, 0x0CF8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
					0, 0x0D00, 0xFFFF, 0, 0xF300)
				DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
					0, 0x000A0000, 0x000BFFFF, 0, 0x00020000)
				/* patched: from the end of low RAM to the IOAPIC */
				DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
					0, 0x5A5A0000, 0x5A5AFFFF, 0, 0x00010000)
				/* patched: above RAM beyond 4 GiB */
				QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
					0, 0x5A5A5A5A00000000, 0x5A5A5A5AFFFFFFFF, 0, 0x0000000100000000)
			})
			Name (_PRT, Package ()
			{
				SLOT (0x0000, LNKD, LNKA, LNKB, LNKC),
				/* The PIIX4's power management has its INTA wired to the SCI. */
				SLOT (0x0001, LNKS, LNKB, LNKC, LNKD),
				SLOT (0x0002, LNKB, LNKC, LNKD, LNKA),
				SLOT (0x0003, LNKC, LNKD, LNKA, LNKB),
				SLOT (0x0004, LNKD, LNKA, LNKB, LNKC),
				SLOT (0x0005, LNKA, LNKB, LNKC, LNKD),
				SLOT (0x0006, LNKB, LNKC, LNKD, LNKA),
				SLOT (0x0007, LNKC, LNKD, LNKA, LNKB),
				SLOT (0x0008, LNKD, LNKA, LNKB, LNKC),
				SLOT (0x0009, LNKA, LNKB, LNKC, LNKD),
				SLOT (0x000A, LNKB, LNKC, LNKD, LNKA),
				SLOT (0x000B, LNKC, LNKD, LNKA, LNKB),
				SLOT (0x000C, LNKD, LNKA, LNKB, LNKC),
				SLOT (0x000D, LNKA, LNKB, LNKC, LNKD),
				SLOT (0x000E, LNKB, LNKC, LNKD, LNKA),
				SLOT (0x000F, LNKC, LNKD, LNKA, LNKB),
				SLOT (0x0010, LNKD, LNKA, LNKB, LNKC),
				SLOT (0x0011, LNKA, LNKB, LNKC, LNKD),
				SLOT (0x0012, LNKB, LNKC, LNKD, LNKA),
				SLOT (0x0013, LNKC, LNKD, LNKA, LNKB),
				SLOT (0x0014, LNKD, LNKA, LNKB, LNKC),
				SLOT (0x0015, LNKA, LNKB, LNKC, LNKD),
				SLOT (0x0016, LNKB, LNKC, LNKD, LNKA),
				SLOT (0x0017, LNKC, LNKD, LNKA, LNKB),
				SLOT (0x0018, LNKD, LNKA, LNKB, LNKC),
				SLOT (0x0019, LNKA, LNKB, LNKC, LNKD),
				SLOT (0x001A, LNKB, LNKC, LNKD, LNKA),
				SLOT (0x001B, LNKC, LNKD, LNKA, LNKB),
				SLOT (0x001C, LNKD, LNKA, LNKB, LNKC),
				SLOT (0x001D, LNKA, LNKB, LNKC, LNKD),
				SLOT (0x001E, LNKB, LNKC, LNKD, LNKA),
				SLOT (0x001F, LNKC, LNKD, LNKA, LNKB)
			})

			/* Hot-plug registers: QEMU's docs/specs/acpi_pci_hotplug.rst */
			OperationRegion (PCST, SystemIO, 0xAE00, 8)
			Field (PCST, DWordAcc, NoLock, WriteAsZeros)
			{
				PCIU, 32, /* slots that were filled; reading forgets them */
				PCID, 32  /* slots to be emptied */
			}
			OperationRegion (SEJ, SystemIO, 0xAE08, 4)
			Field (SEJ, DWordAcc, NoLock, WriteAsZeros) { B0EJ, 32 }
			OperationRegion (BNMR, SystemIO, 0xAE10, 4)
			Field (BNMR, DWordAcc, NoLock, WriteAsZeros) { BNUM, 32 }
			Mutex (BLCK, 0)
			Method (PCEJ, 1)
			{
				Acquire (BLCK, 0xFFFF)
				Store (0, BNUM)
				Store (ShiftLeft (1, Arg0), B0EJ)
				Release (BLCK)
			}
			Method (PCNT)
			{
				Acquire (BLCK, 0xFFFF)
				Store (0, BNUM)
				DVNT (PCIU, 1) /* device check */
				DVNT (PCID, 3) /* eject request */
				Release (BLCK)
			}
			Method (DVNT, 2)
			{
				If (And (Arg0, 0x00000004)) { Notify (VGA, Arg1) }
				If (And (Arg0, 0x00000008)) { Notify (S03, Arg1) }
				If (And (Arg0, 0x00000010)) { Notify (S04, Arg1) }
				If (And (Arg0, 0x00000020)) { Notify (S05, Arg1) }
				If (And (Arg0, 0x00000040)) { Notify (S06, Arg1) }
				If (And (Arg0, 0x00000080)) { Notify (S07, Arg1) }
				If (And (Arg0, 0x00000100)) { Notify (S08, Arg1) }
				If (And (Arg0, 0x00000200)) { Notify (S09, Arg1) }
				If (And (Arg0, 0x00000400)) { Notify (S0A, Arg1) }
				If (And (Arg0, 0x00000800)) { Notify (S0B, Arg1) }
				If (And (Arg0, 0x00001000)) { Notify (S0C, Arg1) }
				If (And (Arg0, 0x00002000)) { Notify (S0D, Arg1) }
				If (And (Arg0, 0x00004000)) { Notify (S0E, Arg1) }
				If (And (Arg0, 0x00008000)) { Notify (S0F, Arg1) }
				If (And (Arg0, 0x00010000)) { Notify (S10, Arg1) }
				If (And (Arg0, 0x00020000)) { Notify (S11, Arg1) }
				If (And (Arg0, 0x00040000)) { Notify (S12, Arg1) }
				If (And (Arg0, 0x00080000)) { Notify (S13, Arg1) }
				If (And (Arg0, 0x00100000)) { Notify (S14, Arg1) }
				If (And (Arg0, 0x00200000)) { Notify (S15, Arg1) }
				If (And (Arg0, 0x00400000)) { Notify (S16, Arg1) }
				If (And (Arg0, 0x00800000)) { Notify (S17, Arg1) }
				If (And (Arg0, 0x01000000)) { Notify (S18, Arg1) }
				If (And (Arg0, 0x02000000)) { Notify (S19, Arg1) }
				If (And (Arg0, 0x04000000)) { Notify (S1A, Arg1) }
				If (And (Arg0, 0x08000000)) { Notify (S1B, Arg1) }
				If (And (Arg0, 0x10000000)) { Notify (S1C, Arg1) }
				If (And (Arg0, 0x20000000)) { Notify (S1D, Arg1) }
				If (And (Arg0, 0x40000000)) { Notify (S1E, Arg1) }
				If (And (Arg0, 0x80000000)) { Notify (S1F, Arg1) }
			}
			HOTSLOT (S03, 03)
			HOTSLOT (S04, 04)
			HOTSLOT (S05, 05)
			HOTSLOT (S06, 06)
			HOTSLOT (S07, 07)
			HOTSLOT (S08, 08)
			HOTSLOT (S09, 09)
			HOTSLOT (S0A, 0A)
			HOTSLOT (S0B, 0B)
			HOTSLOT (S0C, 0C)
			HOTSLOT (S0D, 0D)
			HOTSLOT (S0E, 0E)
			HOTSLOT (S0F, 0F)
			HOTSLOT (S10, 10)
			HOTSLOT (S11, 11)
			HOTSLOT (S12, 12)
			HOTSLOT (S13, 13)
			HOTSLOT (S14, 14)
			HOTSLOT (S15, 15)
			HOTSLOT (S16, 16)
			HOTSLOT (S17, 17)
			HOTSLOT (S18, 18)
			HOTSLOT (S19, 19)
			HOTSLOT (S1A, 1A)
			HOTSLOT (S1B, 1B)
			HOTSLOT (S1C, 1C)
			HOTSLOT (S1D, 1D)
			HOTSLOT (S1E, 1E)
			HOTSLOT (S1F, 1F)

			Device (VGA)
			{
				HOTSLOT_BODY (02)
				Method (_S1D) { Return (0) }
				Method (_S2D) { Return (0) }
				Method (_S3D) { Return (0) }
			}

			/* PIIX4 power management and SMBus */
			Device (PMSB)
			{
				Name (_ADR, 0x00010003)
			}

			/* PIIX3 */
			Device (ISA)
			{
				Name (_ADR, 0x00010000)
				OperationRegion (PIRQ, PCI_Config, 0x60, 4)
				Field (PIRQ, ByteAcc, NoLock, Preserve)
				{
					PRQ0, 8,
					PRQ1, 8,
					PRQ2, 8,
					PRQ3, 8
				}

				Device (PIC)
				{
					Name (_HID, EisaId ("PNP0000"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x0020, 0x0020, 0, 2)
						IO (Decode16, 0x00A0, 0x00A0, 0, 2)
						IO (Decode16, 0x04D0, 0x04D0, 0, 2)
						IRQNoFlags () { 2 }
					})
				}
				Device (DMAC)
				{
					Name (_HID, EisaId ("PNP0200"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x0000, 0x0000, 0, 0x10)
						IO (Decode16, 0x0080, 0x0080, 0, 0x10)
						IO (Decode16, 0x00C0, 0x00C0, 0, 0x20)
						DMA (Compatibility, NotBusMaster, Transfer8_16) { 4 }
					})
				}
				Device (TMR)
				{
					Name (_HID, EisaId ("PNP0100"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x0040, 0x0040, 0, 4)
						IRQNoFlags () { 0 }
					})
				}
				Device (SPKR)
				{
					Name (_HID, EisaId ("PNP0800"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x0061, 0x0061, 0, 1)
					})
				}
				Device (RTC)
				{
					Name (_HID, EisaId ("PNP0B00"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x0070, 0x0070, 0, 8)
						IRQNoFlags () { 8 }
					})
				}
				Device (FPU)
				{
					Name (_HID, EisaId ("PNP0C04"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x00F0, 0x00F0, 0, 0x10)
						IRQNoFlags () { 13 }
					})
				}
				Device (KBD)
				{
					Name (_HID, EisaId ("PNP0303"))
					Method (_STA) { If (And (PRES, 0x40)) { Return (0x0F) } Return (0) }
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x0060, 0x0060, 0, 1)
						IO (Decode16, 0x0064, 0x0064, 0, 1)
						IRQNoFlags () { 1 }
					})
				}
				Device (MOU)
				{
					Name (_HID, EisaId ("PNP0F13"))
					Method (_STA) { If (And (PRES, 0x40)) { Return (0x0F) } Return (0) }
					Name (_CRS, ResourceTemplate ()
					{
						IRQNoFlags () { 12 }
					})
				}
				Device (FDC0)
				{
					Name (_HID, EisaId ("PNP0700"))
					Method (_STA) { If (And (PRES, 0x08)) { Return (0x0F) } Return (0) }
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x03F2, 0x03F2, 0, 4)
						IO (Decode16, 0x03F7, 0x03F7, 0, 1)
						IRQNoFlags () { 6 }
						DMA (Compatibility, NotBusMaster, Transfer8) { 2 }
					})
					/* Drives A and B present; two that cannot be; no tape */
					Name (FDEB, Buffer (20) { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2 })
					Method (_FDE, 0, Serialized)
					{
						CreateByteField (FDEB, 0, FDEA)
						CreateByteField (FDEB, 4, FDEC)
						If (And (PRES, 0x10)) { Store (1, FDEA) }
						If (And (PRES, 0x20)) { Store (1, FDEC) }
						Return (FDEB)
					}
				}
				Device (LPT)
				{
					Name (_HID, EisaId ("PNP0400"))
					Method (_STA) { If (And (PRES, 0x04)) { Return (0x0F) } Return (0) }
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x0378, 0x0378, 8, 8)
						IRQNoFlags () { 7 }
					})
				}
				Device (COM1)
				{
					Name (_HID, EisaId ("PNP0501"))
					Name (_UID, 1)
					Method (_STA) { If (And (PRES, 0x01)) { Return (0x0F) } Return (0) }
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x03F8, 0x03F8, 0, 8)
						IRQNoFlags () { 4 }
					})
				}
				Device (COM2)
				{
					Name (_HID, EisaId ("PNP0501"))
					Name (_UID, 2)
					Method (_STA) { If (And (PRES, 0x02)) { Return (0x0F) } Return (0) }
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x02F8, 0x02F8, 0, 8)
						IRQNoFlags () { 3 }
					})
				}
				/* Ports of the chip set that no other device claims */
				Device (MBRD)
				{
					Name (_HID, EisaId ("PNP0C02"))
					Name (_UID, 1)
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x0092, 0x0092, 0, 1)
						IO (Decode16, 0x00B2, 0x00B2, 0, 2)
						IO (Decode16, 0x0600, 0x0600, 0, 0x40)
						IO (Decode16, 0xAE00, 0xAE00, 0, 0x18)
						IO (Decode16, 0xAF00, 0xAF00, 0, 0x20)
						IO (Decode16, 0xAFE0, 0xAFE0, 0, 4)
						IO (Decode16, 0xB100, 0xB100, 0, 0x10)
					})
				}
				Device (PEVT)
				{
					Name (_HID, "QEMU0001")
					Method (_STA) { If (And (PRES, 0x80)) { Return (0x0F) } Return (0) }
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x5A5A, 0x5A5A, 1, 1) /* patched */
					})
				}
			}

			Device (FWCF)
			{
				Name (_HID, "QEMU0002")
				Name (_STA, 0x0B)
				Name (_CRS, ResourceTemplate ()
				{
					IO (Decode16, 0x0510, 0x0510, 1, 0x0C)
				})
			}
		}

		/* What a PIRQ route control register says, as a resource */
		Method (IQST, 1)
		{
			If (And (Arg0, 0x80)) { Return (0x09) }
			Return (0x0B)
		}
		Name (PRR0, ResourceTemplate ()
		{
			Interrupt (ResourceConsumer, Level, ActiveHigh, Shared, , , PRRX) { 0 }
		})
		Method (IQCR, 1, Serialized)
		{
			CreateDWordField (PRR0, \_SB.PRRX._INT, PRRI)
			Store (0, PRRI)
			If (LLess (Arg0, 0x80)) { Store (Arg0, PRRI) }
			Return (PRR0)
		}

#define LINK(name, uid, reg) \
		Device (name) \
		{ \
			Name (_HID, EisaId ("PNP0C0F")) \
			Name (_UID, uid) \
			Name (_PRS, ResourceTemplate () \
			{ \
				Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 } \
			}) \
			Method (_STA) { Return (IQST (reg)) } \
			Method (_DIS) { Or (reg, 0x80, reg) } \
			Method (_CRS) { Return (IQCR (reg)) } \
			Method (_SRS, 1) \
			{ \
				CreateDWordField (Arg0, 5, PRRI) \
				Store (PRRI, reg) \
			} \
		}
		LINK (LNKA, 0, ^^PCI0.ISA.PRQ0)
		LINK (LNKB, 1, ^^PCI0.ISA.PRQ1)
		LINK (LNKC, 2, ^^PCI0.ISA.PRQ2)
		LINK (LNKD, 3, ^^PCI0.ISA.PRQ3)

		/* The SCI, not routable */
		Device (LNKS)
		{
			Name (_HID, EisaId ("PNP0C0F"))
			Name (_UID, 4)
			Name (_PRS, ResourceTemplate ()
			{
				Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 9 }
			})
			Method (_STA) { Return (0x0B) }
			Method (_DIS) { }
			Method (_CRS) { Return (_PRS) }
			Method (_SRS, 1) { }
		}
	}
}
