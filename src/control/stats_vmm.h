/* query-stats' provider "x-vmm": the metrics of metrics.c by target and object. Main thread. */
#ifndef VMM_CONTROL_STATS_VMM_H
#define VMM_CONTROL_STATS_VMM_H

#include <jansson.h>

struct board;

/*
 * Append a StatsResult for each object of the target that has one of the names (NULL: any), and with paths (else NULL)
 * one of these QOM paths.
 */
void stats_vmm_collect(struct board *b, const char *target, const json_t *paths, const json_t *names, json_t *results);
/* Append a StatsSchema for each target. */
void stats_vmm_schemas(struct board *b, json_t *schemas);

#endif
