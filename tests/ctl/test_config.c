/* Configuration files of guests: our syntax and Xen's, their mistakes, and the command lines that come of them. */
#include <stdlib.h>
#include <string.h>
#include "src/ctl/config.h"
#include "tests/lib/suite.h"

static struct err e;
static struct notes notes;

static struct guest_config *parse(bool xen, const char *text, int *r)
{
	struct guest_config *c = guest_config_new();

	e = ERR_INIT;
	notes_free(&notes);
	*r = xen ? config_parse_xen(c, "f", text, strlen(text), &notes, &e)
		 : config_parse_native(c, "f", text, strlen(text), &e);
	return c;
}

/* The command line for a text, or a line with the mistake. Static storage. */
static const char *command(bool xen, const char *text)
{
	static char out[4096];
	struct argv argv = {0};
	int r;
	struct guest_config *c = parse(xen, text, &r);
	char *line;

	if (!r)
		r = guest_config_complete(c, "/here", "guest", &e);
	if (!r)
		r = config_command_line(c, "vmm", &argv, &e);
	line = r ? xasprintf("MISTAKE %s", e.msg) : argv_quote(&argv);
	snprintf(out, sizeof(out), "%s", line);
	free(line);
	argv_free(&argv);
	guest_config_free(c);
	return out;
}

#define assert_has(text, part) ck_assert_msg(strstr(text, part), "no '%s' in: %s", part, text)
#define assert_not(text, part) ck_assert_msg(!strstr(text, part), "'%s' in: %s", part, text)

static void assert_mistake(bool xen, const char *text, const char *expected)
{
	int r;
	struct guest_config *c = parse(xen, text, &r);

	ck_assert_msg(r < 0, "accepted: %s", text);
	ck_assert_msg(strstr(e.msg, expected), "'%s' instead of '%s' for: %s", e.msg, expected, text);
	guest_config_free(c);
}

/* ---- ours ---- */

START_TEST(native_whole_guest)
{
	const char *line = command(false, "# a guest\n"
					  "name = win xp\t # behind a blank: a comment\n"
					  "memory = 512\r\n"
					  "vcpus=2\n"
					  "max_vcpus = 4\n");

	assert_has(line, "MISTAKE f:5:1: Property 'guest.max-vcpus' not found");
	line = command(false,
		       "name = web\nmemory = 512\nvcpus=2\nmaxvcpus = 4\nboot=dc\nvnc=none\non_reboot = destroy\n"
		       "append = \"a \\\"b\\\" # c\"\nkernel = k\n"
		       "[disk]\nfile = web,1.img\ncache = none\n"
		       "[disk]\nmedia = cdrom\n"
		       "[disk]\nfile=/x/f.img\ntarget = fda\n"
		       "[serial]\ntype = console\n[serial]\ntype=pty\n"
		       "[device]\ndriver = isa-debugcon\niobase = 0xe9\n");
	assert_has(line, "vmm -name web ");
	assert_has(line, " -m size=524288K -smp 2,maxcpus=4 ");
	assert_has(line, "-boot dc");
	assert_has(line, "-kernel /here/k -append 'a \"b\" # c'");
	assert_has(line, "-drive file=/here/web,,1.img,if=ide,index=0,media=disk,cache=none ");
	assert_has(line, "-drive if=ide,index=2,media=cdrom ");
	assert_has(line, "-drive file=/x/f.img,if=floppy,index=0 ");
	assert_has(line, "-serial chardev:console0 -serial pty ");
	assert_has(line, "-device isa-debugcon,iobase=0xe9 ");
	assert_has(line, "-action reboot=shutdown,shutdown=poweroff,panic=pause");
	assert_has(line, "-display none");
}
END_TEST

