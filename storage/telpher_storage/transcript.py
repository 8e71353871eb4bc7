"""A log written anew into another directory, as that directory's own.

Every block is read, checked, and written with the identity of its new place; what it says of
itself beside that (epoch, numbers, what was synced, the time) stays. So a backup and what is
restored from it are histories of their own: no file of the original fits into them, nor the other
way round. And nothing can be copied that recovery would not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from google_crc32c import extend

from .api import RecoveryReport, StorageDamaged, StorageError
from .block import BlockHeader
from .directory import close_quietly
from .file_header import increment_name
from .files import READ, Files
from .increment import Increment
from .manifest import Manifest, remove_if_there
from .reader import Block
from .recovery import LogRecovery
from .snapshot import SnapshotWriter

READ_BYTES = 4 * 1024 * 1024


class Passed:
    """Blocks on their way, and the last one's header after that; `record` comes behind it."""

    def __init__(self, blocks: Iterable[Block], record: int) -> None:
        self.record = record
        self.last: BlockHeader | None = None
        self._blocks = blocks

    def __iter__(self) -> Iterator[Block]:
        for block in self._blocks:
            self.last = block.header
            self.record = block.header.end
            yield block


def write_snapshot(files: Files, path: Path, manifest: Manifest, log: LogRecovery) -> None:
    """The snapshot of a log, if it has one, as the one of `manifest`. Raises OSError."""
    if manifest.snapshot is None:
        return
    writer = SnapshotWriter(
        files, path, manifest.directory, manifest.snapshot, manifest.epoch, manifest.upto, 0
    )
    try:
        for header, entries in log.snapshot_blocks():
            writer.time_ms = header.time_ms
            writer.write([data for data, _ in entries])
        writer.finish()
    finally:
        writer.close()


def write_increment(
    files: Files, path: Path, directory: bytes, generation: int, blocks: Iterable[Block]
) -> None:
    """A new increment of these blocks, on the disk. Raises OSError."""
    remove_if_there(files, path / increment_name(generation))
    increment = Increment.create(files, path, directory, generation)
    try:
        for header, entries in blocks:
            parts, _ = increment.encode(
                [data for data, _ in entries],
                header.first_record,
                header.synced_record,
                header.epoch,
                header.time_ms,
            )
            increment.write(parts, sum(map(len, parts)))
        files.sync_data(increment.fd)
    finally:
        close_quietly(files, increment.fd)


def read_back(files: Files, path: Path, manifest: Manifest, record: int) -> None:
    """See that the log of `manifest` is whole, and ends before `record`. Raises `StorageError`."""
    log = LogRecovery(files, path, manifest, None, RecoveryReport())
    try:
        for _ in log.snapshot_blocks():
            pass
        for _ in log.blocks():
            pass
    except StorageDamaged as error:
        raise StorageError(f"what was written into {path} reads back wrong: {error.text}") from None
    if log.cut is not None or log.next_record != record:
        raise StorageError(
            f"what was written into {path} reads back wrong: it ends at {log.next_record}"
        )


def checksum_of(files: Files, path: Path) -> tuple[int, int]:
    """How long a file is, and the CRC-32C of all of it. Raises OSError."""
    fd = files.open(path, READ)
    try:
        at = checksum = 0
        while data := files.read(fd, READ_BYTES, at):
            at += len(data)
            checksum = extend(checksum, data)
        return at, checksum
    finally:
        files.close(fd)
