/* Consoles: damage, sinks, text as UTF-8, screenshots. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/lib/suite.h"
#include "vmm-config.h"
#include "vmm/display.h"
#include "vmm/util.h"
#if HAVE_PNG
#include <png.h>
#endif

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct console *con;
static bool text_mode;
static uint16_t cells[3 * 8];

static uint32_t pixel(uint32_t x, uint32_t y)
{
	return (x * 40) << 16 | (y * 50) << 8 | (x ^ y);
}

static void refresh(void *opaque, bool full)
{
	ck_assert_int_ne(pthread_mutex_trylock(&lock), 0);
	ck_assert_int_eq(console_resize(con, 5, 4), 0);

	struct surface *s = console_surface(con);

	for (uint32_t y = 0; y < 4; y++)
		for (uint32_t x = 0; x < 5; x++)
			((uint32_t *)(s->data + y * s->stride))[x] = pixel(x, y);
	console_damage(con, &(struct rect){3, -2, 100, 4});
	console_damage(con, &(struct rect){5, 0, 1, 1});
}

static bool text(void *opaque, struct text_screen *t)
{
	*t = (struct text_screen){.cols = 8, .rows = 3, .cells = cells, .cursor_x = 2, .cursor_y = 1};
	return text_mode;
}

static const struct console_source source = {.refresh = refresh, .text = text};

static int resizes, damages;
static struct rect last;

static void on_resize(void *opaque, const struct surface *s)
{
	resizes++;
	ck_assert_int_eq(s->width, 5);
}

static void on_damage(void *opaque, const struct rect *r)
{
	damages++;
	last = *r;
}

static void setup(void)
{
	con = console_new("test", &source, NULL, &lock);
}

static void teardown(void)
{
	console_free(con);
	ck_assert_ptr_null(console_first());
}

START_TEST(sinks_hear_of_sizes_and_clipped_damage)
{
	struct console_sink sink = {.resized = on_resize, .damaged = on_damage};

	ck_assert_ptr_eq(console_first(), con);
	resizes = damages = 0;
	console_add_sink(con, &sink);
	console_refresh(con, false);
	ck_assert_int_eq(resizes, 1);
	ck_assert_int_eq(damages, 1); /* the second rectangle lies outside */
	ck_assert(last.x == 3 && last.y == 0 && last.w == 2 && last.h == 2);
	console_refresh(con, false);
	ck_assert_int_eq(resizes, 1); /* same size: no event */
	console_del_sink(con, &sink);
	console_refresh(con, false);
	ck_assert_int_eq(damages, 2);
}
END_TEST

START_TEST(absurd_sizes_are_refused)
{
	ck_assert_int_eq(console_resize(con, 0, 10), -EINVAL);
	ck_assert_int_eq(console_resize(con, 16385, 10), -EINVAL);
	ck_assert_int_eq(console_resize(con, 16384, 16384), -EINVAL); /* 1 GiB */
	ck_assert_int_eq(console_resize(con, 16384, 4096), 0);        /* 256 MiB */
	ck_assert_int_eq(console_resize(con, 1, 1), 0);
}
END_TEST

START_TEST(text_becomes_utf8)
{
	static const char line0[] = "\xc9\xcd\xbb"
				    "A\x80 ~";

	text_mode = true;
	for (unsigned i = 0; i < ARRAY_SIZE(cells); i++)
		cells[i] = 0x0700 | ' ';
	for (unsigned i = 0; line0[i]; i++)
		cells[i] = (uint16_t)(0x1f00 | (unsigned char)line0[i]);
	cells[8] = 0x0700; /* a NUL cell is a blank */
	cells[16 + 7] = 0x0703;

	char *utf8 = console_text_utf8(con);

	ck_assert_str_eq(utf8, "╔═╗AÇ ~\n\n       ♥\n");
	free(utf8);
	text_mode = false;
	ck_assert_ptr_null(console_text_utf8(con));
}
END_TEST

START_TEST(text_is_cut_to_the_callers_buffer)
{
	struct text_screen t;
	uint16_t buf[17];

	text_mode = true;
	ck_assert(console_text(con, &t, buf, 17));
	ck_assert_int_eq(t.rows, 2);
	ck_assert_ptr_eq(t.cells, buf);
	ck_assert(!console_text(con, &t, buf, 7));
}
END_TEST

START_TEST(ppm_holds_the_pixels)
{
	char path[] = "/tmp/vmm-test-XXXXXX";
	struct err e = ERR_INIT;
	uint8_t buf[256];
	static const char head[] = "P6\n5 4\n255\n";

	close(mkstemp(path));
	ck_assert_msg(!screendump_write(con, path, "ppm", &e), "%s", e.msg);

	FILE *f = fopen(path, "r");
	size_t n = fread(buf, 1, sizeof(buf), f);

	fclose(f);
	ck_assert_uint_eq(n, strlen(head) + 5 * 4 * 3);
	ck_assert_mem_eq(buf, head, strlen(head));
	for (uint32_t i = 0; i < 20; i++) {
		const uint8_t *p = buf + strlen(head) + 3 * i;

		ck_assert_uint_eq((uint32_t)(p[0] << 16 | p[1] << 8 | p[2]), pixel(i % 5, i / 5));
	}
	unlink(path);
}
END_TEST

#if HAVE_PNG
START_TEST(png_holds_the_pixels)
{
	char path[] = "/tmp/vmm-test-XXXXXX";
	struct err e = ERR_INIT;
	png_image image = {.version = PNG_IMAGE_VERSION};
	uint8_t px[20 * 3];

	close(mkstemp(path));
	ck_assert_msg(!screendump_write(con, path, "png", &e), "%s", e.msg);
	ck_assert(png_image_begin_read_from_file(&image, path));
	ck_assert_uint_eq(image.width, 5);
	ck_assert_uint_eq(image.height, 4);
	image.format = PNG_FORMAT_RGB;
	ck_assert(png_image_finish_read(&image, NULL, px, 0, NULL));
	for (uint32_t i = 0; i < 20; i++)
		ck_assert_uint_eq((uint32_t)(px[3 * i] << 16 | px[3 * i + 1] << 8 | px[3 * i + 2]),
				  pixel(i % 5, i / 5));
	unlink(path);
}
END_TEST
#endif

START_TEST(screendump_errors_are_told)
{
	struct err e = ERR_INIT;
	struct stat st;

	ck_assert_int_lt(screendump_write(con, "/tmp/vmm-test.bmp", "bmp", &e), 0);
	ck_assert_ptr_nonnull(strstr(e.msg, "bmp"));
	ck_assert_int_eq(screendump_write(NULL, "/tmp/x", "ppm", &e), -ENODEV);
	ck_assert_int_eq(screendump_write(con, "/no/such/dir/x", "ppm", &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.msg, "/no/such/dir/x"));
	ck_assert_int_eq(screendump_write(con, "/dev/full", "ppm", &e), -ENOSPC);
	ck_assert_int_eq(stat("/dev/full", &st), 0); /* a device is not removed */
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("console");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, sinks_hear_of_sizes_and_clipped_damage);
	tcase_add_test(t, absurd_sizes_are_refused);
	tcase_add_test(t, text_becomes_utf8);
	tcase_add_test(t, text_is_cut_to_the_callers_buffer);
	tcase_add_test(t, ppm_holds_the_pixels);
#if HAVE_PNG
	tcase_add_test(t, png_holds_the_pixels);
#endif
	tcase_add_test(t, screendump_errors_are_told);
	return run_suite("console", (TCase *[]){t, NULL});
}
