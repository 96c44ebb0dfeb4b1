/* userfaultfd(2): see faults.h. */
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "session.h"

int faults_open(uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), r;

	if (fd < 0)
		return -errno;
	r = ioctl(fd, UFFDIO_API, &api) ? -errno : 0;
	if (!r && (api.features & features) != features)
		r = -EINVAL;
	if (r)
		close(fd);
	return r ? r : fd;
}

void faults_serve(int uffd, int stop_fd, void (*touched)(void *opaque, uint64_t address), void *opaque)
{
	struct pollfd p[2] = {{.fd = uffd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};

	session_confine();
	while (poll(p, 2, -1) >= 0 || errno == EINTR) {
		struct uffd_msg msg[16];
		ssize_t n;

		if (p[1].revents)
			break;
		n = read(uffd, msg, sizeof(msg));
		for (ssize_t i = 0; i < n / (ssize_t)sizeof(msg[0]); i++)
			if (msg[i].event == UFFD_EVENT_PAGEFAULT)
				touched(opaque, msg[i].arg.pagefault.address);
	}
}
