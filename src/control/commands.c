/* The command tables: a new file of commands is one more line here. */
#include "commands.h"

/* clang-format off: one line each */
const struct qmp_command *const qmp_command_tables[] = {
	qmp_core_commands,      qmp_machine_commands, qmp_device_commands, qmp_block_commands,   qmp_chardev_commands,
	qmp_fd_commands,        qmp_net_commands,     qmp_ui_commands,     qmp_cpu_commands,     qmp_qom_commands,
	qmp_pci_commands,       qmp_hotplug_commands, qmp_object_commands, qmp_job_commands,     qmp_create_commands,
	qmp_migration_commands, qmp_observe_commands, qmp_dump_commands,   qmp_balloon_commands, NULL,
};
