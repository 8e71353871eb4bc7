"""The client without await: the same names, over an event loop that the caller drives.

    from telpher.sync import connect

    with connect() as bus:
        bus.publish("jobs", b"hello")
        with bus.consume("jobs") as messages:
            for message in messages:
                with message:
                    work(message.body)

Messages are handled in the calling thread. All objects may be used from several threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import repeat
from types import TracebackType
from typing import Any, TypeVar

import anyio

from . import batch, bus, consumer, message, producer
from .admin import Browsed, ChannelInfo, Start, SubscriptionInfo
from .content import (
    Body,
    LevelName,
    as_body,
    as_headers,
    as_key,
    as_level,
    as_properties,
)
from .driver import Driver
from .errors import Closed, LeaseLost, TelpherError
from .handoff import Handoff
from .lane import Lane, Receipt, Waiting
from .session.backoff import retry_seconds
from .session.delivery import Delivery

T = TypeVar("T")
QUEUED_MESSAGES_MAX = 2000


class Message(message.MessageView):
    """A delivered message, leased until it is acked or nacked.

    As `with message:` it is acked at the end; on an exception it is nacked, with a delay that grows
    with its attempts, and the exception goes on. Its lease is renewed meanwhile, in the background;
    LeaseLost is raised at the end of the block if it was lost all the same.
    """

    __slots__ = ()

    def ack(self) -> None:
        """Settle it; nothing is waited for. Raises LeaseLost when its lease is known to be lost."""
        if not self._settled:
            self._put(self._delivery.consumer.ack, self.offset, self._delivery)

    def nack(self, delay: float = 0.0) -> None:
        """Give it back, to be delivered again in its old place after `delay` seconds."""
        if not self._settled:
            offset, delay_ms = self.offset, round(delay * 1000)
            nack = self._delivery.consumer.nack
            self._put(nack, offset, offset + 1, self._delivery, delay_ms)

    def _put(self, settle: Callable[..., None], *arguments: Any) -> None:
        owner: Consumer = self._delivery.consumer.facade
        owner.check(self)
        self._settled = True
        owner.handoff.put(settle, *arguments)

    def __enter__(self) -> Message:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            self.ack()
        else:
            with suppress(TelpherError):
                self.nack(retry_seconds(self.attempt) if isinstance(exc, Exception) else 0.0)


class Batch(batch.BatchView[Message]):
    """A list-like run of delivered messages; `bodies`, `keys` and `headers` are its columns."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Consumer, parts: Sequence[Delivery]) -> None:
        super().__init__(parts)
        self._owner = owner

    def _message(self, part: Delivery, index: int) -> Message:
        return Message(part, index)

    def ack(self) -> None:
        """Settle all of it that is not settled yet; nothing is waited for."""
        for part in self._parts:
            self._owner.handoff.put(part.consumer.ack_range, part.first, part.end, part)

    def nack(self, delay: float = 0.0) -> None:
        """Give back all of it that is not settled yet, ready again after `delay` seconds."""
        for part in self._parts:
            nack, delay_ms = part.consumer.nack, round(delay * 1000)
            self._owner.handoff.put(nack, part.first, part.end, part, delay_ms)

    def flush(self) -> None:
        """Wait until the broker has answered for what was settled; raises LeaseLost."""
        self._owner.flush_acks()


class Consumer:
    """A context manager and an iterator of messages.

    Leaving it without an exception waits for the answer to all acks; raises LeaseLost.
    """

    def __init__(self, driver: Driver, inner: consumer.Consumer) -> None:
        self._driver = driver
        self._inner = inner
        self._ready: Iterator[Message] = iter(())
        self.handoff = Handoff(driver)
        inner.state.facade = self

    def check(self, one: message.MessageView) -> None:
        """Raise LeaseLost or Closed if a message may not be settled any more."""
        state = self._inner.state
        if state.ended is not None and not state.automatic:
            raise state.ended
        if state.losses and one.is_lost:
            raise LeaseLost(one.channel, (one.offset, one.offset + 1))

    @property
    def missed(self) -> int:
        """How many messages an ephemeral subscription lost by lagging or a broken connection."""
        return self._inner.missed

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
            for one in self._ready:
                if not (self._inner.state.losses and one.is_lost):
                    return one
            parts = self._driver.wait(self._take_parts, self._next_parts)
            self._ready = (
                one for part in parts for one in map(Message, repeat(part), range(len(part)))
            )

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


