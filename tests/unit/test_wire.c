/* The wire format: what is written is read back, and every single damaged bit or impossible number is refused. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "src/migration/wire.h"
#include "src/migration/xxh3.h"
#include "tests/lib/suite.h"
#include "vmm/bytes.h"

START_TEST(preamble)
{
	struct wire_preamble p = {.kind = WIRE_PAGES,
				  .flags = WIRE_ONE_WAY,
				  .channel = 3,
				  .session = 0x1234567890abcdef,
				  .features = WIRE_F_ZSTD},
			     q;
	uint8_t raw[WIRE_PREAMBLE], bad[WIRE_PREAMBLE];
	struct err e = ERR_INIT;

	wire_put_preamble(raw, &p);
	ck_assert_int_eq(wire_get_preamble(raw, &q, &e), 0);
	ck_assert(q.kind == p.kind && q.flags == p.flags && q.channel == p.channel && q.session == p.session &&
		  q.features == p.features && q.version == WIRE_VERSION);
	for (unsigned bit = 0; bit < 8 * WIRE_PREAMBLE; bit++) {
		memcpy(bad, raw, sizeof(bad));
		bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ck_assert_int_lt(wire_get_preamble(bad, &q, &e), 0);
	}
	/* a stream of the far future says which versions it needs */
	memcpy(bad, raw, sizeof(bad));
	put_le16(bad + 8, 9);
	put_le16(bad + 10, 8);
	put_le32(bad + 28, (uint32_t)wire_hash(bad, 28));
	ck_assert_int_eq(wire_get_preamble(bad, &q, &e), -EPROTONOSUPPORT);
	ck_assert_ptr_nonnull(strstr(e.msg, "at least 8"));
	/* a newer one that still speaks our version is met there */
	put_le16(bad + 10, 1);
	put_le32(bad + 28, (uint32_t)wire_hash(bad, 28));
	ck_assert_int_eq(wire_get_preamble(bad, &q, &e), 0);
	ck_assert_uint_eq(q.version, WIRE_VERSION);
}
END_TEST

/* Streams go between processors with and without AVX2. */
START_TEST(hashes)
{
	static const size_t lengths[] = {
		0, 1, 3, 4, 8, 9, 16, 17, 128, 129, 240, 241, 1024, 1025, WIRE_PAGE, WIRE_PAGE + 1, 3 * WIRE_PAGE};
	uint8_t *data = calloc(3, WIRE_PAGE);

	/* xxHash's own test vector for XXH3-64 of nothing */
	ck_assert_uint_eq(xxh3_generic(data, 0, 0), 0x2d06800538d394c2);
	for (size_t i = 0; i < 3 * WIRE_PAGE; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 24);
	if (!__builtin_cpu_supports("avx2"))
		fprintf(stderr, "no AVX2 here: only one build of the checksum was tried\n");
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++)
		for (uint64_t seed = 0; seed < 3; seed++)
			if (__builtin_cpu_supports("avx2"))
				ck_assert_uint_eq(xxh3_avx2(data, lengths[i], seed),
						  xxh3_generic(data, lengths[i], seed));
	ck_assert_uint_eq(wire_hash(data, WIRE_PAGE), xxh3_generic(data, WIRE_PAGE, 0));
	free(data);
}
END_TEST

START_TEST(record)
{
	static const char text[] = "a reason that a person reads";
	uint8_t raw[WIRE_HEADER], bad[WIRE_HEADER];
	struct wire_record r;
	struct err e = ERR_INIT;
	char damaged[sizeof(text)];

	wire_put_header(raw, WIRE_REFUSE, 0, sizeof(text), 7, text, sizeof(text));
	ck_assert_int_eq(wire_get_header(raw, 7, &r, &e), 0);
	ck_assert_int_eq(wire_check(raw, &r, text, &e), 0);
	ck_assert_int_lt(wire_get_header(raw, 8, &r, &e), 0);
	for (unsigned bit = 0; bit < 8 * WIRE_HEADER; bit++) {
		memcpy(bad, raw, sizeof(bad));
		bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (wire_get_header(bad, 7, &r, &e) == 0) {
			r.hashed = MIN(r.hashed, (uint32_t)sizeof(text));
			ck_assert_int_lt(wire_check(bad, &r, text, &e), 0);
		}
	}
	ck_assert_int_eq(wire_get_header(raw, 7, &r, &e), 0);
	for (unsigned i = 0; i < sizeof(text); i++) {
		memcpy(damaged, text, sizeof(text));
		damaged[i] ^= 1;
		ck_assert_int_lt(wire_check(raw, &r, damaged, &e), 0);
	}
	wire_put_header(raw, WIRE_STATE, 0, WIRE_MAX_PAYLOAD + 1, 0, NULL, 0);
	ck_assert_int_lt(wire_get_header(raw, 0, &r, &e), 0);
}
END_TEST

