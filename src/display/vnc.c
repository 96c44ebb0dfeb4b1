/*
 * The module vmm-vnc.so: the screen over RFB 3.8 through libvncserver. See vnc.h for the threads.
 *
 * Authentication is none or VNC's password (DES, 8 characters: for networks one trusts). Left out: TLS, SASL,
 * WebSocket listeners, reverse connections, audio, sending the guest's LED state, clipboard.
 */
#include "src/display/vnc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <rfb/rfb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "src/display/modules.h"
#include "vmm/clock.h"
#include "vmm/crash.h"
#include "vmm/log.h"
#include "vmm/loop.h"
#include "vmm/sandbox.h"
#include "vmm/secret.h"

#define CLIENTS_MAX    16
#define RECTS_MAX      64
#define EVENTS_MAX     512
#define CLIENT_WAIT_MS 2000 /* a client that does not read or finish its message for so long is dropped */
#define BLANK_WIDTH    640
#define BLANK_HEIGHT   400

/* Refresh intervals: at once after input or change, slower and slower while nothing happens. */
#define REFRESH_MIN_MS 30
#define REFRESH_MAX_MS 240
#define RETRY_MS       10

enum event_kind { EVENT_KEY, EVENT_POINTER, EVENT_RELEASE_ALL };
struct event {
	enum event_kind kind;
	bool down;
	uint32_t keysym;
	unsigned mask;
	int x, y;
};

struct client {
	bool used, initialized;
	rfbClientPtr rfb; /* server thread only, as are the sizes: what the client takes the screen's to be */
	int known_width, known_height;
	struct watch *watch;
	char host[64], service[16];
	const char *family;
};

/* Collected changes; more than RECTS_MAX become one. */
struct rect_list {
	struct rect r[RECTS_MAX];
	unsigned n;
};

static struct {
	struct vnc_options options;
	bool started, thread_runs;
	struct console *console;
	rfbScreenInfoPtr screen;
	pthread_t thread;
	struct loop *loop; /* the server thread's */

	/* fb_lock: the server's copy of the screen. The server thread holds it while it sends. */
	pthread_mutex_t fb_lock;
	uint8_t *fb;
	uint32_t width, height;
	bool new_size; /* fb was replaced; the server does not know yet */
	uint8_t *old_fb;
	struct rect_list changed;

	/* lock: everything small that crosses threads. Leaf. */
	pthread_mutex_t lock;
	struct event events[EVENTS_MAX];
	unsigned event_head, event_count;
	struct client clients[CLIENTS_MAX];
	unsigned n_clients;
	char password[9];
	bool has_password;
	int64_t expires; /* UNIX time; INT64_MAX: never */