START_TEST(native_mistakes)
{
	static const struct {
		const char *text, *expected;
	} mistakes[] = {
		{"memory 512\n", "f:1:8: expected key = value or [section]"},
		{"\n\n  = 3\n", "f:3:3: expected key"},
		{"memroy = 512\n", "f:1:1: Property 'guest.memroy' not found"},
		{"memroy = 512\n", "memory"},
		{"memory = lots\n", "f:1:10: "},
		{"memory = 1\nmemory = 2\n", "f:2:1: 'memory' is given twice"},
		{"vcpus = 0\n", "f:1:9: "},
		{"on_crash = explode\n", "f:1:12: "},
		{"on_poweroff = coredump-destroy\n", "f:1:15: "},
		{"[dsik]\n", "f:1:2: there is no section [dsik]; did you mean [disk]?"},
		{"[disk\n", "f:1:6: ']' is missing"},
		{"[disk] file = x\n", "f:1:8: nothing may follow"},
		{"[disk]\nfiel = x\n", "f:2:1: "},
		{"[device]\nid = x\n", "f:2:1: driver comes first"},
		{"[device]\ndriver = x\ndriver = y\n", "f:3:1: 'driver' is given twice"},
		{"name = \"web\n", "f:1:12: the quote that begins in column 8"},
		{"name = \"we\\b\"\n", "f:1:11: after a backslash"},
		{"name = \"web\" x\n", "f:1:14: nothing may follow"},
		{"name = w\x01\n", "f:1:9: a control character (0x01)"},
	};
	int r;
	struct guest_config *c;

	for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++)
		assert_mistake(false, mistakes[i].text, mistakes[i].expected);
	c = guest_config_new();
	r = config_parse_native(c, "f", "na\0me", 5, &e);
	ck_assert_int_lt(r, 0);
	assert_has(e.msg, "f:1:3: a zero byte");
	guest_config_free(c);
}
END_TEST

START_TEST(native_impossible_guests)
{
	static const struct {
		const char *text, *expected;
	} guests[] = {
		{"memory=64\nmaxmem=32\n", "maxmem is less than memory"},
		{"vcpus=4\nmaxvcpus=2\n", "maxvcpus=2 is less than vcpus=4"},
		{"[disk]\n", "disk 1: file= is missing"},
		{"[disk]\nfile=a\ntarget=hda\n[disk]\nfile=b\ntarget=sda\n", "two disks have the place sda"},
		{"[disk]\nfile=a\ntarget=hde\n", "disk target 'hde'"},
		{"[disk]\nfile=a\ntarget=fda\nmedia=cdrom\n", "does not fit media=cdrom"},
		{"vnc-password = 123456789\n", "8 characters"},
		{"[device]\n", "without driver="},
		{"extra = -foo \"bar\n", "a quote is not closed"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(guests); i++) {
		const char *line = command(false, guests[i].text);

		assert_has(line, "MISTAKE");
		assert_has(line, guests[i].expected);
	}
}
END_TEST

START_TEST(native_extra_words)
{
	const char *line = command(false, "extra = \"-d 'a b' -S\\tx\\\\ y \\\"q\\\\\\\"r\\\"\"\n");

	assert_has(line, " -d 'a b' -S 'x y' 'q\"r'");
}
END_TEST

/* ---- network cards ---- */

START_TEST(native_nics)
{
	const char *line = command(
		false,
		"name = web\n[nic]\n[nic]\nmodel = virtio\nbridge = br0\n[nic]\nmac = 52:54:00:00:00:01\n"
		"forward = tcp:127.0.0.1:2222-:22 udp::53-:53\n[nic]\nnetdev = socket,listen=:1234\nhelper=/x\n");

	assert_has(line, "MISTAKE");
	assert_has(line, "helper= is for a card with bridge=");
	line = command(false,
		       "name = web\n[nic]\n[nic]\nmodel = virtio\nbridge = br0\n[nic]\nmac = 52:54:00:00:00:01\n"
		       "forward = tcp:127.0.0.1:2222-:22 udp::53-:53\n[nic]\nnetdev = \"socket,listen=:1234\"\n");
	assert_has(line, "-netdev user,id=nic0-net -device e1000,id=nic0,netdev=nic0-net,mac=52:54:00:");
	assert_has(line, "-netdev bridge,br=br0,helper=/h,id=nic1-net -device "
			 "virtio-net-pci,id=nic1,netdev=nic1-net,mac=52:54:00:");
	assert_has(line, "-netdev user,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::53-:53,id=nic2-net "
			 "-device e1000,id=nic2,netdev=nic2-net,mac=52:54:00:00:00:01 ");
	assert_has(line, "-netdev socket,listen=:1234,id=nic3-net ");
	assert_not(line, "-nic none");
	assert_has(command(false, "name = web\n"), " -nic none ");
}
END_TEST

static void mac_of(const char *text, char *mac)
{
	const char *at = strstr(command(false, text), ",mac=");

	ck_assert_ptr_nonnull(at);
	memcpy(mac, at + 5, 17);
	mac[17] = 0;
}

/* The same at each start, another one for another guest and another card. */
START_TEST(native_own_macs)
{
	char a[18], again[18], other[18], with_uuid[18];

	mac_of("name = web\n[nic]\n", a);
	mac_of("name = web\n[nic]\n", again);
	mac_of("name = db\n[nic]\n", other);
	mac_of("name = web\nuuid = 12345678-1234-1234-1234-123456789abc\n[nic]\n", with_uuid);
	ck_assert_str_eq(a, again);
	ck_assert_str_ne(a, other);
	ck_assert_str_ne(a, with_uuid);
}
END_TEST

START_TEST(native_bad_nics)
{
	static const struct {
		const char *keys, *message;
	} bad[] = {
		{"mac = 52:54:00", "mac"},
		{"mac = 01:00:5e:00:00:01", "multicast address"},
		{"bridge = br0\nnetdev = user", "bridge= and netdev="},
		{"bridge = br0\nforward = tcp::1-:2", "forward= is for"},
		{"speed = 10", "not found"},
	};
	char text[200];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *line;

		snprintf(text, sizeof(text), "name = web\n[nic]\n%s\n", bad[i].keys);
		line = command(false, text);
		assert_has(line, "MISTAKE");
		assert_has(line, bad[i].message);
	}
}
END_TEST

