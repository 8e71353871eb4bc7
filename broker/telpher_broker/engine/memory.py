"""Where the bytes of batches are: in memory, or only in the storage.

A batch is *spilled* when its bytes are dropped from memory and read back when somebody needs
them. What came first stays in memory: it is delivered first. A batch that comes when the bound
is reached is spilled as soon as its record is written, so nothing ever searches for a victim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self


class Place(Protocol):
    """Where the storage keeps a run of bytes. The engine passes it on and does not look inside."""

    @property
    def length(self) -> int:
        """How many bytes."""

    def part(self, at: int, data: bytes) -> Self:
        """Where `data` is, which lies `at` bytes into this run."""

    def moved(self, into: Self, at: int) -> Self:
        """Where the same bytes are in another run, `at` bytes into it."""


Batch = bytes | Place
# Gives back the bytes at one of the storage's places.
Read = Callable[[Any], bytes]


def size_of(batch: Batch) -> int:
    """How many bytes a batch has, wherever they are."""
    return len(batch) if isinstance(batch, bytes) else batch.length


class Account:
    """How many bytes of batches a group of logs holds."""

    __slots__ = ("body_bytes",)

    def __init__(self) -> None:
        self.body_bytes = 0


class Memory:
    """What the batches of all logs come to, and how many bytes of them may stay in memory.

    `body_bytes` counts all of them, `memory_bytes` those in memory. `limit_bytes` None: all stay;
    ones smaller than `spill_bytes_min` always do, as a place takes no less memory than they.
    """

    __slots__ = ("_last", "_limit_bytes", "_read", "_spill_bytes_min", "body_bytes", "memory_bytes")

    def __init__(
        self,
        limit_bytes: int | None = None,
        spill_bytes_min: int = 0,
        read: Read | None = None,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._spill_bytes_min = spill_bytes_min
        self.body_bytes = 0
        self.memory_bytes = 0
        self._read = read
        self._last: tuple[Place | None, bytes] = (None, b"")

    @property
    def is_over(self) -> bool:
        """Whether more is in memory than may stay there."""
        return self._limit_bytes is not None and self.memory_bytes > self._limit_bytes

    def spills(self, batch: bytes) -> bool:
        """Whether this batch, just added, is to leave memory."""
        return self.is_over and len(batch) >= self._spill_bytes_min

    def load(self, batch: Batch) -> bytes:
        """The bytes of a batch; the last one read is at hand, for many subscribers of a topic."""
        if isinstance(batch, bytes):
            return batch
        assert self._read is not None
        if self._last[0] is not batch:
            self._last = (batch, self._read(batch))
        return self._last[1]
