/*
 * -netdev user's options: addresses, networks, forwarding rules. Defaults, rules and messages are QEMU 7.2's.
 *
 * Left out: IPv6 in forwarding rules, as in QEMU 7.2.
 */
#include "slirp_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DHCP_STRING_MAX 255
#define PREFIX6_MAX     126

/* The mask that comes with an address written without one: classes, and RFC 1918's and 2544's networks. */
static uint32_t natural_mask(uint32_t address)
{
	static const struct {
		uint32_t mask, value, result;
	} classes[] = {
		{0x80000000, 0, 0xff000000},          {0xfff00000, 0xac100000, 0xfff00000}, /* 172.16/12 */
		{0xc0000000, 0x80000000, 0xffff0000}, {0xffff0000, 0xc0a80000, 0xffff0000}, /* 192.168/16 */
		{0xffff0000, 0xc6120000, 0xfffe0000},                                       /* 198.18/15 */
		{0xe0000000, 0xe0000000, 0xffffff00},
	};

	for (size_t i = 0; i < ARRAY_SIZE(classes); i++)
		if ((address & classes[i].mask) == classes[i].value)
			return classes[i].result;
	return 0xfffffff0;
}

/* "10.0.2.0", "10.0.2.0/24", "10.0.2.0/255.255.255.0" */
static int parse_network(const char *text, struct in_addr *net, struct in_addr *mask, struct err *e)
{
	const char *slash = strchr(text, '/');
	char *address = slash ? xstrndup(text, (size_t)(slash - text)) : xstrdup(text), *end;
	bool ok = inet_aton(address, net);
	long bits;

	free(address);
	if (!ok)
		return err_set(e, EINVAL, "Failed to parse netmask");
	if (!slash) {
		mask->s_addr = htonl(natural_mask(ntohl(net->s_addr)));
	} else {
		bits = strtol(slash + 1, &end, 10);
		if (*end) {
			if (!inet_aton(slash + 1, mask))
				return err_set(e, EINVAL, "Failed to parse netmask (trailing chars)");
		} else if (bits < 4 || bits > 32) {
			return err_set(e, EINVAL, "Invalid netmask provided (must be in range 4-32)");
		} else {
			mask->s_addr = htonl(0xffffffff << (32 - bits));
		}
	}
	net->s_addr &= mask->s_addr;
	return 0;
}

static bool inside(const SlirpConfig *c, struct in_addr a)
{
	return (a.s_addr & c->vnetmask.s_addr) == c->vnetwork.s_addr;
}

static struct in_addr host_in(const SlirpConfig *c, uint32_t number)
{
	return (struct in_addr){c->vnetwork.s_addr | (htonl(number) & ~c->vnetmask.s_addr)};
}

static int config_ipv4(const struct user_options *o, SlirpConfig *c, struct err *e)
{
	int r = parse_network(o->net ? o->net : "10.0.2.0/24", &c->vnetwork, &c->vnetmask, e);

	if (r)
		return r;
	c->vhost = host_in(c, 0x0202);
	c->vdhcp_start = host_in(c, 0x020f);
	c->vnameserver = host_in(c, 0x0203);
	if (o->host && !inet_aton(o->host, &c->vhost))
		return err_set(e, EINVAL, "Failed to parse host");
	if (!inside(c, c->vhost))
		return err_set(e, EINVAL, "Host doesn't belong to network");
	if (o->dns && !inet_aton(o->dns, &c->vnameserver))
		return err_set(e, EINVAL, "Failed to parse DNS");
	if (o->restricted && !inside(c, c->vnameserver))
		return err_set(e, EINVAL, "DNS doesn't belong to network");
	if (c->vnameserver.s_addr == c->vhost.s_addr)
		return err_set(e, EINVAL, "DNS must be different from host");
	if (o->dhcpstart && !inet_aton(o->dhcpstart, &c->vdhcp_start))
		return err_set(e, EINVAL, "Failed to parse DHCP start address");
	if (!inside(c, c->vdhcp_start))
		return err_set(e, EINVAL, "DHCP doesn't belong to network");
	if (c->vdhcp_start.s_addr == c->vhost.s_addr || c->vdhcp_start.s_addr == c->vnameserver.s_addr)
		return err_set(e, EINVAL, "DHCP must be different from host and DNS");
	return 0;
}

