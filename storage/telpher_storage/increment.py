"""An increment: one append-only file of blocks.

It only grows, except that a block that found no space is taken back before anything else is
written. It does not sync: the storage decides when, in which thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from google_crc32c import value as crc32c

from .api import Position
from .block import (
    BLOCK_VERSION,
    HEADER_BYTES,
    MAX_BODY_BYTES,
    BlockHeader,
    encode_header,
    encode_table,
)
from .file_header import (
    INCREMENT,
    VERSION,
    FileHeader,
    encode_file_header,
    increment_name,
)
from .files import APPEND, CREATE, Files
from .manifest import write_all

JOIN_BYTES_MAX = 32 * 1024  # below it one joined write is cheaper than writev; see decision 0012
PARTS_MAX = 512  # of IOV_MAX, which is 1024 on Linux and macOS

_new = tuple.__new__  # makes a Position without the keyword handling of its constructor


class Increment:
    """An increment open for appending. `size` is its length in bytes."""

    def __init__(self, files: Files, fd: int, directory: bytes, generation: int) -> None:
        self.generation = generation
        self.fd = fd
        self.size = files.size(fd)
        self._files = files
        self._directory = directory

    @classmethod
    def create(cls, files: Files, path: Path, directory: bytes, generation: int) -> Increment:
        """A new one, empty, on the disk, its name as well. Raises OSError."""
        fd = files.open(path / increment_name(generation), CREATE)
        try:
            header = FileHeader(INCREMENT, VERSION, directory, generation, 0)
            write_all(files, fd, encode_file_header(header))
            files.sync_data(fd)
            files.sync_directory(path)
            return cls(files, fd, directory, generation)
        except BaseException:
            files.close(fd)
            raise

    @classmethod
    def reopen(cls, files: Files, path: Path, directory: bytes, generation: int) -> Increment:
        """One that recovery has read through, to be appended to. Raises OSError."""
        fd = files.open(path / increment_name(generation), APPEND)
        return cls(files, fd, directory, generation)

    def encode(
        self, records: Sequence[bytes], first: int, synced: int, epoch: int, time_ms: int
    ) -> tuple[list[bytes], list[Position]]:
        """The parts of the next block in order, and where each record will lie."""
        table, checksums = encode_table(records)
        body_bytes = len(table) + sum(map(len, records))
        if body_bytes > MAX_BODY_BYTES:
            raise ValueError(f"a block of {body_bytes} bytes is over the limit of 4 GiB")
        header = encode_header(
            BlockHeader(
                BLOCK_VERSION,
                self._directory,
                self.generation,
                epoch,
                self.size,
                first,
                synced,
                time_ms,
                len(records),
                body_bytes,
                crc32c(table),
            )
        )
        offset = self.size + HEADER_BYTES + len(table)
        positions = []
        for record, checksum in zip(records, checksums, strict=True):
            length = len(record)
            positions.append(_new(Position, (self.generation, offset, length, checksum)))
            offset += length
        return [header, table, *records], positions

    def write(self, parts: list[bytes], length_bytes: int) -> None:
        """Append one block. Raises OSError with `size` unchanged; part of it may be there."""
        if length_bytes <= JOIN_BYTES_MAX:
            written = self._files.write(self.fd, b"".join(parts))
        else:
            written = self._write_long(parts)
        if written < length_bytes:
            self._write_rest(parts, written)
        self.size += length_bytes

    def _write_long(self, parts: list[bytes]) -> int:
        """As many as fit in a call; it may stop short, and then no later part is tried."""
        written = 0
        for at in range(0, len(parts), PARTS_MAX):
            group = parts[at : at + PARTS_MAX]
            done = self._files.write_parts(self.fd, group)
            written += done
            if done < sum(map(len, group)):
                break
        return written

    def _write_rest(self, parts: list[bytes], written: int) -> None:
        """A short write is mostly a full disk: the next one tells. Linux also stops at 2 GiB."""
        write_all(self._files, self.fd, b"".join(parts)[written:])

    def take_back(self) -> None:
        """Remove what a failed write has left. Raises OSError."""
        self._files.truncate(self.fd, self.size)
