"""What the broker tells of channels, subscriptions and messages, as objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from telpher.protocol.about import shifted
from telpher.protocol.batch import decode

from ..failure import Letter, letter_of

# Where a new subscription begins, or where one is set to: "earliest", "latest", an offset, a time.
Start = str | int | datetime
Told = TypeVar("Told")


class Info:
    """What the broker told, by attribute; what this version does not know, by `info["name"]`."""

    raw: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.raw[name]


@dataclass(frozen=True)
class SubscriptionInfo(Info):
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
class ChannelInfo(Info):
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


@dataclass(frozen=True)
class ExchangeInfo(Info):
    """An exchange: its kind and configuration, how many messages were `published` to it, and how
    many `bindings` lead from it."""

    name: str
    kind: str
    config: Mapping[str, Any]
    published: int
    bindings: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)


class BindingInfo(NamedTuple):
    """What leads from an exchange to `target`, a channel or an exchange: a key or a pattern, or
    headers of which all or any must `match`, or a weight."""

    target: str
    key: str
    headers: Mapping[str, Any] | None = None
    match: str | None = None
    weight: int = 1


class QuotaLevel(NamedTuple):
    """How much one subject of a quota could publish at once now, and how many publishes wait."""

    subject: str
    room: int
    waiting: int


@dataclass(frozen=True)
class QuotaInfo(Info):
    """A quota: `limit` messages or bytes (`unit`) in `window_ms` for each of its `subjects`, of
    which `levels` has the hundred nearest to the limit."""

    name: str
    subject: str
    algorithm: str
    limit: int
    window_ms: int
    burst: int
    unit: str
    at_limit: str
    subjects: int
    levels: tuple[QuotaLevel, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def window_seconds(self) -> float:
        """The window in seconds."""
        return self.window_ms / 1000


def info(kind: type[Told], told: Mapping[str, Any]) -> Told:
    known = {one.name: told.get(one.name, 0) for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**(known | {"raw": told}))


def channel_info(told: Mapping[str, Any]) -> ChannelInfo:
    """What `inspect` answered."""
    subscriptions = tuple(info(SubscriptionInfo, one) for one in told.get("subscriptions", ()))
    return replace(info(ChannelInfo, told), subscriptions=subscriptions)


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

    @property
    def letter(self) -> Letter | None:
        """How it died, if it is a dead letter."""
        return letter_of(self.about)


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


def browsed(
    first: int,
    attempt: int,
    published_ms: int,
    batch: bytes,
    about: Mapping[str, Any] | None = None,
) -> list[Browsed]:
    """The messages of a part that `browse` answered."""
    columns = decode(batch)
    count = len(columns.bodies)
    keys = columns.keys or (None,) * count
    headers = columns.headers or (None,) * count
    return [
        Browsed(
            first + index,
            body,
            key,
            row or {},
            attempt,
            published_ms / 1000,
            shifted(about or {}, index),
        )
        for index, (body, key, row) in enumerate(zip(columns.bodies, keys, headers, strict=True))
    ]
