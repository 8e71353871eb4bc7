"""The broker as one would explain it: dicts, one object for each message, no ranges, no indexes.

`Model` is told each command and then everything that the engine said, round by round. It does
not guess which of several competing consumers gets a message; it checks that who got it could
have it, that it was next in line, and that nobody who could have had more went without.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher.protocol.frames import Level
from telpher_broker.engine.engine import Engine, Round
from telpher_broker.engine.ranges import LEASED
from telpher_broker.engine.turn import PART_BYTES

Expected = tuple[Any, ...]


@dataclass
class Message:
    offset: int
    body: bytes
    properties: dict[str, int] | None
    published_ms: int
    channel_ttl_ms: float = float("inf")

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
    token: bytes | None
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
            if place.consumer is None
            and place.due_ms <= now_ms
            and place.message.expires_ms > now_ms
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

    def held(self, consumer: Consumer) -> list[int]:
        return [o for o, place in sorted(self.places.items()) if place.consumer is consumer]


@dataclass(eq=False)
class Channel:
    name: str
    kind: str
    config: dict[str, int]
    messages: list[Message] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    start: int = 0
    subs: dict[str, Sub] = field(default_factory=dict)

    @property
    def next(self) -> int:
        return len(self.messages)

    def kept_from(self, kind: str) -> int | None:
        """Where the batches begin that `retain_*` or `limit_*` leave alone; None: no such bound."""
        bounds = []
        count = self.config.get(f"{kind}_count")
        if count is not None:
            inside = [first for first in self.firsts if first <= self.next - count]
            bounds.append(max(inside, default=0))
        size = self.config.get(f"{kind}_bytes")
        if size is not None:
            inside = [f for i, f in enumerate(self.firsts) if sum(self.sizes[i:]) <= size]
            bounds.append(min(inside, default=self.next))
        return max(bounds, default=None)


class Model:
    """What the broker should be doing."""

    def __init__(
        self, now_ms: int, window_bytes: int, resume_ms: int, producer_window: int
    ) -> None:
        self.now_ms = now_ms
        self.window_bytes = window_bytes
        self.resume_ms = resume_ms
        self.producer_window = producer_window
        self.channels: dict[str, Channel] = {}
        self.windows: dict[int, int] = {}
        self.producers: dict[bytes, tuple[Channel, dict[int, int]]] = {}
        self.transacted: dict[bytes, dict[int, tuple[int, ...]]] = {}
        self.expected: list[Expected] = []
        self.lost: dict[tuple[int, int], set[int]] = {}
        self.largest: dict[int, int] = {}

    # -- commands ------------------------------------------------------------------------------

    def declare(self, name: str, kind: str, config: dict[str, int]) -> None:
        channel = self.channels[name] = Channel(name, kind, config)
        if kind == "queue":
            channel.subs[""] = Sub(channel, "", True, True)

    def publish(self, session: int, frame: f.Publish, full: bool) -> None:
        channel = self.channels[frame.channel]
        level = max(frame.confirm or 0, 1)
        recent: dict[int, int] = {}
        if frame.producer is not None:
            former, recent = self.producers.get(frame.producer, (channel, {}))
            if former is not channel:
                if self.channels.get(former.name) is former:
                    self.refuse(session, frame.request, "bad_request")
                    return
                recent = {}
            if frame.sequence in recent:
                self.expect(session, f.Confirm(frame.request, recent[frame.sequence], level))
                return
            if len(recent) >= self.producer_window and frame.sequence < min(recent):
                self.refuse(session, frame.request, "sequence_too_old")
                return
        if full:
            self.refuse(session, frame.request, "disk_full")
            return
        first = self._store(channel, frame.batch)
        if frame.producer is not None:
            known = sorted({**recent, frame.sequence: first}.items())[-self.producer_window :]
            self.producers[frame.producer] = (channel, dict(known))
        self.expect(session, f.Confirm(frame.request, first, level))

    def _store(self, channel: Channel, batch: bytes) -> int:
        first = channel.next
        columns = batches.decode(batch)
        for body in columns.bodies:
            ttl_ms = channel.config.get("ttl_seconds", float("inf")) * 1000
            message = Message(channel.next, body, columns.properties, self.now_ms, ttl_ms)
            channel.messages.append(message)
            for sub in channel.subs.values():
                sub.add(message)
        channel.firsts.append(first)
        channel.sizes.append(len(batch))
        return first

    def transact(
        self, session: int, frame: f.Transact, settles: dict[Consumer, set[int]], full: bool
    ) -> None:
        """All of it or nothing, and once."""
        level = Level(max(frame.confirm or 0, 1))
        recent = self.transacted.get(frame.producer, {})
        firsts = recent.get(frame.sequence)
        if firsts is None:
            if len(recent) >= self.producer_window and frame.sequence < min(recent):
                self.refuse(session, frame.request, "sequence_too_old")
                return
            if any(offsets - set(c.sub.held(c)) for c, offsets in settles.items()):
                self.refuse(session, frame.request, "lease_lost")
                return
            if full:
                self.refuse(session, frame.request, "disk_full")
                return
            for consumer, offsets in settles.items():
                for offset in offsets:
                    del consumer.sub.places[offset]
                if consumer.prefetch:
                    consumer.credit += len(offsets)
            firsts = tuple(
                self._store(self.channels[name], batch) for name, batch in frame.publishes
            )
            known = sorted({**recent, frame.sequence: firsts}.items())[-self.producer_window :]
            self.transacted[frame.producer] = dict(known)
        self.expect(session, f.Reply(frame.request, {"level": level, "firsts": firsts}))

    def subscribe(self, channel: str, name: str, start: Any) -> None:
        if name not in self.channels[channel].subs:
            self._new_sub(self.channels[channel], name, start, True, True)

    def _new_sub(self, channel: Channel, name: str, start: Any, durable: bool, acks: bool) -> Sub:
        sub = channel.subs[name] = Sub(channel, name, durable, acks)
        for message in channel.messages[self.position(channel, start) :]:
            sub.add(message)
        return sub

    def position(self, channel: Channel, start: Any) -> int:
        if start == "latest":
            return channel.next
        if start == "earliest":
            return channel.start
        return min(max(start, channel.start), channel.next)

    def consume(self, session: int, frame: f.Consume) -> Consumer:
        channel, options = self.channels[frame.channel], frame.options
        if channel.kind == "queue":
            sub = channel.subs[""]
        elif frame.subscription is None:
            name = f"~{session}.{frame.request}"
            acks = options.get("acks", False)
            sub = self._new_sub(channel, name, options.get("start", "latest"), False, acks)
        else:
            self.subscribe(channel.name, frame.subscription, options.get("start", "latest"))
            sub = channel.subs[frame.subscription]
        prefetch = options.get("prefetch", 0)
        token = options.get("token")
        return Consumer(session, frame.request, sub, prefetch, prefetch, options["lease_ms"], token)

    def joined(self, consumer: Consumer, held: set[int], lost: set[int]) -> None:
        """What the engine answered to CONSUME; `held` was asked to be kept."""
        sub, former = consumer.sub, self.by_token(consumer.token)
        for offset in sorted(held):
            place = sub.places.get(offset)
            may = consumer.token is not None and sub.durable and place is not None
            may = may and (place.consumer is former if place.consumer else place.attempt > 0)
            if may and place.consumer is None and place.due_ms > self.now_ms:
                may = False
            if may and place.consumer is None and place.due_ms and offset in lost:
                continue  # due, and the engine has not looked yet
            assert may == (offset not in lost), (offset, place)
            if may:
                place.delivery = place.delivery if place.consumer else place.attempt
                place.consumer = consumer
                place.deadline_ms = self.now_ms + consumer.lease_ms
                if consumer.prefetch:
                    consumer.credit -= 1
        if former is not None:
            if former.sub is sub:
                consumer.missed = former.missed
            if former.session is not None:
                self._closed(former, "resumed_elsewhere")
            self.leave(former)
        sub.consumers.append(consumer)

    def by_token(self, token: bytes | None) -> Consumer | None:
        found = [c for c in self.consumers() if token is not None and c.token == token]
        assert len(found) <= 1
        return found[0] if found else None

    def fetch(self, consumer: Consumer, frame: f.Fetch) -> None:
        if consumer.prefetch or consumer.fetch is not None:
            self.refuse(consumer.session, frame.request, "bad_request")
            return
        consumer.fetch = (frame.request, self.now_ms + frame.wait_ms)
        consumer.credit, consumer.got = frame.messages, 0

    def settle(self, consumer: Consumer, frame: f.Settle, offsets: set[int]) -> set[int]:
        """Do it; what was lost."""
        places = consumer.sub.places
        held = {o for o in offsets if o in places and places[o].consumer is consumer}
        for offset in held:
            if frame.outcome == f.Outcome.ACK:
                del places[offset]
            else:
                due_ms = self.now_ms + frame.delay_ms if frame.delay_ms else 0
                self._give_back(places[offset], due_ms)
        if consumer.prefetch:
            consumer.credit += len(held)
        return offsets - held

    def renew(self, consumer: Consumer, offsets: set[int]) -> set[int]:
        held = offsets & set(consumer.sub.held(consumer))
        for offset in held:
            consumer.sub.places[offset].deadline_ms = self.now_ms + consumer.lease_ms
        return offsets - held

    def cancel(self, consumer: Consumer, request: int) -> None:
        session = consumer.session
        if consumer.fetch is not None:
            self.expect(session, f.Reply(consumer.fetch[0], {"count": 0}))
        self.leave(consumer)
        self.expect(session, f.Reply(request, {}))

    def leave(self, consumer: Consumer) -> None:
        for offset in consumer.sub.held(consumer):
            self._give_back(consumer.sub.places[offset], 0)
        if consumer in consumer.sub.consumers:
            consumer.sub.consumers.remove(consumer)
        if not consumer.sub.durable:
            del consumer.sub.channel.subs[consumer.sub.name]

    def _give_back(self, place: Place, due_ms: int) -> None:
        place.attempt, place.consumer, place.due_ms = place.delivery, None, due_ms

    def disconnect(self, session: int, orderly: bool) -> None:
        del self.windows[session]
        for consumer in [c for c in self.consumers() if c.session == session]:
            held = consumer.sub.held(consumer)
            if orderly or consumer.token is None or not consumer.sub.durable or not held:
                self.leave(consumer)
                continue
            consumer.session = consumer.fetch = None
            consumer.credit = 0
            for offset in held:
                place = consumer.sub.places[offset]
                place.deadline_ms = min(place.deadline_ms, self.now_ms + self.resume_ms)

    def advance(self, ms: int) -> None:
        self.now_ms += ms
        for consumer in self.consumers():
            places = consumer.sub.places
            ended = [o for o in consumer.sub.held(consumer) if places[o].deadline_ms <= self.now_ms]
            for offset in ended:
                self._give_back(places[offset], 0)
            if ended:
                self._lose(consumer, set(ended))

    def _lose(self, consumer: Consumer, offsets: set[int]) -> None:
        """Leases are gone by the broker's doing."""
        if consumer.session is None:
            if not consumer.sub.held(consumer):
                self.leave(consumer)
            return
        self.lost.setdefault((consumer.session, consumer.request), set()).update(offsets)
        if consumer.prefetch:
            consumer.credit += len(offsets)

    def purge(self, sub: Sub) -> int:
        gone = [o for o, place in sub.places.items() if place.consumer is None]
        for offset in gone:
            del sub.places[offset]
        return len(gone)

    def scheduled(self, sub: Sub, offsets: set[int]) -> set[int]:
        """Which of them are delayed."""
        places = sub.places
        return {
            offset
            for offset in offsets & places.keys()
            if places[offset].consumer is None and places[offset].due_ms > self.now_ms
        }

    def reschedule(self, sub: Sub, offsets: set[int], due_ms: int) -> None:
        for offset in offsets:
            sub.places[offset].due_ms = max(due_ms, self.now_ms)

    def cancel_scheduled(self, sub: Sub, offsets: set[int]) -> None:
        for offset in offsets:
            del sub.places[offset]

    def seek(self, sub: Sub, to: Any) -> int:
        cursor = self.position(sub.channel, to)
        holders = [(c, set(sub.held(c))) for c in sub.consumers]
        sub.places.clear()
        for message in sub.channel.messages[cursor:]:
            sub.add(message)
        for consumer, held in holders:
            if held:
                self._lose(consumer, held)
        return cursor

    def unsubscribe(self, sub: Sub) -> None:
        for consumer in list(sub.consumers):
            self._closed(consumer, "subscription_deleted")
        del sub.channel.subs[sub.name]

    def delete(self, channel: Channel) -> None:
        for sub in channel.subs.values():
            for consumer in sub.consumers:
                self._closed(consumer, "channel_deleted")
        del self.channels[channel.name]

    def _closed(self, consumer: Consumer, code: str) -> None:
        if consumer.session is None:
            return
        if consumer.fetch is not None:
            self.refuse(consumer.session, consumer.fetch[0], code)
        self.expected.append((consumer.session, "Closed", consumer.request, code))

    def restart(self) -> None:
        self.windows.clear()
        for channel in self.channels.values():
            for name, sub in list(channel.subs.items()):
                sub.consumers.clear()
                if not sub.durable:
                    del channel.subs[name]
                for place in sub.places.values():
                    place.consumer = None

    # -- what the engine said ------------------------------------------------------------------

    def expect(self, session: int | None, frame: Any) -> None:
        self.expected.append((session, *_plain(frame)))

    def refuse(self, session: int | None, request: int, code: str) -> None:
        self.expected.append((session, "Refused", request, code))

    def hear(self, taken: Round, engine: Engine) -> None:
        """One round's effects; the model's expectations of it are used up."""
        in_line = {s: s.in_line(self.now_ms) for s in self.subs()}
        delivered: dict[Sub, list[int]] = {sub: [] for sub in in_line}
        heard: list[Expected] = []
        lost: dict[tuple[int, int], set[int]] = {}
        for session, frame in [*taken.effects, *taken.synced_effects]:
            if isinstance(frame, f.Deliver):
                self._delivered(session, frame, delivered)
            elif isinstance(frame, f.Missed):
                consumer = self.consumer(session, frame.request)
                assert frame.messages == consumer.missed > 0
                assert frame.first < frame.end <= consumer.sub.channel.start
                consumer.missed = 0
                self.windows[session] -= PART_BYTES
                self.largest[session] = max(self.largest.get(session, 0), PART_BYTES)
            elif isinstance(frame, f.Lost):
                assert (session, frame.request) not in lost, "one LOST a round"
                lost[session, frame.request] = offsets_of(frame.offsets)
            elif not self._fetched(session, frame):
                heard.append((session, *_plain(frame)))
        for sub, offsets in delivered.items():
            assert len(set(offsets)) == len(offsets)
            assert set(offsets) == set(in_line[sub][: len(offsets)])
        for session, size in self.largest.items():
            # Whichever was the last to be delivered, there was room when it was.
            assert self.windows[session] + size > 0
        self.largest.clear()
        self._follow(engine)
        assert sorted(map(repr, heard)) == sorted(map(repr, self.expected))
        assert lost == self.lost
        self.expected, self.lost = [], {}

    def _delivered(self, session: int, frame: f.Deliver, delivered: dict[Sub, list[int]]) -> None:
        consumer = self.consumer(session, frame.request)
        sub = consumer.sub
        assert not consumer.missed, "what was missed is told first"
        lines = []
        for first, attempt, published_ms, batch in frame.parts:
            columns = batches.decode(batch)
            size = len(batch) + PART_BYTES
            self.windows[session] -= size
            self.largest[session] = max(self.largest.get(session, 0), size)
            for offset, body in enumerate(columns.bodies, first):
                place = sub.places[offset]
                message = place.message
                assert (body, columns.properties) == (message.body, message.properties)
                assert published_ms == message.published_ms
                lines.append(sub.line_key(message))
                self._deliver(consumer, place, attempt)
                delivered[sub].append(offset)
        assert lines == sorted(lines)

    def _deliver(self, consumer: Consumer, place: Place, attempt: int) -> None:
        assert place.consumer is None
        assert attempt == place.attempt + 1
        consumer.got += 1
        if not consumer.sub.acks:
            del consumer.sub.places[place.message.offset]
            consumer.credit -= 0 if consumer.prefetch else 1
        else:
            place.consumer, place.delivery = consumer, attempt
            place.attempt = max(place.attempt, 1)
            place.due_ms = 0 if attempt == 1 else place.due_ms
            place.deadline_ms = self.now_ms + consumer.lease_ms
            consumer.credit -= 1
        assert consumer.credit >= 0

    def _fetched(self, session: int, frame: Any) -> bool:
        """Whether `frame` ends an open FETCH."""
        if not isinstance(frame, f.Reply) or list(frame.result) != ["count"]:
            return False
        for consumer in self.consumers():
            if (
                consumer.session == session
                and consumer.fetch
                and consumer.fetch[0] == frame.request
            ):
                assert frame.result == {"count": consumer.got}
                assert consumer.got or (consumer.fetch and consumer.fetch[1] <= self.now_ms)
                consumer.fetch, consumer.credit = None, 0
                return True
        return False

    def _follow(self, engine: Engine) -> None:
        """Compare with the engine's state, and take over what it was free to choose."""
        assert sorted(engine.state.channels) == sorted(self.channels)
        for channel in self.channels.values():
            seen = engine.state.channels[channel.name]
            assert seen.log.next == channel.next
            assert sorted(seen.subscriptions) == sorted(channel.subs)
            if channel.kind == "topic":
                self._follow_expiry(channel, seen)
                self._retain(channel)
                assert seen.log.start == channel.start
            for sub in channel.subs.values():
                self._follow_sub(sub, seen.subscriptions[sub.name])

    def _follow_expiry(self, channel: Channel, seen: Any) -> None:
        """What expired may have gone already; by a limit's doing it counts as missed, too."""
        for name, sub in channel.subs.items():
            subscription = seen.subscriptions[name]
            sub.may_be_missed = 0
            for offset in set(sub.places) - standing(subscription).keys():
                place = sub.places[offset]
                if place.message.expires_ms <= self.now_ms and place.consumer is None:
                    del sub.places[offset]
                    sub.may_be_missed += offset < seen.log.start and not place.attempt

    def _retain(self, channel: Channel) -> None:
        boundaries = [*channel.firsts, channel.next]

        def whole(offset: int) -> int:
            return max((first for first in boundaries if first <= offset), default=0)

        kept, limit = channel.kept_from("retain"), whole(channel.kept_from("limit") or 0)
        wanted = {o for sub in channel.subs.values() for o in sub.places if o >= limit}
        unneeded = whole(min(wanted, default=channel.next))
        channel.start = max(
            channel.start, limit, min(unneeded, channel.next if kept is None else kept)
        )
        for sub in channel.subs.values():
            gone = [o for o in sub.places if o < channel.start]
            holders = {c: {o for o in gone if sub.places[o].consumer is c} for c in sub.consumers}
            self._miss(sub, sum(not sub.places[offset].attempt for offset in gone))
            for offset in gone:
                del sub.places[offset]
            for consumer, held in holders.items():
                if held:
                    self._lose(consumer, held)

    def _miss(self, sub: Sub, count: int) -> None:
        """Its consumers are to be told, each of them."""
        sub.missed += count
        for consumer in sub.consumers:
            consumer.missed += count

    def _follow_sub(self, sub: Sub, seen: Any) -> None:
        stands = standing(seen)
        for offset in set(sub.places) - stands.keys():
            place = sub.places.pop(offset)
            assert place.consumer is None
            assert place.message.expires_ms <= self.now_ms
        assert stands.keys() == sub.places.keys()
        assert sub.missed <= seen.missed <= sub.missed + sub.may_be_missed
        self._miss(sub, seen.missed - sub.missed)
        sub.may_be_missed = 0
        for offset, (leased_by, deadline_ms, delivery, attempt, due_ms) in stands.items():
            place = sub.places[offset]
            assert attempt == place.attempt
            assert due_ms == place.due_ms
            assert (leased_by is None) == (place.consumer is None)
            if place.consumer is not None:
                assert leased_by.request == place.consumer.request
                assert (leased_by.session is None) == (place.consumer.session is None)
                assert (deadline_ms, delivery) == (place.deadline_ms, place.delivery)

    def at_rest(self) -> None:
        """After the last round: nobody waits for what is there."""
        for sub in self.subs():
            if sub.in_line(self.now_ms):
                for consumer in sub.consumers:
                    can = consumer.session is not None and self.windows[consumer.session] > 0
                    assert not (can and consumer.credit > 0), "ready, and credit, and nothing came"
        for consumer in self.consumers():
            listens = consumer.session is not None and self.windows[consumer.session] > 0
            assert not (listens and consumer.missed), "it missed some, and was not told"
            assert consumer.fetch is None or consumer.fetch[1] > self.now_ms
            assert consumer.fetch is None or not consumer.got

    def subs(self) -> list[Sub]:
        return [sub for channel in self.channels.values() for sub in channel.subs.values()]

    def consumers(self) -> list[Consumer]:
        return [consumer for sub in self.subs() for consumer in sub.consumers]

    def consumer(self, session: int, request: int) -> Consumer:
        (found,) = [c for c in self.consumers() if (c.session, c.request) == (session, request)]
        return found


