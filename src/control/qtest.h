/* The qtest server: QEMU's text protocol for tests that drive the board without a CPU. Main thread. */
#ifndef VMM_CONTROL_QTEST_H
#define VMM_CONTROL_QTEST_H

#include "vmm/machine.h"

/* chardev: as -qtest gives it ("unix:PATH,server=on,wait=off", "chardev:ID", a bare ID). log: file for the dialogue,
   "/dev/null", or NULL for stderr as in QEMU. The clock must be in manual mode. */
int qtest_start(struct board *board, const char *chardev, const char *log, struct err *e);
void qtest_stop(void);

/* One line of the protocol, for the fuzz target: answers are appended to what the next call to qtest_take_output()
   returns. */
struct qtest;
struct qtest *qtest_new(struct board *board);
void qtest_free(struct qtest *q);
void qtest_line(struct qtest *q, char *line);
/* What it said since the last call; malloc'ed, NULL: nothing. */
char *qtest_take_output(struct qtest *q);

#endif
