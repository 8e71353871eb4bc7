"""Users and TLS in a real daemon: turned on in one step, durable, and never a secret in sight."""

from __future__ import annotations

import signal
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

import telpher
from telpher.passwords import parse_token
from telpher.sync import connect
from telpher_broker.exit_codes import ExitCode
from telpher_broker.tls import subject_of

from .process import DaemonProcess, environment, failing, serving

CERTIFICATES = Path(__file__).parent / "certificates"
CA, SERVER, CLIENT, STRANGER = (
    str(CERTIFICATES / f"{name}.pem") for name in ("ca", "server", "client", "stranger")
)
SUBJECT = "CN=app,O=Acme\\, Inc,C=NO"
TLS = ("--tls-cert", SERVER, "--tls-client-ca", CA)
ROOT = {"user": "root", "password": "hunter2 correct horse"}


def make_root(daemon: DaemonProcess) -> None:
    with connect(daemon.unix_url) as bus:
        bus.add_user(**ROOT, first=True)


def test_users_are_durable_and_so_is_that_everybody_must_authenticate(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        make_root(daemon)
        with connect(daemon.url, **ROOT) as bus:
            token = bus.create_token("root", "ci")
            bus.publish("jobs", b"a")
        daemon.kill()
    with serving(tmp_path) as daemon:
        with pytest.raises(telpher.AuthenticationFailed, match="wants to know who comes"):
            connect(daemon.url).__enter__()
        with pytest.raises(telpher.AuthenticationFailed, match="wrong, or has expired"):
            connect(daemon.url, user="root", password="something else").__enter__()
        with connect(daemon.url, token=token) as bus:
            assert bus.inspect("jobs").messages == 1
            bus.snapshot()
        daemon.kill()
    with serving(tmp_path) as daemon, connect(daemon.url, **ROOT) as bus:
        assert [one.name for one in bus.tokens()] == ["ci"]


def test_a_revoked_token_ends_a_consumer_that_runs(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        make_root(daemon)
        with connect(daemon.unix_url, **ROOT) as root:
            root.declare("jobs")
            root.add_user("app")
            root.grant("app", "consume", "jobs")
            token = root.create_token("app", "worker")
            with connect(daemon.url, token=token) as bus, bus.consume("jobs") as messages:
                root.revoke_token("app", "worker")
                with pytest.raises(telpher.AuthenticationFailed):
                    next(iter(messages))


def test_inside_tls_by_password_and_by_certificate(tmp_path: Path) -> None:
    with serving(tmp_path, *TLS) as daemon:
        make_root(daemon)
        url = f"{daemon.url}?tls=verify&ca={CA}"
        with connect(url, **ROOT) as bus:
            bus.add_user("app", subject=SUBJECT)
            bus.grant("app", "publish", "orders")
            bus.declare("orders")
        with connect(f"{url}&cert={CLIENT}") as bus:
            assert bus.publish("orders", b"x" * 1_000_000).offset == 0
            with pytest.raises(telpher.Forbidden, match="telpher grant app publish 'jobs'"):
                bus.publish("jobs", b"x")
        with connect(url, **ROOT) as bus, bus.consume("orders") as messages:
            assert len(next(iter(messages)).body) == 1_000_000


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", telpher.CannotConnect),
        ("?tls=verify", telpher.CannotConnect),
        (f"?tls=verify&ca={CA}&cert={STRANGER}", telpher.CannotConnect),
        (f"?tls=verify&ca={CA}", telpher.AuthenticationFailed),
        (f"?tls=verify&ca={CA}&cert={CLIENT}", telpher.AuthenticationFailed),
    ],
)
def test_who_cannot_show_who_it_is_does_not_come_in(
    tmp_path: Path, query: str, error: type[Exception]
) -> None:
    with serving(tmp_path, *TLS, "--authentication", "required") as daemon:
        with pytest.raises(error):
            connect(daemon.url + query, connect_seconds=0.5).__enter__()
        assert daemon.process.poll() is None


def connect_for_ever(url: str) -> None:
    while True:
        with connect(url, connect_seconds=1.0):
            pass


def test_renewed_certificates_are_read_on_sighup(tmp_path: Path) -> None:
    certificate = tmp_path / "broker.pem"
    certificate.write_text(Path(SERVER).read_text())
    with serving(tmp_path, "--tls-cert", str(certificate)) as daemon:
        url = f"{daemon.url}?tls=verify&ca={CA}"
        with connect(url) as before:
            certificate.write_text("not one")
            daemon.signal(signal.SIGHUP)
            certificate.write_text(Path(STRANGER).read_text())
            daemon.signal(signal.SIGHUP)
            with pytest.raises(telpher.CannotConnect, match="CERTIFICATE_VERIFY_FAILED"):
                connect_for_ever(url)
            assert before.publish("jobs", b"a").offset == 0
        assert daemon.event("read the certificates anew")


