"""The ids that a channel remembers, so that a message that comes again is not stored again.

Ids are kept in the order in which they came, with the time of it: so what is to be forgotten
stands first, and neither a look-up nor forgetting walks over what stays. The design is that of
NATS JetStream's duplicate window, with one difference: it is durable.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple


class Remembered(NamedTuple):
    """The ids of messages from `first` on that came together; None for one without an id."""

    published_ms: int
    first: int
    ids: tuple[str | None, ...]


class DedupWindow:
    """Which ids came, and which offset each got."""

    __slots__ = ("_offsets", "_runs", "_start")

    def __init__(self) -> None:
        self._offsets: dict[str, int] = {}
        # From `_start` on, in order of time and of offset; together they hold every id of
        # `_offsets` once, and no other.
        self._runs: list[Remembered] = []
        self._start = 0

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest of them came, in ms since 1970."""
        return self._runs[self._start].published_ms if self._offsets else None

    @property
    def newest_ms(self) -> int | None:
        """When the newest of them came, in ms since 1970."""
        return self._runs[-1].published_ms if self._offsets else None

    def offset_of(self, dedup_id: str, until_ms: int) -> int | None:
        """The offset that the message of this id got, or None.

        What came at `until_ms` or before is to be forgotten and counts as that already.
        """
        offset = self._offsets.get(dedup_id)
        if offset is None or self._runs[self._start].published_ms > until_ms:
            return offset
        after = bisect_right(self._runs, offset, lo=self._start, key=lambda run: run.first)
        return offset if self._runs[after - 1].published_ms > until_ms else None

    def knows_any(self, ids: Iterable[str]) -> bool:
        """Whether one of these ids is there, be it to be forgotten."""
        return not self._offsets.keys().isdisjoint(ids)

    def remember(self, run: Remembered) -> None:
        """Add ids that are not there, at least one; no earlier run is younger."""
        offsets = self._offsets
        for offset, dedup_id in enumerate(run.ids, run.first):
            if dedup_id is not None:
                offsets[dedup_id] = offset
        self._runs.append(run)

    def forget(self, until_ms: int) -> None:
        """Forget what came at `until_ms` or before."""
        offsets, runs = self._offsets, self._runs
        start = self._start
        while start < len(runs) and runs[start].published_ms <= until_ms:
            for dedup_id in runs[start].ids:
                if dedup_id is not None:
                    del offsets[dedup_id]
            start += 1
        # The list is cut when half of it is behind: so each run is moved once at most, on average.
        if start * 2 > len(runs):
            del runs[:start]
            start = 0
        self._start = start

    def frozen(self) -> list[Remembered]:
        """What is remembered now, by reference: what happens later does not show in it."""
        return self._runs[self._start :]
