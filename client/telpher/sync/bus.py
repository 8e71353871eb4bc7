"""The bus without await."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar

from .. import bus
from ..admin import Start
from ..content import Body, LevelName, as_body, as_headers, as_key, as_level, as_properties
from ..driver import Driver
from ..errors import Closed
from ..identity import Conflict, While, as_unique, identified
from ..lane import Lane, Receipt, Waiting
from ..requests import Reply
from .admin import Administration
from .consumer import Consumer
from .message import Batch
from .partitions import Partitions
from .producer import Producer
from .transaction import Transaction

T = TypeVar("T")


class Bus(Administration):
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
        due: datetime | None = None,
        ttl: float | None = None,
        priority: int | None = None,
        mandatory: bool = False,
        dedup_id: str | None = None,
        unique: str | None = None,
        unique_while: While | None = None,
        on_conflict: Conflict | None = None,
        confirm: LevelName | None = None,
        deadline: float | None = None,
    ) -> Receipt:
        """Publish one message and wait for its confirm; as `telpher.Bus.publish`."""
        inner, lane = self._bus, None
        waiting = Waiting(
            as_body(body), as_key(key), identified(as_headers(headers), dedup_id, unique)
        )
        properties = as_properties(delay, ttl, priority, due, mandatory=mandatory)
        common = (properties + as_unique(unique, unique_while, on_conflict), as_level(confirm))

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

    def transaction(
        self,
        *,
        confirm: LevelName | None = None,
        timeout: float | None = 60.0,
        producer: bytes | None = None,
        sequence: int = 0,
    ) -> Transaction:
        """Acknowledge and publish in one step; as `telpher.Bus.transaction`."""
        make = partial(
            self._bus.transaction,
            confirm=confirm,
            timeout=timeout,
            producer=producer,
            sequence=sequence,
        )
        return Transaction(self._driver, self._driver.call(make))

    # --- asking

    def request(self, channel: str, body: Body, **options: Any) -> Reply:
        """Publish a request and wait for the first reply; as `telpher.Bus.request`."""
        return self._run(partial(self._bus.request, channel, body, **options))

    def request_many(self, channel: str, body: Body, **options: Any) -> Iterator[Reply]:
        """Publish a request and iterate over the replies; as `telpher.Bus.request_many`."""
        replies = self._bus.request_many(channel, body, **options)
        while True:
            try:
                reply = self._run(replies.__anext__)
            except StopAsyncIteration:
                return
            yield reply

    # --- consuming

    def consume(
        self,
        queue: str,
        *,
        prefetch: int = 1000,
        lease_seconds: float | None = None,
        exclusive: bool = False,
        fence: bool = False,
    ) -> Consumer:
        """Consume a queue by push; as `telpher.Bus.consume`."""
        make = partial(
            self._bus.consume,
            queue,
            prefetch=prefetch,
            lease_seconds=lease_seconds,
            exclusive=exclusive,
            fence=fence,
        )
        return Consumer(self._driver, self._driver.call(make))

    def subscribe(
        self,
        topic: str,
        name: str | None = None,
        *,
        start: Start = "latest",
        prefetch: int = 1000,
        lease_seconds: float | None = None,
        exclusive: bool = False,
        fence: bool = False,
        filter: Mapping[str, Any] | None = None,
        match: Literal["all", "any"] = "all",
        lagging: Literal["miss", "close"] = "miss",
    ) -> Consumer:
        """Consume a topic or a pattern of topics; as `telpher.Bus.subscribe`."""
        make = partial(
            self._bus.subscribe,
            topic,
            name,
            start=start,
            prefetch=prefetch,
            lease_seconds=lease_seconds,
            exclusive=exclusive,
            fence=fence,
            filter=filter,
            match=match,
            lagging=lagging,
        )
        return Consumer(self._driver, self._driver.call(make))

    def consume_partitions(
        self, channel: str, subscription: str | None = None, **options: Any
    ) -> Partitions:
        """Consume all partitions of a channel; as `telpher.Bus.consume_partitions`."""
        make = partial(self._bus.consume_partitions, channel, subscription, **options)
        return Partitions(self._driver, self._driver.call(make))

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
