/* Typed properties: see vmm/prop.h. */
#include "vmm/prop.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_string(const struct prop *p)
{
	return p->type == PROP_STR || p->type == PROP_DRIVE || p->type == PROP_CHARDEV || p->type == PROP_NETDEV;
}

static unsigned int_size(const struct prop *p)
{
	switch (p->type) {
	case PROP_U8:
		return 1;
	case PROP_U16:
		return 2;
	case PROP_U32:
	case PROP_I32:
	case PROP_PCI_ADDR:
		return 4;
	case PROP_U64:
	case PROP_SIZE:
		return 8;
	default:
		return 0;
	}
}

static void *slot(const struct prop *p, void *obj)
{
	return (uint8_t *)obj + p->offset;
}

static void store_int(const struct prop *p, void *obj, uint64_t v)
{
	switch (int_size(p)) {
	case 1:
		*(uint8_t *)slot(p, obj) = (uint8_t)v;
		break;
	case 2:
		*(uint16_t *)slot(p, obj) = (uint16_t)v;
		break;
	case 4:
		*(uint32_t *)slot(p, obj) = (uint32_t)v;
		break;
	case 8:
		*(uint64_t *)slot(p, obj) = v;
		break;
	}
}

static uint64_t load_int(const struct prop *p, const void *obj)
{
	const void *v = (const uint8_t *)obj + p->offset;

	switch (int_size(p)) {
	case 1:
		return *(const uint8_t *)v;
	case 2:
		return *(const uint16_t *)v;
	case 4:
		return *(const uint32_t *)v;
	default:
		return *(const uint64_t *)v;
	}
}

void props_default(const struct prop *table, void *obj)
{
	for (const struct prop *p = table; p->name; p++) {
		if (is_string(p)) {
			*(char **)slot(p, obj) = xstrdup(p->def_str);
			continue;
		}
		switch (p->type) {
		case PROP_BOOL:
			*(bool *)slot(p, obj) = p->def != 0;
			break;
		case PROP_ENUM:
		case PROP_ONOFFAUTO:
			*(int *)slot(p, obj) = (int)p->def;
			break;
		case PROP_MAC:
		case PROP_UUID:
			memset(slot(p, obj), 0, p->type == PROP_MAC ? 6 : 16);
			if (p->def_str)
				prop_parse(p, obj, p->def_str, NULL);
			break;
		case PROP_PCI_ADDR:
			*(int32_t *)slot(p, obj) = p->def_str ? 0 : -1;
			if (p->def_str)
				prop_parse(p, obj, p->def_str, NULL);
			break;
		default:
			store_int(p, obj, p->def);
		}
	}
}

void props_free(const struct prop *table, void *obj)
{
	for (const struct prop *p = table; p->name; p++)
		if (is_string(p)) {
			free(*(char **)slot(p, obj));
			*(char **)slot(p, obj) = NULL;
		}
}

const struct prop *prop_find(const struct prop *table, const char *name)
{
	for (const struct prop *p = table; p->name; p++)
		if (!strcmp(p->name, name))
			return p;
	return NULL;
}

/* ---- parsing ---- */

static bool parse_bool(const char *text, bool *out)
{
	static const char *const on[] = {"on", "yes", "true", "y"}, *const off[] = {"off", "no", "false", "n"};

	for (size_t i = 0; i < ARRAY_SIZE(on); i++) {
		if (!strcmp(text, on[i]))
			return *out = true, true;
		if (!strcmp(text, off[i]))
			return *out = false, true;
	}
	return false;
}

static int bad(const struct prop *p, const char *text, const char *expects, struct err *e)
{
	return err_set(e, EINVAL, "Parameter '%s' expects %s, not '%s'", p->name, expects, text);
}

static int parse_unsigned(const struct prop *p, const char *text, uint64_t *out, struct err *e)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return bad(p, text, "a number", e);
	errno = 0;
	*out = strtoull(text, &end, 0);
	if (*end || errno)
		return bad(p, text, errno == ERANGE ? "a number that fits into 64 bits" : "a number", e);
	return 0;
}

/* Digits with an optional fraction and suffix, as QEMU: "512M", "1.5G"; no suffix: bytes. */
static int parse_size(const struct prop *p, const char *text, uint64_t *out, struct err *e)
{
	static const char suffixes[] = "bkmgtpe";
	double fraction = 0, scale = 0.1;
	unsigned shift = 0;
	uint64_t v;
	char *end;

	if (!isdigit((unsigned char)*text))
		return bad(p, text, "a size (a number with a suffix k, M, G or T)", e);
	errno = 0;
	v = strtoull(text, &end, 0);
	if (*end == '.')
		for (end++; isdigit((unsigned char)*end); end++, scale /= 10)
			fraction += (*end - '0') * scale;
	if (*end) {
		const char *s = strchr(suffixes, tolower((unsigned char)*end));

		if (!s || end[1])
			return bad(p, text, "a size (a number with a suffix k, M, G or T)", e);
		shift = (unsigned)(s - suffixes) * 10;
	} else if (fraction != 0) {
		return bad(p, text, "a whole number of bytes, or a suffix k, M, G or T", e);
	}
	if (errno || (shift && v >> (64 - shift)))
		return bad(p, text, "a size below 16 EiB", e);
	*out = (v << shift) + (uint64_t)(fraction * (double)(1ull << shift));
	return 0;
}

