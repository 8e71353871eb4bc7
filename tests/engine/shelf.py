"""What a storage is to the engine: places, and the bytes that lie there until they are released."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spot:
    """A place: so many bytes of one of the shelf's files."""

    shelf: Shelf
    file: int
    offset: int
    length: int

    def part(self, at: int, data: bytes) -> Spot:
        spot = Spot(self.shelf, self.file, self.offset + at, len(data))
        assert self.offset + self.length >= spot.offset + spot.length
        assert self.shelf.read(spot) == data
        return spot

    def moved(self, into: Spot, at: int) -> Spot:
        spot = Spot(into.shelf, into.file, into.offset + at, self.length)
        assert into.shelf.read(spot) == self.shelf.read(self)
        return spot


def read(spot: Spot) -> bytes:
    """The bytes at a spot, for the engine."""
    assert spot.shelf.is_readable, "the storage is not recovered yet"
    return spot.shelf.read(spot)


class Shelf:
    """Files of bytes; reading from a released one fails."""

    def __init__(self) -> None:
        self._files = [bytearray()]
        self._first = 0
        self.is_readable = True

    def keep(self, pieces: Iterable[bytes]) -> list[Spot]:
        """Append to the current file; where each piece lies."""
        number = self._first + len(self._files) - 1
        spots = []
        for piece in pieces:
            spots.append(Spot(self, number, len(self._files[-1]), len(piece)))
            self._files[-1] += piece
        return spots

    def cut(self) -> None:
        """Begin a new file."""
        self._files.append(bytearray())

    def release(self) -> None:
        """Forget all files but the current one."""
        self._first += len(self._files) - 1
        del self._files[:-1]

    def read(self, spot: Spot) -> bytes:
        """The bytes at a spot."""
        assert spot.file >= self._first, "it was released"
        data = self._files[spot.file - self._first][spot.offset :][: spot.length]
        assert len(data) == spot.length
        return bytes(data)
