/*
 * The ACPI tables as a guest gets them: taken through fw_cfg, linked by the loader script as firmware does it, and
 * given to iasl, which must neither complain while disassembling nor while compiling the result again.
 */
#include "fwcfg_client.h"
#include "src/machine/acpi.h"

#include <ftw.h>
#include <stdio.h>
#include <unistd.h>

struct file {
	char name[56];
	uint8_t *data;
	uint32_t len, address;
};

struct tables {
	struct file file[4];
	unsigned n_files;
	uint32_t next;
};

static struct file *find(struct tables *t, const char *name)
{
	for (unsigned i = 0; i < t->n_files; i++)
		if (!strcmp(t->file[i].name, name))
			return &t->file[i];
	ck_abort_msg("the loader script names '%s' before it allocates it", name);
}

static void run_entry(struct board *b, struct tables *t, const struct acpi_loader_entry *en)
{
	struct file *f;
	uint32_t offset;

	switch (le32toh(en->command)) {
	case ACPI_LOADER_ALLOCATE:
		f = &t->file[t->n_files++];
		strcpy(f->name, en->alloc.file);
		f->data = fw_file(b, f->name, &f->len);
		ck_assert_uint_ge(le32toh(en->alloc.align), 16);
		f->address = ALIGN_UP(t->next, le32toh(en->alloc.align));
		t->next = f->address + f->len;
		break;
	case ACPI_LOADER_ADD_POINTER:
		f = find(t, en->pointer.dest);
		offset = le32toh(en->pointer.offset);
		ck_assert_uint_eq(en->pointer.size, 4);
		ck_assert_uint_le(offset + 4, f->len);
		ck_assert_uint_lt(get_le32(f->data + offset), find(t, en->pointer.src)->len);
		put_le32(f->data + offset, get_le32(f->data + offset) + find(t, en->pointer.src)->address);
		break;
	case ACPI_LOADER_ADD_CHECKSUM: {
		f = find(t, en->checksum.file);
		offset = le32toh(en->checksum.offset);
		uint32_t start = le32toh(en->checksum.start), len = le32toh(en->checksum.length);
		ck_assert_uint_le(start + len, f->len);
		ck_assert_uint_lt(offset, f->len);
		uint8_t sum = 0;
		for (uint32_t i = start; i < start + len; i++)
			sum += f->data[i];
		f->data[offset] -= sum;
		break;
	}
	default:
		ck_abort_msg("unknown loader command %u", le32toh(en->command));
	}
}

static void load(struct board *b, struct tables *t)
{
	uint32_t len;
	uint8_t *script = fw_file(b, ACPI_LOADER_FILE, &len);

	memset(t, 0, sizeof(*t));
	t->next = 0x7fe0000;
	ck_assert_uint_eq(len % sizeof(struct acpi_loader_entry), 0);
	for (uint32_t at = 0; at < len; at += sizeof(struct acpi_loader_entry)) {
		struct acpi_loader_entry en;

		memcpy(&en, script + at, sizeof(en));
		run_entry(b, t, &en);
	}
	free(script);
}

static void unload(struct tables *t)
{
	for (unsigned i = 0; i < t->n_files; i++)
		free(t->file[i].data);
}

static uint8_t *at_address(struct tables *t, uint32_t address, uint32_t len)
{
	struct file *f = find(t, ACPI_TABLES_FILE);

	ck_assert_uint_ge(address, f->address);
	ck_assert_uint_le(address + len, f->address + f->len);
	return f->data + (address - f->address);
}

static unsigned sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	for (size_t i = 0; i < len; i++)
		s += p[i];
	return s;
}

/* The checked table at address. */
static uint8_t *table_at(struct tables *t, uint32_t address)
{
	uint8_t *p = at_address(t, address, 36);

	p = at_address(t, address, get_le32(p + 4));
	if (memcmp(p, "FACS", 4))
		ck_assert_msg(sum(p, get_le32(p + 4)) == 0, "%.4s: wrong checksum", p);
	return p;
}

