/* Private to the config room: what the option table calls. */
#ifndef VMM_CONFIG_CLI_H
#define VMM_CONFIG_CLI_H

#include "vmm/config.h"

extern const struct prop machine_props[], smp_props[], memory_props[], boot_props[], rtc_props[], action_props[];

void config_defaults(struct config *c);

/* Each prints to stdout and returns 1 ("printed, exit 0"), or -errno. */
int cli_help(void);
int cli_version(void);
int cli_machine_help(void);
int cli_cpu_help(void);
int cli_object_help(const char *type, struct err *e); /* NULL: all */
int cli_netdev_help(const char *type, struct err *e); /* NULL: all */
int cli_nic_help(void);
int cli_device_help(const char *driver, struct err *e); /* NULL: all */
int cli_log_help(void);
int cli_chardev_help(const char *backend); /* NULL: all; not there: 0, nothing printed */
int cli_props_help(const char *what, const struct prop *props);
int cli_list_help(const char *what, const char *const *names);

#endif
