"""A set of ranges is the same as a set of offsets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from telpher.protocol.frames import pairs
from telpher.session.ranges import RangeSet

spans = st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda s: (s[0], s[0] + s[1]))
steps = st.lists(st.tuples(st.sampled_from(["add", "remove"]), spans), max_size=30)


@given(steps, spans)
def test_any_steps_leave_the_set_that_a_set_would_be(steps, other):
    ranges, model = RangeSet(), set()
    for action, (first, end) in steps:
        getattr(ranges, action)(first, end)
        change = set(range(first, end))
        model = model | change if action == "add" else model - change
        found = [offset for pair in pairs(ranges.flat()) for offset in range(*pair)]
        assert found == sorted(model)
        assert len(ranges) == len(model)
        assert bool(ranges) == bool(model)
    assert {offset for offset in range(60) if offset in ranges} == model
    both = ranges.intersection(other)
    assert {offset for pair in both for offset in range(*pair)} == model & set(range(*other))


def test_neighbours_join():
    ranges = RangeSet()
    ranges.add(0, 3)
    ranges.add(5, 7)
    ranges.add(3, 5)
    assert ranges.flat() == (0, 7)