def standing(subscription: Any) -> dict[int, tuple[Any, int, int, int, int]]:
    """Of the engine's subscription: offset -> who leases it, until when, delivery, attempt, due."""
    found = dict.fromkeys(
        range(subscription.cursor, subscription.channel.log.next), (None, 0, 0, 0, 0)
    )
    for span in subscription.ranges:
        leased = span.state == LEASED
        row = (
            span.consumer if leased else None,
            span.deadline_ms if leased else 0,
            span.delivery if leased else 0,
            span.attempt,
            span.due_ms,
        )
        found.update(dict.fromkeys(range(span.first, span.end), row))
    return found


def offsets_of(row: f.Offsets) -> set[int]:
    """The offsets of a flat row of ranges."""
    return {offset for first, end in f.pairs(row) for offset in range(first, end)}


def row_of(offsets: set[int]) -> f.Offsets:
    """The other way round."""
    pairs: list[tuple[int, int]] = []
    for offset in sorted(offsets):
        if pairs and pairs[-1][1] == offset:
            pairs[-1] = (pairs[-1][0], offset + 1)
        else:
            pairs.append((offset, offset + 1))
    return f.flatten(pairs)


def _plain(frame: Any) -> Expected:
    """A frame without the wording of a refusal, and with offsets as a sorted list."""
    name = type(frame).__name__
    if isinstance(frame, (f.Refused, f.Closed)):
        return (name, frame.request, frame.code)
    if isinstance(frame, f.Settled):
        return (name, frame.request, sorted(offsets_of(frame.lost)))
    if isinstance(frame, f.Reply) and "lost" in frame.result:
        return (name, frame.request, "joined")
    return (name, *(int(v) if isinstance(v, int) else v for v in frame))