	/* Main thread */
	struct bh input_bh, clients_bh;
	struct console_sink sink;
	struct timer timer;
	bool refreshing, resized;
	struct rect_list damage;
	unsigned interval_ms;
} vnc = {.fb_lock = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- changes ---- */

static void add_rect(struct rect_list *l, const struct rect *r)
{
	if (l->n < RECTS_MAX) {
		l->r[l->n++] = *r;
		return;
	}

	struct rect all = *r;

	for (unsigned i = 0; i < l->n; i++) {
		int32_t x1 = MAX(all.x + all.w, l->r[i].x + l->r[i].w), y1 = MAX(all.y + all.h, l->r[i].y + l->r[i].h);

		all.x = MIN(all.x, l->r[i].x);
		all.y = MIN(all.y, l->r[i].y);
		all.w = x1 - all.x;
		all.h = y1 - all.y;
	}
	l->r[0] = all;
	l->n = 1;
}

/* ---- server thread ---- */

/* Our pixels: 0x00RRGGBB. */
static void set_format(void)
{
	vnc.screen->serverFormat.redShift = 16;
	vnc.screen->serverFormat.greenShift = 8;
	vnc.screen->serverFormat.blueShift = 0;
}

/* fb_lock held. A new frame buffer has the library's own format again, and so have its translations to the clients'. */
static void set_framebuffer(void)
{
	rfbClientIteratorPtr it;
	rfbClientPtr cl;

	rfbNewFramebuffer(vnc.screen, (char *)vnc.fb, (int)vnc.width, (int)vnc.height, 8, 3, 4);
	set_format();
	it = rfbGetClientIterator(vnc.screen);
	while ((cl = rfbClientIteratorNext(it)))
		vnc.screen->setTranslateFunction(cl);
	rfbReleaseClientIterator(it);
}

/* fb_lock held. */
static void take_over_changes(void)
{
	if (vnc.new_size) {
		vnc.new_size = false;
		vnc.changed.n = 0;
		set_framebuffer();
		free(vnc.old_fb);
		vnc.old_fb = NULL;
	}
	for (unsigned i = 0; i < vnc.changed.n; i++) {
		const struct rect *r = &vnc.changed.r[i];

		rfbMarkRectAsModified(vnc.screen, r->x, r->y, r->x + r->w, r->y + r->h);
	}
	vnc.changed.n = 0;
}

/* The path of a unix socket as part of a JSON string. */
static void print_path(FILE *f, const char *path)
{
	for (; *path; path++) {
		unsigned char ch = (unsigned char)*path;

		if (ch < 0x20 || ch >= 0x7f || ch == '"' || ch == '\\')
			fprintf(f, "\\u%04x", ch >= 0x80 ? 0xfffd : ch);
		else
			fputc(ch, f);
	}
}

static void print_server(FILE *f)
{
	const struct vnc_options *o = &vnc.options;

	fprintf(f, "\"host\":\"%s\",\"service\":\"", o->unix_path ? "" : o->host);
	print_path(f, o->unix_path ? o->unix_path : o->service);
	fprintf(f, "\",\"family\":\"%s\",\"auth\":\"%s\"", o->family, o->password ? "vnc" : "none");
}

static void print_client(FILE *f, const struct client *c)
{
	fprintf(f, "{\"host\":\"%s\",\"service\":\"%s\",\"family\":\"%s\",\"websocket\":false}", c->host, c->service,
		c->family);
}

/* VNC_CONNECTED and so on, for QMP. */
static void client_event(const char *name, const struct client *c)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return;
	fputs("{\"server\":{", f);
	print_server(f);
	fputs(",\"websocket\":false},\"client\":", f);
	print_client(f, c);
	fputc('}', f);
	fclose(f);
	display_event(name, text);
	free(text);
}

static void announce_initialized(void)
{
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		struct client *c = &vnc.clients[i];

		if (!c->used || c->initialized || c->rfb->state != RFB_NORMAL)
			continue;
		c->initialized = true;
		c->known_width = vnc.screen->width;
		c->known_height = vnc.screen->height;
		client_event("VNC_INITIALIZED", c);
	}
}

/*
 * Tell clients a new size of the screen. The library does it for those that have said by then that they understand (the
 * DesktopSize pseudo-encoding, RFC 6143 section 7.8.2), but forgets it for a client that was told the old size in
 * ServerInit and says so only after the change. fb_lock held.
 */
static void announce_size(void)
{
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		struct client *c = &vnc.clients[i];

		if (!c->used || !c->initialized || !c->rfb->useNewFBSize)
			continue;
		if (c->known_width == vnc.screen->width && c->known_height == vnc.screen->height)
			continue;
		c->rfb->newFBSizePending = TRUE;
		c->known_width = vnc.screen->width;
		c->known_height = vnc.screen->height;
	}
}

static void serve(void *opaque)
{
	pthread_mutex_lock(&vnc.fb_lock);
	take_over_changes();
	rfbProcessEvents(vnc.screen, 0);
	announce_initialized();
	announce_size();
	pthread_mutex_unlock(&vnc.fb_lock);
}

static void on_client(void *opaque, int fd, unsigned events)
{
	serve(NULL);
}

static void push_event(const struct event *ev)
{
	pthread_mutex_lock(&vnc.lock);

	struct event *last = &vnc.events[(vnc.event_head + vnc.event_count - 1) % EVENTS_MAX];

	if (vnc.event_count && ev->kind == EVENT_POINTER && last->kind == EVENT_POINTER && last->mask == ev->mask)
		*last = *ev; /* movements join while the main thread is busy */
	else if (vnc.event_count < EVENTS_MAX)
		vnc.events[(vnc.event_head + vnc.event_count++) % EVENTS_MAX] = *ev;
	pthread_mutex_unlock(&vnc.lock);
	bh_schedule(&vnc.input_bh);
}

static void on_key(rfbBool down, rfbKeySym sym, rfbClientPtr cl)
{
	push_event(&(struct event){.kind = EVENT_KEY, .down = down, .keysym = (uint32_t)sym});
}

