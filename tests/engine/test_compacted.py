"""Compacted topics, against a dict of the last message of each key and a set of what each reader
has settled."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine.dump import dump
from telpher_broker.engine.ranges import LEASED
from telpher_broker.engine.state import Channel
from telpher_broker.engine.subscription import Subscription

from .driver import Driver, delivered, make_batch
from .invariants import unsettled

KEYS = ["a", "b", "c", "d"]
rows = st.lists(
    st.tuples(st.sampled_from([None, *KEYS]), st.sampled_from([b"", b"x", b"yz"])),
    min_size=1,
    max_size=5,
)
names = st.sampled_from(["one", "two"])
starts = st.one_of(st.sampled_from(["earliest", "latest"]), st.integers(0, 40))


class Compacted(RuleBasedStateMachine):
    """Publish, read, look up, let time pass, restart: nothing but what is superseded is missing."""

    @initialize(window=st.sampled_from([200, 100_000]), key_order=st.booleans())
    def begin(self, window: int, key_order: bool) -> None:
        self.driver = Driver(resume_ms=300, output_bytes_max=window)
        self.published: list[tuple[str | None, bytes]] = []
        self.published_ms: list[int] = []
        # What each durable subscription has settled, or was not to see.
        self.settled: dict[str, set[int]] = {}
        self.connect()
        config = {"compact": True, "tombstone_seconds": 5, "retain_seconds": 2}
        if key_order:
            config["key_order"] = True
        self.driver.call(self.session, "declare", channel="state", kind="topic", config=config)

    def connect(self) -> None:
        self.session = self.driver.connect()
        self.consumers: dict[str, int] = {}

    @property
    def channel(self) -> Channel:
        return self.driver.engine.state.channels["state"]

    def present(self) -> set[int]:
        log = self.channel.log
        return {offset for stored in log for offset in range(stored.first, stored.end)}

    def last(self) -> dict[str, int]:
        return {key: o for o, (key, _) in enumerate(self.published) if key is not None}

    def before(self, start: Any) -> set[int]:
        """What who begins there is not to see: what is before it, and what is gone already."""
        count = len(self.published)
        offset = {"earliest": 0, "latest": count}.get(start, start)
        return set(range(min(offset, count))) | (set(range(count)) - self.present())

    # -- what happens

    @rule(asked=rows, delay_ms=st.sampled_from([0, 0, 0, 400]), priority=st.sampled_from([0, 0, 2]))
    def publish(self, asked: list[tuple[str | None, bytes]], delay_ms: int, priority: int) -> None:
        given = {"delay_ms": delay_ms, "priority": priority}
        properties = {name: value for name, value in given.items() if value}
        keys = [key for key, _ in asked]
        batch = make_batch([body for _, body in asked], properties or None, keys=keys)
        request = self.driver.request()
        self.driver.send(self.session, f.Publish(request, "state", None, 0, None, batch))
        self.published += asked
        self.published_ms += [self.driver.now_ms] * len(asked)
        self.check()

    @rule(name=names, start=starts)
    def subscribe(self, name: str, start: Any) -> None:
        if name not in self.settled:
            self.settled[name] = self.before(start)
            self.driver.call(
                self.session, "subscribe", channel="state", subscription=name, start=start
            )
            self.check()

    @rule(name=names, to=starts)
    def seek(self, name: str, to: Any) -> None:
        if name in self.settled:
            self.settled[name] = self.before(to)
            self.driver.call(self.session, "seek", channel="state", subscription=name, to=to)
            self.check()

    @rule(name=names, count=st.integers(1, 6))
    def fetch(self, name: str, count: int) -> None:
        if name not in self.settled:
            return
        if name not in self.consumers:
            options = {"lease_ms": 2000}
            self.consumers[name] = self.driver.consume(self.session, "state", name, **options)
        frame = f.Fetch(self.driver.request(), self.consumers[name], count, 0)
        for offset, _, body in delivered(self.driver.send(self.session, frame)):
            assert self.published[offset][1] == body
            assert offset not in self.settled[name]
        self.check()

    @rule(name=names, count=st.integers(1, 6), outcome=st.sampled_from([0, 0, 1]))
    def settle(self, name: str, count: int, outcome: int) -> None:
        if name not in self.consumers:
            return
        held = sorted(leased(self.channel.subscriptions[name]))[:count]
        flat = tuple(number for offset in held for number in (offset, offset + 1))
        self.driver.settle_offsets(self.session, self.consumers[name], outcome, flat)
        if not outcome:
            self.settled[name] |= set(held)
        self.check()

    @rule(name=names)
    def purge(self, name: str) -> None:
        if name in self.settled:
            subscription = self.channel.subscriptions[name]
            gone = unsettled(subscription) - leased(subscription)
            told = self.driver.call(self.session, "purge", channel="state", subscription=name)
            assert told == {"purged": len(gone)}
            self.settled[name] |= gone
            self.check()

    @rule(ms=st.sampled_from([1, 300, 1000, 3000, 6000]))
    def advance(self, ms: int) -> None:
        self.driver.pass_time(ms)
        self.check()

    @rule(size=st.integers(100, 10_000))
    def drained(self, size: int) -> None:
        self.driver.drained(self.session, size)

    @rule(snapshot_at=st.floats(0, 1))
    def restart(self, snapshot_at: float) -> None:
        before = dump(self.driver.engine.state)
        self.driver.restart(int(snapshot_at * len(self.driver.journal)))
        assert dump(self.driver.engine.state) == before
        self.driver.settle()
        self.connect()
        self.check()

    @rule(cut=st.floats(0, 1))
    def replay(self, cut: float) -> None:
        self.driver.check_replay([int(cut * len(self.driver.journal))])

    # -- what is always true

    def check(self) -> None:
        present, last = self.present(), self.last()
        tombstones = {o for o in last.values() if not self.published[o][1]}
        assert set(last.values()) - tombstones <= present
        for offset in tombstones - present:
            assert self.published_ms[offset] + 5000 <= self.driver.now_ms
        for name, settled in self.settled.items():
            subscription = self.channel.subscriptions[name]
            assert unsettled(subscription) == present - settled
            assert leased(subscription) <= present
            assert subscription.missed == 0
            # What has no key is kept for who has not settled it.
            keyless = {o for o, (key, _) in enumerate(self.published) if key is None}
            assert keyless - settled <= present
        fresh = {o for o, at in enumerate(self.published_ms) if at + 2000 > self.driver.now_ms}
        assert {o for o in fresh if self.published[o][0] is None} <= present

    @rule()
    def browse(self) -> None:
        found: list[tuple[int, str | None, bytes]] = []
        start = 0
        while True:
            told = self.driver.call(self.session, "browse", channel="state", start=start, count=3)
            for first, _, _, batch in told["parts"]:
                columns = batches.decode(batch)
                keys = columns.keys or [None] * len(columns.bodies)
                found += zip(range(first, first + len(keys)), keys, columns.bodies, strict=True)
            if not told["parts"]:
                break
            start = told["next"]
        assert found == [(o, *self.published[o]) for o in sorted(self.present())]
        values = {key: body for _, key, body in found if key is not None}
        wanted = {key: self.published[o][1] for key, o in self.last().items()}
        # A deletion may be forgotten, and never before the values that it deleted.
        assert {key: body for key, body in values.items() if body} == {
            key: body for key, body in wanted.items() if body
        }

    @rule(key=st.sampled_from(KEYS))
    def latest(self, key: str) -> None:
        parts = self.driver.call(self.session, "latest", channel="state", key=key)["parts"]
        last = self.last().get(key)
        if last is None or (not parts and not self.published[last][1]):
            assert parts == ()
            return
        ((first, _, published_ms, batch),) = parts
        assert (first, published_ms) == (last, self.published_ms[last])
        assert batches.decode(batch).bodies == (self.published[last][1],)

    @rule()
    def come_to_rest(self) -> None:
        """When nobody holds anything, at most a little more than half of a batch is not live."""
        self.driver.pass_time(60_000)
        compaction = self.channel.compaction
        assert compaction is not None
        assert compaction.due_count == 0
        assert all(2 * s.live > s.end - s.first for s in self.channel.log)
        self.check()


def leased(subscription: Subscription) -> set[int]:
    spans = [span for span in subscription.ranges if span.state == LEASED]
    return {offset for span in spans for offset in range(span.first, span.end)}


TestCompacted = Compacted.TestCase
TestCompacted.settings = settings(
    max_examples=50,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
