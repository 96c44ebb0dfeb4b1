/* The gdb protocol against a guest of memory and registers, the register file, and the page table walk. */
#include <stdlib.h>
#include "gdb_fake.h"
#include "tests/lib/suite.h"
#include "vmm/bytes.h"
#include "vmm/debug.h"

static struct fake *f;

static void setup_wide(void)
{
	f = fake_new(true);
}

static void teardown(void)
{
	fake_free(f);
}

static void raw(const char *bytes, size_t len)
{
	f->sent_len = 0;
	gdb_feed(&f->gdb, (const uint8_t *)bytes, len);
	f->sent[f->sent_len] = 0;
}

static void frame_n(char *out, const char *packet, size_t len)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += (uint8_t)packet[i];
	out[0] = '$';
	memcpy(out + 1, packet, len);
	sprintf(out + 1 + len, "#%02x", sum);
}

/* What a packet is answered with, without frame and acknowledgements; "" also when nothing is sent back. */
static const char *ask(const char *packet)
{
	static char text[65536];
	char *p, *end;

	frame_n(text, packet, strlen(packet));
	raw(text, strlen(text));
	p = memchr(f->sent, '$', f->sent_len);
	if (!p)
		return "";
	end = memchr(p, '#', f->sent_len - (size_t)(p - f->sent));
	ck_assert_ptr_nonnull(end);
	memmove(text, p + 1, (size_t)(end - p - 1));
	text[end - p - 1] = 0;
	return text;
}

START_TEST(framing)
{
	raw("$qC#b4", 6);
	ck_assert_str_eq(f->sent, "+$QC01#f5");
	raw("-", 1); /* again */
	ck_assert_str_eq(f->sent, "$QC01#f5");
	raw("+", 1);
	ck_assert_uint_eq(f->sent_len, 0);
	raw("$qC#b5", 6); /* checksum */
	ck_assert_str_eq(f->sent, "-");
	raw("$qC#zz", 6);
	ck_assert_str_eq(f->sent, "-");
	raw("$q$qC#b4", 8); /* begun anew */
	ck_assert_str_eq(f->sent, "+$QC01#f5");
	raw("$Hg0", 4); /* in pieces */
	raw("#df", 3);
	ck_assert_str_eq(f->sent, "+$OK#9a");
	ck_assert_str_eq(ask("nonsense"), "");
	ck_assert_str_eq(f->sent, "+$#00");
}
END_TEST

START_TEST(too_long)
{
	char *big = xzalloc(2 * GDB_MAX_PACKET);

	memset(big, 'm', 2 * GDB_MAX_PACKET);
	big[0] = '$';
	raw(big, 2 * GDB_MAX_PACKET);
	raw("#00", 3);
	ck_assert_str_eq(f->sent, "-");
	raw("$qC#b4", 6);
	ck_assert_str_eq(f->sent, "+$QC01#f5");
	free(big);
}
END_TEST

START_TEST(no_ack)
{
	ck_assert_str_eq(ask("QStartNoAckMode"), "OK");
	ck_assert_int_eq(f->sent[0], '+');
	raw("$qC#b4", 6);
	ck_assert_str_eq(f->sent, "$QC01#f5");
}
END_TEST

START_TEST(memory)
{
	char packet[32] = "X10000020,4:a}\003}]";

	for (unsigned i = 0; i < FAKE_RAM; i++)
		f->ram[i] = (uint8_t)i;
	ck_assert_str_eq(ask("m10000010,4"), "10111213");
	ck_assert_str_eq(ask("M10000010,2:beef"), "OK");
	ck_assert_str_eq(ask("m10000010,4"), "beef1213");
	ck_assert_str_eq(ask("M10000010,2:be"), "E16");
	ck_assert_str_eq(ask("M10000010,2:beefbe"), "E16");
	ck_assert_str_eq(ask("m20000000,4"), "E0e");
	ck_assert_str_eq(ask("M1000ffff,2:0102"), "E0e");
	ck_assert_str_eq(ask("m1000fffe,4"), "fe01"); /* what is there */
	ck_assert_str_eq(ask("m10000000,ffffffffffffffff0"), "E0e");
	ck_assert_uint_lt(strlen(ask("m10000000,ffffffff")), GDB_MAX_PACKET);
	/* binary: an escape stands for one byte, which is '#' here */
	ck_assert_str_eq(ask(packet), "E16");
	ck_assert_str_eq(ask("X10000020,3:a}\003}]"), "OK");
	ck_assert_mem_eq(f->ram + 0x20, "a#}", 3);
	ck_assert_str_eq(ask("x10000020,3"), "ba}\003}]");
	/* physical */
	ck_assert_str_eq(ask("qqemu.PhyMemMode"), "0");
	ck_assert_str_eq(ask("Qqemu.PhyMemMode:1"), "OK");
	ck_assert_str_eq(ask("qqemu.PhyMemMode"), "1");
	ck_assert_str_eq(ask("m20,2"), "6123");
	ck_assert_str_eq(ask("m10000020,2"), "E0e");
	ck_assert_str_eq(ask("Qqemu.PhyMemMode:0"), "OK");
}
END_TEST

