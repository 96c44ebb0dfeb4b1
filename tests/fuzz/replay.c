/*
 * A main for fuzz targets in normal builds: runs the corpus files and folders given, then `-runs=N` (default 200)
 * inputs made from a fixed seed, so that the targets are compiled, linked and exercised by every test run. Fuzzing
 * itself: meson option `fuzz` (libFuzzer).
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "fuzz.h"

#define MAX_BYTES (1 << 20)

static unsigned ran;

static void run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *buf = malloc(MAX_BYTES);
	size_t n;

	if (f && buf) {
		n = fread(buf, 1, MAX_BYTES, f);
		LLVMFuzzerTestOneInput(buf, n);
		ran++;
	}
	if (f)
		fclose(f);
	free(buf);
}

static void run_path(const char *path)
{
	struct stat st;
	struct dirent *entry;
	char name[4096];
	DIR *d;

	if (stat(path, &st))
		return;
	if (!S_ISDIR(st.st_mode)) {
		run_file(path);
		return;
	}
	d = opendir(path);
	while (d && (entry = readdir(d))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		run_file(name);
	}
	if (d)
		closedir(d);
}

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void run_random(unsigned runs)
{
	uint64_t seed = 0x9e3779b97f4a7c15ull;
	uint8_t buf[4096];

	for (unsigned i = 0; i < runs; i++) {
		size_t n = next_random(&seed) % sizeof(buf);

		for (size_t k = 0; k < n; k++)
			buf[k] = (uint8_t)next_random(&seed);
		LLVMFuzzerTestOneInput(buf, n);
		ran++;
	}
}

int main(int argc, char **argv)
{
	unsigned runs = 200;

	for (int i = 1; i < argc; i++) {
		if (sscanf(argv[i], "-runs=%u", &runs) != 1)
			run_path(argv[i]);
	}
	run_random(runs);
	printf("%u inputs, no finding\n", ran);
	return ran ? 0 : 1;
}
