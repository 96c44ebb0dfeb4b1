/*
 * Processors in the SSDT. A machine whose CPUs stay has one bare Processor for each in \\_PR, all that ACPI 1.0 asks
 *for. One whose CPUs come and go has them in \\_SB.CPUS with the methods of ACPI 6.3, 8.4, behind the registers at
 *0xAF00:
 *
 *	Device (CPUS)
 *	{
 *		Method (_INI) { Store (0, CSEL) }     switches to these registers; then a write that selects CPU 0
 *		Method (CSTA, 1)                      _STA of CPU Arg0
 *		Method (CEJ0, 1)                      _EJ0
 *		Method (COST, 3)                      _OST: CPU, event, status
 *		Method (CTFY, 2)                      Notify (CPU Arg0, Arg1)
 *		Method (CSCN)                         pass on all events, from \\_GPE._E02
 *		Processor (C000, 0, 0, 0) { _STA, _MAT, _OST; _EJ0 but for CPU 0 } ...
 *	}
 *
 * Source: QEMU docs/specs/acpi_cpu_hotplug.rst.
 */
#include "acpi_cpus.h"
#include "aml.h"
#include "vmm/hotplug.h"
#include "vmm/machine.h"

#include <stdio.h>

#define BASE 0xaf00

enum { NOTIFY_DEVICE_CHECK = 1, NOTIFY_EJECT_REQUEST = 3 };
enum { COMMAND_NEXT_EVENT = 0, COMMAND_OST_EVENT = 1, COMMAND_OST_STATUS = 2 };

unsigned acpi_madt_cpu(uint8_t entry[16], unsigned index, uint32_t apic_id, bool enabled)
{
	memset(entry, 0, 16);
	if (apic_id < 255 && index < 255) {
		entry[1] = 8; /* local APIC */
		entry[2] = index;
		entry[3] = apic_id;
		entry[4] = enabled;
		return 8;
	}
	entry[0] = 9; /* local x2APIC */
	entry[1] = 16;
	put_le32(entry + 4, apic_id);
	put_le32(entry + 8, enabled);
	put_le32(entry + 12, index);
	return 16;
}

static void name_of(char seg[5], unsigned index)
{
	snprintf(seg, 5, "C%03X", index & 0xfff);
}

/* ---- statements ---- */

static void store_arg(struct blob *t, enum aml_op value, const char *to)
{
	aml_op(t, AML_STORE);
	aml_op(t, value);
	aml_seg(t, to);
}

static void store_int(struct blob *t, uint32_t value, const char *to)
{
	aml_op(t, AML_STORE);
	aml_integer(t, value);
	aml_seg(t, to);
}

static void set_local(struct blob *t, enum aml_op local, uint32_t value)
{
	aml_op(t, AML_STORE);
	aml_integer(t, value);
	aml_op(t, local);
}

/* If (register == 1) { ... aml_end */
static size_t if_set(struct blob *t, const char *seg)
{
	size_t start = aml_if(t);
	aml_op(t, AML_EQUAL);
	aml_seg(t, seg);
	aml_integer(t, 1);
	return start;
}

/* ---- the container ---- */

static void registers(struct blob *t)
{
	aml_mutex(t, "CPLK");
	aml_io_region(t, "PRST", BASE, 12);
	size_t field = aml_field(t, "PRST", AML_BYTE_ACCESS, true);
	aml_field_bits(t, NULL, 32);
	aml_field_bits(t, "CPEN", 1); /* there */
	aml_field_bits(t, "CINS", 1); /* insertion not passed on yet; 1: now it is */
	aml_field_bits(t, "CRMV", 1); /* removal, likewise */
	aml_field_bits(t, "CEJC", 1); /* 1: eject */
	aml_field_bits(t, NULL, 4);
	aml_field_bits(t, "CCMD", 8);
	aml_end(t, field);
	field = aml_field(t, "PRST", AML_DWORD_ACCESS, false);
	aml_field_bits(t, "CSEL", 32);
	aml_field_bits(t, NULL, 32);
	aml_field_bits(t, "CDAT", 32);
	aml_end(t, field);
}

static void method_status(struct blob *t)
{
	size_t method = aml_method(t, "CSTA", 1);
	aml_acquire(t, "CPLK");
	store_arg(t, AML_ARG0, "CSEL");
	set_local(t, AML_LOCAL0, 0);
	size_t block = if_set(t, "CPEN");
	set_local(t, AML_LOCAL0, 0xf);
	aml_end(t, block);
	aml_release(t, "CPLK");
	aml_op(t, AML_RETURN);
	aml_op(t, AML_LOCAL0);
	aml_end(t, method);
}

static void method_eject(struct blob *t)
{
	size_t method = aml_method(t, "CEJ0", 1);
	aml_acquire(t, "CPLK");
	store_arg(t, AML_ARG0, "CSEL");
	store_int(t, 1, "CEJC");
	aml_release(t, "CPLK");
	aml_end(t, method);
}

