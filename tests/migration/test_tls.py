"""Migration over TLS 1.3: certificates, pre-shared keys, and everything that must not get through."""

import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import unittest

import mig
import vmmtest


def certtool(directory, *args, template=""):
    """Run GnuTLS' certtool."""
    path = os.path.join(directory, "template")
    with open(path, "w", encoding="ascii") as file:
        file.write(template)
    subprocess.run(["certtool", *args, "--template", path], cwd=directory, check=True, capture_output=True)


def authority(directory):
    """A CA of our own."""
    os.makedirs(directory, exist_ok=True)
    subprocess.run(["certtool", "--generate-privkey", "--key-type", "ecdsa", "--outfile", "ca-key.pem"], cwd=directory, check=True,
                   capture_output=True)
    certtool(directory, "--generate-self-signed", "--load-privkey", "ca-key.pem", "--outfile", "ca-cert.pem",
             template="cn = test CA\nca\ncert_signing_key\nexpiration_days = 10\n")


def certificate(ca, directory, side, name="localhost"):
    """side-cert.pem and side-key.pem in directory, signed by ca."""
    os.makedirs(directory, exist_ok=True)
    if ca != directory:
        shutil.copy(os.path.join(ca, "ca-cert.pem"), directory)
    subprocess.run(["certtool", "--generate-privkey", "--key-type", "ecdsa", "--outfile", f"{side}-key.pem"], cwd=directory,
                   check=True, capture_output=True)
    usage = "tls_www_server" if side == "server" else "tls_www_client"
    certtool(directory, "--generate-certificate", "--load-ca-privkey", f"{ca}/ca-key.pem", "--load-ca-certificate",
             f"{ca}/ca-cert.pem", "--load-privkey", f"{side}-key.pem", "--outfile", f"{side}-cert.pem",
             template=f"cn = {name}\ndns_name = {name}\nip_address = 127.0.0.1\n{usage}\nsigning_key\nexpiration_days = 10\n")


