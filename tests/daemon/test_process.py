"""The daemon as a process: readiness, kill and replay, orderly stop, and every way not to start."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio

import telpher
from telpher.protocol.codec import encode
from telpher.protocol.frames import Hello
from telpher_broker import daemon
from telpher_broker.exit_codes import ExitCode

from .process import DaemonProcess, failing, serving

T = TypeVar("T")
BODIES = [b"message %d" % number for number in range(3000)]


def on_bus(url: str, work: Callable[[telpher.Bus], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with telpher.connect(url) as bus:
            return await work(bus)

    return trio.run(connected)


async def publish_all(bus: telpher.Bus) -> None:
    async with bus.producer("jobs") as producer:
        await producer.send_many(BODIES)


async def take_all(bus: telpher.Bus) -> list[bytes]:
    bodies: list[bytes] = []
    while batch := await bus.fetch("jobs", max=1000):
        bodies += batch.bodies
        await batch.ack()
    return bodies


def test_messages_survive_kill_and_come_back_over_both_sockets(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        on_bus(daemon.url, publish_all)
        daemon.kill()
    with serving(tmp_path) as daemon:
        assert daemon.event("recovered")["messages"] == len(BODIES)
        assert daemon.event("recovered")["clean"] is False
        assert on_bus(daemon.unix_url, take_all) == BODIES
        daemon.kill()
    with serving(tmp_path) as daemon:
        assert on_bus(daemon.url, take_all) == []
        assert daemon.stop() == ExitCode.OK


def test_an_orderly_stop_is_clean(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        on_bus(daemon.url, publish_all)
        assert daemon.stop() == ExitCode.OK
        assert daemon.event("stopping")["signal"] == "SIGTERM"
        assert daemon.event("stopped")
        assert not (tmp_path / "sock").exists()
    with serving(tmp_path) as daemon:
        assert daemon.event("recovered")["clean"] is True
        assert on_bus(daemon.url, take_all) == BODIES


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    # A client that holds on, so that the orderly stop has something to wait for.
    with (
        serving(tmp_path, "--drain-seconds", "1h") as daemon,
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(daemon.unix)
        client.sendall(encode(Hello(0, (1,), "a test", {})))
        assert client.recv(4096)
        daemon.signal(signal.SIGTERM)
        assert client.recv(4096)  # GOAWAY: the stop has begun
        daemon.signal(signal.SIGINT)
        assert daemon.ended() == ExitCode.QUIT
    with serving(tmp_path) as daemon:  # the socket that was left behind is replaced
        assert daemon.stop() == ExitCode.OK


def test_the_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        with serving(tmp_path) as daemon:
            on_bus(daemon.url, publish_all)
            assert (tmp_path / "sock").stat().st_mode & 0o777 == 0o600
            assert daemon.data.stat().st_mode & 0o777 == 0o700
            assert {file.stat().st_mode & 0o777 for file in daemon.data.iterdir()} == {0o600}
    finally:
        os.umask(previous)


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, line = failing(tmp_path, "--listen", f"127.0.0.1:{port}")
    assert code == ExitCode.LISTEN
    assert f"127.0.0.1:{port}: another process listens there" in line
    assert not (tmp_path / "sock").exists()


def test_a_variable_that_nobody_heeds_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, extra={"TELPHER_FOO": "3", "TELPHER_URL": "telpher://x"}) as daemon:
        told = daemon.event("there are no options for these variables")
    assert (told["level"], told["variables"]) == ("warning", "TELPHER_FOO")


def test_a_data_directory_in_use(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with serving(tmp_path) as daemon:
        code, line = failing(other, "--data-dir", str(daemon.data))
        assert code == ExitCode.LOCKED
        assert str(daemon.data) in line
        assert on_bus(daemon.url, take_all) == []


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_data_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Whoever may write there may have put there what the broker would take for its own."""
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(daemon.StartError, match=f"chmod go-w {directory}") as caught:
        daemon._prepare(directory, "aof")
    assert caught.value.code is ExitCode.DATA_DIR
    assert not list(directory.iterdir())
    daemon._prepare(directory, "none")


