"""Bad weather between a client and a daemon: a TCP proxy that gives each connection its fate.

A fate begins with how the bytes travel (late, in crumbs) and has one end. A connection that falls
silent stays open at both sides: what comes is swallowed, and no word of it is passed on, as where a
link is down. So each side must find out by itself, and how long that takes is noted.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import trio

CALM: Final = "calm"
CUT: Final = "cut"  # both sides see the end of the stream, perhaps within a frame
RESET: Final = "reset"  # both sides see a reset; what was under way is lost
SILENT: Final = "silent"  # nothing passes any more
DEAF: Final = "deaf"  # nothing passes to the client any more
MUTE: Final = "mute"  # nothing passes to the daemon any more
QUICK_ENDS: Final = (CUT, CUT, RESET)
SLOW_ENDS: Final = (SILENT, SILENT, DEAF, MUTE)

_TO_CLIENT: Final = "to client"
_TO_DAEMON: Final = "to daemon"
_SWALLOWED: Final = {SILENT: (_TO_CLIENT, _TO_DAEMON), DEAF: (_TO_CLIENT,), MUTE: (_TO_DAEMON,)}
_PIECE_BYTES: Final = 64 * 1024
_CRUMBS_MAX: Final = 400  # in crumbs is only how a connection begins: it would take for ever


class Fate(NamedTuple):
    """`end` comes in the midst of the stream, when so many bytes have passed in a direction."""

    end: str = CALM
    after_bytes: int = 0
    direction: str = _TO_DAEMON
    delay_seconds: float = 0.0
    piece_bytes: int = _PIECE_BYTES


def fates(rng: random.Random, count: int, first_slow: int) -> Iterator[Fate]:
    """So many troubles, one in four of them a silent one; and then calm for ever."""
    for number in range(count):
        ends = SLOW_ENDS if number % 4 == first_slow else QUICK_ENDS
        is_greeting = rng.random() < 0.15
        yield Fate(
            rng.choice(ends),
            rng.randrange(1, 250) if is_greeting else rng.randrange(250, 2500),
            rng.choice([_TO_CLIENT, _TO_DAEMON]),
            rng.choice([0.0, 0.0, rng.uniform(0.001, 0.03)]),
            rng.choice([_PIECE_BYTES, _PIECE_BYTES, rng.randrange(1, 9)]),
        )
    while True:
        yield Fate()


@dataclass
class Passage:
    """What became of one connection. Times are trio's; None: it did not happen."""

    fate: Fate
    began: float
    heard: float | None = None  # the first byte from the daemon
    struck: float | None = None  # when its fate was fulfilled
    client_left: float | None = None
    daemon_left: float | None = None
    over: trio.Event = field(default_factory=trio.Event)


@dataclass
class Link:
    """The way of one client to the daemon: connections one after the other, each with its fate."""

    name: str
    daemon: str
    fates: Iterator[Fate]
    passages: list[Passage] = field(default_factory=list)
    calm: trio.Event = field(default_factory=trio.Event)
    url: str = ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, for ever."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"telpher://127.0.0.1:{listener.socket.getsockname()[1]}"
        await trio.serve_listeners(self._pass_on, [listener], task_status=task_status)

    @property
    def reconnect_seconds(self) -> list[float]:
        """After each connection that ended for the client: until the next one heard the daemon."""
        found = []
        for former, later in zip(self.passages, self.passages[1:], strict=False):
            if former.client_left is not None and later.heard is not None and former.heard:
                found.append(later.heard - former.client_left)
        return found

    async def _pass_on(self, client: trio.SocketStream) -> None:
        passage = Passage(next(self.fates), trio.current_time())
        self.passages.append(passage)
        if passage.fate.end == CALM:
            self.calm.set()
        host, _, port = self.daemon.rpartition(":")
        daemon = await trio.open_tcp_stream(host, int(port))
        crossing = _Crossing(passage, client, daemon)
        async with client, daemon, trio.open_nursery() as nursery:
            nursery.start_soon(crossing.carry, daemon, client, _TO_CLIENT)
            nursery.start_soon(crossing.carry, client, daemon, _TO_DAEMON)
        passage.over.set()


class _Crossing:
    """One connection under way."""

    def __init__(
        self, passage: Passage, client: trio.SocketStream, daemon: trio.SocketStream
    ) -> None:
        self._passage = passage
        self._client = client
        self._daemon = daemon

    async def carry(
        self, source: trio.SocketStream, sink: trio.SocketStream, direction: str
    ) -> None:
        """Carry one direction to its end, whatever that is."""
        passage = self._passage
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._carry(source, sink, direction)
        now = trio.current_time()
        if source is self._client and passage.client_left is None:
            passage.client_left = now
        elif source is self._daemon and passage.daemon_left is None:
            passage.daemon_left = now
        if not (passage.fate.end == SILENT and passage.struck):
            self._client.socket.close()
            self._daemon.socket.close()

    async def _carry(
        self, source: trio.SocketStream, sink: trio.SocketStream, direction: str
    ) -> None:
        fate, passage, passed, pieces = self._passage.fate, self._passage, 0, 0
        while data := await source.receive_some(_PIECE_BYTES):
            if direction == _TO_CLIENT and passage.heard is None:
                passage.heard = trio.current_time()
            if passage.struck is None and fate.delay_seconds:
                await trio.sleep(fate.delay_seconds)
            if passage.struck is None and fate.end != CALM and direction == fate.direction:
                data, rest = data[: fate.after_bytes - passed], data[fate.after_bytes - passed :]
                passed += len(data)
                pieces = await self._send(sink, data, pieces)
                if passed < fate.after_bytes:
                    continue
                passage.struck = trio.current_time()
                if self._strike():
                    return
                data = rest
            if passage.struck is None or direction not in _SWALLOWED.get(fate.end, ()):
                pieces = await self._send(sink, data, pieces)

    async def _send(self, sink: trio.SocketStream, data: bytes, pieces: int) -> int:
        size = self._passage.fate.piece_bytes if pieces < _CRUMBS_MAX else _PIECE_BYTES
        for start in range(0, len(data), size):
            await sink.send_all(data[start : start + size])
            pieces += 1
        return pieces

    def _strike(self) -> bool:
        """Fulfil the fate; whether that is the end of the connection for both sides."""
        end = self._passage.fate.end
        if end not in (CUT, RESET):
            return False
        for stream in (self._client, self._daemon):
            if end == RESET:
                linger = struct.pack("ii", 1, 0)
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            stream.socket.close()
        return True
