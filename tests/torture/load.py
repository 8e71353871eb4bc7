"""Clients that use a broker in all its ways, and tell a ledger: a process that may be killed.

    python -m tests.torture.load URL DIRECTORY NAME SEED [--slow]

`DIRECTORY` is the ledger's. `NAME` is new for each process: its publishers number what they send
from 0. Told to `drain` by a line on standard input, it stops publishing, lets everything be
consumed, tells the ledger that this is the end, and goes on at the next line; at the end of its
input it leaves. `--slow`: consumers leave a backlog.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

import telpher
from telpher.protocol.frames import Outcome, pairs
from telpher.session.exchange import Nacking, Settling

from .bodies import Run, bodies_of, body_of, runs_in
from .ledger import Teller

BULK, VARIED, NEWS, TAKEN, MOVED = "bulk", "varied", "news", "taken", "moved"
SUBSCRIPTIONS = ("first", "second")
BATCH_MOST = 1000
BACKLOG_MOST = 5_000
SLOW_BACKLOG_MOST = 30_000


class Load:
    """The state that the tasks share: whether to publish, and how much is under way."""

    def __init__(self, teller: Teller, name: str, rng: random.Random, *, slow: bool) -> None:
        self.tell = teller.tell
        self.name = name
        self.rng = rng
        self.slow = slow
        self._may_publish = trio.Event()
        self._may_publish.set()
        self._publishing = 0
        self._idle = trio.Event()
        self._numbers: dict[tuple[str, str], int] = {}
        self._waiting: dict[str, int] = dict.fromkeys((BULK, VARIED, NEWS, TAKEN, MOVED), 0)

    @asynccontextmanager
    async def publishing(self, publisher: str, channel: str, count: int) -> AsyncIterator[int]:
        """Wait until it is time to publish so many, and give the number of the first."""
        most = SLOW_BACKLOG_MOST if self.slow else BACKLOG_MOST
        while self._waiting[channel] > most or not self._may_publish.is_set():
            await self._may_publish.wait()
            await trio.sleep(0.001)
        first = self._numbers.get((publisher, channel), 0)
        self._numbers[publisher, channel] = first + count
        self._publishing += 1
        self._waiting[channel] += count
        self.tell("sent", publisher, channel, first, count)
        try:
            yield first
        finally:
            self._publishing -= 1
            if not self._publishing:
                self._idle.set()

    async def stop_publishing(self) -> None:
        """Return when nothing is being published any more."""
        self._may_publish = trio.Event()
        while self._publishing:
            self._idle = trio.Event()
            await self._idle.wait()

    def go_on(self) -> None:
        self._may_publish.set()

    def watch(self, consumer: telpher.Consumer, subscription: str, name: str) -> telpher.Consumer:
        """Tell what a consumer is given when it arrives.

        An application may take it later, when it is somebody else's already.
        """
        state, missed = consumer.state, 0
        deliver = state.deliver

        def watched(parts: Any, now: float) -> None:
            nonlocal missed
            before = len(state.deliveries)
            deliver(parts, now)
            if state.automatic and state.missed > missed:
                self.tell("missed", subscription, state.missed - missed)
                missed = state.missed
            for part in list(state.deliveries)[before:]:
                self._came(subscription, consumer.channel, name, part)
                if part.attempt > 1:
                    self._acknowledge_again(subscription, name, state, part)

        state.deliver = watched
        return consumer

    def _acknowledge_again(self, subscription: str, consumer: str, state: Any, part: Any) -> None:
        """An acknowledgement under way is of this delivery, too, and may be all that it gets."""
        for run in runs_in(part.bodies):
            for index in range(run.count):
                if _is_under_way(state, part.first + run.index + index):
                    place = (subscription, run.publisher, run.first + index, 1)
                    self.tell("acked", *place, consumer=consumer)

    def _came(self, subscription: str, channel: str, consumer: str, part: Any) -> None:
        for run in runs_in(part.bodies):
            self.tell(
                *("delivered", subscription, consumer, run.publisher, run.first, run.count),
                offset=part.first + run.index,
                attempt=part.attempt,
                channel=run.channel,
                intact=run.intact,
            )
        self._waiting[channel] = max(0, self._waiting[channel] - len(part.bodies))


def _is_under_way(state: Any, offset: int) -> bool:
    """Whether a consumer has acknowledged an offset and has no answer yet."""
    asked = [
        settling.offsets
        for settling in state.settling.values()
        if not isinstance(settling, Nacking)
        if not isinstance(settling, Settling) or settling.outcome is Outcome.ACK
    ]
    return any(first <= offset < end for row in asked for first, end in pairs(row))


class Held:
    """What one consumer has acknowledged and has no answer for, by offset."""

    def __init__(
        self, load: Load, messages: telpher.Consumer, subscription: str, consumer: str
    ) -> None:
        self._tell = load.tell
        self._state = messages.state
        self._subscription = subscription
        self._consumer = consumer
        self._runs: list[tuple[int, Run]] = []
        self._gone: set[int] = set()

    def acked(self, first: int, run: Run) -> None:
        """The acknowledgement of a run from offset `first` on is about to be sent."""
        place = (self._subscription, run.publisher, run.first, run.count)
        self._tell("acked", *place, consumer=self._consumer)
        self._runs.append((first, run))

    def gave_back(self, offset: int, run: Run) -> None:
        """One message was nacked, or its lease was lost.

        That is nothing where an earlier acknowledgement of it is still under way.
        """
        self._gone.add(offset)
        if not _is_under_way(self._state, offset):
            place = (self._subscription, run.publisher, run.first, run.count)
            self._tell("gave_back", *place, consumer=self._consumer)

    async def answered(self, consumer: telpher.Consumer) -> None:
        """Wait for the answer to all of it, and tell."""
        lost: tuple[int, ...] = ()
        try:
            await consumer.flush_acks()
        except telpher.LeaseLost as error:
            lost = error.offsets
        runs, self._runs = self._runs, []
        self._lose(runs, lost)
        for first, run in runs:
            self._settled(first, run, self._gone)
        self._gone.clear()

    def _lose(self, runs: list[tuple[int, Run]], lost: tuple[int, ...]) -> None:
        """Some was lost. What was acknowledged twice meanwhile, lost once, may be settled."""
        if not lost:
            return
        gone = {at for pair in zip(lost[::2], lost[1::2], strict=True) for at in range(*pair)}
        ones = [
            (first + index, run._replace(first=run.first + index, count=1))
            for first, run in runs
            for index in range(run.count)
            if first + index in gone
        ]
        times = Counter(offset for offset, _ in ones)
        for offset, run in ones:
            if times[offset] == 1:
                self.gave_back(offset, run)
        self._gone |= gone

    def _settled(self, first: int, run: Run, gone: set[int]) -> None:
        start = 0
        for index in range(run.count + 1):
            if index == run.count or first + index in gone:
                if index > start:
                    place = (run.publisher, run.first + start, index - start)
                    self._tell("settled", self._subscription, *place)
                start = index + 1


# --- the ways to publish


async def publish_batches(load: Load, bus: telpher.Bus, publisher: str, channel: str) -> None:
    """Batches by a producer, as fast as they are confirmed."""
    rng = load.rng
    async with bus.producer(channel, batch_messages=BATCH_MOST) as producer:
        while True:
            count = rng.choice([1, rng.randint(1, 50), rng.randint(50, BATCH_MOST)])
            async with load.publishing(publisher, channel, count) as first:
                await producer.send_many(bodies_of(publisher, channel, first, count))
                await producer.flush()
                load.tell("confirmed", publisher, channel, first, count)


async def publish_singly(load: Load, bus: telpher.Bus, publisher: str, channel: str) -> None:
    """Single messages, some delayed, some to be on the disk, several at a time."""
    rng = load.rng

    async def one() -> None:
        async with load.publishing(publisher, channel, 1) as number:
            receipt = await bus.publish(
                channel,
                body_of(publisher, channel, number),
                delay=rng.choice([None, None, 0.02]),
                confirm=rng.choice([None, None, "fsynced"]),
            )
            level = 2 if receipt.level == "fsynced" else 1
            load.tell(
                "confirmed", publisher, channel, number, 1, offset=receipt.offset, level=level
            )

    while True:
        async with trio.open_nursery() as nursery:
            for _ in range(rng.randint(1, 20)):
                nursery.start_soon(one)
        await trio.sleep(rng.uniform(0, 0.01))


async def publish_to_move(load: Load, bus: telpher.Bus, publisher: str) -> None:
    """Messages that are to come out of another queue, each once."""
    rng = load.rng
    async with bus.producer(TAKEN) as producer:
        while True:
            count = rng.randint(1, 20)
            async with load.publishing(publisher, TAKEN, count) as first:
                load.tell("sent", publisher, MOVED, first, count)
                await producer.send_many(bodies_of(publisher, TAKEN, first, count))
                await producer.flush()
                load.tell("confirmed", publisher, TAKEN, first, count)
            await trio.sleep(rng.uniform(0, 0.01))


# --- the ways to consume


async def consume_batches(
    load: Load, make: Callable[[], telpher.Consumer], subscription: str, consumer: str
) -> None:
    """Whole deliveries, each acknowledged and the answer awaited."""
    async with load.watch(make(), subscription, consumer) as messages:
        held = Held(load, messages, subscription, consumer)
        async for batch in messages.batches():
            for part in batch.parts:
                runs = list(runs_in(part.bodies))
                for run in runs:
                    held.acked(part.first + run.index, run)
                try:
                    type(batch)(messages, [part]).ack()
                except telpher.LeaseLost:
                    _ack_singly(held, type(batch)(messages, [part]), runs)
            await held.answered(messages)
            if load.slow:
                await trio.sleep(load.rng.uniform(0, 0.05))


def _ack_singly(held: Held, batch: telpher.Batch, runs: list[Run]) -> None:
    """Of a delivery of which some is lost, acknowledge the rest."""
    ours = [run._replace(first=run.first + at, count=1) for run in runs for at in range(run.count)]
    for message, run in zip(batch, ours, strict=True):
        try:
            message.ack()
        except telpher.LeaseLost:
            held.gave_back(message.offset, run)


async def consume_singly(load: Load, bus: telpher.Bus, queue: str, consumer: str) -> None:
    """Messages one by one: acknowledged, nacked, given back by leaving."""
    rng = load.rng
    while True:
        joining = bus.consume(queue, prefetch=rng.choice([1, 10, 100]))
        async with load.watch(joining, queue, consumer) as messages:
            held = Held(load, messages, queue, consumer)
            async for message in messages:
                (run,) = runs_in([message.body])
                fate = rng.random()
                try:
                    if fate < 0.05:
                        held.gave_back(message.offset, run)
                        message.nack(delay=rng.choice([0.0, 0.02]))
                        continue
                    held.acked(message.offset, run)
                    message.ack()
                except telpher.LeaseLost:
                    held.gave_back(message.offset, run)
                if fate < 0.15:
                    await held.answered(messages)
                if fate > 0.995:
                    await held.answered(messages)
                    break


async def move(load: Load, bus: telpher.Bus) -> None:
    """Take messages from one queue and put them into another, by transactions."""
    name = f"{load.name}.mover"
    async with load.watch(bus.consume(TAKEN, prefetch=50), TAKEN, name) as messages:
        async for batch in messages.batches():
            for part in batch.parts:
                await _move(load, bus, type(batch)(messages, [part]), name)


async def _move(load: Load, bus: telpher.Bus, batch: telpher.Batch, name: str) -> None:
    runs = list(runs_in(batch.bodies))
    for run in runs:
        load.tell("acked", TAKEN, run.publisher, run.first, run.count, consumer=name)
    try:
        async with bus.transaction() as work:
            for run in runs:
                for number in range(run.first, run.first + run.count):
                    work.publish(MOVED, body_of(run.publisher, MOVED, number))
            work.ack(batch)
    except telpher.LeaseLost:
        for run in runs:
            load.tell("gave_back", TAKEN, run.publisher, run.first, run.count, consumer=name)
        for message in batch:
            with suppress(telpher.LeaseLost):
                message.nack()
        return
    for run in runs:
        place = (run.publisher, run.first, run.count)
        load.tell("settled", TAKEN, *place)
        load.tell(
            *("confirmed", run.publisher, MOVED, run.first, run.count),
            offset=work.receipts[run.index].offset,
        )


async def listen(load: Load, bus: telpher.Bus) -> None:
    """An ephemeral subscriber: everything, or word of what it missed."""
    reader = f"{load.name}.listener"
    load.tell("reads", reader, NEWS, told=True, start=None)
    async with load.watch(bus.subscribe(NEWS), reader, reader) as messages:
        async for _ in messages.batches():
            pass  # taken is settled


async def snapshot(load: Load, bus: telpher.Bus) -> None:
    """Have a snapshot written again and again."""
    while True:
        await trio.sleep(load.rng.uniform(0, load.rng.choice([0.1, 1.0])))
        try:
            await bus.snapshot()
        except (telpher.Refused, telpher.Broken):
            continue  # one is being written, or the broker went


# --- all of it


def start(load: Load, nursery: trio.Nursery, one: telpher.Bus, other: telpher.Bus) -> None:
    """Start every task."""
    name, begin = load.name, nursery.start_soon
    for index in (1, 2):
        begin(publish_batches, load, one, f"{name}.b{index}", BULK)
        bus = (one, other)[index - 1]
        consumer = f"{name}.c{index}"
        begin(consume_batches, load, lambda bus=bus: bus.consume(BULK), BULK, consumer)
        begin(consume_singly, load, bus, VARIED, consumer)
    begin(publish_singly, load, one, f"{name}.v", VARIED)
    begin(publish_batches, load, other, f"{name}.n", NEWS)
    for subscription in SUBSCRIPTIONS:

        def subscribe(subscription: str = subscription) -> telpher.Consumer:
            return other.subscribe(NEWS, subscription, start="earliest")

        begin(consume_batches, load, subscribe, subscription, f"{name}.{subscription}")
    begin(listen, load, other)
    begin(publish_to_move, load, one, f"{name}.t")
    begin(move, load, other)
    begin(consume_batches, load, lambda: one.consume(MOVED), MOVED, f"{name}.m")
    begin(snapshot, load, one)


async def declare(load: Load, bus: telpher.Bus) -> None:
    """Channels and subscriptions, and that they are read."""
    for queue in (BULK, VARIED, TAKEN, MOVED):
        await bus.declare(queue)
        load.tell("reads", queue, ordered=queue != VARIED)
    await bus.declare_topic(NEWS)
    for subscription in SUBSCRIPTIONS:
        async with bus.subscribe(NEWS, subscription, start="earliest", prefetch=0):
            load.tell("reads", subscription, NEWS)


async def obey(load: Load, bus: telpher.Bus) -> None:
    """Do what standard input says, to its end."""
    commands = trio.lowlevel.FdStream(0)
    async for _ in commands:
        await load.stop_publishing()
        while await _is_anything_left(bus):  # noqa: ASYNC110 - consumed by other tasks, seen here
            await trio.sleep(0.005)
        load.tell("end")
        async for _ in commands:
            break
        load.go_on()


async def _is_anything_left(bus: telpher.Bus) -> bool:
    for channel in (TAKEN, BULK, VARIED, NEWS, MOVED):
        for one in (await bus.inspect(channel)).subscriptions:
            if one.durable and one.ready + one.delayed + one.leased:
                return True
    return False


async def main(url: str, directory: str, name: str, seed: str, slow: str = "") -> None:
    load = Load(Teller(Path(directory)), name, random.Random(f"{seed} {name}"), slow=bool(slow))
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(telpher.connect(url)) for _ in range(2)]
        await declare(load, buses[0])
        async with trio.open_nursery() as nursery:
            start(load, nursery, *buses)
            await obey(load, buses[0])
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
