"""Ranges against a dict of offsets, and a log against a list."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from telpher.protocol.channel_options import QUEUE
from telpher_broker.engine.log import CHUNK_ENTRIES, Log, Stored
from telpher_broker.engine.memory import Memory
from telpher_broker.engine.ranges import DELAYED, LEASED, READY, Aging, Ranges, Span
from telpher_broker.engine.sessions import Consumer, Session
from telpher_broker.engine.state import Channel

from .invariants import check_log, check_ranges

SETTINGS = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
SPACE = 40
edges = st.tuples(st.integers(0, SPACE - 1), st.integers(1, 10)).map(
    lambda pair: (pair[0], min(pair[0] + pair[1], SPACE))
)

# state, attempt, priority, due_ms, consumer, deadline_ms, behind
Standing = tuple[int, int, int, int, int | None, int, int | None]


class RangesAgainstDict(RuleBasedStateMachine):
    """Every offset on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges = Ranges()
        self.model: dict[int, Standing] = {}
        self.now_ms = 1000
        session = Session(1, 1)
        subscription = Channel(1, "q", QUEUE, {}, Memory()).subscriptions[""]
        self.consumers: list[Any] = [
            Consumer(n, session, subscription, 0, 0, None) for n in range(2)
        ]

    @rule(
        edge=edges,
        attempt=st.integers(0, 2),
        priority=st.integers(0, 2),
        delay=st.sampled_from([0, 0, 5, 9]),
    )
    def put(self, edge: tuple[int, int], attempt: int, priority: int, delay: int) -> None:
        first, end = edge
        if any(offset in self.model for offset in range(first, end)):
            return
        due_ms = self.now_ms + delay if delay else 0
        self.ranges.put(Span(first, end, attempt, priority, due_ms))
        state = DELAYED if due_ms else READY
        for offset in range(first, end):
            self.model[offset] = (state, attempt, priority, due_ms, None, 0, None)

    @rule(edge=edges)
    def carve(self, edge: tuple[int, int]) -> None:
        taken = self.ranges.carve(*edge)
        assert self.spread(taken) == self.slice(edge)
        assert [s.first for s in taken] == sorted(s.first for s in taken)
        for offset in range(*edge):
            self.model.pop(offset, None)

    @rule(edge=edges)
    def over(self, edge: tuple[int, int]) -> None:
        spans = self.ranges.over(*edge)
        assert all(span.first < edge[1] and span.end > edge[0] for span in spans)
        found = self.spread(spans)
        assert {o: found[o] for o in range(*edge) if o in found} == self.slice(edge)

    @rule(count=st.integers(1, 6), which=st.integers(0, 1), deadline=st.integers(1, 20))
    def lease_next(self, count: int, which: int, deadline: int) -> None:
        span = self.ranges.next_ready()
        ready = [offset for offset, row in self.model.items() if row[0] == READY]
        assert (span is None) == (not ready)
        if span is None:
            return
        end = self.ranges.turn_end(span)
        assert sorted(ready, key=self.line)[: end - span.first] == list(range(span.first, end))
        end = min(end, span.first + count)
        deadline_ms = self.now_ms + deadline
        leased = self.ranges.lease(span, end, self.consumers[which], deadline_ms)
        assert (leased.end, leased.state) == (end, LEASED)
        for offset in range(leased.first, end):
            row = self.model[offset]
            self.model[offset] = (LEASED, *row[1:4], which, deadline_ms, row[6])

    def line(self, offset: int) -> tuple[int, int, int, int]:
        _, _, priority, due_ms, _, _, behind = self.model[offset]
        return (-priority, *((offset, 0) if behind is None else (behind, due_ms)), offset)

    @rule(ms=st.sampled_from([None, 1, 3]))
    def age(self, ms: int | None) -> None:
        """Whatever the order, and back: the indexes agree (`check_ranges`)."""
        self.ranges.line_up(None if ms is None else Aging(ms, lambda offset: 100 + offset // 4))
        ready = [span for span in self.ranges if span.state == READY]
        first = self.ranges.next_ready()
        assert first is (min(ready, key=lambda span: span.line) if ready else None)
        self.ranges.line_up(None, in_line=False)
        assert self.ranges.next_ready() is None
        self.ranges.line_up(None)

    @rule(edge=edges, deadline=st.integers(1, 20))
    def renew(self, edge: tuple[int, int], deadline: int) -> None:
        for span in self.ranges.over(*edge):
            if span.state == LEASED:
                self.ranges.renew(span, *edge, self.now_ms + deadline)
        for offset, row in self.slice(edge).items():
            if row[0] == LEASED:
                self.model[offset] = (*row[:5], self.now_ms + deadline, row[6])

    @rule(ms=st.integers(1, 10), most=st.integers(0, 4), in_line=st.booleans())
    def pass_time(self, ms: int, most: int, in_line: bool) -> None:
        self.now_ms += ms
        self.ranges.line_up(None, in_line)
        ready = self.ranges.mature(self.now_ms, lambda due_ms: due_ms % SPACE, most)
        self.ranges.line_up(None)
        due = list(self.spread(ready))
        left = {
            (row[3], offset)
            for offset, row in self.model.items()
            if row[0] == DELAYED and row[3] <= self.now_ms and offset not in due
        }
        reached = len(ready) if in_line else len(due)
        assert reached == most or (reached < most and not left)
        assert [(self.model[o][3], o) for o in due] == sorted((self.model[o][3], o) for o in due)
        assert not left or not due or (self.model[due[-1]][3], due[-1]) < min(left)
        for offset in due:
            assert self.model[offset][0] == DELAYED
            assert self.model[offset][3] <= self.now_ms
            _, attempt, priority, due_ms, *rest, _ = self.model[offset]
            behind = None if attempt else due_ms % SPACE
            self.model[offset] = (READY, attempt, priority, due_ms, *rest, behind)
        assert self.ranges.ended(self.now_ms, most) == self.ranges.ended(self.now_ms, SPACE)[:most]
        ended = self.ranges.ended(self.now_ms, SPACE)
        assert [s.deadline_ms for s in ended] == sorted(s.deadline_ms for s in ended)
        assert set(self.spread(ended)) == {
            o for o, row in self.model.items() if row[0] == LEASED and row[5] <= self.now_ms
        }

    @invariant()
    def agrees(self) -> None:
        check_ranges(self.ranges)
        assert self.spread(self.ranges) == self.model
        assert self.ranges.first == min(self.model, default=None)
        dues = [row[3] for row in self.model.values() if row[0] == DELAYED]
        assert self.ranges.next_due_ms() == min(dues, default=None)
        deadlines = [row[5] for row in self.model.values() if row[0] == LEASED]
        assert self.ranges.next_deadline_ms() == min(deadlines, default=None)
        for which, consumer in enumerate(self.consumers):
            held = self.spread(consumer.leases.values())
            assert set(held) == {o for o, row in self.model.items() if row[4] == which}

    def spread(self, spans: Any) -> dict[int, Standing]:
        return {
            offset: (
                span.state,
                span.attempt,
                span.priority,
                span.due_ms,
                None if span.consumer is None else span.consumer.request,
                span.deadline_ms,
                span.behind,
            )
            for span in spans
            for offset in range(span.first, span.end)
        }

    def slice(self, edge: tuple[int, int]) -> dict[int, Standing]:
        return {o: self.model[o] for o in range(*edge) if o in self.model}


class LogAgainstList(RuleBasedStateMachine):
    """A list of batches, each with the set of its live offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(Memory())
        self.model: list[tuple[Stored, set[int]]] = []
        self.frozen: list[tuple[list[list[Stored]], list[Stored]]] = []
        self.appended = 0
        self.now_ms = 0

    @rule(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=CHUNK_ENTRIES))
    def append(self, sizes: list[int]) -> None:
        for size in sizes:
            first = self.log.next
            self.now_ms += size % 3
            stored = Stored(first, first + size, self.now_ms, None, b"x" * size)
            self.log.append(stored)
            self.model.append((stored, set(range(first, first + size))))

    @precondition(lambda self: self.model)
    @rule(at=st.floats(0, 1), count=st.integers(1, 1500))
    def release(self, at: float, count: int) -> None:
        live = sorted(offset for _, offsets in self.model for offset in offsets)
        start = int(at * (len(live) - 1))
        chosen = live[start : start + count]
        gone = []
        for first, end in _runs(chosen):
            gone += self.log.release(first, end)
        for _, offsets in self.model:
            offsets -= set(chosen)
        assert gone == [stored for stored, offsets in self.model if not offsets]
        self.model = [row for row in self.model if row[1]]

    @rule(at=st.floats(0, 1))
    def trim(self, at: float) -> None:
        offset = int(at * (self.log.next + 1))
        gone = self.log.trim(offset)
        assert gone == [stored for stored, _ in self.model if stored.end <= offset]
        self.model = [row for row in self.model if row[0].end > offset]

    @rule()
    def freeze(self) -> None:
        view = self.log.freeze()
        self.frozen = [*self.frozen[-3:], (view, [stored for stored, _ in self.model])]

    @rule(at=st.floats(0, 1))
    def look(self, at: float) -> None:
        offset = int(at * (self.log.next + 2))
        rest = [stored for stored, _ in self.model if stored.end > offset]
        assert list(self.log.since(offset)) == rest
        assert self.log.find(offset) is (rest[0] if rest else None)
        time_ms = int(at * (self.now_ms + 2))
        later = [s.first for s, _ in self.model if s.published_ms >= time_ms]
        assert self.log.at_time(time_ms) == (later[0] if later else self.log.next)
        assert self.log.last_before(time_ms) == (later[0] if later else self.log.next) - 1

    @invariant()
    def agrees(self) -> None:
        check_log(self.log)
        assert list(self.log) == [stored for stored, _ in self.model]
        assert [stored.live for stored in self.log] == [len(live) for _, live in self.model]
        assert self.log.last is (self.model[-1][0] if self.model else None)

    @invariant()
    def frozen_views_stay(self) -> None:
        for view, then in self.frozen:
            assert [stored for entries in view for stored in entries] == then


def _runs(offsets: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for offset in offsets:
        if runs and runs[-1][1] == offset:
            runs[-1] = (runs[-1][0], offset + 1)
        else:
            runs.append((offset, offset + 1))
    return runs


def test_bytes_are_counted_by_whole_batches() -> None:
    log = Log(Memory())
    assert log.within(10) == 0
    for first in range(0, 3 * CHUNK_ENTRIES, 3):
        log.append(Stored(first, first + 3, 0, None, b"x" * 10))
    last = 3 * CHUNK_ENTRIES
    assert log.within(10**9) == 0
    assert log.within(0) == log.within(9) == last
    assert log.within(10) == log.within(19) == last - 3
    log.trim(last - 30)
    assert log.within(25) == last - 6
    assert log.within(10**9) == log.start == last - 30


TestRangesAgainstDict = RangesAgainstDict.TestCase
TestRangesAgainstDict.settings = SETTINGS
TestLogAgainstList = LogAgainstList.TestCase
TestLogAgainstList.settings = settings(SETTINGS, max_examples=60, stateful_step_count=25)