static bool same_prefix(const struct in6_addr *a, const struct in6_addr *b, unsigned bits)
{
	unsigned bytes = bits / 8, rest = bits % 8;

	return !memcmp(a, b, bytes) && (!rest || (a->s6_addr[bytes] ^ b->s6_addr[bytes]) >> (8 - rest) == 0);
}

/* ipv6-net=ADDRESS[/LENGTH] is the old spelling of ipv6-prefix= and ipv6-prefixlen=. */
static int config_prefix6(const struct user_options *o, SlirpConfig *c, struct err *e)
{
	const char *text = o->ipv6_net ? o->ipv6_net : o->ipv6_prefix ? o->ipv6_prefix : "fec0::";
	char *address = xstrdup(text), *slash = strchr(address, '/'), *end;
	unsigned long bits = o->ipv6_prefixlen ? o->ipv6_prefixlen : 64;
	int r = 0;

	if (o->ipv6_net && (o->ipv6_prefix || o->ipv6_prefixlen))
		r = err_set(e, EINVAL, "ipv6-net= says what ipv6-prefix= and ipv6-prefixlen= say: give one of them");
	if (!r && o->ipv6_net && slash) {
		*slash = 0;
		bits = strtoul(slash + 1, &end, 10);
		if (!slash[1] || *end)
			r = err_set(e, EINVAL, "Parameter 'ipv6-prefixlen' expects a number");
	}
	if (!r && inet_pton(AF_INET6, address, &c->vprefix_addr6) != 1)
		r = err_set(e, EINVAL, "Failed to parse IPv6 prefix");
	if (!r && bits > PREFIX6_MAX)
		r = err_set(e, EINVAL, "Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)");
	c->vprefix_len = (uint8_t)bits;
	free(address);
	return r;
}

static int config_ipv6(const struct user_options *o, SlirpConfig *c, struct err *e)
{
	int r = config_prefix6(o, c, e);

	if (r)
		return r;
	c->vhost6 = c->vnameserver6 = c->vprefix_addr6;
	c->vhost6.s6_addr[15] |= 2;
	c->vnameserver6.s6_addr[15] |= 3;
	if (o->ipv6_host && inet_pton(AF_INET6, o->ipv6_host, &c->vhost6) != 1)
		return err_set(e, EINVAL, "Failed to parse IPv6 host");
	if (!same_prefix(&c->vhost6, &c->vprefix_addr6, c->vprefix_len))
		return err_set(e, EINVAL, "IPv6 Host doesn't belong to network");
	if (o->ipv6_dns && inet_pton(AF_INET6, o->ipv6_dns, &c->vnameserver6) != 1)
		return err_set(e, EINVAL, "Failed to parse IPv6 DNS");
	if (o->restricted && !same_prefix(&c->vnameserver6, &c->vprefix_addr6, c->vprefix_len))
		return err_set(e, EINVAL, "IPv6 DNS doesn't belong to network");
	return 0;
}

static int check_strings(const struct user_options *o, struct err *e)
{
	if (o->domainname && !*o->domainname)
		return err_set(e, EINVAL, "'domainname' parameter cannot be empty");
	if (o->domainname && strlen(o->domainname) > DHCP_STRING_MAX)
		return err_set(e, EINVAL, "'domainname' parameter cannot exceed 255 bytes");
	if (o->hostname && strlen(o->hostname) > DHCP_STRING_MAX)
		return err_set(e, EINVAL, "'vhostname' parameter cannot exceed 255 bytes");
	if (o->tftp_server_name && strlen(o->tftp_server_name) > DHCP_STRING_MAX)
		return err_set(e, EINVAL, "'tftp-server-name' parameter cannot exceed 255 bytes");
	return 0;
}

