/* Hostile kernel images: bzimage. A segment outside of guest RAM or of the file is a finding. */
#include "fuzz_boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_boot_image(boot_parse_bzimage, data, size);
}
