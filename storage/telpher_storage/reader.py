"""Reading the blocks of one file: big reads, one check per byte, and what is wrong where.

`BlockReader.blocks` yields what is intact, in order, and stops at the end or at the first damage,
which it leaves in `damage`. What the damage means is decided in recovery.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from google_crc32c import value as crc32c

from .api import Entry, Position
from .block import (
    ENTRY_BYTES,
    HEADER_BYTES,
    HEADER_BYTES_MIN,
    MAGIC,
    BlockHeader,
    decode_header,
    decode_table,
)
from .file_header import FILE_HEADER_BYTES
from .files import Files

READ_BYTES = 1024 * 1024


class Block(NamedTuple):
    """What an append wrote: the header, and the records with where they lie."""

    header: BlockHeader
    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class Damage:
    """The first bytes that are not a block in its place.

    `record` is the number of the record that should begin there. `certain`: no crash leaves
    this, so it is damage wherever it lies. `gap`: the block is intact, but comes too late.
    """

    file: str
    offset: int
    record: int
    text: str
    certain: bool = False
    gap: bool = False


class BlockReader:
    """One open data file. `expected` is the number of the next record (or chunk)."""

    def __init__(
        self,
        files: Files,
        fd: int,
        name: str,
        directory: bytes,
        generation: int,
        epoch_max: int,
    ) -> None:
        self.name = name
        self.size = files.size(fd)
        self.damage: Damage | None = None
        self.offset = FILE_HEADER_BYTES
        self.expected = 0
        self.epoch = 0
        self._epoch_max = epoch_max
        self._files = files
        self._fd = fd
        self._directory = directory
        self.generation = generation
        self._buffer = b""
        self._buffer_offset = 0

    def data(self, offset: int, length_bytes: int) -> int:
        """Load these bytes if they are in the file; returns where they start in the buffer."""
        at = offset - self._buffer_offset
        if at < 0 or at + length_bytes > len(self._buffer):
            wanted = max(length_bytes, READ_BYTES)
            self._buffer = self._files.read(self._fd, wanted, offset)
            self._buffer_offset = offset
            return 0
        return at

    def blocks(self, end: int | None = None) -> Iterator[Block]:
        """Each intact block from `offset` on. `offset` and `expected` follow."""
        end = self.size if end is None else end
        while self.offset < end and self.damage is None:
            header = self.header_at(self.offset)
            if header is None:
                self._damaged("no intact block header")
                return
            wrong = self._misplaced(header)
            if wrong is not None:
                self._damaged(wrong, certain=True)
                return
            if self._gap(header):
                return
            entries = self._entries(header)
            if entries is None:
                self._damaged("the block's content does not match its checksums")
                return
            self.epoch = header.epoch
            self.offset += header.block_bytes
            self.expected += header.record_count
            yield Block(header, entries)

    def header_at(self, offset: int) -> BlockHeader | None:
        at = self.data(offset, HEADER_BYTES)
        return decode_header(self._buffer, at)

    def _misplaced(self, header: BlockHeader) -> str | None:
        """Why an intact header cannot be in this place, whatever crashed."""
        if header.directory != self._directory:
            return "a block of another directory lies here"
        if header.generation != self.generation:
            return f"a block of file {header.generation} lies here"
        if header.offset != self.offset:
            return f"the block that belongs at byte {header.offset} lies here"
        if header.epoch < self.epoch:
            return f"a block of epoch {header.epoch} follows one of epoch {self.epoch}"
        if header.epoch > self._epoch_max:
            return (
                f"a block of epoch {header.epoch} lies here; the manifest knows {self._epoch_max}"
            )
        at_start = self.offset == FILE_HEADER_BYTES
        if header.first_record < self.expected or (
            header.first_record > self.expected and not at_start
        ):
            return f"record {header.first_record} lies where {self.expected} belongs"
        return None

    def _gap(self, header: BlockHeader) -> bool:
        """The first block of a file may come after records that an earlier file has lost."""
        if header.first_record == self.expected:
            return False
        text = f"records {self.expected} to {header.first_record - 1} are missing before it"
        self.damage = Damage(self.name, self.offset, self.expected, text, gap=True)
        return True

    def _damaged(self, text: str, certain: bool = False) -> None:
        self.damage = Damage(self.name, self.offset, self.expected, text, certain)

    def _entries(self, header: BlockHeader) -> list[Entry] | None:
        """The records of the block at `offset`; None unless all of them are intact."""
        length = header.block_bytes
        if self.offset + length > self.size:
            return None
        at = self.data(self.offset, length)
        buffer = self._buffer
        at += header.header_bytes
        table = decode_table(header, buffer, at)
        if table is None:
            return None
        start = at + ENTRY_BYTES * header.record_count
        shift = self._buffer_offset
        generation = self.generation
        entries: list[Entry] = []
        pairs = iter(table)
        for size, checksum in zip(pairs, pairs, strict=True):
            record = buffer[start : start + size]
            if crc32c(record) != checksum:
                return None
            entries.append((record, Position(generation, shift + start, size, checksum)))
            start += size
        return entries

    def resume(self) -> bool:
        """Go on behind the damage, at the next block that is in its place; False if none is."""
        for place, header in self.intact_blocks_after(self.offset + 1):
            in_place = header.offset == place and header.generation == self.generation
            if in_place and header.first_record >= self.expected:
                self.offset, self.expected, self.damage = place, header.first_record, None
                return True
        return False

    def intact_blocks_after(self, offset: int) -> Iterator[tuple[int, BlockHeader]]:
        """Place and content of every intact header of this directory from `offset` on.

        Searches for the magic, so it goes on over any damage at the speed of a memory search.
        """
        while offset + HEADER_BYTES_MIN <= self.size:
            at = self.data(offset, HEADER_BYTES_MIN)
            found = self._buffer.find(MAGIC, at)
            if found < 0:
                offset = max(self._buffer_offset + len(self._buffer) - len(MAGIC) + 1, offset + 1)
                continue
            offset = self._buffer_offset + found
            header = self.header_at(offset)
            if header is not None and header.directory == self._directory:
                yield offset, header
            offset += 1
