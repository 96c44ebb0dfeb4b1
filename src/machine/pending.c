/* Parts that have not landed yet; this file goes away with them. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define P(f) __attribute__((weak)) int f(void); __attribute__((weak)) int f(void) { return 0; }
P(floppy_cmos_type)