START_TEST(registers)
{
	const char *all;

	ck_assert_uint_eq(gdb_regs_size(true), 608); /* QEMU's i386-64bit.xml */
	ck_assert_uint_eq(gdb_regs_size(false), 344);
	f->regs[0].rip = 0x123456789abcdef0;
	f->regs[1].rip = 0x1111;
	f->regs[0].gpr[CPU_RBX] = 0x42;
	f->regs[0].seg[CPU_FS].base = 0x7000;
	f->regs[0].cr3 = 0x1000;
	ck_assert_str_eq(ask("p10"), "f0debc9a78563412");
	ck_assert_str_eq(ask("p1"), "4200000000000000");
	ck_assert_str_eq(ask("p18"), "0070000000000000");
	ck_assert_str_eq(ask("p1d"), "0010000000000000");
	ck_assert_str_eq(ask("p99"), "E16");
	ck_assert_str_eq(ask("Hg2"), "OK");
	ck_assert_str_eq(ask("p10"), "1111000000000000");
	ck_assert_str_eq(ask("P10=2222000000000000"), "OK");
	ck_assert_uint_eq(f->regs[1].rip, 0x2222);
	ck_assert_str_eq(ask("P10=2222"), "E16");
	ck_assert_str_eq(ask("Hg1"), "OK");
	all = ask("g");
	ck_assert_uint_eq(strlen(all), 2 * 608);
	{
		char *packet = xasprintf("G%s", all);

		memcpy(packet + 1, "ff", 2);
		ck_assert_str_eq(ask(packet), "OK");
		ck_assert_uint_eq(f->regs[0].gpr[CPU_RAX], 0xff);
		ck_assert_uint_eq(f->regs[0].rip, 0x123456789abcdef0);
		packet[100] = 0;
		ck_assert_str_eq(ask(packet), "E16");
		free(packet);
	}
}
END_TEST

/* Each register comes back as it was set. */
START_TEST(registers_round_trip)
{
	for (int wide = 0; wide < 2; wide++)
		for (unsigned n = 0; n < gdb_regs_count(wide); n++) {
			struct cpu_regs r = {.fsw = 3 << 11}, q = r;
			uint8_t in[16], out[16];
			size_t size = gdb_reg_get(wide, &r, n, in);

			ck_assert_uint_gt(size, 0);
			memset(in, 0, sizeof(in));
			in[0] = 0x5a; /* fits every register; as ftag: three in use */
			ck_assert_uint_eq(gdb_reg_set(wide, &q, n, in, NULL, NULL), size);
			ck_assert(memcmp(&r, &q, sizeof(r)) != 0);
			ck_assert_uint_eq(gdb_reg_get(wide, &q, n, out), size);
			if (size != 4 || memcmp(in, out, size) == 0)
				ck_assert_mem_eq(in, out, size);
			else
				ck_assert_uint_eq(q.ftw, 0xff); /* the tags of registers that are zero */
		}
}
END_TEST

static size_t read_gdt(void *opaque, uint64_t linear, void *buf, size_t len)
{
	static const uint64_t gdt[] = {0, 0x00cf9b000000ffff, 0x80409312345600ff, 0x0000000000000000};

	if (linear < 0x5000 || linear + len > 0x5000 + sizeof(gdt))
		return 0;
	memcpy(buf, (const uint8_t *)gdt + (linear - 0x5000), len);
	return len;
}

