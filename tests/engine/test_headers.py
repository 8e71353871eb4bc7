"""Criteria over headers against the plain reading of them, and the index against all of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_broker.engine.routing.headers import ALL, ANY, Criteria, HeaderIndex, why_not_criteria

names = st.sampled_from(["region", "kind", "size"])
values = st.sampled_from(["eu", "us", b"eu", 1, 1.0, 2, True, False, None, 0])
headers = st.none() | st.dictionaries(names, values, max_size=3)
wanted = st.dictionaries(names, values, min_size=1, max_size=3)
criteria = st.builds(Criteria.of, wanted, st.sampled_from([ALL, ANY]))
entries = st.tuples(criteria, st.integers(0, 3))


def naively(one: Criteria, row: dict[str, Any] | None) -> bool:
    def holds(name: str, value: Any) -> bool:
        if row is None or name not in row:
            return False
        if value is None:
            return True
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        found = row[name]
        if is_number:
            return isinstance(found, (int, float)) and type(found) is not bool and found == value
        return type(found) is type(value) and found == value

    results = [holds(name, value) for name, value in one.wanted.items()]
    return all(results) if one.match == "all" else any(results)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(criteria, headers)
def test_criteria_hold_as_they_are_read(one: Criteria, row: dict[str, Any] | None):
    assert one.holds(row) == naively(one, row)


@settings(deadline=None, derandomize=True, max_examples=400)
@given(st.lists(st.tuples(st.booleans(), entries), max_size=20), st.lists(headers, max_size=4))
def test_the_index_finds_what_holds(steps, rows):
    index: HeaderIndex[int] = HeaderIndex()
    model: dict[tuple[Criteria, int], None] = {}
    for is_added, entry in steps:
        if is_added:
            index.add(*entry)
            model[entry] = None
        elif entry in model:
            index.remove(*entry)
            del model[entry]
        else:
            with pytest.raises(KeyError):
                index.remove(*entry)
    for row in rows:
        assert set(index.match(row)) == {value for one, value in model if naively(one, row)}
    for entry in model:
        index.remove(*entry)
    assert not index._under


def test_what_all_messages_have_is_not_what_is_looked_under():
    index: HeaderIndex[int] = HeaderIndex()
    for number in range(1000):
        index.add(Criteria.of({"a": "order", "customer": number}), number)
    assert max(map(len, index._under.values())) <= 2
    assert index.match({"a": "order", "customer": 7}) == {7: None}


def test_criteria_that_mean_the_same_are_equal():
    assert Criteria.of({"a": 1, "b": None}) == Criteria.of({"b": None, "a": 1.0})
    assert Criteria.of({"a": 1}) != Criteria.of({"a": True})
    assert Criteria.of({"b": 2, "a": 1}, ANY).wanted == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("given", "match", "why"),
    [
        ({"a": 1}, "some", "'some'"),
        ({}, "all", "1 to 64"),
        ([], "all", "1 to 64"),
        ({"a": []}, "all", "plain value"),
        ({1: "a"}, "any", "plain value"),
        ({"a": float("nan")}, "any", "plain value"),
        ({"a": "x" * 1025}, "all", "longer"),
        ({str(n): 1 for n in range(65)}, "all", "1 to 64"),
    ],
)
def test_what_are_no_criteria_is_told(given: Any, match: Any, why: str):
    assert why in (why_not_criteria(given, match) or "")


def test_what_are_criteria():
    assert why_not_criteria({"a": 1, "b": None, "c": b"x", "d": True, "e": 0.5}, "any") is None
