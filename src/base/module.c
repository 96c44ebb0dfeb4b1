/* Loadable parts, see vmm/module.h. */
#include "vmm/module.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm-config.h"

/* What module_preload() opened. */
static struct {
	const char *name;
	void *handle;
} preloaded[8];
static size_t n_preloaded;

static void *find_preloaded(const char *name)
{
	for (size_t i = 0; i < n_preloaded; i++)
		if (!strcmp(preloaded[i].name, name))
			return preloaded[i].handle;
	return NULL;
}

/* The executable's folder into buf, or "." if /proc is not there. */
static const char *executable_dir(char *buf, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", buf, size - 1);
	char *slash;

	if (n <= 0)
		return ".";
	buf[n] = 0;
	slash = strrchr(buf, '/');
	if (slash)
		*slash = 0;
	return buf;
}

/* The i-th place of the module's file, malloc'ed; NULL past the last. */
static char *place(const char *name, unsigned i)
{
	const char *only = secure_getenv("VMM_MODULE_DIR");
	char exe[4096];

	if (only)
		return i ? NULL : xasprintf("%s/vmm-%s.so", only, name);
	switch (i) {
	case 0:
		return xasprintf("%s/modules/vmm-%s.so", executable_dir(exe, sizeof(exe)), name);
	case 1:
		return xasprintf("%s/../modules/vmm-%s.so", executable_dir(exe, sizeof(exe)), name);
	case 2:
		return xasprintf("%s/vmm-%s.so", VMM_MODULEDIR, name);
	default:
		return NULL;
	}
}

bool module_present(const char *name)
{
	bool found = find_preloaded(name) != NULL;
	char *path;

	for (unsigned i = 0; !found && (path = place(name, i)); i++) {
		found = !access(path, R_OK);
		free(path);
	}
	return found;
}

/* The first that can be loaded. One that exists and cannot be is the error worth telling; one that is not there is not.
 */
static void *open_module(const char *name, char **why)
{
	void *handle = find_preloaded(name);
	char *path;

	for (unsigned i = 0; !handle && (path = place(name, i)); i++) {
		if (!access(path, R_OK)) {
			handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
			if (!handle && !*why)
				*why = xstrdup(dlerror());
		}
		free(path);
	}
	return handle;
}

const void *module_load(const char *name, const char *symbol, struct err *e)
{
	const char *only = secure_getenv("VMM_MODULE_DIR");
	char *why = NULL;
	void *handle = open_module(name, &why);
	const void *object;

	if (!handle) {
		if (why)
			err_set(e, ENOEXEC, "the module vmm-%s.so cannot be loaded: %s", name, why);
		else
			err_set(e, ENOENT,
				"the module vmm-%s.so is not installed (looked in %s): install it, or rebuild vmm with "
				"this feature",
				name, only ? only : VMM_MODULEDIR);
		free(why);
		return NULL;
	}
	free(why);
	object = dlsym(handle, symbol);
	if (!object) {
		dlclose(handle);
		err_set(e, ENOEXEC, "the module vmm-%s.so does not belong to this vmm: it lacks %s", name, symbol);
	}
	return object;
}

void module_preload(void)
{
	/* not those that are only used from the start: vnc, curses */
	static const char *const names[] = {"png", "slirp", "tls", "kdump-zlib", "kdump-lzo", "kdump-snappy"};
	char *why = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		void *handle = open_module(names[i], &why);

		if (handle && !find_preloaded(names[i])) {
			preloaded[n_preloaded].name = names[i];
			preloaded[n_preloaded++].handle = handle;
		}
	}
	free(why);
}
