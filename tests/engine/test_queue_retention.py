"""A queue that keeps what is acknowledged: its counts stay right, nothing that somebody needs goes,
and it can be set back; whenever it begins to keep, and whenever it ceases to."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from telpher.protocol import frames as f

from .driver import Driver, delivered

KEPT = {"retain_count": 6}


class RetainingQueue(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver()
        self.session = self.driver.connect()
        self.retains = True
        self.unsettled: set[int] = set()
        self.held: set[int] = set()
        self.next = 0
        self.consumer: int | None = None

    @initialize(retains=st.booleans())
    def begin(self, retains: bool) -> None:
        self.retains = retains
        config = KEPT if retains else {}
        self.driver.call(self.session, "declare", channel="jobs", kind="queue", config=config)

    @rule(count=st.integers(1, 4), delay_ms=st.sampled_from([None, 500]))
    def publish(self, count: int, delay_ms: int | None) -> None:
        bodies = [b"%d" % (self.next + index) for index in range(count)]
        properties = {"delay_ms": delay_ms} if delay_ms else None
        self.driver.publish(self.session, "jobs", *bodies, properties=properties)
        self.unsettled |= set(range(self.next, self.next + count))
        self.next += count

    @rule(prefetch=st.integers(1, 5))
    def consume(self, prefetch: int) -> None:
        if self.consumer is None:
            self.consumer = self.driver.consume(self.session, "jobs", prefetch=prefetch)

    def leased(self) -> set[int]:
        queue = self.driver.engine.state.channels["jobs"].subscriptions[""]
        return {
            offset
            for consumer in queue.consumers
            for span in consumer.leases.values()
            for offset in range(span.first, span.end)
        }

    @rule(which=st.integers(0, 5))
    def ack(self, which: int) -> None:
        held = sorted(self.leased())
        if self.consumer is not None and held:
            offset = held[which % len(held)]
            row = (offset, offset + 1)
            self.driver.settle_offsets(self.session, self.consumer, f.Outcome.ACK, row)
            self.unsettled.discard(offset)

    @rule(retains=st.booleans())
    def configure(self, retains: bool) -> None:
        self.retains = retains
        config = KEPT if retains else dict.fromkeys(KEPT)
        result = self.driver.call(self.session, "configure", channel="jobs", config=config)
        assert isinstance(result, dict)
        self.driver.settle()

    @rule(to=st.one_of(st.integers(0, 30), st.sampled_from(["earliest", "latest"])))
    def seek(self, to: Any) -> None:
        log = self.driver.engine.state.channels["jobs"].log
        kept = {offset for stored in log for offset in range(stored.first, stored.end)}
        answer = self.driver.call(self.session, "seek", channel="jobs", to=to)
        if not self.retains:
            assert answer.code == "wrong_kind"
            return
        self.unsettled = {offset for offset in kept if offset >= answer["next"]}

    @rule(ms=st.sampled_from([100, 600]))
    def advance(self, ms: int) -> None:
        self.driver.pass_time(ms)

    @rule(at=st.floats(0, 1))
    def restart(self, at: float) -> None:
        self.driver.restart(int(at * len(self.driver.journal)))
        self.driver.settle()
        self.session = self.driver.connect()
        self.consumer = None

    @rule(cut=st.floats(0, 1))
    def replay(self, cut: float) -> None:
        self.driver.check_replay([int(cut * len(self.driver.journal))])

    @invariant()
    def the_counts_are_right(self) -> None:
        channel = self.driver.engine.state.channels.get("jobs")
        if channel is None:
            return
        assert channel.messages == len(self.unsettled)
        assert channel.log.next == self.next
        if self.retains:
            recent = set(range(max(channel.log.start, self.next - 6), self.next))
            assert channel.log.start <= min(self.unsettled | recent, default=self.next)
        else:
            assert all(
                set(range(stored.first, stored.end)) & self.unsettled for stored in channel.log
            )

    def teardown(self) -> None:
        """Everything that is unsettled is delivered in the end, each once."""
        if "jobs" not in self.driver.engine.state.channels:
            return
        self.driver.restart()
        session = self.driver.connect()
        consumer = self.driver.consume(session, "jobs", prefetch=1000)
        self.driver.pass_time(1000)
        said = [effect for taken in self.driver.rounds for effect in taken.effects]
        seen = [(offset, body) for offset, _, body in delivered(said, consumer)]
        assert sorted(seen) == [(offset, b"%d" % offset) for offset in sorted(self.unsettled)]


TestRetainingQueue = RetainingQueue.TestCase
TestRetainingQueue.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