/* What is written reads back as the same. */
START_TEST(native_round_trip)
{
	static const char text[] =
		"name = x\ndescription = \" two\\nlines # \\\"\\\\\"\nuuid = 12345678-1234-1234-1234-123456789abc\n"
		"memory = 1025K\nmaxmem = 3G\nvcpus = 3\non-crash = coredump-restart\nvnc = none\nacpi = off\n"
		"[disk]\nfile = /a\ntarget = hdb\nreadonly = on\n[disk]\nmedia = cdrom\n[nic]\nmac = "
		"52:54:00:00:00:01\nmodel = virtio\nforward = tcp::1-:2\n[nic]\nbridge = br0\n"
		"[serial]\ntype = pty\n[device]\ndriver = d\nid = \"a#b\"\n";
	int r;
	struct guest_config *c = parse(false, text, &r), *copy;
	char *first, *second;

	ck_assert_int_eq(r, 0);
	ck_assert_uint_eq(c->memory, 1025 * KIB);
	ck_assert_uint_eq(c->maxmem, 3 * GIB);
	ck_assert_str_eq(c->description, " two\nlines # \"\\");
	first = config_format(c);
	copy = parse(false, first, &r);
	ck_assert_msg(!r, "%s in:\n%s", e.msg, first);
	second = config_format(copy);
	ck_assert_str_eq(first, second);
	ck_assert_uint_eq(copy->memory, c->memory);
	ck_assert_int_eq(copy->on_crash, POLICY_COREDUMP_RESTART);
	ck_assert_mem_eq(copy->uuid, c->uuid, 16);
	ck_assert_str_eq(copy->disks->file, "/a");
	ck_assert(copy->disks->readonly);
	ck_assert_str_eq(copy->nics->mac, "52:54:00:00:00:01");
	free(first);
	free(second);
	guest_config_free(c);
	guest_config_free(copy);
}
END_TEST

/* ---- Xen's ---- */

static const char xm_example[] = "#  -*- mode: python; -*-\n"
				 "kernel = \"/usr/lib/xen/boot/hvmloader\"\n"
				 "builder='hvm'\n"
				 "memory = 256\n"
				 "name = \"winxp\"\n"
				 "uuid = \"06ed00fe-1162-4fc4-b5d8-11993ee4a8b9\"\n"
				 "vcpus=2\n"
				 "pae=1\nacpi=1\napic=1\n"
				 "vif = [ 'type=ioemu, mac=00:16:3e:00:00:11, bridge=xenbr0, model=ne2k_pci' ]\n"
				 "disk = [ 'file:/images/win,x.img,hda,w',\n"
				 "         'phy:sda5,ioemu:hdb,w',  # a partition\n"
				 "         'tap:aio:/images/d.img,hdd,w!',\n"
				 "         ',hdc:cdrom,r', ]\n"
				 "device_model = '/usr/lib/xen/bin/qemu-dm'\n"
				 "boot=\"cda\"\n"
				 "sdl=0\nvnc=1\nvnclisten=\"0.0.0.0\"\nvncdisplay=3\nvncunused=0\nvncpasswd=''\n"
				 "serial='pty'\n"
				 "usb=1\nusbdevice='tablet'\n"
				 "localtime=1\n"
				 "on_poweroff = 'destroy'; on_reboot = 'restart'\n"
				 "on_crash = 'coredump-restart'\n";

