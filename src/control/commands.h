/* What commands.c gathers, and helpers that command files share. */
#ifndef VMM_CONTROL_COMMANDS_H
#define VMM_CONTROL_COMMANDS_H

#include "qmp.h"

extern const struct qmp_command qmp_core_commands[];
extern const struct qmp_command qmp_machine_commands[];
extern const struct qmp_command qmp_device_commands[];
extern const struct qmp_command qmp_block_commands[];
extern const struct qmp_command qmp_chardev_commands[];
extern const struct qmp_command qmp_fd_commands[];
extern const struct qmp_command qmp_net_commands[];
extern const struct qmp_command qmp_ui_commands[];
extern const struct qmp_command qmp_cpu_commands[];
extern const struct qmp_command qmp_qom_commands[];
extern const struct qmp_command qmp_pci_commands[];
extern const struct qmp_command qmp_hotplug_commands[], qmp_object_commands[];
extern const struct qmp_command qmp_job_commands[];
extern const struct qmp_command qmp_create_commands[];
extern const struct qmp_command qmp_migration_commands[];
extern const struct qmp_command qmp_observe_commands[];
extern const struct qmp_command qmp_dump_commands[];

extern const struct qmp_command qmp_balloon_commands[];

/* "a b c" as a list of strings. */
json_t *qmp_words(const char *words);
struct kvm_cpu_view;
json_t *qmp_cpu_features(const struct kvm_cpu_view *view); /* every feature: true or false */

bool dump_in_progress(void);

#endif
