/* The bench's network back end: see bench.h. */
#ifndef VMM_TEST_BENCH_CABLE_H
#define VMM_TEST_BENCH_CABLE_H

#include "src/net/netdev.h"

extern const struct netdev_ops bench_cable_ops;

#endif
