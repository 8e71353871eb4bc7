"""Telpher's ways of messaging, each as a way to prepare, to produce and to consume.

Each takes n messages from one producer through the broker to one consumer, batched, all confirmed
and all acknowledged; what differs is what the broker has to think about on the way.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import repeat
from random import Random
from typing import Any, Final

import anyio

from ..job import QUEUE, Job, Outcome, begin_async, share_out, span
from .telpher import SEND_MANY, on_one_bus, prefetch

BATCH: Final = 1000
KEYS: Final = 10_000
EXCHANGE: Final = "bench-exchange"
TOPIC: Final = "bench-topic"
SUBSCRIPTION: Final = "bench"
RESULTS: Final = "bench-results"
TEN: Final = 10
TASKS: Final = 30
LETTERS: Final = "bench-letters"
_DELAYS: Final = 50

Work = Callable[[Any, Job], Awaitable[None]]


@dataclass(frozen=True)
class Way:
    """One way of messaging."""

    prepare: Work
    produce: Work
    consume: Work


async def _declare(bus: Any, _job: Job) -> None:
    await bus.declare(QUEUE)


async def _send_all(bus: Any, job: Job) -> None:
    async with bus.producer(QUEUE) as producer:
        for sent in range(0, job.n, SEND_MANY):
            await producer.send_many([job.body] * min(SEND_MANY, job.n - sent))


async def _ack_all(bus: Any, job: Job, channel: str = QUEUE) -> None:
    received = 0
    async with bus.consume(channel, prefetch=prefetch(job)) as messages:
        async for batch in messages.batches():
            received += len(batch)
            batch.ack()
            if received >= job.n:
                break
    assert received == job.n, received


async def _send_prioritized(bus: Any, job: Job) -> None:
    """Ten priorities in turn, a thousand messages each."""
    await _send_by_property(bus, job, [{"priority": priority} for priority in range(10)])


async def _send_delayed(bus: Any, job: Job) -> None:
    """Delays of 1 to 50 ms in turn, a thousand messages each."""
    await _send_by_property(bus, job, [{"delay": ms / 1000} for ms in range(1, _DELAYS + 1)])


async def _send_by_property(bus: Any, job: Job, options: list[dict[str, Any]]) -> None:
    producers = [bus.producer(QUEUE, **one) for one in options]
    for index, sent in enumerate(range(0, job.n, BATCH)):
        producer = producers[index % len(producers)]
        await producer.send_many([job.body] * min(BATCH, job.n - sent))
    for producer in producers:
        await producer.close()


async def _bind_patterns(bus: Any, _job: Job) -> None:
    """10,000 patterns of a topic exchange that lead to one queue, one for each of the keys."""
    await bus.declare(QUEUE)
    await bus.declare_exchange(EXCHANGE, "topic")
    patterns = [f"orders.*.{number}.#" for number in range(KEYS)]
    for start in range(0, KEYS, BATCH):
        await bus.bind(EXCHANGE, QUEUE, *patterns[start : start + BATCH])


async def _send_routed(bus: Any, job: Job) -> None:
    """Each message with another key, which one pattern of the exchange matches."""
    keys = (f"orders.eu.{index * 7919 % KEYS}.paid" for index in range(job.n))
    await _send_with_keys(bus, job, EXCHANGE, keys)


async def _send_with_keys(bus: Any, job: Job, channel: str, keys: Iterable[str]) -> None:
    async with bus.producer(channel) as producer:
        await producer.send_many(repeat(job.body, job.n), keys)


async def _send_identified(bus: Any, job: Job) -> None:
    """Each message with a dedup id of its own."""
    async with bus.producer(QUEUE) as producer:
        for index in range(job.n):
            await producer.send(job.body, dedup_id=f"order-{index}")


async def _declare_keyed(bus: Any, _job: Job) -> None:
    await bus.declare(QUEUE, key_order=True)


async def _send_keyed(bus: Any, job: Job) -> None:
    """10,000 keys in turn; the messages of one key go one after the other."""
    keys = (f"customer-{index % KEYS}" for index in range(job.n))
    await _send_with_keys(bus, job, QUEUE, keys)


async def _send_keyed_randomly(bus: Any, job: Job) -> None:
    """10,000 keys at random, always the same way: what waits is in the way of what comes."""
    random = Random(7)
    keys = (f"customer-{random.randrange(KEYS)}" for _ in range(job.n))
    await _send_with_keys(bus, job, QUEUE, keys)


async def _declare_two(bus: Any, _job: Job) -> None:
    await bus.declare(QUEUE)
    await bus.declare(RESULTS)


async def _transact(bus: Any, job: Job) -> None:
    """In each of so many tasks take ten messages, publish ten and acknowledge the ten, in one
    transaction after the other."""

    async def transact(messages: Any, count: int) -> None:
        for _ in range(count):
            async with bus.transaction() as work:
                for _ in range(TEN):
                    message = await anext(messages)
                    work.publish(RESULTS, message.body)
                    work.ack(message)

    async with (
        bus.consume(QUEUE, prefetch=prefetch(job)) as messages,
        anyio.create_task_group() as tasks,
    ):
        for count in share_out(job.n // TEN, TASKS):
            tasks.start_soon(transact, messages, count)


async def _send_unique(bus: Any, job: Job) -> None:
    """Each message with a unique key of its own, free again when it is settled."""
    async with bus.producer(QUEUE) as producer:
        for index in range(job.n):
            await producer.send(job.body, unique=f"customer-{index}")


async def _declare_compacted(bus: Any, _job: Job) -> None:
    await bus.declare_topic(TOPIC, compact=True)
    await bus.create_subscription(TOPIC, SUBSCRIPTION, start="earliest")


async def _send_values(bus: Any, job: Job) -> None:
    """10,000 keys in turn; what is not read before the next value of its key comes is dropped."""
    await _send_with_keys(bus, job, TOPIC, (f"k{index % KEYS}" for index in range(job.n)))


async def _follow(bus: Any, job: Job) -> None:
    """Read until the last value is there."""
    async with bus.subscribe(TOPIC, SUBSCRIPTION, prefetch=prefetch(job)) as messages:
        async for batch in messages.batches():
            batch.ack()
            if batch.offsets[-1] >= job.n:
                break


async def _declare_checked(bus: Any, _job: Job) -> None:
    await bus.declare(QUEUE)
    await bus.set_schema(QUEUE, SCHEMA)


async def _send_checked(bus: Any, job: Job) -> None:
    """JSON objects of about the size that is asked for, each checked by the broker."""
    note = "x" * max(job.body_bytes - 60, 0)
    order: dict[str, Any] = {"id": 0, "customer": "c-1", "tags": ["a", "b"], "note": note}
    bodies = (json.dumps(order | {"id": index}).encode() for index in range(job.n))
    async with bus.producer(QUEUE) as producer:
        await producer.send_many(bodies)


async def _subscribe_filtered(bus: Any, _job: Job) -> None:
    await bus.declare_topic(TOPIC)
    await bus.create_subscription(TOPIC, SUBSCRIPTION, filter={"region": "eu"})


async def _send_regions(bus: Any, job: Job, regions: int = TEN) -> None:
    """One message in ten is wanted, each by itself among others."""
    headers = [{"region": "eu"}, *({"region": f"r{number}"} for number in range(1, regions))]
    async with bus.producer(TOPIC) as producer:
        for index in range(job.n):
            await producer.send(job.body, headers=headers[index % regions])


async def _send_two_regions(bus: Any, job: Job) -> None:
    """Every other message is wanted, which cuts each batch as often as it can be cut."""
    await _send_regions(bus, job, 2)


async def _read_wanted(bus: Any, job: Job, regions: int = TEN) -> None:
    received, wanted = 0, -(-job.n // regions)
    async with bus.subscribe(TOPIC, SUBSCRIPTION, prefetch=prefetch(job)) as messages:
        async for batch in messages.batches():
            received += len(batch)
            batch.ack()
            if received >= wanted:
                break
    assert received == wanted, received


async def _read_half(bus: Any, job: Job) -> None:
    await _read_wanted(bus, job, 2)


async def _subscribe_pattern(bus: Any, _job: Job) -> None:
    for number in range(TEN):
        await bus.declare_topic(f"{TOPIC}.{number}")
    await bus.create_subscription(f"{TOPIC}.*", SUBSCRIPTION)


async def _send_to_topics(bus: Any, job: Job) -> None:
    """To ten topics in turn, a thousand messages each."""
    producers = [bus.producer(f"{TOPIC}.{number}") for number in range(TEN)]
    for index, sent in enumerate(range(0, job.n, BATCH)):
        await producers[index % TEN].send_many([job.body] * min(BATCH, job.n - sent))
    for producer in producers:
        await producer.close()


async def _read_pattern(bus: Any, job: Job) -> None:
    received = 0
    async with bus.subscribe(f"{TOPIC}.*", SUBSCRIPTION, prefetch=prefetch(job)) as messages:
        async for batch in messages.batches():
            received += len(batch)
            batch.ack()
            if received >= job.n:
                break
    assert received == job.n, received


async def _declare_dying(bus: Any, _job: Job) -> None:
    await bus.declare(QUEUE, max_attempts=3, dead_letter=LETTERS, backoff="none")


async def _fail_all(bus: Any, job: Job) -> None:
    """Fail each message three times, until all are dead letters, and take those."""
    failed = 0
    async with bus.consume(QUEUE, prefetch=prefetch(job)) as messages:
        async for batch in messages.batches():
            failed += len(batch)
            batch.nack(error="ValueError: it cannot be done")
            if failed >= 3 * job.n:
                break
    await _ack_all(bus, job, LETTERS)


async def _declare_bounded(bus: Any, _job: Job) -> None:
    """A queue whose publishers wait: its bounds are looked at, and reached now and then."""
    await bus.declare(QUEUE, limit_count=20_000, limit_bytes=1 << 30, overflow="wait")


async def _declare_metered(bus: Any, _job: Job) -> None:
    """Four quotas, one by each algorithm, that are large enough to let all through."""
    await bus.declare(QUEUE)
    most = 1 << 40
    await bus.set_quota("tokens", "connection", most)
    await bus.set_quota("even", "connection", most, algorithm="leaky_bucket", unit="bytes")
    await bus.set_quota("fixed", f"channel:{QUEUE}", most, algorithm="fixed_window")
    await bus.set_quota("sliding", "channel:#", most, algorithm="sliding_window", unit="bytes")


SCHEMA: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 0},
        "customer": {"type": "string", "maxLength": 40},
        "tags": {"type": "array", "items": {"type": "string"}},
        "note": {"type": "string"},
    },
    "required": ["id", "customer"],
    "additionalProperties": False,
}

WAYS: Final[dict[str, Way]] = {
    "plain": Way(_declare, _send_all, _ack_all),
    "priorities": Way(_declare, _send_prioritized, _ack_all),
    "delays": Way(_declare, _send_delayed, _ack_all),
    "topic exchange": Way(_bind_patterns, _send_routed, _ack_all),
    "header filter": Way(_subscribe_filtered, _send_regions, _read_wanted),
    "header filter, every other": Way(_subscribe_filtered, _send_two_regions, _read_half),
    "pattern subscription": Way(_subscribe_pattern, _send_to_topics, _read_pattern),
    "keyed order": Way(_declare_keyed, _send_keyed, _ack_all),
    "keyed order, random": Way(_declare_keyed, _send_keyed_randomly, _ack_all),
    "transactions of 10": Way(_declare_two, _send_all, _transact),
    "schema check": Way(_declare_checked, _send_checked, _ack_all),
    "dedup ids": Way(_declare, _send_identified, _ack_all),
    "unique keys": Way(_declare, _send_unique, _ack_all),
    "compacted topic": Way(_declare_compacted, _send_values, _follow),
    "three attempts": Way(_declare_dying, _send_all, _fail_all),
    "bounds": Way(_declare_bounded, _send_all, _ack_all),
    "quotas": Way(_declare_metered, _send_all, _ack_all),
}


@on_one_bus
async def prepare(bus: Any, job: Job) -> Outcome:
    """Make what the way needs."""
    began = await begin_async()
    await WAYS[job.options["way"]].prepare(bus, job)
    return span(began)


@on_one_bus
async def produce(bus: Any, job: Job) -> Outcome:
    """Publish n messages, all confirmed."""
    began = await begin_async()
    await WAYS[job.options["way"]].produce(bus, job)
    return span(began)


@on_one_bus
async def consume(bus: Any, job: Job) -> Outcome:
    """Receive and acknowledge them all."""
    began = await begin_async()
    await WAYS[job.options["way"]].consume(bus, job)
    return span(began)