START_TEST(xm_example_file)
{
	static char text[sizeof(xm_example)];
	const char *line;
	char *comma;

	line = command(true, xm_example);
	/* xm split at commas: a path with one is a mistake there as well */
	assert_has(line, "MISTAKE f:12:10: ");
	strcpy(text, xm_example);
	comma = strstr(text, "win,x");
	comma[3] = '-';
	line = command(true, text);
	assert_has(line, "vmm -name winxp -machine pc -m size=262144K -smp 2,maxcpus=2 -rtc base=localtime "
			 "-uuid 06ed00fe-1162-4fc4-b5d8-11993ee4a8b9");
	assert_has(line, "-boot cda");
	assert_not(line, "hvmloader");
	assert_has(line, "-drive file=/images/win-x.img,if=ide,index=0,media=disk,format=raw ");
	assert_has(line, "-drive file=/dev/sda5,if=ide,index=1,media=disk,format=raw ");
	assert_has(line, "-drive if=ide,index=2,media=cdrom ");
	assert_has(line, "-drive file=/images/d.img,if=ide,index=3,media=disk,format=raw,file.locking=off ");
	assert_has(line, "-vnc 0.0.0.0:3 ");
	assert_has(line, "-serial chardev:console0");
	assert_has(line, "-action reboot=reset,shutdown=poweroff,panic=pause");
	assert_has(line, "-device e1000,id=nic0,netdev=nic0-net,mac=00:16:3e:00:00:11 ");
	assert_has(line, "-netdev bridge,br=xenbr0,helper=/h,id=nic0-net ");
	ck_assert_uint_eq(
		notes.n,
		3); /* the card's model, usb and usbdevice: what cannot be had is said, what does not matter is not */
	assert_has(notes.v[0], "f:11:9: vif: model=ne2k_pci: vmm has no such card");
	assert_has(notes.v[1], "f:25:5: usb: ignored, vmm has no USB controller");
}
END_TEST

