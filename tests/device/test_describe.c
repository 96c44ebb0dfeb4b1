/* The machine description, read back through libfdt. */
#include <libfdt.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "bench.h"
#include "vmm/block.h"
#include "vmm/chardev.h"

static void *describe(struct board *b, size_t *len)
{
	struct err e = ERR_INIT;
	void *fdt = NULL;

	ck_assert_msg(machine_describe(b, &fdt, len, &e) == 0, "%s", e.msg);
	ck_assert_int_eq(fdt_check_full(fdt, *len), 0);
	return fdt;
}

static const char *string_at(const void *fdt, const char *path, const char *property)
{
	int node = fdt_path_offset(fdt, path);

	ck_assert_msg(node >= 0, "no node %s", path);
	const char *s = fdt_getprop(fdt, node, property, NULL);
	ck_assert_msg(s != NULL, "%s has no %s", path, property);
	return s;
}

static uint64_t u64_at(const void *fdt, const char *path, const char *property, unsigned i)
{
	int len, node = fdt_path_offset(fdt, path);
	const fdt64_t *v;

	ck_assert_msg(node >= 0, "no node %s", path);
	v = fdt_getprop(fdt, node, property, &len);
	ck_assert_msg(v && (size_t)len >= (i + 1) * 8, "%s has no %s[%u]", path, property, i);
	return fdt64_ld(&v[i]);
}

static uint32_t u32_at(const void *fdt, const char *path, const char *property, unsigned i)
{
	int len, node = fdt_path_offset(fdt, path);
	const fdt32_t *v;

	ck_assert_msg(node >= 0, "no node %s", path);
	v = fdt_getprop(fdt, node, property, &len);
	ck_assert_msg(v && (size_t)len >= (i + 1) * 4, "%s has no %s[%u]", path, property, i);
	return fdt32_ld(&v[i]);
}

START_TEST(board_and_memory)
{
	struct board *b = bench_new("-m 64 -smp 4,cores=2,threads=2");
	size_t len;
	void *fdt = describe(b, &len);

	ck_assert_str_eq(string_at(fdt, "/", "compatible"), "vmm,pc");
	ck_assert_str_eq(string_at(fdt, "/", "model"), "pc-i440fx-7.2");
	ck_assert_uint_eq(u64_at(fdt, "/memory@0", "reg", 0), 0);
	ck_assert_uint_eq(u64_at(fdt, "/memory@0", "reg", 1), 64 * MIB);
	ck_assert_uint_eq(u32_at(fdt, "/cpus/cpu@3", "reg", 0), 3);
	ck_assert_uint_eq(u32_at(fdt, "/cpus/cpu@3", "vmm,topology", 1), 1);
	ck_assert_uint_eq(u32_at(fdt, "/cpus/cpu@3", "vmm,topology", 2), 1);
	ck_assert_int_lt(fdt_path_offset(fdt, "/cpus/cpu@4"), 0);
	free(fdt);
	bench_free(b);
}
END_TEST

START_TEST(devices)
{
	struct board *b = bench_new("-m 16 -serial null -device isa-debug-exit,id=leave,iobase=0x504");
	size_t len;
	void *fdt = describe(b, &len);
	int node, found = 0;

	ck_assert_str_eq(string_at(fdt, "/devices/leave", "class"), "isa-debug-exit");
	ck_assert_str_eq(string_at(fdt, "/devices/leave", "bus"), "isa");
	ck_assert_uint_eq(strtoul(string_at(fdt, "/devices/leave/properties", "iobase"), NULL, 0), 0x504);
	/* The serial port: class, ports and interrupt line, under whatever id the board gave it. */
	fdt_for_each_subnode(node, fdt, fdt_path_offset(fdt, "/devices"))
	{
		char path[256];
		const char *class = fdt_getprop(fdt, node, "class", NULL);

		ck_assert(class && device_class_find(class));
		if (strcmp(class, "isa-serial"))
			continue;
		found++;
		ck_assert_int_eq(fdt_get_path(fdt, node, path, sizeof(path)), 0);
		ck_assert_uint_eq(u32_at(fdt, path, "interrupts", 0), IRQ_GSI);
		ck_assert_uint_eq(u32_at(fdt, path, "interrupts", 1), 4);
	}
	ck_assert_int_eq(found, 1);
	free(fdt);
	bench_free(b);
}
END_TEST

