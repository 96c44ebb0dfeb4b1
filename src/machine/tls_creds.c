/*
 * TLS credentials as objects: tls-creds-x509 (certificates in a directory, QEMU's file names) and tls-creds-psk
 * (keys.psk). The files are read when the object is made. Left out: passwordid (encrypted private keys),
 * tls-creds-anon.
 */
#include "vmm/module.h"
#include "vmm/object.h"
#include "vmm/tls.h"

#include <errno.h>
#include <stdlib.h>

struct tls_object {
	struct object object;
	char *dir, *priority, *username, *passwordid;
	int endpoint;
	bool verify_peer, sanity_check;
	struct tls_creds *creds;
};

extern const struct object_type tls_creds_psk_type, tls_creds_x509_type;

static const struct tls_module *module;

const struct tls_module *tls_module(void)
{
	return module;
}

static struct tls_object *of(const struct object *o)
{
	return container_of(o, struct tls_object, object);
}

struct tls_creds *tls_object_creds(const struct object *o)
{
	return of(o)->creds;
}

bool tls_object_is_server(const struct object *o)
{
	return of(o)->endpoint == 1;
}

static int create(struct object *o, struct err *e)
{
	struct tls_object *t = of(o);
	struct tls_creds_config c = {.server = t->endpoint == 1,
				     .psk = o->type == &tls_creds_psk_type,
				     .verify_peer = t->verify_peer,
				     .dir = t->dir,
				     .username = t->username,
				     .priority = t->priority};

	if (!t->dir)
		return err_set(e, EINVAL, "Missing 'dir' property value");
	if (t->passwordid)
		return err_set(e, ENOTSUP, "passwordid is not offered: the private key has to be unencrypted");
	if (!module)
		module = module_load("tls", "vmm_module_tls", e);
	if (!module)
		return e && e->code ? -e->code : -ENOENT;
	t->creds = module->creds_new(&c, e);
	return t->creds ? 0 : -EINVAL;
}

static void destroy(struct object *o)
{
	if (of(o)->creds)
		module->creds_free(of(o)->creds);
}

static const char *const endpoints[] = {"client", "server", NULL};

#define COMMON                                                                                                         \
	PROP(struct tls_object, endpoint, PROP_ENUM, .values = endpoints, .help = "which side of the connection"),     \
		PROP(struct tls_object, dir, PROP_STR, .help = "directory of the files"),                              \
		PROP(struct tls_object, priority, PROP_STR, .help = "GnuTLS priority string (default: TLS 1.3 only)"), \
		PROP_NAMED(struct tls_object, "verify-peer", verify_peer, PROP_BOOL, .def = 1,                         \
			   .help = "server: demand a certificate of the client")

static const struct prop x509_props[] = {
	COMMON,
	PROP_NAMED(struct tls_object, "sanity-check", sanity_check, PROP_BOOL, .def = 1,
		   .help = "accepted; files are always checked"),
	PROP(struct tls_object, passwordid, PROP_STR, .help = "not offered"),
	PROP_END,
};
static const struct prop psk_props[] = {
	COMMON,
	PROP(struct tls_object, username, PROP_STR, .def_str = "qemu", .help = "client: whose key"),
	PROP_END,
};

const struct object_type tls_creds_x509_type = {
	.name = "tls-creds-x509",
	.parent = "tls-creds",
	.summary = "TLS with X.509 certificates (ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem, "
		   "client-key.pem)",
	.size = sizeof(struct tls_object),
	.props = x509_props,
	.create = create,
	.destroy = destroy,
};
const struct object_type tls_creds_psk_type = {
	.name = "tls-creds-psk",
	.parent = "tls-creds",
	.summary = "TLS with pre-shared keys (keys.psk)",
	.size = sizeof(struct tls_object),
	.props = psk_props,
	.create = create,
	.destroy = destroy,
};
