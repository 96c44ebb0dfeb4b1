/*
 * The input router: front ends on one side, guest devices on the other.
 *
 * The list of handlers is changed by the main thread only, except that a vCPU may bring a device to the front when the
 * guest enables it (input_activate); handlers_lock covers that and is a leaf. A handler is called with its own lock
 * held and without handlers_lock.
 */
#include "vmm/input.h"

#include <errno.h>
#include <stdatomic.h>
#include "vmm/clock.h"
#include "vmm/util.h"

static pthread_mutex_t handlers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct input_handler *handlers;
static atomic_uint leds;

static void unlink_locked(struct input_handler *h)
{
	for (struct input_handler **p = &handlers; *p; p = &(*p)->next)
		if (*p == h) {
			*p = h->next;
			h->next = NULL;
			return;
		}
}

void input_register(struct input_handler *h)
{
	input_activate(h);
}

const struct input_handler *input_next(const struct input_handler *prev)
{
	return prev ? prev->next : handlers;
}

void input_activate(struct input_handler *h)
{
	pthread_mutex_lock(&handlers_lock);
	unlink_locked(h);
	h->next = handlers;
	handlers = h;
	pthread_mutex_unlock(&handlers_lock);
}

void input_unregister(struct input_handler *h)
{
	pthread_mutex_lock(&handlers_lock);
	unlink_locked(h);
	pthread_mutex_unlock(&handlers_lock);
}

enum want { WANT_KEY, WANT_REL, WANT_ABS };

static struct input_handler *find(enum want want)
{
	struct input_handler *h;

	pthread_mutex_lock(&handlers_lock);
	for (h = handlers; h; h = h->next)
		if (want == WANT_KEY ? h->key != NULL : want == WANT_REL ? h->rel != NULL : h->abs != NULL)
			break;
	pthread_mutex_unlock(&handlers_lock);
	return h;
}

void input_key(keycode_t key, bool down)
{
	struct input_handler *h = find(WANT_KEY);

	if (!h || !key)
		return;
	pthread_mutex_lock(h->lock);
	h->key(h->opaque, key, down);
	pthread_mutex_unlock(h->lock);
}

void input_rel(int dx, int dy, int dz, unsigned buttons)
{
	struct input_handler *h = find(WANT_REL);

	if (!h)
		return;
	pthread_mutex_lock(h->lock);
	h->rel(h->opaque, dx, dy, dz, buttons);
	pthread_mutex_unlock(h->lock);
}

void input_abs(uint16_t x, uint16_t y, int dz, unsigned buttons)
{
	struct input_handler *h = find(WANT_ABS);

	if (!h)
		return;
	pthread_mutex_lock(h->lock);
	h->abs(h->opaque, x, y, dz, buttons);
	pthread_mutex_unlock(h->lock);
}

bool input_wants_abs(void)
{
	struct input_handler *h;
	bool abs = false;

	/* The newest or last activated pointer decides, as a guest that enables its PS/2 mouse means to use it. */
	pthread_mutex_lock(&handlers_lock);
	for (h = handlers; h; h = h->next)
		if (h->abs || h->rel) {
			abs = h->abs != NULL;
			break;
		}
	pthread_mutex_unlock(&handlers_lock);
	return abs;
}

void input_set_leds(unsigned bits)
{
	atomic_store(&leds, bits);
}

unsigned input_leds(void)
{
	return atomic_load(&leds);
}

/*
 * send-key: a ring of steps. A press or release takes effect at once, a wait arms the timer. Time is guest time: keys
 * sent to a paused guest arrive when it runs again.
 */
#define STEP_MAX 1024
struct step {
	keycode_t key; /* 0: wait */
	bool down;
	uint32_t wait_ms;
};
static struct step steps[STEP_MAX];
static unsigned step_head, step_count;
static struct timer step_timer;

static void run_steps(void *opaque)
{
	while (step_count) {
		struct step s = steps[step_head];

		step_head = (step_head + 1) % STEP_MAX;
		step_count--;
		if (!s.key) {
			timer_arm(&step_timer, clock_ns(VCLOCK_VIRTUAL) + s.wait_ms * NS_PER_MS);
			return;
		}
		input_key(s.key, s.down);
	}
}

static void push_step(keycode_t key, bool down, uint32_t wait_ms)
{
	steps[(step_head + step_count++) % STEP_MAX] = (struct step){key, down, wait_ms};
}

int input_send_keys(const keycode_t *keycodes, size_t n, unsigned hold_ms, struct err *e)
{
	if (!n)
		return err_set(e, EINVAL, "no keys to send");
	if (n > STEP_MAX || 2 * n + 2 > STEP_MAX - step_count)
		return err_set(e, ENOSPC, "too many keys are waiting to be sent (limit %u): try again later", STEP_MAX);
	for (size_t i = 0; i < n; i++)
		if (!keycodes[i])
			return err_set(e, EINVAL, "key %zu of the list is unknown", i + 1);
	if (!step_timer.loop)
		timer_init(&step_timer, loop_main(), VCLOCK_VIRTUAL, NULL, run_steps, NULL);

	bool idle = !step_count && !timer_pending(&step_timer);

	for (size_t i = 0; i < n; i++)
		push_step(keycodes[i], true, 0);
	push_step(0, false, hold_ms ? hold_ms : 100);
	for (size_t i = n; i-- > 0;)
		push_step(keycodes[i], false, 0);
	/* A gap before the next combination, so that a guest that polls sees two strokes of one key. */
	push_step(0, false, hold_ms ? hold_ms : 100);
	if (idle)
		run_steps(NULL);
	return 0;
}
