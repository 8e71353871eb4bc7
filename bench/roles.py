"""The producer and the consumer of a measurement, each in a process of its own.

    python -m bench.roles ROLE URL N BODY_BYTES

A role prints `ready` when it is connected, begins at the next line of its input, and prints one
line of JSON at the end. Times are of the system's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import trio

import telpher

CHANNEL = "bench"
PREFETCH = 20_000
_SEND_MANY = 10_000


async def begin() -> float:
    """Say that we are ready, and wait for the word."""
    print("ready", flush=True)
    await trio.to_thread.run_sync(sys.stdin.readline)
    return time.monotonic()


async def produce_batches(bus: Any, n: int, body: bytes) -> dict[str, float]:
    """Publish n messages by `send_many`, all confirmed."""
    began = await begin()
    async with bus.producer(CHANNEL) as producer:
        for sent in range(0, n, _SEND_MANY):
            await producer.send_many([body] * min(_SEND_MANY, n - sent))
    return {"began": began, "ended": time.monotonic()}


async def produce_messages(bus: Any, n: int, body: bytes) -> dict[str, float]:
    """Publish n messages by `send`, one by one, all confirmed."""
    began = await begin()
    async with bus.producer(CHANNEL) as producer:
        for _ in range(n):
            await producer.send(body)
    return {"began": began, "ended": time.monotonic()}


async def produce_singly(bus: Any, n: int, body: bytes) -> dict[str, float]:
    """Publish n messages, each confirmed before the next."""
    took = []
    began = await begin()
    for _ in range(n):
        before = time.perf_counter()
        await bus.publish(CHANNEL, body)
        took.append(time.perf_counter() - before)
    ended = time.monotonic()
    took.sort()
    return {
        "began": began,
        "ended": ended,
        "p50_us": took[n // 2] * 1e6,
        "p99_us": took[n * 99 // 100] * 1e6,
    }


async def consume_batches(bus: Any, n: int, body: bytes) -> dict[str, float]:
    """Receive and acknowledge n messages, a delivered batch at a time."""
    received = 0
    began = await begin()
    async with bus.consume(CHANNEL, prefetch=PREFETCH) as messages:
        async for batch in messages.batches():
            bodies = batch.bodies
            received += len(bodies)
            assert bodies[0] == body
            batch.ack()
            if received >= n:
                break
    ended = time.monotonic()
    assert received == n
    return {"began": began, "ended": ended}


async def consume_messages(bus: Any, n: int, body: bytes) -> dict[str, float]:
    """Receive and acknowledge n messages, one at a time."""
    received = 0
    began = await begin()
    async with bus.consume(CHANNEL, prefetch=PREFETCH) as messages:
        async for message in messages:
            received += 1
            message.ack()
            if received >= n:
                break
    ended = time.monotonic()
    assert received == n
    return {"began": began, "ended": ended}


ROLES = {
    role.__name__: role
    for role in (
        produce_batches,
        produce_messages,
        produce_singly,
        consume_batches,
        consume_messages,
    )
}


async def main(role: str, url: str, n: int, body_bytes: int) -> None:
    """Play one role and print what was measured."""
    async with telpher.connect(url) as bus:
        outcome = await ROLES[role](bus, n, bytes(body_bytes))
    print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
