"""A consumer in the hands of an application: what `bus.consume` and `bus.subscribe` give."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import anyio

from .answer import answer_of
from .batch import Batch
from .errors import Closed
from .eventloop import signal_class
from .message import Message, Settlement
from .session.consumer import ConsumerState

if TYPE_CHECKING:
    from .bus import Bus
    from .partitions import Partitions
    from .session import Session


class ConsumerStatistics(NamedTuple):
    """Counts since the consumer began, in messages.

    `waiting` were delivered and not taken, `held` are leased and unsettled, `missed` were dropped
    by the topic before this consumer had them.
    """

    delivered: int
    waiting: int
    held: int
    missed: int


class Batches:
    """The async iterator of `Consumer.batches`; no generator, so that it may be left anywhere."""

    def __init__(self, consumer: Consumer | Partitions) -> None:
        self._consumer = consumer

    def __aiter__(self) -> Batches:
        return self

    async def __anext__(self) -> Batch:
        return await self._consumer.next_batch()


class Consumer:
    """An async context manager and an async iterator of messages; several tasks may iterate it.

    Leaving it without an exception waits until the broker has answered for all acks, and raises
    LeaseLost for those that came too late.

        async with bus.consume("jobs", prefetch=1000) as messages:
            async for message in messages:
                async with message:
                    await work(message.body)
    """

    def __init__(self, session: Session, state: ConsumerState, bus: Bus) -> None:
        self._session = session
        self.bus = bus
        self.state = state
        self._ready: Iterator[Message] = iter(())
        signal = signal_class()
        self._delivered = signal()
        self._settled = signal()
        self.settlement = Settlement(self)
        self.opened: set[Message] = set()
        state.owner = self
        state.on_delivery = self._on_delivery
        state.on_settled = self._on_settled
        state.on_lost = self._on_lost

    # --- what the session tells

    def _on_delivery(self) -> None:
        self._delivered.set()

    def _on_settled(self) -> None:
        self._settled.set()

    def _on_lost(self) -> None:
        if self.state.ended is not None:
            self._ready = iter(())
        else:
            ready = list(self._ready)
            self._ready = iter([message for message in ready if not message.is_lost])
            for message in ready:
                if message.is_lost:
                    self.state.passed_over(message.offset, message.offset + 1)
        for message in [message for message in self.opened if message.is_lost]:
            message.lose()

    # --- joining and leaving

    @property
    def channel(self) -> str:
        """The queue or topic."""
        return self.state.channel

    @property
    def subscription(self) -> str | None:
        """The name of the subscription; None for a queue or before the consumer has begun."""
        return self.state.subscription or None

    @property
    def missed(self) -> int:
        """How many messages of a topic were dropped before this consumer had them, as it lagged or
        its connection was broken."""
        return self.state.missed

    @property
    def gap(self) -> tuple[int, int] | None:
        """Between which offsets, the end exclusive, the messages are that were missed last."""
        return self.state.gap

    def statistics(self) -> ConsumerStatistics:
        """Counts since the consumer began."""
        state = self.state
        waiting = sum(map(len, state.deliveries))
        return ConsumerStatistics(state.delivered, waiting, len(state.held), state.missed)

    async def join(self) -> None:
        """Become a consumer; `async with` does it. Raises UnknownChannel and the like."""
        try:
            await answer_of(self._session, lambda done: self._session.join(self.state, done))
        except BaseException:
            if self.state.ended is None:
                self._session.leave(self.state, lambda _: None)
            raise

    async def leave(self, *, wait: bool = True) -> None:
        """End: settle what was acked, give the rest back. Raises LeaseLost for acks too late."""
        state = self.state
        if state.ended is not None:
            return
        try:
            if wait:
                await self.flush_acks()
        finally:
            state.flush()
            left = anyio.Event()
            self._session.leave(state, lambda _: left.set())
            state.end(Closed(f"this consumer of {state.channel!r} was left; make a new one"))
        if wait:
            await left.wait()

    async def __aenter__(self) -> Consumer:
        await self.join()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.leave(wait=exc is None)

    # --- taking

    def __aiter__(self) -> Consumer:
        return self

    async def __anext__(self) -> Message:
        for message in self._ready:
            return message
        return await self._next_message()

    async def _next_message(self) -> Message:
        while True:
            for message in self._ready:  # another task may have taken a delivery meanwhile
                return message
            if self.state.deliveries:
                delivery = self.state.take()
                self._ready = map(Message, repeat(delivery), range(len(delivery)))
            else:
                await self._wait_delivery()

    def next_nowait(self) -> Message | None:
        """The next message that has been delivered and not taken; None if there is none."""
        for message in self._ready:
            return message
        if not self.state.deliveries:
            return None
        delivery = self.state.take()
        self._ready = map(Message, repeat(delivery), range(len(delivery)))
        return next(self._ready)

    def batches(self) -> Batches:
        """The deliveries as they come, each a Batch: the fastest way.

        async for batch in messages.batches():
            store(batch.bodies)
            batch.ack()
        """
        return Batches(self)

    async def next_batch(self) -> Batch:
        """Everything that has been delivered and not taken; waits until there is something."""
        await self._wait_delivery()
        return self.take_nowait()

    def take_nowait(self) -> Batch:
        """Everything that has been delivered and not taken, possibly nothing."""
        state = self.state
        return Batch(self, [state.take() for _ in range(len(state.deliveries))])

    async def _wait_delivery(self) -> None:
        state = self.state
        while not state.deliveries:
            if state.ended is not None:
                raise state.ended
            state.flush()
            self._session.on_push()
            await self._delivered.wait()

    # --- settling

    async def flush_acks(self) -> None:
        """Wait until the broker has answered for everything settled so far.

        Raises LeaseLost for the acks that came too late, why the broker refused a nack, and Broken
        or Closed where there will be no answer: they may have been settled or not.
        """
        state = self.state
        state.flush()
        self._session.on_push()
        while state.settling:
            await self._settled.wait()
        if state.lost_acks:
            lost = state.lost_acks.flat()
            state.lost_acks.clear()
            raise state.lease_lost(lost)
        if state.refused is not None:
            refused, state.refused = state.refused, None
            raise refused
        if state.unanswered is not None:
            raise state.unanswered
