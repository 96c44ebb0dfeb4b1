/*
 * Loadable parts: code that needs a library most guests never use (VNC, curses, PNG) lives in a shared object of its
 * own, vmm-NAME.so, so that the library costs neither start-up time nor memory until its feature is asked for.
 */
#ifndef VMM_MODULE_H
#define VMM_MODULE_H

#include <stdbool.h>
#include "vmm/err.h"

/*
 * Load vmm-NAME.so and return its exported object `symbol`; a module stays loaded until the process ends, and asking
 * again is free. Looked for in: $VMM_MODULE_DIR (alone, if set), DIR/modules and DIR/../modules with DIR the
 * executable's folder (a build tree), then the installation's module folder. NULL with a message when it is missing or
 * does not fit.
 *
 * Main thread. Under the sandbox only before the filters are in force, or on a thread that may open files read-only,
 * read and fstat them, and mmap/mprotect them PROT_EXEC.
 */
const void *module_load(const char *name, const char *symbol, struct err *e);

/* Open all that may be asked for later, before -chroot takes their files out of reach. Main thread, once. */
void module_preload(void);

/* Whether the file is there that module_load() would open; nothing is loaded. Main thread. */
bool module_present(const char *name);

#endif
