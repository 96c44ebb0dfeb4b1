/* The gdb protocol: bytes from a socket, on a guest of memory and registers. Lines of the input are framed as packets
 * when their first byte is '!', so that what is behind the checksum is reached; all else goes in as it is. */
#include <stdlib.h>
#include "fuzz.h"
#include "tests/unit/gdb_fake.h"

static void feed_packet(struct fake *f, const uint8_t *p, size_t len)
{
	uint8_t sum = 0;
	char tail[4];

	for (size_t i = 0; i < len; i++)
		sum += p[i];
	snprintf(tail, sizeof(tail), "#%02x", sum);
	gdb_feed(&f->gdb, (const uint8_t *)"$", 1);
	gdb_feed(&f->gdb, p, len);
	gdb_feed(&f->gdb, (const uint8_t *)tail, 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fake *fakes[2];
	struct fake *f;

	for (unsigned i = 0; i < 2; i++)
		if (!fakes[i])
			fakes[i] = fake_new(i);
	f = fakes[size & 1];
	gdb_reset(&f->gdb);
	f->running = f->refuse = false;
	while (size) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t len = end ? (size_t)(end - data) : size;

		f->sent_len = 0;
		if (len && *data == '!')
			feed_packet(f, data + 1, len - 1);
		else
			gdb_feed(&f->gdb, data, len);
		data += len + (end != NULL);
		size -= len + (end != NULL);
	}
	gdb_feed(&f->gdb, (const uint8_t *)"\n#00", 4); /* end a packet left open */
	return 0;
}
