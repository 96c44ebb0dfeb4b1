/* Network cards on PCI: see pci_nic.h. */
#include "src/devices/net/pci_nic.h"

/* The guest gave the right to use memory: rings that waited for it may run. */
static void config_written(struct device *dev, unsigned offset, unsigned size)
{
	struct pci_nic *card = DEVICE(dev, struct pci_nic);

	if (offset <= PCI_COMMAND_REG && offset + size > PCI_COMMAND_REG && pci_bus_master(dev))
		card->ops->update(card);
}

int pci_nic_create(struct pci_nic *card, const struct pci_nic_ops *ops, struct err *e)
{
	struct device *dev = &card->dev;

	card->ops = ops;
	dev->pci->config_written = config_written;
	device_bh_init(dev, &card->rx_bh, ops->rx_run);
	device_bh_init(dev, &card->tx_bh, ops->tx_run);
	return nic_attach(&card->nic, dev, card->netdev_id, 1, card->mac, &ops->nic, e);
}

void pci_nic_destroy(struct pci_nic *card)
{
	nic_detach(&card->nic);
	bh_cancel(&card->rx_bh);
	bh_cancel(&card->tx_bh);
}

void pci_nic_quiesce(struct device *dev)
{
	struct pci_nic *card = DEVICE(dev, struct pci_nic);

	card->paused = true;
	nic_want_packets(&card->nic, 0, false);
	device_quiesced(dev);
}

void pci_nic_resume(struct device *dev)
{
	struct pci_nic *card = DEVICE(dev, struct pci_nic);

	card->paused = false;
	card->ops->update(card);
}
