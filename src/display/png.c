/*
 * The module vmm-png.so: a surface as a PNG file (ISO/IEC 15948, 8-bit RGB) through libpng. Loaded by screendump.c when
 * the first PNG is asked for.
 */
#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include "src/display/modules.h"

static void on_error(png_structp png, png_const_charp text)
{
	err_set(png_get_error_ptr(png), EIO, "%s", text);
	longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
}

static int png_write_surface(FILE *f, const struct surface *s, struct err *e)
{
	struct err local = ERR_INIT;
	png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &local, on_error, on_warning);
	png_infop info = png ? png_create_info_struct(png) : NULL;

	if (!info) {
		png_destroy_write_struct(&png, NULL);
		return err_set(e, ENOMEM, "out of memory");
	}
	if (setjmp(png_jmpbuf(png))) {
		png_destroy_write_struct(&png, &info);
		return err_set(e, EIO, "%s", local.msg);
	}
	png_init_io(png, f);
	png_set_IHDR(png, info, s->width, s->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
		     PNG_COMPRESSION_TYPE_BASE, PNG_FILTER_TYPE_BASE);
	png_write_info(png, info);
	/* A surface is 0x00RRGGBB in host order: B, G, R, unused in memory (this program runs on x86 only). */
	png_set_bgr(png);
	png_set_filler(png, 0, PNG_FILLER_AFTER);
	for (uint32_t y = 0; y < s->height; y++)
		png_write_row(png, s->data + (size_t)y * s->stride);
	png_write_end(png, info);
	png_destroy_write_struct(&png, &info);
	return 0;
}

const struct png_module vmm_module_png = {.write = png_write_surface};