def test_the_unix_socket_brings_the_first_user(tmp_path: Path) -> None:
    flags = ("--authentication", "required", "--trust-unix-socket")
    with serving(tmp_path, *flags) as daemon:
        with pytest.raises(telpher.AuthenticationFailed):
            connect(daemon.url).__enter__()
        make_root(daemon)
        with connect(daemon.unix_url) as bus:
            bus.set_password("root", "hunter3 forgotten")
        with connect(daemon.url, user="root", password="hunter3 forgotten") as bus:
            assert len(bus.users()) == 1


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--listen", "0.0.0.0:0"), "authentication = required"),
        (("--listen", "0.0.0.0:0", "--tls-cert", SERVER), "authentication = required"),
        (("--listen", "0.0.0.0:0", "--authentication", "required"), "Set tls_cert"),
        (("--tls-client-ca", CA), "of no use without tls_cert"),
        (("--tls-key", SERVER), "of no use without tls_cert"),
    ],
)
def test_what_others_can_reach_needs_both(
    tmp_path: Path, flags: tuple[str, ...], text: str
) -> None:
    started = DaemonProcess(tmp_path, *flags)
    assert started.ended() == ExitCode.USAGE
    assert text in started.log.read_text()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--tls-cert", "/no/such/file"), "No such file"),
        (("--tls-cert", CA), "cannot be used"),
        (("--tls-cert", SERVER, "--tls-client-ca", __file__), "tls_client_ca cannot be used"),
    ],
)
def test_certificates_that_cannot_be_used_stop_the_start(
    tmp_path: Path, flags: tuple[str, ...], text: str
) -> None:
    code, said = failing(tmp_path, *flags)
    assert code == ExitCode.LISTEN
    assert text in said


def test_other_machines_may_reach_what_has_both(tmp_path: Path) -> None:
    flags = ("--listen", "0.0.0.0:0", "--authentication", "required")
    with serving(tmp_path, *TLS, *flags) as daemon:
        assert "0.0.0.0:" in daemon.tcp


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


def test_no_secret_is_ever_shown_or_stored(tmp_path: Path) -> None:
    """Everything that is said, logged, listed, dumped and stored while secrets are in use, in
    every way that they can be used wrongly too: none of it has them in it."""
    password, wrong, other = "hunter2-correct-horse", "hunter2-wrong-battery", "hunter2-the-next"
    said: list[str] = []

    def command(*arguments: str, url: str, typed: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "telpher_broker", *arguments],
            env=environment() | {"TELPHER_URL": url},
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )
        said.append(done.stderr)
        return done.stdout

    with serving(tmp_path, "--log-level", "debug", "--trust-unix-socket") as daemon:
        unix, tcp = daemon.unix_url, daemon.tcp
        said.append(command("user", "add", "root", "--first", url=unix, typed=password))
        token = command("token", "create", "root", "ci", url=unix).strip()
        _, secret = parse_token(token)
        urls = [
            f"telpher://root:{password}@{tcp}",
            f"telpher://root:{wrong}@{tcp}",
            f"telpher://nobody:{password}@{tcp}",
            f"telpher://root@acme:{password}@{tcp}?namespace=none",
            f"telpher://:{token}@{tcp}",
            f"telpher://:{token[:-1]}@{tcp}",
            f"telpher://{token}@{tcp}",
            f"telpher://root:{password}@{tcp}:x",
            f"telpher://root:{password}/@{tcp}",
            f"amqp://root:{password}@{tcp}",
        ]
        for url in urls[:7]:
            said.append(command("publish", "jobs", "hello", url=url))
        for url in urls[7:]:
            said.append(command("stats", url=url))
        for arguments in (("users",), ("tokens", "--json"), ("stats",), ("snapshot",)):
            said.append(command(*arguments, url=urls[0]))
        said.append(command("user", "password", "root", url=unix, typed=other))
        said.append(command("user", "add", "short", url=unix, typed="hunter2"))
        said.append(command("token", "revoke", "root", "ci", url=unix))
        said.append(command("stats", url=urls[4]))
        said.append(command("config", "--json", url=urls[0]))
        nowhere = connect(f"telpher://root:{password}@127.0.0.1:1", connect_seconds=0.2)
        with pytest.raises(telpher.CannotConnect) as unreached, nowhere:
            raise AssertionError("nobody listens there")
        said.append(repr(unreached.value))
        with pytest.raises(telpher.AuthenticationFailed) as caught, connect(urls[0]):
            raise AssertionError("the password was changed")
        said.append(repr(caught.value))
        daemon.stop()
    logged = daemon.log.read_text()
    dumped = command("dump", str(daemon.data), url=unix)
    said += [logged, dumped, command("check", str(daemon.data), url=unix)]
    assert "turned away" in logged
    assert "Security" in dumped
    assert "published to jobs" in "".join(said)
    shown = "\n".join(said)
    stored = b"".join(path.read_bytes() for path in daemon.data.rglob("*") if path.is_file())
    encodings: tuple[Callable[[bytes], str], ...] = (
        bytes.hex,
        lambda data: b64encode(data).decode(),
        lambda data: urlsafe_b64encode(data).decode().rstrip("="),
    )
    for text in ("hunter2", token.rpartition("_")[2], *(encode(secret) for encode in encodings)):
        assert text not in shown
        assert text.encode() not in stored
    assert secret not in stored
    assert b"root" in stored