START_TEST(same_configuration_same_bytes)
{
	struct board *b = bench_new("-m 16");
	size_t len[2];
	void *fdt[2];

	fdt[0] = describe(b, &len[0]);
	/* What the guest does makes no difference: a BAR moves. */
	bench_pci_writel(b, 1 << 3 | 1, 0x20, 0xc001);
	bench_pci_writew(b, 1 << 3 | 1, 4, 1);
	fdt[1] = describe(b, &len[1]);
	ck_assert_uint_eq(len[0], len[1]);
	ck_assert_mem_eq(fdt[0], fdt[1], len[0]);
	free(fdt[0]);
	free(fdt[1]);
	bench_free(b);
}
END_TEST

/* ---- and back again ---- */

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "w");

	ck_assert(f && fwrite(data, 1, len, f) == len && !fclose(f));
}

static const char *scratch(const char *name)
{
	static char path[8][128];
	static unsigned n;

	snprintf(path[n % 8], sizeof(path[0]), "/tmp/vmm-describe-%d-%s", (int)getpid(), name);
	return path[n++ % 8];
}

static void make_files(void)
{
	static uint8_t zeros[1 << 20];
	static const uint8_t smbios[] = {11, 5, 0, 1, 1, 'h', 'i', 0, 0};

	write_file(scratch("a.img"), zeros, sizeof(zeros));
	write_file(scratch("b.iso"), zeros, 65536);
	write_file(scratch("fw"), "firmware says hello", 19);
	write_file(scratch("smb"), smbios, sizeof(smbios));
}

