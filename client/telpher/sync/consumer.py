"""A consumer without await."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import repeat
from types import TracebackType
from typing import TypeVar

from .. import consumer, message
from ..driver import Driver
from ..handoff import Handoff
from ..session.delivery import Delivery
from .message import Batch, Message

T = TypeVar("T")


class Consumer:
    """A context manager and an iterator of messages.

    Leaving it without an exception waits for the answer to all acks; raises LeaseLost.
    """

    def __init__(self, driver: Driver, inner: consumer.Consumer) -> None:
        self._driver = driver
        self._inner = inner
        self._ready: deque[Message] = deque()
        self.handoff = Handoff(driver)
        inner.state.facade = self

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """What an async function returns, run in the event loop."""
        return self._driver.call(function)

    def check(self, one: message.MessageView) -> None:
        """Raise LeaseLost or Closed if a message may not be settled any more."""
        state = self._inner.state
        if state.ended is not None and not state.automatic:
            raise state.ended
        if state.losses and one.is_lost:
            raise state.lease_lost((one.offset, one.offset + 1))

    @property
    def missed(self) -> int:
        """How many messages of a topic were dropped before this consumer had them, as it lagged or
        its connection was broken."""
        return self._inner.missed

    @property
    def gap(self) -> tuple[int, int] | None:
        """Between which offsets, the end exclusive, the messages are that were missed last."""
        return self._inner.gap

    def statistics(self) -> consumer.ConsumerStatistics:
        """Counts since the consumer began."""
        return self._driver.call(self._inner.statistics)

    def batches(self) -> Iterator[Batch]:
        """The deliveries as they come, each a Batch: the fastest way."""
        while True:
            yield Batch(self, self._driver.wait(self._take_parts, self._next_parts))

    def flush_acks(self) -> None:
        """Wait until the broker has answered for everything settled so far; raises LeaseLost."""
        self._driver.call(self._flush)
        self.handoff.raise_error()

    async def _flush(self) -> None:
        self.handoff.run()
        await self._inner.flush_acks()

    def _take_parts(self) -> Sequence[Delivery] | None:
        self.handoff.run()
        state = self._inner.state
        if state.deliveries:
            return self._inner.take_nowait().parts
        if state.ended is not None:
            raise state.ended
        state.flush()
        return None

    async def _next_parts(self) -> Sequence[Delivery]:
        self.handoff.run()
        return (await self._inner.next_batch()).parts

    def __iter__(self) -> Consumer:
        return self

    def __next__(self) -> Message:
        while True:
            try:
                one = self._ready.popleft()
            except IndexError:
                for part in self._driver.wait(self._take_parts, self._next_parts):
                    self._ready.extend(map(Message, repeat(part), range(len(part))))
            else:
                if not (self._inner.state.losses and one.is_lost):
                    return one
                self._inner.state.passed_over(one.offset, one.offset + 1)

    def __enter__(self) -> Consumer:
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
            self.handoff.raise_error()

    async def _leave(self, wait: bool) -> None:
        self.handoff.run()
        await self._inner.leave(wait=wait)
