"""What one message costs the engine beside so many others: the engine alone, in this process.

    python -m bench.flat KIND COUNT

`COUNT` messages are waiting, delayed or keyed, or that many bindings are there; then single
messages are published, delivered and acknowledged beside them, one at a time, or moved to another
time or cancelled. Prints the least cost
of a message in µs out of many slices: noise only adds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher.protocol.uniqueness import DEDUP_HEADER, UNIQUE_HEADER
from telpher_broker.engine.engine import Engine
from telpher_broker.engine.settings import EngineSettings

QUEUE: Final = "bench"
EXCHANGE: Final = "bench-exchange"
TOPIC: Final = "bench-topic"
MESSAGES: Final = 10_000
SLICE: Final = 100
_KEYS: Final = 10_000
_START_MS: Final = 1_700_000_000_000
_BIND_EACH: Final = 1000
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS

Keys = tuple[str | None, ...] | None


class Stage:
    """An engine with one client, which publishes and consumes."""

    def __init__(self) -> None:
        settings = EngineSettings(prefetch_max=10_000_000, output_bytes_max=1 << 40)
        self.engine = Engine(settings)
        self.now_ms = _START_MS
        self.engine.at(self.now_ms)
        self.engine.connect(1)
        self._request = 10

    def call(self, verb: str, **arguments: Any) -> None:
        """One administrative call, which must be granted."""
        for frame in self.said(f.Call(1, verb, arguments)):
            assert isinstance(frame, f.Reply), frame

    def said(self, frame: f.ClientFrame) -> list[f.ServerFrame]:
        """Hand over a request; what was said to it and because of it."""
        self.engine.handle(1, frame)
        return self.round()

    def round(self) -> list[f.ServerFrame]:
        """What one round says."""
        return [frame for _, frame in self.engine.take_round().effects]

    def publish(
        self, bodies: int, keys: Keys = None, channel: str = QUEUE, **properties: int
    ) -> list[f.ServerFrame]:
        """Publish so many messages as one batch."""
        columns = batches.Columns(properties or None, (b"x" * 100,) * bodies, keys, None)
        self._request += 1
        batch = batches.encode(columns)
        return self.said(f.Publish(self._request, channel, None, 0, None, batch))

    def publish_identified(
        self, header: str, identities: Sequence[str], **properties: int
    ) -> list[f.ServerFrame]:
        """Publish a message for each identity as one batch."""
        headers = [{header: one} for one in identities]
        bodies = (b"x" * 100,) * len(headers)
        self._request += 1
        batch = batches.encode(batches.Columns(properties or None, bodies, None, headers))
        return self.said(f.Publish(self._request, QUEUE, None, 0, None, batch))

    def consume(self, prefetch: int) -> list[f.ServerFrame]:
        """Begin to consume the queue as consumer 2."""
        return self.said(f.Consume(2, QUEUE, None, {"prefetch": prefetch, "lease_ms": _DAY_MS}))

    def ack(self, said: list[f.ServerFrame]) -> list[f.ServerFrame]:
        """Acknowledge all that was delivered; what that brings."""
        (delivered,) = [frame for frame in said if isinstance(frame, f.Deliver)]
        offsets = [
            (part[0], part[0] + len(batches.decode(part[3]).bodies)) for part in delivered.parts
        ]
        self._request += 1
        settle = f.Settle(self._request, 2, f.Outcome.ACK, f.flatten(sorted(offsets)), 0)
        return self.said(settle)

    def pass_time(self, ms: int) -> list[f.ServerFrame]:
        """Let time pass and do what is due."""
        self.now_ms += ms
        self.engine.at(self.now_ms)
        self.engine.tick()
        return self.round()


def waiting(count: int) -> Callable[[int], None]:
    """So many messages wait in front, each a batch; one comes in and one goes out."""
    stage = Stage()
    stage.call("declare", channel=QUEUE, kind="queue")
    for _ in range(count):
        stage.publish(1)
    held = stage.consume(1)

    def step(_index: int) -> None:
        nonlocal held
        stage.publish(1)
        held = stage.ack(held)

    return step


def delayed(count: int) -> Callable[[int], None]:
    """So many messages are delayed, each by its own time; one more becomes due and goes out."""
    stage = Stage()
    stage.call("declare", channel=QUEUE, kind="queue")
    for index in range(count):
        stage.publish(1, delay_ms=_HOUR_MS + index)
    stage.consume(10)

    def step(_index: int) -> None:
        stage.publish(1, delay_ms=1)
        stage.ack(stage.pass_time(1))

    return step


def moved(count: int) -> Callable[[int], None]:
    """So many messages are delayed, each by its own time; one after another gets another time."""
    stage = Stage()
    stage.call("declare", channel=QUEUE, kind="queue")
    for index in range(count):
        stage.publish(1, delay_ms=_HOUR_MS + index)

    def step(index: int) -> None:
        first, delay_ms = index * 7919 % count, _HOUR_MS + index * 104_729 % count
        offsets = (first, first + 1)
        stage.call("reschedule", channel=QUEUE, offsets=offsets, delay_ms=delay_ms)

    return step


def cancelled(count: int) -> Callable[[int], None]:
    """So many messages are delayed, each by its own time; one more is published, due amid the
    others, and cancelled."""
    stage = Stage()
    stage.call("declare", channel=QUEUE, kind="queue")
    for index in range(count):
        stage.publish(1, delay_ms=_HOUR_MS + index)

    def step(index: int) -> None:
        stage.publish(1, delay_ms=_HOUR_MS + index * 7919 % count)
        offset = count + index
        stage.call("cancel_scheduled", channel=QUEUE, offsets=(offset, offset + 1))

    return step


def bound(count: int) -> Callable[[int], None]:
    """A topic exchange has so many patterns; each message has a key that one of them matches and
    that no earlier message had."""
    stage = Stage()
    stage.call("declare", channel=QUEUE, kind="queue")
    stage.call("declare_exchange", exchange=EXCHANGE, kind="topic", config={})
    patterns = tuple(f"orders.*.{number}.#" for number in range(count))
    for first in range(0, count, _BIND_EACH):
        keys = patterns[first : first + _BIND_EACH]
        stage.call("bind", exchange=EXCHANGE, target=QUEUE, keys=keys)
    stage.consume(10)

    def step(index: int) -> None:
        key = f"orders.{index}.{index * 7919 % count}.paid"
        stage.ack(stage.publish(1, (key,), EXCHANGE))

    return step


def keyed(count: int) -> Callable[[int], None]:
    """So many messages wait behind another of their key, which is held; each message that comes
    has a key of its own and goes past them."""
    stage = Stage()
    stage.call("declare", channel=QUEUE, kind="queue", config={"key_order": True})
    stage.consume(count + 10)
    for _ in range(2):
        for first in range(0, count, _BIND_EACH):
            keys = tuple(
                f"held-{number}" for number in range(first, min(first + _BIND_EACH, count))
            )
            stage.publish(len(keys), keys)

    def step(index: int) -> None:
        stage.ack(stage.publish(1, (f"free-{index}",)))

    return step


def turned(count: int) -> Callable[[int], None]:
    """So many messages wait, of 10,000 keys at random; one comes in, and that of the key whose turn
    it is goes out."""
    stage = Stage()
    stage.call("declare", channel=QUEUE, kind="queue", config={"key_order": True})
    random = Random(7)

    def key() -> Keys:
        return (f"customer-{random.randrange(_KEYS)}",)

    for _ in range(count):
        stage.publish(1, key())
    held = stage.consume(1)

    def step(_index: int) -> None:
        nonlocal held
        stage.publish(1, key())
        held = stage.ack(held)

    return step


def remembered(count: int) -> Callable[[int], None]:
    """So many dedup ids are remembered; one more comes, twice, and its message goes out."""
    stage = Stage()
    stage.call("declare", channel=QUEUE, kind="queue")
    stage.consume(1000)
    for first in range(0, count, _BIND_EACH):
        ids = [f"order-{number}" for number in range(first, min(first + _BIND_EACH, count))]
        stage.ack(stage.publish_identified(DEDUP_HEADER, ids))

    def step(index: int) -> None:
        stage.ack(stage.publish_identified(DEDUP_HEADER, [f"more-{index}"]))
        stage.publish_identified(DEDUP_HEADER, [f"more-{index}"])

    return step


def taken(count: int) -> Callable[[int], None]:
    """So many unique keys are taken by messages that wait; one more is, and its message replaced by
    another."""
    stage = Stage()
    stage.call("declare", channel=QUEUE, kind="queue")
    for first in range(0, count, _BIND_EACH):
        keys = [f"customer-{number}" for number in range(first, min(first + _BIND_EACH, count))]
        stage.publish_identified(UNIQUE_HEADER, keys)

    def step(index: int) -> None:
        for _ in range(2):
            stage.publish_identified(UNIQUE_HEADER, [f"more-{index}"], on_conflict=2)

    return step


def compacted(count: int) -> Callable[[int], None]:
    """A compacted topic has so many keys; one after another, far apart, gets another value."""
    stage = Stage()
    stage.call("declare", channel=TOPIC, kind="topic", config={"compact": True})
    for first in range(0, count, _BIND_EACH):
        keys = tuple(f"k{number}" for number in range(first, min(first + _BIND_EACH, count)))
        stage.publish(len(keys), keys, TOPIC)

    def step(index: int) -> None:
        stage.publish(1, (f"k{index * 7919 % count}",), TOPIC)
        if index % SLICE == 0:
            stage.pass_time(1)

    return step


KINDS: Final[dict[str, Callable[[int], Callable[[int], None]]]] = {
    "waiting": waiting,
    "delayed": delayed,
    "moved": moved,
    "cancelled": cancelled,
    "bound": bound,
    "remembered": remembered,
    "taken": taken,
    "compacted": compacted,
    "keyed": keyed,
    "turned": turned,
}


def least_us(kind: str, count: int, messages: int = MESSAGES) -> float:
    """The least cost of a message in µs."""
    step = KINDS[kind](count)
    least = float("inf")
    for first in range(0, messages, SLICE):
        before = time.process_time()
        for index in range(first, first + SLICE):
            step(index)
        least = min(least, time.process_time() - before)
    return least / SLICE * 1e6


if __name__ == "__main__":
    print(least_us(sys.argv[1], int(sys.argv[2])))
