/* --help, --version and the lists behind "help" arguments. */
#include "vmm/log.h"
#include "cli.h"
#include "vmm-config.h"
#include "vmm/chardev.h"
#include "vmm/device.h"
#include "vmm/net.h"
#include "vmm/object.h"
#include "vmm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int cli_version(void)
{
	printf("vmm version %s\nA KVM virtual machine monitor for unmodified PC guests.\n", VMM_VERSION);
	return 1;
}

int cli_help(void)
{
	const struct option_desc *d;
	const char *group = NULL;

	printf("Usage: vmm [OPTION]... [DISK-IMAGE]\n"
	       "Run an unmodified PC guest on KVM. Options may be written with - or --.\n"
	       "\n"
	       "  vmm -m 512 -disk win.img -cdrom xp.iso\n"
	       "  vmm -nographic -kernel bzImage -append console=ttyS0\n");
	for (size_t i = 0; (d = config_option(i)); i++) {
		if (!group || strcmp(group, d->group)) {
			printf("\n%s:\n", d->group);
			group = d->group;
		}
		printf("  -%s%s%s\n", d->name, d->arg_help ? " " : "", d->arg_help ? d->arg_help : "");
		printf("          %s\n", d->help);
	}
	printf("\nSee vmm(1) for details and examples.\n");
	return 1;
}

int cli_machine_help(void)
{
	printf("Supported machines are:\n"
	       "pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)\n"
	       "pc-i440fx-7.2        Standard PC (i440FX + PIIX, 1996) (default)\n"
	       "none                 empty machine\n"
	       "\nProperties:\n");
	props_print_help(machine_props, stdout);
	return 1;
}

int cli_cpu_help(void)
{
	kvm_cpu_print_help(stdout);
	return 1;
}

int cli_log_help(void)
{
	const char *name, *summary;

	printf("Log items (comma separated): ITEM logs its debug messages, ITEM=LEVEL what is as bad as LEVEL (error, "
	       "warning, "
	       "info, debug) or worse\n");
	printf("%-16s %s\n%-16s %s\n", "all", "everything", "guest_errors",
	       "what the guest does that its hardware forbids (no level)");
	for (size_t i = 0; (name = log_room(i, &summary)); i++)
		printf("%-16s %s\n", name, summary);
	return 1;
}

int cli_object_help(const char *type, struct err *e)
{
	const struct object_type *t;

	if (!type) {
		printf("List of user creatable objects:\n");
		for (size_t i = 0; (t = object_type_at(i)); i++)
			printf("  %-20s %s\n", t->name, t->summary);
		return 1;
	}
	t = object_type_find(type);
	if (!t)
		return err_set(e, EINVAL, "invalid object type: %s", type);
	printf("%s: %s\n", t->name, t->summary);
	if (t->props)
		props_print_help(t->props, stdout);
	else
		printf("There are no options for %s.\n", t->name);
	return 1;
}

/* What can be had, or the options of one of them. False: there is none of that name. */
static bool print_backends(const char *what, const char *wanted,
			   const char *(*at)(size_t i, const char **help, const struct prop **props))
{
	const char *name, *help;
	const struct prop *props;

	if (!wanted)
		printf("Available %s backend types:\n", what);
	for (size_t i = 0; (name = at(i, &help, &props)); i++) {
		if (!wanted) {
			printf("%-10s %s\n", name, help);
		} else if (!strcmp(name, wanted)) {
			printf("%s: %s\n", name, help);
			props_print_help(props, stdout);
			return true;
		}
	}
	return !wanted;
}

int cli_netdev_help(const char *type, struct err *e)
{
	if (print_backends("netdev", type, netdev_backend_at))
		return 1;
	return err_set(e, EINVAL, "'%s' is not a network back end, see -netdev help", type);
}

int cli_chardev_help(const char *backend)
{
	return print_backends("chardev", backend, chardev_backend_at);
}

int cli_props_help(const char *what, const struct prop *props)
{
	printf("%s options:\n", what);
	props_print_help(props, stdout);
	return 1;
}

int cli_list_help(const char *what, const char *const *names)
{
	printf("%s:\n", what);
	for (size_t i = 0; names[i]; i++)
		printf("%s\n", names[i]);
	return 1;
}

int cli_nic_help(void)
{
	printf("Supported NIC models:\n");
	for (const struct device_class *const *p = device_registry; *p; p++)
		if ((*p)->user_creatable && !strcmp((*p)->category, "Network"))
			printf("%s\n", (*p)->name);
	return 1;
}

int cli_device_help(const char *driver, struct err *e)
{
	static const char *const categories[] = {"Controller/Bridge", "Storage", "Network", "Input", "Display", "Misc"};
	const struct device_class *c;

	if (driver) {
		c = device_class_find(driver);
		if (!c)
			return err_set(e, EINVAL, "'%s' is not a valid device model name, see -device help", driver);
		printf("%s: %s\n", c->name, c->summary);
		if (c->props && c->props->name) {
			printf("%s options:\n", c->name);
			props_print_help(c->props, stdout);
		} else {
			printf("There are no options for %s.\n", c->name);
		}
		return 1;
	}
	for (size_t k = 0; k < ARRAY_SIZE(categories); k++) {
		bool any = false;

		for (const struct device_class *const *p = device_registry; (c = *p); p++) {
			if (!c->user_creatable || strcmp(c->category, categories[k]))
				continue;
			if (!any)
				printf("%s%s devices:\n", k ? "\n" : "", categories[k]);
			any = true;
			printf("name \"%s\"%s%s%s, desc \"%s\"\n", c->name, c->alias ? ", alias \"" : "",
			       c->alias ? c->alias : "", c->alias ? "\"" : "", c->summary);
		}
	}
	return 1;
}
