"""All partitions of a channel, consumed as one, without await."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType

from .. import batch, consumer, partitions
from ..driver import Driver
from ..handoff import Handoff
from .consumer import Consumer
from .message import Batch, Message


class Partitions:
    """A context manager and an iterator of messages, as a Consumer; `telpher.sync.Bus` makes it."""

    def __init__(self, driver: Driver, inner: partitions.Partitions) -> None:
        self._driver = driver
        self._inner = inner
        self._handoff = Handoff(driver)
        self._ready: deque[Message] = deque()

    @property
    def names(self) -> tuple[str, ...]:
        """The partitions that it has joined."""
        return self._inner.names

    def statistics(self) -> consumer.ConsumerStatistics:
        """Counts since it began, over all partitions."""
        return self._driver.call(self._inner.statistics)

    def batches(self) -> Iterator[Batch]:
        """The deliveries as they come, each a Batch out of one partition: the fastest way."""
        while True:
            yield self._next_batch()

    def flush_acks(self) -> None:
        """Wait until the broker has answered for everything settled so far; raises LeaseLost."""
        self._driver.call(self._flush)
        self._handoff.raise_error()

    async def _flush(self) -> None:
        self._handoff.run()
        await self._inner.flush_acks()

    def _next_batch(self) -> Batch:
        taken = self._driver.wait(self._take_batch, self._wait_batch)
        inner = taken.consumer
        if inner.state.facade is None:
            Consumer(self._driver, inner).handoff = self._handoff
        return Batch(inner.state.facade, taken.parts)

    def _take_batch(self) -> batch.Batch | None:
        self._handoff.run()
        found = None if self._inner.is_stale else self._inner.take_nowait()
        if found is None:
            self._inner.flush()
        return found

    async def _wait_batch(self) -> batch.Batch:
        self._handoff.run()
        return await self._inner.next_batch()

    def __iter__(self) -> Partitions:
        return self

    def __next__(self) -> Message:
        while True:
            try:
                one = self._ready.popleft()
            except IndexError:
                self._ready.extend(self._next_batch())
            else:
                if not one.is_lost:
                    return one
                one.delivery.consumer.passed_over(one.offset, one.offset + 1)

    def __enter__(self) -> Partitions:
        self._driver.call(self._inner.join)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._driver.call(self._leave, exc is None)
        if exc is None:
            self._handoff.raise_error()

    async def _leave(self, wait: bool) -> None:
        self._handoff.run()
        await self._inner.leave(wait=wait)