static void method_ost(struct blob *t)
{
	size_t method = aml_method(t, "COST", 3);
	aml_acquire(t, "CPLK");
	store_arg(t, AML_ARG0, "CSEL");
	store_int(t, COMMAND_OST_EVENT, "CCMD");
	store_arg(t, AML_ARG1, "CDAT");
	store_int(t, COMMAND_OST_STATUS, "CCMD");
	store_arg(t, AML_ARG2, "CDAT");
	aml_release(t, "CPLK");
	aml_end(t, method);
}

static void method_notify(struct blob *t, unsigned cpus)
{
	size_t method = aml_method(t, "CTFY", 2);
	for (unsigned i = 0; i < cpus; i++) {
		char seg[5];
		name_of(seg, i);
		size_t block = aml_if(t);
		aml_op(t, AML_EQUAL);
		aml_op(t, AML_ARG0);
		aml_integer(t, i);
		aml_op(t, AML_NOTIFY);
		aml_seg(t, seg);
		aml_op(t, AML_ARG1);
		aml_end(t, block);
	}
	aml_end(t, method);
}

/* If the selected CPU (number in Local1) has this event: pass it on, acknowledge, and go round again. */
static void pass_on(struct blob *t, const char *event, uint32_t notification)
{
	size_t block = if_set(t, event);
	aml_seg(t, "CTFY");
	aml_op(t, AML_LOCAL1);
	aml_integer(t, notification);
	store_int(t, 1, event);
	set_local(t, AML_LOCAL0, 1);
	aml_end(t, block);
}

static void method_scan(struct blob *t)
{
	size_t method = aml_method(t, "CSCN", 0);
	aml_acquire(t, "CPLK");
	set_local(t, AML_LOCAL0, 1);
	size_t loop = aml_while(t);
	aml_op(t, AML_EQUAL);
	aml_op(t, AML_LOCAL0);
	aml_integer(t, 1);
	set_local(t, AML_LOCAL0, 0);
	store_int(t, COMMAND_NEXT_EVENT, "CCMD");
	aml_op(t, AML_STORE);
	aml_seg(t, "CDAT");
	aml_op(t, AML_LOCAL1);
	pass_on(t, "CINS", NOTIFY_DEVICE_CHECK);
	size_t otherwise = aml_else(t);
	pass_on(t, "CRMV", NOTIFY_EJECT_REQUEST);
	aml_end(t, otherwise);
	aml_end(t, loop);
	aml_release(t, "CPLK");
	aml_end(t, method);
}

static void pluggable_cpu(struct blob *t, struct board *board, unsigned index)
{
	uint8_t entry[16];
	char seg[5];
	name_of(seg, index);
	size_t cpu = aml_processor(t, seg, index);
	size_t method = aml_method(t, "_STA", 0);
	aml_op(t, AML_RETURN);
	aml_seg(t, "CSTA");
	aml_integer(t, index);
	aml_end(t, method);
	aml_name(t, "_MAT");
	aml_buffer(t, entry, acpi_madt_cpu(entry, index, machine_cpu_apic_id(board, index), true));
	if (index) {
		method = aml_method(t, "_EJ0", 1);
		aml_seg(t, "CEJ0");
		aml_integer(t, index);
		aml_end(t, method);
	}
	method = aml_method(t, "_OST", 3);
	aml_seg(t, "COST");
	aml_integer(t, index);
	aml_op(t, AML_ARG0);
	aml_op(t, AML_ARG1);
	aml_end(t, method);
	aml_end(t, cpu);
}

static void pluggable_cpus(struct blob *t, struct board *board, unsigned cpus)
{
	size_t scope = aml_scope(t, "_SB_");
	size_t device = aml_device(t, "CPUS");
	aml_name(t, "_HID");
	aml_string(t, "ACPI0010");
	aml_name(t, "_CID");
	aml_integer(t, 0x050ad041); /* EisaId ("PNP0A05"): a generic container */
	registers(t);
	size_t init = aml_method(t, "_INI", 0);
	store_int(t, 0, "CSEL");
	aml_end(t, init);
	method_status(t);
	method_eject(t);
	method_ost(t);
	for (unsigned i = 0; i < cpus; i++)
		pluggable_cpu(t, board, i);
	method_notify(t, cpus);
	method_scan(t);
	aml_end(t, device);
	aml_end(t, scope);
	scope = aml_scope(t, "_GPE");
	size_t event = aml_method(t, "_E02", 0);
	blob_add(t, "\\\x2f\x03_SB_CPUSCSCN", 15); /* \\_SB.CPUS.CSCN */
	aml_end(t, event);
	aml_end(t, scope);
}

void acpi_cpus_build(struct blob *t, struct board *board)
{
	const struct smp_opts *smp = &machine_config(board)->smp;
	if (smp->maxcpus > smp->cpus) {
		pluggable_cpus(t, board, smp->maxcpus);
		return;
	}
	size_t scope = aml_scope(t, "_PR_");
	for (unsigned i = 0; i < smp->cpus; i++) {
		char seg[5];
		name_of(seg, i);
		aml_end(t, aml_processor(t, seg, i));
	}
	aml_end(t, scope);
}