START_TEST(batch)
{
	uint8_t head[WIRE_BATCH_HEAD];
	struct wire_batch b = {.block = 1,
			       .data_pages = 2,
			       .zero_pages = 5,
			       .data_bytes = 2 * WIRE_PAGE,
			       .run_bytes = 4},
			  out;
	struct wire_record r = {.type = WIRE_BATCH,
				.hashed = WIRE_BATCH_HEAD + 4 + 16,
				.length = WIRE_BATCH_HEAD + 4 + 16 + 2 * WIRE_PAGE};
	struct err e = ERR_INIT;

	wire_put_batch(head, &b);
	ck_assert_int_eq(wire_get_batch(head, &r, &out, &e), 0);
	ck_assert(out.block == 1 && out.data_pages == 2 && out.zero_pages == 5);
	r.length--;
	ck_assert_int_lt(wire_get_batch(head, &r, &out, &e), 0);
	r.length++;
	b.data_pages = WIRE_BATCH_PAGES + 1;
	wire_put_batch(head, &b);
	ck_assert_int_lt(wire_get_batch(head, &r, &out, &e), 0);
	r.hashed = 3;
	ck_assert_int_lt(wire_get_batch(head, &r, &out, &e), 0);
}
END_TEST

START_TEST(runs)
{
	enum { PAGES = 5000 };
	unsigned long map[(PAGES + 63) / 64] = {0}, got[(PAGES + 63) / 64] = {0};
	struct wire_runs w = {0};
	struct wire_run_reader rd;
	struct err e = ERR_INIT;
	uint64_t first, count;
	int r;

	srand(1);
	for (int i = 0; i < 300; i++) {
		unsigned n = (unsigned)rand() % PAGES, len = 1 + (unsigned)rand() % 9;

		for (; len && n < PAGES; len--, n++)
			map[n / 64] |= 1ul << n % 64;
	}
	map[0] |= 1;
	map[(PAGES - 1) / 64] |= 1ul << (PAGES - 1) % 64;
	wire_runs_add_bitmap(&w, map, PAGES);
	rd = (struct wire_run_reader){.p = w.data, .end = w.data + w.len, .limit = PAGES};
	while ((r = wire_runs_next(&rd, &first, &count, &e)) > 0)
		for (uint64_t n = first; n < first + count; n++)
			got[n / 64] |= 1ul << n % 64;
	ck_assert_int_eq(r, 0);
	ck_assert_mem_eq(map, got, sizeof(map));
	/* the same runs in a smaller block */
	rd = (struct wire_run_reader){.p = w.data, .end = w.data + w.len, .limit = PAGES - 1};
	while ((r = wire_runs_next(&rd, &first, &count, &e)) > 0)
		ck_assert_uint_le(first + count, PAGES - 1);
	ck_assert_int_lt(r, 0);
	/* cut in the middle of a number, and numbers beyond 63 bits */
	rd = (struct wire_run_reader){.p = (const uint8_t *)"\x80", .end = (const uint8_t *)"\x80" + 1, .limit = PAGES};
	ck_assert_int_lt(wire_runs_next(&rd, &first, &count, &e), 0);
	static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x01};
	rd = (struct wire_run_reader){.p = huge, .end = huge + sizeof(huge), .limit = PAGES};
	ck_assert_int_lt(wire_runs_next(&rd, &first, &count, &e), 0);
	static const uint8_t nothing[] = {0, 0};
	rd = (struct wire_run_reader){.p = nothing, .end = nothing + 2, .limit = PAGES};
	ck_assert_int_lt(wire_runs_next(&rd, &first, &count, &e), 0);
	free(w.data);
}
END_TEST

START_TEST(zero_pages)
{
	uint8_t *page = aligned_alloc(WIRE_PAGE, WIRE_PAGE);

	memset(page, 0, WIRE_PAGE);
	ck_assert(wire_page_is_zero(page));
	for (unsigned i = 0; i < WIRE_PAGE; i += 7) {
		page[i] = 1;
		ck_assert(!wire_page_is_zero(page));
		page[i] = 0;
	}
	ck_assert_uint_ne(wire_page_hash(page), 0);
	free(page);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("wire");

	tcase_add_test(t, preamble);
	tcase_add_test(t, hashes);
	tcase_add_test(t, record);
	tcase_add_test(t, batch);
	tcase_add_test(t, runs);
	tcase_add_test(t, zero_pages);
	return run_suite("wire", (TCase *[]){t, NULL});
}
