"""What is live in a compacted log, against a dict of the last message of each key."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import batch as batches
from telpher_broker.engine.log import Log, Stored
from telpher_broker.engine.memory import Memory
from telpher_broker.engine.uniqueness.compaction import Compaction

from .driver import make_batch
from .invariants import check_log

keys = st.one_of(st.none(), st.sampled_from("abcdef"))
messages = st.lists(st.tuples(keys, st.sampled_from([b"", b"x", b"yz"])), min_size=1, max_size=5)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), messages),
        st.tuples(st.just("rewrite"), st.integers(1, 3)),
        st.tuples(st.just("frontier"), st.integers(0, 8)),
        st.tuples(st.just("deletions"), st.integers(0, 6)),
        st.tuples(st.just("trim"), st.integers(0, 4)),
        st.tuples(st.just("reload"), st.just(0)),
    ),
    max_size=60,
)


class Naive:
    """Every message that is in the log, and which of them are dead."""

    def __init__(self) -> None:
        self.messages: dict[int, tuple[str | None, bytes, int]] = {}
        self.dead: set[int] = set()
        self.deletions_ms = 0
        self.value: dict[str, bytes] = {}

    def add(self, offset: int, key: str | None, body: bytes, now_ms: int) -> None:
        if key is not None:
            self.dead |= {o for o, row in self.messages.items() if row[0] == key}
            self.value[key] = body
        self.messages[offset] = (key, body, now_ms)

    def drop(self, offsets: set[int]) -> None:
        for offset in sorted(offsets):
            key, _, _ = self.messages.pop(offset)
            if offset not in self.dead and key is not None:
                self.value[key] = b""  # a limit took it
        self.dead -= offsets

    def end_deletions(self) -> None:
        """A deletion that is old enough is dead once it is alone."""
        by_key: dict[str, list[int]] = {}
        for offset, (key, _, _) in self.messages.items():
            if key is not None:
                by_key.setdefault(key, []).append(offset)
        for offsets in by_key.values():
            _, body, at_ms = self.messages[offsets[-1]]
            if len(offsets) == 1 and not body and at_ms <= self.deletions_ms:
                self.dead.add(offsets[-1])

    def revive(self) -> None:
        newest = {key: offset for offset, (key, _, _) in self.messages.items()}
        self.dead = {
            offset
            for offset, (key, _, _) in self.messages.items()
            if key is not None and newest[key] != offset
        }
        self.deletions_ms = 0

    def live(self, first: int, end: int) -> set[int]:
        return {o for o in range(first, end) if o in self.messages and o not in self.dead}

    def last(self, key: str) -> int | None:
        found = [o for o, row in self.messages.items() if row[0] == key and o not in self.dead]
        return max(found, default=None)


class World:
    """A log with its index, and the same told naively."""

    def __init__(self) -> None:
        self.log = Log(Memory())
        self.compaction = Compaction(self.log)
        self.naive = Naive()
        self.now_ms = 0
        self.frontier = 0

    def add(self, rows: list[tuple[str | None, bytes]]) -> None:
        self.now_ms += 1
        first = self.log.next
        batch = make_batch([body for _, body in rows], keys=[key for key, _ in rows])
        stored = Stored(first, first + len(rows), self.now_ms, None, batch)
        self.log.append(stored)
        self.compaction.added(stored, batch)
        for offset, (key, body) in enumerate(rows, first):
            self.naive.add(offset, key, body, self.now_ms)

    def rewrite(self, count: int) -> None:
        for _ in range(count):
            stored = self.compaction.take_due()
            if stored is None:
                return
            assert isinstance(stored.batch, bytes)
            columns = batches.decode(stored.batch)
            runs = self.compaction.live_runs(stored)
            live = {offset for first, end in runs for offset in range(first, end)}
            assert live == self.naive.live(stored.first, stored.end)
            assert len(live) == stored.live
            self._replace(stored, columns, runs)

    def _replace(
        self, stored: Stored, columns: batches.Columns, runs: list[tuple[int, int]]
    ) -> None:
        pieces = []
        for first, end in runs:
            batch = batches.cut(columns, first - stored.first, end - stored.first)
            pieces.append(Stored(first, end, stored.published_ms, None, batch))
        kept = {offset for first, end in runs for offset in range(first, end)}
        self.naive.drop(set(range(stored.first, stored.end)) - kept)
        self.log.replace(stored, pieces)
        assert isinstance(stored.batch, bytes)
        self.compaction.rewritten(stored, pieces)

    def pass_frontier(self, distance: int) -> None:
        self.frontier = min(self.frontier + distance, self.log.next)
        for stored in self.log:
            if stored.end <= self.frontier:
                rows = self.naive.messages
                offsets = range(stored.first, stored.end)
                self.naive.dead |= {o for o in offsets if rows[o][0] is None}
        self.compaction.release_keyless(self.frontier)

    def end_deletions(self, age_ms: int) -> None:
        self.naive.deletions_ms = max(self.naive.deletions_ms, self.now_ms - age_ms)
        self.compaction.release_deletions(self.naive.deletions_ms)

    def trim(self, count: int) -> None:
        entries = list(self.log)[:count]
        if entries:
            for stored in self.log.trim(entries[-1].end):
                self.naive.drop(set(range(stored.first, stored.end)))
                assert isinstance(stored.batch, bytes)
                self.compaction.rewritten(stored, ())

    def reload(self) -> None:
        """As from a snapshot: what retention and the time have taken, they are yet to take."""
        log = Log(Memory())
        log.start = log.next = self.log.next
        compaction = Compaction(log)
        for stored in self.log:
            again = Stored(stored.first, stored.end, stored.published_ms, None, stored.batch)
            log.append(again)
            assert isinstance(stored.batch, bytes)
            compaction.added(again, stored.batch)
        log.next = self.log.next
        self.log, self.compaction = log, compaction
        self.naive.revive()
        self.frontier = 0

    def check(self) -> None:
        check_log(self.log)
        self.naive.end_deletions()
        assert self.log.messages == sum(stored.end - stored.first for stored in self.log)
        for stored in self.log:
            assert stored.live == len(self.naive.live(stored.first, stored.end))
        for key in "abcdef":
            last = self.compaction.offset_of(key)
            assert last == self.naive.last(key)
            # Whatever was dropped: a reader of what is left ends with the last value of every key.
            bodies = [body for other, body, _ in self.naive.messages.values() if other == key]
            assert (bodies[-1] if bodies else b"") == self.naive.value.get(key, b"")


@settings(derandomize=True, deadline=None, max_examples=300)
@given(steps)
def test_it_counts_and_keeps_the_last_of_every_key(steps: list[tuple[str, Any]]) -> None:
    world = World()
    for what, argument in steps:
        match what:
            case "add":
                world.add(argument)
            case "rewrite":
                world.rewrite(argument)
            case "frontier":
                world.pass_frontier(argument)
            case "deletions":
                world.end_deletions(argument)
            case "trim":
                world.trim(argument)
            case _:
                world.reload()
        world.check()


def test_what_is_moved_is_paid_for_by_what_is_freed() -> None:
    """Over any run, no more messages are written again than were dropped for it."""
    world = World()
    moved = dropped = 0
    for n in range(300):
        world.add([("abcdef"[(n * k) % 6], b"x") for k in range(1, 6)])
        stored = world.compaction.take_due()
        while stored is not None:
            assert isinstance(stored.batch, bytes)
            columns = batches.decode(stored.batch)
            runs = world.compaction.live_runs(stored)
            moved += stored.live
            dropped += stored.end - stored.first - stored.live
            world._replace(stored, columns, runs)
            stored = world.compaction.take_due()
        assert world.log.messages <= 2 * 6 + 5
    assert 0 < moved <= dropped
