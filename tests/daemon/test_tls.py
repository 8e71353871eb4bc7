"""TLS: what is spoken and what is not, whose certificate comes in, and files that change or end."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import telpher
from telpher.protocol import frames as f
from telpher.protocol.codec import encode
from telpher.sync import connect
from telpher_broker import logs
from telpher_broker.exit_codes import ExitCode
from telpher_broker.options import Settings
from telpher_broker.tls import Certificates, TlsError, read_certificates, subject_of
from telpher_broker.validity import CERTIFICATE, REVOCATION_LIST, end_of

from .authority import Authority
from .process import environment, failing, serving

SUBJECT = {"C": "NO", "O": "Acme, Inc", "CN": "app"}
SUBJECT_TEXT = "CN=app,O=Acme\\, Inc,C=NO"
ROOT = {"user": "root", "password": "hunter2 correct horse"}


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def server(trust: Authority) -> Path:
    return trust.issue("server")


def certificates(**options: Any) -> Certificates:
    found = read_certificates(Settings(**options))
    assert found is not None
    return found


def client_context(trust: Authority, cert: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trust.ca)
    if cert is not None:
        context.load_cert_chain(cert)
    return context


def shake(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A handshake in memory: both ends. Raises SSLError where one of them refuses."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there, server_hostname="localhost", session=session)
    theirs = server.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for end in (ours, theirs):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    theirs.write(b"x")
    assert ours.read(1) == b"x"
    return ours, theirs


def test_only_forward_secret_and_authenticated_ciphers_are_spoken(server: Path) -> None:
    ciphers = certificates(tls_cert=server).context.get_ciphers()
    assert {(one["kea"], one["aead"]) for one in ciphers} == {("kx-any", True), ("kx-ecdhe", True)}


@pytest.mark.parametrize(
    ("least", "version", "is_spoken"),
    [
        ("1.2", ssl.TLSVersion.TLSv1_3, True),
        ("1.2", ssl.TLSVersion.TLSv1_2, True),
        ("1.2", ssl.TLSVersion.TLSv1_1, False),
        ("1.3", ssl.TLSVersion.TLSv1_3, True),
        ("1.3", ssl.TLSVersion.TLSv1_2, False),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_versions_that_are_spoken(
    trust: Authority, server: Path, least: str, version: ssl.TLSVersion, is_spoken: bool
) -> None:
    context = certificates(tls_cert=server, tls_min_version=least).context
    client = client_context(trust)
    client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    client.maximum_version = version
    if is_spoken:
        ours, _ = shake(context, client)
        assert ours.version() == f"TLSv1.{version - ssl.TLSVersion.TLSv1_2 + 2}"
        assert ours.compression() is None
    else:
        with pytest.raises(ssl.SSLError):
            shake(context, client)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_goes_past_no_revocation(
    trust: Authority, server: Path, version: ssl.TLSVersion
) -> None:
    """Who was in before the lists were read anew is looked at anew."""
    app, flags = trust.issue("app"), {"tls_cert": server, "tls_client_ca": trust.ca}
    client = client_context(trust, app)
    client.maximum_version = version
    ours, theirs = shake(certificates(**flags).context, client)
    assert subject_of(theirs.getpeercert()) == "CN=app"
    trust.revoke(app)
    crl = trust.revocations("session.pem")
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake(certificates(**flags, tls_client_crl=crl).context, client, ours.session)


def test_a_revoked_certificate_does_not_come_in_and_another_does(
    tmp_path: Path, server: Path
) -> None:
    trust = Authority(tmp_path)
    good, bad = trust.issue("good"), trust.issue("bad")
    trust.revoke(bad)
    flags = {"tls_cert": server, "tls_client_ca": trust.ca}
    context = certificates(**flags, tls_client_crl=trust.revocations()).context
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    shake(context, client)
    client.load_cert_chain(good)
    assert subject_of(shake(context, client)[1].getpeercert()) == "CN=good"
    client.load_cert_chain(bad)
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        shake(context, client)
    outdated = certificates(**flags, tls_client_crl=trust.revocations("old.pem", days=-1)).context
    client.load_cert_chain(good)
    with pytest.raises(ssl.SSLError, match="CRL has expired"):
        shake(outdated, client)


def test_each_authority_of_a_chain_needs_its_list(tmp_path: Path, server: Path) -> None:
    root = Authority(tmp_path, "root")
    middle = Authority(tmp_path, "middle", root)
    app = middle.issue("app")
    chain = tmp_path / "chain.pem"
    chain.write_bytes(app.read_bytes() + middle.ca.read_bytes())
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.load_cert_chain(chain)
    ofs = [root.revocations("r.pem").read_bytes(), middle.revocations("m.pem").read_bytes()]
    root.revoke(middle.ca)
    lists = {
        "both": b"".join(ofs),
        "one": ofs[1],
        "revoked": root.revocations("r.pem").read_bytes() + ofs[1],
    }
    refused = {"one": "unable to get certificate CRL", "revoked": "certificate revoked"}
    for name, pem in lists.items():
        crl = tmp_path / f"{name}.pem"
        crl.write_bytes(pem)
        flags = {"tls_cert": server, "tls_client_ca": root.ca, "tls_client_crl": crl}
        context = certificates(**flags).context
        if name in refused:
            with pytest.raises(ssl.SSLError, match=refused[name]):
                shake(context, client)
        else:
            assert subject_of(shake(context, client)[1].getpeercert()) == "CN=app"


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, trust: Authority, server: Path) -> None:
    junk, key, none = tmp_path / "junk.pem", tmp_path / "only.key", tmp_path / "none"
    junk.write_text("hello")
    key.write_bytes(server.read_bytes().partition(b"-----END CERTIFICATE-----\n")[2])
    locked, other = trust.issue("locked", password="x" * 8), trust.issue("other")
    ca = {"tls_cert": server, "tls_client_ca": trust.ca}
    for flags, option, text in (
        ({"tls_cert": none}, "tls_cert", f"{none}: No such file or directory"),
        ({"tls_cert": tmp_path}, "tls_cert", f"{tmp_path}: Is a directory"),
        ({"tls_cert": junk, "tls_key": server}, "tls_cert", f"no certificate in PEM in {junk}"),
        ({"tls_cert": key}, "tls_cert", f"no certificate in PEM in {key}"),
        ({"tls_cert": trust.ca}, "tls_cert", f"no private key in PEM in {trust.ca}, and no other"),
        ({"tls_cert": locked}, "tls_cert", f"the key in {locked} has a password"),
        ({"tls_cert": server, "tls_key": none}, "tls_key", f"{none}: No such file or directory"),
        ({"tls_cert": server, "tls_key": tmp_path}, "tls_key", f"{tmp_path}: Is a directory"),
        ({"tls_cert": server, "tls_key": junk}, "tls_key", f"no private key in PEM in {junk}"),
        ({"tls_cert": server, "tls_key": other}, "tls_key", f"{other} belongs to another"),
        ({"tls_cert": server, "tls_client_ca": none}, "tls_client_ca", f"{none}: No such file"),
        (
            {"tls_cert": server, "tls_client_ca": junk},
            "tls_client_ca",
            f"no certificate in PEM in {junk}",
        ),
        ({**ca, "tls_client_crl": junk}, "tls_client_crl", f"no revocation list in PEM in {junk}"),
        ({**ca, "tls_client_crl": trust.ca}, "tls_client_crl", "no revocation list in PEM in"),
        ({**ca, "tls_client_crl": none}, "tls_client_crl", f"{none}: No such file or directory"),
    ):
        with pytest.raises(TlsError, match=f"^{option} cannot be used: ") as caught:
            read_certificates(Settings(**flags))
        assert text in str(caught.value)
        assert "-----" not in str(caught.value)


@pytest.fixture
def log() -> Iterator[StringIO]:
    stream = StringIO()
    logs.configure("info", "human", stream)
    yield stream
    logs.configure("info", "auto")


@pytest.mark.parametrize("content", [None, "no PEM"])
def test_files_that_go_while_they_are_read_are_said_too(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    """On SIGHUP that ended the broker: who renews a certificate may be at it just then."""
    file = tmp_path / "file.pem"
    file.write_text(server.read_text() if content is None else content)
    load = ssl.SSLContext.load_cert_chain

    def load_and_lose(context: ssl.SSLContext, *files: Path, **options: Any) -> None:
        try:
            load(context, *files, **options)
        finally:
            file.unlink()

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load_and_lose)
    with pytest.raises(TlsError, match=r"cannot be used: .*file\.pem"):
        read_certificates(Settings(tls_cert=file))


def test_a_key_that_everybody_may_read_is_said(server: Path, log: StringIO) -> None:
    certificates(tls_cert=server)
    assert not log.getvalue()
    server.chmod(0o644)
    certificates(tls_cert=server)
    server.chmod(0o600)
    assert "everybody may read the broker's key" in log.getvalue()


@pytest.mark.parametrize(
    ("days", "text"), [(30.5, ""), (13.5, "ends soon"), (0.5, "days_left=0"), (-2.5, "has ended")]
)
def test_a_certificate_that_ends_soon_is_said(
    tmp_path: Path, days: float, text: str, log: StringIO
) -> None:
    trust = Authority(tmp_path)
    found = certificates(
        tls_cert=trust.issue("server", days),
        tls_client_ca=trust.ca,
        tls_client_crl=trust.revocations(days=100.5),
    )
    found.warn_of_end()
    assert found.statistics() == {
        "tls_cert_days_left": int(days // 1),
        "tls_client_ca_days_left": 364,
        "tls_client_crl_days_left": 100,
    }
    assert text in log.getvalue()
    assert bool(log.getvalue()) == bool(text)


def test_the_first_certificate_of_a_chain_to_end_counts(tmp_path: Path) -> None:
    trust = Authority(tmp_path)
    first, second = trust.issue("first", 20), trust.issue("second", 10)
    pem = first.read_bytes() + second.read_bytes()
    end = end_of(pem, CERTIFICATE)
    assert end == end_of(second.read_bytes(), CERTIFICATE)
    assert end is not None
    assert 9 <= (end - datetime.now(UTC)).days <= 10
    assert end_of(pem, REVOCATION_LIST) is None


@pytest.mark.parametrize("days", [1, 3650, 3650 * 4])
def test_dates_are_read_as_they_were_written(tmp_path: Path, days: float) -> None:
    """Also those beyond 2049, which are written in another way."""
    trust = Authority(tmp_path)
    end = end_of(trust.issue("a", days).read_bytes(), CERTIFICATE)
    assert end is not None
    assert abs((end - datetime.now(UTC)).total_seconds() - days * 86400) < 60
    end = end_of(trust.revocations(days=days).read_bytes(), REVOCATION_LIST)
    assert end is not None
    assert abs((end - datetime.now(UTC)).total_seconds() - days * 86400) < 60


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.data())
def test_a_broken_certificate_is_a_value_error_and_nothing_else(data: st.DataObject) -> None:
    der = bytearray(data.draw(st.binary(min_size=1, max_size=60)))
    der[:1] = b"\x30" if data.draw(st.booleans()) else der[:1]
    pem = ssl.DER_cert_to_PEM_cert(bytes(der)).encode()
    with pytest.raises(ValueError):
        end_of(pem, CERTIFICATE)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((), None),
        (((("commonName", "a"),),), "CN=a"),
        (
            ((("countryName", "NO"),), (("commonName", ' #a+b,"c"\\'),)),
            'CN=\\ \\#a\\+b\\,\\"c\\"\\\\,C=NO',
        ),
        (((("commonName", "a"), ("userId", "7")),), "CN=a+UID=7"),
        (((("favouriteDrink", "tea"),),), "favouriteDrink=tea"),
    ],
)
def test_a_subject_is_written_as_in_rfc_4514(names: tuple[object, ...], text: str | None) -> None:
    assert subject_of({"subject": names} if names else None) == text


# -- in a daemon


def test_inside_tls_by_password_and_by_certificate(
    tmp_path: Path, trust: Authority, server: Path
) -> None:
    client = trust.issue("client", **SUBJECT)
    flags = ("--tls-cert", str(server), "--tls-client-ca", str(trust.ca))
    with serving(tmp_path, *flags) as daemon:
        with connect(daemon.unix_url) as bus:
            bus.add_user(**ROOT, first=True)
        url = f"{daemon.url}?tls=verify&ca={trust.ca}"
        with connect(url, **ROOT) as bus:
            bus.add_user("app", subject=SUBJECT_TEXT)
            bus.grant("app", "publish", "orders")
            bus.declare("orders")
        with connect(f"{url}&cert={client}") as bus:
            assert bus.publish("orders", b"x" * 1_000_000).offset == 0
            with pytest.raises(telpher.Forbidden, match="telpher grant app publish 'jobs'"):
                bus.publish("jobs", b"x")
        with connect(url, **ROOT) as bus, bus.consume("orders") as messages:
            assert len(next(iter(messages)).body) == 1_000_000


def test_who_cannot_show_who_it_is_does_not_come_in(
    tmp_path: Path, trust: Authority, server: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").issue("stranger")
    client = trust.issue("nobody", **SUBJECT)
    flags = ("--tls-cert", str(server), "--tls-client-ca", str(trust.ca))
    with serving(tmp_path, *flags, "--authentication", "required") as daemon:
        for query, error in (
            ("", telpher.CannotConnect),
            ("?tls=verify", telpher.CannotConnect),
            (f"?tls=verify&ca={trust.ca}&cert={stranger}", telpher.CannotConnect),
            (f"?tls=verify&ca={trust.ca}", telpher.AuthenticationFailed),
            (f"?tls=verify&ca={trust.ca}&cert={client}", telpher.AuthenticationFailed),
        ):
            with pytest.raises(error):
                connect(daemon.url + query, connect_seconds=0.3).__enter__()
        assert daemon.process.poll() is None


def connect_until(url: str, token: str, has_happened: Callable[[], bool]) -> None:
    """Come and go until something has happened."""
    deadline = time.monotonic() + 20
    while not has_happened():
        assert time.monotonic() < deadline
        with connect(url, token=token):
            pass


def connect_for(url: str, seconds: float) -> None:
    """Connect again and again until that is refused, or for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with connect(url, connect_seconds=0.5):
            pass


