/* -netdev user's options: what is taken, and what is refused in QEMU's words. */
#include <stdlib.h>
#include <string.h>
#include "local.h"
#include "tests/lib/suite.h"
#include "vmm/chardev.h"
#include "vmm/loop.h"

static void setup(void)
{
	ck_assert_int_eq(loop_init_main(NULL), 0);
}

static void teardown(void)
{
	netdev_close_all();
	chardev_close_all();
}

static const struct {
	const char *options, *message; /* QEMU's words; NULL: good */
} cases[] = {
	{"net=10.1.0.0/16,host=10.1.0.1", NULL},
	{"net=172.16.0.0,ipv4=on", NULL},
	{"ipv6=off", NULL},
	{"ipv6-net=fd00:1::/64", NULL},
	{"ipv6-prefix=fd00:2::,ipv6-prefixlen=48,ipv6-host=fd00:2::9,ipv6-dns=fd00:2::a", NULL},
	{"net=10.0.2.0/99", "Invalid netmask provided (must be in range 4-32)"},
	{"net=foo", "Failed to parse netmask"},
	{"net=10.0.2.0/255.x", "Failed to parse netmask (trailing chars)"},
	{"host=10.0.3.1", "Host doesn't belong to network"},
	{"host=x", "Failed to parse host"},
	{"dns=10.0.2.2", "DNS must be different from host"},
	{"dns=1.2.3.4,restrict=on", "DNS doesn't belong to network"},
	{"dhcpstart=10.0.2.3", "DHCP must be different from host and DNS"},
	{"dhcpstart=1.2.3.4", "DHCP doesn't belong to network"},
	{"ipv4=off,net=10.0.2.0/24", "IPv4 disabled but netmask/host/dns provided"},
	{"ipv4=off,ipv6=off", "IPv4 and IPv6 disabled"},
	{"ipv6=off,ipv6-host=fec0::2", "IPv6 disabled but prefix/host6/dns6 provided"},
	{"ipv6-net=fe80::/xx", "Parameter 'ipv6-prefixlen' expects a number"},
	{"ipv6-prefixlen=127", "Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)"},
	{"ipv6-host=fe80::1", "IPv6 Host doesn't belong to network"},
	{"domainname=", "'domainname' parameter cannot be empty"},
	{"hostfwd=foo", "Invalid host forwarding rule 'foo' (No : separators)"},
	{"hostfwd=sctp::1-:2", "Invalid host forwarding rule 'sctp::1-:2' (Bad protocol name)"},
	{"hostfwd=tcp:x:1-:2", "Invalid host forwarding rule 'tcp:x:1-:2' (Bad host address)"},
	{"hostfwd=tcp:127.0.0.1:1-:xx", "Invalid host forwarding rule 'tcp:127.0.0.1:1-:xx' (Bad guest port)"},
	{"hostfwd=tcp:1.2.3.4:1-:22", "Could not set up host forwarding rule 'tcp:1.2.3.4:1-:22'"},
	{"guestfwd=foo", "Invalid guest forwarding rule 'foo'"},
	{"guestfwd=udp:10.0.2.4:1-null", "Invalid guest forwarding rule 'udp:10.0.2.4:1-null'"},
	{"guestfwd=tcp:10.0.2.2:1-null",
	 "Conflicting/invalid host:port in guest forwarding rule 'tcp:10.0.2.2:1-null'"},
	{"guestfwd=tcp:10.0.2.9:1-cmd:cat", "guestfwd=tcp:10.0.2.9:1-cmd:cat: vmm starts no programs"},
	{"smb=/srv", "smb=: a file server is a program of its own"},
};

START_TEST(test_options)
{
	struct err e = ERR_INIT;
	char text[300];
	struct netdev *d;

	snprintf(text, sizeof(text), "user,id=u%d,%s", _i, cases[_i].options);
	d = try_open(text, &e);
	if (!cases[_i].message)
		ck_assert_msg(d != NULL, "%s: %s", cases[_i].options, e.msg);
	else
		ck_assert_msg(!d && strstr(e.msg, cases[_i].message), "%s: '%s' instead of '%s'", cases[_i].options,
			      e.msg, cases[_i].message);
}
END_TEST

/* As QMP gives lists. */
START_TEST(test_json)
{
	uint16_t port = free_port(SOCK_STREAM);
	struct err e = ERR_INIT;
	char text[200], *info;
	struct netdev *d;

	snprintf(text, sizeof(text),
		 "{\"type\": \"user\", \"id\": \"u0\", \"hostfwd\": [{\"str\": \"tcp:127.0.0.1:%u-:22\"}]}", port);
	d = try_open(text, &e);
	ck_assert_msg(d != NULL, "%s", e.msg);
	close(local_connect(port));
	info = netdev_info(d);
	ck_assert_ptr_nonnull(strstr(info, "net=10.0.2.0,restrict=off"));
	free(info);
}
END_TEST

/* What the machine description keeps opens the same again, lists included. */
START_TEST(test_options_again)
{
	uint16_t one = free_port(SOCK_STREAM), two = free_port(SOCK_STREAM);
	const char *formats[] = {
		"user,id=u0,hostfwd=tcp:127.0.0.1:%u-:22,hostfwd=tcp:127.0.0.1:%u-:23,restrict=on",
		"{\"type\": \"user\", \"id\": \"u0\", \"hostfwd\": [{\"str\": \"tcp:127.0.0.1:%u-:22\"}, "
		"{\"str\": \"tcp:127.0.0.1:%u-:23\"}], \"restrict\": true}"};
	struct err e = ERR_INIT;
	char text[300], *kept;
	struct netdev *d;

	snprintf(text, sizeof(text), formats[_i], one, two);
	d = try_open(text, &e);
	ck_assert_msg(d != NULL, "%s", e.msg);
	kept = xstrdup(netdev_options(d));
	ck_assert_int_eq(netdev_remove("u0", &e), 0);
	d = try_open(kept, &e);
	ck_assert_msg(d != NULL, "%s: %s", kept, e.msg);
	free(kept);
	close(local_connect(one));
	close(local_connect(two));
	kept = netdev_info(d);
	ck_assert_ptr_nonnull(strstr(kept, "restrict=on"));
	free(kept);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("options");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_loop_test(c, test_options, 0, (int)ARRAY_SIZE(cases));
	tcase_add_test(c, test_json);
	tcase_add_loop_test(c, test_options_again, 0, 2);
	return run_suite("slirp options", (TCase *[]){c, NULL});
}