START_TEST(selectors)
{
	struct cpu_regs r = {.gdt_base = 0x5000, .gdt_limit = 31};
	const unsigned ds = 20;
	uint8_t value[16] = {0x34, 0x12};

	gdb_reg_set(true, &r, ds, value, read_gdt, NULL); /* real mode */
	ck_assert_uint_eq(r.seg[CPU_DS].base, 0x12340);
	r.cr0 = CPU_CR0_PE;
	put_le32(value, 0x10);
	gdb_reg_set(true, &r, ds, value, read_gdt, NULL);
	ck_assert_uint_eq(r.seg[CPU_DS].base, 0x80123456);
	ck_assert_uint_eq(r.seg[CPU_DS].limit, 0xff);
	ck_assert_uint_eq(r.seg[CPU_DS].db, 1);
	put_le32(value, 0x08); /* code: not for DS */
	gdb_reg_set(true, &r, ds, value, read_gdt, NULL);
	ck_assert_uint_eq(r.seg[CPU_DS].selector, 0x10);
	put_le32(value, 0x40); /* behind the table */
	gdb_reg_set(true, &r, ds, value, read_gdt, NULL);
	ck_assert_uint_eq(r.seg[CPU_DS].selector, 0x10);
	put_le32(value, 0);
	gdb_reg_set(true, &r, ds, value, read_gdt, NULL);
	ck_assert_uint_eq(r.seg[CPU_DS].unusable, 1);
}
END_TEST

START_TEST(description)
{
	for (int wide = 0; wide < 2; wide++) {
		char *xml = gdb_regs_xml(wide), last[32];

		ck_assert_ptr_nonnull(strstr(xml, wide ? "<architecture>i386:x86-64<" : "<architecture>i386<"));
		snprintf(last, sizeof(last), "regnum=\"%u\"", gdb_regs_count(wide) - 1);
		ck_assert_ptr_nonnull(strstr(xml, last));
		free(xml);
	}
	ck_assert_int_eq(ask("qXfer:features:read:target.xml:0,10")[0], 'm');
	ck_assert_str_eq(ask("qXfer:features:read:target.xml:fffff,10"), "l");
	ck_assert_str_eq(ask("qXfer:features:read:other.xml:0,10"), "E00");
}
END_TEST

START_TEST(threads)
{
	ck_assert_ptr_nonnull(strstr(ask("qSupported:multiprocess+;swbreak+"), "PacketSize=4000"));
	ck_assert_str_eq(ask("qfThreadInfo"), "mp01.01,p01.02");
	ck_assert_str_eq(ask("qsThreadInfo"), "l");
	ck_assert_str_eq(ask("Tp1.2"), "OK");
	ck_assert_str_eq(ask("Tp1.3"), "E16");
	ck_assert_str_eq(ask("Tp2.1"), "E16");
	ck_assert_str_eq(ask("Hcp1.-1"), "OK");
	ck_assert_str_eq(ask("Hgp1.9"), "E16");
	ck_assert_str_eq(ask("Hg0"), "OK");
	f->regs[1].halted = true;
	ck_assert_str_eq(ask("qThreadExtraInfo,p1.2"), "4350552331205b68616c7465645d");
}
END_TEST

START_TEST(running)
{
	ck_assert_str_eq(ask("vCont?"), "vCont;c;C;s;S");
	ck_assert_str_eq(ask("qSupported:multiprocess+;swbreak+;hwbreak+"),
			 ask("qSupported:multiprocess+;swbreak+;hwbreak+"));
	ck_assert_str_eq(ask("vCont;s:p1.2;c"), "");
	ck_assert(f->running && f->action[0] == GDB_CONTINUE && f->action[1] == GDB_STEP);
	ck_assert_uint_eq(f->sstep, GDB_STEP_NOIRQ);
	f->sent_len = 0;
	f->running = false;
	gdb_stopped(&f->gdb, &(struct gdb_stop){.signal = 5, .cpu = 1, .software = true});
	f->sent[f->sent_len] = 0;
	ck_assert_str_eq(f->sent, "$T05swbreak:;thread:p01.02;#6b");
	ck_assert_str_eq(ask("qC"), "QCp01.02");
	ask("vCont;s:p1.1"); /* alone */
	ck_assert(f->action[0] == GDB_STEP && f->action[1] == GDB_STAY);
	raw("\003", 1);
	ck_assert_str_eq(f->sent, "$T02thread:p01.02;#04");
	ck_assert(!f->running);
	raw("\003", 1); /* stopped already: nothing to say */
	ck_assert_uint_eq(f->sent_len, 0);
	ask("c");
	gdb_stopped(&f->gdb, &(struct gdb_stop){.signal = 5, .watch = GDB_POINT_ACCESS, .addr = 0xabc});
	f->sent[f->sent_len] = 0;
	ck_assert_ptr_nonnull(strstr(f->sent, "$T05awatch:abc;thread:p01.01;"));
	f->running = false;
	ck_assert_str_eq(ask("vCont;x"), "E16");
	ck_assert_str_eq(ask("vCont"), "E16");
	ck_assert_str_eq(ask("vCont;c:9"), "E16");
	ask("c1234");
	ck_assert_uint_eq(f->regs[0].rip, 0x1234);
	/* somebody else let it run: a packet stops it first, without a stop reply */
	gdb_stopped(&f->gdb, &(struct gdb_stop){.signal = 2});
	f->running = true;
	ck_assert_str_eq(ask("qC"), "QCp01.01");
	ck_assert(!f->running);
}
END_TEST

