"""Criteria over a message's headers: which must be there and what they must be.

A criterion is a header's name and its value; None asks that the header is there at all. Values are
compared as what they are: true is not 1 and "1" is not 1, but 1 is 1.0. All criteria must hold, or
any one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from telpher.protocol.batch import HEADER_TYPES, KEY_BYTES_MAX

from .allowance import Allowance

ALL: Final = "all"
ANY: Final = "any"
CRITERIA_MAX: Final = 64
T = TypeVar("T")

Headers = Mapping[str, Any] | None
# A header as it is compared: its name, the kind of its value, its value.
Criterion = tuple[str, str, Any]

_KINDS: Final[dict[type[Any], str]] = {
    str: "text",
    bytes: "bytes",
    bool: "bool",
    int: "number",
    float: "number",
    type(None): "",
}


def criterion_of(name: str, value: Any) -> Criterion:
    """A header as it is compared; of the value None, that it is there."""
    return (name, _KINDS[type(value)], value)


class Criteria(NamedTuple):
    """What a message's headers must be, canonical: in order, and so equal where they mean the same.

    `criteria` is never empty.
    """

    match: str
    criteria: tuple[Criterion, ...]

    @classmethod
    def of(cls, wanted: Mapping[str, Any], match: str = ALL) -> Criteria:
        """Out of a map of headers that `why_not_criteria` has nothing against."""
        return cls(match, tuple(criterion_of(name, wanted[name]) for name in sorted(wanted)))

    @property
    def wanted(self) -> dict[str, Any]:
        """The map it was made of."""
        return {name: value for name, _, value in self.criteria}

    def holds(self, headers: Headers) -> bool:
        """Whether a message with these headers is meant."""
        if not headers:
            return False
        is_all = self.match == ALL
        for criterion in self.criteria:
            if _holds(headers, criterion) != is_all:
                return not is_all
        return is_all

    def unmatched(self, rows: Iterable[Headers]) -> tuple[int, ...]:
        """The indexes of rows that are not meant, as flat ranges."""
        found: list[int] = []
        for index, row in enumerate(rows):
            if not self.holds(row):
                if found and found[-1] == index:
                    found[-1] = index + 1
                else:
                    found += (index, index + 1)
        return tuple(found)


def _holds(headers: Mapping[str, Any], criterion: Criterion) -> bool:
    name, kind, wanted = criterion
    if name not in headers:
        return False
    value = headers[name]
    return not kind or (value == wanted and _KINDS[type(value)] == kind)


def why_not_criteria(wanted: Any, match: Any) -> str | None:
    """What is wrong with these as criteria, for an error message; None when nothing is."""
    if match not in (ALL, ANY):
        return f"match is {match!r:.40}; it may be 'all' or 'any'"
    if type(wanted) is not dict or not 0 < len(wanted) <= CRITERIA_MAX:
        return f"headers are a map of 1 to {CRITERIA_MAX} names with their values"
    for name, value in wanted.items():
        if type(name) is not str or type(value) not in HEADER_TYPES or value != value:
            return f"header {name!r:.40} is {value!r:.40}; it may be a plain value, or nil for any"
        if len(name) > KEY_BYTES_MAX or (
            type(value) in (str, bytes) and len(value) > KEY_BYTES_MAX
        ):
            return f"header {name!r:.40} is longer than {KEY_BYTES_MAX}"
    return None


class HeaderIndex(Generic[T]):
    """Values by criteria, found by the headers that they ask for.

    Where any criterion may hold, a value stands under each; where all must, under one, the one that
    the fewest others stand under, so that what nearly every message has is looked at last.
    """

    __slots__ = ("_places", "_under")

    def __init__(self) -> None:
        self._under: dict[Criterion, dict[tuple[Criteria, T], None]] = {}
        self._places: dict[tuple[Criteria, T], tuple[Criterion, ...]] = {}

    def add(self, criteria: Criteria, value: T) -> None:
        """Let `criteria` lead to `value` as well; a second time changes nothing."""
        entry = (criteria, value)
        if entry in self._places:
            return
        places = criteria.criteria
        if criteria.match == ALL:
            places = (min(places, key=lambda one: (not one[1], len(self._under.get(one, ())))),)
        self._places[entry] = places
        for place in places:
            self._under.setdefault(place, {})[entry] = None

    def remove(self, criteria: Criteria, value: T) -> None:
        """Let `criteria` not lead to `value` any more; raises KeyError if it does not."""
        entry = (criteria, value)
        for place in self._places.pop(entry):
            under = self._under[place]
            del under[entry]
            if not under:
                del self._under[place]

    def match(self, headers: Headers, allowance: Allowance | None = None) -> dict[T, None]:
        """The values of all criteria that hold, each once, in no particular order.

        Raises TooMuchRouting when more are looked at than `allowance` has left."""
        found: dict[T, None] = {}
        for name, value in (headers or {}).items():
            there, alike = (name, "", None), criterion_of(name, value)
            for place in (there,) if there == alike else (there, alike):
                under = self._under.get(place, {})
                if allowance is not None:
                    allowance.take(len(under))
                for criteria, target in under:
                    if target not in found and criteria.holds(headers):
                        found[target] = None
        return found
