"""Writing a snapshot file: header, blocks of chunks, footer. It counts once the manifest names it.

All methods are called in a worker thread, one at a time.
"""

from __future__ import annotations

from pathlib import Path

from google_crc32c import value as crc32c

from .api import Position
from .block import BLOCK_VERSION, HEADER_BYTES, BlockHeader, encode_header, encode_table
from .directory import close_quietly
from .file_header import SNAPSHOT, VERSION, FileHeader, encode_file_header, snapshot_name
from .files import CREATE, Files
from .footer import Footer, encode_footer
from .manifest import remove_if_there, write_all


class SnapshotWriter:
    """One snapshot in the making. Every method raises OSError.

    `time_ms` is what the blocks tell: when the last record was written that it covers.
    """

    def __init__(
        self,
        files: Files,
        path: Path,
        directory: bytes,
        generation: int,
        epoch: int,
        upto: int,
        time_ms: int,
    ) -> None:
        self.generation = generation
        self.positions: list[Position] = []
        self.size = 0
        self.fd = -1
        self._files = files
        self._path = path
        self._directory = directory
        self._epoch = epoch
        self._upto = upto
        self.time_ms = time_ms

    def write(self, chunks: list[bytes]) -> None:
        """Append the chunks as one block."""
        self._create_once()
        table, checksums = encode_table(chunks)
        body_bytes = len(table) + sum(map(len, chunks))
        header = BlockHeader(
            BLOCK_VERSION,
            self._directory,
            self.generation,
            self._epoch,
            self.size,
            len(self.positions),
            0,
            self.time_ms,
            len(chunks),
            body_bytes,
            crc32c(table),
        )
        offset = self.size + HEADER_BYTES + len(table)
        for chunk, checksum in zip(chunks, checksums, strict=True):
            self.positions.append(Position(self.generation, offset, len(chunk), checksum))
            offset += len(chunk)
        self._write(b"".join([encode_header(header), table, *chunks]))

    def _create_once(self) -> None:
        if self.fd < 0:
            self.fd = self._files.open(self._path / snapshot_name(self.generation), CREATE)
            header = FileHeader(SNAPSHOT, VERSION, self._directory, self.generation, self._upto)
            self._write(encode_file_header(header))

    def _write(self, data: bytes) -> None:
        write_all(self._files, self.fd, data)
        self.size += len(data)

    def finish(self) -> None:
        """Prove it whole and put it on the disk, its name as well."""
        self._create_once()
        footer = Footer(
            self._directory, self.generation, self.size, len(self.positions), self._upto
        )
        self._write(encode_footer(footer))
        self._files.sync_data(self.fd)
        self._files.sync_directory(self._path)

    def close(self) -> None:
        if self.fd >= 0:
            close_quietly(self._files, self.fd)

    def abandon(self) -> None:
        """Remove what there is of it; nothing refers to it."""
        if self.fd >= 0:
            self.close()
            remove_if_there(self._files, self._path / snapshot_name(self.generation))
