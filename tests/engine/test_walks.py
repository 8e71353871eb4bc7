"""Long random walks over the rules of the model test: deeper and more evenly mixed.

A failure names its seed; `walk(seed, steps)` does it again.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from .driver import START_MS
from .machine import PRODUCER_WINDOW, EngineAgainstModel
from .machine.base import CHANNELS
from .machine.partitions import PARTITIONED
from .machine.publishing import Rows
from .machine.routing import EXCHANGES, By
from .model import Quota

STARTS: list[Any] = ["earliest", "latest", 0, 2, 5, 1000]


def _properties(random: Random) -> dict[str, int] | None:
    if random.random() < 0.6:
        return None
    chosen = {
        "priority": random.randint(0, 2),
        "delay_ms": random.choice([0, 300, 2000]),
        "due_ms": START_MS + random.choice([0, 5000, 20_000, 60_000]),
        "ttl_ms": random.choice([200, 1500, 4000]),
    }
    chosen.pop(random.choice(["delay_ms", "due_ms"]))
    return {key: value for key, value in chosen.items() if random.random() < 0.4}


def _rows(random: Random) -> Rows:
    if random.random() < 0.5:
        return None
    keys = [None, "eu", "eu.paid", "x"]
    headers = [None, {"a": "1"}, {"a": "1", "b": "2"}, {"b": "2", "c": True}]
    return [(random.choice(keys), random.choice(headers)) for _ in range(random.randint(1, 4))]


def _by(random: Random) -> By:
    return (
        random.choice(["eu", "eu.paid", ""]),
        random.choice(["#", "eu.*", "*.paid", "*"]),
        random.choice([{"a": "1"}, {"a": "1", "b": "2"}]),
        random.choice(["all", "any"]),
    )


def _quota(random: Random) -> Quota:
    return Quota(
        random.choice(["fair", "tight"]),
        random.choice(["connection", "channel:#"]),
        random.choice(["token_bucket", "leaky_bucket", "fixed_window", "sliding_window"]),
        random.choice([3, 7, 150]),
        random.choice([300, 1000]),
        random.choice([3, 10]),
        random.choice(["messages", "bytes"]),
        random.choice(["refuse", "drop"]),
    )


def _offsets(random: Random, machine: EngineAgainstModel) -> set[int]:
    """Around the end of some log, where things happen."""
    end = random.choice([channel.next for channel in machine.model.channels.values()])
    return {max(end + random.randint(-12, 1), 0) for _ in range(random.randint(0, 8))}


def _step(random: Random, machine: EngineAgainstModel) -> None:
    which, name = random.randrange(10**6), random.choice(list(machine.model.channels))
    source = random.choice([name, *machine.sources])
    kind = random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    if kind == "publish":
        machine.publish(which, source, random.randint(1, 4), _properties(random), _rows(random))
    elif kind == "publish_numbered":
        producer = random.choice([b"p" * 16, b"q" * 16])
        known = machine.model.producers.get(producer)
        newest = max(known[1], default=0) if known else 0
        sequence = max(newest + random.randint(-PRODUCER_WINDOW - 1, 2), 1)
        confirm = random.choice([None, 0, 1, 2])
        machine.publish_numbered(which, source, producer, sequence, confirm, random.random() < 0.2)
    elif kind == "consume":
        machine.consume(
            which,
            name,
            held=_offsets(random, machine),
            subscription=random.choice([None, "a", "a", "b"]),
            prefetch=random.choice([0, 0, 1, 2, 5, 100]),
            lease_ms=random.choice([1000, 1500, 5000]),
            start=random.choice(STARTS),
            acks=random.random() < 0.5,
            token=random.choice([None, None, b"a" * 16, b"b" * 16]),
            member=random.choice([None, b"m" * 16, b"n" * 16]),
        )
    elif kind == "fetch":
        machine.fetch(which, random.randint(1, 6), random.choice([0, 400, 3000]))
    elif kind == "settle":
        delay_ms = random.choice([0, 0, 500, 3000])
        some = _offsets(random, machine)
        machine.settle(which, random.random() < 0.5, some, random.choice([0, 0, 1]), delay_ms)
    elif kind == "settle_some":
        machine.settle_some(which, random.randint(1, 5), random.choice([0, 0, 0, 1]))
    elif kind == "renew":
        machine.renew(which, _offsets(random, machine))
    elif kind == "advance":
        machine.advance(random.choice([1, 100, 200, 300, 500, 700, 1000, 2000, 10_000]))
    elif kind == "disconnect":
        machine.disconnect(which, random.random() < 0.4)
    elif kind == "administer":
        verb = random.choice(["purge", "purge", "seek", "seek", "unsubscribe", "delete"])
        machine.administer(which, verb, name, random.choice("ab"), random.choice(STARTS))
    elif kind == "change_scheduled":
        delay_ms = random.choice([None, 0, 200, 2500, 20_000])
        sub = random.choice([None, None, "a", "b"])
        machine.change_scheduled(which, name, sub, _offsets(random, machine), delay_ms)
    elif kind == "transact":
        into = [(random.choice(machine.sources), _rows(random)) for _ in range(2)]
        parts = [(random.randrange(10), random.randint(0, 4), random.random() < 0.9)]
        machine.transact(which, parts, into, random.randint(1, 30), random.random() < 0.1)
    elif kind == "bind":
        if machine.model.exchanges:
            name = random.choice(list(machine.model.exchanges))
            machine.bind(which, name, random.choice(machine.sources), _by(random))
    elif kind == "partition":
        machine.partition(which, random.choice(list(PARTITIONED)), random.randint(1, 5))
    elif kind == "set_quota":
        machine.set_quota(which, _quota(random))
    elif kind == "delete_quota":
        if machine.model.quotas:
            machine.delete_quota(which)
    elif kind == "join":
        machine.join(which, random.choice(list(PARTITIONED)), random.choice([b"m", b"n"]) * 16)
    elif kind == "unbind":
        if machine.bindings:
            machine.unbind(which, random.randrange(10))
    elif kind == "connect":
        if len(machine.model.windows) < 4:
            machine.connect()
    elif kind == "snapshot":
        machine.snapshot()
    elif kind == "restart":
        machine.restart(random.random(), random.choice([0, 900, 3000]))
    elif kind == "replay":
        machine.replay(random.random())
    elif kind == "set_schedule":
        machine.set_schedule(
            which,
            random.choice(["often", "daily"]),
            source,
            random.choice([700, 1500, 7000]),
            random.choice(["skip", "once", "all"]),
            random.random() < 0.2,
            _rows(random),
        )
    elif kind == "change_schedule":
        if machine.model.schedules:
            verb = random.choice(["pause", "resume", "resume", "delete"])
            machine.change_schedule(which, random.randrange(10), verb)
    else:
        getattr(machine, kind)(which)


_WEIGHTS = {
    "publish": 20,
    "publish_numbered": 6,
    "consume": 9,
    "fetch": 8,
    "settle": 8,
    "settle_some": 16,
    "renew": 2,
    "cancel": 2,
    "advance": 12,
    "drained": 8,
    "disconnect": 2,
    "connect": 3,
    "transact": 6,
    "bind": 3,
    "unbind": 1,
    "partition": 1,
    "join": 1,
    "set_quota": 1,
    "set_schedule": 1,
    "change_schedule": 1,
    "delete_quota": 1,
    "administer": 3,
    "change_scheduled": 5,
    "restart": 1,
    "snapshot": 4,
    "replay": 1,
}


def walk(
    seed: int, steps: int, machine: EngineAgainstModel | None = None, exchanges: int = 2
) -> EngineAgainstModel:
    """So many random commands, and the laws at the end. Without exchanges each body is there once
    and no more."""
    random = Random(seed)
    machine = machine or EngineAgainstModel()
    try:
        machine.begin(
            random.random() < 0.5,
            random.choice([300, 1000, 100_000]),
            random.sample(list(CHANNELS), 5),
            random.sample([*EXCHANGES, *PARTITIONED], exchanges),
            [(random.randrange(100), random.randrange(100), _by(random)) for _ in range(6)],
            [],
        )
        for _ in range(steps):
            _step(random, machine)
        machine.replay(random.random())
    finally:
        machine.teardown()
    return machine


@pytest.mark.parametrize("seed", range(20))
def test_walk(seed: int) -> None:
    walk(seed, 150)
