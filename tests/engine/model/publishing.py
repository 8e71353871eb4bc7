"""What is published, alone or in a transaction: refused, or stored where it goes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher.protocol.frames import Level

from .channels import Channel, Consumer, Message
from .limits import Quota
from .routing import Binding, Exchange, grouped, route
from .said import Expected, plain


class Refused(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Dropped(Exception):
    """A quota lets a topic drop it."""


class Portion(NamedTuple):
    """A batch as it is stored in `channels`."""

    channels: list[Channel]
    batch: bytes


class Publication(NamedTuple):
    """So many messages for `source`, and where they go."""

    source: Channel | Exchange
    messages: int
    portions: list[Portion]


# What of one request has room and is not stored yet: messages and bytes of a channel; how much it
# takes of a quota, by the quota's name and its subject.
Promised = dict[Any, Any]


class Publishing:
    """The half of the model that publishes, and what all of it is about."""

    def __init__(
        self, now_ms: int, window_bytes: int, resume_ms: int, producer_window: int
    ) -> None:
        self.now_ms = now_ms
        self.window_bytes = window_bytes
        self.resume_ms = resume_ms
        self.producer_window = producer_window
        self.channels: dict[str, Channel] = {}
        self.exchanges: dict[str, Exchange] = {}
        self.windows: dict[int, int] = {}
        self.producers: dict[bytes, tuple[Channel | Exchange, dict[int, int]]] = {}
        self.transacted: dict[bytes, dict[int, tuple[int, ...]]] = {}
        self.quotas: dict[str, Quota] = {}
        self.is_full = False
        self.expected: list[Expected] = []
        self.lost: dict[tuple[int, int], set[int]] = {}
        # Of whom a limit took some: they are told that before.
        self.robbed: set[tuple[int, int]] = set()
        self.largest: dict[int, int] = {}

    def publish(self, session: int, frame: f.Publish) -> None:
        source = self.source(frame.channel)
        level = max(frame.confirm or 0, 1)
        try:
            recent = self._recent(frame, source)
            first = recent.get(frame.sequence)
            if first is None:
                promised: Promised = {}
                publication = self._prepare(session, frame.channel, frame.batch, promised)
                self._take(promised)
                first = self._store(publication)
        except Dropped:
            if frame.confirm:
                self.refuse(session, frame.request, "quota_exceeded")
            else:
                self._drop(session, frame)
            return
        except Refused as refused:
            self.refuse(session, frame.request, refused.code)
            return
        if frame.producer is not None:
            known = {**recent, frame.sequence: first}
            self.producers[frame.producer] = (source, self._latest(known))
        self.expect(session, f.Confirm(frame.request, first, level))

    def _recent(self, frame: f.Publish, source: Channel | Exchange) -> dict[int, int]:
        """What the producer got for its latest numbers."""
        if frame.producer is None:
            return {}
        former, recent = self.producers.get(frame.producer, (source, {}))
        if former is not source:
            if former in (*self.channels.values(), *self.exchanges.values()):
                raise Refused("bad_request")
            return {}
        self._check_age(frame.sequence, recent)
        return recent

    def _check_age(self, sequence: int, recent: dict[int, Any]) -> None:
        if len(recent) >= self.producer_window and sequence < min(recent):
            raise Refused("sequence_too_old")

    def _latest(self, known: dict[int, Any]) -> dict[int, Any]:
        return dict(sorted(known.items())[-self.producer_window :])

    def source(self, name: str) -> Channel | Exchange:
        """What has that name."""
        return self.exchanges.get(name) or self.channels[name]

    def _drop(self, session: int, frame: f.Publish) -> None:
        """Its readers are told how many they missed; it is confirmed as no more than received."""
        channel = self.channels[frame.channel]
        for sub in channel.subs.values():
            count = len(batches.decode(frame.batch).bodies)
            self.miss(sub, count, count)
        self.expect(session, f.Confirm(frame.request, channel.next, Level.RECEIVED))

    def _prepare(
        self, session: int | None, name: str, batch: bytes, promised: Promised
    ) -> Publication:
        """Where it goes, or a refusal; `promised` is what of the same request is not stored yet."""
        if self.is_full:
            raise Refused("disk_full")
        columns = batches.decode(batch)
        count = len(columns.bodies)
        source = self.source(name)
        topic = source if isinstance(source, Channel) else None
        if session is not None:
            self._meter("connection", str(session), count, len(batch), promised, topic)
        if isinstance(source, Channel):
            self._check_room(source, count, len(batch), promised)
            self._meter("channel", name, count, len(batch), promised, topic)
            return Publication(source, count, [Portion([source], batch)])
        rows = zip(columns.keys or [None] * count, columns.headers or [None] * count, strict=True)
        routes = [
            route(self.exchanges, name, key, headers, serial)
            for serial, (key, headers) in enumerate(rows, source.next)
        ]
        if (columns.properties or {}).get("mandatory") and not all(routes):
            raise Refused("unroutable")
        portions = []
        for to, picked in grouped(routes):
            part = batch
            if len(picked) < count:
                part = batches.encode(batches.pick(columns, picked))
            channels = [channel for channel in self.channels.values() if channel.name in to]
            for channel in channels:
                self._check_room(channel, len(picked), len(part), promised)
                self._meter("channel", channel.name, len(picked), len(part), promised, None)
            portions.append(Portion(channels, part))
        return Publication(source, count, portions)

    def _check_room(self, channel: Channel, count: int, size: int, promised: Promised) -> None:
        if not channel.is_bounded:
            return
        most = channel.config.get("limit_count", math.inf)
        most_bytes = channel.config.get("limit_bytes", math.inf)
        if channel.makes_room:
            if size > most_bytes:
                raise Refused("channel_full")
            return
        held, held_bytes = channel.held()
        messages, body_bytes = promised.get(channel, (0, 0))
        promised[channel] = messages + count, body_bytes + size
        if held + messages + count > most or held_bytes + body_bytes + size > most_bytes:
            raise Refused("channel_full")

    def _meter(
        self,
        kind: str,
        subject: str,
        count: int,
        size: int,
        promised: Promised,
        topic: Channel | None,
    ) -> None:
        """Stop what a quota has no room for. A `topic` may drop it, if nothing outlives that."""
        for name, quota in sorted(self.quotas.items()):
            if not quota.is_for(kind, subject):
                continue
            amount = promised.get((name, subject), 0)
            amount += count if quota.unit == "messages" else size
            if not quota.has_room(subject, amount, self.now_ms):
                if quota.at_limit == "drop" and topic is not None and topic.is_ephemeral:
                    raise Dropped
                raise Refused("quota_exceeded")
            promised[name, subject] = amount

    def _take(self, promised: Promised) -> None:
        """What had room is stored now."""
        for claimed, amount in promised.items():
            if isinstance(claimed, tuple):
                name, subject = claimed
                passed = self.quotas[name].passed.setdefault(subject, [])
                passed.append((self.now_ms, amount))

    def forget_used(self, kind: str, subject: str) -> None:
        """A connection or a channel is gone."""
        for quota in self.quotas.values():
            if quota.is_for(kind, subject):
                quota.passed.pop(subject, None)

    def _store(self, publication: Publication, about: dict[str, Any] | None = None) -> int:
        """Where the first message is, or its number among those of the exchange."""
        source = publication.source
        first = source.next
        for portion in publication.portions:
            for channel in portion.channels:
                self._append(channel, portion.batch, about)
        if isinstance(source, Exchange):
            source.next += publication.messages
        return first

    def _append(self, channel: Channel, batch: bytes, about: dict[str, Any] | None) -> None:
        columns = batches.decode(batch)
        channel.firsts.append(channel.next)
        channel.sizes.append(len(batch))
        ttl_ms = channel.config.get("ttl_seconds", float("inf")) * 1000
        count = len(columns.bodies)
        keys, headers = columns.keys or [None] * count, columns.headers or [None] * count
        for body, key, one in zip(columns.bodies, keys, headers, strict=True):
            at = channel.next
            message = Message(at, body, columns.properties, self.now_ms, ttl_ms, key, one, about)
            channel.messages.append(message)
            for sub in channel.subs.values():
                sub.add(message)

    def transact(self, session: int, frame: f.Transact, settles: dict[Consumer, set[int]]) -> None:
        """All of it or nothing, and once."""
        level = Level(max(frame.confirm or 0, 1))
        recent = self.transacted.get(frame.producer, {})
        try:
            self._check_age(frame.sequence, recent)
            firsts = recent.get(frame.sequence)
            if firsts is None:
                firsts = self._transacted(session, frame, settles)
        except Refused as refused:
            self.refuse(session, frame.request, refused.code)
            return
        except Dropped:
            self.refuse(session, frame.request, "quota_exceeded")
            return
        self.transacted[frame.producer] = self._latest({**recent, frame.sequence: firsts})
        self.expect(session, f.Reply(frame.request, {"level": level, "firsts": firsts}))

    def _transacted(
        self, session: int, frame: f.Transact, settles: dict[Consumer, set[int]]
    ) -> tuple[int, ...]:
        if any(offsets - set(c.sub.held(c)) for c, offsets in settles.items()):
            raise Refused("lease_lost")
        promised: Promised = {}
        prepared = [
            self._prepare(session, name, batch, promised) for name, batch in frame.publishes
        ]
        self._take(promised)
        for consumer, offsets in settles.items():
            for offset in offsets:
                del consumer.sub.places[offset]
            if consumer.prefetch:
                consumer.credit += len(offsets)
        return tuple(self._store(publication) for publication in prepared)

    # -- exchanges -----------------------------------------------------------------------------

    def delete_exchange(self, name: str) -> None:
        del self.exchanges[name]
        self.unbind_all(name)

    def unbind_all(self, target: str) -> None:
        """A channel or an exchange is deleted: nothing leads there any more."""
        for exchange in self.exchanges.values():
            exchange.forget(target)

    def partition(self, name: str, kind: str, count: int) -> None:
        """Have so many partitions: those that are missing are made, like the others."""
        exchange = self.exchanges.setdefault(name, Exchange(name, "consistent-hash"))
        there = {f"{name}.{n}" for n in range(9)} & {b.target for b in exchange.bindings}
        former = min(there, default=None)
        if max(there, default="") >= f"{name}.{count}":
            raise Refused("channel_differs")
        for index in range(count):
            part = f"{name}.{index}"
            if part not in self.channels:
                self.declare(part, kind, {"partition": index})
                if former is not None:
                    self.subscribe_alike(self.channels[former], part)
            if part not in there:
                exchange.bindings.append(Binding(part))

    # -- what is said of it --------------------------------------------------------------------

    def expect(self, session: int | None, frame: Any) -> None:
        self.expected.append((session, *plain(frame)))

    def refuse(self, session: int | None, request: int, code: str) -> None:
        self.expected.append((session, "Refused", request, code))
