/* What the verbs that show something share. */
#ifndef VMM_CTL_LOOK_H
#define VMM_CTL_LOOK_H

#include "ctl.h"

/* Connect to a socket in the guest's directory, waiting for room; -1 with the reason. */
int guest_socket(const struct guest *g, const char *file, struct err *e);
/* CTL_OK if nobody is the terminal of serial port `port`, and there is one. */
int console_is_free(struct ctl *c, struct guest *g, long port);
/* Be the terminal of serial port `port` of a connected guest. */
int console_attach(struct ctl *c, struct guest *g, long port);
/* verbs_raw.c: options as QMP wants them, numbers and switches not as strings. */
struct opts;
json_t *typed_object(const struct opts *o);
/* verbs_net.c */
int attach_nic(struct ctl *c, struct guest *g, struct opts *o);  /* o: driver=nic and nic_props */
char *netdev_of(struct ctl *c, struct guest *g, const char *id); /* of a card; malloc'ed, NULL: none */
int do_vnet_list(struct ctl *c);
/* top.c */
extern const struct verb_option top_options[];
int do_top(struct ctl *c);

#endif
