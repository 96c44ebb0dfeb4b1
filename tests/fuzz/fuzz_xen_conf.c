/* Xen's configuration files. Mistakes have a place; what is accepted makes a command line. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include "src/ctl/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_config *c = guest_config_new();
	struct err e = ERR_INIT;
	struct argv argv = {0};
	struct notes notes = {0};

	if (!config_parse_xen(c, "f", (const char *)data, size, &notes, &e)) {
		if (!guest_config_complete(c, "/", "g", &e))
			config_command_line(c, "vmm", &argv, &e);
	} else if (strncmp(e.msg, "f:", 2)) {
		abort(); /* a mistake without its place */
	}
	argv_free(&argv);
	notes_free(&notes);
	guest_config_free(c);
	return 0;
}
