"""Ordered collections against a sorted list, over the length at which they change their kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telpher_broker.engine import ordered
from telpher_broker.engine.ordered import LIST_MAX, Ordered


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_it_is_what_a_sorted_list_is(steps: list[tuple[bool, int]]) -> None:
    items: Ordered[int] = ()
    expected: list[int] = []
    for adds, number in steps:
        if adds:
            items = ordered.add(items, number)
            expected = sorted([*expected, number])
        elif number in expected:
            items = ordered.remove(items, number)
            expected.remove(number)
        else:
            with pytest.raises(ValueError, match="not"):
                ordered.remove(items, number)
        assert list(items) == expected
        assert ordered.after(items, number) == sum(item <= number for item in expected)


def test_it_changes_its_kind_at_its_bounds_and_stays_right() -> None:
    items: Ordered[int] = ()
    for number in range(LIST_MAX + 1):
        assert isinstance(items, list) or number == 0
        items = ordered.add(items, LIST_MAX - number)
    assert not isinstance(items, list)
    assert list(items) == list(range(LIST_MAX + 1))
    assert ordered.after(items, 7) == 8
    with pytest.raises(ValueError, match="not"):
        ordered.remove(items, -1)
    for number in range(LIST_MAX + 1):
        items = ordered.remove(items, number)
    assert items == ()


@given(st.lists(st.integers(0, 30), unique=True), st.integers(0, 30), st.integers(0, 30))
def test_parts_of_it_come_out(numbers: list[int], first: int, end: int) -> None:
    items: Ordered[int] = ()
    for number in numbers:
        items = ordered.add(items, number)
    assert ordered.has(items, first) == (first in numbers)
    gone, items = ordered.split_out(items, first, max(first, end))
    assert gone == sorted(n for n in numbers if first <= n < end)
    rest = sorted(set(numbers) - set(gone))
    for number in rest:
        least, items = ordered.pop_first(items)
        assert least == number
    assert items == ()


def test_parts_of_a_long_one_come_out() -> None:
    items: Ordered[int] = ()
    for number in range(3 * LIST_MAX):
        items = ordered.add(items, number)
    assert ordered.has(items, LIST_MAX)
    gone, items = ordered.split_out(items, 5, 3 * LIST_MAX - 1)
    assert gone == list(range(5, 3 * LIST_MAX - 1))
    assert not ordered.has(items, LIST_MAX)
    assert ordered.pop_first(items) == (0, items)
    assert list(items) == [1, 2, 3, 4, 3 * LIST_MAX - 1]


@pytest.mark.parametrize("size", [0, 1, 5, LIST_MAX, LIST_MAX + 1])
@pytest.mark.parametrize("more", [[7], [5, 3, -1, 10**6], list(range(2000, 2000 + LIST_MAX))])
def test_many_come_in_at_once(size: int, more: list[int]) -> None:
    items: Ordered[float] = ()
    for number in range(size):
        items = ordered.add(items, number + 0.5)
    items = ordered.add_all(items, more)
    assert list(items) == sorted([number + 0.5 for number in range(size)] + more)
    assert isinstance(items, list) == (size + len(more) <= LIST_MAX)