/* The n-th table with this signature, through RSDP and RSDT; NULL if there is none. */
static uint8_t *table(struct tables *t, const char *signature)
{
	struct file *rsdp = find(t, ACPI_RSDP_FILE);

	ck_assert_mem_eq(rsdp->data, "RSD PTR ", 8);
	ck_assert_uint_eq(sum(rsdp->data, 20), 0);
	uint8_t *rsdt = table_at(t, get_le32(rsdp->data + 16));
	ck_assert_mem_eq(rsdt, "RSDT", 4);
	for (uint32_t i = 36; i < get_le32(rsdt + 4); i += 4) {
		uint8_t *p = table_at(t, get_le32(rsdt + i));

		if (!memcmp(p, signature, 4))
			return p;
		if (!memcmp(p, "FACP", 4) && !memcmp(signature, "DSDT", 4))
			return table_at(t, get_le32(p + 40));
		if (!memcmp(p, "FACP", 4) && !memcmp(signature, "FACS", 4))
			return table_at(t, get_le32(p + 36));
	}
	return NULL;
}

/* ---- iasl ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

/* Run a shell command and fail the test if its output holds one of iasl's words for trouble. */
static void run_clean(const char *command)
{
	static char text[4 * 1024 * 1024];
	FILE *p = popen(command, "r");

	ck_assert_ptr_nonnull(p);
	size_t n = fread(text, 1, sizeof(text) - 1, p);
	ck_assert(feof(p)); /* all of it: iasl must not meet a closed pipe */
	text[n] = '\0';
	int status = pclose(p);
	static const char *const trouble[] = {"Warning ", "Error ",    "Error:",    "ncorrect",
					      "nvalid",   "Could not", "not found", "External"};
	ck_assert_msg(status == 0, "%s: status %d\n%.3000s", command, status, text);
	for (unsigned i = 0; i < ARRAY_SIZE(trouble); i++)
		ck_assert_msg(!strstr(text, trouble[i]), "%s:\n%.1000s", command, strstr(text, trouble[i]));
}

static void check_with_iasl(struct tables *t)
{
	static const char *const names[] = {"DSDT", "SSDT", "FACP", "FACS", "APIC", "WAET", "RSDT"};
	char dir[] = "/tmp/vmm-acpi-XXXXXX", command[512];

	ck_assert_ptr_nonnull(mkdtemp(dir));
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		uint8_t *p = i == 6 ? table_at(t, get_le32(find(t, ACPI_RSDP_FILE)->data + 16)) : table(t, names[i]);
		char path[64];

		ck_assert_msg(p != NULL, "no %s", names[i]);
		snprintf(path, sizeof(path), "%s/%s.dat", dir, names[i]);
		FILE *f = fopen(path, "w");
		ck_assert_ptr_nonnull(f);
		ck_assert_uint_eq(fwrite(p, 1, get_le32(p + 4), f), get_le32(p + 4));
		fclose(f);
		snprintf(command, sizeof(command), "cd %s && iasl -d %s.dat 2>&1 && cat %s.dsl", dir, names[i],
			 names[i]);
		run_clean(command);
		/* 3168: Processor is a legacy keyword. It is the only one ACPI 1.0 systems know. */
		snprintf(command, sizeof(command), "cd %s && iasl -vw 3168 -p again %s.dsl 2>&1", dir, names[i]);
		run_clean(command);
	}
	/* Interpret it: every predefined object must evaluate. (The links' _SRS fails because acpiexec passes it a
	 * number.) */
	snprintf(command, sizeof(command),
		 "cd %s && ! acpiexec -b 'execute predefined' DSDT.dat SSDT.dat 2>&1 | grep 'returned AE_' | grep -v "
		 "-e 'AE_OK$' "
		 "-e _SRS",
		 dir);
	run_clean(command);
	snprintf(command, sizeof(command),
		 "cd %s && acpiexec -b 'execute predefined' DSDT.dat SSDT.dat 2>&1 | grep -c 'returned AE_OK'", dir);
	run_clean(command);
	nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void check_board(const char *options)
{
	struct board *b = bench_new(options);
	struct tables t;

	load(b, &t);
	check_with_iasl(&t);
	unload(&t);
	bench_free(b);
}

START_TEST(iasl_is_content)
{
	check_board("-m 64");
}
END_TEST

START_TEST(iasl_is_content_with_many_cpus_and_much_ram)
{
	check_board("-m 6G -smp 240 -device pvpanic,ioport=0x507 -global PIIX4_PM.disable_s3=1");
}
END_TEST

