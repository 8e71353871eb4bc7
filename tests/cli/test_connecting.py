"""Commands that do not reach a broker: each says why, and none tries what is no use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from telpher_broker.exit_codes import ExitCode
from tests.daemon.authority import Authority
from tests.daemon.process import DaemonProcess, serving

from .conftest import Command

ONE_SECOND_AND_A_SLOW_MACHINE = 8.0


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def secure(trust: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    flags = ("--tls-cert", str(trust.issue("server")))
    with serving(tmp_path_factory.mktemp("secure"), *flags) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with serving(tmp_path_factory.mktemp("plain")) as daemon:
        yield daemon


def unreached(command: Command, monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    """What a command says that reaches nobody, without and with a password."""
    texts = []
    for credentials in ("", "root:secret secret@"):
        monkeypatch.setenv("TELPHER_URL", url.replace("//", f"//{credentials}".replace(" ", "%20")))
        began = time.monotonic()
        result = command("channels")
        assert time.monotonic() - began < ONE_SECOND_AND_A_SLOW_MACHINE
        assert (result.code, result.err.count("\n")) == (ExitCode.UNREACHABLE, 1)
        texts.append(result.err)
    return texts[1]


def test_a_certificate_that_cannot_be_verified(
    command: Command, monkeypatch: pytest.MonkeyPatch, secure: DaemonProcess, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    for query, text in (
        ("?tls=verify", "name the authority with &ca=FILE"),
        (f"?tls=verify&ca={other.ca}", f"it is not of the authority in {other.ca}"),
    ):
        said = unreached(command, monkeypatch, secure.url + query)
        assert "cannot connect: 127.0.0.1:" in said
        assert (
            f": certificate verify failed: unable to get local issuer certificate; {text}" in said
        )
        assert "is one running" not in said


def test_a_port_without_tls(
    command: Command, monkeypatch: pytest.MonkeyPatch, plain: DaemonProcess
) -> None:
    said = unreached(command, monkeypatch, f"{plain.url}?tls=verify")
    assert "it may not speak TLS" in said
    assert "is one running" not in said


def test_a_port_that_wants_tls(
    command: Command, monkeypatch: pytest.MonkeyPatch, secure: DaemonProcess
) -> None:
    said = unreached(command, monkeypatch, secure.url)
    assert "if it speaks TLS, the URL needs ?tls=verify" in said
    assert "is one running" not in said


def test_nobody_at_an_address_is_said_once(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host in ("127.0.0.1", "localhost"):
        said = unreached(command, monkeypatch, f"telpher://{host}:1")
        assert f"({host}:1: Connection refused); is one running there?" in said


def test_a_file_that_the_url_names_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch, trust: Authority, tmp_path: Path
) -> None:
    """As any fault of the command line: whether a broker runs makes no difference."""
    app, other = trust.issue("app"), trust.issue("other")
    only_key, only_certificate = tmp_path / "app.key", tmp_path / "app.crt"
    certificate, end, key = app.read_bytes().partition(b"-----END CERTIFICATE-----\n")
    only_certificate.write_bytes(certificate + end)
    only_key.write_bytes(key)
    locked = trust.issue("locked", password="x" * 8)
    none = tmp_path / "none.pem"
    for query, text in (
        (f"ca={none}", f"ca cannot be used: {none}: No such file or directory"),
        (f"ca={tmp_path}", f"ca cannot be used: {tmp_path}: Is a directory"),
        (f"ca={only_key}", f"ca cannot be used: there is no certificate in PEM in {only_key}"),
        (f"cert={none}", f"cert cannot be used: {none}: No such file or directory"),
        (f"cert={only_key}", f"cert cannot be used: there is no certificate in PEM in {only_key}"),
        (
            f"cert={only_certificate}",
            f"cert cannot be used: there is no private key in PEM in {only_certificate}",
        ),
        (f"cert={app}&key={none}", f"key cannot be used: {none}: No such file or directory"),
        (f"cert={app}&key={other}", f"key cannot be used: the key in {other} belongs to another"),
        (f"cert={locked}", f"cert cannot be used: the key in {locked} has a password"),
    ):
        monkeypatch.setenv("TELPHER_URL", f"telpher://127.0.0.1:1?tls=verify&{query}")
        result = command("channels")
        assert f"Error: the URL's {text}" in result.err
        assert (result.code, result.err.count("\n")) == (ExitCode.USAGE, 1)
