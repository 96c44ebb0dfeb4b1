/*
 * A guest that works and checks its work, in one process: files written, synced and read back from the disk, a numbered
 * line for each, timers and clocks. `work DIRECTORY CONSOLE STOP`: until the file STOP is there; "line end" is the last
 * line.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SIZE  32768 /* of a file, in bytes */
#define FILES 16

static int console;

static void say(const char *format, ...)
{
	char line[128];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	for (int done = 0, r; done<len; done += r> 0 ? r : 0)
		if ((r = write(console, line + done, len - done)) < 0 && errno != EINTR)
			exit(1);
}

static void bad(unsigned n, const char *what)
{
	say("BAD round %u: %s\n", n, what);
}

/* Word i of round n's file; test_linux.py has the same. */
static uint32_t word(uint32_t n, uint32_t i)
{
	return (n << 16 ^ i) * 2654435761u;
}

static void disk_round(const char *directory, unsigned n)
{
	static uint32_t out[SIZE / 4], in[SIZE / 4];
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%u", directory, n % FILES);
	for (uint32_t i = 0; i < SIZE / 4; i++)
		out[i] = word(n, i);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, out, SIZE) != SIZE || fsync(fd))
		bad(n, "cannot write");
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	memset(in, 0, SIZE);
	if (pread(fd, in, SIZE, 0) != SIZE)
		bad(n, "cannot read");
	else if (memcmp(in, out, SIZE))
		bad(n, "the file is not what was written");
	close(fd);
}

static int64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* Time goes forward only, and a timer neither early nor never. */
static void clock_round(unsigned n)
{
	static int64_t last, last_wall;
	int64_t start = now(CLOCK_MONOTONIC), wall = now(CLOCK_REALTIME);
	struct timespec nap = {.tv_nsec = 20000000};

	if (start < last || wall < last_wall)
		bad(n, "a clock went back");
	nanosleep(&nap, NULL);
	last = now(CLOCK_MONOTONIC);
	last_wall = now(CLOCK_REALTIME);
	if (last - start < nap.tv_nsec)
		bad(n, "a timer was early");
}

int main(int argc, char **argv)
{
	struct stat st;

	if (argc != 4 || (console = open(argv[2], O_WRONLY | O_NOCTTY)) < 0)
		return 2;
	mkdir(argv[1], 0755);
	for (unsigned n = 1; stat(argv[3], &st); n++) {
		disk_round(argv[1], n);
		clock_round(n);
		say("line %u\n", n);
	}
	sync();
	say("line end\n");
	return 0;
}