START_TEST(iasl_is_content_with_pluggable_cpus)
{
	check_board("-m 64 -smp 3,maxcpus=17 -vga std -global PIIX4_PM.acpi-pci-hotplug-with-bridge-support=off");
}
END_TEST

/* ---- what operating systems read out of them ---- */

START_TEST(fadt_points_to_the_power_management)
{
	struct board *b = bench_new("-m 64");
	struct tables t;

	load(b, &t);
	uint8_t *f = table(&t, "FACP");
	ck_assert_uint_eq(f[8], 1);
	ck_assert_uint_eq(get_le32(f + 4), 116);
	ck_assert_uint_eq(get_le16(f + 46), 9);
	/* The registers it names are there once the BIOS has placed them. */
	bench_pci_writel(b, 1 << 3 | 3, 0x40, get_le32(f + 56) | 1);
	bench_pci_writeb(b, 1 << 3 | 3, 0x80, 1);
	bench_outb(b, get_le32(f + 48), f[52]);
	ck_assert_uint_eq(bench_inw(b, get_le32(f + 64)) & 1, 1);
	bench_outb(b, get_le32(f + 48), f[53]);
	ck_assert_uint_eq(bench_inw(b, get_le32(f + 64)) & 1, 0);
	ck_assert_uint_eq(bench_inl(b, get_le32(f + 80)), 0);
	ck_assert_uint_ne(bench_inl(b, get_le32(f + 76)), 0xffffffff);
	/* FACS: aligned to 64 bytes, 64 long */
	ck_assert_uint_eq(get_le32(f + 36) % 64, 0);
	ck_assert_uint_eq(get_le32(table(&t, "FACS") + 4), 64);
	unload(&t);
	bench_free(b);
}
END_TEST

START_TEST(madt_lists_cpus_and_overrides)
{
	struct board *b = bench_new("-m 64 -smp 3");
	struct tables t;
	unsigned cpus = 0, ioapics = 0, nmis = 0, overrides = 0;

	load(b, &t);
	uint8_t *m = table(&t, "APIC");
	for (uint32_t i = 44; i < get_le32(m + 4); i += m[i + 1]) {
		ck_assert_uint_gt(m[i + 1], 1);
		switch (m[i]) {
		case 0:
			ck_assert_uint_eq(m[i + 2], cpus);
			ck_assert_uint_eq(m[i + 3], cpus++);
			ck_assert_uint_eq(get_le32(m + i + 4), 1);
			break;
		case 1:
			ck_assert_uint_eq(get_le32(m + i + 4), 0xfec00000);
			ioapics++;
			break;
		case 2:
			if (m[i + 3] == 0)
				ck_assert_uint_eq(get_le32(m + i + 4), 2);
			else
				ck_assert_uint_eq(get_le16(m + i + 8), 0xd);
			overrides |= 1u << m[i + 3];
			break;
		case 4:
			nmis++;
			break;
		}
	}
	ck_assert_uint_eq(cpus, 3);
	ck_assert_uint_eq(ioapics, 1);
	ck_assert_uint_eq(nmis, 1);
	ck_assert_uint_eq(overrides, 1 | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 11);
	unload(&t);
	bench_free(b);
}
END_TEST

static bool holds(const uint8_t *table, const void *what, size_t len)
{
	return memmem(table, get_le32(table + 4), what, len) != NULL;
}

START_TEST(windows_of_the_root_bus_follow_the_ram)
{
	struct board *b = bench_new("-m 5G");
	struct tables t;
	uint8_t window[8];

	load(b, &t);
	uint8_t *dsdt = table(&t, "DSDT");
	put_le32(window, board_ram_below_4g(b));
	put_le32(window + 4, 0xfebfffff);
	ck_assert(holds(dsdt, window, 8));
	put_le64(window, ALIGN_UP(4 * GIB + board_ram_above_4g(b), GIB));
	ck_assert(holds(dsdt, window, 8));
	ck_assert(!holds(dsdt, "\x5a\x5a", 2)); /* no placeholder is left */
	unload(&t);
	bench_free(b);
}
END_TEST

static uint32_t present(const char *options)
{
	struct board *b = bench_new(options);
	struct tables t;

	load(b, &t);
	uint8_t *dsdt = table(&t, "DSDT"), *name = memmem(dsdt, get_le32(dsdt + 4), "\x08PRES\x0c", 6);
	ck_assert_ptr_nonnull(name);
	uint32_t v = get_le32(name + 6);
	unload(&t);
	bench_free(b);
	return v;
}

