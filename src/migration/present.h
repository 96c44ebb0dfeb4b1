/* Which pages of guest memory have memory: see present.c. */
#ifndef VMM_MIGRATION_PRESENT_H
#define VMM_MIGRATION_PRESENT_H

#include "session.h"

/* map (a bit for each page, in whole words): the block's pages that may hold something. All others read as zero, and to
 * look at them would allocate them. Any thread; the guest may run: a page it writes to first while this looks may or
 * may not be in the map. */
void present_pages(const struct mig_block *b, unsigned long *map);

/* Bits [first, end) of such a map. Not atomic. */
void page_map_set(unsigned long *map, uint64_t first, uint64_t end, bool value);

#endif
