/* Loadable parts, see vmm/module.h. */
#include "vmm/module.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm-config.h"

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

static void *open_in(const char *fmt, const char *dir, const char *name, char **why)
{
	char *path = xasprintf(fmt, dir, name);
	void *handle = NULL;

	/* A module that exists and cannot be loaded is the error worth telling; one that is not there is not. */
	if (!access(path, R_OK)) {
		handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		if (!handle && !*why)
			*why = xstrdup(dlerror());
	}
	free(path);
	return handle;
}

const void *module_load(const char *name, const char *symbol, struct err *e)
{
	char exe[4096], *why = NULL;
	const char *only = secure_getenv("VMM_MODULE_DIR");
	void *handle = NULL;
	const void *object;

	if (only) {
		handle = open_in("%s/vmm-%s.so", only, name, &why);
	} else {
		const char *dir = executable_dir(exe, sizeof(exe));

		handle = open_in("%s/modules/vmm-%s.so", dir, name, &why);
		if (!handle)
			handle = open_in("%s/../modules/vmm-%s.so", dir, name, &why);
		if (!handle)
			handle = open_in("%s/vmm-%s.so", VMM_MODULEDIR, name, &why);
	}
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
