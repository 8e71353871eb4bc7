"""What programmes that press on a broker share: a daemon that is watched, and clients of bytes.

The daemon is a process; how much memory and how many descriptors it takes is read from /proc, the
peak by a thread that looks every few ms. A `Wire` is a connection over a blocking socket that says
and hears frames, and may be abused beneath that.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from telpher.protocol import batch as b
from telpher.protocol import frames as f
from telpher.protocol.connection import Connection, Role
from tests.daemon.process import DaemonProcess, serving

MIB: Final = 1 << 20
_LOOK_SECONDS: Final = 0.005
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_ANSWER_SECONDS: Final = 120.0


class Watched:
    """A daemon that serves, and the most memory that it ever had."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.path = daemon.unix
        self.daemon = daemon
        self.pid = daemon.process.pid
        self.base_bytes = self.peak_bytes = self.resident_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def resident_bytes(self) -> int:
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def begin(self) -> None:
        """Forget the peak so far."""
        self.peak_bytes = self.resident_bytes()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        with suppress(FileNotFoundError):  # it has ended
            while not self._stop.wait(_LOOK_SECONDS):
                self.peak_bytes = max(self.peak_bytes, self.resident_bytes())


@contextmanager
def watched(*flags: str) -> Iterator[Watched]:
    """A daemon with these flags in a directory that is gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="telpher-") as directory,
        serving(Path(directory), *flags) as daemon,
    ):
        found = Watched(daemon)
        try:
            yield found
        finally:
            found.stop()


class Wire:
    """One connection, at the level of frames."""

    def __init__(self, path: str, *, greets: bool = True, seconds: float = _ANSWER_SECONDS) -> None:
        self.socket = _connected(path, seconds)
        self.protocol = Connection(Role.CLIENT, 1 << 26)
        self._heard: list[f.Frame] = []
        if greets:
            self.say(f.Hello(0, (1,), "abuse", {"heartbeat_ms": 120_000}))
            assert isinstance(self.hear(), f.Welcome)

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def bytes_of(self, frame: f.Frame) -> bytes:
        return self.protocol.send(frame)

    def say(self, *frames: f.Frame) -> None:
        self.socket.sendall(b"".join(map(self.bytes_of, frames)))

    def hear(self) -> f.Frame:
        """The next frame that is no heartbeat; EOFError when the broker has hung up."""
        while not self._heard:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError("the broker closed the connection")
            for frame in self.protocol.receive_data(data):
                if isinstance(frame, f.Ping):
                    self.say(f.Pong(frame.request))
                elif not isinstance(frame, f.Pong):
                    self._heard.append(frame)
        return self._heard.pop(0)

    def ask(self, frame: f.Frame) -> Any:
        """Say it, and what is heard next."""
        self.say(frame)
        return self.hear()

    def close(self) -> None:
        self.socket.close()


def _connected(path: str, seconds: float) -> socket.socket:
    """A connection, when there is room for it in the queue of those that wait to be accepted."""
    until = time.perf_counter() + seconds
    while True:
        found = socket.socket(socket.AF_UNIX)
        found.settimeout(seconds)
        try:
            found.connect(path)
        except BlockingIOError:
            found.close()
            if time.perf_counter() > until:
                raise
            time.sleep(0.01)
        else:
            return found


def batch_of(messages: int, body_bytes: int) -> bytes:
    """An encoded batch of so many equal messages."""
    return b.encode(b.Columns(None, (os.urandom(body_bytes),) * messages, None, None))


def publish(request: int, channel: str, batch: bytes) -> f.Publish:
    return f.Publish(request, channel, None, 0, None, batch)


class Flood:
    """Publishes flat out, so many batches under way at a time."""

    def __init__(self, wire: Wire, channel: str, batch: bytes, window: int = 16) -> None:
        self._wire, self._channel, self._batch = wire, channel, batch
        self._window = window
        self._request = 0
        self._under_way = 0
        self.confirmed = 0
        self.refused: dict[str, int] = {}

    def send(self, batches: int) -> int:
        """Publish so many, or fewer when one is refused; how many bytes were confirmed."""
        before, refused = self.confirmed, len(self.refused)
        for _ in range(batches):
            if self._under_way >= self._window:
                self._answer()
            if len(self.refused) > refused:
                break
            self._request += 1
            self._wire.say(publish(self._request, self._channel, self._batch))
            self._under_way += 1
        while self._under_way:
            self._answer()
        return (self.confirmed - before) * len(self._batch)

    def _answer(self) -> None:
        frame = self._wire.hear()
        self._under_way -= 1
        if isinstance(frame, f.Confirm):
            self.confirmed += 1
        else:
            assert isinstance(frame, f.Refused), frame
            self.refused[frame.code] = self.refused.get(frame.code, 0) + 1


def drain(wire: Wire, channel: str, messages: int) -> int:
    """Consume and settle so many; how many came, in order and once each."""
    wire.say(f.Consume(1, channel, None, {"prefetch": 10_000}))
    came = 0
    while came < messages:
        frame = wire.hear()
        if isinstance(frame, f.Deliver):
            for first, _, _, batch, *_ in frame.parts:
                count = len(b.decode(batch).bodies)
                assert first == came, f"offset {first} came after {came} messages"
                came += count
                wire.say(f.Settle(came + 10, 1, f.Outcome.ACK, (first, first + count), 0))
    return came


def allow_descriptors(wanted: int) -> int:
    """Let this process have so many open files, as far as the system does; how many it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft


def healthy(path: str) -> subprocess.Popen[str]:
    """A process with a healthy pair; see `pair.py`."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.torture.pair", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