static void on_pointer(int mask, int x, int y, rfbClientPtr cl)
{
	push_event(&(struct event){.kind = EVENT_POINTER, .mask = (unsigned)mask, .x = x, .y = y});
}

static void on_cut_text(char *text, int len, rfbClientPtr cl)
{
}

static void client_gone(rfbClientPtr cl)
{
	struct client *c = cl->clientData;

	if (!c)
		return;
	client_event("VNC_DISCONNECTED", c);
	loop_unwatch(c->watch);
	pthread_mutex_lock(&vnc.lock);
	*c = (struct client){0};
	vnc.n_clients--;
	pthread_mutex_unlock(&vnc.lock);
	cl->clientData = NULL;
	push_event(&(struct event){.kind = EVENT_RELEASE_ALL});
	bh_schedule(&vnc.clients_bh);
}

static void name_client(struct client *c, int fd)
{
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof(sa);

	getpeername(fd, (struct sockaddr *)&sa, &len);
	c->family = sa.ss_family == AF_INET6 ? "ipv6" : sa.ss_family == AF_INET ? "ipv4" : "unix";
	if (sa.ss_family == AF_INET || sa.ss_family == AF_INET6)
		getnameinfo((struct sockaddr *)&sa, len, c->host, sizeof(c->host), c->service, sizeof(c->service),
			    NI_NUMERICHOST | NI_NUMERICSERV);
}

static enum rfbNewClientAction client_new(rfbClientPtr cl)
{
	struct client *c = NULL;

	if (cl->sock < 0 || cl->sock >= FD_SETSIZE)
		return RFB_CLIENT_REFUSE;
	pthread_mutex_lock(&vnc.lock);
	for (unsigned i = 0; i < CLIENTS_MAX && !c; i++)
		if (!vnc.clients[i].used)
			c = &vnc.clients[i];
	if (c) {
		*c = (struct client){.used = true, .rfb = cl};
		name_client(c, cl->sock);
		vnc.n_clients++;
	}
	pthread_mutex_unlock(&vnc.lock);
	if (!c)
		return RFB_CLIENT_REFUSE;
	c->watch = loop_watch(vnc.loop, cl->sock, LOOP_READ, NULL, on_client, NULL, NULL);
	cl->clientData = c;
	cl->clientGoneHook = client_gone;
	client_event("VNC_CONNECTED", c);
	bh_schedule(&vnc.clients_bh);
	return RFB_CLIENT_ACCEPT;
}

static void on_connection(void *opaque, int fd, unsigned events)
{
	int sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	if (sock < 0)
		return;
	if (sock >= FD_SETSIZE) { /* libvncserver uses select() */
		close(sock);
		return;
	}
	pthread_mutex_lock(&vnc.fb_lock);
	rfbNewClient(vnc.screen, sock); /* closes it on failure */
	pthread_mutex_unlock(&vnc.fb_lock);
	serve(NULL);
}

struct handed { /* a socket on its way to the VNC thread */
	int fd;
	bool skip_auth;
};

static void serve_handed(void *opaque)
{
	struct handed *h = opaque;
	rfbClientPtr cl;

	pthread_mutex_lock(&vnc.fb_lock);
	cl = rfbNewClient(vnc.screen, h->fd); /* closes it on failure */
	if (cl && h->skip_auth)
		cl->reverseConnection = TRUE; /* libvncserver asks those for no password */
	pthread_mutex_unlock(&vnc.fb_lock);
	free(h);
	serve(NULL);
}

static int vnc_module_add_client(int fd, bool skip_auth, struct err *e)
{
	int type = 0;
	socklen_t len = sizeof(type);
	struct handed *h;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_STREAM || fd >= FD_SETSIZE) {
		close(fd);
		return err_set(e, EINVAL, "the file descriptor is no connected stream socket");
	}
	h = xzalloc(sizeof(*h));
	*h = (struct handed){.fd = fd, .skip_auth = skip_auth};
	loop_post(vnc.loop, NULL, serve_handed, h);
	return 0;
}

