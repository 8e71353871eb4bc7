"""The reserve: disk kept back, so that acknowledging goes on when the disk is full.

The file `reserve` holds nothing. When an append finds no space it is deleted and the append is
written again; it is made anew when there is room for it and as much again. A snapshot may have it
too: that makes room, or gives it back.
"""

from __future__ import annotations

from pathlib import Path

from .files import CREATE, NO_SPACE, READ, Files
from .manifest import remove_if_there

RESERVE = "reserve"


class Reserve:
    """`full` is what the broker asks; `bytes` is what the file holds now."""

    def __init__(self, files: Files, directory: Path, wanted_bytes: int) -> None:
        self.full = False
        self.bytes = 0
        self.free_bytes = 0
        self._files = files
        self._directory = directory
        self._wanted_bytes = wanted_bytes
        self._in_use = False
        self._total_bytes = 0

    @property
    def full_below_bytes(self) -> int | None:
        """The free disk below which it is full; None without a reserve."""
        return 2 * self._wanted - self.bytes if self._wanted else None

    @property
    def room_from_bytes(self) -> int | None:
        """The free disk from which on it is full no more; None as above."""
        return 3 * self._wanted - self.bytes if self._wanted else None

    @property
    def _wanted(self) -> int:
        """What is to be kept back of this disk."""
        return min(self._wanted_bytes, self._total_bytes // 8)

    def _look(self) -> None:
        self.free_bytes, self._total_bytes = self._files.space(self._directory)

    def poll(self) -> bool:
        """Make it if there is room, and find out whether the disk is full. Raises OSError."""
        self._look()
        wanted = self._wanted
        if not self._in_use:
            self._adopt(wanted)
        if self.bytes < wanted and self.free_bytes >= 2 * wanted:
            self._make(wanted)
        # It takes more to be over it than to be within it: so it does not flap.
        is_short = self.free_bytes < (2 * wanted if self.full else wanted)
        self.full = self.bytes < wanted or is_short
        return self.full

    def is_short(self) -> bool:
        """Whether `poll` would find the disk full. Raises OSError."""
        self._look()
        wanted = self._wanted
        left_bytes = self.free_bytes - (wanted - self.bytes)
        return left_bytes < (2 * wanted if self.full else wanted)

    def restore(self) -> None:
        """Make it anew where it was given away in vain, if there is room. Raises OSError."""
        self._look()
        wanted = self._wanted
        if self.bytes < wanted <= self.free_bytes:
            self._make(wanted)

    def _adopt(self, wanted: int) -> None:
        """Take over what an earlier run left, unless its size is not what is wanted now."""
        self._in_use = True
        path = self._directory / RESERVE
        try:
            fd = self._files.open(path, READ)
        except FileNotFoundError:
            return
        try:
            self.bytes = self._files.size(fd)
        finally:
            self._files.close(fd)
        if self.bytes != wanted:
            self.spend()

    def _make(self, wanted: int) -> None:
        path = self._directory / RESERVE
        remove_if_there(self._files, path)
        fd = self._files.open(path, CREATE)
        try:
            self._files.allocate(fd, wanted)
            self.bytes = wanted
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            remove_if_there(self._files, path)
        finally:
            self._files.close(fd)
        self._look()

    def spend(self) -> None:
        """Give its space to the log. Raises OSError."""
        self.full = True
        self.bytes = 0
        remove_if_there(self._files, self._directory / RESERVE)
        self._look()
