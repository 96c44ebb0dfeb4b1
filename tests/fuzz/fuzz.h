/* The one function a fuzz target provides: process the input, return 0; crashing, hanging or leaking is a finding. */
#ifndef VMM_TEST_FUZZ_H
#define VMM_TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