START_TEST(absent_isa_devices_are_not_announced)
{
	uint32_t v = present("-m 64");

	ck_assert_uint_eq(v & 0x87, 0); /* no COM ports, LPT or pvpanic */
	ck_assert_uint_eq(v & 0x40, 0x40);
	v = present("-m 64 -serial null -device pvpanic");
	ck_assert_uint_eq(v & 0x87, 0x81);
}
END_TEST

START_TEST(sleep_states_follow_the_options)
{
	struct board *b = bench_new("-m 64 -global PIIX4_PM.disable_s3=1 -global PIIX4_PM.s4_val=3");
	struct tables t;

	load(b, &t);
	uint8_t *ssdt = table(&t, "SSDT");
	ck_assert(!holds(ssdt, "_S3_", 4));
	ck_assert(holds(ssdt, "_S4_\x12\x08\x04\x0a\x03\x0a\x03\x00\x00", 13));
	ck_assert(holds(ssdt, "_S5_\x12\x06\x04\x00\x00\x00\x00", 11));
	unload(&t);
	bench_free(b);
}
END_TEST

static bool slot_can_be_ejected(const uint8_t *dsdt, unsigned slot)
{
	const uint8_t sun[] = {0x08, '_', 'S', 'U', 'N', 0x0a, slot};
	const uint8_t *found = memmem(dsdt, get_le32(dsdt + 4), sun, sizeof(sun));

	ck_assert_ptr_nonnull(found);
	return memmem(found, 32, "_EJ0", 4) != NULL;
}

START_TEST(slots_of_fixed_devices_cannot_be_ejected)
{
	struct board *b = bench_new("-m 64 -vga std -device pvpanic-pci,addr=4");
	struct tables t;

	load(b, &t);
	for (unsigned slot = 2; slot < 32; slot++)
		ck_assert_msg(slot_can_be_ejected(table(&t, "DSDT"), slot) == (slot != 2), "slot %u", slot);
	unload(&t);
	bench_free(b);
	b = bench_new("-m 64 -global PIIX4_PM.acpi-root-pci-hotplug=off");
	load(b, &t);
	for (unsigned slot = 2; slot < 32; slot++)
		ck_assert(!slot_can_be_ejected(table(&t, "DSDT"), slot));
	unload(&t);
	bench_free(b);
}
END_TEST

/* Of each local APIC in the MADT: is it enabled? */
static unsigned madt_enabled(struct board *b, unsigned *listed)
{
	struct tables t;
	unsigned enabled = 0;

	load(b, &t);
	uint8_t *m = table(&t, "APIC");
	*listed = 0;
	for (uint32_t i = 44; i < get_le32(m + 4); i += m[i + 1])
		if (m[i] == 0) {
			enabled |= (get_le32(m + i + 4) & 1) << *listed;
			++*listed;
		}
	unload(&t);
	return enabled;
}

START_TEST(pluggable_cpus_are_listed_and_enabled_after_a_reset)
{
	struct board *b = bench_new("-m 64 -smp 1,maxcpus=4");
	struct opts o;
	unsigned listed;

	ck_assert_uint_eq(madt_enabled(b, &listed), 0x1);
	ck_assert_uint_eq(listed, 4);
	ck_assert_int_eq(opts_parse(&o, "qemu64-x86_64-cpu,socket-id=2,core-id=0,thread-id=0", "driver", NULL), 0);
	ck_assert_int_eq(machine_device_add(b, &o, NULL), 0);
	opts_free(&o);
	ck_assert_uint_eq(madt_enabled(b, &listed), 0x1);
	bench_reset(b);
	ck_assert_uint_eq(madt_enabled(b, &listed), 0x5);
	ck_assert_uint_eq(listed, 4);
	bench_free(b);
}
END_TEST

/* The MADT that a directly booted kernel finds in low memory: which of its local APICs are enabled. */
static unsigned madt_in_memory(struct board *b)
{
	static uint8_t ram[MIB];
	unsigned enabled = 0, n = 0;

	bench_read(b, 0, ram, sizeof(ram));
	for (uint32_t at = 0; at + 44 < sizeof(ram); at += 4) {
		uint8_t *m = ram + at;
		uint32_t len = get_le32(m + 4);

		if (memcmp(m, "APIC", 4) || len < 44 || at + len > sizeof(ram) || sum(m, len))
			continue;
		for (uint32_t i = 44; i < len; i += m[i + 1])
			if (m[i] == 0)
				enabled |= (get_le32(m + i + 4) & 1) << n++;
		return enabled;
	}
	ck_abort_msg("there is no MADT in low memory");
}

