/*
 * What a guest's kernel tells about itself for dumps: where in memory it keeps an ELF note (Linux: VMCOREINFO, with the
 * symbols and sizes crash needs). It writes that into a fw_cfg file, which the vmcoreinfo device offers.
 */
#ifndef VMM_VMCOREINFO_H
#define VMM_VMCOREINFO_H

#include <stdint.h>
#include "vmm/bytes.h"

struct board;

#define VMCOREINFO_FILE "etc/vmcoreinfo"
#define VMCOREINFO_SIZE 16

enum { VMCOREINFO_NONE, VMCOREINFO_ELF }; /* formats */

struct vmcoreinfo {
	uint16_t format; /* VMCOREINFO_NONE: the guest has written nothing */
	uint32_t size;
	uint64_t addr; /* guest physical; all three are the guest's and may be nonsense */
};

/* The file as it is before the guest writes it. */
static inline void vmcoreinfo_initial(uint8_t file[VMCOREINFO_SIZE])
{
	memset(file, 0, VMCOREINFO_SIZE);
	put_le16(file, VMCOREINFO_ELF); /* what the host can use */
}

/* What the guest has written; any thread. Format VMCOREINFO_NONE where there is no such device. */
struct vmcoreinfo vmcoreinfo_get(struct board *board);

#endif