static int check_range(const struct prop *p, uint64_t v, const char *text, struct err *e)
{
	uint64_t type_max = int_size(p) == 8 ? UINT64_MAX : BIT64(int_size(p) * 8) - 1;
	uint64_t max = p->max ? p->max : type_max;

	if (v >= p->min && v <= max)
		return 0;
	return err_set(e, ERANGE, "Parameter '%s' expects a value between %llu and %llu, not '%s'", p->name,
		       (unsigned long long)p->min, (unsigned long long)max, text);
}

static int parse_int(const struct prop *p, void *obj, const char *text, struct err *e)
{
	uint64_t v = 0;
	int r;

	if (p->type == PROP_I32) {
		char *end;
		long long s;
		int64_t min = p->min || p->max ? (int64_t)p->min : INT32_MIN;
		int64_t max = p->min || p->max ? (int64_t)p->max : INT32_MAX;

		errno = 0;
		s = strtoll(text, &end, 0);
		if (!*text || *end || errno)
			return bad(p, text, "a number", e);
		if (s < min || s > max)
			return err_set(e, ERANGE, "Parameter '%s' expects a value between %lld and %lld, not '%s'",
				       p->name, (long long)min, (long long)max, text);
		*(int32_t *)slot(p, obj) = (int32_t)s;
		return 0;
	}
	r = p->type == PROP_SIZE ? parse_size(p, text, &v, e) : parse_unsigned(p, text, &v, e);
	if (!r)
		r = check_range(p, v, text, e);
	if (!r)
		store_int(p, obj, v);
	return r;
}

static int parse_enum(const struct prop *p, void *obj, const char *text, struct err *e)
{
	static const char *const on_off_auto[] = {"off", "on", "auto", NULL};
	const char *const *values = p->type == PROP_ONOFFAUTO ? on_off_auto : p->values;
	char list[256] = "";
	size_t n;

	for (n = 0; values[n]; n++) {
		if (!strcmp(values[n], text)) {
			*(int *)slot(p, obj) = (int)n;
			return 0;
		}
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", n ? "|" : "", values[n]);
	}
	return bad(p, text, list, e);
}

static int parse_hex_bytes(const struct prop *p, void *obj, const char *text, struct err *e)
{
	size_t n = p->type == PROP_MAC ? 6 : 16;
	const char *what = p->type == PROP_MAC ? "a MAC address (52:54:00:12:34:56)"
					       : "a UUID (12345678-1234-1234-1234-123456789abc)";
	uint8_t bytes[16];
	const char *s = text;

	for (size_t i = 0; i < n; i++) {
		unsigned v;

		if (i && (p->type == PROP_MAC || i == 4 || i == 6 || i == 8 || i == 10)) {
			if (*s != (p->type == PROP_MAC ? ':' : '-') && !(p->type == PROP_MAC && *s == '-'))
				return bad(p, text, what, e);
			s++;
		}
		if (!isxdigit((unsigned char)s[0]) || !isxdigit((unsigned char)s[1]) || sscanf(s, "%2x", &v) != 1)
			return bad(p, text, what, e);
		bytes[i] = (uint8_t)v;
		s += 2;
	}
	if (*s)
		return bad(p, text, what, e);
	memcpy(slot(p, obj), bytes, n);
	return 0;
}

/* "5", "0x5", "05.1", "0x1.0x2": device and function, both hexadecimal as in QEMU. */
static int parse_pci_addr(const struct prop *p, void *obj, const char *text, struct err *e)
{
	unsigned long dev, fn = 0;
	char *end;

	dev = strtoul(text, &end, 16);
	if (end != text && *end == '.') {
		const char *f = end + 1;

		fn = strtoul(f, &end, 16);
		if (end == f)
			fn = 8;
	}
	if (end == text || *end || dev > 31 || fn > 7)
		return bad(p, text, "a PCI address (device 0x0..0x1f, function 0..7, as in 0x5 or 0x1.0x2)", e);
	*(int32_t *)slot(p, obj) = (int32_t)(dev << 3 | fn);
	return 0;
}

int prop_parse(const struct prop *p, void *obj, const char *text, struct err *e)
{
	char **s;

	switch (p->type) {
	case PROP_BOOL:
		return parse_bool(text, slot(p, obj)) ? 0 : bad(p, text, "'on' or 'off'", e);
	case PROP_STR:
	case PROP_DRIVE:
	case PROP_CHARDEV:
	case PROP_NETDEV:
		s = slot(p, obj);
		free(*s);
		*s = xstrdup(text);
		return 0;
	case PROP_ENUM:
	case PROP_ONOFFAUTO:
		return parse_enum(p, obj, text, e);
	case PROP_MAC:
	case PROP_UUID:
		return parse_hex_bytes(p, obj, text, e);
	case PROP_PCI_ADDR:
		return parse_pci_addr(p, obj, text, e);
	default:
		return parse_int(p, obj, text, e);
	}
}

