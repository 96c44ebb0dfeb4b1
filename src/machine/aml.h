/* The few AML encodings that acpi.c needs (ACPI 6.3, chapter 20). Private to the machine room. */
#ifndef VMM_MACHINE_AML_H
#define VMM_MACHINE_AML_H

#include <stdbool.h>
#include "blob.h"

/* Everything between aml_begin() and aml_end() becomes the body of an object that starts with a PkgLength. */
size_t aml_begin(struct blob *b, const uint8_t *opcode, size_t len);
void aml_end(struct blob *b, size_t start);

size_t aml_scope(struct blob *b, const char *root_seg); /* Scope (\XXXX) { ... aml_end */
size_t aml_device(struct blob *b, const char *seg);     /* Device (XXXX) { ... aml_end */
void aml_name(struct blob *b, const char *seg);         /* Name (XXXX, <what is appended next>) */
void aml_integer(struct blob *b, uint32_t v);
void aml_string(struct blob *b, const char *s);
/* Processor (XXXX, id, 0, 0) { ... aml_end: the only object for CPUs that ACPI 1.0 has */
size_t aml_processor(struct blob *b, const char *seg, uint8_t id);
/* What methods are made of: opcodes and names, in the order of the grammar (20.2.5) */
enum aml_op {
	AML_LOCAL0 = 0x60,
	AML_LOCAL1 = 0x61,
	AML_ARG0 = 0x68,
	AML_ARG1 = 0x69,
	AML_ARG2 = 0x6a,
	AML_STORE = 0x70,  /* source, target */
	AML_NOTIFY = 0x86, /* object, value */
	AML_EQUAL = 0x93,  /* a, b */
	AML_RETURN = 0xa4, /* value */
};
void aml_op(struct blob *b, enum aml_op op);
void aml_seg(struct blob *b, const char *seg);
size_t aml_method(struct blob *b, const char *seg, unsigned args); /* Serialized; ... aml_end */
size_t aml_if(struct blob *b);                                     /* predicate, body, aml_end */
size_t aml_else(struct blob *b);                                   /* right behind the end of an If */
size_t aml_while(struct blob *b);                                  /* predicate, body, aml_end */
void aml_acquire(struct blob *b, const char *mutex);               /* for ever */
void aml_release(struct blob *b, const char *mutex);
void aml_mutex(struct blob *b, const char *seg);
void aml_io_region(struct blob *b, const char *seg, uint16_t port, uint8_t len);
/* Field (region, access, NoLock, update) { ... aml_end: elements with aml_field_bits() */
enum aml_access { AML_BYTE_ACCESS = 1, AML_DWORD_ACCESS = 3 };
size_t aml_field(struct blob *b, const char *region, enum aml_access access, bool write_as_zeros);
void aml_field_bits(struct blob *b, const char *seg, uint8_t bits); /* seg NULL: skipped; bits below 64 */
void aml_buffer(struct blob *b, const void *data, uint8_t len);

/* Package () { v[0], ... v[n-1] } of small integers */
void aml_package(struct blob *b, const uint8_t *v, uint8_t n);

#endif