START_TEST(directly_booted_kernels_find_new_tables_after_a_reset)
{
	/* multiboot: magic, flags (addresses follow), checksum; header, start, end, bss, entry */
	const uint32_t kernel[] = {0x1badb002, 0x10000, 0xe4514ffe, 0x100000, 0x100000, 0, 0, 0x100000};
	char path[] = "/tmp/vmm-kernel-XXXXXX", options[128];
	int fd = mkstemp(path);
	struct board *b;
	struct opts o;

	ck_assert_int_eq(write(fd, kernel, sizeof(kernel)), sizeof(kernel));
	snprintf(options, sizeof(options), "-m 16 -smp 1,maxcpus=3 -kernel %s", path);
	b = bench_new(options);
	ck_assert_uint_eq(madt_in_memory(b), 0x1);
	ck_assert_int_eq(opts_parse(&o, "qemu64-x86_64-cpu,socket-id=2,core-id=0,thread-id=0", "driver", NULL), 0);
	ck_assert_int_eq(machine_device_add(b, &o, NULL), 0);
	opts_free(&o);
	bench_reset(b);
	ck_assert_uint_eq(madt_in_memory(b), 0x5);
	bench_free(b);
	close(fd);
	unlink(path);
}
END_TEST

START_TEST(user_table_is_added)
{
	char path[] = "/tmp/vmm-table-XXXXXX", options[256];
	int fd = mkstemp(path);
	struct tables t;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, "contents", 8), 8);
	close(fd);
	snprintf(options, sizeof(options), "-m 64 -acpitable sig=TEST,oem_id=ACME,rev=7,data=%s", path);
	struct board *b = bench_new(options);
	load(b, &t);
	uint8_t *p = table(&t, "TEST");
	ck_assert_ptr_nonnull(p);
	ck_assert_uint_eq(get_le32(p + 4), 44);
	ck_assert_uint_eq(p[8], 7);
	ck_assert_mem_eq(p + 10, "ACME\0\0", 6);
	ck_assert_mem_eq(p + 36, "contents", 8);
	unload(&t);
	bench_free(b);
	unlink(path);
}
END_TEST

START_TEST(bad_user_tables_are_refused)
{
	static const char *const bad[][2] = {
		{"sig=TEST", "data=FILE"},
		{"sig=TOOLONG,data=/etc/passwd", "sig=TOOLONG"},
		{"file=/usr/share/seabios/bios-256k.bin", "no ACPI table"},
		{"oem=TEST,data=/etc/passwd", "oem"},
		{"data=/nonexistent", "/nonexistent"},
	};
	char options[128];

	snprintf(options, sizeof(options), "-m 64 -acpitable %s", bad[_i][0]);
	const char *msg = bench_new_fails(options);
	ck_assert_msg(strstr(msg, bad[_i][1]), "'%s' does not say '%s'", msg, bad[_i][1]);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("acpi");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, iasl_is_content);
	tcase_add_test(t, iasl_is_content_with_many_cpus_and_much_ram);
	tcase_add_test(t, iasl_is_content_with_pluggable_cpus);
	tcase_add_test(t, slots_of_fixed_devices_cannot_be_ejected);
	tcase_add_test(t, pluggable_cpus_are_listed_and_enabled_after_a_reset);
	tcase_add_test(t, directly_booted_kernels_find_new_tables_after_a_reset);
	tcase_add_test(t, fadt_points_to_the_power_management);
	tcase_add_test(t, madt_lists_cpus_and_overrides);
	tcase_add_test(t, windows_of_the_root_bus_follow_the_ram);
	tcase_add_test(t, absent_isa_devices_are_not_announced);
	tcase_add_test(t, sleep_states_follow_the_options);
	tcase_add_test(t, user_table_is_added);
	tcase_add_loop_test(t, bad_user_tables_are_refused, 0, 5);
	return run_suite("acpi", (TCase *[]){t, NULL});
}
