/* The few AML encodings that acpi.c needs (ACPI 6.3, chapter 20). Private to the machine room. */
#ifndef VMM_MACHINE_AML_H
#define VMM_MACHINE_AML_H

#include "blob.h"

/* Everything between aml_begin() and aml_end() becomes the body of an object that starts with a PkgLength. */
size_t aml_begin(struct blob *b, const uint8_t *opcode, size_t len);
void aml_end(struct blob *b, size_t start);

size_t aml_scope(struct blob *b, const char *root_seg); /* Scope (\XXXX) { ... aml_end */
size_t aml_device(struct blob *b, const char *seg);     /* Device (XXXX) { ... aml_end */
void aml_name(struct blob *b, const char *seg);         /* Name (XXXX, <what is appended next>) */
void aml_integer(struct blob *b, uint32_t v);
void aml_string(struct blob *b, const char *s);
/* Processor (XXXX, id, 0, 0) {}: the only object for CPUs that ACPI 1.0 has */
void aml_processor(struct blob *b, const char *seg, uint8_t id);
/* Package () { v[0], ... v[n-1] } of small integers */
void aml_package(struct blob *b, const uint8_t *v, uint8_t n);

#endif
