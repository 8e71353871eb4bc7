"""Redis's roles, as its documentation has it fastest: pipelines outside of transactions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis
import redis.asyncio

from ..job import JOBS, PING_SECONDS, QUEUE, REPLIES, Job, Outcome, begin, span, word_coming
from ..latency import latencies

GROUP = "bench"
CONSUMER = "one"
PIPELINE_MESSAGES = 1000
PIPELINE_BYTES = 256 * 1024
BLOCK_MS = 5000
FIELD = b"b"
NEW = ">"


def connect(job: Job) -> redis.Redis:
    """A sync client."""
    client = redis.Redis(host=job.host, port=job.port)
    client.ping()
    return client


async def connect_async(job: Job) -> redis.asyncio.Redis:
    """An async client with one connection."""
    client = redis.asyncio.Redis(host=job.host, port=job.port, max_connections=1)
    await client.ping()
    return client


def in_asyncio(role: Callable[[Job], Awaitable[Outcome]]) -> Callable[[Job], Outcome]:
    """Makes a role of an async function."""

    def play(job: Job) -> Outcome:
        async def run() -> Outcome:
            return await role(job)

        return asyncio.run(run())

    play.__doc__ = role.__doc__
    return play


def _batch(job: Job) -> int:
    return max(1, min(PIPELINE_MESSAGES, PIPELINE_BYTES // max(1, job.body_bytes)))


def _publish(client: redis.Redis, body: bytes, count: int) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for _ in range(count):
            pipeline.xadd(QUEUE, {FIELD: body})
        pipeline.execute()


# --- throughput


def produce_batches(job: Job) -> Outcome:
    """Publish n messages by pipelines, all answered."""
    client, body, most = connect(job), job.body, _batch(job)
    began = begin()
    for sent in range(0, job.n, most):
        _publish(client, body, min(most, job.n - sent))
    return span(began)


def consume_batches(job: Job) -> Outcome:
    """Receive and acknowledge n messages; each acknowledgement travels with the next read."""
    client, body, most = connect(job), job.body, _batch(job)
    received = 0
    acks: list[bytes] = []
    began = begin()
    while received < job.n:
        with client.pipeline(transaction=False) as pipeline:
            if acks:
                pipeline.xack(QUEUE, GROUP, *acks)
            pipeline.xreadgroup(GROUP, CONSUMER, {QUEUE: NEW}, count=most, block=BLOCK_MS)
            answer = pipeline.execute()[-1]
        acks = []
        for message_id, fields in entries_of(answer):
            assert fields[FIELD] == body
            acks.append(message_id)
        received += len(acks)
        assert acks, "nothing came"
    client.xack(QUEUE, GROUP, *acks)
    assert received == job.n
    return span(began)


def entries_of(answer: Any) -> list[Any]:
    """The entries of the one stream that was read; RESP 3 answers with a map, RESP 2 a list."""
    if not answer:
        return []
    if isinstance(answer, dict):
        entries = next(iter(answer.values()))
        return list(entries[0]) if len(entries) == 1 and entries[0] else list(entries)
    return list(answer[0][1])


# --- one at a time


def publish_each(job: Job) -> Outcome:
    """Publish n messages, on each connection one after the other, each answered."""
    return _publish_each_sync(job) if job.options["connections"] == 1 else _publish_each(job)


def _publish_each_sync(job: Job) -> Outcome:
    client, body = connect(job), job.body
    took = []
    began = begin()
    for _ in range(job.n):
        before = time.perf_counter()
        client.xadd(QUEUE, {FIELD: body})
        took.append(time.perf_counter() - before)
    return span(began, **latencies(took))


@in_asyncio
async def _publish_each(job: Job) -> Outcome:
    body = job.body
    took: list[float] = []
    clients = [await connect_async(job) for _ in range(job.options["connections"])]

    async def publish(client: redis.asyncio.Redis, count: int) -> None:
        for _ in range(count):
            before = time.perf_counter()
            await client.xadd(QUEUE, {FIELD: body})
            took.append(time.perf_counter() - before)

    began = begin()
    shares = zip(clients, job.shares(len(clients)), strict=True)
    await asyncio.gather(*(publish(client, count) for client, count in shares))
    outcome = span(began, **latencies(took))
    await asyncio.gather(*(client.aclose() for client in clients))
    return outcome


def publish_in_flight(job: Job) -> Outcome:
    """Publish n messages by pipelines of `in_flight`, each answered after the server's fsync."""
    client, body, most = connect(job), job.body, job.options["in_flight"]
    took: list[float] = []
    began = begin()
    for sent in range(0, job.n, most):
        count = min(most, job.n - sent)
        before = time.perf_counter()
        _publish(client, body, count)
        took += [time.perf_counter() - before] * count
    return span(began, **latencies(took))