class Producer:
    """A context manager; leaving it without an exception flushes."""

    def __init__(self, driver: Driver, inner: producer.Producer) -> None:
        self._driver = driver
        self._inner = inner
        self._queue: deque[tuple[bytes, str | None, dict[str, Any] | None]] = deque()
        self._is_scheduled = False
        self._error: Exception | None = None
        self._lock = anyio.Lock()

    def send(
        self, body: Body, key: str | None = None, headers: Mapping[str, Any] | None = None
    ) -> None:
        """Hand one message over; waits only when the producer is far behind.

        Raises TypeError for a body that is not bytes, and PublishFailed, MessageTooLarge or Closed
        of an earlier message.
        """
        if type(body) is not bytes:
            body = as_body(body)
        self._queue.append((body, as_key(key), as_headers(headers)))
        if len(self._queue) >= QUEUED_MESSAGES_MAX or self._error is not None:
            self._driver.call(self._drain)
            self._raise_error()
        elif not self._is_scheduled:
            self._is_scheduled = True
            self._driver.soon(self._drain)

    def send_many(self, bodies: Iterable[Body]) -> None:
        """Hand many messages over, faster than one by one."""
        self._driver.call(self._send_many, bodies)
        self._raise_error()

    def flush(self) -> None:
        """Wait until everything is confirmed; raises PublishFailed with what was not."""
        self._driver.call(self._flush)
        self._raise_error()

    def statistics(self) -> producer.ProducerStatistics:
        """Counts since the producer began."""
        return self._driver.call(self._inner.statistics)

    def _drain(self) -> Awaitable[None] | None:
        """Pass on what was handed over; what is returned, if anything, waits for room for it."""
        self._is_scheduled = False
        while self._queue and not (self._inner.is_blocked or self._lock.locked()):
            try:
                self._inner.add(*self._queue.popleft())
            except TelpherError as error:
                self._error = self._error or error
        return self._drain_all() if self._queue else None

    async def _drain_all(self) -> None:
        self._is_scheduled = False
        async with self._lock:
            while self._queue:
                try:
                    await self._inner.send(*self._queue.popleft())
                except TelpherError as error:
                    self._error = self._error or error

    async def _send_many(self, bodies: Iterable[Body]) -> None:
        await self._drain_all()
        await self._inner.send_many(bodies)

    async def _flush(self) -> None:
        await self._drain_all()
        await self._inner.flush()

    async def _close(self, flush: bool) -> None:
        await self._drain_all()
        await self._inner.close(flush=flush)

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._driver.call(self._close, exc is None)
        if exc is None:
            self._raise_error()


