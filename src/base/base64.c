/* See vmm/base64.h. */
#include "vmm/base64.h"

#include <stdbool.h>
#include <string.h>
#include "vmm/util.h"

char *base64_encode(const void *data, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *p = data;
	char *out = xzalloc((len + 2) / 3 * 4 + 1), *to = out;

	for (size_t i = 0; i < len; i += 3) {
		size_t n = MIN(len - i, (size_t)3);
		uint32_t v = (uint32_t)p[i] << 16 | (n > 1 ? p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0);

		*to++ = digits[v >> 18];
		*to++ = digits[v >> 12 & 63];
		*to++ = n > 1 ? digits[v >> 6 & 63] : '=';
		*to++ = n > 2 ? digits[v & 63] : '=';
	}
	return out;
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

ssize_t base64_decode(char *text)
{
	size_t len = strlen(text), out = 0;
	uint32_t v = 0;

	if (len % 4)
		return -1;
	for (size_t i = 0; i < len; i++) {
		bool padding = text[i] == '=' && i >= len - 2 && (i == len - 1 || text[len - 1] == '=');
		int d = padding ? 0 : base64_digit(text[i]);

		if (d < 0)
			return -1;
		v = v << 6 | (uint32_t)d;
		if (i % 4 != 3)
			continue;
		text[out++] = (char)(v >> 16);
		text[out++] = (char)(v >> 8);
		text[out++] = (char)v;
		v = 0;
	}
	return (ssize_t)(out - (len && text[len - 1] == '=') - (len > 1 && text[len - 2] == '='));
}
