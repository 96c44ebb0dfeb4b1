/* Image locks between processes: here, and against QEMU's way of locking (bytes 100+ and 200+). */
#include "block_test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Run fn in a process of its own with an image open there; 0 = the child's checks passed. */
static int in_child(int (*fn)(const char *p), const char *p)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(fn(p));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int child_try(const char *options, const char *p, const char *want)
{
	struct err e;
	struct block *b = try_drive(&e, "file=%s,format=raw,id=child,%s", p, options);

	if (!want)
		return b ? 0 : 1;
	if (b)
		return 2;
	return strstr(e.msg, want) && strstr(e.msg, "Is another process using the image [") && strstr(e.msg, p) ? 0 : 3;
}

static int child_writes_refused(const char *p)
{
	return child_try("readonly=off", p, "Failed to get \"write\" lock");
}

static int child_reads_refused(const char *p)
{
	return child_try("readonly=on", p, "Failed to get shared \"write\" lock");
}

static int child_reads(const char *p)
{
	return child_try("readonly=on", p, NULL);
}

static int child_unlocked(const char *p)
{
	return child_try("locking=off", p, NULL);
}

static int child_snapshot_refused(const char *p)
{
	return child_try("snapshot=on", p, "Failed to get shared \"write\" lock");
}

START_TEST(one_writer)
{
	const char *p = image("w", 4096);
	struct block *b = drive("file=%s,format=raw", p);

	ck_assert_int_eq(in_child(child_writes_refused, p), 0);
	ck_assert_int_eq(in_child(child_reads_refused, p), 0);
	ck_assert_int_eq(in_child(child_snapshot_refused, p), 0);
	ck_assert_int_eq(in_child(child_unlocked, p), 0);
	/* The same process is no exception. */
	refused("Failed to get \"write\" lock", "file=%s,format=raw,id=two", p);
	block_close(b);
	ck_assert_int_eq(in_child(child_reads, p), 0);
	b = drive("file=%s,format=raw", p);
}
END_TEST

START_TEST(many_readers)
{
	const char *p = image("r", 4096);

	drive("file=%s,format=raw,readonly=on,id=a", p);
	drive("file=%s,format=raw,snapshot=on,id=b", p);
	drive("file=%s,format=raw,media=cdrom,id=c", p);
	ck_assert_int_eq(in_child(child_reads, p), 0);
	ck_assert_int_eq(in_child(child_writes_refused, p), 0);
}
END_TEST

static bool byte_locked(int fd, off_t byte)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	ck_assert_int_eq(fcntl(fd, F_OFD_GETLK, &fl), 0);
	return fl.l_type != F_UNLCK;
}

/* The very bytes QEMU 7.2 locks for an IDE disk and for a CD-ROM (seen in /proc/locks). */
START_TEST(same_bytes_as_qemu)
{
	const char *p = image("q", 4096);
	int fd = open(p, O_RDWR);
	struct block *b = drive("file=%s,format=raw", p);

	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(byte_locked(fd, 100 + i), i <= 1);
		ck_assert_int_eq(byte_locked(fd, 200 + i), i == 1);
	}
	block_close(b);
	b = drive("file=%s,format=raw,readonly=on", p);
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(byte_locked(fd, 100 + i), i == 0);
		ck_assert_int_eq(byte_locked(fd, 200 + i), i == 1 || i == 3);
	}
	close(fd);
}
END_TEST

static int child_takes_over(const char *p)
{
	struct err e = ERR_INIT;
	struct block *b;
	char byte = 'x';

	block_inactivate_all(); /* as inherited by fork(), the descriptors' locks are the parent's: look at our own only
				 */
	b = try_drive(&e, "file=%s,format=raw,id=child", p);
	if (!b || block_pwrite(b, 0, &byte, 1) != -EPERM)
		return 1;
	block_start_inactive();
	return 0;
}

/* What a migration does: the new owner opens without locks, the old one releases, exactly one of them can be active. */
START_TEST(handover)
{
	const char *p = image("h", 4096);
	struct err e = ERR_INIT;
	struct block *b = drive("file=%s,format=raw,id=old", p);
	int fd = open(p, O_RDWR);
	char byte = 'x';

	ck_assert_int_eq(byte_locked(fd, 101), 1);
	block_inactivate_all();
	ck_assert(!block_active());
	ck_assert_int_eq(byte_locked(fd, 101), 0);
	ck_assert_int_eq(block_pwrite(b, 0, &byte, 1), -EPERM);
	ck_assert_int_eq(block_pread(b, 0, &byte, 1), 0);
	ck_assert_int_eq(in_child(child_takes_over, p), 0);
	ck_assert_int_eq(block_activate_all(&e), 0);
	ck_assert_int_eq(byte_locked(fd, 101), 1);
	ck_assert_int_eq(block_pwrite(b, 0, &byte, 1), 0);
	/* somebody else was quicker */
	block_inactivate_all();
	struct flock fl = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1};
	ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &fl), 0);
	ck_assert_int_lt(block_activate_all(&e), 0);
	ck_assert_ptr_nonnull(strstr(e.msg, p));
	ck_assert(!block_active());
	close(fd);
	/* or cut the image */
	ck_assert_int_eq(truncate(p, 512), 0);
	ck_assert_int_lt(block_activate_all(&e), 0);
	ck_assert_ptr_nonnull(strstr(e.msg, "shrank"));
	ck_assert_int_eq(truncate(p, 4096), 0);
	ck_assert_int_eq(block_activate_all(&e), 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {one_writer, many_readers, same_bytes_as_qemu, handover};

	return run_tests("locks", tests, ARRAY_SIZE(tests));
}
