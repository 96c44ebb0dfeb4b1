/* QMP types that several command files use. */
#ifndef VMM_CONTROL_TYPES_H
#define VMM_CONTROL_TYPES_H

#include "qmp.h"

extern const struct qmp_type qmp_version_info, qmp_run_state, qmp_keycode, qmp_property_info, qmp_cpu_properties;
extern const struct qmp_type qmp_job_status, qmp_migration_status;
extern const struct qmp_type qmp_dump_result, qmp_ost_info;

extern const struct qmp_type qmp_blockdev_driver;

#endif