# --- through a worker and back; each round is one pipeline


def _exchange(pipeline: Any, take: str, give: str, body: bytes | None, ack: bytes | None) -> Any:
    if ack is not None:
        pipeline.xack(take, GROUP, ack)
    if body is not None:
        pipeline.xadd(give, {FIELD: body})
    pipeline.xreadgroup(GROUP, CONSUMER, {take: NEW}, count=1, block=BLOCK_MS)
    return pipeline


def ask_sync(job: Job) -> Outcome:
    """Send n jobs and wait for the reply to each before the next."""
    client, body = connect(job), job.body
    took: list[float] = []
    ack = None
    began = begin()
    for _ in range(job.n):
        before = time.perf_counter()
        pipeline = _exchange(client.pipeline(transaction=False), REPLIES, JOBS, body, ack)
        ((ack, fields),) = entries_of(pipeline.execute()[-1])
        took.append(time.perf_counter() - before)
        assert fields[FIELD] == body
    return span(began, **latencies(took))


def answer_sync(job: Job) -> Outcome:
    """Take n jobs and send back what came with each."""
    client = connect(job)
    body: Any = None
    ack = None
    began = begin()
    for _ in range(job.n):
        pipeline = _exchange(client.pipeline(transaction=False), JOBS, REPLIES, body, ack)
        ((ack, fields),) = entries_of(pipeline.execute()[-1])
        body = fields[FIELD]
    client.xadd(REPLIES, {FIELD: body})
    return span(began)


@in_asyncio
async def ask(job: Job) -> Outcome:
    """As `ask_sync`, with the async client."""
    client, body = await connect_async(job), job.body
    took: list[float] = []
    ack = None
    began = begin()
    for _ in range(job.n):
        before = time.perf_counter()
        pipeline = _exchange(client.pipeline(transaction=False), REPLIES, JOBS, body, ack)
        ((ack, fields),) = entries_of((await pipeline.execute())[-1])
        took.append(time.perf_counter() - before)
        assert fields[FIELD] == body
    await client.aclose()
    return span(began, **latencies(took))


@in_asyncio
async def answer(job: Job) -> Outcome:
    """As `answer_sync`, with the async client."""
    client = await connect_async(job)
    body: Any = None
    ack = None
    began = begin()
    for _ in range(job.n):
        pipeline = _exchange(client.pipeline(transaction=False), JOBS, REPLIES, body, ack)
        ((ack, fields),) = entries_of((await pipeline.execute())[-1])
        body = fields[FIELD]
    await client.xadd(REPLIES, {FIELD: body})
    await client.aclose()
    return span(began)


# --- many


@in_asyncio
async def subscribe_all(job: Job) -> Outcome:
    """Read n entries on each connection, each reader from its own place, as XREAD has it."""
    clients = [await connect_async(job) for _ in range(job.options["connections"])]
    body, most = job.body, _batch(job)

    async def read(client: redis.asyncio.Redis) -> None:
        received, last = 0, b"0"
        while received < job.n:
            entries = entries_of(await client.xread({QUEUE: last}, count=most, block=BLOCK_MS))
            assert all(fields[FIELD] == body for _, fields in entries)
            received, last = received + len(entries), entries[-1][0]
        assert received == job.n

    began = begin()
    await asyncio.gather(*map(read, clients))
    outcome = span(began)
    await asyncio.gather(*(client.aclose() for client in clients))
    return outcome


