/* Disks that fill up or go wrong under a running guest: error numbers, policies, events. */
#include "block_test.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

static char last_event[64], last_data[512];

static void on_event(void *opaque, const char *name, const char *data)
{
	snprintf(last_event, sizeof(last_event), "%s", name);
	snprintf(last_data, sizeof(last_data), "%s", data);
}

START_TEST(policies)
{
	static const struct {
		const char *options;
		enum block_op op;
		int err;
		enum block_error_action want;
	} t[] = {
		{"rerror=report", BLOCK_READ, EIO, BLOCK_ACTION_REPORT},
		{"rerror=report", BLOCK_WRITE, ENOSPC, BLOCK_ACTION_STOP}, /* werror defaults to enospc */
		{"rerror=report", BLOCK_WRITE, EIO, BLOCK_ACTION_REPORT},
		{"werror=report", BLOCK_WRITE, ENOSPC, BLOCK_ACTION_REPORT},
		{"werror=stop", BLOCK_WRITE, EIO, BLOCK_ACTION_STOP},
		{"werror=stop", BLOCK_FLUSH, EIO, BLOCK_ACTION_STOP},
		{"werror=ignore", BLOCK_WRITE, ENOSPC, BLOCK_ACTION_IGNORE},
		{"rerror=stop", BLOCK_READ, EIO, BLOCK_ACTION_STOP},
		{"rerror=ignore", BLOCK_READ, EIO, BLOCK_ACTION_IGNORE},
	};

	block_set_event_handler(on_event, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct block *b = drive("file=%s,format=raw,id=disk,%s", image("p", 512), t[i].options);

		ck_assert_int_eq(block_error_action(b, t[i].op, t[i].err), t[i].want);
		ck_assert_str_eq(last_event, "BLOCK_IO_ERROR");
		ck_assert_ptr_nonnull(strstr(last_data, "\"device\": \"disk\""));
		ck_assert_int_eq(strstr(last_data, "\"nospace\": true") != NULL, t[i].err == ENOSPC);
		block_close(b);
	}
}
END_TEST

/* A file size limit: writes beyond fail with EFBIG, what was there stays. */
START_TEST(file_size_limit)
{
	const char *p = image("l", 1 << 20);
	struct rlimit lim = {256 * 1024, RLIM_INFINITY};
	struct block *b;
	char buf[4096];

	signal(SIGXFSZ, SIG_IGN);
	b = drive("file=%s,format=raw", p);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &lim), 0);
	memset(buf, 1, sizeof(buf));
	ck_assert_int_eq(block_pwrite(b, 0, buf, sizeof(buf)), 0);
	ck_assert_int_eq(block_pwrite(b, 512 * 1024, buf, sizeof(buf)), -EFBIG);
	ck_assert_int_eq(block_pread(b, 512 * 1024, buf, sizeof(buf)), 0);
	ck_assert_int_eq(buf[0], 0);
	lim.rlim_cur = RLIM_INFINITY;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &lim), 0);
	ck_assert_int_eq(block_pwrite(b, 512 * 1024, buf, sizeof(buf)), 0);
}
END_TEST

/* A full disk in the middle of a write, then room again: nothing is lost. Needs a small tmpfs, so root. */
START_TEST(disk_full_and_room_again)
{
	char img[256], filler[256], buf[64 * 1024];
	struct block_stats st;
	struct block *b;
	uint64_t at = 0;
	int r;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mkdir(path("small"), 0700) ||
	    mount("tmpfs", path("small"), "tmpfs", 0, "size=1m")) {
		fprintf(stderr, "skipped: cannot mount a tmpfs here\n");
		return;
	}
	snprintf(img, sizeof(img), "%s", path("small/img"));
	snprintf(filler, sizeof(filler), "%s", path("small/filler"));
	image("small/img", 4 << 20);
	image("small/filler", 0);
	memset(buf, 0x77, sizeof(buf));
	put_bytes(filler, 0, buf, sizeof(buf));
	b = drive("file=%s,format=raw", img);
	while (!(r = block_pwrite(b, at, buf, sizeof(buf))))
		at += sizeof(buf);
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_uint_gt(at, 0);
	block_get_stats(b, &st);
	ck_assert_uint_eq(st.errors[BLOCK_WRITE], 1);
	unlink(filler);
	ck_assert_int_eq(block_pwrite(b, at, buf, sizeof(buf)), 0); /* what a device does in resume() */
	at += sizeof(buf);
	for (uint64_t pos = 0; pos < at; pos += sizeof(buf)) {
		char got[sizeof(buf)];

		ck_assert_int_eq(block_pread(b, pos, got, sizeof(got)), 0);
		ck_assert_mem_eq(got, buf, sizeof(buf));
	}
	block_close(b);
	umount(path("small"));
}
END_TEST

