"""The bare relay's roles: msgpack batches, packed and unpacked, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
import trio

from ..job import Job, Outcome, begin_async, span
from ..latency import latencies
from ..relay import COUNT, RECEIVE_BYTES, Frames

WINDOW_FRAMES = 8
BATCH_MESSAGES = 1000
BATCH_BYTES = 256 * 1024
FORTH, BACK = 1, 2


def in_trio(role: Callable[[Job], Awaitable[Outcome]]) -> Callable[[Job], Outcome]:
    """Makes a role of an async function."""

    def play(job: Job) -> Outcome:
        return trio.run(role, job)

    play.__doc__ = role.__doc__
    return play


async def connect(job: Job, kind: bytes, channel: int) -> trio.SocketStream:
    """A connection of one kind."""
    stream = await trio.open_tcp_stream(job.host, job.port)
    await stream.send_all(kind + bytes([channel]))
    assert await stream.receive_some(1) == b"R"
    return stream


async def receive(stream: trio.SocketStream, most: int = RECEIVE_BYTES) -> bytes:
    """What has arrived; raises EOFError at the end."""
    data = await stream.receive_some(most)
    if not data:
        raise EOFError("the relay is gone")
    return bytes(data)


def frame_of(bodies: list[bytes]) -> bytes:
    """A batch as it travels."""
    batch: bytes = msgpack.packb(bodies)
    return COUNT.pack(len(batch)) + batch


def bodies_of(frames: bytes) -> list[list[bytes]]:
    """The batches of whole frames."""
    batches, start = [], 0
    while start < len(frames):
        end = start + 4 + COUNT.unpack_from(frames, start)[0]
        batches.append(msgpack.unpackb(frames[start + 4 : end]))
        start = end
    return batches


class Publisher:
    """Sends frames, at most `window` of them unconfirmed."""

    def __init__(self, stream: trio.SocketStream, window: int) -> None:
        self._stream = stream
        self._window = window
        self._unconfirmed = 0
        self._confirms = b""

    async def send(self, frame: bytes) -> None:
        """Send, and wait while the window is full."""
        await self._stream.send_all(frame)
        self._unconfirmed += 1
        while self._unconfirmed >= self._window:
            await self._wait()

    async def flush(self) -> None:
        """Wait until all is confirmed."""
        while self._unconfirmed:
            await self._wait()

    async def _wait(self) -> None:
        self._confirms += await receive(self._stream, 4096)
        end = len(self._confirms) - len(self._confirms) % 4
        self._unconfirmed -= sum(count for (count,) in COUNT.iter_unpack(self._confirms[:end]))
        self._confirms = self._confirms[end:]


@in_trio
async def produce_batches(job: Job) -> Outcome:
    """Publish n messages in batches, all confirmed."""
    body = job.body
    most = max(1, min(job.options.get("batch", BATCH_MESSAGES), BATCH_BYTES // len(body)))
    publisher = Publisher(await connect(job, b"P", FORTH), WINDOW_FRAMES)
    began = await begin_async()
    for sent in range(0, job.n, most):
        await publisher.send(frame_of([body] * min(most, job.n - sent)))
    await publisher.flush()
    return span(began)


@in_trio
async def consume_batches(job: Job) -> Outcome:
    """Receive n messages and acknowledge their frames."""
    body, received, cutter = job.body, 0, Frames()
    stream = await connect(job, b"C", FORTH)
    began = await begin_async()
    while received < job.n:
        frames, count = cutter.cut(await receive(stream))
        for bodies in bodies_of(frames):
            received += len(bodies)
            assert bodies[0] == body
        if count:
            await stream.send_all(COUNT.pack(count))
    assert received == job.n
    ended = span(began)
    await trio.sleep(0.05)  # let the last ack arrive before the counts are asked for
    return ended


@in_trio
async def publish_each(job: Job) -> Outcome:
    """Publish n messages, on each connection one after the other, each confirmed."""
    body = job.body
    took: list[float] = []
    connections = [await connect(job, b"P", FORTH) for _ in range(job.options["connections"])]

    async def publish(stream: trio.SocketStream, count: int) -> None:
        for _ in range(count):
            before = time.perf_counter()
            await stream.send_all(frame_of([body]))
            await receive(stream, 4)
            took.append(time.perf_counter() - before)

    began = await begin_async()
    async with trio.open_nursery() as nursery:
        for stream, count in zip(connections, job.shares(len(connections)), strict=True):
            nursery.start_soon(publish, stream, count)
    return span(began, **latencies(took))


@in_trio
async def publish_in_flight(job: Job) -> Outcome:
    """Publish n messages, `in_flight` at a time in one frame, each confirmed on the disk."""
    body, most = job.body, job.options["in_flight"]
    took: list[float] = []
    publisher = Publisher(await connect(job, b"P", FORTH), 1)
    began = await begin_async()
    for sent in range(0, job.n, most):
        before = time.perf_counter()
        count = min(most, job.n - sent)
        await publisher.send(frame_of([body] * count))
        took += [time.perf_counter() - before] * count
    return span(began, **latencies(took))


async def _receive_one(stream: trio.SocketStream, cutter: Frames) -> Any:
    count = 0
    while not count:
        frames, count = cutter.cut(await receive(stream))
    return frames


@in_trio
async def ask(job: Job) -> Outcome:
    """Send n jobs and wait for the reply to each before the next."""
    took: list[float] = []
    frame, cutter = frame_of([job.body]), Frames()
    jobs, replies = await connect(job, b"P", FORTH), await connect(job, b"C", BACK)
    publisher = Publisher(jobs, 2)
    began = await begin_async()
    for _ in range(job.n):
        before = time.perf_counter()
        await publisher.send(frame)
        assert await _receive_one(replies, cutter) == frame
        took.append(time.perf_counter() - before)
        await replies.send_all(COUNT.pack(1))
    return span(began, **latencies(took))


@in_trio
async def answer(job: Job) -> Outcome:
    """Take n jobs and send each back."""
    cutter = Frames()
    jobs, replies = await connect(job, b"C", FORTH), await connect(job, b"P", BACK)
    publisher = Publisher(replies, 2)
    began = await begin_async()
    for _ in range(job.n):
        await publisher.send(await _receive_one(jobs, cutter))
        await jobs.send_all(COUNT.pack(1))
    return span(began)