/* A guest that cannot go on says why and stays stopped. */
START_TEST(refused)
{
	f->refuse = true;
	ck_assert_str_eq(ask("c"), "O766d6d3a20");
	ck_assert_ptr_nonnull(strstr(f->sent, "$T05thread:01;"));
	ck_assert(!f->gdb.waiting);
}
END_TEST

START_TEST(points)
{
	ck_assert_str_eq(ask("Z0,1000,1"), "OK");
	ck_assert_str_eq(ask("Z1,1000,1"), "OK");
	ck_assert_str_eq(ask("Z2,1000,10"), "E16");
	ck_assert_str_eq(ask("Z3,1000,4"), ""); /* not on this architecture */
	ck_assert_str_eq(ask("Z7,1000,4"), "");
	ck_assert_str_eq(ask("Z0,,"), "E16");
	ck_assert_uint_eq(f->points, 2);
	ck_assert_str_eq(ask("z0,1000,1"), "OK");
	ck_assert_uint_eq(f->points, 1);
	ck_assert_str_eq(ask("?"), "T05thread:01;");
	ck_assert_uint_eq(f->points, 0);
	ask("Z0,1000,1");
	ck_assert_str_eq(ask("D"), "OK");
	ck_assert(f->points == 0 && f->running);
}
END_TEST

START_TEST(odds)
{
	ck_assert_str_eq(ask("qqemu.sstepbits"), "ENABLE=1,NOIRQ=2");
	ck_assert_str_eq(ask("qqemu.sstep"), "0x3");
	ck_assert_str_eq(ask("Qqemu.sstep=1"), "OK");
	ck_assert_str_eq(ask("qqemu.sstep"), "0x1");
	ck_assert_str_eq(ask("Qqemu.sstep=7"), "E16");
	ck_assert_str_eq(ask("qAttached"), "1");
	ck_assert_str_eq(ask("qCRC:0,1"), "");
	ck_assert_str_eq(ask("vMustReplyEmpty"), "");
	ck_assert_str_eq(ask("qRcmd,696e666f20737461747573"), "O796f75207361696420696e666f207374617475730a");
	ck_assert_str_eq(f->command, "info status");
	ck_assert_ptr_nonnull(strstr(f->sent, "$OK#9a"));
	ck_assert_str_eq(ask("qRcmd,6z"), "E16");
	ask("k");
	ck_assert(f->killed);
}
END_TEST

/* ---- page tables ---- */

static uint8_t tables[16 * 4096];

static size_t read_tables(void *opaque, uint64_t addr, void *buf, size_t len)
{
	if (addr + len > sizeof(tables))
		return 0;
	memcpy(buf, tables + addr, len);
	return len;
}

static uint64_t walk(const struct cpu_regs *r, uint64_t linear)
{
	uint64_t physical;

	return cpu_translate(r, linear, &physical, read_tables, NULL) ? physical : ~0ull;
}

START_TEST(no_paging)
{
	struct cpu_regs r = {.cr0 = CPU_CR0_PE};

	ck_assert_uint_eq(walk(&r, 0x1fffff000), 0xfffff000);
}
END_TEST