/* ---- removable media: a front end of the test's own ---- */

static struct front {
	bool open, locked, inserted;
	int requests, changes;
} front;

static void f_changed(void *opaque, bool inserted)
{
	front.inserted = inserted;
	front.changes++;
}

static void f_request(void *opaque, bool force)
{
	front.requests++;
}

static bool f_locked(void *opaque)
{
	return front.locked;
}

static bool f_open(void *opaque)
{
	return front.open;
}

static void f_set(void *opaque, bool open)
{
	front.open = open;
	block_tray_moved(opaque, open);
}

static const struct block_media_ops front_ops = {
	.changed = f_changed,
	.eject_request = f_request,
	.tray_locked = f_locked,
	.tray_open = f_open,
	.set_tray = f_set,
};

START_TEST(media_commands)
{
	struct block *cd = drive("file=%s,format=raw,media=cdrom,id=cd", image("one.iso", 4096)),
		     *disk = drive("file=%s,format=raw,id=disk", image("disk", 4096));
	struct err e = ERR_INIT;

	block_set_event_handler(on_event, NULL);
	block_claim(cd, "ide-cd", NULL);
	block_claim(disk, "ide-hd", NULL);
	block_set_media_ops(cd, &front_ops, cd, NULL, "cd-dev");
	ck_assert_int_eq(block_eject(disk, false, &e), -ENOTSUP);
	ck_assert_str_eq(e.msg, "Device 'disk' is not removable");
	front.locked = true;
	ck_assert_int_eq(block_eject(cd, false, &e), -EINPROGRESS);
	ck_assert_str_eq(e.msg,
			 "Device 'cd' is locked and force was not specified, wait for tray to open and try again");
	ck_assert_int_eq(front.requests, 1);
	ck_assert(block_inserted(cd) && !front.open);
	ck_assert_int_eq(block_remove_medium(cd, &e), -EINVAL);
	ck_assert_str_eq(e.msg, "Tray of device 'cd' is not open");
	ck_assert_int_eq(block_eject(cd, true, &e), 0);
	ck_assert(!block_inserted(cd) && front.open && !front.inserted);
	ck_assert_str_eq(last_event, "DEVICE_TRAY_MOVED");
	ck_assert_str_eq(last_data, "{\"device\": \"cd\", \"id\": \"cd-dev\", \"tray-open\": true}");
	front.locked = false;
	/* A bad image leaves things as they are. */
	ck_assert_int_eq(block_change_medium(cd, path("missing"), "raw", NULL, false, &e), -ENOENT);
	ck_assert(!block_inserted(cd));
	ck_assert_int_eq(block_change_medium(cd, image("two.iso", 8192), "raw", "retain", false, &e), 0);
	ck_assert(block_inserted(cd) && !front.open && front.inserted && block_readonly(cd));
	ck_assert_uint_eq(block_size(cd), 8192);
	ck_assert_int_eq(block_change_medium(cd, image("three.iso", 2048), "raw", NULL, false, &e), 0);
	ck_assert_uint_eq(block_size(cd), 2048);
	ck_assert_str_eq(last_data, "{\"device\": \"cd\", \"id\": \"cd-dev\", \"tray-open\": false}");
	ck_assert_int_eq(block_change_medium(cd, path("three.iso"), "raw", "sometimes", false, &e), -EINVAL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {policies, file_size_limit, disk_full_and_room_again, media_commands};

	return run_tests("errors", tests, ARRAY_SIZE(tests));
}
