"""The ledger: a process of its own that writes down what clients sent, were told and were given.

Clients tell it events over a socket before they do a thing and after they were answered, so that
what a client knew outlives the client. Each event is a line of JSON, `[name, arguments, options]`,
a call of `History`. The lines are appended to a file which is synced before they count, and judged
as they come. `python -m tests.torture.ledger DIRECTORY` judges a ledger that was kept once more.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from .history import History

ROOT = Path(__file__).parents[2]
SYNC_SECONDS = 0.02
_READ_BYTES = 1 << 20
_GONE = b'["gone", [], {}]\n'
_COUNTS = struct.Struct("=4Q")


class Counts(NamedTuple):
    """What the ledger has on disk, in messages; how often all was drained; what was found."""

    confirmed: int
    settled: int
    drained: int
    findings: int


class Teller:
    """A client's end. What was told counts even if the teller is killed at once."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(directory / "ledger.sock"))

    def tell(self, event: str, *arguments: Any, **options: Any) -> None:
        """Say one event; returns when it is out of this process's hands."""
        self.say(json.dumps([event, arguments, options]).encode() + b"\n")

    def say(self, data: bytes) -> None:
        """Say what tells an event, or a part of it."""
        self._socket.sendall(data)

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class Ledger:
    """The starter's end: the process, and its counts, which are read without asking it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        counts = directory / "counts"
        counts.write_bytes(bytes(_COUNTS.size))
        with counts.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _COUNTS.size)
        command = [sys.executable, "-m", "tests.torture.ledger", "--serve", str(directory)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError("the ledger did not start")

    def counts(self) -> Counts:
        """As of the last sync."""
        return Counts(*_COUNTS.unpack(self._shared[:]))

    def close(self) -> dict[str, Any]:
        """End it when it has heard everybody out; its verdict, see `_Judge.verdict`."""
        with Teller(self.directory) as teller:
            teller.tell("close")
        assert self.process.stdout is not None
        verdict: dict[str, Any] = json.loads(self.process.stdout.read())
        self.process.wait()
        return verdict

    def clear(self) -> None:
        """Leave nothing open, however it ended."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._shared.close()


class _Judge:
    """What is made of the lines."""

    def __init__(self) -> None:
        self.history = History()
        self.drained = 0
        self._listeners: list[str] = []

    def take(self, lines: Iterable[bytes]) -> bool:
        """Judge some lines, up to the close; True if it came. A line that broke off is no line."""
        for line in lines:
            if not line.endswith(b"\n"):
                continue
            name, arguments, options = json.loads(line)
            if name == "close":
                return True
            if name == "gone":
                self._forget_listeners()
            elif name != "reads" or not self.history.knows(arguments[0]):
                getattr(self.history, name)(*arguments, **options)
                self.drained += name == "end"
                self._listeners += [arguments[0]] if options.get("told") else []
        return False

    def _forget_listeners(self) -> None:
        """A teller has gone, and its ephemeral subscribers with it."""
        for name in self._listeners:
            self.history.leaves(name)
        self._listeners.clear()

    def counts(self) -> Counts:
        history = self.history
        found = len(history.findings)
        return Counts(history.confirmed_messages, history.settled_messages, self.drained, found)

    def verdict(self) -> dict[str, Any]:
        history = self.history
        return {
            "counts": dict(history.counts),
            "findings": [str(finding) for finding in history.findings],
            "sent": history.sent_messages,
            "confirmed": history.confirmed_messages,
            "delivered": history.delivered_messages,
            "settled": history.settled_messages,
            "drained": self.drained,
        }


def _serve(directory: Path) -> None:
    """Hear one teller after the other, each to its end, until one says that it is the last."""
    judge = _Judge()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "ledger.sock"))
    listener.listen()
    with (directory / "counts").open("r+b") as file:
        shared = mmap.mmap(file.fileno(), _COUNTS.size)
    book = _Book(directory / "ledger")
    print("ready", flush=True)
    closed = False
    while not closed:
        teller, _ = listener.accept()
        with teller:
            closed = _hear(teller, book, judge, shared)
    listener.close()
    print(json.dumps(judge.verdict()), flush=True)


def _hear(teller: socket.socket, book: _Book, judge: _Judge, shared: mmap.mmap) -> bool:
    teller.settimeout(SYNC_SECONDS)
    closed, rest, data = False, b"", b"more"
    while data and not closed:
        try:
            data = teller.recv(_READ_BYTES)
        except TimeoutError:
            book.sync()
        else:
            lines = (rest + data).splitlines(keepends=True) if data else [_GONE]
            rest = b"" if not lines or lines[-1].endswith(b"\n") else lines.pop()
            book.append(b"".join(lines))
            closed = judge.take(lines)
        if not data or closed or book.is_due:
            book.sync()
        if not book.is_dirty:
            shared[:] = _COUNTS.pack(*judge.counts())
    return closed


class _Book:
    """The file of lines. What came within SYNC_SECONDS is synced together."""

    def __init__(self, path: Path) -> None:
        self.is_dirty = False
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._synced_at = 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._synced_at > SYNC_SECONDS

    def append(self, data: bytes) -> None:
        self.is_dirty = True
        while data:
            data = data[os.write(self._fd, data) :]

    def sync(self) -> None:
        os.fdatasync(self._fd)
        self.is_dirty = False
        self._synced_at = time.monotonic()


def judged(directory: Path) -> dict[str, Any]:
    """The verdict on a ledger that was kept."""
    judge = _Judge()
    with (directory / "ledger").open("rb") as lines:
        judge.take(lines)
    return judge.verdict()


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        _serve(Path(sys.argv[2]))
    else:
        print(json.dumps(judged(Path(sys.argv[1])), indent=1))
