"""Names are safe in a path, a log line and a terminal; offsets name each message once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol.frames import flatten, pairs
from telpher.protocol.names import is_name, why_not_name

CALM = settings(deadline=None, derandomize=True, max_examples=500)


@pytest.mark.parametrize("name", ["a", "orders.eu.paid", "A-b_9", "-", "x" * 255])
def test_good(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "a.", ".a", "a..b", "../a", "a/b", "a\n", "a\x1b[1m", "a b", "é", "a*", "x" * 256],
)
def test_bad(name: str) -> None:
    assert not is_name(name)
    assert why_not_name(name).isprintable()
    assert len(why_not_name(name)) < 400


@CALM
@given(st.text(max_size=300))
def test_a_name_is_words(text: str) -> None:
    words = text.split(".")
    good = all(re.fullmatch("[A-Za-z0-9_-]+", word, re.ASCII) for word in words)
    assert is_name(text) == (good and len(text) <= 255)
    assert why_not_name(text).isprintable()


@CALM
@given(st.lists(st.integers(-2, 40), max_size=8).map(tuple))
def test_an_accepted_row_names_each_offset_once(row: tuple[int, ...]) -> None:
    try:
        ranges = pairs(row)
    except ValueError:
        return
    assert flatten(ranges) == row
    named = [offset for first, end in ranges for offset in range(first, end)]
    assert named == sorted(set(named))
    assert all(offset >= 0 for offset in named)
    assert all(first < end for first, end in ranges)


@pytest.mark.parametrize("row", [(1,), (1, 1), (2, 1), (0, 2, 1, 3), (-1, 2), (0, True), ("a",)])
def test_bad_rows(row: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        pairs(row)
