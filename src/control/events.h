/* QMP events on their way from the machine to the clients. Main thread. */
#ifndef VMM_CONTROL_EVENTS_H
#define VMM_CONTROL_EVENTS_H

/* data_json: JSON object text or NULL. Applies the event's rate limit. */
void events_emit(const char *name, const char *data_json);
/* Forget what waits; at exit. */
void events_stop(void);

#endif
