/* Starting from a configuration, and copying images. */
#ifndef VMM_CTL_VERBS_CONFIG_H
#define VMM_CTL_VERBS_CONFIG_H

#include "ctl.h"

/* guest_start(), with the new guest's id as the verb's result. */
int start_config(struct ctl *c, const struct start *s);
/* copy_image.c: a new file `to`; with a progress line. Refuses what is no regular file and what exists. */
int copy_image(struct ctl *c, const char *from, const char *to);

#endif