/* The client encrypted the challenge with its password: do the same and compare. */
static rfbBool check_password(rfbClientPtr cl, const char *response, int len)
{
	uint8_t expected[CHALLENGESIZE], differs = 0;
	char password[9];
	bool valid;

	pthread_mutex_lock(&vnc.lock);
	valid = vnc.has_password && (vnc.expires == INT64_MAX || (int64_t)time(NULL) < vnc.expires);
	memcpy(password, vnc.password, sizeof(password));
	pthread_mutex_unlock(&vnc.lock);
	if (!valid || len != CHALLENGESIZE)
		return FALSE;
	memcpy(expected, cl->authChallenge, sizeof(expected));
	rfbEncryptBytes(expected, password);
	for (unsigned i = 0; i < sizeof(expected); i++)
		differs |= (uint8_t)(expected[i] ^ (uint8_t)response[i]);
	return !differs;
}

static void log_nothing(const char *fmt, ...)
{
}

static void log_problem(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text[strcspn(text, "\n")] = 0;
	log_debug("display", "vnc: %s", text);
}

static void *server_thread(void *opaque)
{
	pthread_setname_np(pthread_self(), "vnc");
	sandbox_thread_vnc();
	loop_run(vnc.loop);
	return NULL;
}

/* ---- main thread: screen ---- */

static void on_resized(void *opaque, const struct surface *s)
{
	vnc.resized = true;
	vnc.damage.n = 0;
}

static void on_damaged(void *opaque, const struct rect *r)
{
	add_rect(&vnc.damage, r);
}

/* fb_lock held. False: no memory, the old size stays and is tried again. */
static bool replace_fb(const struct surface *s)
{
	uint8_t *fb = malloc((size_t)s->width * s->height * 4);

	if (!fb)
		return false;
	if (vnc.new_size)
		free(vnc.fb); /* the server has not seen that one */
	else
		vnc.old_fb = vnc.fb;
	vnc.fb = fb;
	vnc.width = s->width;
	vnc.height = s->height;
	vnc.new_size = true;
	return true;
}

static void copy_rect(const struct surface *s, const struct rect *r)
{
	for (int32_t y = r->y; y < r->y + r->h; y++)
		memcpy(vnc.fb + ((size_t)y * vnc.width + (size_t)r->x) * 4,
		       s->data + (size_t)y * s->stride + (size_t)r->x * 4, (size_t)r->w * 4);
}

/* Hand what changed to the server. False: it is sending just now. */
static bool flush_damage(void)
{
	const struct surface *s = console_surface(vnc.console);

	if (!vnc.damage.n && !vnc.resized)
		return true;
	if (pthread_mutex_trylock(&vnc.fb_lock))
		return false;
	if (vnc.resized && replace_fb(s)) {
		vnc.resized = false;
		vnc.damage.n = 1;
		vnc.damage.r[0] = (struct rect){0, 0, (int32_t)s->width, (int32_t)s->height};
	}
	for (unsigned i = 0; !vnc.resized && i < vnc.damage.n; i++) {
		copy_rect(s, &vnc.damage.r[i]);
		add_rect(&vnc.changed, &vnc.damage.r[i]);
	}
	vnc.damage.n = 0;
	pthread_mutex_unlock(&vnc.fb_lock);
	loop_post(vnc.loop, NULL, serve, NULL);
	return true;
}

static void on_timer(void *opaque)
{
	unsigned next;
	bool still;

	console_refresh(vnc.console, false);
	still = !vnc.damage.n && !vnc.resized;
	if (still)
		vnc.interval_ms = MIN(vnc.interval_ms + REFRESH_MIN_MS, (unsigned)REFRESH_MAX_MS);
	else
		vnc.interval_ms = REFRESH_MIN_MS;
	next = flush_damage() ? vnc.interval_ms : RETRY_MS;
	timer_arm(&vnc.timer, clock_ns(VCLOCK_REAL) + next * NS_PER_MS);
}

/* Clients came or went: render only while somebody looks. */
static void on_clients_changed(void *opaque)
{
	bool wanted;

	pthread_mutex_lock(&vnc.lock);
	wanted = vnc.n_clients > 0;
	pthread_mutex_unlock(&vnc.lock);
	if (!vnc.console || wanted == vnc.refreshing)
		return;
	vnc.refreshing = wanted;
	if (wanted) {
		console_add_sink(vnc.console, &vnc.sink);
		vnc.resized = console_surface(vnc.console)->data != NULL;
		vnc.interval_ms = REFRESH_MIN_MS;
		on_timer(NULL);
	} else {
		console_del_sink(vnc.console, &vnc.sink);
		timer_cancel(&vnc.timer);
	}
}

