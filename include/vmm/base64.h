/* base64 of RFC 4648, section 4. */
#ifndef VMM_BASE64_H
#define VMM_BASE64_H

#include <stdint.h>
#include <sys/types.h>

char *base64_encode(const void *data, size_t len); /* NUL-terminated, without line breaks; malloc'ed */
ssize_t base64_decode(char *text);                 /* in place; length, or -1 if it is none */

#endif