int slirp_config_from(const struct user_options *o, SlirpConfig *c, const char **search, struct err *e)
{
	bool v4 = !((o->ipv6 == 1 && o->ipv4 == 2) || !o->ipv4), v6 = !((o->ipv4 == 1 && o->ipv6 == 2) || !o->ipv6);
	int r;

	if (!v4 && (o->net || o->host || o->dns))
		return err_set(e, EINVAL, "IPv4 disabled but netmask/host/dns provided");
	if (!v6 && (o->ipv6_net || o->ipv6_prefix || o->ipv6_host || o->ipv6_dns))
		return err_set(e, EINVAL, "IPv6 disabled but prefix/host6/dns6 provided");
	if (!v4 && !v6)
		return err_set(e, EINVAL, "IPv4 and IPv6 disabled");
	*c = (SlirpConfig){
		.version = SLIRP_CONFIG_VERSION_MAX, .restricted = o->restricted, .in_enabled = v4, .in6_enabled = v6};
	r = config_ipv4(o, c, e);
	if (!r)
		r = config_ipv6(o, c, e);
	if (!r)
		r = check_strings(o, e);
	for (unsigned i = 0; i < o->dnssearch.n; i++)
		search[i] = o->dnssearch.v[i];
	search[o->dnssearch.n] = NULL;
	c->vdnssearch = o->dnssearch.n ? search : NULL;
	c->vhostname = o->hostname;
	c->vdomainname = o->domainname;
	c->tftp_path = o->tftp;
	c->tftp_server_name = o->tftp_server_name;
	c->bootfile = o->bootfile;
	return r;
}

/* ---- forwarding rules ---- */

/* The word before `sep`, at most size - 1 bytes; *text moves behind it. */
static bool next_word(const char **text, char sep, char *word, size_t size)
{
	const char *end = strchr(*text, sep);

	if (!end)
		return false;
	snprintf(word, size, "%.*s", (int)MIN((size_t)(end - *text), size - 1), *text);
	*text = end + 1;
	return true;
}

static bool parse_port(const char *text, uint16_t *port, long min)
{
	char *end;
	long n = strtol(text, &end, 0);

	*port = (uint16_t)n;
	return end != text && !*end && n >= min && n <= 65535;
}

/* "" and "tcp" are TCP. */
static bool parse_protocol(const char *word, bool *udp)
{
	*udp = !strcmp(word, "udp");
	return *udp || !*word || !strcmp(word, "tcp");
}

int slirp_parse_hostfwd(const char *rule, struct forward *f, struct err *e)
{
	const char *at = rule, *why = NULL;
	char word[64];

	*f = (struct forward){.host.s_addr = INADDR_ANY};
	if (!next_word(&at, ':', word, sizeof(word)))
		why = "No : separators";
	else if (!parse_protocol(word, &f->udp))
		why = "Bad protocol name";
	else if (!next_word(&at, ':', word, sizeof(word)))
		why = "Missing : separator";
	else if (*word && !inet_aton(word, &f->host))
		why = "Bad host address";
	else if (!next_word(&at, '-', word, sizeof(word)))
		why = "Bad host port separator";
	else if (!parse_port(word, &f->host_port, 0))
		why = "Bad host port";
	else if (!next_word(&at, ':', word, sizeof(word)))
		why = "Missing guest address";
	else if (*word && !inet_aton(word, &f->guest))
		why = "Bad guest address";
	else if (!parse_port(at, &f->guest_port, 1))
		why = "Bad guest port";
	return why ? err_set(e, EINVAL, "Invalid host forwarding rule '%s' (%s)", rule, why) : 0;
}

int slirp_parse_hostfwd_key(const char *rule, struct forward *f)
{
	const char *at = rule;
	char word[64];

	*f = (struct forward){.host.s_addr = INADDR_ANY};
	if (!next_word(&at, ':', word, sizeof(word)) || !parse_protocol(word, &f->udp) ||
	    !next_word(&at, ':', word, sizeof(word)) || (*word && !inet_aton(word, &f->host)))
		return -EINVAL;
	return parse_port(at, &f->host_port, 0) ? 0 : -EINVAL;
}

int slirp_parse_guestfwd(const char *rule, struct in_addr *server, uint16_t *port, const char **dev, struct err *e)
{
	char word[64];
	bool udp, ok;

	*dev = rule;
	*server = (struct in_addr){0};
	ok = next_word(dev, ':', word, sizeof(word)) && parse_protocol(word, &udp) && !udp &&
	     next_word(dev, ':', word, sizeof(word)) && (!*word || inet_aton(word, server)) &&
	     next_word(dev, '-', word, sizeof(word)) && parse_port(word, port, 1) && **dev;
	if (!ok)
		return err_set(e, EINVAL, "Invalid guest forwarding rule '%s'", rule);
	if (!strncmp(*dev, "cmd:", 4))
		return err_set(e, ENOTSUP,
			       "guestfwd=%s: vmm starts no programs, its sandbox forbids it: let the program listen on "
			       "a socket and "
			       "name that (guestfwd=tcp:SERVER:PORT-unix:PATH)",
			       rule);
	return 0;
}
