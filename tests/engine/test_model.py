"""The engine against the model, with a restart or a snapshot between any two steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from telpher.protocol import frames as f
from telpher_broker.engine import apply as apply_module
from telpher_broker.engine.dump import Frozen, dump

from .driver import START_MS, Driver, answer_of, delivered_bytes, make_batch, small_rounds
from .model import Consumer, Model, offsets_of, row_of

CHANNELS: dict[str, tuple[str, dict[str, int]]] = {
    "jobs": ("queue", {}),
    "aged": ("queue", {"priority_aging_seconds": 1}),
    "news": ("topic", {}),
    "kept": ("topic", {"retain_count": 4, "retain_bytes": 400}),
    "short": ("topic", {"limit_count": 5, "retain_count": 3}),
    "brief": ("queue", {"ttl_seconds": 2}),
}
RESUME_MS = 700
PRODUCER_WINDOW = 3

names = st.sampled_from(["jobs", "jobs", "aged", "news", "kept", "short", "brief"])
pick = st.integers(0, 1_000_000)
starts = st.sampled_from(["earliest", "latest", 0, 2, 5, 1000])
properties = st.one_of(
    st.none(),
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "priority": st.integers(0, 2),
            "delay_ms": st.sampled_from([0, 300, 2000]),
            "ttl_ms": st.sampled_from([200, 1500, 4000]),
        },
    ),
)
offset_sets = st.sets(st.integers(0, 25), max_size=8)
prefetches = st.sampled_from([0, 0, 1, 2, 5, 100])
subscriptions = st.sampled_from([None, "a", "a", "b"])
tokens = st.sampled_from([None, None, b"a" * 16, b"b" * 16])
producers = st.sampled_from([None, None, b"p" * 16, b"q" * 16])


class EngineAgainstModel(RuleBasedStateMachine):
    """Each rule is one command, followed by rounds until there is nothing to deliver."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(apply_module, "PRODUCER_WINDOW", PRODUCER_WINDOW)
        self.patches.setattr(f, "PRODUCER_WINDOW", PRODUCER_WINDOW)
        self.marks: list[tuple[int, bytes]] = []
        self.outstanding: dict[int, int] = {}
        self.bodies = self.restarts = 0
        self.frozen: Frozen | None = None

    def teardown(self) -> None:
        self.patches.undo()

    def heard(self, taken: Any) -> None:
        self.model.hear(taken, self.driver.engine)
        self.marks.append((len(self.driver.journal), dump(self.driver.engine.state)))

    def done(self, said: Any) -> Any:
        for session in self.outstanding:
            self.outstanding[session] += delivered_bytes(said, session)
        self.model.at_rest()
        return said

    @initialize(
        small=st.booleans(),
        window=st.sampled_from([300, 100_000]),
        consumers=st.lists(st.tuples(names, subscriptions, prefetches), min_size=1, max_size=4),
    )
    def begin(self, small: bool, window: int, consumers: list[tuple[str, str | None, int]]) -> None:
        if small:
            small_rounds(self.patches, 150)
        self.window = window
        self.driver = Driver(output_bytes_max=window, resume_ms=RESUME_MS)
        self.model = Model(START_MS, window, RESUME_MS, PRODUCER_WINDOW)
        self.driver.on_round = self.heard
        self.connect()
        self.connect()
        for name in CHANNELS:
            self.declare(name)
        for which, (name, subscription, prefetch) in enumerate(consumers):
            self._consume(which, name, subscription, set(), prefetch=prefetch, lease_ms=1500)

    def declare(self, name: str) -> None:
        kind, config = CHANNELS[name]
        session = next(iter(self.model.windows))
        self.model.declare(name, kind, config)
        request = self.driver.request()
        frame = f.Call(request, "declare", {"channel": name, "kind": kind, "config": config})
        result = {"name": name, "kind": kind, "config": config, "start": 0, "next": 0}
        result |= {"messages": 0, "bytes": 0, "subscriptions": []}
        if kind == "queue":
            counts = dict.fromkeys(("ready", "delayed", "leased", "consumers", "next", "missed"), 0)
            result["subscriptions"] = [{"name": "", "durable": True, **counts}]
        self.model.expect(session, f.Reply(request, result))
        said = self.driver.send(session, frame)
        assert answer_of(said, session, request).result == result

    @precondition(lambda self: len(self.model.windows) < 3)
    @rule()
    def connect(self) -> None:
        session = self.driver.connect()
        self.model.windows[session] = self.window
        self.outstanding[session] = 0

    def session(self, which: int) -> int:
        sessions = list(self.model.windows)
        if not sessions:
            self.connect()
            sessions = list(self.model.windows)
        return sessions[which % len(sessions)]

    def consumer(self, which: int) -> Consumer | None:
        found = [c for c in self.model.consumers() if c.session is not None]
        return found[which % len(found)] if found else None

    @rule(which=pick, name=names, count=st.integers(1, 4), properties=properties)
    def publish(self, which: int, name: str, count: int, properties: dict[str, int] | None) -> None:
        self._publish(which, name, count, properties)

    @rule(which=pick, counts=st.lists(st.integers(1, 3), min_size=1, max_size=4))
    def publish_plainly(self, which: int, counts: list[int]) -> None:
        for count in counts:
            self._publish(which, "jobs", count, None)

    @rule(
        which=pick,
        name=names,
        producer=producers,
        sequence=st.integers(1, 9),
        confirm=st.sampled_from([None, 0, 1, 2]),
        full=st.sampled_from([False, False, False, True]),
    )
    def publish_numbered(
        self,
        which: int,
        name: str,
        producer: bytes | None,
        sequence: int,
        confirm: int | None,
        full: bool,
    ) -> None:
        self.driver.engine.set_disk_full(full)
        self._publish(which, name, 2, None, producer, sequence, confirm, full)
        self.driver.engine.set_disk_full(False)

    def _publish(
        self,
        which: int,
        name: str,
        count: int,
        properties: dict[str, int] | None,
        producer: bytes | None = None,
        sequence: int = 0,
        confirm: int | None = None,
        full: bool = False,
    ) -> None:
        bodies = [b"%s-%d" % (name.encode(), self.bodies + n) for n in range(count)]
        self.bodies += count
        session, request = self.session(which), self.driver.request()
        batch = make_batch(bodies, properties)
        frame = f.Publish(request, name, producer, sequence, confirm, batch)
        self.model.publish(session, frame, full)
        self.done(self.driver.send(session, frame))

    @rule(
        which=pick,
        name=names,
        subscription=subscriptions,
        prefetch=prefetches,
        lease_ms=st.sampled_from([1000, 1500, 5000]),
        start=starts,
        acks=st.booleans(),
        token=tokens,
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
        if CHANNELS[name][0] == "queue":
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

    @rule(
        which=pick,
        parts=st.lists(st.tuples(pick, st.integers(0, 4), st.booleans()), max_size=2),
        into=st.lists(names, min_size=1, max_size=2),
        sequence=st.integers(1, 9),
        full=st.sampled_from([False, False, False, False, True]),
    )
    def transact(
        self,
        which: int,
        parts: list[tuple[int, int, bool]],
        into: list[str],
        sequence: int,
        full: bool,
    ) -> None:
        """Acknowledge what consumers of one connection hold, or not quite, and publish."""
        session = self.session(which)
        mine = [consumer for consumer in self.model.consumers() if consumer.session == session]
        settles: dict[Consumer, set[int]] = {}
        for pick, count, is_held in parts if mine else ():
            consumer = mine[pick % len(mine)]
            offsets = set(consumer.sub.held(consumer)[:count]) | (set() if is_held else {count})
            if offsets:
                settles[consumer] = offsets
        bodies = [b"%s-%d" % (name.encode(), self.bodies + n) for n, name in enumerate(into)]
        self.bodies += len(into)
        publishes = tuple(
            (name, make_batch([body])) for name, body in zip(into, bodies, strict=True)
        )
        rows = tuple((consumer.request, row_of(offsets)) for consumer, offsets in settles.items())
        frame = f.Transact(self.driver.request(), b"x" * 16, sequence, None, rows, publishes)
        self.model.transact(session, frame, settles, full)
        self.driver.engine.set_disk_full(full)
        self.done(self.driver.send(session, frame))
        self.driver.engine.set_disk_full(False)

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

    @rule(ms=st.sampled_from([1, 100, 200, 300, 500, 700, 1000, 2000, 10_000]))
    def advance(self, ms: int) -> None:
        self.model.advance(ms)
        self.done(self.driver.advance(ms))

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
            self.call(which, "delete", {}, name, "")
            self.declare(name)
        elif sub is None:
            pass
        elif verb == "purge":
            self.call(which, "purge", {"purged": self.model.purge(sub)}, name, sub.name)
        elif sub.name and verb == "seek":
            self.call(which, "seek", {"next": self.model.seek(sub, to)}, name, sub.name, to=to)
        elif sub.name:
            self.model.unsubscribe(sub)
            self.call(which, "unsubscribe", {}, name, sub.name)

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
        self.call(which, verb, result, name, sub_name, offsets=row_of(offsets), **given)

    def sub(self, name: str, subscription: str) -> Any:
        channel = self.model.channels[name]
        return channel.subs.get("" if channel.kind == "queue" else subscription)

    def call(
        self, which: int, verb: str, result: Any, name: str, sub: str, **arguments: Any
    ) -> None:
        session, request = self.session(which), self.driver.request()
        arguments["channel"] = name
        if sub:
            arguments["subscription"] = sub
        self.model.expect(session, f.Reply(request, result))
        self.done(self.driver.send(session, f.Call(request, verb, arguments)))

    @rule(snapshot_at=st.floats(0, 1))
    def restart(self, snapshot_at: float) -> None:
        self.restarts += 1
        before = dump(self.driver.engine.state)
        self.frozen = None
        self.driver.restart(int(snapshot_at * len(self.driver.journal)))
        assert dump(self.driver.engine.state) == before
        self.outstanding.clear()
        self.model.restart()
        self.done(self.driver.settle())

    @rule()
    def snapshot(self) -> None:
        """Begin one, or end the one that is under way: what spilled batches lay in goes."""
        if self.frozen is None:
            self.frozen = self.driver.begin_snapshot()
        else:
            self.driver.end_snapshot(self.frozen)
            self.frozen = None

    @rule(cut=st.floats(0, 1))
    def replay(self, cut: float) -> None:
        """The replay law, and that what was said never ran ahead of what was recorded."""
        journal = self.driver.journal
        self.driver.check_replay([int(cut * len(journal))])
        engine = Driver().engine
        done = 0
        for count, dumped in self.marks:
            for record in journal[done:count]:
                engine.replay(record)
            done = count
            assert dump(engine.state) == dumped
        del self.marks[:-1]


TestEngineAgainstModel = EngineAgainstModel.TestCase
TestEngineAgainstModel.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