START_TEST(four_levels)
{
	struct cpu_regs r = {.cr0 = CPU_CR0_PG | CPU_CR0_PE, .cr3 = 0x1018, .cr4 = CPU_CR4_PAE, .efer = CPU_EFER_LMA};

	memset(tables, 0, sizeof(tables));
	put_le64(tables + 0x1000 + 511 * 8, 0x2003); /* upper half */
	put_le64(tables + 0x2000 + 510 * 8, 0x3003);
	put_le64(tables + 0x2000 + 511 * 8, 0x40000083); /* 1 GiB */
	put_le64(tables + 0x3000 + 8, 0x4003);
	put_le64(tables + 0x3000 + 16, 0x8000000000200083); /* 2 MiB, NX */
	put_le64(tables + 0x4000 + 3 * 8, 0x8000000012345067);
	ck_assert_uint_eq(walk(&r, 0xffffffff80203abc), 0x12345abc);
	ck_assert_uint_eq(walk(&r, 0xffffffff80412345), 0x212345);
	ck_assert_uint_eq(walk(&r, 0xffffffffc1234567), 0x41234567);
	ck_assert_uint_eq(walk(&r, 0xffffffff80204000), ~0ull);
	ck_assert_uint_eq(walk(&r, 0x80203abc), ~0ull);
	ck_assert_uint_eq(walk(&r, 0x0000ffff80203abc), ~0ull); /* not canonical */
	r.cr4 |= CPU_CR4_LA57;
	put_le64(tables + 0x5000 + 511 * 8, 0x1003);
	r.cr3 = 0x5000;
	ck_assert_uint_eq(walk(&r, 0xffffffff80203abc), 0x12345abc);
	ck_assert_uint_eq(walk(&r, 0x00ffffff80203abc), ~0ull);
	r.cr3 = 0x7fffffff000; /* tables outside RAM */
	ck_assert_uint_eq(walk(&r, 0xffffffff80203abc), ~0ull);
}
END_TEST

START_TEST(pae_and_32_bit)
{
	struct cpu_regs r = {.cr0 = CPU_CR0_PG | CPU_CR0_PE, .cr3 = 0x1020, .cr4 = CPU_CR4_PAE};

	memset(tables, 0, sizeof(tables));
	put_le64(tables + 0x1020 + 3 * 8, 0x2001);
	put_le64(tables + 0x2000, 0x3003);
	put_le64(tables + 0x2008, 0x100200083);
	put_le64(tables + 0x3000 + 8, 0xa00067);
	ck_assert_uint_eq(walk(&r, 0xc0001234), 0xa00234);
	ck_assert_uint_eq(walk(&r, 0xc0200010), 0x100200010);
	ck_assert_uint_eq(walk(&r, 0x40000000), ~0ull);
	memset(tables, 0, sizeof(tables));
	r.cr3 = 0x1000;
	r.cr4 = CPU_CR4_PSE;
	put_le32(tables + 0x1000 + 768 * 4, 0x2003);
	put_le32(tables + 0x1000 + 769 * 4, 0x00402083); /* 4 MiB; bit 13: address bit 32 */
	put_le32(tables + 0x2000 + 4, 0xb00067);
	ck_assert_uint_eq(walk(&r, 0xc0001234), 0xb00234);
	ck_assert_uint_eq(walk(&r, 0xc0412345), 0x100412345);
	ck_assert_uint_eq(walk(&r, 0xc0002000), ~0ull);
	r.cr4 = 0;
	put_le32(tables + 0x1000 + 769 * 4, 0x2083); /* bit 7 means nothing then */
	ck_assert_uint_eq(walk(&r, 0xc0401234), 0xb00234);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("protocol"), *w = tcase_create("walk");

	tcase_add_checked_fixture(t, setup_wide, teardown);
	tcase_add_test(t, framing);
	tcase_add_test(t, too_long);
	tcase_add_test(t, no_ack);
	tcase_add_test(t, memory);
	tcase_add_test(t, registers);
	tcase_add_test(t, registers_round_trip);
	tcase_add_test(t, selectors);
	tcase_add_test(t, description);
	tcase_add_test(t, threads);
	tcase_add_test(t, running);
	tcase_add_test(t, refused);
	tcase_add_test(t, points);
	tcase_add_test(t, odds);
	tcase_add_test(w, no_paging);
	tcase_add_test(w, four_levels);
	tcase_add_test(w, pae_and_32_bit);
	return run_suite("gdb", (TCase *[]){t, w, NULL});
}
