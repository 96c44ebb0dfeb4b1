/* The metrics server's requests: any bytes, as they arrive, at exactly their size. */
#include <stdlib.h>
#include <string.h>
#include "fuzz.h"
#include "src/control/metrics.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *copy = malloc(size ? size : 1);
	struct http_answer last = {0};

	memcpy(copy, data, size);
	for (size_t n = 0; n <= size && n <= HTTP_MAX_REQUEST; n += n + 16 < size ? 16 : 1) {
		struct http_answer a = http_parse(copy, n);

		if (last.status && a.status != last.status && n < HTTP_MAX_REQUEST)
			abort(); /* more bytes do not change what is complete */
		if (a.status && (a.status < 200 || a.status > 431))
			abort();
		last = a;
	}
	free(copy);
	return 0;
}
