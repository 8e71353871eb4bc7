"""A broker in memory with clients that speak frames: virtual time, no sockets, no disk.

`Peer` is a client that says exactly what a test tells it to and hands back what it hears.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from telpher.protocol import batch as b
from telpher.protocol import frames as f
from telpher.protocol.connection import Connection, Role
from telpher.protocol.frames import Frame
from telpher_broker import listeners
from telpher_broker.core import Broker
from telpher_broker.options import Settings
from telpher_broker.strangers import Arrival
from telpher_storage import MemoryRecordsStorage, Storage

MEMORY = listeners.Peer("memory")


def batch(*bodies: bytes, **properties: int) -> bytes:
    """A batch of these bodies."""
    return b.encode(b.Columns(properties or None, bodies, None, None))


class Peer:
    """The client's side of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.protocol = Connection(Role.CLIENT, 1 << 26)
        self._heard: list[Frame] = []

    async def say(self, *frames: Frame) -> None:
        """Send frames in one piece."""
        await self.stream.send_all(b"".join(self.protocol.send(frame) for frame in frames))

    async def hear(self) -> Frame:
        """The next frame that is no heartbeat."""
        while not self._heard:
            data = await self.stream.receive_some(1 << 16)
            if not data:
                raise EOFError("the broker closed the connection")
            self._heard += [
                frame
                for frame in self.protocol.receive_data(bytes(data))
                if not isinstance(frame, f.Ping)
            ]
        return self._heard.pop(0)

    async def ask(self, frame: Frame) -> Frame:
        """Send a frame and give back what is heard next."""
        await self.say(frame)
        return await self.hear()

    async def open(self, **options: Any) -> f.Welcome:
        """Say HELLO."""
        welcome = await self.ask(f.Hello(0, (1,), "test", options))
        assert isinstance(welcome, f.Welcome)
        return welcome


class House:
    """A running broker, and as many peers as a test wants."""

    def __init__(self, broker: Broker, nursery: trio.Nursery) -> None:
        self.broker = broker
        self._nursery = nursery

    def stranger(
        self,
        origin: listeners.Peer = MEMORY,
        *,
        lockstep: bool = False,
        arrival: Arrival | None = None,
    ) -> Peer:
        """A peer that has connected and said nothing; in lockstep, nothing waits in between."""
        pair = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        ours, theirs = pair()
        self._nursery.start_soon(self.broker.serve, theirs, origin, arrival)
        return Peer(ours)

    async def peer(self, **options: Any) -> Peer:
        """A peer with an open session."""
        peer = self.stranger()
        await peer.open(**options)
        return peer


@asynccontextmanager
async def house(storage: Storage | None = None, **settings: Any) -> AsyncIterator[House]:
    """A broker that runs for the length of the block; killed at its end, not drained."""
    storage = storage or MemoryRecordsStorage()
    broker = Broker(Settings(**settings), storage)
    broker.recover()
    async with trio.open_nursery() as nursery:
        await nursery.start(_run, broker)
        yield House(broker, nursery)
        nursery.cancel_scope.cancel()


async def _run(broker: Broker, *, task_status: trio.TaskStatus[None]) -> None:
    await broker.run(task_status=task_status)
