"""What is measured. Each workload is a function that yields one row per case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import trio

import telpher

from .daemon import Daemon, daemon
from .play import Player
from .roles import CHANNEL
from .rows import Row

SETTINGS = {"persistence": "aof+rdb", "fsync": "everysec"}


def call(running: Daemon, verb: str, **arguments: Any) -> dict[str, Any]:
    """One administrative call."""

    async def ask() -> dict[str, Any]:
        async with telpher.connect(running.url) as bus:
            result: dict[str, Any] = await bus.call(verb, **arguments)
            return result

    return trio.run(ask)


def check_all_acked(running: Daemon, n: int) -> None:
    """Everything was stored, and nothing of it is left."""
    channel = call(running, "inspect", channel=CHANNEL)
    assert channel["next"] == n, f"{channel['next']} of {n} were stored"
    assert channel["messages"] == 0, f"{channel['messages']} were not acknowledged"


def queue(n: int, body_bytes: int) -> Iterator[Row]:
    """End to end: producer, daemon and consumer as three processes, confirmed and acked."""
    for case in ("batches", "messages"):
        with daemon(**SETTINGS) as running:
            consumer = Player(f"consume_{case}", running.url, n, body_bytes)
            producer = Player(f"produce_{case}", running.url, n, body_bytes)
            before = running.cpu_seconds()
            consumer.begin()
            producer.begin()
            began = producer.outcome()["began"]
            ended = consumer.outcome()["ended"]
            cpu_seconds = running.cpu_seconds() - before
            check_all_acked(running, n)
        figures = {"msgs_per_s": n / (ended - began), "broker_cpu_us": cpu_seconds / n * 1e6}
        yield Row("queue", case, n, body_bytes, figures, dict(SETTINGS))


def single(n: int, body_bytes: int) -> Iterator[Row]:
    """Unbatched: one connection, each publish confirmed before the next."""
    n = min(n, 20_000)
    with daemon(**SETTINGS) as running:
        producer = Player("produce_singly", running.url, n, body_bytes)
        producer.begin()
        outcome = producer.outcome()
    figures = {
        "msgs_per_s": n / (outcome["ended"] - outcome["began"]),
        "p50_us": outcome["p50_us"],
        "p99_us": outcome["p99_us"],
    }
    yield Row("single", "one connection", n, body_bytes, figures, dict(SETTINGS))


def backlog(n: int, body_bytes: int) -> Iterator[Row]:
    """Publish everything, look at the memory, then drain."""
    with daemon(**SETTINGS) as running:
        call(running, "declare", channel=CHANNEL, kind="queue")
        empty_bytes = running.resident_bytes()
        producer = Player("produce_batches", running.url, n, body_bytes)
        producer.begin()
        published = producer.outcome()
        waiting_bytes = (running.resident_bytes() - empty_bytes) / n
        consumer = Player("consume_batches", running.url, n, body_bytes)
        consumer.begin()
        drained = consumer.outcome()
        check_all_acked(running, n)
    figures = {
        "publish_msgs_per_s": n / (published["ended"] - published["began"]),
        "drain_msgs_per_s": n / (drained["ended"] - drained["began"]),
        "waiting_bytes": waiting_bytes,
    }
    yield Row("backlog", "batches", n, body_bytes, figures, dict(SETTINGS))


WORKLOADS: dict[str, Callable[[int, int], Iterator[Row]]] = {
    "queue": queue,
    "single": single,
    "backlog": backlog,
}
