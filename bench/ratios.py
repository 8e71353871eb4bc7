"""Telpher's figures over everybody else's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .rows import Row
from .workload import Workload


@dataclass(frozen=True)
class Ratio:
    """How many times better Telpher's figure is (below 1: worse)."""

    case: str
    body_bytes: int
    against: str
    times: float

    def to_text(self) -> str:
        """One line for a person."""
        return f"{self.case}, {self.body_bytes} B: {self.times:.2f} x {self.against}"


def ratios(workload: Workload, rows: Sequence[Row]) -> Iterator[Ratio]:
    """For each of Telpher's rows and each other system that did the same, or its only case."""
    others = list(dict.fromkeys(row.system for row in rows if row.system != "telpher"))
    for row in rows:
        if row.system != "telpher":
            continue
        for other in others:
            peer = _counterpart(row, [one for one in rows if one.system == other])
            if peer is None:
                continue
            mine, theirs = row.figures[workload.figure], peer.figures.get(workload.figure)
            if theirs:
                times = mine / theirs if workload.more_is_better else theirs / mine
                yield Ratio(row.case, row.body_bytes, other, times)


def _counterpart(row: Row, theirs: list[Row]) -> Row | None:
    same_size = [one for one in theirs if one.body_bytes == row.body_bytes]
    for one in same_size:
        if one.case == row.case:
            return one
    return same_size[0] if len(same_size) == 1 and row.workload == "queue" else None
