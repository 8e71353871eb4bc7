"""How a bus consumes: by push, from a queue or a topic, or by pull."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import anyio

from .admin import Start, start_value
from .batch import Batch
from .consumer import Consumer
from .content import as_filter, as_name, as_source
from .partitions import Partitions
from .session import Session
from .session.consumer import ConsumerState
from .session.exchange import Exchange

if TYPE_CHECKING:
    from .bus import Bus


def _closes(lagging: str) -> bool:
    if lagging not in ("miss", "close"):
        raise ValueError(f"lagging is {lagging!r}; it may be 'miss' or 'close'")
    return lagging == "close"


class Consuming:
    """What a Bus can consume with. Consumers that have pulled wait in `_pullers` for the next."""

    _session: Session
    _now: Callable[[], float]
    _pullers: dict[tuple[str, str | None], list[Consumer]]

    def _raise_if_ended(self) -> None:
        raise NotImplementedError

    def consume(
        self,
        queue: str,
        *,
        prefetch: int = 1000,
        lease_seconds: float | None = None,
        exclusive: bool = False,
        fence: bool = False,
    ) -> Consumer:
        """Consume a queue by push; up to `prefetch` messages are unsettled here at a time.

        A message is leased for `lease_seconds` (the broker's default if None) and renewed while it
        is held. `exclusive` allows no other consumer of the queue: who comes second, whichever of
        both it is, gets ConsumerExclusive. `fence` gives each message the number of its lease,
        `message.fence`. Raises UnknownChannel and the like when it is entered.

            async with bus.consume("jobs") as messages:
                async for message in messages: ...
        """
        return self._consumer(
            queue,
            None,
            prefetch=prefetch,
            lease_seconds=lease_seconds,
            exclusive=exclusive,
            fence=fence,
        )

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
        """Consume a topic: under a `name` durably, with acks, shared with the other consumers of
        that name; without one alone and for as long as this lasts, where taken is settled.

        A pattern stands for all topics that match, also those that are made later: `*` is one word
        of a name and `#` any number; `message.origin` tells from which topic a message is.

        `start` is where a new subscription begins: "earliest", "latest", an offset, or a datetime
        with a time zone. `filter`: only messages with all these headers, or any of them by `match`;
        None as a value is any value. The other options are those of `consume`.

        Who lags so far that messages are dropped before it had them goes on behind the gap, and
        finds them counted in `missed`; with `lagging="close"` it ends with Lagged instead.

            async with bus.subscribe("prices", name="billing", start="earliest") as messages: ...
        """
        return self._consumer(
            topic,
            None if name is None else as_name(name),
            prefetch=prefetch,
            lease_seconds=lease_seconds,
            exclusive=exclusive,
            fence=fence,
            start=start_value(start),
            automatic=name is None,
            filter=as_filter(filter, match),
            closes_when_lagging=_closes(lagging),
        )

    def consume_partitions(
        self,
        channel: str,
        subscription: str | None = None,
        *,
        start: Start = "latest",
        prefetch: int = 100,
        lease_seconds: float | None = None,
        fence: bool = False,
        refresh_seconds: float = 10.0,
    ) -> Partitions:
        """Consume all partitions of a channel as one member of their group; each partition goes to
        one member at a time, and all are shared out anew when one joins or leaves.

        Topics need a `subscription` to share them out, without one everybody has them all. Up to
        `prefetch` messages of each partition are unsettled here; a partition changes hands when
        they are settled. New partitions are found within `refresh_seconds`, while messages are
        asked for. The other options are those of `consume` and `subscribe`. Raises UnknownExchange.

            async with bus.consume_partitions("orders") as messages:
                async for message in messages: ...
        """
        self._raise_if_ended()
        return Partitions(
            cast("Bus", self),
            as_name(channel),
            partial(self._consumer, prefetch=prefetch, lease_seconds=lease_seconds, fence=fence),
            subscription=None if subscription is None else as_name(subscription),
            start=start_value(start),
            refresh_seconds=refresh_seconds,
        )

    async def fetch(
        self,
        channel: str,
        *,
        max: int = 100,
        wait: float = 0.0,
        subscription: str | None = None,
    ) -> Batch:
        """Pull up to `max` messages; waits up to `wait` seconds for the first, 0 does not wait.

        Returns a Batch, empty if nothing came. The messages are leased and wait for ack.

            for message in await bus.fetch("jobs", max=10, wait=5.0):
                message.ack()
        """
        idle = self._pullers.setdefault((channel, subscription), [])
        while idle:
            puller = idle.pop()
            if puller.state.ended is None:
                break
        else:
            puller = self._consumer(channel, subscription, prefetch=0)
            await puller.join()
        return await self._fetch(puller, idle, max, wait)

    async def _fetch(
        self, puller: Consumer, idle: list[Consumer], count: int, wait: float
    ) -> Batch:
        state, done = puller.state, anyio.Event()
        is_wanted = True

        def on_done(_: Exchange) -> None:
            if not is_wanted:
                give_back()
            done.set()

        def give_back() -> None:
            state.requeue_untaken()
            idle.append(puller)

        exchange = state.fetch(count, self._now() + wait, on_done)
        try:
            await done.wait()
        except BaseException:
            # What was fetched before by this consumer stays leased; what still comes goes back.
            is_wanted = False
            if exchange.done:
                give_back()
            raise
        if exchange.error is not None:
            raise exchange.error
        idle.append(puller)
        return puller.take_nowait()

    def _consumer(self, channel: str, subscription: str | None, **options: Any) -> Consumer:
        self._raise_if_ended()
        state = ConsumerState(
            self._session,
            as_source(channel),
            subscription,
            token=secrets.token_bytes(16),
            **options,
        )
        return Consumer(self._session, state, cast("Bus", self))
