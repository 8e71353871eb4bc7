"""The trie of patterns against regular expressions, one for each pattern."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_broker.engine.routing.allowance import Allowance, TooMuchRouting
from telpher_broker.engine.routing.patterns import Patterns, matching, why_not_key_pattern

words = st.sampled_from(["a", "b", "c", ""])
keys = st.lists(words, max_size=6).map(".".join)
patterns = st.lists(st.sampled_from(["a", "b", "*", "*", "#", "#", ""]), max_size=6).map(".".join)
entries = st.tuples(patterns, st.integers(0, 3))


def as_expression(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression over a key whose every word is followed by a dot."""
    pieces = {"*": r"[^.]*\.", "#": r"(?:[^.]*\.)*"}
    each = pattern.split(".") if pattern else []
    return re.compile("".join(pieces.get(word, re.escape(word) + r"\.") for word in each))


def naively(entries: list[tuple[str, int]], key: str) -> set[int]:
    dotted = key + "." if key else ""
    return {value for pattern, value in entries if as_expression(pattern).fullmatch(dotted)}


@settings(deadline=None, derandomize=True, max_examples=400)
@given(st.lists(entries, max_size=12), st.lists(keys, min_size=1, max_size=5))
def test_a_key_finds_what_the_expressions_find(found: list[tuple[str, int]], keys: list[str]):
    trie: Patterns[int] = Patterns()
    for pattern, value in found:
        trie.add(pattern, value)
    for key in keys:
        assert set(trie.match(key)) == naively(found, key)
        assert all(matching(p)(key) == bool(naively([(p, v)], key)) for p, v in found)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(st.tuples(st.booleans(), entries), max_size=30), keys)
def test_what_is_removed_is_gone_and_leaves_nothing(steps, key: str):
    trie: Patterns[int] = Patterns()
    model: dict[tuple[str, int], None] = {}
    for is_added, entry in steps:
        if is_added:
            trie.add(*entry)
            model[entry] = None
        elif entry in model:
            trie.remove(*entry)
            del model[entry]
        else:
            with pytest.raises(KeyError):
                trie.remove(*entry)
    assert set(trie.match(key)) == naively(list(model), key)
    for entry in model:
        trie.remove(*entry)
    assert trie._root.is_empty


class CountedWord(str):
    """A word that counts how often it is hashed: once for each place that is asked for it."""

    hashed = 0
    __slots__ = ()

    def __hash__(self) -> int:
        CountedWord.hashed += 1
        return super().__hash__()

    __eq__ = str.__eq__


class CountedKey(str):
    """A key of such words."""

    __slots__ = ()

    def split(self, *_: object) -> list[CountedWord]:  # type: ignore[override]
        return list(map(CountedWord, str.split(self, ".")))


def looks(trie: Patterns[int], key: str) -> int:
    CountedWord.hashed = 0
    trie.match(CountedKey(key))
    return CountedWord.hashed


def test_the_time_does_not_grow_with_the_patterns_that_do_not_match():
    few, many = Patterns[int](), Patterns[int]()
    for number in range(20_000):
        for trie in (few, many) if number < 10 else (many,):
            trie.add(f"tenant-{number}.orders.*.#", number)
    assert looks(few, "tenant-7.orders.eu.paid") == looks(many, "tenant-7.orders.eu.paid") <= 5
    assert list(many.match("tenant-19999.orders.eu.paid")) == [19_999]


def test_many_wildcards_in_one_pattern_cost_no_more_than_its_length_for_each_word():
    trie: Patterns[int] = Patterns()
    trie.add(".".join(["#", "a"] * 60), 1)
    key = ".".join(["a"] * 500)
    assert trie.match(key) == {1: None}
    assert looks(trie, key) <= 121 * 500


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("a.b*", "'b\\*'"), ("##", "'##'"), ("a.#b.c", "'#b'"), ("x" * 256, "255 characters")],
)
def test_what_is_no_pattern_is_told(pattern: str, why: str):
    told = why_not_key_pattern(pattern)
    assert told is not None
    assert re.search(why, told)


def test_what_is_a_pattern():
    for text in ("", "a", "a.*", "#", "*.#.b", "a b.c"):
        assert why_not_key_pattern(text) is None


def test_no_more_is_looked_at_than_is_allowed() -> None:
    trie: Patterns[int] = Patterns()
    trie.add("#", 1)
    key = ".".join(["a"] * 20)
    # The place before the first word and the one behind '#', and that one again for each word.
    assert trie.match(key, Allowance(21)) == {1: None}
    with pytest.raises(TooMuchRouting, match="fewer '#'"):
        trie.match(key, Allowance(20))