def test_a_data_directory_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(daemon.StartError, match="run the broker as its owner"):
        daemon._prepare(tmp_path, "aof")


def test_a_data_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    code, line = failing(tmp_path)
    assert code == ExitCode.DATA_DIR
    assert str(tmp_path / "data") in line


def test_a_faulty_configuration_lists_every_fault(tmp_path: Path) -> None:
    file = tmp_path / "telpher.toml"
    file.write_text('fsync = "sometimes"\nheartbeat = 3\n')
    started = DaemonProcess(tmp_path, "--config", str(file), "--lease-ms", "1")
    assert started.ended() == ExitCode.USAGE
    text = started.log.read_text()
    assert "3 faults" in text
    assert f"fsync = 'sometimes' (from {file})" in text
    assert "did you mean heartbeat_ms?" in text
    assert "lease_ms = '1' (from --lease-ms): too small" in text


def test_a_damaged_log_is_refused_with_the_cure(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        on_bus(daemon.url, publish_all)
        assert daemon.stop() == ExitCode.OK
        (log, *_) = sorted(daemon.data.glob("increment-*"))
        data = bytearray(log.read_bytes())
        data[len(data) // 2] ^= 1
        log.write_bytes(data)
    code, line = failing(tmp_path)
    assert code == ExitCode.DAMAGED
    assert str(log) in line
    assert f"telpher repair {daemon.data}" in line


def test_strangers_on_the_port_do_no_harm(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        host, port = daemon.tcp.split(":")
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x02\xc1\xc1", b"\xff" * 100):
            with socket.create_connection((host, int(port))) as stranger:
                stranger.sendall(noise)
                stranger.settimeout(10)
                while stranger.recv(4096):
                    pass
        assert on_bus(daemon.url, take_all) == []
        assert all("exception" not in row for row in daemon.events())
        assert daemon.stop() == ExitCode.OK


SIGNALLED_LATE = """
import os, signal, sys
from telpher_broker import cli, daemon

live = daemon.Daemon.live

async def signalled(self):
    code = await live(self)
    os.kill(os.getpid(), signal.SIGTERM)
    return code

daemon.Daemon.live = signalled
sys.exit(cli.main(sys.argv[sys.argv.index("serve"):]))
"""


def test_a_signal_after_a_failed_disk_leaves_its_exit_code(tmp_path: Path) -> None:
    """The loop, which hears signals, has ended by then; the process has not."""

    async def publish_until_it_breaks() -> None:
        async with telpher.connect(daemon.url, reconnect_seconds=0.1) as bus:
            while True:
                await bus.publish("jobs", b"x" * 10_000)

    program = tmp_path / "signalled_late.py"
    program.write_text(SIGNALLED_LATE)
    tracer = (sys.executable, str(program))
    with serving(tmp_path, "--reserve-bytes", "0", tracer=tracer) as daemon:
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
        with pytest.raises(telpher.Broken):
            trio.run(publish_until_it_breaks)
        assert daemon.ended() == ExitCode.DISK_FAILED


def test_a_failed_disk_ends_it_and_nothing_confirmed_is_lost(tmp_path: Path) -> None:
    confirmed: list[int] = []

    async def publish_until_it_breaks() -> None:
        async with telpher.connect(daemon.url, reconnect_seconds=0.1) as bus:
            while True:
                receipt = await bus.publish("jobs", b"x" * 10_000)
                confirmed.append(receipt.offset)

    with serving(tmp_path, "--reserve-bytes", "0") as daemon:
        # The kernel refuses to let the log grow beyond this, as a broken disk would.
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
        with pytest.raises(telpher.Broken):
            trio.run(publish_until_it_breaks)
        assert daemon.ended() == ExitCode.DISK_FAILED
        assert "the disk failed" in daemon.events()[-1]["event"]
        assert all("exception" not in row for row in daemon.events())
    assert confirmed
    with serving(tmp_path) as daemon:
        assert on_bus(daemon.url, take_all)[: len(confirmed)] == [b"x" * 10_000] * len(confirmed)