class Bus:
    """The bus of telpher.connect without await; made by `connect`, entered to connect."""

    def __init__(self, make: Callable[[], bus.Bus]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._driver_: Driver | None = None
        self._bus_: bus.Bus | None = None

    # --- publishing

    def publish(
        self,
        channel: str,
        body: Body,
        *,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        delay: float | None = None,
        ttl: float | None = None,
        priority: int | None = None,
        confirm: LevelName | None = None,
        deadline: float | None = None,
    ) -> Receipt:
        """Publish one message and wait for its confirm; as `telpher.Bus.publish`."""
        inner, lane = self._bus, None
        waiting = Waiting(as_body(body), as_key(key), as_headers(headers))
        common = (as_properties(delay, ttl, priority), as_level(confirm))

        def begun() -> Lane:
            nonlocal lane
            if lane is None:
                lane = inner.lane(channel)
                lane.begin(waiting, common)
            return lane

        def receipt() -> Receipt | None:
            begun()
            return waiting.outcome()

        async def in_loop() -> Receipt:
            return await begun().wait(waiting, deadline)

        if deadline is not None:
            return self._driver.call(in_loop)
        return self._driver.wait(receipt, in_loop)

    def producer(self, channel: str, **options: Any) -> Producer:
        """A producer for throughput; the options of `telpher.Bus.producer`."""
        make = partial(self._bus.producer, channel, **options)
        return Producer(self._driver, self._driver.call(make))

    # --- consuming

    def consume(
        self, queue: str, *, prefetch: int = 1000, lease_seconds: float | None = None
    ) -> Consumer:
        """Consume a queue by push; as `telpher.Bus.consume`."""
        make = partial(self._bus.consume, queue, prefetch=prefetch, lease_seconds=lease_seconds)
        return Consumer(self._driver, self._driver.call(make))

    def subscribe(
        self,
        topic: str,
        name: str | None = None,
        *,
        start: Start = "latest",
        prefetch: int = 1000,
        lease_seconds: float | None = None,
    ) -> Consumer:
        """Consume a topic, durably under a name or alone; as `telpher.Bus.subscribe`."""
        make = partial(
            self._bus.subscribe,
            topic,
            name,
            start=start,
            prefetch=prefetch,
            lease_seconds=lease_seconds,
        )
        return Consumer(self._driver, self._driver.call(make))

    def fetch(
        self, channel: str, *, max: int = 100, wait: float = 0.0, subscription: str | None = None
    ) -> Batch:
        """Pull up to `max` messages, waiting up to `wait` seconds; as `telpher.Bus.fetch`."""
        fetch = partial(self._bus.fetch, channel, max=max, wait=wait, subscription=subscription)
        fetched = self._run(fetch)
        inner = fetched.consumer
        with self._lock:
            owner = inner.state.facade or Consumer(self._driver, inner)
        return Batch(owner, fetched.parts)

    # --- administration

    def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Ask for a verb of docs/protocol.md; arguments that are None are left out."""
        return self._run(partial(self._bus.call, verb, **arguments))

    def declare(self, channel: str, **config: Any) -> ChannelInfo:
        """Make a queue, or check that there is one of this configuration."""
        return self._run(partial(self._bus.declare, channel, **config))

    def declare_topic(self, channel: str, **config: Any) -> ChannelInfo:
        """Make a topic; `retain_…` and `limit_…` as in `telpher.Bus.declare_topic`."""
        return self._run(partial(self._bus.declare_topic, channel, **config))

    def configure(self, channel: str, **changes: Any) -> ChannelInfo:
        """Change options of a channel while it lives; None takes an option away."""
        return self._run(partial(self._bus.configure, channel, **changes))

    def delete(self, channel: str, *, if_empty: bool = False, if_unused: bool = False) -> None:
        """Delete a channel with all that is in it."""
        self._run(partial(self._bus.delete, channel, if_empty=if_empty, if_unused=if_unused))

    def purge(self, channel: str, *, subscription: str | None = None) -> int:
        """Drop what is ready or delayed; returns how many messages."""
        return self._run(partial(self._bus.purge, channel, subscription=subscription))

    def channels(self, prefix: str = "") -> list[ChannelInfo]:
        """Every channel whose name begins so, in order of name."""

        async def listed() -> list[ChannelInfo]:
            return [channel async for channel in self._bus.channels(prefix)]

        return self._run(listed)

    def inspect(self, channel: str) -> ChannelInfo:
        """A channel and its subscriptions, with their counts."""
        return self._run(partial(self._bus.inspect, channel))

    def browse(
        self, channel: str, *, start: int = 0, count: int = 100, subscription: str | None = None
    ) -> list[Browsed]:
        """Look at messages and consume nothing."""
        browse = partial(self._bus.browse, channel, start=start, count=count)
        return self._run(partial(browse, subscription=subscription))

    def create_subscription(
        self, topic: str, name: str, *, start: Start = "latest"
    ) -> SubscriptionInfo:
        """Make a durable subscription before anybody consumes it."""
        return self._run(partial(self._bus.create_subscription, topic, name, start=start))

    def delete_subscription(self, topic: str, name: str) -> None:
        """Delete a durable subscription."""
        self._run(partial(self._bus.delete_subscription, topic, name))

    def seek(self, topic: str, name: str, to: Start) -> int:
        """Set a subscription back or forth; returns the next offset."""
        return self._run(partial(self._bus.seek, topic, name, to))

    def stats(self) -> dict[str, Any]:
        """Counters of the broker."""
        return self._run(self._bus.stats)

    def snapshot(self) -> dict[str, Any]:
        """Have the broker write a snapshot."""
        return self._run(self._bus.snapshot)

    def rewrite(self) -> dict[str, Any]:
        """Have the broker rewrite its append-only log."""
        return self._run(self._bus.rewrite)

    # --- life

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open at this moment."""
        return self._bus.is_connected

    @property
    def _driver(self) -> Driver:
        if self._driver_ is None:
            raise Closed("this bus is not open: use it inside `with connect(...) as bus:`")
        return self._driver_

    @property
    def _bus(self) -> bus.Bus:
        if self._bus_ is None:
            raise Closed("this bus is not open: use it inside `with connect(...) as bus:`")
        return self._bus_

    def _run(self, function: Callable[[], Awaitable[T]]) -> T:
        return self._driver.call(function)

    def __enter__(self) -> Bus:
        driver = Driver()
        self._bus_ = driver.enter(self._make)
        self._driver_ = driver
        driver.arrivals = self._bus_
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        driver = self._driver
        self._driver_ = self._bus_ = None
        driver.leave(exc)


def connect(url: str | None = None, **options: Any) -> Bus:
    """A bus without await, to the broker at `url`, at $TELPHER_URL, or on this machine.

    `options` are those of `telpher.connect`.

        with connect("telpher://host:7400") as bus:
            bus.publish("jobs", b"hello")
    """
    return Bus(partial(bus.connect, url, **options))
