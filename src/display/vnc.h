/*
 * The VNC module's parts: vnc.c (server thread and screen), vnc_listen.c (-vnc's syntax, sockets), vnc_input.c (keys
 * and pointer).
 *
 * Threads. libvncserver reads and writes its clients' sockets blocking, and compresses; one slow or malicious client
 * would stop timers and device completions if it ran on the main loop. So it has a thread with a loop of its own, and
 * a copy of the screen: the main thread renders and copies what changed, if the server is not just sending.
 */
#ifndef DISPLAY_VNC_H
#define DISPLAY_VNC_H

#include <stdbool.h>
#include <stdint.h>
#include "vmm/err.h"

#define VNC_LISTEN_MAX 4

enum vnc_share { VNC_SHARE_ALLOW_EXCLUSIVE, VNC_SHARE_FORCE_SHARED, VNC_SHARE_IGNORE };

struct vnc_options {
	enum vnc_share share;
	bool password;
	int fd[VNC_LISTEN_MAX]; /* listening */
	unsigned n_fds;
	char *unix_path, *password_secret; /* NULL: none */
	char host[64], service[16];
	const char *family; /* "ipv4", "ipv6", "unix" */
};

/* Parse -vnc's argument and open its sockets. */
int vnc_listen(struct vnc_options *o, const char *spec, struct err *e);
void vnc_unlisten(struct vnc_options *o);

/* Input, main thread. */
void vnc_input_key(uint32_t keysym, bool down);
void vnc_input_pointer(unsigned mask, int x, int y, uint32_t width, uint32_t height);
void vnc_input_release_all(void);

#endif
