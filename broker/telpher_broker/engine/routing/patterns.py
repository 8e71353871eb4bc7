"""Patterns: words joined by dots, where `*` stands for one word and `#` for any number of them.

A pattern is matched against a *key*, a text of words joined by dots; an empty key has no words, so
that only `#` matches it. Patterns stand in a trie, in which those that begin alike share their way:
a key is walked through it word by word, with the set of places reached so far, so that the time is
the key's words times the places that still match, whatever the number of patterns. (The simulation
of a nondeterministic automaton after Thompson, "Regular expression search algorithm", 1968: a place
is in the set once, so that a pattern of many `#` costs no more than its length for each word.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from .allowance import Allowance

ONE: Final = "*"
MANY: Final = "#"
PATTERN_BYTES_MAX: Final = 255
T = TypeVar("T")


def why_not_key_pattern(text: str) -> str | None:
    """What is wrong with `text` as a pattern of keys, for an error message; None if nothing is."""
    if len(text) > PATTERN_BYTES_MAX:
        return f"a pattern has at most {PATTERN_BYTES_MAX} characters, this one has {len(text)}"
    for word in words_of(text):
        if word not in (ONE, MANY) and (ONE in word or MANY in word):
            return f"{word!r:.80} is no word of a pattern: '*' and '#' stand for whole words"
    return None


def words_of(text: str) -> list[str]:
    """The words of a key or a pattern; none of an empty one."""
    return text.split(".") if text else []


def matching(pattern: str) -> Callable[[str], bool]:
    """What tells whether a key matches one pattern."""
    patterns: Patterns[None] = Patterns()
    patterns.add(pattern, None)
    return lambda key: bool(patterns.match(key))


class _Place(Generic[T]):
    """A place in the trie: what ends here, and where the next word leads.

    `loops` says that it was reached by `#`, and so is reached again by any word.
    """

    __slots__ = ("loops", "many", "one", "values", "words")

    def __init__(self, loops: bool = False) -> None:
        self.loops = loops
        self.values: dict[T, None] = {}
        self.words: dict[str, _Place[T]] = {}
        self.one: _Place[T] | None = None
        self.many: _Place[T] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no pattern leads here any more."""
        return not (self.values or self.words or self.one or self.many)

    def next(self, word: str) -> _Place[T] | None:
        """Where a pattern's word leads."""
        if word == ONE:
            return self.one
        return self.many if word == MANY else self.words.get(word)

    def lead(self, word: str, place: _Place[T] | None) -> None:
        """Let a pattern's word lead to `place`, or nowhere."""
        if word == ONE:
            self.one = place
        elif word == MANY:
            self.many = place
        elif place is not None:
            self.words[word] = place
        else:
            del self.words[word]


class Patterns(Generic[T]):
    """Values by pattern; several may have the same pattern, and one value several patterns."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: _Place[T] = _Place()

    def add(self, pattern: str, value: T) -> None:
        """Let `pattern` lead to `value` as well; a second time changes nothing."""
        place = self._root
        for word in words_of(pattern):
            following = place.next(word)
            if following is None:
                following = _Place(loops=word == MANY)
                place.lead(word, following)
            place = following
        place.values[value] = None

    def remove(self, pattern: str, value: T) -> None:
        """Let `pattern` not lead to `value` any more; raises KeyError if it does not."""
        words = words_of(pattern)
        way = [self._root]
        for word in words:
            following = way[-1].next(word)
            if following is None:
                raise KeyError(pattern)
            way.append(following)
        del way[-1].values[value]
        while words and way.pop().is_empty:
            way[-1].lead(words.pop(), None)

    def match(self, key: str, allowance: Allowance | None = None) -> dict[T, None]:
        """The values of all patterns that match `key`, each once, in no particular order.

        Raises TooMuchRouting when more places are reached than `allowance` has left."""
        reached: dict[_Place[T], None] = {}
        _reach(self._root, reached)
        for word in words_of(key):
            before, reached = reached, {}
            if allowance is not None:
                allowance.take(len(before))
            for place in before:
                if place.loops:
                    _reach(place, reached)
                following = place.words.get(word)
                if following is not None:
                    _reach(following, reached)
                if place.one is not None:
                    _reach(place.one, reached)
            if not reached:
                return {}
        return {value: None for place in reached for value in place.values}


def _reach(place: _Place[T] | None, reached: dict[_Place[T], None]) -> None:
    """Add a place, and those that it leads to without a word."""
    while place is not None and place not in reached:
        reached[place] = None
        place = place.many