@in_asyncio
async def work_all(job: Job) -> Outcome:
    """Consume n messages together, each connection one at a time."""
    clients = [await connect_async(job) for _ in range(job.options["connections"])]
    received = 0

    async def answered(client: redis.asyncio.Redis, name: str) -> None:
        nonlocal received
        while received < job.n:
            entries = entries_of(await client.xreadgroup(GROUP, name, {QUEUE: NEW}, count=1))
            for message_id, _ in entries:
                await client.xack(QUEUE, GROUP, message_id)
                received += 1
            if not entries:
                return

    async def piped(client: redis.asyncio.Redis, name: str) -> None:
        """The ack of one travels with the request for the next."""
        nonlocal received
        ack: Any = None
        while received < job.n or ack is not None:
            async with client.pipeline(transaction=False) as pipeline:
                if ack is not None:
                    pipeline.xack(QUEUE, GROUP, ack)
                pipeline.xreadgroup(GROUP, name, {QUEUE: NEW}, count=1)
                entries = entries_of((await pipeline.execute())[-1])
            ack = entries[0][0] if entries else None
            received += len(entries)
            if not entries:
                return

    work = answered if job.options["is_answered"] else piped

    began = begin()
    await asyncio.gather(*(work(client, f"w{index}") for index, client in enumerate(clients)))
    assert received == job.n
    outcome = span(began)
    await asyncio.gather(*(client.aclose() for client in clients))
    return outcome


def stay_connected(job: Job) -> Outcome:
    """Do nothing until the word."""
    clients = [connect(job) for _ in range(job.options["connections"])]
    outcome = span(begin())
    for client in clients:
        client.close()
    return outcome


def declare_queues(job: Job) -> Outcome:
    """Make `queues` streams with a group and leave them empty."""
    client = connect(job)
    began = begin()
    for index in range(job.options["queues"]):
        client.xgroup_create(f"{QUEUE}-{index}", GROUP, id="0", mkstream=True)
    return span(began)


def spread(job: Job) -> Outcome:
    """Publish n messages to `queues` streams in turn, by pipelines of `in_flight`."""
    client, body, queues = connect(job), job.body, job.options["queues"]
    names = [f"{QUEUE}-{index}" for index in range(queues)]
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.xgroup_create(name, GROUP, id="0", mkstream=True)
        pipeline.execute()
    began = begin()
    for sent in range(0, job.n, job.options["in_flight"]):
        with client.pipeline(transaction=False) as pipeline:
            for index in range(sent, min(job.n, sent + job.options["in_flight"])):
                pipeline.xadd(names[index % queues], {FIELD: body})
            pipeline.execute()
    return span(began)


@in_asyncio
async def produce_from_many(job: Job) -> Outcome:
    """Publish n messages by pipelines from all connections at once, all answered."""
    clients = [await connect_async(job) for _ in range(job.options["connections"])]
    body, most = job.body, _batch(job)

    async def produce(client: redis.asyncio.Redis, count: int) -> None:
        for sent in range(0, count, most):
            async with client.pipeline(transaction=False) as pipeline:
                for _ in range(min(most, count - sent)):
                    pipeline.xadd(QUEUE, {FIELD: body})
                await pipeline.execute()

    began = begin()
    shares = zip(clients, job.shares(len(clients)), strict=True)
    await asyncio.gather(*(produce(client, count) for client, count in shares))
    outcome = span(began)
    await asyncio.gather(*(client.aclose() for client in clients))
    return outcome


def ping(job: Job) -> Outcome:
    """PING every millisecond until the next word: the longest wait."""
    client = connect(job)
    took: list[float] = []
    began = begin()
    enough = word_coming()
    while not enough.is_set():
        before = time.perf_counter()
        client.ping()
        took.append(time.perf_counter() - before)
        time.sleep(PING_SECONDS)
    return span(began, longest_ms=max(took) * 1000)