def test_renewed_files_are_read_on_sighup_and_open_connections_go_on(tmp_path: Path) -> None:
    trust = Authority(tmp_path)
    server, client = tmp_path / "broker.pem", trust.issue("client")
    server.write_bytes(trust.issue("one").read_bytes())
    crl = trust.revocations()
    options = {"cert": server, "client-ca": trust.ca, "client-crl": crl}
    flags = [text for name, path in options.items() for text in (f"--tls-{name}", str(path))]
    with serving(tmp_path, *flags) as daemon:
        with connect(daemon.unix_url) as bus:
            bus.add_user(**ROOT, first=True)
        url = f"{daemon.url}?tls=verify&ca={trust.ca}"
        certified = f"{url}&cert={client}"
        with connect(url, **ROOT) as root:
            token = root.create_token("root", "test")  # comes in sooner than a password
            root.add_user("client", subject="CN=client")
            for permission in ("configure", "publish", "consume"):
                root.grant("client", permission)
        with connect(certified) as before, before.consume("jobs") as messages:
            assert before.publish("jobs", b"a").offset == 0
            server.write_text("not one")
            daemon.signal(signal.SIGHUP)
            connect_until(
                url, token, lambda: "the certificates stay as they were" in daemon.log.read_text()
            )
            trust.revoke(client)
            trust.revocations()
            with connect(certified):  # nothing has changed
                pass
            renewed = trust.issue("two", days=7)
            server.write_bytes(renewed.read_bytes())
            daemon.signal(signal.SIGHUP)
            with pytest.raises(telpher.CannotConnect, match="may not accept the certificate"):
                connect_for(certified, seconds=20)
            with connect(url, token=token) as fresh:
                assert fresh.stats()["tls_cert_days_left"] == 6
                fresh.publish("jobs", b"b")
            assert [next(iter(messages)).body for _ in range(2)] == [b"a", b"b"]
            assert before.publish("jobs", b"c").offset == 2  # it could not have come again
        assert (
            "no certificate in PEM" in daemon.event("the certificates stay as they were")["reason"]
        )
        assert daemon.event("no TLS from a connection")["reason"] == "certificate revoked"
        assert daemon.event("read the certificates anew")["tls_cert_days_left"] == 6
        assert daemon.event("a certificate ends soon")["option"] == "tls_cert"


