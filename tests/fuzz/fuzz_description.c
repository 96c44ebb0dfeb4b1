/* Hostile machine descriptions: read into a configuration (nothing is opened or built from it). */
#include "fuzz.h"

#include "vmm/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *argv[] = {(char *)(uintptr_t) "vmm"};
	struct err e = ERR_INIT;
	struct config c;

	if (!config_parse(&c, 1, argv, &e))
		machine_config_from_description(&c, data, size, &e);
	config_free(&c);
	return 0;
}
