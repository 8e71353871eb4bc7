"""Telpher's roles: the public client, on trio where there is much to move, on asyncio where it is
one message at a time (it is some percent faster there), without await where the role says `sync`.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import trio

import telpher
import telpher.sync

from ..job import (
    JOBS,
    PING_SECONDS,
    QUEUE,
    REPLIES,
    Job,
    Outcome,
    begin,
    begin_async,
    span,
    word_coming,
)
from ..latency import latencies
from ..wire import Wire

SEND_MANY = 10_000
# A consumer holds at most about so many bytes, however large the bodies are.
HELD_BYTES = 16 * 1024 * 1024
HELD_MESSAGES = 20_000
PASS_BYTES = 4 * 1024 * 1024


def url(job: Job) -> str:
    """Where the daemon listens."""
    return f"telpher://{job.address}"


def prefetch(job: Job) -> int:
    """Enough to keep a consumer busy."""
    return max(8, min(HELD_MESSAGES, HELD_BYTES // max(1, job.body_bytes)))


def on_one_bus(role: Callable[[Any, Job], Awaitable[Outcome]]) -> Callable[[Job], Outcome]:
    """Makes a role of a function that wants a bus."""

    async def connected(job: Job) -> Outcome:
        async with telpher.connect(url(job)) as bus:
            return await role(bus, job)

    def play(job: Job) -> Outcome:
        return anyio.run(connected, job, backend=job.options.get("loop", "trio"))

    play.__doc__ = role.__doc__
    return play


def on_many_buses(role: Callable[[list[Any], Job], Awaitable[Outcome]]) -> Callable[[Job], Outcome]:
    """Makes a role of a function that wants `connections` buses; on asyncio."""

    async def connected(job: Job) -> Outcome:
        async with AsyncExitStack() as stack:
            return await role(await connect_all(stack, job, job.options["connections"]), job)

    def play(job: Job) -> Outcome:
        return anyio.run(connected, job)

    play.__doc__ = role.__doc__
    return play


async def connect_all(stack: AsyncExitStack, job: Job, count: int) -> list[Any]:
    """So many connections, one after the other: a bus belongs to the task that entered it."""
    return [await stack.enter_async_context(telpher.connect(url(job))) for _ in range(count)]


# --- throughput


@on_one_bus
async def produce_batches(bus: Any, job: Job) -> Outcome:
    """Publish n messages by `send_many`, all confirmed."""
    body = job.body
    began = await begin_async()
    async with bus.producer(QUEUE) as producer:
        for sent in range(0, job.n, SEND_MANY):
            await producer.send_many([body] * min(SEND_MANY, job.n - sent))
    return span(began)


@on_one_bus
async def produce_messages(bus: Any, job: Job) -> Outcome:
    """Publish n messages by `send`, one by one, all confirmed."""
    body = job.body
    began = await begin_async()
    async with bus.producer(QUEUE) as producer:
        for _ in range(job.n):
            await producer.send(body)
    return span(began)


@on_one_bus
async def produce_unbatched(bus: Any, job: Job) -> Outcome:
    """Publish n messages, each a batch of its own, all confirmed."""
    body = job.body
    began = await begin_async()
    async with bus.producer(QUEUE, batch_messages=1, window=32) as producer:
        for _ in range(job.n):
            await producer.send(body)
    return span(began)


@on_many_buses
async def produce_from_many(buses: list[Any], job: Job) -> Outcome:
    """Publish n messages by `send_many` from all connections at once, all confirmed."""
    body = job.body

    async def produce(bus: Any, count: int) -> None:
        async with bus.producer(QUEUE) as producer:
            await producer.send_many([body] * count)

    began = await begin_async()
    async with anyio.create_task_group() as tasks:
        for bus, count in zip(buses, job.shares(len(buses)), strict=True):
            tasks.start_soon(produce, bus, count)
    return span(began)


@on_one_bus
async def consume_batches(bus: Any, job: Job) -> Outcome:
    """Receive and acknowledge n messages (or `at_least` n), a delivered batch at a time."""
    body, received = job.body, 0
    began = await begin_async()
    async with bus.consume(QUEUE, prefetch=prefetch(job)) as messages:
        async for batch in messages.batches():
            bodies = batch.bodies
            received += len(bodies)
            assert bodies[0] == body
            batch.ack()
            if received >= job.n:
                break
    assert received == job.n or (job.options.get("at_least") and received > job.n)
    return span(began)


@on_one_bus
async def consume_messages(bus: Any, job: Job) -> Outcome:
    """Receive and acknowledge n messages, one at a time."""
    body, received = job.body, 0
    began = await begin_async()
    async with bus.consume(QUEUE, prefetch=prefetch(job)) as messages:
        async for message in messages:
            received += 1
            assert message.body == body
            message.ack()
            if received >= job.n:
                break
    assert received == job.n
    return span(began)


# --- one at a time


@on_many_buses
async def publish_each(buses: list[Any], job: Job) -> Outcome:
    """Publish n messages, on each connection one after the other, each confirmed."""
    body = job.body
    took: list[float] = []

    async def publish(bus: Any, count: int) -> None:
        for _ in range(count):
            before = time.perf_counter()
            await bus.publish(QUEUE, body)
            took.append(time.perf_counter() - before)

    began = await begin_async()
    async with anyio.create_task_group() as tasks:
        for bus, count in zip(buses, job.shares(len(buses)), strict=True):
            tasks.start_soon(publish, bus, count)
    return span(began, **latencies(took))


@on_one_bus
async def publish_in_flight(bus: Any, job: Job) -> Outcome:
    """Hand over `in_flight` messages and wait until they are on the disk, until it is n."""
    body, most = job.body, job.options["in_flight"]
    took: list[float] = []
    began = await begin_async()
    async with bus.producer(QUEUE, confirm="fsynced") as producer:
        for sent in range(0, job.n, most):
            before = time.perf_counter()
            count = min(most, job.n - sent)
            await producer.send_many([body] * count)
            await producer.flush()
            took += [time.perf_counter() - before] * count
    return span(began, **latencies(took))


@on_one_bus
async def publish_from_tasks(bus: Any, job: Job) -> Outcome:
    """Publish n messages from `in_flight` tasks, each waiting until its own is on the disk."""
    body = job.body
    took: list[float] = []

    async def publish(count: int) -> None:
        for _ in range(count):
            before = time.perf_counter()
            receipt = await bus.publish(QUEUE, body, confirm="fsynced")
            took.append(time.perf_counter() - before)
            assert receipt.level == "fsynced"

    began = await begin_async()
    async with anyio.create_task_group() as tasks:
        for count in job.shares(job.options["in_flight"]):
            tasks.start_soon(publish, count)
    return span(began, **latencies(took))


@on_one_bus
async def ask(bus: Any, job: Job) -> Outcome:
    """Send n jobs and wait for the reply to each before the next."""
    body = job.body
    took: list[float] = []
    async with bus.producer(JOBS) as producer, bus.consume(REPLIES, prefetch=1) as replies:
        began = await begin_async()
        for _ in range(job.n):
            before = time.perf_counter()
            await producer.send(body)
            reply = await anext(replies)
            took.append(time.perf_counter() - before)
            assert reply.body == body
            reply.ack()
        return span(began, **latencies(took))


@on_one_bus
async def answer(bus: Any, job: Job) -> Outcome:
    """Take n jobs and send back what came with each."""
    async with bus.producer(REPLIES) as producer, bus.consume(JOBS, prefetch=1) as jobs:
        began = await begin_async()
        for _ in range(job.n):
            message = await anext(jobs)
            await producer.send(message.body)
            message.ack()
    return span(began)


def ask_sync(job: Job) -> Outcome:
    """As `ask`, with the sync client."""
    body = job.body
    took: list[float] = []
    with (
        telpher.sync.connect(url(job)) as bus,
        bus.producer(JOBS) as producer,
        bus.consume(REPLIES, prefetch=1) as replies,
    ):
        began = begin()
        for _ in range(job.n):
            before = time.perf_counter()
            producer.send(body)
            reply = next(replies)
            took.append(time.perf_counter() - before)
            assert reply.body == body
            reply.ack()
        return span(began, **latencies(took))


def answer_sync(job: Job) -> Outcome:
    """As `answer`, with the sync client."""
    with (
        telpher.sync.connect(url(job)) as bus,
        bus.producer(REPLIES) as producer,
        bus.consume(JOBS, prefetch=1) as jobs,
    ):
        began = begin()
        for _ in range(job.n):
            message = next(jobs)
            producer.send(message.body)
            message.ack()
    return span(began)


# --- many readers


@on_many_buses
async def subscribe_all(buses: list[Any], job: Job) -> Outcome:
    """Receive n messages of a topic on each connection, each a durable subscription."""
    ended: list[float] = []
    joined = 0
    body = job.body

    async def read(index: int, ready: anyio.Event) -> None:
        nonlocal joined
        received = 0
        subscription = f"s{index}"
        async with buses[index].subscribe(QUEUE, subscription, prefetch=prefetch(job)) as messages:
            joined += 1
            if joined == len(buses):
                ready.set()
            async for batch in messages.batches():
                bodies = batch.bodies
                received += len(bodies)
                assert bodies[0] == body
                batch.ack()
                if received >= job.n:
                    break
            ended.append(time.monotonic())
        assert received == job.n

    async with anyio.create_task_group() as tasks:
        ready = anyio.Event()
        for index in range(len(buses)):
            tasks.start_soon(read, index, ready)
        await ready.wait()
        began = await begin_async()
    return {"began": began, "ended": max(ended)}


@on_many_buses
async def work_all(buses: list[Any], job: Job) -> Outcome:
    """Consume n messages together, each connection one at a time."""
    is_answered = job.options["is_answered"]
    received = 0

    async def work(bus: Any) -> None:
        nonlocal received
        async with bus.consume(QUEUE, prefetch=1) as messages:
            async for message in messages:
                received += 1
                is_last = received == job.n
                settled = message.ack()
                if is_answered or is_last:
                    await settled
                if is_last:
                    tasks.cancel_scope.cancel()

    began = await begin_async()
    async with anyio.create_task_group() as tasks:
        for bus in buses:
            tasks.start_soon(work, bus)
    assert received == job.n
    return span(began)


# --- numbers of things


@on_many_buses
async def stay_connected(buses: list[Any], job: Job) -> Outcome:
    """Do nothing until the word."""
    return span(await begin_async())


@on_one_bus
async def declare_queues(bus: Any, job: Job) -> Outcome:
    """Declare `queues` queues and leave them empty."""
    began = await begin_async()
    for index in range(job.options["queues"]):
        await bus.declare(f"{QUEUE}-{index}")
    return span(began)


def spread(job: Job) -> Outcome:
    """Publish n messages, to `queues` queues in turn, after one to each."""

    async def play() -> Outcome:
        queues, in_flight, body = job.options["queues"], job.options["in_flight"], job.body
        names = [f"{QUEUE}-{index}" for index in range(queues)]
        wire = await Wire.connect(job.host, job.port)
        async with telpher.connect(url(job)) as bus:
            for name in names:
                await bus.declare(name)
        turn = [names[index % queues] for index in range(job.n)]
        began = await begin_async()
        await wire.publish(turn, body, in_flight)
        return span(began)

    return trio.run(play)


@on_one_bus
async def pass_through(bus: Any, job: Job) -> Outcome:
    """Publish n messages and consume as many meanwhile, so that as many wait as before."""
    body = job.body
    most = max(1, PASS_BYTES // max(1, job.body_bytes))
    taken = 0
    began = await begin_async()
    async with bus.producer(QUEUE) as producer, bus.consume(QUEUE, prefetch=most) as messages:
        for sent in range(0, job.n, most):
            count = min(most, job.n - sent)
            await producer.send_many([body] * count)
            await producer.flush()
            while taken < sent + count:
                message = await anext(messages)
                assert message.body == body
                message.ack()
                taken += 1
    return span(began)


@on_one_bus
async def ping(bus: Any, job: Job) -> Outcome:
    """Ask something small every millisecond until the next word: the longest wait."""
    took: list[float] = []
    began = await begin_async()
    enough = word_coming()
    while not enough.is_set():
        before = time.perf_counter()
        await bus.call("list", limit=1)
        took.append(time.perf_counter() - before)
        await anyio.sleep(PING_SECONDS)
    return span(began, longest_ms=max(took) * 1000)


# --- latency under load

_STAMP = struct.Struct("<d")
_TICK_SECONDS = 0.001


@on_one_bus
async def produce_at_rate(bus: Any, job: Job) -> Outcome:
    """Publish n messages at `msgs_per_s`, each stamped with the time when it was due."""
    rate = job.options["msgs_per_s"]
    padding = job.body[_STAMP.size :]
    began = await begin_async()
    sent = 0
    async with bus.producer(QUEUE) as producer:
        while sent < job.n:
            due = min(job.n, int((time.monotonic() - began) * rate) + 1)
            for index in range(sent, due):
                await producer.send(_STAMP.pack(began + index / rate) + padding)
            sent = due
            await anyio.sleep(_TICK_SECONDS)
    return span(began)


@on_one_bus
async def consume_stamped(bus: Any, job: Job) -> Outcome:
    """Receive n stamped messages; how old each was when it came."""
    took: list[float] = []
    began = await begin_async()
    async with bus.consume(QUEUE, prefetch=prefetch(job)) as messages:
        async for batch in messages.batches():
            now = time.monotonic()
            took += [now - _STAMP.unpack_from(body)[0] for body in batch.bodies]
            batch.ack()
            if len(took) >= job.n:
                break
    assert len(took) == job.n
    return span(began, **latencies(took))
