"""Consuming, settling, leaving and coming back; and what is done to channels and subscriptions."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from telpher.protocol import frames as f

from ..model import Consumer, offsets_of, row_of
from .base import names, offset_sets, pick, starts
from .partitions import PARTITIONED, Partitions

prefetches = st.sampled_from([0, 0, 1, 2, 5, 100])
subscriptions = st.sampled_from([None, "a", "a", "b"])
members = st.sampled_from([None, b"m" * 16, b"n" * 16, b"o" * 16])
tokens = st.sampled_from([None, None, b"a" * 16, b"b" * 16])


class Consuming(Partitions):
    @rule(
        which=pick,
        name=names,
        subscription=subscriptions,
        prefetch=prefetches,
        lease_ms=st.sampled_from([1000, 1500, 5000]),
        start=starts,
        acks=st.booleans(),
        token=tokens,
        member=members,
        held=offset_sets,
    )
    def consume(self, which: int, name: str, held: set[int], **options: Any) -> None:
        self._consume(which, name, options.pop("subscription"), held, **options)

    def _consume(
        self,
        which: int,
        name: str,
        subscription: str | None,
        held: set[int],
        **options: Any,
    ) -> None:
        session, request = self.session(which), self.driver.request()
        options = {key: value for key, value in options.items() if value is not None}
        options["held"] = row_of(held)
        if self.model.channels[name].kind == "queue":
            subscription = None
        frame = f.Consume(request, name, subscription, options)
        consumer = self.model.consume(session, frame)
        self.model.expect(session, f.Reply(request, {"lost": ()}))
        self.driver.engine.handle(session, frame)
        # What was kept must be known before the deliveries that follow are judged.
        (said,) = [
            effect
            for number, effect in self.driver.engine._turn.effects
            if number == session and effect.request == request and isinstance(effect, f.Reply)
        ]
        assert said.result["subscription"] == consumer.sub.name
        lost = offsets_of(said.result["lost"])
        assert lost <= held
        self.model.joined(consumer, held, lost)
        self.done(self.driver.settle())

    @precondition(lambda self: self.model.exchanges.keys() & PARTITIONED.keys())
    @rule(which=pick, name=st.sampled_from(list(PARTITIONED)), member=members)
    def join(self, which: int, name: str, member: bytes | None) -> None:
        """Consume all partitions as one member."""
        for part in [one for one in self.model.channels if one.startswith(name + ".")]:
            options = {"prefetch": 1, "lease_ms": 1500, "start": "earliest", "member": member}
            self._consume(which, part, "a", set(), **options)

    @rule(which=pick, messages=st.integers(1, 6), wait_ms=st.sampled_from([0, 400, 3000]))
    def fetch(self, which: int, messages: int, wait_ms: int) -> None:
        pulling = [c for c in self.model.consumers() if c.session is not None and not c.prefetch]
        consumer = pulling[which % len(pulling)] if pulling else self.consumer(which)
        if consumer is None or consumer.session is None:
            return
        frame = f.Fetch(self.driver.request(), consumer.request, messages, wait_ms)
        self.model.fetch(consumer, frame)
        self.done(self.driver.send(consumer.session, frame))

    @rule(which=pick, count=st.integers(1, 5), outcome=st.sampled_from([0, 0, 0, 1]))
    def settle_some(self, which: int, count: int, outcome: int) -> None:
        holders = [c for c in self.model.consumers() if c.session is not None and c.sub.held(c)]
        if holders:
            consumer = holders[which % len(holders)]
            self._settle(consumer, set(consumer.sub.held(consumer)[:count]), outcome, 0)

    @rule(
        which=pick,
        all_of_it=st.booleans(),
        some=offset_sets,
        outcome=st.sampled_from([0, 0, 1]),
        delay_ms=st.sampled_from([0, 0, 500, 3000]),
    )
    def settle(
        self, which: int, all_of_it: bool, some: set[int], outcome: int, delay_ms: int
    ) -> None:
        consumer = self.consumer(which)
        if consumer is None or consumer.session is None:
            return
        offsets = set(consumer.sub.held(consumer)) if all_of_it else some
        self._settle(consumer, offsets, outcome, delay_ms)

    def _settle(self, consumer: Consumer, offsets: set[int], outcome: int, delay_ms: int) -> None:
        assert consumer.session is not None
        request = self.driver.request()
        row = row_of(offsets)
        frame: f.ClientFrame = f.Settle(request, consumer.request, outcome, row, delay_ms)
        lost = self.model.settle(consumer, frame, offsets)
        self.model.expect(consumer.session, f.Settled(request, row_of(lost)))
        if outcome == f.Outcome.REQUEUE and request % 2:
            # Without a policy a failure is no more than that, and its error.
            options = {"default_delay_ms": delay_ms, "error": f"error {len(offsets) % 3}"}
            frame = f.Nack(request, consumer.request, row, options)
        self.done(self.driver.send(consumer.session, frame))

    @rule(which=pick, offsets=offset_sets)
    def renew(self, which: int, offsets: set[int]) -> None:
        consumer = self.consumer(which)
        if consumer is None or consumer.session is None:
            return
        request = self.driver.request()
        lost = self.model.renew(consumer, offsets)
        self.model.expect(consumer.session, f.Settled(request, row_of(lost)))
        frame = f.Renew(request, consumer.request, row_of(offsets))
        self.done(self.driver.send(consumer.session, frame))

    @rule(which=pick)
    def cancel(self, which: int) -> None:
        consumer = self.consumer(which)
        if consumer is None or consumer.session is None:
            return
        session, request = consumer.session, self.driver.request()
        self.model.cancel(consumer, request)
        self.done(self.driver.send(session, f.Cancel(request, consumer.request)))

    @rule(which=pick)
    def drained(self, which: int) -> None:
        session = self.session(which)
        size, self.outstanding[session] = self.outstanding[session], 0
        self.model.windows[session] += size
        self.done(self.driver.drained(session, size))

    @rule(which=pick, orderly=st.booleans())
    def disconnect(self, which: int, orderly: bool) -> None:
        session = self.session(which)
        del self.outstanding[session]
        self.model.disconnect(session, orderly)
        self.done(self.driver.disconnect(session, orderly))

    @rule(
        which=pick,
        verb=st.sampled_from(["purge", "seek", "unsubscribe", "delete"]),
        name=names,
        subscription=st.sampled_from(["a", "b"]),
        to=starts,
    )
    def administer(self, which: int, verb: str, name: str, subscription: str, to: Any) -> None:
        self.session(which)
        sub = self.sub(name, subscription)
        if verb == "delete":
            self.model.delete(self.model.channels[name])
            self.call(which, "delete", {}, channel=name)
            self.redeclare(name)
        elif sub is None:
            pass
        elif verb == "purge":
            self.call_sub(which, "purge", {"purged": self.model.purge(sub)}, name, sub.name)
        elif sub.name and verb == "seek":
            self.call_sub(which, "seek", {"next": self.model.seek(sub, to)}, name, sub.name, to=to)
        elif sub.name:
            self.model.unsubscribe(sub)
            self.call_sub(which, "unsubscribe", {}, name, sub.name)

    @rule(
        which=pick,
        name=names,
        subscription=st.sampled_from([None, "a", "b"]),
        offsets=offset_sets,
        delay_ms=st.sampled_from([None, 0, 200, 2500]),
    )
    def change_scheduled(
        self,
        which: int,
        name: str,
        subscription: str | None,
        offsets: set[int],
        delay_ms: int | None,
    ) -> None:
        """Move delayed messages, or cancel them where `delay_ms` is None."""
        self.session(which)
        channel = self.model.channels[name]
        if channel.kind == "queue" or subscription is None:
            subs = list(channel.subs.values())
        elif subscription in channel.subs:
            subs = [channel.subs[subscription]]
        else:
            return
        found = {sub: self.model.scheduled(sub, offsets) for sub in subs}
        for sub, scheduled in found.items():
            if delay_ms is None:
                self.model.cancel_scheduled(sub, scheduled)
            else:
                self.model.reschedule(sub, scheduled, self.model.now_ms + delay_ms)
        verb = "cancel_scheduled" if delay_ms is None else "reschedule"
        done = set[int]().union(*found.values())
        result = {
            "cancelled" if delay_ms is None else "rescheduled": len(done),
            "not_scheduled": row_of(offsets - done),
            "next": None,
        }
        given = {} if delay_ms is None else {"delay_ms": delay_ms}
        sub_name = (subscription or "") if channel.kind == "topic" else ""
        self.call_sub(which, verb, result, name, sub_name, offsets=row_of(offsets), **given)

    def call_sub(
        self, which: int, verb: str, result: Any, channel: str, sub: str, **arguments: Any
    ) -> None:
        """A call about a subscription; a queue has none by a name."""
        named = {"subscription": sub} if sub else {}
        self.call(which, verb, result, channel=channel, **named, **arguments)
