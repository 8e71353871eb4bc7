"""What no sync is proven to have covered: the blocks of a log at whose end a crash may have come.

A sync that fails leaves the system holding for written what it could not write, and the next sync
leaves it out, also that of another process. So recovery does not trust a sync for what it finds
there: it writes those bytes once more (`directory.settle_increment`). See decision 0024.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .block import BlockHeader

MARK_BYTES = 1024 * 1024


@dataclass(slots=True)
class _Mark:
    """Blocks of an increment next to each other: where they begin, and what follows the last."""

    generation: int
    offset: int
    end_record: int


class Unproven:
    """Fed with the headers of a log in order. It keeps a mark a mebibyte and not one a block."""

    def __init__(self, synced_record: int) -> None:
        self._synced_record = synced_record
        self._marks: deque[_Mark] = deque()

    def add(self, header: BlockHeader) -> None:
        """The next block: it tells what was synced before it, and nothing yet tells of it."""
        marks = self._marks
        end_record = header.first_record + header.record_count
        if marks and self._is_near(marks[-1], header):
            marks[-1].end_record = end_record
        else:
            marks.append(_Mark(header.generation, header.offset, end_record))
        self._synced_record = max(self._synced_record, header.synced_record)
        while marks and marks[0].end_record <= self._synced_record:
            marks.popleft()

    @staticmethod
    def _is_near(mark: _Mark, header: BlockHeader) -> bool:
        return mark.generation == header.generation and header.offset < mark.offset + MARK_BYTES

    def offset_in(self, generation: int) -> int | None:
        """Where the first of them begins in an increment; None if it has none."""
        return next((mark.offset for mark in self._marks if mark.generation == generation), None)
