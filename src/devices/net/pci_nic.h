/*
 * A network card on PCI whose doorbells are registers: what e1000 and rtl8139 share. It has one cable with one queue;
 * packets move in two bottom halves, which register accesses schedule, and stand still while the machine pauses.
 */
#ifndef VMM_DEVICES_NET_PCI_NIC_H
#define VMM_DEVICES_NET_PCI_NIC_H

#include "vmm/net.h"
#include "vmm/pci.h"

struct pci_nic;

struct pci_nic_ops {
	struct nic_ops nic;
	loop_post_fn *rx_run, *tx_run; /* the bottom halves; they get the device */
	/* Rings may run: look whether there is something to do in either direction. */
	void (*update)(struct pci_nic *card);
};

/* First in the card's struct, under the name `card`. */
struct pci_nic {
	struct device dev;
	char *netdev_id, *romfile;
	uint8_t mac[6]; /* as it is in the EEPROM */
	int32_t bootindex;

	const struct pci_nic_ops *ops;
	struct nic nic;
	struct bh rx_bh, tx_bh;
	bool paused; /* the bottom halves are to do nothing */
};

/* In create(), last: plugs the cable in and completes card->mac. ops stay with the card. */
int pci_nic_create(struct pci_nic *card, const struct pci_nic_ops *ops, struct err *e);
void pci_nic_destroy(struct pci_nic *card);

void pci_nic_quiesce(struct device *dev);
void pci_nic_resume(struct device *dev);

#define PCI_NIC_CLASS(identity)                                                                                  \
	.bus = BUS_PCI, .category = "Network", .user_creatable = true, .hotpluggable = true, .pci = &(identity), \
	.n_irqs = 1, .quiesce = pci_nic_quiesce, .resume = pci_nic_resume

#define PCI_NIC_PROPS(S, rom_example)                                                                    \
	PROP_NAMED(S, "mac", card.mac, PROP_MAC,                                                         \
		   .help = "address in the EEPROM (default: the next free one from 52:54:00:12:34:56)"), \
		PROP_NAMED(S, "netdev", card.netdev_id, PROP_NETDEV,                                     \
			   .help = "id of the network it is plugged into (default: none)"),              \
		PROP_NAMED(S, "bootindex", card.bootindex, PROP_I32, .def = (uint64_t)-1,                \
			   .help = "Boot order, lowest first; -1: none"),                                \
		PROP_NAMED(S, "romfile", card.romfile, PROP_STR,                                         \
			   .help = "expansion ROM image, for example " rom_example " (default: none)")

#endif