static void on_input(void *opaque)
{
	struct event ev;
	bool more;

	do {
		pthread_mutex_lock(&vnc.lock);
		more = vnc.event_count > 0;
		if (more) {
			ev = vnc.events[vnc.event_head];
			vnc.event_head = (vnc.event_head + 1) % EVENTS_MAX;
			vnc.event_count--;
		}
		pthread_mutex_unlock(&vnc.lock);
		if (!more)
			break;
		if (ev.kind == EVENT_KEY)
			vnc_input_key(ev.keysym, ev.down);
		else if (ev.kind == EVENT_POINTER)
			vnc_input_pointer(ev.mask, ev.x, ev.y, vnc.width, vnc.height);
		else
			vnc_input_release_all();
	} while (more);
	/* The guest's answer should be seen soon. */
	if (vnc.refreshing && vnc.interval_ms > REFRESH_MIN_MS) {
		vnc.interval_ms = REFRESH_MIN_MS;
		timer_arm(&vnc.timer, clock_ns(VCLOCK_REAL) + REFRESH_MIN_MS * NS_PER_MS);
	}
}

/* ---- main thread: start and stop ---- */

/* Crypto libraries read their configuration at first use: now, while files may be opened. */
static void warm_up_crypto(void)
{
	uint8_t challenge[CHALLENGESIZE] = {0};
	char password[9] = "";

	rfbRandomBytes(challenge);
	rfbEncryptBytes(challenge, password);
}

static int make_screen(struct err *e)
{
	rfbLog = log_nothing;
	rfbErr = log_problem;
	rfbMaxClientWait = CLIENT_WAIT_MS;
	warm_up_crypto();
	vnc.width = BLANK_WIDTH;
	vnc.height = BLANK_HEIGHT;
	vnc.fb = xzalloc((size_t)BLANK_WIDTH * BLANK_HEIGHT * 4);
	vnc.screen = rfbGetScreen(NULL, NULL, BLANK_WIDTH, BLANK_HEIGHT, 8, 3, 4);
	if (!vnc.screen)
		return err_set(e, ENOMEM, "libvncserver cannot be initialised");
	vnc.screen->frameBuffer = (char *)vnc.fb;
	set_format();
	vnc.screen->desktopName = "vmm";
	vnc.screen->autoPort = FALSE;
	vnc.screen->port = 0; /* it never opens sockets of its own */
	vnc.screen->ipv6port = 0;
	vnc.screen->deferUpdateTime = 0;
	vnc.screen->deferPtrUpdateTime = 0;
	vnc.screen->maxClientWait = CLIENT_WAIT_MS;
	vnc.screen->cursor = NULL; /* the guest draws its own */
	vnc.screen->alwaysShared = vnc.options.share != VNC_SHARE_ALLOW_EXCLUSIVE;
	vnc.screen->newClientHook = client_new;
	vnc.screen->kbdAddEvent = on_key;
	vnc.screen->ptrAddEvent = on_pointer;
	vnc.screen->setXCutText = on_cut_text;
	vnc.screen->passwordCheck = check_password;
	vnc.screen->authPasswdData = vnc.options.password ? vnc.password : NULL;
	rfbInitServer(vnc.screen);
	return 0;
}

/*
 * The thread begins when the main loop runs: by then the process has dropped its privileges and entered its sandbox.
 * The thread inherits both and confines itself further: what clients send can reach nothing but their sockets.
 */
