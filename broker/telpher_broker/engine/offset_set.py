"""A set of offsets as disjoint, ascending ranges, for what is rare and mostly added at the end."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class OffsetSet:
    """Ranges never touch: neighbours are one range."""

    __slots__ = ("_ends", "_firsts")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._ends, strict=True)

    def __bool__(self) -> bool:
        return bool(self._ends)

    def add(self, first: int, end: int) -> None:
        """Put `first` to `end` (exclusive) in."""
        low, high = bisect_left(self._ends, first), bisect_right(self._firsts, end)
        if low < high:
            first, end = min(first, self._firsts[low]), max(end, self._ends[high - 1])
        self._firsts[low:high] = [first]
        self._ends[low:high] = [end]

    def keep(self, first: int, end: int) -> None:
        """Take out what is before `first`, or at `end` or behind."""
        low, high = bisect_right(self._ends, first), bisect_left(self._firsts, end)
        self._firsts, self._ends = self._firsts[low:high], self._ends[low:high]
        if self._ends:
            self._firsts[0] = max(self._firsts[0], first)
            self._ends[-1] = min(self._ends[-1], end)

    def outside(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """What of `first` to `end` is not in."""
        index = bisect_right(self._ends, first)
        while index < len(self._ends) and self._firsts[index] < end:
            if first < self._firsts[index]:
                yield first, self._firsts[index]
            first = self._ends[index]
            index += 1
        if first < end:
            yield first, end
