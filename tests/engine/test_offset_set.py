"""A set of offsets is a set of integers, and no more ranges than it needs."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_broker.engine.offset_set import OffsetSet

spans = st.tuples(st.integers(0, 40), st.integers(1, 10)).map(lambda pair: (pair[0], sum(pair)))
steps = st.lists(st.tuples(st.sampled_from(["add", "add", "add", "keep"]), spans), max_size=20)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(steps, spans)
def test_it_is_a_set(steps: list[tuple[str, tuple[int, int]]], asked: tuple[int, int]) -> None:
    found, naive = OffsetSet(), set()
    for what, (first, end) in steps:
        getattr(found, what)(first, end)
        span = set(range(first, end))
        naive = naive | span if what == "add" else naive & span
        ranges = list(found)
        assert {offset for low, high in ranges for offset in range(low, high)} == naive
        assert all(a[1] < b[0] for a, b in pairwise(ranges))
        assert bool(found) == bool(naive)
    outside = {offset for low, high in found.outside(*asked) for offset in range(low, high)}
    assert outside == set(range(*asked)) - naive
