"""Dedup ids and unique keys, against a model that looks through every message ever published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from telpher.protocol import frames as f
from telpher.protocol.uniqueness import DEDUP_HEADER, UNIQUE_HEADER, OnConflict, UniqueWhile
from telpher_broker.engine.dump import dump
from telpher_broker.engine.ranges import LEASED
from telpher_broker.engine.subscription import Subscription

from .driver import Driver, answer_of, make_batch
from .invariants import unsettled

PRODUCER = b"p" * 16
WINDOW_MS = 2000

rows = st.lists(
    st.tuples(st.sampled_from([None, None, "i", "j", "k"]), st.sampled_from([None, "x", "y"])),
    min_size=1,
    max_size=4,
)


@dataclass
class Kept:
    """A message that was stored, and what it asked for."""

    dedup_id: str | None
    key: str | None
    while_: int
    until_ms: int
    at_ms: int


class Model:
    """All messages of one channel, by offset; it asks the subscription where each stands."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []

    @property
    def next(self) -> int:
        return len(self.kept)

    def holders(self, key: str, now_ms: int, waiting: set[int], leased: set[int]) -> list[int]:
        """Who has the key: those that hold it by state and then those for a time, each in order."""
        held, timed = [], []
        for offset, kept in enumerate(self.kept):
            if kept.key != key:
                continue
            if kept.while_ == UniqueWhile.A_TIME:
                if kept.until_ms > now_ms:
                    timed = [offset]
            elif offset in waiting or (offset in leased and kept.while_ == UniqueWhile.UNSETTLED):
                held.append(offset)
        return held + timed

    def known(self, dedup_id: str, now_ms: int) -> int | None:
        for offset, kept in enumerate(self.kept):
            if kept.dedup_id == dedup_id and kept.at_ms > now_ms - WINDOW_MS:
                return offset
        return None

    def publish(
        self,
        asked: list[tuple[str | None, str | None]],
        properties: dict[str, int],
        now_ms: int,
        queue: Subscription | None,
    ) -> tuple[list[int], list[int], list[str], set[int]]:
        """(offsets or -1, which were there, the codes of refusals, what is replaced)."""
        leased = offsets_leased(queue)
        waiting = (unsettled(queue) if queue is not None else set()) - leased
        offsets: list[int] = []
        duplicates: list[int] = []
        codes: list[str] = []
        replaced: set[int] = set()
        while_ = properties.get("unique", UniqueWhile.UNSETTLED)
        conflict = properties.get("on_conflict", OnConflict.REJECT)
        for index, (dedup_id, key) in enumerate(asked):
            known = None if dedup_id is None else self.known(dedup_id, now_ms)
            holders = [] if key is None else self.holders(key, now_ms, waiting, leased)
            until_ms = now_ms + properties.get("unique_ms", 0)
            if known is not None:
                offsets.append(known)
                duplicates.append(index)
                continue
            if holders and conflict in (OnConflict.IGNORE, OnConflict.EXTEND):
                offsets.append(holders[-1])
                duplicates.append(index)
                holder = self.kept[holders[-1]]
                if conflict == OnConflict.EXTEND and holder.while_ == while_ == UniqueWhile.A_TIME:
                    holder.until_ms = max(holder.until_ms, until_ms)
                continue
            if holders and (conflict == OnConflict.REJECT or set(holders) & leased):
                offsets.append(-1)
                codes.append("not_unique")
                continue
            replaced |= set(holders) & waiting
            waiting -= set(holders)
            for holder_offset in holders:
                self.kept[holder_offset].until_ms = 0
            offsets.append(len(self.kept))
            waiting.add(len(self.kept))
            self.kept.append(Kept(dedup_id, key, while_, until_ms, now_ms))
        return offsets, duplicates, codes, replaced


def offsets_leased(queue: Subscription | None) -> set[int]:
    if queue is None:
        return set()
    spans = [span for span in queue.ranges if span.state == LEASED]
    return {offset for span in spans for offset in range(span.first, span.end)}


def identities(asked: list[tuple[str | None, str | None]]) -> list[dict[str, Any] | None]:
    found = []
    for dedup_id, key in asked:
        row = {DEDUP_HEADER: dedup_id, UNIQUE_HEADER: key, "other": 1}
        found.append({name: value for name, value in row.items() if value is not None})
    return found  # type: ignore[return-value]


