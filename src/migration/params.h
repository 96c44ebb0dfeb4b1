/* Capabilities and parameters, QEMU 7.2's names; what is not offered is refused by name. */
#ifndef VMM_MIGRATION_PARAMS_H
#define VMM_MIGRATION_PARAMS_H

#include <stdbool.h>
#include <stdint.h>
#include "vmm/prop.h"

enum mig_cap {
	CAP_AUTO_CONVERGE = 1 << 0,
	CAP_EVENTS = 1 << 1,
	CAP_POSTCOPY_RAM = 1 << 2,
	CAP_RETURN_PATH = 1 << 3,
	CAP_PAUSE_BEFORE_SWITCHOVER = 1 << 4,
	CAP_MULTIFD = 1 << 5,
	CAP_LATE_BLOCK_ACTIVATE = 1 << 6,
	CAP_BACKGROUND_SNAPSHOT = 1 << 8,
	CAP_MAPPED_RAM = 1 << 9,
};

enum { COMPRESSION_NONE, COMPRESSION_ZSTD };
enum { TIMEOUT_CANCEL, TIMEOUT_FORCE };
enum { MODE_NORMAL, MODE_CPR_TRANSFER };

struct migration_params {
	uint64_t announce_initial, announce_max, announce_rounds, announce_step; /* ms */
	uint8_t throttle_trigger, throttle_initial, throttle_increment, throttle_max;
	bool throttle_tailslow;
	uint64_t max_bandwidth, max_postcopy_bandwidth; /* bytes/s; 0: unlimited */
	uint64_t downtime_limit;                        /* ms */
	uint8_t multifd_channels, zstd_level;
	int multifd_compression;
	char *tls_creds, *tls_hostname, *tls_authz;
	uint64_t timeout_s; /* 0: none */
	int timeout_action;
	int mode;                    /* MODE_CPR_TRANSFER: a live upgrade */
	uint32_t switchover_timeout; /* ms */
};

bool cap_is_on(uint32_t caps, enum mig_cap c);
uint32_t caps_now(void);

#endif
