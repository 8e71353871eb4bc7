"""Users in a real daemon: turned on in one step, durable, and never a secret in sight."""

from __future__ import annotations

import json
import signal
import stat
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

from .process import DaemonProcess, environment, failing, serving

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


def test_an_audit_log_is_moved_away_checked_and_found_out(tmp_path: Path) -> None:
    path, old = tmp_path / "audit", tmp_path / "audit.1"
    with serving(tmp_path, "--audit-log", str(path)) as daemon:
        with connect(daemon.url) as bus:
            bus.declare("jobs")
        path.rename(old)
        daemon.signal(signal.SIGHUP)
        while not path.exists():
            with connect(daemon.url):
                pass
        with connect(daemon.url) as bus:
            bus.delete("jobs")
        other = tmp_path / "other"
        other.mkdir()
        code, said = failing(other, "--audit-log", str(path))
        assert (code, "another broker" in said) == (ExitCode.USAGE, True)
        assert daemon.stop() == ExitCode.OK
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    words = [json.loads(line) for file in (old, path) for line in file.read_text().splitlines()]
    told = [row.get("verb") or row["event"] for row in words if row["event"] != "login"]
    assert told == ["began", "declare", "reload", "delete", "stopping", "ended"]
    check = [sys.executable, "-m", "telpher_broker", "audit", "check", str(old), str(path)]
    done = subprocess.run(check, capture_output=True, text=True, check=True)
    assert f"lines 1 to {len(words)}: the chain is whole" in done.stdout
    assert daemon.event("the audit log ends")["chain"] in done.stdout
    old.write_text(old.read_text().replace("declare", "publish"))
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.DAMAGED
    assert "the line before was changed" in done.stdout


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

    audit = tmp_path / "audit"
    flags = ("--log-level", "debug", "--trust-unix-socket", "--audit-log", str(audit))
    with serving(tmp_path, *flags) as daemon:
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
    assert '"turned_away"' in audit.read_text()
    assert '"token_add"' in audit.read_text()
    said += [logged, dumped, audit.read_text(), command("check", str(daemon.data), url=unix)]
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
