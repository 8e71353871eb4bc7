"""How a snapshot is cut into chunks: what all that write some of it share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

# A chunk has at most so many rows, and little more bytes of batches than this.
CHUNK_ROWS: Final = 4096
CHUNK_BYTES: Final = 256 * 1024

Row = TypeVar("Row")


def grouped(rows: Iterable[Row], bytes_of: Callable[[Row], int]) -> Iterator[list[Row]]:
    """The rows in groups that make a chunk each."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += bytes_of(row)
        if size >= CHUNK_BYTES or len(group) >= CHUNK_ROWS:
            yield group
            group, size = [], 0
    if group:
        yield group
