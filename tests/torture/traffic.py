"""Publishers and consumers of all three clients, judged by a history.

Each pair has a queue of its own. A publisher sends numbers until it is told to stop, and says how
many there were; its consumer settles what comes until it has settled them all. Whatever happens to
their connections is the client library's business: here nothing is tried again.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import anyio.to_thread
import trio

import telpher
import telpher.sync

from .history import Finding, History

TRIO: Final = "trio"
ASYNCIO: Final = "asyncio"
SYNC: Final = "sync"
KINDS: Final = (TRIO, ASYNCIO, SYNC)
HEARTBEAT_SECONDS: Final = 5.0  # the least that a broker allows
WAIT_SECONDS: Final = 120.0
# The first connection may fall silent as well, and that takes ten seconds to be found out.
CONNECTING: Final[dict[str, Any]] = {
    "heartbeat_seconds": HEARTBEAT_SECONDS,
    "connect_seconds": WAIT_SECONDS,
}
SEND_MAX: Final = 20
RUNS: Final = 4  # so many are sent between two flushes
PAUSE_SECONDS: Final = 0.02


class Ledger:
    """A history that is told by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history = History()

    @contextmanager
    def open(self) -> Iterator[History]:
        """The history, for one thread at a time."""
        with self._lock:
            yield self._history

    def end(self) -> list[Finding]:
        """All is over: what was wrong."""
        with self._lock:
            return self._history.end()


@dataclass
class Pair:
    """One queue's publisher and consumer, both of one kind of client."""

    name: str
    kind: str
    ledger: Ledger
    rng: random.Random
    stop: threading.Event
    sent: int = 0
    total: int | None = None  # known once the publisher has stopped
    settled: set[int] = field(default_factory=set)
    lost_leases: int = 0

    def next_run(self) -> tuple[int, list[bytes]]:
        """The number of the first of the next messages, and their bodies; noted as sent."""
        first, count = self.sent, self.rng.randint(1, SEND_MAX)
        self.sent += count
        with self.ledger.open() as history:
            history.sent(self.name, self.name, first, count)
        return first, [b"%d" % number for number in range(first, first + count)]

    def next_runs(self) -> list[tuple[int, list[bytes]]]:
        """What is sent up to the next flush; the last ones when it is time to stop."""
        is_last = self.stop.is_set()
        runs = [self.next_run() for _ in range(RUNS)]
        if is_last:
            self.total = self.sent
        return runs

    def confirmed(self, runs: list[tuple[int, list[bytes]]]) -> None:
        """The publisher holds the confirms of these runs."""
        with self.ledger.open() as history:
            for first, bodies in runs:
                history.confirmed(self.name, self.name, first, len(bodies))

    def received(self, batch: telpher.Batch | telpher.sync.Batch) -> dict[int, int]:
        """The numbers of a batch by offset, noted as delivered and about to be acknowledged."""
        numbers: dict[int, int] = {}
        with self.ledger.open() as history:
            for message in batch:
                offset, number = message.offset, int(message.body)
                numbers[offset] = number
                history.delivered(
                    *(self.name, self.name, self.name, number),
                    offset=offset,
                    attempt=message.attempt,
                )
                history.acked(self.name, self.name, number)
        return numbers

    def answered(self, numbers: dict[int, int], lost: tuple[int, ...] = ()) -> None:
        """The broker answered for an acknowledgement; `lost` of it was not ours any more."""
        gone = {
            at for first, end in zip(lost[::2], lost[1::2], strict=True) for at in range(first, end)
        }
        with self.ledger.open() as history:
            for offset, number in numbers.items():
                if offset in gone:
                    history.gave_back(self.name, self.name, number)
                    self.lost_leases += 1
                else:
                    history.settled(self.name, self.name, number)
                    self.settled.add(number)

    @property
    def is_done(self) -> bool:
        """Whether all that was ever sent is settled."""
        return self.total is not None and len(self.settled) >= self.total

    # -- with await

    async def publish(self, url: str) -> None:
        """Publish until told to stop."""
        async with (
            telpher.connect(url, **CONNECTING) as bus,
            bus.producer(self.name) as producer,
        ):
            while self.total is None:
                runs = self.next_runs()
                for _, bodies in runs:
                    await producer.send_many(bodies)
                await producer.flush()
                self.confirmed(runs)
                await anyio.sleep(self.rng.uniform(0, PAUSE_SECONDS))

    async def consume(self, url: str) -> None:
        """Consume until all is settled."""
        async with (
            telpher.connect(url, **CONNECTING) as bus,
            bus.consume(self.name, prefetch=200) as messages,
        ):
            async for batch in messages.batches():
                numbers = self.received(batch)
                try:
                    await batch.ack()
                except telpher.LeaseLost as lost:
                    self.answered(numbers, lost.offsets)
                else:
                    self.answered(numbers)
                if self.is_done:
                    return

    # -- without

    def publish_sync(self, url: str) -> None:
        """As `publish`."""
        with (
            telpher.sync.connect(url, **CONNECTING) as bus,
            bus.producer(self.name) as producer,
        ):
            while self.total is None:
                runs = self.next_runs()
                for _, bodies in runs:
                    producer.send_many(bodies)
                producer.flush()
                self.confirmed(runs)
                time.sleep(self.rng.uniform(0, PAUSE_SECONDS))

    def consume_sync(self, url: str) -> None:
        """As `consume`."""
        with (
            telpher.sync.connect(url, **CONNECTING) as bus,
            bus.consume(self.name, prefetch=200) as messages,
        ):
            for batch in messages.batches():
                numbers = self.received(batch)
                batch.ack()
                try:
                    batch.flush()
                except telpher.LeaseLost as lost:
                    self.answered(numbers, lost.offsets)
                else:
                    self.answered(numbers)
                if self.is_done:
                    return

    # -- in whatever way

    async def run(self, publisher_url: str, consumer_url: str) -> None:
        """Both, until all that was sent is settled; the two that are not trio's in threads."""
        async with trio.open_nursery() as nursery:
            for method, url in (("publish", publisher_url), ("consume", consumer_url)):
                nursery.start_soon(self._run_one, method, url)

    async def _run_one(self, method: str, url: str) -> None:
        if self.kind == TRIO:
            await getattr(self, method)(url)
        elif self.kind == ASYNCIO:
            await trio.to_thread.run_sync(
                lambda: anyio.run(getattr(self, method), url, backend=ASYNCIO),
                limiter=_THREADS,
                abandon_on_cancel=True,
            )
        else:
            await trio.to_thread.run_sync(
                getattr(self, f"{method}_sync"), url, limiter=_THREADS, abandon_on_cancel=True
            )


_THREADS: Final = trio.CapacityLimiter(1000)
