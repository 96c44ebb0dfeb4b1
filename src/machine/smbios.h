/* The SMBIOS tables of the board (smbios.c). Private to the machine room. */
#ifndef VMM_MACHINE_SMBIOS_H
#define VMM_MACHINE_SMBIOS_H

#include "blob.h"
#include "vmm/machine.h"

#define SMBIOS_ANCHOR_SIZE 31

struct smbios_blobs {
	uint8_t anchor[SMBIOS_ANCHOR_SIZE]; /* 2.8 entry point; table address and checksums are the firmware's to fill
					     */
	struct blob tables;
	uint8_t uuid[16]; /* the system's, RFC 4122 byte order: -smbios type=1,uuid= or -uuid, else zeros */
};

/* Evaluates every -smbios option: an unknown type or field is refused by name. Release with smbios_blobs_free(). */
int smbios_build(struct board *board, struct smbios_blobs *out, struct err *e);
void smbios_blobs_free(struct smbios_blobs *blobs);

#endif