static void begin_thread(void *opaque)
{
	sigset_t all, old;
	int rc;

	if (!vnc.started)
		return;
	sigfillset(&all);
	crash_unblock(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	rc = pthread_create(&vnc.thread, NULL, server_thread, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	vnc.thread_runs = !rc;
	if (rc)
		log_error("display", "the VNC server does not run: cannot create its thread: %s", strerror(rc));
}

static int vnc_module_set_password(const char *password, struct err *e)
{
	if (!vnc.options.password)
		return err_set(e, EINVAL, "this VNC server has no password authentication: start it with password=on");
	pthread_mutex_lock(&vnc.lock);
	memset(vnc.password, 0, sizeof(vnc.password));
	/* VNC authentication knows 8 characters; clients cut theirs as well. */
	memcpy(vnc.password, password, MIN(strlen(password), sizeof(vnc.password) - 1));
	vnc.has_password = *password != 0;
	pthread_mutex_unlock(&vnc.lock);
	return 0;
}

/* password-secret=ID */
static int take_password(struct err *e)
{
	const char *text = secret_text(vnc.options.password_secret, e);

	return text ? vnc_module_set_password(text, e) : -EINVAL;
}

static int vnc_module_start(struct console *console, const char *spec, bool announce, struct err *e)
{
	int rc;

	if (vnc.started)
		return err_set(e, EBUSY, "there is one VNC server already");
	rc = vnc_listen(&vnc.options, spec, e);
	if (rc)
		return rc;
	vnc.console = console;
	vnc.expires = INT64_MAX;
	vnc.loop = loop_new(e);
	rc = vnc.loop ? make_screen(e) : -e->code;
	if (!rc && vnc.options.password_secret)
		rc = take_password(e);
	for (unsigned i = 0; !rc && i < vnc.options.n_fds; i++)
		if (!loop_watch(vnc.loop, vnc.options.fd[i], LOOP_READ, NULL, on_connection, NULL, e))
			rc = -e->code;
	if (rc) {
		vnc_unlisten(&vnc.options);
		return rc;
	}
	vnc.sink = (struct console_sink){.resized = on_resized, .damaged = on_damaged};
	timer_init(&vnc.timer, loop_main(), VCLOCK_REAL, NULL, on_timer, NULL);
	bh_init(&vnc.input_bh, loop_main(), NULL, on_input, NULL);
	bh_init(&vnc.clients_bh, loop_main(), NULL, on_clients_changed, NULL);
	vnc.started = true;
	loop_post(loop_main(), NULL, begin_thread, NULL);
	if (announce) {
		printf("VNC server running on %s:%s\n", vnc.options.host, vnc.options.service);
		fflush(stdout);
	}
	return 0;
}

static void close_server(void *opaque)
{
	pthread_mutex_lock(&vnc.fb_lock);
	rfbShutdownServer(vnc.screen, TRUE);
	pthread_mutex_unlock(&vnc.fb_lock);
	loop_stop(vnc.loop);
}

static void vnc_module_stop(void)
{
	if (!vnc.started)
		return;
	vnc.started = false;
	if (vnc.thread_runs) {
		loop_post(vnc.loop, NULL, close_server, NULL);
		pthread_join(vnc.thread, NULL);
		vnc.thread_runs = false;
	}
	/* The adapter may be gone before its front ends. */
	if (vnc.refreshing && console_first() == vnc.console)
		console_del_sink(vnc.console, &vnc.sink);
	timer_cancel(&vnc.timer);
	bh_cancel(&vnc.input_bh);
	bh_cancel(&vnc.clients_bh);
	rfbScreenCleanup(vnc.screen);
	loop_free(vnc.loop);
	vnc_unlisten(&vnc.options);
	free(vnc.old_fb);
	free(vnc.fb);
}

/* ---- main thread: QMP ---- */

static int vnc_module_expire_password(const char *text, struct err *e)
{
	bool relative = *text == '+';
	int64_t when;
	char *end;

	if (!strcmp(text, "never")) {
		when = INT64_MAX;
	} else if (!strcmp(text, "now")) {
		when = 0;
	} else {
		when = strtoll(text + relative, &end, 10);
		if (end == text + relative || *end || when < 0 || when > INT32_MAX * 1000ll)
			return err_set(e, EINVAL, "'%s' is no time: use now, never, +SECONDS or seconds since 1970",
				       text);
		if (relative)
			when += (int64_t)time(NULL);
	}
	pthread_mutex_lock(&vnc.lock);
	vnc.expires = when;
	pthread_mutex_unlock(&vnc.lock);
	return 0;
}

static char *vnc_module_query(void)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	const char *sep = "";

	if (!f)
		return xstrdup("{\"enabled\":false}");
	fputs("{\"enabled\":true,", f);
	print_server(f);
	fputs(",\"clients\":[", f);
	pthread_mutex_lock(&vnc.lock);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		if (vnc.clients[i].used) {
			fputs(sep, f);
			print_client(f, &vnc.clients[i]);
			sep = ",";
		}
	pthread_mutex_unlock(&vnc.lock);
	fprintf(f, "]}");
	fclose(f);
	return text;
}

const struct vnc_module vmm_module_vnc = {
	.start = vnc_module_start,
	.set_password = vnc_module_set_password,
	.expire_password = vnc_module_expire_password,
	.add_client = vnc_module_add_client,
	.query = vnc_module_query,
	.stop = vnc_module_stop,
};