START_TEST(xl_disks)
{
	static const struct {
		const char *disk, *expected;
	} disks[] = {
		{"/dev/vg/guest,raw,hda,rw", "file=/dev/vg/guest,if=ide,index=0,media=disk,format=raw "},
		{"/a.img,,hda", "file=/a.img,if=ide,index=0,media=disk "},
		{"/a.img, raw, xvdb, ro", "file=/a.img,if=ide,index=1,media=disk,format=raw,readonly=on "},
		{"/x.iso,raw,hdc,ro,cdrom", "file=/x.iso,if=ide,index=2,media=cdrom,format=raw "},
		{"/x.iso,hdc,cdrom", "file=/x.iso,if=ide,index=2,media=cdrom "},
		{"format=raw, vdev=hda, access=rw, target=/a,b.img",
		 "file=/a,,b.img,if=ide,index=0,media=disk,format=raw "},
		{"vdev=hdc,devtype=cdrom,access=ro,format=raw,target=/x.iso",
		 "file=/x.iso,if=ide,index=2,media=cdrom,format=raw "},
		{"devtype=cdrom,vdev=hdd,access=ro", "-drive if=ide,index=3,media=cdrom "},
		{"qcow2:/a.qcow2,hda,w", "file=/a.qcow2,if=ide,index=0,media=disk,format=qcow2 "},
		{"tap2:aio:/a.img,xvda,w", "file=/a.img,if=ide,index=0,media=disk,format=raw "},
		{"backendtype=phy,vdev=hda,discard,target=/dev/sdb",
		 "file=/dev/sdb,if=ide,index=0,media=disk,format=raw "},
		{"/a.img", "MISTAKE f:1:10: disk '/a.img': the drive's name"},
		{"file:/a.img,hda,x", "MISTAKE f:1:10: disk: access 'x'"},
		{"file:/a.img,hda,w,what", "MISTAKE f:1:10: disk: 'what' is one word too many"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(disks); i++) {
		char *text = xasprintf("disk = [ '%s' ]\n", disks[i].disk);
		const char *line = command(true, text);

		ck_assert_msg(strstr(line, disks[i].expected), "%s: no '%s' in: %s", disks[i].disk, disks[i].expected,
			      line);
		free(text);
	}
}
END_TEST

START_TEST(xen_syntax)
{
	const char *line =
		command(true, "name = 'we' \"b\"\nmemory = 0x80; vcpus = \\\n  2\n"
			      "extra = '''a\nb''' r'\\n'\nkernel = '/k'; root='/dev/hda1 ro'\n"
			      "vif = None\ndisk = (\n'file:/a,hda,w', # one\n)\nacpi = False\nmaxvcpus='3'\n");

	assert_has(line, "-name web ");
	assert_has(line, "-m size=131072K -smp 2,maxcpus=3");
	assert_has(line, "-append 'a\nb\\n root=/dev/hda1 ro'");
	assert_has(line, "acpi=off");
	assert_has(line, "file=/a,");
	line = command(true, "vnc=0\non_reboot='preserve'\n");
	assert_has(line, "-display none");
	assert_has(line, "-action reboot=shutdown,shutdown=pause,panic=pause");
	line = command(true, "vnclisten='::1'\n");
	assert_has(line, "-vnc '[::1]:0,to=99'");
	command(true, "memroy = 12\n");
	ck_assert_uint_eq(notes.n, 1);
	assert_has(notes.v[0], "f:1:1: memroy: ignored, not a setting; did you mean 'memory'?");
}
END_TEST

START_TEST(xen_mistakes)
{
	static const struct {
		const char *text, *expected;
	} mistakes[] = {
		{"import os\n", "f:1:1: this is Python code ('import')"},
		{"def vnc():\n", "f:1:1: this is Python code ('def')"},
		{"\nname = 'a' + str(1)\n", "f:2:12: this is Python code ('+')"},
		{"name = 'a%d' % vmid\n", "f:1:14: this is Python code ('%')"},
		{"memory = int('12')\n", "f:1:10: this is Python code ('int')"},
		{"if vmid == 1:\n", "f:1:1: this is Python code ('if')"},
		{"name 'x'\n", "f:1:1: this is Python code ('name')"},
		{"name\n", "f:1:5: '=' is missing after 'name'"},
		{"name = \n", "f:1:8: a value is missing"},
		{"name = 'x\n", "f:1:8: the string that begins here is not closed"},
		{"disk = [ 'a'\n\n", "f:1:8: the list that begins here is not closed"},
		{"disk = [ 'a' 'b' 3 ]\n", "f:1:18: expected ',' or ']'"},
		{"memory = 12x\n", "f:1:10: '12x' is no whole number"},
		{"memory = 1.5\n", "f:1:10: '1.' is no whole number"},
		{"memory = 'much'\n", "f:1:10: memory: a number was expected, not a string 'much'"},
		{"memory = [1]\n", "f:1:10: memory: a number was expected, not a list"},
		{"memory = 0\n", "f:1:10: memory: "},
		{"name = ['x']\n", "f:1:8: name: a string was expected, not a list"},
		{"builder = 'linux'\n", "f:1:11: builder='linux': a paravirtualized guest"},
		{"disk = 'file:/a,hda,w'\n", "f:1:8: disk: a list was expected"},
		{"vif = [ 'mac=1' ]\n", "f:1:9: vif: mac='1' is no address of a card"},
		{"vif = [ 'foo' ]\n", "f:1:9: vif: 'foo': key=value was expected"},
		{"on_crash = 'explode'\n", "f:1:12: on_crash: "},
		{"name = web # ours\n", "f:1:8: this is Python code ('web')"},
		{"[disk]\n", "f:1:1: expected NAME = VALUE"},
		{"vncdisplay = 70000\n", "f:1:14: vncdisplay"},
		{"x = [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]\n", "nested too deeply"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++)
		assert_mistake(true, mistakes[i].text, mistakes[i].expected);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("config");
	int failed;

	setenv("VMM_BRIDGE_HELPER", "/h", 1);
	tcase_add_test(t, native_whole_guest);
	tcase_add_test(t, native_mistakes);
	tcase_add_test(t, native_impossible_guests);
	tcase_add_test(t, native_extra_words);
	tcase_add_test(t, native_nics);
	tcase_add_test(t, native_own_macs);
	tcase_add_test(t, native_bad_nics);
	tcase_add_test(t, native_round_trip);
	tcase_add_test(t, xm_example_file);
	tcase_add_test(t, xl_disks);
	tcase_add_test(t, xen_syntax);
	tcase_add_test(t, xen_mistakes);
	failed = run_suite("config", (TCase *[]){t, NULL});
	notes_free(&notes);
	return failed;
}
