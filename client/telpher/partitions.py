"""All partitions of a channel, consumed as one: what `bus.consume_partitions` gives.

One member of the group joins every partition under one identity, and the broker serves it those
that are its own. Each partition has a consumer of its own, which knows what it holds; here they
are merged, and new partitions are looked for from time to time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from .batch import Batch
from .consumer import Batches, Consumer, ConsumerStatistics
from .errors import Closed, TelpherError
from .eventloop import signal_class
from .message import Message

if TYPE_CHECKING:
    from .bus import Bus

T = TypeVar("T")


class Partitions:
    """An async context manager and an async iterator of messages, as a Consumer.

    `make` makes the consumer of one partition. Messages come from the partitions by turns; those
    of one partition in its order.

        async with bus.consume_partitions("orders") as messages:
            async for message in messages:
                async with message:
                    await work(message.body)
    """

    def __init__(
        self,
        bus: Bus,
        channel: str,
        make: Callable[..., Consumer],
        *,
        subscription: str | None,
        start: Any,
        refresh_seconds: float,
    ) -> None:
        self._bus = bus
        self.channel = channel
        self.subscription = subscription
        self.member = secrets.token_bytes(16)
        self._make = make
        self._start = start
        self._refresh_seconds = refresh_seconds
        self._refresh_at = 0.0
        self._consumers: dict[str, Consumer] = {}
        # Those that have something to take, or to tell; who was taken from last stands last.
        self._coming: dict[Consumer, None] = {}
        self._delivered = signal_class()()
        self._left: Closed | None = None

    # --- joining and leaving

    async def join(self) -> None:
        """Join every partition; `async with` does it. Raises UnknownExchange and the like."""
        try:
            await self._join_new(self._start)
        except BaseException:
            await self.leave(wait=False)
            raise

    async def _join_new(self, start: Any) -> None:
        self._refresh_at = self._bus.now() + self._refresh_seconds
        found = await self._bus.partitions(self.channel)
        options: dict[str, Any] = {"member": self.member}
        if found.kind == "topic":
            options |= {"start": start, "automatic": self.subscription is None}
        for name in found.names:
            if name in self._consumers:
                continue
            consumer = self._make(name, self.subscription, **options)
            consumer.state.on_delivery = partial(self._on_delivery, consumer)
            await consumer.join()
            if self._left is not None:
                await consumer.leave(wait=False)
                raise self._left
            self._consumers[name] = consumer

    async def leave(self, *, wait: bool = True) -> None:
        """End: settle what was acked, give the rest back; others take over.

        Raises LeaseLost for acks too late, when all partitions are left.
        """
        self._left = self._left or Closed(f"{self.channel!r} was left; consume it anew")
        first_error: TelpherError | None = None
        try:
            for consumer in self._consumers.values():
                try:
                    await consumer.leave(wait=wait)
                except TelpherError as error:
                    first_error = first_error or error
        finally:
            for consumer in self._consumers.values():
                await consumer.leave(wait=False)  # without waiting; once more does nothing
            self._delivered.set()
        if first_error is not None:
            raise first_error

    async def __aenter__(self) -> Partitions:
        await self.join()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.leave(wait=exc is None)

    @property
    def names(self) -> tuple[str, ...]:
        """The partitions that it has joined."""
        return tuple(self._consumers)

    def statistics(self) -> ConsumerStatistics:
        """Counts since it began, over all partitions."""
        none = ConsumerStatistics(0, 0, 0, 0)
        counts = [none, *(consumer.statistics() for consumer in self._consumers.values())]
        return ConsumerStatistics(*map(sum, zip(*counts, strict=True)))

    # --- taking

    def _on_delivery(self, consumer: Consumer) -> None:
        self._coming[consumer] = None
        self._delivered.set()

    @property
    def is_stale(self) -> bool:
        """Whether it is time to look for new partitions."""
        return self._bus.now() >= self._refresh_at and self._bus.is_connected

    def __aiter__(self) -> Partitions:
        return self

    async def __anext__(self) -> Message:
        return await self._next(self.next_nowait)

    def batches(self) -> Batches:
        """The deliveries as they come, each a Batch out of one partition: the fastest way."""
        return Batches(self)

    async def next_batch(self) -> Batch:
        """What one partition has delivered and was not taken; waits until there is something."""
        return await self._next(self.take_nowait)

    def next_nowait(self) -> Message | None:
        """The next message that has been delivered and not taken; None if there is none."""
        return self._take(Consumer.next_nowait)

    def take_nowait(self) -> Batch | None:
        """What one partition has delivered and was not taken; None if there is none."""
        return self._take(lambda one: one.take_nowait() if one.state.deliveries else None)

    def _take(self, take: Callable[[Consumer], T | None]) -> T | None:
        if self._left is not None:
            raise self._left
        while self._coming:
            consumer = next(iter(self._coming))
            del self._coming[consumer]
            found = take(consumer)
            if found is not None:
                self._coming[consumer] = None
                return found
            if consumer.state.ended is not None:
                self._coming[consumer] = None
                raise consumer.state.ended
        return None

    async def _next(self, take: Callable[[], T | None]) -> T:
        while True:
            if self.is_stale:
                await self._join_new("earliest")
            found = take()
            if found is not None:
                return found
            self.flush()
            self._bus.push()
            left = self._refresh_at - self._bus.now()
            # It is past when there is no connection to look for new partitions over.
            with anyio.move_on_after(left if left > 0 else 1.0):
                await self._delivered.wait()

    def flush(self) -> None:
        """Say what has been acked so far, before it is waited for more."""
        for consumer in self._consumers.values():
            consumer.state.flush()

    async def flush_acks(self) -> None:
        """Wait until the broker has answered for everything settled so far. Raises LeaseLost."""
        self.flush()
        for consumer in self._consumers.values():
            await consumer.flush_acks()