class Identities(RuleBasedStateMachine):
    """Publish, take, settle, let time pass, restart: every answer is the model's."""

    @initialize()
    def begin(self) -> None:
        self.driver = Driver(resume_ms=500)
        self.session = self.driver.connect()
        self.models = {"jobs": Model(), "news": Model()}
        config = {"dedup_seconds": WINDOW_MS // 1000}
        for name, kind in (("jobs", "queue"), ("news", "topic")):
            self.driver.call(self.session, "declare", channel=name, kind=kind, config=config)
        self.consumer = self.driver.consume(self.session, "jobs", lease_ms=3000)
        self.sequence = 0
        self.last: tuple[f.Publish, Any] | None = None

    def queue(self) -> Subscription:
        return self.driver.engine.state.channels["jobs"].subscriptions[""]

    @rule(
        asked=rows,
        while_=st.sampled_from([0, 1, 2, 3]),
        conflict=st.sampled_from([0, 1, 2, 3]),
        delay_ms=st.sampled_from([0, 0, 700]),
        numbered=st.booleans(),
    )
    def publish_jobs(self, numbered: bool, **options: Any) -> None:
        self._publish("jobs", numbered, **options)

    @rule(asked=rows, conflict=st.sampled_from([0, 1, 3]))
    def publish_news(self, asked: list[tuple[str | None, str | None]], conflict: int) -> None:
        self._publish("news", False, asked, 3, conflict, 0)

    def _publish(
        self,
        name: str,
        numbered: bool,
        asked: list[tuple[str | None, str | None]],
        while_: int,
        conflict: int,
        delay_ms: int,
    ) -> None:
        given = {"unique": while_, "on_conflict": conflict, "delay_ms": delay_ms}
        given["unique_ms"] = 1500 if while_ == UniqueWhile.A_TIME else 0
        properties = {key: value for key, value in given.items() if value}
        queue = self.queue() if name == "jobs" else None
        base = self.models[name].next
        expected = self.models[name].publish(asked, properties, self.driver.now_ms, queue)
        before = unsettled(queue) if queue is not None else set()
        batch = make_batch([b"m"] * len(asked), properties or None, headers=identities(asked))
        self.sequence += numbered
        producer = PRODUCER if numbered else None
        frame = f.Publish(
            self.driver.request(), name, producer, self.sequence if numbered else 0, None, batch
        )
        said = self.driver.send(self.session, frame)
        answer = answer_of(said, self.session, frame.request)
        self.check(answer, *expected[:3])
        if queue is not None:
            assert unsettled(queue) - before <= set(range(base, self.models[name].next))
            assert before - unsettled(queue) == expected[3] & before
        if numbered and self.models[name].next > base:
            self.last = frame, answer

    def check(
        self, answer: Any, offsets: list[int], duplicates: list[int], codes: list[str]
    ) -> None:
        if isinstance(answer, f.Refused):
            assert [answer.code] == codes
            assert len(offsets) == 1
        elif isinstance(answer, f.Confirm):
            assert not duplicates
            assert not codes
            assert offsets == list(range(answer.first, answer.first + len(offsets)))
        else:
            assert list(answer.offsets) == offsets
            assert list(answer.duplicates) == duplicates
            assert [code for _, code, _ in answer.refused] == codes
            assert [index for index, _, _ in answer.refused] == [
                index for index, offset in enumerate(offsets) if offset < 0
            ]

    @rule()
    def send_again(self) -> None:
        """As after a lost answer: the same answer, and nothing changes."""
        if self.last is None:
            return
        frame, answer = self.last
        before = dump(self.driver.engine.state)
        request = self.driver.request()
        said = self.driver.send(self.session, frame._replace(request=request))
        assert answer_of(said, self.session, request) == answer._replace(request=request)
        assert dump(self.driver.engine.state) == before

    @rule(count=st.integers(1, 4))
    def fetch(self, count: int) -> None:
        request = self.driver.request()
        self.driver.send(self.session, f.Fetch(request, self.consumer, count, 0))

    @rule(count=st.integers(1, 4), outcome=st.sampled_from([0, 0, 1]), delay=st.booleans())
    def settle(self, count: int, outcome: int, delay: bool) -> None:
        held = sorted(offsets_leased(self.queue()))[:count]
        flat = tuple(number for offset in held for number in (offset, offset + 1))
        delay_ms = 400 if delay and outcome else 0
        self.driver.settle_offsets(self.session, self.consumer, outcome, flat, delay_ms)

    @rule()
    def purge(self) -> None:
        self.driver.call(self.session, "purge", channel="jobs")

    @rule(ms=st.sampled_from([100, 400, 1000, 1600, 4000]))
    def advance(self, ms: int) -> None:
        self.driver.pass_time(ms)

    @rule(snapshot_at=st.floats(0, 1))
    def restart(self, snapshot_at: float) -> None:
        before = dump(self.driver.engine.state)
        self.driver.restart(int(snapshot_at * len(self.driver.journal)))
        assert dump(self.driver.engine.state) == before
        self.driver.settle()
        self.session = self.driver.connect()
        self.consumer = self.driver.consume(self.session, "jobs", lease_ms=3000)

    @rule(cut=st.floats(0, 1))
    def replay(self, cut: float) -> None:
        self.driver.check_replay([int(cut * len(self.driver.journal))])


TestIdentities = Identities.TestCase
TestIdentities.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


def test_a_queue_that_is_sought_onwards_frees_the_keys_of_what_it_passes(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config={"retain_count": 9})
    batch = make_batch([b"a"], {"unique": UniqueWhile.UNSETTLED}, headers=[{UNIQUE_HEADER: "k"}])
    driver.publish(session, "jobs", batch=batch)
    driver.call(session, "seek", channel="jobs", to="latest")
    assert "unique_keys" not in driver.call(session, "inspect", channel="jobs")
    assert isinstance(driver.publish(session, "jobs", batch=batch), f.Confirm)
    driver.check_replay(range(len(driver.journal)))


def test_time_does_not_go_back_behind_the_ids_that_are_remembered() -> None:
    """A wall clock was set back, and the broker restarted when all had been settled."""
    driver = Driver()
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config={"dedup_seconds": 60})
    headers = ({DEDUP_HEADER: "a"},)
    driver.publish(session, "jobs", batch=make_batch([b"x"], headers=headers))
    consumer = driver.consume(session, "jobs", prefetch=1)
    driver.settle_offsets(session, consumer, 0, (0, 1))
    published_ms = driver.now_ms
    driver.now_ms -= 86_400_000
    driver.restart()
    assert driver.engine.now_ms == published_ms
    headers = ({DEDUP_HEADER: "b"},)
    driver.publish(driver.connect(), "jobs", batch=make_batch([b"y"], headers=headers))
