"""Administration: one method for each verb of the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from telpher.protocol.batch import decode

from .content import as_name

# Where a new subscription begins, or where one is set to: "earliest", "latest", an offset, a time.
Start = str | int | datetime
Info = TypeVar("Info")


class _Info:
    """What the broker told, by attribute; what this version does not know, by `info["name"]`."""

    raw: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.raw[name]


@dataclass(frozen=True)
class SubscriptionInfo(_Info):
    """A subscription; a queue has one, with an empty name. Counts are messages.

    `next` is the first offset that was never delivered; `missed` counts what limits dropped unread.
    """

    name: str
    durable: bool
    ready: int
    delayed: int
    leased: int
    consumers: int
    next: int
    missed: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class ChannelInfo(_Info):
    """A channel: `kind` is "queue" or "topic"; its log holds the offsets `start` to `next`
    (exclusive), `messages` of them in `bytes`."""

    name: str
    kind: str
    config: Mapping[str, Any]
    start: int
    next: int
    messages: int
    bytes: int
    subscriptions: tuple[SubscriptionInfo, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)


def _info(kind: type[Info], told: Mapping[str, Any]) -> Info:
    known = {one.name: told.get(one.name, 0) for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**(known | {"raw": told}))


def channel_info(told: Mapping[str, Any]) -> ChannelInfo:
    """What `inspect` answered."""
    subscriptions = tuple(_info(SubscriptionInfo, one) for one in told.get("subscriptions", ()))
    return replace(_info(ChannelInfo, told), subscriptions=subscriptions)


class Browsed(NamedTuple):
    """A message that was looked at and not consumed; `attempt` is of its last delivery, `about`
    what the broker says of it beside what it says itself."""

    offset: int
    body: bytes
    key: str | None
    headers: dict[str, Any]
    attempt: int
    published_at: float
    about: Mapping[str, Any]


class Channels:
    """The async iterator of `channels`, page by page; no generator, so it may be left anywhere."""

    def __init__(self, bus: Administration, prefix: str) -> None:
        self._bus = bus
        self._prefix = prefix
        self._page: list[ChannelInfo] = []
        self._after: str | None = None
        self._is_last = False

    def __aiter__(self) -> Channels:
        return self

    async def __anext__(self) -> ChannelInfo:
        while not self._page:
            if self._is_last:
                raise StopAsyncIteration
            told = await self._bus.call(
                "list", prefix=self._prefix or None, after=self._after, limit=100
            )
            self._page = list(map(channel_info, reversed(told["channels"])))
            self._after = told["next"]
            self._is_last = self._after is None
        return self._page.pop()


class Administration:
    """The rare verbs; a Bus has them all. Each raises Refused, by subclass for each reason."""

    async def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Ask for a verb by its name in docs/protocol.md; arguments that are None are left out."""
        raise NotImplementedError

    async def declare(self, channel: str, **config: Any) -> ChannelInfo:
        """Make a queue, or check that there is one of this configuration.

        Raises ChannelDiffers. Returns what `inspect` returns.

            await bus.declare("jobs")
        """
        return await self._declare(channel, "queue", config)

    async def declare_topic(self, channel: str, **config: Any) -> ChannelInfo:
        """Make a topic; `retain_seconds`, `retain_bytes`, `retain_count` say how much stays for
        replay, `limit_seconds`, `limit_bytes`, `limit_count` how much there may be at most.

            await bus.declare_topic("prices", retain_seconds=86_400)
        """
        return await self._declare(channel, "topic", config)

    async def _declare(self, channel: str, kind: str, config: dict[str, Any]) -> ChannelInfo:
        return channel_info(
            await self.call("declare", channel=as_name(channel), kind=kind, config=config)
        )

    async def configure(self, channel: str, **changes: Any) -> ChannelInfo:
        """Change options of a channel while it lives; None takes an option away, those not named
        stay. Returns what `inspect` returns.

            await bus.configure("prices", retain_seconds=3600, limit_count=None)
        """
        return channel_info(await self.call("configure", channel=as_name(channel), config=changes))

    async def delete(
        self, channel: str, *, if_empty: bool = False, if_unused: bool = False
    ) -> None:
        """Delete a channel with all that is in it. Raises ChannelNotEmpty, ChannelInUse."""
        await self.call(
            "delete",
            channel=as_name(channel),
            if_empty=if_empty or None,
            if_unused=if_unused or None,
        )

    async def purge(self, channel: str, *, subscription: str | None = None) -> int:
        """Drop what is ready or delayed, for a topic of one subscription; returns how many."""
        result = await self.call("purge", channel=as_name(channel), subscription=subscription)
        return int(result["purged"])

    def channels(self, prefix: str = "") -> Channels:
        """Every channel whose name begins so, in order of name, as `inspect` tells it.

        async for channel in bus.channels():
            print(channel.name, channel.messages)
        """
        return Channels(self, prefix)

    async def inspect(self, channel: str) -> ChannelInfo:
        """A channel and its subscriptions, with their counts. Raises UnknownChannel."""
        return channel_info(await self.call("inspect", channel=as_name(channel)))

    async def browse(
        self, channel: str, *, start: int = 0, count: int = 100, subscription: str | None = None
    ) -> list[Browsed]:
        """Look at up to `count` (1 to 1,000) messages from offset `start` and consume nothing."""
        result = await self.call(
            "browse", channel=as_name(channel), subscription=subscription, start=start, count=count
        )
        return [message for part in result["parts"] for message in _browsed(*part)]

    async def create_subscription(
        self, topic: str, name: str, *, start: Start = "latest"
    ) -> SubscriptionInfo:
        """Make a durable subscription before anybody consumes it; one that exists is left alone."""
        told = await self.call(
            "subscribe",
            channel=as_name(topic),
            subscription=as_name(name),
            start=start_value(start),
        )
        return _info(SubscriptionInfo, told)

    async def delete_subscription(self, topic: str, name: str) -> None:
        """Delete a durable subscription. Raises UnknownSubscription."""
        await self.call("unsubscribe", channel=as_name(topic), subscription=as_name(name))

    async def seek(self, topic: str, name: str, to: Start) -> int:
        """Set a subscription back or forth; leases on it end. Returns the next offset."""
        result = await self.call(
            "seek", channel=as_name(topic), subscription=as_name(name), to=start_value(to)
        )
        return int(result["next"])

    async def stats(self) -> dict[str, Any]:
        """Counters of the broker."""
        return await self.call("stats")

    async def snapshot(self) -> dict[str, Any]:
        """Have the broker write a snapshot; returns when it is on the disk. Raises Busy."""
        return await self.call("snapshot")

    async def rewrite(self) -> dict[str, Any]:
        """Have the broker rewrite its append-only log; returns when that is done. Raises Busy."""
        return await self.call("rewrite")


def start_value(start: Start) -> Any:
    """A start as it travels; raises ValueError or TypeError with what it may be.

    >>> start_value("earliest"), start_value(17)
    ('earliest', 17)
    """
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ValueError("a start time needs a time zone: datetime.now(timezone.utc), say")
        return {"time_ms": round(start.timestamp() * 1000)}
    if start in ("earliest", "latest"):
        return start
    if isinstance(start, int) and not isinstance(start, bool):
        if start < 0:
            raise ValueError(f"start={start}; an offset is 0 or more")
        return start
    raise ValueError(f"start={start!r}; it may be 'earliest', 'latest', an offset or a datetime")


def _browsed(
    first: int,
    attempt: int,
    published_ms: int,
    batch: bytes,
    about: Mapping[str, Any] | None = None,
) -> list[Browsed]:
    columns = decode(batch)
    count = len(columns.bodies)
    keys = columns.keys or (None,) * count
    headers = columns.headers or (None,) * count
    return [
        Browsed(first + index, body, key, row or {}, attempt, published_ms / 1000, about or {})
        for index, (body, key, row) in enumerate(zip(columns.bodies, keys, headers, strict=True))
    ]