def test_a_frame_that_tls_cuts_short_counts_for_nothing(
    tmp_path: Path, trust: Authority, server: Path
) -> None:
    publish = encode(f.Publish(1, "jobs", None, 0, None, b"not even a batch" * 100))
    with serving(tmp_path, "--tls-cert", str(server)) as daemon:
        host, port = daemon.tcp.split(":")
        raw = socket.create_connection((host, int(port)))
        inside = client_context(trust).wrap_socket(raw, server_hostname="localhost")
        inside.sendall(encode(f.Hello(0, (1,), "test", {})))
        assert inside.recv(1)
        inside.sendall(publish[:100])
        inside.detach()
        socket.socket(fileno=raw.detach()).close() if raw.fileno() >= 0 else None
        with connect(f"{daemon.url}?tls=verify&ca={trust.ca}") as bus:
            assert [channel.name for channel in bus.channels()] == []
        assert not [row for row in daemon.events() if "bug" in row["event"]]


def test_who_never_ends_the_handshake_has_as_long_as_who_never_says_hello(
    tmp_path: Path, server: Path
) -> None:
    flags = ("--tls-cert", str(server), "--open-timeout-ms", "300")
    with serving(tmp_path, *flags) as daemon:
        host, port = daemon.tcp.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as silent:
            assert silent.recv(1) == b""


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--listen", "0.0.0.0:0"), "authentication = required"),
        (("--listen", "0.0.0.0:0", "--tls-cert", "x"), "authentication = required"),
        (("--listen", "0.0.0.0:0", "--authentication", "required"), "Set tls_cert"),
        (("--tls-client-ca", "x"), "of no use without tls_cert"),
        (("--tls-key", "x"), "of no use without tls_cert"),
        (("--tls-cert", "x", "--tls-client-crl", "x"), "of no use without tls_client_ca"),
    ],
)
def test_what_others_can_reach_needs_both(
    tmp_path: Path, flags: tuple[str, ...], text: str
) -> None:
    code, _ = failing(tmp_path, *flags)
    assert code == ExitCode.USAGE
    assert text in (tmp_path / "log").read_text()


def test_a_configuration_is_checked_with_its_certificates(trust: Authority, server: Path) -> None:
    other = trust.issue("other")
    for key, code, text in (
        (server, ExitCode.OK, "tls_cert holds until"),
        (other, ExitCode.USAGE, f"the key in {other} belongs to another certificate"),
    ):
        command = [sys.executable, "-m", "telpher_broker", "config", "--check"]
        command += ["--tls-cert", str(server), "--tls-key", str(key)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment(), check=False
        )
        assert (done.returncode, text in done.stderr) == (code, True)


def test_certificates_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    code, said = failing(tmp_path, "--tls-cert", "/no/such/file")
    assert code == ExitCode.USAGE  # as `config --check`: another start would not mend it
    assert "tls_cert cannot be used: /no/such/file: No such file or directory" in said


def test_other_machines_may_reach_what_has_both(tmp_path: Path, server: Path) -> None:
    flags = ("--listen", "0.0.0.0:0", "--authentication", "required", "--tls-cert", str(server))
    with serving(tmp_path, *flags) as daemon:
        assert "0.0.0.0:" in daemon.tcp
