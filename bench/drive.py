"""The plain path in one process, step by step: what the guard counts.

    python -m bench.drive (telpher|limit) BATCHES

A server and a client that hardly does anything share a trio loop and a pair of sockets. The client
publishes a batch, takes it, acknowledges it, and only then goes on: so the server does the same
work in every run, whatever else the machine does. Prints the least processor time of a batch in µs,
a part of it the client's.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import trio

from telpher.protocol import batch as b
from telpher.protocol import frames as f
from telpher.protocol.codec import LENGTH, encode
from telpher_broker.core import Broker
from telpher_broker.listeners import Peer
from telpher_broker.options import Settings
from telpher_storage import StorageSettings
from telpher_storage.registry import open_storage

from .relay import COUNT, Relay
from .roles.limit import frame_of

BODIES = [bytes(100)] * 1000
QUEUE = "bench"
# One slice is a few milliseconds: the least of many finds a moment without disturbance.
SLICE_BATCHES = 10
_RECEIVE_BYTES = 1 << 20
_RELAYED = 1

Step = Callable[[int], Awaitable[None]]


class Frames:
    """Reads whole frames and looks only at their lengths."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = b""

    async def skip(self, count: int) -> None:
        """Read so many frames."""
        data = self._rest
        for _ in range(count):
            while len(data) < LENGTH.size:
                data += await self._stream.receive_some(_RECEIVE_BYTES)
            end = LENGTH.size + LENGTH.unpack_from(data)[0]
            while len(data) < end:
                data += await self._stream.receive_some(_RECEIVE_BYTES)
            data = data[end:]
        self._rest = data


def pair(sockets: ExitStack) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a connection, which end with the stack."""
    ours, theirs = map(sockets.enter_context, socket.socketpair())
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(ours)),
        trio.SocketStream(trio.socket.from_stdlib_socket(theirs)),
    )


async def telpher(nursery: trio.Nursery, directory: Path, sockets: ExitStack) -> Step:
    """A broker with one client on it."""
    settings = Settings(data_dir=directory, fsync="no")
    storage = open_storage(StorageSettings(directory, settings.persistence))
    broker = Broker(settings, storage)
    broker.recover()
    await nursery.start(_run, broker)
    ours, theirs = pair(sockets)
    nursery.start_soon(broker.serve, theirs, Peer("drive"))
    frames = Frames(ours)
    await ours.send_all(encode(f.Hello(0, (f.PROTOCOL_VERSION,), "drive", {})))
    await frames.skip(1)
    options = {"prefetch": 1_000_000}
    await ours.send_all(encode(f.Consume(1, QUEUE, None, options)))
    await frames.skip(1)
    batch = b.encode(b.Columns(None, BODIES, None, None))
    publish = encode(f.Publish(2, QUEUE, None, 0, None, batch))

    async def step(index: int) -> None:
        await ours.send_all(publish)
        await frames.skip(2)
        first = index * len(BODIES)
        await ours.send_all(encode(f.Settle(3, 1, f.Outcome.ACK, (first, first + len(BODIES)), 0)))
        await frames.skip(1)

    return step


async def _run(broker: Broker, *, task_status: trio.TaskStatus[None]) -> None:
    await broker.run(task_status=task_status)


async def limit(nursery: trio.Nursery, directory: Path, sockets: ExitStack) -> Step:
    """The bare relay with a producer and a consumer on it."""
    relay = Relay(directory / "log", False)
    producer, its_end = pair(sockets)
    nursery.start_soon(relay.serve, its_end)
    consumer, other_end = pair(sockets)
    nursery.start_soon(relay.serve, other_end)
    await consumer.send_all(bytes([ord("C"), _RELAYED]))
    await consumer.receive_some(1)
    await producer.send_all(bytes([ord("P"), _RELAYED]))
    await producer.receive_some(1)
    frames, frame, ack = Frames(consumer), frame_of(BODIES), COUNT.pack(1)

    async def step(index: int) -> None:
        await producer.send_all(frame)
        await frames.skip(1)
        await producer.receive_some(COUNT.size)
        await consumer.send_all(ack)

    return step


async def drive(name: str, batches: int) -> float:
    """The least processor time of a batch in µs."""
    least = float("inf")
    with tempfile.TemporaryDirectory(prefix="bench-drive-") as directory, ExitStack() as sockets:
        async with trio.open_nursery() as nursery:
            begin = {"telpher": telpher, "limit": limit}[name]
            step = await begin(nursery, Path(directory), sockets)
            for first in range(0, batches, SLICE_BATCHES):
                before = time.process_time()
                for index in range(first, first + SLICE_BATCHES):
                    await step(index)
                least = min(least, time.process_time() - before)
            nursery.cancel_scope.cancel()
    return least / SLICE_BATCHES * 1e6


if __name__ == "__main__":
    print(trio.run(drive, sys.argv[1], int(sys.argv[2])))