@unittest.skipUnless(shutil.which("certtool"), "certtool is missing: apt install gnutls-bin")
class Tls(vmmtest.TestCase):
    """One CA with a server and a client, one that nobody knows."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.dir = tempfile.mkdtemp()
        cls.good, cls.bad, cls.bare = (os.path.join(cls.dir, name) for name in ("good", "bad", "bare"))
        for ca in (cls.good, cls.bad):
            authority(ca)
            certificate(ca, ca, "server")
            certificate(ca, ca, "client")
        os.makedirs(cls.bare)
        shutil.copy(os.path.join(cls.good, "ca-cert.pem"), cls.bare)

    def pair(self, client, server, kind="x509", extra_client="", **options):
        """Source and destination with these credentials, the destination listening."""
        a = mig.Dirtier("-object", f"tls-creds-{kind},id=tls0,endpoint=client,dir={client}{extra_client}", rate=16000,
                        size=max(1, int(16 / vmmtest.SLOW)), **options)
        self.addCleanup(a.close)
        a.running()
        b = mig.Dirtier("-object", f"tls-creds-{kind},id=tls0,endpoint=server,dir={server}", "-incoming", "defer", **a.options)
        self.addCleanup(b.close)
        for guest in (a, b):
            guest.params(tls_creds="tls0", downtime_limit=int(300 * vmmtest.SLOW))     # without AES in hardware 2 MB/s are much
        b.qmp.command("migrate-incoming", uri="tcp:127.0.0.1:0")
        return a, b

    def test_x509(self):
        """Both sides show a certificate; memory arrives whole, also over several channels."""
        a, b = self.pair(self.good, self.good)
        for guest in (a, b):
            guest.caps(multifd=True)
        a.qmp.command("migrate", uri=b.address())
        mig.moved(self, a, b)
        self.assertNotIn("clear text", a.stderr())

    def test_strangers(self):
        """A client nobody signed, a client without certificate, a server nobody signed, a server with another name."""
        for client, server, params, pattern in (
                (self.bad, self.good, {}, "certificate|refuse|closed"), (self.bare, self.good, {}, "certificate|refuse|closed"),
                (self.good, self.bad, {}, "certificate is not accepted"),
                (self.good, self.good, {"tls_hostname": "elsewhere"}, "certificate is not accepted|name")):
            with self.subTest(client=client, server=server, params=params):
                a, b = self.pair(client, server)
                a.params(**params)
                a.qmp.command("migrate", uri=b.address())
                info = mig.stayed(self, a, ["failed"])
                self.assertRegex(info["error-desc"], pattern)
                vmmtest.poll(lambda b=b: "TLS" in b.stderr(), 10, "the destination to say why")
                self.assertEqual(b.status(), "inmigrate")
                a.close()
                b.close()

    def test_plain_peer(self):
        """Without TLS nobody gets in; with TLS nobody is reached who has none."""
        a, b = self.pair(self.good, self.good)
        a.params(tls_creds="")
        a.qmp.command("migrate", uri=b.address())
        mig.stayed(self, a, ["failed"])
        self.assertIn("TLS", b.stderr())
        with socket.create_server(("127.0.0.1", 0)) as s:
            a.params(tls_creds="tls0")
            a.qmp.command("migrate", uri=f"tcp:127.0.0.1:{s.getsockname()[1]}")
            peer, _ = s.accept()
            peer.sendall(b"x" * 100)
            peer.close()
            self.assertRegex(mig.stayed(self, a, ["failed"])["error-desc"], "TLS")

    def test_old_version(self):
        """TLS 1.2 gets nobody in, whatever certificate it shows."""
        a, b = self.pair(self.good, self.good)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(os.path.join(self.good, "ca-cert.pem"))
        context.load_cert_chain(os.path.join(self.good, "client-cert.pem"), os.path.join(self.good, "client-key.pem"))
        port = int(b.address().rsplit(":", 1)[1])
        for version, welcome in ((ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)):
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.maximum_version = version
            with socket.create_connection(("127.0.0.1", port)) as s:
                if welcome:
                    self.assertEqual(context.wrap_socket(s, server_hostname="localhost").version(), "TLSv1.3")
                else:
                    with self.assertRaisesRegex(ssl.SSLError, "(?i)version|alert"):
                        context.wrap_socket(s, server_hostname="localhost")
        a.qmp.command("migrate", uri=b.address())
        mig.moved(self, a, b)

    def test_psk(self):
        """A shared key, the wrong key, an unknown name."""
        for name, key in (("right", "00112233445566778899aabbccddeeff"), ("wrong", "ff112233445566778899aabbccddeeff")):
            os.makedirs(os.path.join(self.dir, name), exist_ok=True)
            with open(os.path.join(self.dir, name, "keys.psk"), "w", encoding="ascii") as file:
                file.write(f"somebody:{'ab' * 16}\nalice:{key}\n")
        right, wrong = os.path.join(self.dir, "right"), os.path.join(self.dir, "wrong")
        a, b = self.pair(wrong, right, "psk", ",username=alice")
        a.qmp.command("migrate", uri=b.address())
        mig.stayed(self, a, ["failed"])
        a.close()
        b.close()
        a, b = self.pair(right, right, "psk", ",username=alice")
        a.qmp.command("migrate", uri=b.address())
        mig.moved(self, a, b)
        with self.assertRaisesRegex(ConnectionError, "Username 'bob' not found"):
            mig.Dirtier("-object", f"tls-creds-psk,id=t,endpoint=client,dir={right},username=bob")

    def test_bad_credentials(self):
        """Missing files, unknown ids."""
        with self.assertRaisesRegex(ConnectionError, "ca-cert.pem"):
            mig.Dirtier("-object", "tls-creds-x509,id=t,endpoint=server,dir=/nonexistent")
        with mig.Dirtier(rate=16000) as a, self.assertRaisesRegex(vmmtest.QMPError, "nothing"):
            a.params(tls_creds="nothing")


if __name__ == "__main__":
    vmmtest.main()
