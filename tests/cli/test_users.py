"""The commands about users, tokens and namespaces, on a daemon of their own."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from telpher_broker.exit_codes import ExitCode
from tests.daemon.process import DaemonProcess, environment, serving

from .conftest import Command


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with a first user; its Unix socket is trusted."""
    with serving(tmp_path_factory.mktemp("users"), "--trust-unix-socket") as started:
        made = subprocess.run(
            [sys.executable, "-m", "telpher_broker", "user", "add", "root", "--first"],
            env=environment() | {"TELPHER_URL": started.unix_url},
            input="correct horse\n",
            capture_output=True,
            text=True,
            check=True,
        )
        assert made.stdout == "added user root\n"
        assert "everybody has to authenticate" in made.stderr
        yield started


@pytest.fixture
def admin(command: Command, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Commands by way of the trusted socket."""
    monkeypatch.setenv("TELPHER_URL", daemon.unix_url)
    return command


def test_a_user_is_made_granted_listed_and_deleted(admin: Command) -> None:
    assert admin("user", "add", "app", input=b"another horse\n").out == "added user app\n"
    assert admin("grant", "app", "publish", "orders.#").out == "app may publish orders.#\n"
    admin("user", "subject", "app", "CN=app")
    (row,) = [row for row in admin("users", "--json").rows if row["user"] == "app"]
    assert row["grants"] == [["publish", "orders.#"]]
    assert re.search(r"app +password, certificate CN=app +publish orders.#", admin("users").out)
    assert admin("revoke", "app", "publish", "orders.#").out == "app may do nothing\n"
    assert admin("user", "subject", "app").out == "app has no certificate\n"
    assert admin("user", "delete", "app").out == "deleted user app\n"
    assert admin("user", "delete", "app").code == ExitCode.REFUSED


def test_a_token_comes_in_until_it_is_revoked(
    admin: Command, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = admin("token", "create", "root", "ci", "--expires", "90d").out.strip()
    assert re.search(r"root +ci +\d{4}-.* \d{4}-", admin("tokens").out)
    assert [row["name"] for row in admin("tokens", "root", "--json").rows] == ["ci"]
    monkeypatch.setenv("TELPHER_URL", f"telpher://:{token}@{daemon.tcp}")
    assert admin("publish", "jobs", "a").code == ExitCode.OK
    monkeypatch.setenv("TELPHER_URL", daemon.unix_url)
    assert admin("token", "revoke", "root", "ci").out == "revoked token ci of root\n"
    monkeypatch.setenv("TELPHER_URL", f"telpher://:{token}@{daemon.tcp}")
    result = admin("publish", "jobs", "a")
    assert (result.code, result.out) == (ExitCode.REFUSED, "")
    assert "wrong, or has expired" in result.err


def test_a_namespace_is_made_limited_and_deleted(
    admin: Command, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert admin("namespace", "set", "acme", "--channels-max", "1").out == "namespace acme\n"
    monkeypatch.setenv("TELPHER_URL", f"{daemon.unix_url}?namespace=acme")
    admin("publish", "jobs", "a")
    assert [row["name"] for row in admin("channels", "--json").rows] == ["jobs"]
    assert "channels_max = 1" in admin("publish", "more", "a").err
    monkeypatch.setenv("TELPHER_URL", daemon.unix_url)
    assert re.search(r"acme +1 +\d+ +0 +0 +channels_max 1", admin("namespaces").out)
    assert admin("namespaces", "--json").rows[0]["channels"] == 1
    assert "still has 1 channels" in admin("namespace", "delete", "acme").err
    monkeypatch.setenv("TELPHER_URL", f"{daemon.unix_url}?namespace=acme")
    admin("delete", "jobs")
    monkeypatch.setenv("TELPHER_URL", daemon.unix_url)
    assert admin("namespace", "delete", "acme").out == "deleted namespace acme\n"


def test_a_short_password_and_none_at_all_are_refused(admin: Command) -> None:
    result = admin("user", "add", "app", input=b"short\n")
    assert "at least 8 characters" in result.err
    assert "short" not in result.err.replace("shorter", "")
    result = admin("user", "add", "app")
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert "standard input" in result.err


def test_a_password_is_changed(admin: Command, daemon: DaemonProcess) -> None:
    admin("user", "add", "changing", input=b"first horse\n")
    assert admin("user", "password", "changing", input=b"second horse\n").code == ExitCode.OK
    url = f"telpher://changing:second%20horse@{daemon.tcp}"
    assert "'admin'" in admin("stats", "--url", url).err
    assert "wrong" in admin("stats", "--url", url.replace("second", "first")).err


def test_a_secret_on_the_command_line_is_warned_of(admin: Command, daemon: DaemonProcess) -> None:
    result = admin("stats", "--url", f"telpher://root:correct%20horse@{daemon.tcp}")
    assert result.code == ExitCode.OK
    assert "Warning: the secret in --url is visible to everybody" in result.err
    assert "correct" not in result.err


def test_the_password_is_asked_for_on_the_terminal(daemon: DaemonProcess) -> None:
    """Unseen, and not from standard input, which may be what is published."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TELPHER_URL"] = f"telpher://root@{daemon.tcp}"
        os.execv(
            sys.executable, [sys.executable, "-m", "telpher_broker", "publish", "jobs", "hello"]
        )
    shown = _until(terminal, b"Password of root: ")
    os.write(terminal, b"correct horse\n")
    shown += _until(terminal, b"published to jobs")
    assert b"correct" not in shown
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)


def _until(terminal: int, text: bytes) -> bytes:
    shown = b""
    while text not in shown:
        shown += os.read(terminal, 1024)
    return shown


def test_without_a_terminal_nobody_is_asked(daemon: DaemonProcess, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "telpher_broker", "publish", "jobs", "-"],
        env=environment() | {"TELPHER_URL": f"telpher://root@{daemon.tcp}"},
        input="correct horse\n",
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == ExitCode.USAGE
    assert "no terminal to ask" in done.stderr


def test_without_a_password_or_a_terminal_the_way_without_one_is_named(admin: Command) -> None:
    result = admin("user", "add", "nobody", input=b"")
    assert result.code == ExitCode.USAGE
    assert "--no-password" in result.err
