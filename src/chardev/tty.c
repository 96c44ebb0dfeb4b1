/* Terminal settings: raw mode and serial line parameters (termios(3)). */
#include "backend.h"

#include <errno.h>
#include <stdlib.h>
#include <termios.h>

void tty_make_raw(struct termios *t, bool keep_output_processing)
{
	t->c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	if (keep_output_processing)
		t->c_oflag |= OPOST;
	else
		t->c_oflag &= ~(tcflag_t)OPOST;
	t->c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
	t->c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
	t->c_cflag |= CS8;
	t->c_cc[VMIN] = 1;
	t->c_cc[VTIME] = 0;
}

/* The host's speed nearest to what the guest programmed. */
static speed_t nearest_speed(uint32_t baud)
{
	static const struct {
		uint32_t baud;
		speed_t speed;
	} speeds[] = {
		{50, B50},     {75, B75},       {110, B110},     {134, B134},     {150, B150},       {200, B200},
		{300, B300},   {600, B600},     {1200, B1200},   {1800, B1800},   {2400, B2400},     {4800, B4800},
		{9600, B9600}, {19200, B19200}, {38400, B38400}, {57600, B57600}, {115200, B115200},
	};
	size_t best = 0;

	for (size_t i = 1; i < ARRAY_SIZE(speeds); i++)
		if (llabs((int64_t)speeds[i].baud - baud) < llabs((int64_t)speeds[best].baud - baud))
			best = i;
	return speeds[best].speed;
}

int tty_set_line(int fd, const struct chardev_line *line)
{
	static const tcflag_t sizes[] = {CS5, CS6, CS7, CS8};
	struct termios t;

	if (tcgetattr(fd, &t))
		return -errno;
	cfsetispeed(&t, nearest_speed(line->baud));
	cfsetospeed(&t, nearest_speed(line->baud));
	t.c_cflag &= ~(tcflag_t)(CSIZE | PARENB | PARODD | CSTOPB | CRTSCTS);
	t.c_cflag |= CREAD | CLOCAL | sizes[(line->data_bits - 5) & 3];
	if (line->parity != 'N')
		t.c_cflag |= PARENB | (line->parity == 'O' ? PARODD : 0);
	if (line->stop_bits == 2)
		t.c_cflag |= CSTOPB;
	return tcsetattr(fd, TCSANOW, &t) ? -errno : 0;
}
