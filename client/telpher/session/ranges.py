"""Sets of offsets as sorted ranges: what is held, acked or lost, without an object per message."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain


class RangeSet:
    """A set of offsets kept as disjoint, ascending ranges, each end exclusive.

    >>> held = RangeSet()
    >>> held.add(0, 5); held.remove(1, 2); held.flat()
    (0, 1, 2, 5)
    """

    __slots__ = ("_ends", "_firsts")

    def __init__(self, offsets: tuple[int, ...] = ()) -> None:
        self._firsts: list[int] = list(offsets[::2])
        self._ends: list[int] = list(offsets[1::2])

    def add(self, first: int, end: int) -> None:
        """Put the offsets `first` to `end` (exclusive) in."""
        ends = self._ends
        if not ends or first > ends[-1]:
            self._firsts.append(first)
            ends.append(end)
            return
        low = bisect_left(ends, first)
        high = bisect_right(self._firsts, end)
        if low < high:
            first = min(first, self._firsts[low])
            end = max(end, ends[high - 1])
        self._firsts[low:high] = [first]
        ends[low:high] = [end]

    def remove(self, first: int, end: int) -> None:
        """Take the offsets `first` to `end` (exclusive) out; those that are not in are no error."""
        low = bisect_right(self._ends, first)
        high = bisect_left(self._firsts, end)
        if low >= high:
            return
        kept_firsts, kept_ends = [], []
        if self._firsts[low] < first:
            kept_firsts.append(self._firsts[low])
            kept_ends.append(first)
        if self._ends[high - 1] > end:
            kept_firsts.append(end)
            kept_ends.append(self._ends[high - 1])
        self._firsts[low:high] = kept_firsts
        self._ends[low:high] = kept_ends

    def add_all(self, offsets: tuple[int, ...]) -> None:
        """Put a flat row of ranges in."""
        for first, end in zip(offsets[::2], offsets[1::2], strict=True):
            self.add(first, end)

    def remove_all(self, offsets: tuple[int, ...]) -> None:
        """Take a flat row of ranges out."""
        for first, end in zip(offsets[::2], offsets[1::2], strict=True):
            self.remove(first, end)

    def intersection(self, offsets: tuple[int, ...]) -> RangeSet:
        """What of a flat row of ranges is in, as another set."""
        firsts, ends = self._firsts, self._ends
        both = RangeSet()
        for first, end in zip(offsets[::2], offsets[1::2], strict=True):
            low = bisect_right(ends, first)
            high = bisect_left(firsts, end)
            for index in range(low, high):
                both.add(max(first, firsts[index]), min(end, ends[index]))
        return both

    def clear(self) -> None:
        """Take everything out."""
        self._firsts.clear()
        self._ends.clear()

    def copy(self) -> RangeSet:
        """Another set with the same offsets."""
        return RangeSet(self.flat())

    def flat(self) -> tuple[int, ...]:
        """The ranges as the row that travels: `(first, end, first, end, ...)`."""
        return tuple(chain.from_iterable(self))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._ends, strict=True)

    def __contains__(self, offset: int) -> bool:
        index = bisect_right(self._firsts, offset) - 1
        return index >= 0 and offset < self._ends[index]

    def __bool__(self) -> bool:
        return bool(self._ends)

    def __len__(self) -> int:
        """How many offsets are in."""
        return sum(self._ends) - sum(self._firsts)

    def __repr__(self) -> str:
        return f"RangeSet({self.flat()})"
