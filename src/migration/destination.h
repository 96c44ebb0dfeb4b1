/* The destination's files: destination.c (the way of a migration), postcopy_destination.c. */
#ifndef VMM_MIGRATION_DESTINATION_H
#define VMM_MIGRATION_DESTINATION_H

#include "ram_recv.h"
#include "session.h"
#include "tls.h"
#include "vmm/block.h"

#endif
