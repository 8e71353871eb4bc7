"""The model of the broker: what it is told, and what it makes of what the engine said."""

from __future__ import annotations

import math
from dataclasses import astuple
from typing import Any

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine.engine import Engine, Round
from telpher_broker.engine.turn import PART_BYTES

from .channels import Channel, Consumer, Place, Sub
from .said import Expected, offsets_of, plain, standing
from .schedules import Scheduling


class Model(Scheduling):
    """What the broker should be doing."""

    # -- commands ------------------------------------------------------------------------------

    def declare(self, name: str, kind: str, config: dict[str, int]) -> None:
        channel = self.channels[name] = Channel(name, kind, config)
        if kind == "queue":
            channel.subs[""] = Sub(channel, "", True, True)

    def subscribe(self, channel: str, name: str, start: Any) -> None:
        if name not in self.channels[channel].subs:
            self._new_sub(self.channels[channel], name, start, True, True)

    def subscribe_alike(self, former: Channel, channel: str) -> None:
        """Who subscribes to another partition misses nothing of this new one."""
        for sub in former.subs.values():
            if sub.name and sub.durable:
                self.subscribe(channel, sub.name, "earliest")

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
        consumer = Consumer(session, frame.request, sub, prefetch, prefetch, options["lease_ms"])
        consumer.token, consumer.member = options.get("token"), options.get("member", b"")
        return consumer

    def joined(self, consumer: Consumer, held: set[int], lost: set[int]) -> None:
        """What the engine answered to CONSUME; `held` was asked to be kept."""
        sub, former = consumer.sub, self.by_token(consumer.token)
        is_alone = not any(sub.held(one) for one in sub.consumers if one is not former)
        for offset in sorted(held):
            place = sub.places.get(offset)
            may = consumer.token is not None and sub.durable and place is not None
            may = may and (is_alone or not sub.is_shared_out)
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
        at = len(sub.consumers)
        if former is not None:
            if former.sub is sub:
                at = sub.consumers.index(former)
                consumer.missed = former.missed
            if former.session is not None:
                self._closed(former, "resumed_elsewhere")
            self.leave(former)
        sub.consumers.insert(at, consumer)

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
        self.forget_used("connection", str(session))
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
        self.unbind_all(channel.name)
        self.forget_used("channel", channel.name)

    def _closed(self, consumer: Consumer, code: str) -> None:
        if consumer.session is None:
            return
        if consumer.fetch is not None:
            self.refuse(consumer.session, consumer.fetch[0], code)
        self.expected.append((consumer.session, "Closed", consumer.request, code))

    def restart(self, down_ms: int) -> None:
        self.now_ms += down_ms
        self.started_ms = self.now_ms
        self.windows.clear()
        for quota in self.quotas.values():
            quota.passed.clear()
        for channel in self.channels.values():
            for name, sub in list(channel.subs.items()):
                sub.consumers.clear()
                if not sub.durable:
                    del channel.subs[name]
                for place in sub.places.values():
                    place.consumer = None

    # -- what the engine said ------------------------------------------------------------------

    def hear(self, taken: Round, engine: Engine) -> None:
        """One round's effects; the model's expectations of it are used up."""
        in_line = {s: s.in_line(self.now_ms) for s in self.subs()}
        delivered: dict[Sub, list[int]] = {sub: [] for sub in in_line}
        heard: list[Expected] = []
        lost: dict[tuple[int, int], set[int]] = {}
        robbed: dict[tuple[int, int], int] = {}
        effects = [*taken.effects, *taken.synced_effects]
        served = {(session, e.request) for session, e in effects if isinstance(e, f.Deliver)}
        beside: dict[int, int] = {}
        for session, frame in effects:
            if isinstance(frame, f.Deliver):
                self._delivered(session, frame, delivered)
            elif isinstance(frame, f.Missed) and not frame.messages:
                assert (session, frame.request) not in robbed.keys() | lost.keys()
                robbed[session, frame.request] = frame.end
            elif isinstance(frame, f.Missed):
                consumer = self.consumer(session, frame.request)
                assert frame.messages == consumer.missed > 0
                channel = consumer.sub.channel
                # What a quota dropped has no offsets: it would have begun where the log ends.
                assert frame.first <= frame.end <= channel.next
                assert self.quotas or frame.first < frame.end <= channel.start
                consumer.missed = 0
                self.windows[session] -= PART_BYTES
                if (session, frame.request) in served:
                    # It has to be told before what was delivered then, room or not.
                    beside[session] = beside.get(session, 0) + PART_BYTES
                else:
                    self.largest[session] = max(self.largest.get(session, 0), PART_BYTES)
            elif isinstance(frame, f.Lost):
                assert (session, frame.request) not in lost, "one LOST a round"
                lost[session, frame.request] = offsets_of(frame.offsets)
                end = robbed.get((session, frame.request), math.inf)
                assert max(lost[session, frame.request]) < end
            elif not self._fetched(session, frame):
                heard.append((session, *plain(frame)))
        for sub, offsets in delivered.items():
            assert len(set(offsets)) == len(offsets)
            assert set(offsets) == set(in_line[sub][: len(offsets)])
        for session, size in self.largest.items():
            # Whichever was the last to be delivered, there was room when it was.
            assert self.windows[session] + size + beside.get(session, 0) > 0
        self.largest.clear()
        self._follow(engine)
        assert sorted(map(repr, heard)) == sorted(map(repr, self.expected))
        assert (lost, robbed.keys()) == (self.lost, self.robbed)
        self.expected, self.lost, self.robbed = [], {}, set()

    def _delivered(self, session: int, frame: f.Deliver, delivered: dict[Sub, list[int]]) -> None:
        consumer = self.consumer(session, frame.request)
        sub = consumer.sub
        assert not consumer.missed, "what was missed is told first"
        assert sub.may_serve(consumer)
        lines = []
        for first, attempt, published_ms, batch, *about in frame.parts:
            columns = batches.decode(batch)
            size = len(batch) + PART_BYTES
            self.windows[session] -= size
            self.largest[session] = max(self.largest.get(session, 0), size)
            for offset, body in enumerate(columns.bodies, first):
                place = sub.places[offset]
                message = place.message
                assert (body, columns.properties) == (message.body, message.properties)
                assert _at(columns.keys, offset - first) == message.key
                assert _at(columns.headers, offset - first) == message.headers
                assert published_ms == message.published_ms
                assert (about or [None]) == [message.about]
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
        self._follow_exchanges(engine.state.exchanges)
        self._follow_schedules(engine.state.calendar.schedules)
        quotas = [astuple(quota)[:-1] for _, quota in sorted(self.quotas.items())]
        assert list(engine.state.quotas.named.values()) == quotas
        for channel in self.channels.values():
            seen = engine.state.channels[channel.name]
            assert seen.log.next == channel.next
            self._follow_log(channel, seen.log, engine.state.memory)
            assert sorted(seen.subscriptions) == sorted(channel.subs)
            if channel.kind == "topic":
                self._follow_expiry(channel, seen)
                self._retain(channel)
                assert seen.log.start == channel.start
            for sub in channel.subs.values():
                self._follow_sub(sub, seen.subscriptions[sub.name])

    def _follow_schedules(self, seen: Any) -> None:
        assert sorted(seen) == sorted(self.schedules)
        for name, schedule in self.schedules.items():
            found = seen[name]
            assert (found.channel, found.is_paused) == (schedule.channel, schedule.is_paused)
            assert (found.due_ms, found.catch_up) == (schedule.due_ms, schedule.catch_up)
            assert (found.fired, found.fired_ms) == (schedule.fired, schedule.fired_ms)
            assert (found.failure is not None) == schedule.has_failed

    def _follow_log(self, channel: Channel, log: Any, memory: Any) -> None:
        """What was stored since the last look, and is there still."""
        for stored in log.since(channel.seen):
            columns = batches.decode(memory.load(stored.batch))
            messages = channel.messages[stored.first : stored.end]
            assert stored.first in channel.firsts
            assert list(columns.bodies) == [message.body for message in messages]
            assert {message.published_ms for message in messages} == {stored.published_ms}
        channel.seen = channel.next

    def _follow_exchanges(self, seen: Any) -> None:
        assert sorted(seen.named) == sorted(self.exchanges)
        for exchange in self.exchanges.values():
            found = seen.named[exchange.name]
            assert (found.kind, found.config) == (exchange.kind, exchange.config)
            assert found.next == exchange.next
            names = sorted(found.names[binding.target] for binding in found)
            assert names == sorted(binding.target for binding in exchange.bindings)

    def _follow_expiry(self, channel: Channel, seen: Any) -> None:
        """What expired may have gone already; by a limit's doing it counts as missed, too."""
        for name, sub in channel.subs.items():
            subscription = seen.subscriptions[name]
            sub.may_be_missed = 0
            for offset in set(sub.places) - standing(subscription).keys():
                place = sub.places[offset]
                if place.message.expires_ms <= self.now_ms and place.consumer is None:
                    del sub.places[offset]
                    sub.may_be_missed += offset < seen.log.start

    def _retain(self, channel: Channel) -> None:
        boundaries = [*channel.firsts, channel.next]

        def whole(offset: int) -> int:
            return max((first for first in boundaries if first <= offset), default=0)

        kept, limit = channel.kept_from("retain"), whole(channel.kept_from("limit") or 0)
        if not channel.makes_room:
            needed = [o for sub in channel.subs.values() for o in sub.places]
            limit = whole(min([limit, *needed]))
        wanted = {o for sub in channel.subs.values() for o in sub.places if o >= limit}
        unneeded = whole(min(wanted, default=channel.next))
        channel.start = max(
            channel.start, limit, min(unneeded, channel.next if kept is None else kept)
        )
        for sub in channel.subs.values():
            gone = [o for o in sub.places if o < channel.start]
            holders = {c: {o for o in gone if sub.places[o].consumer is c} for c in sub.consumers}
            self.miss(sub, len(gone), len(gone) - sum(map(len, holders.values())))
            for offset in gone:
                del sub.places[offset]
            for consumer, held in holders.items():
                if held:
                    self._lose(consumer, held)
                if held and consumer.session is not None:
                    self.robbed.add((consumer.session, consumer.request))

    def miss(self, sub: Sub, count: int, told: int) -> None:
        """Its consumers are to be told, each of them, of what none of them held."""
        sub.missed += count
        for consumer in sub.consumers:
            consumer.missed += told

    def _follow_sub(self, sub: Sub, seen: Any) -> None:
        stands = standing(seen)
        for offset in set(sub.places) - stands.keys():
            place = sub.places[offset]
            if place.consumer is None and place.message.expires_ms <= self.now_ms:
                del sub.places[offset]
        if sub.channel.is_bounded and sub.channel.makes_room:
            self._drop_excess(sub)
        assert stands.keys() == sub.places.keys()
        assert sub.missed <= seen.missed <= sub.missed + sub.may_be_missed
        self.miss(sub, seen.missed - sub.missed, seen.missed - sub.missed)
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

    def _drop_excess(self, sub: Sub) -> None:
        """The first in line of the lowest priority goes, until what is left is within."""
        limits = sub.channel.config
        while ready := [p.message for p in sub.places.values() if p.is_ready(self.now_ms)]:
            _, size = sub.channel.held()
            many, large = limits.get("limit_count", math.inf), limits.get("limit_bytes", math.inf)
            if len(ready) <= many and size <= large:
                break
            del sub.places[min(ready, key=lambda m: (m.priority, sub.line_key(m))).offset]

    def at_rest(self) -> None:
        """After the last round: nobody waits for what is there."""
        for sub in self.subs():
            if sub.in_line(self.now_ms):
                for consumer in sub.consumers:
                    can = consumer.session is not None and self.windows[consumer.session] > 0
                    can = can and sub.may_serve(consumer)
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


def _at(column: Any, index: int) -> Any:
    return None if column is None else column[index]