int props_set(const struct prop *table, void *obj, const char *owner, const char *name, const char *text, struct err *e)
{
	const struct prop *p = prop_find(table, name);
	const char *names[256], *near;
	size_t n = 0;

	if (p)
		return prop_parse(p, obj, text, e);
	for (p = table; p->name && n < ARRAY_SIZE(names); p++)
		if (!p->internal)
			names[n++] = p->name;
	near = err_nearest(name, names, n);
	if (near)
		return err_set(e, EINVAL, "Property '%s.%s' not found; did you mean '%s'?", owner, name, near);
	return err_set(e, EINVAL, "Property '%s.%s' not found", owner, name);
}

/* ---- printing ---- */

static char *format_hex_bytes(const struct prop *p, const uint8_t *v)
{
	if (p->type == PROP_MAC)
		return xasprintf("%02x:%02x:%02x:%02x:%02x:%02x", v[0], v[1], v[2], v[3], v[4], v[5]);
	return xasprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", v[0], v[1], v[2], v[3],
			 v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15]);
}

char *prop_format(const struct prop *p, const void *obj)
{
	const void *v = (const uint8_t *)obj + p->offset;

	switch (p->type) {
	case PROP_BOOL:
		return xstrdup(*(const bool *)v ? "on" : "off");
	case PROP_STR:
	case PROP_DRIVE:
	case PROP_CHARDEV:
	case PROP_NETDEV:
		return xstrdup(*(char *const *)v ? *(char *const *)v : "");
	case PROP_ENUM:
		return xstrdup(p->values[*(const int *)v]);
	case PROP_ONOFFAUTO:
		return xstrdup(*(const int *)v == 0 ? "off" : *(const int *)v == 1 ? "on" : "auto");
	case PROP_MAC:
	case PROP_UUID:
		return format_hex_bytes(p, v);
	case PROP_I32:
		return xasprintf("%d", *(const int32_t *)v);
	case PROP_PCI_ADDR:
		return *(const int32_t *)v < 0
			       ? xstrdup("")
			       : xasprintf("%02x.%x", *(const int32_t *)v >> 3, *(const int32_t *)v & 7);
	default:
		return xasprintf("%llu", (unsigned long long)load_int(p, obj));
	}
}

const char *prop_type_name(const struct prop *p)
{
	static const char *const names[] = {
		[PROP_BOOL] = "bool",
		[PROP_U8] = "uint8",
		[PROP_U16] = "uint16",
		[PROP_U32] = "uint32",
		[PROP_U64] = "uint64",
		[PROP_I32] = "int32",
		[PROP_SIZE] = "size",
		[PROP_STR] = "str",
		[PROP_ENUM] = "enum",
		[PROP_ONOFFAUTO] = "OnOffAuto",
		[PROP_MAC] = "mac",
		[PROP_UUID] = "uuid",
		[PROP_PCI_ADDR] = "pci-address",
		[PROP_DRIVE] = "drive",
		[PROP_CHARDEV] = "chardev",
		[PROP_NETDEV] = "netdev",
	};

	return names[p->type];
}

static char *default_text(const struct prop *p)
{
	if (is_string(p) || p->type == PROP_MAC || p->type == PROP_UUID || p->type == PROP_PCI_ADDR)
		return xstrdup(p->def_str ? p->def_str : "");
	switch (p->type) {
	case PROP_BOOL:
		return xstrdup(p->def ? "on" : "off");
	case PROP_ENUM:
		return xstrdup(p->values[p->def]);
	case PROP_ONOFFAUTO:
		return xstrdup(p->def == 0 ? "off" : p->def == 1 ? "on" : "auto");
	case PROP_I32:
		return xasprintf("%d", (int32_t)p->def);
	default:
		return xasprintf("%llu", (unsigned long long)p->def);
	}
}

void props_print_help(const struct prop *table, FILE *out)
{
	for (const struct prop *p = table; p->name; p++) {
		char *def, type[160];

		if (p->internal)
			continue;
		def = default_text(p);
		snprintf(type, sizeof(type), "%s", prop_type_name(p));
		if (p->type == PROP_ENUM) {
			type[0] = '\0';
			for (size_t i = 0; p->values[i]; i++)
				snprintf(type + strlen(type), sizeof(type) - strlen(type), "%s%s", i ? "|" : "",
					 p->values[i]);
		}
		fprintf(out, "  %s=<%s>%*s %s", p->name, type, (int)MAX(1, 28 - (int)(strlen(p->name) + strlen(type))),
			"", p->help ? p->help : "");
		if (*def)
			fprintf(out, " (default: %s)", def);
		fputc('\n', out);
		free(def);
	}
}