static void remove_files(void)
{
	static const char *const names[] = {"a.img", "b.iso", "fw", "smb"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlink(scratch(names[i]));
}

/* "@name" stands for a scratch file. */
static char *expand(const char *options)
{
	char *out = xstrdup(options), *at;

	while ((at = strchr(out, '@'))) {
		size_t n = strcspn(at + 1, " ,");
		char name[32], *longer;

		snprintf(name, sizeof(name), "%.*s", (int)n, at + 1);
		longer = xasprintf("%.*s%s%s", (int)(at - out), out, scratch(name), at + 1 + n);
		free(out);
		out = longer;
	}
	return out;
}

static const char *const configurations[] = {
	"-m 16",
	"-m 64 -smp 2,maxcpus=8,cores=2,threads=2",
	"-m 5G -machine pc-i440fx-7.2,max-ram-below-4g=2G,graphics=off,i8042=off -no-acpi",
	"-m 32 -cpu qemu64,+aes,-sse3 -name it -uuid 01234567-89ab-cdef-0123-456789abcdef -rtc "
	"base=2020-01-02,clock=vm,driftfix=slew",
	"-m 16 -boot order=dc,menu=on,splash-time=500,reboot-timeout=7,strict=on -global "
	"mc146818rtc.lost_tick_policy=slew",
	"-m 16 -serial null -serial null -parallel null -debugcon null -device isa-debug-exit,id=leave,iobase=0x504",
	"-m 16 -chardev ringbuf,id=r,size=4096 -device isa-serial,chardev=r,id=com,irq=5,iobase=0x2e8",
	"-m 16 -drive file=@a.img,format=raw,if=ide,index=1 -cdrom @b.iso -drive "
	"if=none,id=spare,file=@b.iso,readonly=on,format=raw",
	"-m 16 -blockdev file,node-name=p,filename=@a.img -blockdev raw,node-name=f,file=p -device "
	"ide-hd,drive=f,bus=ide.1,serial=XY",
	"-m 16 -fda @b.iso -vga std -device pvpanic,id=panic -vnc none",
	"-m 16 -smbios type=1,manufacturer=Me,,You -smbios file=@smb -fw_cfg opt/x,file=@fw -fw_cfg opt/y,string=a,,b",
	"-m 16 -device VGA,id=v,vgamem_mb=32,addr=0x5 -device pvpanic-pci,id=pp,addr=0x7.0x2 -no-reboot -no-shutdown",
};

START_TEST(round_trip)
{
	char *options;
	struct board *b;
	size_t len[3];
	void *fdt[3];
	struct err e = ERR_INIT;

	make_files();
	options = expand(configurations[_i]);
	b = bench_new(options);
	fdt[0] = describe(b, &len[0]);
	ck_assert_msg(!machine_check_description(b, fdt[0], len[0], &e), "%s", e.msg);
	bench_free(b);
	/* The files are needed no longer, but for the disks. */
	unlink(scratch("fw"));
	unlink(scratch("smb"));
	for (int i = 1; i < 3; i++) {
		b = bench_new_described("", fdt[i - 1], len[i - 1]);
		fdt[i] = describe(b, &len[i]);
		ck_assert_msg(!machine_check_description(b, fdt[0], len[0], &e), "%s", e.msg);
		bench_free(b);
		if (len[i] != len[0] || memcmp(fdt[i], fdt[0], len[0])) {
			write_file("/tmp/vmm-describe-0.dtb", fdt[0], len[0]);
			write_file("/tmp/vmm-describe-1.dtb", fdt[i], len[i]);
		}
		ck_assert_uint_eq(len[i], len[0]);
		ck_assert_mem_eq(fdt[i], fdt[0], len[0]);
	}
	for (int i = 0; i < 3; i++)
		free(fdt[i]);
	free(options);
	remove_files();
}
END_TEST

/* The state of one loads into the other: same sections, same names. */
START_TEST(state_fits)
{
	struct board *b;
	struct state_buf state = {0};
	struct err e = ERR_INIT;
	char *options;
	size_t len;
	void *fdt;

	make_files();
	options = expand(configurations[_i]);
	b = bench_new(options);
	fdt = describe(b, &len);
	ck_assert_msg(!machine_save_state(b, &state, &e), "%s", e.msg);
	bench_free(b);
	b = bench_new_described("", fdt, len);
	ck_assert_msg(!machine_load_state(b, state.data, state.len, &e), "%s", e.msg);
	bench_free(b);
	state_buf_free(&state);
	free(fdt);
	free(options);
	remove_files();
}
END_TEST

static void add(struct board *b, const char *options)
{
	struct err e = ERR_INIT;
	struct opts o;

	ck_assert(!opts_parse(&o, options, "driver", &e));
	ck_assert_msg(!machine_device_add(b, &o, &e), "%s", e.msg);
	opts_free(&o);
	bench_idle(b);
}

/* What came and went while the guest ran: devices, CPUs, media. */
START_TEST(changed_while_running)
{
	struct state_buf state = {0};
	struct err e = ERR_INIT;
	size_t len, again_len;
	void *fdt, *again;
	struct cpu_info cpu;
	struct board *b;
	char *options;

	make_files();
	options = expand("-m 16 -smp 1,maxcpus=4 -cdrom @b.iso -device pvpanic-pci,id=first,addr=9");
	b = bench_new(options);
	free(options);
	add(b, "pvpanic-pci,id=late,addr=0xa");
	options = xasprintf("%s,id=third,socket-id=2,core-id=0,thread-id=0", machine_cpu_type(b));
	add(b, options);
	free(options);
	ck_assert_msg(!block_change_medium(block_find("ide1-cd0"), scratch("a.img"), "raw", NULL, true, &e), "%s",
		      e.msg);
	fdt = describe(b, &len);
	ck_assert_msg(!machine_save_state(b, &state, &e), "%s", e.msg);
	bench_free(b);
	b = bench_new_described("", fdt, len);
	ck_assert_ptr_nonnull(device_find(b, "late"));
	ck_assert_uint_eq(board_cpus(b), 2);
	ck_assert(machine_possible_cpu(b, 2, &cpu) && cpu.present);
	ck_assert_str_eq(cpu.id, "third");
	ck_assert_str_eq(block_filename(block_find("ide1-cd0")), scratch("a.img"));
	again = describe(b, &again_len);
	ck_assert_uint_eq(again_len, len);
	ck_assert_mem_eq(again, fdt, len);
	ck_assert_msg(!machine_load_state(b, state.data, state.len, &e), "%s", e.msg);
	bench_free(b);
	state_buf_free(&state);
	free(again);
	free(fdt);
	remove_files();
}
END_TEST

START_TEST(host_side_overrides)
{
	struct board *b;
	char *options;
	size_t len;
	void *fdt;

	make_files();
	options = expand("-m 16 -drive file=@a.img,format=raw,if=ide,index=0,werror=stop -cdrom @b.iso -chardev "
			 "null,id=c -device "
			 "isa-serial,chardev=c -vnc none -uuid 01234567-89ab-cdef-0123-456789abcdef");
	b = bench_new(options);
	fdt = describe(b, &len);
	bench_free(b);
	free(options);
	options = expand("-drive id=ide0-hd0,file=@fw -cdrom @smb -chardev ringbuf,id=c,size=64 -name other "
			 "-uuid 11234567-89ab-cdef-0123-456789abcdef");
	b = bench_new_described(options, fdt, len);
	ck_assert_str_eq(block_filename(block_find("ide0-hd0")), scratch("fw"));
	ck_assert_int_eq(block_on_write_error(block_find("ide0-hd0")), BLOCK_ERR_STOP);
	ck_assert_str_eq(block_filename(block_find("ide1-cd0")), scratch("smb"));
	ck_assert_str_eq(chardev_backend_name(chardev_find("c")), "ringbuf");
	ck_assert_str_eq(machine_config(b)->name, "other");
	ck_assert_uint_eq(machine_config(b)->uuid[0], 0x11);
	bench_free(b);
	free(options);
	/* What the machine does not have cannot be replaced, and the machine itself cannot be changed. */
	ck_assert_ptr_nonnull(strstr(bench_new_described_fails("-drive id=nothing,file=/dev/null", fdt, len),
				     "nothing of this name"));
	ck_assert_ptr_nonnull(strstr(bench_new_described_fails("-m 32", fdt, len), "only the host's side"));
	free(fdt);
	remove_files();
}
END_TEST

/* The first difference is named. */
START_TEST(networks_are_the_hosts_side)
{
	struct board *b = bench_new("-m 16 -netdev bench,id=n -device virtio-net-pci,netdev=n,id=net0");
	const struct nic *nic;
	char *options;
	uint8_t mac[6];
	int pair[2];
	size_t len;
	void *fdt;

	memcpy(mac, nic_next(NULL)->mac, 6);
	fdt = describe(b, &len);
	bench_free(b);
	b = bench_new_described(NULL, fdt, len);
	ck_assert_str_eq(netdev_type(netdev_find("n")), "bench");
	ck_assert_ptr_eq(netdev_nic(netdev_find("n")), nic_next(NULL));
	bench_free(b);
	/* Another network with the same id, and the card stays the one it was. */
	b = bench_new_described("-netdev socket,id=n,listen=127.0.0.1:0 -nic none", fdt, len);
	nic = netdev_nic(netdev_find("n"));
	ck_assert_str_eq(netdev_type(netdev_find("n")), "socket");
	ck_assert_str_eq(nic_name(nic), "net0");
	ck_assert(!memcmp(nic->mac, mac, 6));
	bench_free(b);
	ck_assert_ptr_nonnull(
		strstr(bench_new_described_fails("-netdev bench,id=other", fdt, len), "nothing of this name"));
	ck_assert_ptr_nonnull(strstr(bench_new_described_fails("-nic bench", fdt, len), "only the host's side"));
	free(fdt);
	/* A program that the other side names is not run. */
	b = bench_new("-m 16 -netdev bench,id=n,script=/bin/false -device virtio-net-pci,netdev=n,id=net0");
	fdt = describe(b, &len);
	bench_free(b);
	ck_assert_ptr_nonnull(strstr(bench_new_described_fails(NULL, fdt, len), "names a program for the netdev 'n'"));
	b = bench_new_described("-netdev bench,id=n", fdt, len);
	bench_free(b);
	free(fdt);
	/* Nor is a descriptor of this process taken. */
	ck_assert(!socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	options = xasprintf("-m 16 -netdev socket,id=n,fd=%d -device virtio-net-pci,netdev=n,id=net0", pair[0]);
	b = bench_new(options);
	fdt = describe(b, &len);
	bench_free(b);
	ck_assert_int_eq(dup2(pair[1], pair[0]), pair[0]);
	ck_assert_ptr_nonnull(
		strstr(bench_new_described_fails(NULL, fdt, len), "names a descriptor for the netdev 'n'"));
	ck_assert(!close(pair[0]) && !close(pair[1]));
	free(options);
	free(fdt);
}
END_TEST

START_TEST(other_machines)
{
	static const struct {
		const char *theirs, *ours, *said;
	} cases[] = {
		{"-m 16", "-m 32", "16 MiB"},
		{"-m 16", "-m 16 -smp 2", "vCPUs"},
		{"-m 16 -serial null", "-m 16", "'isa-serial' (isa-serial), this machine has not"},
		{"-m 16", "-m 16 -device isa-debug-exit,id=leave", "this machine has a device 'leave'"},
		{"-m 16 -device isa-debug-exit,id=leave,iobase=0x504",
		 "-m 16 -device isa-debug-exit,id=leave,iobase=0x508", "iobase"},
		{"-m 16 -device VGA,id=v,addr=3", "-m 16 -device VGA,id=v,addr=4", "addr"},
		{"-m 16 -boot strict=on", "-m 16", "strict"},
	};
	struct err e = ERR_INIT;
	struct board *b = bench_new(cases[_i].theirs);
	size_t len;
	void *fdt = describe(b, &len);

	bench_free(b);
	b = bench_new(cases[_i].ours);
	ck_assert_int_lt(machine_check_description(b, fdt, len, &e), 0);
	ck_assert_msg(strstr(e.msg, cases[_i].said) != NULL, "said: %s", e.msg);
	bench_free(b);
	free(fdt);
}
END_TEST

/* A machine of KVM's has what this one, without, cannot go on with. */
START_TEST(other_accelerator)
{
	struct board *b = bench_new("-m 16");
	struct err e = ERR_INIT;
	size_t len;
	void *fdt = describe(b, &len), *more = malloc(len + 256);

	ck_assert_int_eq(fdt_open_into(fdt, more, (int)len + 256), 0);
	ck_assert_int_eq(fdt_setprop_string(more, fdt_path_offset(more, "/cpus"), "vmm,features", "fpu sse"), 0);
	fdt_pack(more);
	ck_assert_int_lt(machine_check_description(b, more, fdt_totalsize(more), &e), 0);
	ck_assert_msg(strstr(e.msg, "-accel kvm, this machine with -accel qtest") != NULL, "said: %s", e.msg);
	bench_free(b);
	free(more);
	free(fdt);
}
END_TEST

/* Each byte damaged once: an error or another machine, never a crash. */
START_TEST(damaged)
{
	struct board *b = bench_new("-m 16 -serial null -fw_cfg opt/y,string=ab");
	size_t len;
	uint8_t *fdt = describe(b, &len), *copy = malloc(len);

	bench_free(b);
	for (size_t at = 0; at < len; at += 1 + len / 3000) {
		struct config c;
		char *argv[] = {(char *)(uintptr_t) "vmm"};

		memcpy(copy, fdt, len);
		copy[at] ^= (uint8_t)(1 << (at % 8));
		ck_assert_int_eq(config_parse(&c, 1, argv, NULL), 0);
		machine_config_from_description(&c, copy, len, NULL);
		config_free(&c);
		ck_assert_int_eq(config_parse(&c, 1, argv, NULL), 0);
		ck_assert_int_lt(machine_config_from_description(&c, fdt, at, NULL), 0);
		config_free(&c);
	}
	free(copy);
	free(fdt);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("all");

	tcase_add_test(c, board_and_memory);
	tcase_add_test(c, devices);
	tcase_add_test(c, same_configuration_same_bytes);
	tcase_add_loop_test(c, round_trip, 0, ARRAY_SIZE(configurations));
	tcase_add_loop_test(c, state_fits, 0, ARRAY_SIZE(configurations));
	tcase_add_test(c, changed_while_running);
	tcase_add_test(c, host_side_overrides);
	tcase_add_test(c, networks_are_the_hosts_side);
	tcase_add_loop_test(c, other_machines, 0, 7);
	tcase_add_test(c, other_accelerator);
	tcase_add_test(c, damaged);
	return run_suite("describe", (TCase *[]){c, NULL});
}
