/* Configuration files in our syntax. What is accepted must survive being written and read again. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include "src/ctl/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_config *c = guest_config_new(), *copy = guest_config_new();
	struct err e = ERR_INIT;
	struct argv argv = {0};

	if (!config_parse_native(c, "f", (const char *)data, size, &e)) {
		char *first = config_format(c), *second;

		if (config_parse_native(copy, "f", first, strlen(first), &e))
			abort();
		second = config_format(copy);
		if (strcmp(first, second))
			abort();
		if (!guest_config_complete(c, "/", "g", &e))
			config_command_line(c, "vmm", &argv, &e);
		free(first);
		free(second);
	} else if (strncmp(e.msg, "f:", 2)) {
		abort(); /* a mistake without its place */
	}
	argv_free(&argv);
	guest_config_free(c);
	guest_config_free(copy);
	return 0;
}
