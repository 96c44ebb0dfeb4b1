/* The memory balloon: see vmm/balloon.h. Error texts are QEMU's. */
#include "board.h"
#include "vmm/balloon.h"

#include <errno.h>

int machine_register_balloon(struct device *dev, const struct balloon_ops *ops, struct err *e)
{
	struct board *b = dev->board;

	if (b->balloon_dev)
		return err_set(e, EBUSY, "Only one balloon device is supported");
	b->balloon_dev = dev;
	b->balloon_ops = ops;
	return 0;
}

void machine_unregister_balloon(struct device *dev)
{
	if (dev->board->balloon_dev == dev)
		dev->board->balloon_dev = NULL;
}

static struct device *balloon(struct board *b, struct err *e)
{
	if (!b->balloon_dev || b->balloon_dev->leaving) {
		err_set_class(e, ERR_DEVICE_NOT_ACTIVE, ENODEV, "No balloon device has been activated");
		return NULL;
	}
	return b->balloon_dev;
}

int machine_balloon_set(struct board *b, uint64_t bytes, struct err *e)
{
	struct device *dev = balloon(b, e);

	if (!dev)
		return -ENODEV;
	if (!bytes)
		return err_set(e, EINVAL, "Parameter 'target' expects a size");
	pthread_mutex_lock(dev->lock);
	b->balloon_ops->set_target(dev, MIN(bytes, b->ram->size));
	pthread_mutex_unlock(dev->lock);
	return 0;
}

int machine_balloon_get(struct board *b, uint64_t *bytes, struct err *e)
{
	struct device *dev = balloon(b, e);

	if (!dev)
		return -ENODEV;
	pthread_mutex_lock(dev->lock);
	*bytes = b->balloon_ops->actual(dev);
	pthread_mutex_unlock(dev->lock);
	return 0;
}
