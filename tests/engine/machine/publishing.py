"""Publishing, alone, in turn, under a number, and in a transaction."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from telpher.protocol import frames as f

from ..driver import make_batch
from ..model import Consumer, row_of
from .base import Machine, exchanges, pick, sources

properties = st.one_of(
    st.none(),
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "priority": st.integers(0, 2),
            "delay_ms": st.sampled_from([0, 300, 2000]),
            "ttl_ms": st.sampled_from([200, 1500, 4000]),
            "mandatory": st.just(1),
        },
    ),
)
producers = st.sampled_from([None, None, b"p" * 16, b"q" * 16])
KEYS = [None, "eu", "eu.paid", "x"]
keys = st.sampled_from(KEYS)
headers = st.sampled_from([None, {"a": "1"}, {"a": "1", "b": "2"}, {"b": "2", "c": True}])
# Of the messages of a batch in turn: key and headers.
Row = tuple[str | None, dict[str, Any] | None]
Rows = list[Row] | None
row = st.tuples(keys, headers)
rows = st.none() | st.lists(row, min_size=1, max_size=3)


class Publishing(Machine):
    @rule(which=pick, name=sources, count=st.integers(1, 4), properties=properties, rows=rows)
    def publish(
        self, which: int, name: str, count: int, properties: dict[str, int] | None, rows: Rows
    ) -> None:
        self._publish(which, name, count, properties, rows)

    @rule(which=pick, name=sources, counts=st.lists(st.integers(1, 3), min_size=1, max_size=4))
    def publish_plainly(self, which: int, name: str, counts: list[int]) -> None:
        for count in counts:
            self._publish(which, name, count)

    @precondition(lambda self: self.model.exchanges)
    @rule(which=pick, name=exchanges, rows=st.lists(row, min_size=3, max_size=6))
    def publish_routed(self, which: int, name: str, rows: list[Row]) -> None:
        self._publish(which, name, len(rows), None, rows)

    @rule(
        which=pick,
        name=sources,
        producer=producers,
        sequence=st.integers(1, 9),
        confirm=st.sampled_from([None, 0, 1, 2]),
        full=st.sampled_from([False, False, False, True]),
        rows=rows,
    )
    def publish_numbered(
        self,
        which: int,
        name: str,
        producer: bytes | None,
        sequence: int,
        confirm: int | None,
        full: bool,
        rows: Rows = None,
    ) -> None:
        self.fill(full)
        self._publish(which, name, 2, None, rows, producer, sequence, confirm)
        self.fill(False)

    def fill(self, full: bool) -> None:
        """The disk is full, or not any more."""
        self.model.is_full = full
        self.driver.engine.set_disk_full(full)

    def _publish(
        self,
        which: int,
        name: str,
        count: int,
        properties: dict[str, int] | None = None,
        rows: Rows = None,
        producer: bytes | None = None,
        sequence: int = 0,
        confirm: int | None = None,
    ) -> None:
        session, request = self.session(which), self.driver.request()
        batch = self.batch(name, count, properties, rows)
        frame = f.Publish(request, name, producer, sequence, confirm, batch)
        self.model.publish(session, frame)
        self.done(self.driver.send(session, frame))

    def batch(
        self, name: str, count: int, properties: dict[str, int] | None = None, rows: Rows = None
    ) -> bytes:
        """Of bodies that are there once.

        What goes out of a bounded channel by its age is there or not when another goes for its
        number: that is left to the engine, and so nothing there expires.
        """
        channel = self.model.channels.get(name)
        if properties is not None and (channel is None or channel.is_bounded):
            properties = {k: v for k, v in properties.items() if k != "ttl_ms"}
        bodies = [b"%s-%d" % (name.encode(), self.bodies + n) for n in range(count)]
        self.bodies += count
        columns = {}
        if rows is not None:
            of_each = [rows[n % len(rows)] for n in range(count)]
            columns["keys"] = tuple(key for key, _ in of_each)
            columns["headers"] = tuple(one for _, one in of_each)
        return make_batch(bodies, properties, **columns)

    @rule(
        which=pick,
        parts=st.lists(st.tuples(pick, st.integers(0, 4), st.booleans()), max_size=2),
        into=st.lists(st.tuples(sources, rows), min_size=1, max_size=3),
        sequence=st.integers(1, 9),
        full=st.sampled_from([False, False, False, False, True]),
    )
    def transact(
        self,
        which: int,
        parts: list[tuple[int, int, bool]],
        into: list[tuple[str, Rows]],
        sequence: int,
        full: bool,
    ) -> None:
        """Acknowledge what consumers of one connection hold, or not quite, and publish."""
        session = self.session(which)
        mine = [consumer for consumer in self.model.consumers() if consumer.session == session]
        settles: dict[Consumer, set[int]] = {}
        for number, count, is_held in parts if mine else ():
            consumer = mine[number % len(mine)]
            offsets = set(consumer.sub.held(consumer)[:count]) | (set() if is_held else {count})
            if offsets:
                settles[consumer] = offsets
        publishes = tuple((name, self.batch(name, 3, None, rows)) for name, rows in into)
        held = tuple((consumer.request, row_of(offsets)) for consumer, offsets in settles.items())
        frame = f.Transact(self.driver.request(), b"x" * 16, sequence, None, held, publishes)
        self.fill(full)
        self.model.transact(session, frame, settles)
        self.done(self.driver.send(session, frame))
        self.fill(False)
