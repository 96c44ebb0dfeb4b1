/* Saved guests: save.c writes them, restore.c reads them. Main thread. */
#ifndef VMM_MIGRATION_SAVE_H
#define VMM_MIGRATION_SAVE_H

#include "meet.h"

/* migrate to file:PATH; live: a checkpoint, after which the guest goes on. */
int save_start(const char *path, bool live, struct err *e);
/* migration.c: a new outgoing session begins. */
void session_begin_outgoing(void);

struct image;
/* -incoming file:PATH. Open and check the head: 1 if it is a stream that was kept in a file, then *fd is it. */
int restore_open(const char *path, int *fd, struct err *e);
/* What was opened describes this machine. */
void restore_description(const void **fdt, size_t *len);
/* Load it, once the machine is there. */
int restore_start(struct err *e);
void restore_stop(void); /* vmm ends */

#endif
