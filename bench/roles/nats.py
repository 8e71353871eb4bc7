"""NATS's roles: nats-py on asyncio, JetStream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig

from ..job import JOBS, QUEUE, REPLIES, Job, Outcome, begin, span
from ..latency import latencies

FETCH_MESSAGES = 1000
ACK_PENDING = 20_000


def on_one_connection(role: Callable[[Any, Job], Awaitable[Outcome]]) -> Callable[[Job], Outcome]:
    """Makes a role of a function that wants a connection."""

    async def connected(job: Job) -> Outcome:
        client = await nats.connect(f"nats://{job.address}")
        outcome = await role(client, job)
        await client.drain()
        return outcome

    def play(job: Job) -> Outcome:
        return asyncio.run(connected(job))

    play.__doc__ = role.__doc__
    return play


@on_one_connection
async def produce_messages(client: Any, job: Job) -> Outcome:
    """Publish n messages asynchronously, all confirmed."""
    stream, body = client.jetstream(), job.body
    began = begin()
    confirms = []
    for _ in range(job.n):
        confirms.append(await stream.publish_async(QUEUE, body, wait_stall=60))
    await stream.publish_async_completed()
    assert max(confirm.result().seq for confirm in confirms) == job.n
    return span(began)


@on_one_connection
async def consume_messages(client: Any, job: Job) -> Outcome:
    """Receive and acknowledge n messages, fetched many at a time."""
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=ACK_PENDING)
    pull = await client.jetstream().pull_subscribe(QUEUE, durable="one", config=config)
    body, received = job.body, 0
    began = begin()
    while received < job.n:
        messages = await pull.fetch(min(FETCH_MESSAGES, job.n - received), timeout=30)
        for message in messages:
            assert message.data == body
            await message.ack()
        received += len(messages)
    assert received == job.n
    await client.flush()
    return span(began)


# A fetch is its batch.
produce_unbatched = produce_messages
consume_batches = consume_messages


def publish_each(job: Job) -> Outcome:
    """Publish n messages, on each connection one after the other, each confirmed."""
    return asyncio.run(_publish_each(job))


async def _publish_each(job: Job) -> Outcome:
    body = job.body
    took: list[float] = []
    url = f"nats://{job.address}"
    clients = [await nats.connect(url) for _ in range(job.options["connections"])]

    async def publish(client: Any, count: int) -> None:
        stream = client.jetstream()
        for _ in range(count):
            before = time.perf_counter()
            await stream.publish(QUEUE, body, timeout=60)
            took.append(time.perf_counter() - before)

    began = begin()
    shares = zip(clients, job.shares(len(clients)), strict=True)
    await asyncio.gather(*(publish(client, count) for client, count in shares))
    outcome = span(began, **latencies(took))
    await asyncio.gather(*(client.close() for client in clients))
    return outcome


@on_one_connection
async def ask(client: Any, job: Job) -> Outcome:
    """Send n jobs and wait for the reply to each before the next."""
    stream, body = client.jetstream(), job.body
    replies = await stream.subscribe(REPLIES, durable="asker", manual_ack=True)
    took: list[float] = []
    began = begin()
    for _ in range(job.n):
        before = time.perf_counter()
        await stream.publish_async(JOBS, body)
        reply = await replies.next_msg(timeout=30)
        took.append(time.perf_counter() - before)
        assert reply.data == body
        await reply.ack()
    return span(began, **latencies(took))


@on_one_connection
async def answer(client: Any, job: Job) -> Outcome:
    """Take n jobs and send back what came with each."""
    stream = client.jetstream()
    jobs = await stream.subscribe(JOBS, durable="worker", manual_ack=True)
    began = begin()
    for _ in range(job.n):
        message = await jobs.next_msg(timeout=60)
        await stream.publish_async(REPLIES, message.data)
        await message.ack()
    return span(began)


def stay_connected(job: Job) -> Outcome:
    """Do nothing until the word."""

    async def stay() -> Outcome:
        url = f"nats://{job.address}"
        clients = [await nats.connect(url) for _ in range(job.options["connections"])]
        outcome = span(begin())
        await asyncio.gather(*(client.close() for client in clients))
        return outcome

    return asyncio.run(stay())
