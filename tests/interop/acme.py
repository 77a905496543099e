"""A certificate by ACME from Debian's Pebble: the first one, its renewal, other domains, and Pebble's absence.

Pebble looks at whatever name it is told at 127.0.0.1, at the server's own port in place of 443. Its certificates live for
half a minute, so they are renewed after twenty seconds.
"""

import asyncio
import contextlib
import datetime
import json
import os
import pathlib
import shutil
import signal
import ssl
import stat
import tempfile

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from monitoring import free_port, running
from own_server import OwnServer
from server import until

NAME, OTHER_NAME = "sfu.lab.test", "other.lab.test"
LIFETIME_S = 30
# Two thirds of it, and patience for a busy machine.
RENEWED_WITHIN_S = 45
# The first pause after a failure is up to 75 s long.
BACK_WITHIN_S = 110
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def make_authority(folder):
    """A root, and a certificate for Pebble's own listeners: PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the tests' root")])

    def issue(subject, public_key, *extensions):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(public_key)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    (folder / "root.pem").write_bytes(issue(name, key.public_key(), x509.BasicConstraints(ca=True, path_length=None)))
    own = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    (folder / "pebble.pem").write_bytes(issue(subject, own.public_key(), names))
    (folder / "pebble.key").write_bytes(own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


class Pebble:
    """The ACME server, and the name server that it asks."""

    def __init__(self, folder, tls_port):
        self.folder = folder
        self.port, self.management, self.dns, self.dns_management = (free_port() for _ in range(4))
        self.directory = f"https://localhost:{self.port}/dir"
        make_authority(folder)
        config = {"pebble": {
            "listenAddress": f"127.0.0.1:{self.port}", "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(folder / "pebble.pem"), "privateKey": str(folder / "pebble.key"),
            "httpPort": free_port(), "tlsPort": tls_port, "certificateValidityPeriod": LIFETIME_S,
        }}  # fmt: skip
        (folder / "pebble.json").write_text(json.dumps(config))

    @contextlib.asynccontextmanager
    async def running(self, http):
        """It forgets everything when it ends: accounts, and the root of what it has issued."""
        os.environ.update(PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0")
        with open(self.folder / "log", "a+b") as log:
            async with (
                running(log, "pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "",
                        "-https01", "", "-tlsalpn01", "", "-dns01", f"127.0.0.1:{self.dns}",
                        "-management", f"127.0.0.1:{self.dns_management}"),
                running(log, "pebble", "-config", self.folder / "pebble.json", "-dnsserver", f"127.0.0.1:{self.dns}"),
            ):  # fmt: skip
                try:
                    await until(lambda: self.reached(http), 20, "Pebble answers")
                    yield
                except BaseException:
                    print((self.folder / "log").read_text(errors="replace")[-3000:])
                    raise

    async def reached(self, http):
        trusted = ssl.create_default_context(cafile=self.folder / "root.pem")
        with contextlib.suppress(OSError):
            async with http.get(self.directory, ssl=trusted) as answer:
                return answer.status == 200
        return False

    async def root(self, http):
        """The root of what it issues, in PEM."""
        trusted = ssl.create_default_context(cafile=self.folder / "root.pem")
        async with http.get(f"https://localhost:{self.management}/roots/0", ssl=trusted) as answer:
            assert answer.status == 200, answer.status
            return await answer.text()


async def shaken_hands(server, name, root=None, version=TLS_1_3):
    """The certificate that a client gets; one with a root believes that alone, and asks for the page too."""
    trusted = ssl.create_default_context(cadata=root) if root else ssl._create_unverified_context()
    trusted.minimum_version = trusted.maximum_version = version
    reader, writer = await asyncio.open_connection("127.0.0.1", server.ports["http"], ssl=trusted, server_hostname=name)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if root:
        writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:100]
    writer.close()
    return x509.load_der_x509_certificate(der)


def names_of(certificate):
    return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
               .get_values_for_type(x509.DNSName))  # fmt: skip


async def another(server, name, before, seconds, what):
    """Waits for a certificate that is not the one before."""
    async def shown():
        certificate = await shaken_hands(server, name)
        return certificate if certificate.serial_number != before.serial_number else None

    return await until(shown, seconds, what)


async def orders(server, result):
    return (await server.metrics("stube_acme_orders_total"))[f'{{result="{result}"}}']


async def issues_and_keeps(server, pebble, http):
    """The first certificate is there when the server is ready; a restart shows it again and orders none."""
    root = await pebble.root(http)
    first = await shaken_hands(server, NAME, root)
    assert names_of(first) == {NAME}, names_of(first)
    assert (await shaken_hands(server, NAME, root, TLS_1_2)).serial_number == first.serial_number
    for path, mode in (("acme", 0o700), ("acme/account.json", 0o600), ("acme/certificate.json", 0o600)):
        assert stat.S_IMODE((server.state / path).stat().st_mode) == mode, path
    server.process.terminate()
    assert await asyncio.wait_for(server.process.wait(), 10) == 0
    await server.run()
    again = await shaken_hands(server, NAME, root)
    assert again.serial_number == first.serial_number and await orders(server, "issued") == 0
    return first


async def renews(server, pebble, http, first):
    """After two thirds of its time, with nobody doing anything."""
    second = await another(server, NAME, first, RENEWED_WITHIN_S, "it is renewed")
    assert second.not_valid_before_utc < first.not_valid_after_utc, "renewed before the old one has expired"
    await shaken_hands(server, NAME, await pebble.root(http))
    expiry = (await server.metrics("stube_tls_certificate_expiry_timestamp_seconds"))[""]
    assert expiry == second.not_valid_after_utc.timestamp(), expiry


async def takes_other_domains(server, pebble, http):
    """A reload orders for other names at once."""
    before = await shaken_hands(server, NAME)
    text = server.config.read_text()
    server.config.write_text(text.replace(f'"{NAME}"', f'"{NAME}", "{OTHER_NAME}"'))
    server.process.send_signal(signal.SIGHUP)

    async def covers_both():
        certificate = await shaken_hands(server, NAME)
        return certificate if names_of(certificate) == {NAME, OTHER_NAME} else None

    certificate = await until(covers_both, 15, "both names are in the certificate")
    assert certificate.serial_number != before.serial_number
    await shaken_hands(server, OTHER_NAME, await pebble.root(http))
    assert await orders(server, "failed") == 0, "nothing has failed so far"
    return certificate


async def survives(server, last):
    """Without Pebble the old certificate stays, and what is wrong is counted and logged."""
    async def failed():
        return await orders(server, "failed") >= 1

    await until(failed, RENEWED_WITHIN_S, "an order has failed")
    shown = await shaken_hands(server, NAME)
    assert shown.serial_number == last.serial_number, "the old certificate is still there"
    log = server.log_text()
    assert "no certificate from the ACME server" in log and "cannot be reached" in log and "refused" in log and "again_in_s" in log, log
    assert await orders(server, "failed") == 1, "it is not tried again at once"


async def certificates():
    for tool in ("pebble", "pebble-challtestsrv"):
        assert shutil.which(tool), f"no {tool}: run scripts/install-test-tools first"
    with tempfile.TemporaryDirectory(prefix="stube-acme-") as path:
        folder = pathlib.Path(path)
        server = OwnServer()
        pebble = Pebble(folder, server.ports["http"])
        server.more = (f'[http.tls]\ndomains = ["{NAME}"]\nacme_directory = "{pebble.directory}"\n'
                       f'acme_contact = "operator@lab.test"\nacme_root = "{folder}/root.pem"\n')  # fmt: skip
        async with contextlib.AsyncExitStack() as stack:
            http = await stack.enter_async_context(aiohttp.ClientSession())
            async with pebble.running(http):
                await stack.enter_async_context(server)
                first = await issues_and_keeps(server, pebble, http)
                await renews(server, pebble, http, first)
                last = await takes_other_domains(server, pebble, http)
            await survives(server, last)
            # It has forgotten the account, too.
            async with pebble.running(http):
                await another(server, NAME, last, BACK_WITHIN_S, "there is a new one after Pebble is back")
                await shaken_hands(server, NAME, await pebble.root(http))
                async with server.http.get(server.admin + "/readyz") as ready:
                    assert ready.status == 200, await ready.text()
