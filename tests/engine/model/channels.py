"""Channels as the model has them: one object for each message, and one for where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Message:
    offset: int
    body: bytes
    properties: dict[str, int] | None
    published_ms: int
    channel_ttl_ms: float = float("inf")
    key: str | None = None
    headers: dict[str, Any] | None = None
    about: dict[str, Any] | None = None  # what the broker says of it

    @property
    def priority(self) -> int:
        return (self.properties or {}).get("priority", 0)

    @property
    def due_ms(self) -> int:
        properties = self.properties or {}
        due_ms = properties.get("due_ms", self.published_ms + properties.get("delay_ms", 0))
        return due_ms if due_ms > self.published_ms else 0

    @property
    def expires_ms(self) -> float:
        ttl = (self.properties or {}).get("ttl_ms", float("inf"))
        due_ms = max(self.due_ms, self.published_ms)
        return min(self.published_ms + ttl, due_ms + self.channel_ttl_ms)


@dataclass(eq=False)
class Consumer:
    session: int | None
    request: int
    sub: Sub
    prefetch: int
    credit: int
    lease_ms: int
    token: bytes | None = None
    member: bytes = b""
    fetch: tuple[int, int] | None = None  # (request, deadline)
    got: int = 0
    missed: int = 0


@dataclass
class Place:
    """Where one unsettled message of one subscription stands."""

    message: Message
    due_ms: int
    attempt: int = 0
    consumer: Consumer | None = None
    delivery: int = 0
    deadline_ms: int = 0

    def is_ready(self, now_ms: int) -> bool:
        return self.consumer is None and self.due_ms <= now_ms


@dataclass(eq=False)
class Sub:
    channel: Channel
    name: str
    durable: bool
    acks: bool
    places: dict[int, Place] = field(default_factory=dict)
    consumers: list[Consumer] = field(default_factory=list)
    missed: int = 0
    may_be_missed: int = 0

    def add(self, message: Message) -> None:
        self.places[message.offset] = Place(message, message.due_ms)

    def in_line(self, now_ms: int) -> list[int]:
        """The offsets that may be delivered, in the order in which they must be."""
        ready = [
            place.message
            for place in self.places.values()
            if place.is_ready(now_ms) and place.message.expires_ms > now_ms
        ]
        return [message.offset for message in sorted(ready, key=self.line_key)]

    def line_key(self, message: Message) -> tuple[int, int, int, int]:
        """By priority, then by offset; a delay that is over as if published when it was due."""
        due_ms = self.places[message.offset].due_ms
        if not due_ms or self.places[message.offset].attempt:
            return self.rank(message, message.published_ms), message.offset, 0, message.offset
        later = (m.offset for m in self.channel.messages if m.published_ms >= due_ms)
        place = next(later, self.channel.next) - 1
        return self.rank(message, due_ms), place, due_ms, message.offset

    def rank(self, message: Message, since_ms: int) -> int:
        """By priority; where it grows with waiting, by when the message would be at 0."""
        aging_seconds = self.channel.config.get("priority_aging_seconds")
        if aging_seconds is None:
            return -message.priority
        return since_ms - message.priority * aging_seconds * 1000

    @property
    def is_shared_out(self) -> bool:
        """Whether it is of a partition."""
        return "partition" in self.channel.config

    def may_serve(self, consumer: Consumer) -> bool:
        """Of a partition only the one member whose it is, when nobody else holds anything."""
        if not self.is_shared_out:
            return True
        here = [one for one in self.consumers if one.session is not None]
        members = sorted({one.member for one in here})
        owner = members[self.channel.config["partition"] % len(members)]
        others = [p.consumer for p in self.places.values() if p.consumer not in (None, consumer)]
        return consumer is next(one for one in here if one.member == owner) and not others

    def held(self, consumer: Consumer) -> list[int]:
        return [o for o, place in sorted(self.places.items()) if place.consumer is consumer]


@dataclass(eq=False)
class Channel:
    name: str
    kind: str
    config: dict[str, Any]
    messages: list[Message] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    start: int = 0
    seen: int = 0  # up to where the engine's log was compared
    subs: dict[str, Sub] = field(default_factory=dict)

    @property
    def next(self) -> int:
        return len(self.messages)

    @property
    def makes_room(self) -> bool:
        """Whether what is beyond its limits is taken, and the oldest goes."""
        return self.config.get("overflow", self.kind) in ("drop_oldest", "topic")

    @property
    def is_bounded(self) -> bool:
        """Whether a publish or what is ready may be too much for it."""
        limits = self.config.keys() & {"limit_count", "limit_bytes"}
        return bool(limits) and (self.kind == "queue" or not self.makes_room)

    @property
    def is_ephemeral(self) -> bool:
        """Whether nothing of it outlives its readers."""
        is_kept = self.kind == "queue" or any(name.startswith("retain_") for name in self.config)
        return not is_kept and not any(sub.durable for sub in self.subs.values())

    @property
    def batches(self) -> list[tuple[int, int, int]]:
        """First, end and bytes of each that was ever published."""
        return list(zip(self.firsts, [*self.firsts, self.next][1:], self.sizes, strict=True))

    def held(self) -> tuple[int, int]:
        """How many messages somebody needs still, and the bytes of the batches that have them."""
        wanted = {offset for sub in self.subs.values() for offset in sub.places}
        low = min(wanted, default=self.next)
        if self.kind == "queue":
            needed = [b for b in self.batches if any(o in wanted for o in range(*b[:2]))]
            return len(wanted), sum(size for _, _, size in needed)
        needed = [(first, end, size) for first, end, size in self.batches if end > low]
        return sum(end - first for first, end, _ in needed), sum(size for *_, size in needed)

    def kept_from(self, kind: str) -> int | None:
        """Where the batches begin that `retain_*` or `limit_*` leave alone; None: no such bound."""
        bounds = []
        count = self.config.get(f"{kind}_count")
        if count is not None:
            least = self.next - count
            if kind == "limit" and not self.makes_room:
                least = min(first for first in [*self.firsts, self.next] if first >= least)
            bounds.append(max((first for first in self.firsts if first <= least), default=0))
        size = self.config.get(f"{kind}_bytes")
        if size is not None:
            inside = [f for i, f in enumerate(self.firsts) if sum(self.sizes[i:]) <= size]
            bounds.append(min(inside, default=self.next))
        return max(bounds, default=None)
