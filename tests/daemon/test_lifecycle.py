"""The life of the daemon on the event loop, with a fake broker: which fault has which fate."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from telpher_broker import daemon as daemon_module
from telpher_broker import logs
from telpher_broker.config import Configuration, load
from telpher_broker.daemon import Daemon
from telpher_broker.exit_codes import ExitCode
from telpher_broker.listeners import Listeners
from telpher_storage import StorageFailed

from .fakes import FakeBroker


class Running:
    """A daemon in this process, and what it logged."""

    def __init__(self, broker: FakeBroker, directory: Path, **flags: Any) -> None:
        unix = str(directory / "s")
        self.configuration = load(None, {}, {"listen": [""], "unix_socket": unix, **flags})
        self.unix = unix
        self.broker = broker
        self.log = io.StringIO()
        logs.configure("info", "json", self.log)
        self.listeners = Listeners.bind(self.configuration.settings)
        self.reload: Callable[[], Configuration] = lambda: self.configuration
        self.code: ExitCode | None = None

    async def live(self) -> None:
        life = Daemon(
            self.configuration.settings, lambda: self.reload(), self.listeners, self.broker
        )
        try:
            self.code = await life.live()
        finally:
            self.listeners.close()

    async def connected(self) -> trio.SocketStream:
        """A connection; the daemon listens as soon as the scheduler has let it."""
        while True:
            await trio.testing.wait_all_tasks_blocked()
            try:
                return await trio.open_unix_socket(self.unix)
            except ConnectionRefusedError:
                continue

    def events(self, *levels: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [row for row in rows if not levels or row["level"] in levels]


@pytest.fixture(autouse=True)
def _logs_afterwards() -> Iterator[None]:
    yield
    logs.configure("info", "auto")


@pytest.mark.trio
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = Running(FakeBroker(), tmp_path, drain_seconds="7s")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.live)
        async with await running.connected() as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            signal.raise_signal(number)
            assert await stream.receive_some() == b""
    assert running.code is ExitCode.OK
    assert running.broker.drained_for == 7
    assert not os.path.exists(running.unix)  # noqa: ASYNC240
    out = capsys.readouterr().out
    assert out.startswith(f"telpher ready unix={running.unix} pid=")
    assert out.count("\n") == 1


@pytest.mark.trio
async def test_a_bug_in_one_connection_stays_there(tmp_path: Path) -> None:
    async def serve(stream: trio.SocketStream, _peer: str) -> None:
        if await stream.receive_some() == b"bad":
            raise KeyError("a bug")
        await stream.send_all(b"fine")

    running = Running(FakeBroker(serve), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.live)
        for _ in range(3):
            async with await running.connected() as stream:
                await stream.send_all(b"bad")
                assert await stream.receive_some() == b""
        async with await running.connected() as stream:
            await stream.send_all(b"good")
            assert await stream.receive_some() == b"fine"
        signal.raise_signal(signal.SIGTERM)
    assert running.code is ExitCode.OK
    tracebacks = [row for row in running.events("error") if "exception" in row]
    assert len(tracebacks) == 1
    assert len(running.events("error")) == 3


@pytest.mark.trio
async def test_a_bug_in_the_core_ends_the_daemon(tmp_path: Path) -> None:
    running = Running(FakeBroker(failure=ZeroDivisionError("a bug")), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.live)
        async with await running.connected() as stream:
            running.broker.broken.set()
            assert await stream.receive_some() == b""
    assert running.code is ExitCode.BUG
    (row,) = running.events("error")
    assert "ZeroDivisionError" in row["exception"]


@pytest.mark.trio
async def test_a_core_that_ends_by_itself_is_a_bug(tmp_path: Path) -> None:
    running = Running(FakeBroker(), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.live)
        running.broker.broken.set()
    assert running.code is ExitCode.BUG


@pytest.mark.trio
async def test_a_failed_disk_ends_the_daemon_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[float, ExitCode]] = []
    monkeypatch.setattr(
        daemon_module, "_exit_after", lambda seconds, code, _: ends.append((seconds, code))
    )
    running = Running(FakeBroker(failure=StorageFailed("fsync: I/O error")), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.live)
        async with await running.connected() as stream:
            running.broker.broken.set()
            assert await stream.receive_some() == b""
    assert running.code is ExitCode.DISK_FAILED
    (row,) = running.events("error")
    assert "fsync: I/O error" in row["event"]
    assert "exception" not in row
    assert ends == [(0.5, ExitCode.DISK_FAILED)]


@pytest.mark.trio
async def test_a_failed_disk_ends_the_daemon_while_another_call_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = trio.Event()
    monkeypatch.setattr(daemon_module, "_exit_after", lambda *_: ended.set())
    broker = FakeBroker(failure=StorageFailed("fsync: I/O error"), hangs=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Running(broker, tmp_path).live)
        broker.broken.set()
        with trio.fail_after(0.9 - daemon_module.FAILED_EXIT_SECONDS):
            await ended.wait()
        nursery.cancel_scope.cancel()


def test_a_disk_that_hangs_does_not_hold_up_the_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    codes: list[ExitCode] = []

    def end(code: ExitCode) -> None:
        codes.append(code)
        ended.set()

    monkeypatch.setattr(daemon_module, "_exit_now", end)
    daemon_module._exit_after(0.0, ExitCode.DISK_FAILED, "hangs")
    assert ended.wait(10)
    assert codes == [ExitCode.DISK_FAILED]


@pytest.mark.trio
async def test_sighup_reads_the_log_level_or_lists_the_faults(tmp_path: Path) -> None:
    running = Running(FakeBroker(), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.live)
        async with await running.connected():
            running.reload = lambda: load(None, {}, {"log_level": "loud"})
            signal.raise_signal(signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked(0.01)
            running.reload = lambda: load(None, {}, {"log_level": "error"})
            signal.raise_signal(signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked(0.01)
            signal.raise_signal(signal.SIGTERM)
    (row,) = running.events("error")
    assert "log_level = 'loud'" in row["faults"]
    assert "stopped" not in [row["event"] for row in running.events()]


@pytest.mark.trio
async def test_sighup_tells_what_was_changed_and_takes_a_restart(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    running = Running(FakeBroker(), tmp_path)
    told: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.live)
        async with await running.connected():
            for changes in ({}, {"lease_ms": "9s", "log_level": "debug"}):
                flags = {"listen": [""], "unix_socket": running.unix, **changes}
                running.reload = lambda flags=flags: load(None, {}, flags)  # type: ignore[misc]
                signal.raise_signal(signal.SIGHUP)
                await trio.testing.wait_all_tasks_blocked(0.01)
                told += map(json.loads, capfd.readouterr().err.splitlines())
            signal.raise_signal(signal.SIGTERM)
    assert [(row["level"], row["event"]) for row in told] == [
        ("info", "read the log level anew"),
        ("info", "read the log level anew"),
        ("warning", "an option has changed, and takes a restart"),
    ]
    assert (told[-1]["option"], told[-1]["value"], told[-1]["in_use"]) == ("lease_ms", "9s", "1min")


@pytest.mark.trio
async def test_systemd_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "60000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        running = Running(FakeBroker(), tmp_path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.live)
            async with await running.connected():
                signal.raise_signal(signal.SIGTERM)
        heard = set()
        try:
            while True:
                heard.add(manager.recv(1000))
        except BlockingIOError:
            pass
    assert heard == {b"READY=1\nSTATUS=serving", b"WATCHDOG=1", b"STOPPING=1"}
