"""What a storage is: the contract between the broker and whatever keeps its bytes.

A storage numbers records from 0, keeps them in the order in which they were appended, and gives
them back in that order after a restart. It knows nothing of what the bytes mean. Third parties
write their own by implementing `Storage` and registering a factory in the entry-point group
`telpher.storage`; `conformance.py` says what every implementation must hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from google_crc32c import value as crc32c

RESERVE_BYTES = 32 * 1024 * 1024


class StorageError(Exception):
    """Something about the storage prevents what was asked; the text says what and what to do."""


class StorageLocked(StorageError):
    """Another process has the directory open."""


class StorageDamaged(StorageError):
    """Bytes that were proven to be on the disk are wrong or missing; nothing was changed.

    `file` is a name inside the directory, `offset` the byte in it where the damage begins.
    """

    def __init__(self, directory: Path, file: str, offset: int, text: str) -> None:
        super().__init__(
            f"{directory / file} is damaged at byte {offset}: {text}. "
            f"Nothing was changed. Keep a copy, then run: telpher repair {directory}"
        )
        self.directory = directory
        self.file = file
        self.offset = offset
        self.text = text


class StorageFailed(StorageError):
    """A write or a sync failed. What the disk holds is unknown, so every later call raises this.

    Nothing may be confirmed after it; the process should say so and stop.
    """


class SnapshotFailed(StorageError):
    """A snapshot could not be written, for want of space. The storage goes on with the old one."""


class Position(NamedTuple):
    """Where the bytes of one stored record or chunk lie, or of a part of one.

    `file` is the generation number of the file, `offset` and `length` are in bytes, and
    `checksum` is the CRC-32C of the bytes. It holds until the file is retired by a snapshot.
    """

    file: int
    offset: int
    length: int
    checksum: int

    def part(self, at: int, data: bytes) -> Position:
        """Where `data` lies, which is what stands `at` bytes into this."""
        return Position(self.file, self.offset + at, len(data), crc32c(data))

    def moved(self, into: Position, at: int) -> Position:
        """Where the same bytes lie in a copy, which stands `at` bytes into `into`."""
        return Position(into.file, into.offset + at, self.length, self.checksum)


Entry = tuple[bytes, Position | None]
"""One recovered record or chunk, and where it can be read again (None: nowhere)."""


@dataclass(slots=True)
class RecoveryReport:
    """What was found at open. It is complete when both iterators of `Recovery` are exhausted.

    `time_ms` is what the last `append` that was found gave, 0 if it gave none.
    """

    snapshot_chunks: int = 0
    snapshot_upto: int = 0
    records: int = 0
    bytes_read: int = 0
    bytes_cut: int = 0
    cut_file: str | None = None
    cut_offset: int | None = None
    cut_reason: str | None = None
    clean: bool = False
    time_ms: int = 0
    seconds: float = 0.0
    files: tuple[str, ...] = ()


@dataclass(slots=True)
class Recovery:
    """The state to load: consume `snapshot` fully, then `records` fully, then append.

    `snapshot` yields the chunks of the last snapshot, `records` every record after it. Both
    raise `StorageDamaged` where bytes proven to be on the disk are wrong.
    """

    snapshot: Iterator[Entry]
    records: Iterator[Entry]
    report: RecoveryReport


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """What a finished snapshot wrote, and which files it retired.

    `positions` has one entry per chunk, in order. Positions in the `retired` files can be read
    until `release(retired)`, so that a caller first moves over to the new ones. `left` says why
    files of these could not be deleted, which the next snapshot does; it is empty if they were.
    """

    upto: int
    chunks: int
    bytes: int
    seconds: float
    positions: tuple[Position, ...] = ()
    retired: frozenset[int] = frozenset()
    left: str = ""


@dataclass(frozen=True, slots=True)
class StorageStatistics:
    """Figures for monitoring. Bytes are of files; counts are since open.

    The storage is `full` when `free_disk_bytes` has come below `full_below_bytes`, until it is
    `room_from_bytes`; None where there is no such bound.
    """

    base_bytes: int = 0
    increment_bytes: int = 0
    files: int = 0
    appended_blocks: int = 0
    appended_records: int = 0
    appended_bytes: int = 0
    syncs: int = 0
    last_sync_us: int = 0
    max_sync_us: int = 0
    snapshots: int = 0
    free_disk_bytes: int | None = None
    reserve_bytes: int = 0
    full_below_bytes: int | None = None
    room_from_bytes: int | None = None
    full: bool = False


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """How to open a storage.

    `persistence` is `none`, `rdb`, `aof`, `aof+rdb` or the name of a registered back end.
    `reserve_bytes` is what is kept back for a full disk; never more than an eighth of the file
    system is taken. `retired_log_bytes` is how much of the log is kept for backups after a
    snapshot has retired it. `options` is for third-party back ends and unused here.
    """

    directory: Path
    persistence: str = "aof+rdb"
    reserve_bytes: int = RESERVE_BYTES
    retired_log_bytes: int = 0
    options: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Storage(Protocol):
    """Bytes in, bytes out, in order. One owner and one thread call it; see each method for waits.

    Any method may raise `StorageFailed`, and once one has, all do.
    """

    @property
    def keeps_records(self) -> bool:
        """False: append() only counts, so that the caller may skip encoding (none, rdb)."""

    @property
    def keeps_snapshots(self) -> bool:
        """False: write_snapshot() discards what it is given (none)."""

    @property
    def syncs(self) -> bool:
        """True: what was appended before a sync() survives a loss of power."""

    @property
    def epoch(self) -> int:
        """The owner epoch: one more at each open of the same data."""

    @property
    def identity(self) -> bytes:
        """8 bytes: the same at each open of the same data, others for other data."""

    @property
    def next_record(self) -> int:
        """The number of the next record to be appended."""

    @property
    def synced_record(self) -> int:
        """Every record with a lower number is known to be on the disk."""

    @property
    def failed(self) -> bool:
        """A write or a sync has failed, and everything raises `StorageFailed` from now on."""

    @property
    def full(self) -> bool:
        """The disk is (nearly) full: what would grow the log should be refused."""

    def open(self) -> Recovery:
        """Take ownership and begin recovery. Blocks.

        Raises `StorageLocked`, `StorageDamaged`, or `StorageError` for a directory not ours.
        """

    def append(self, records: Sequence[bytes], time_ms: int = 0) -> list[Position]:
        """Write the records as one block; it has reached the system on return. Blocks, no sync.

        `time_ms` is kept with the block, so that a point in time can be found again: ms since
        1970 by the caller's clock, never less than the last time, also that of
        `RecoveryReport`; 0 if it has none.
        Returns where each lies: an empty list if `keeps_records` is False. After a crash either
        all records of a block are recovered or none. Raises ValueError when a block of 4 GiB or
        more is asked for.
        """

    async def sync(self) -> None:
        """Return when all that was appended before the call is on the disk.

        Runs in a worker thread; calls made meanwhile share the next round. Cancelling the caller
        does not stop a round under way.
        """

    def sync_if_quick(self) -> bool:
        """Do what `sync` does at once, if it is known to take about a millisecond at most. Blocks.

        Returns False where it did nothing: the caller then awaits `sync`.
        """

    def read(self, position: Position) -> bytes:
        """Give back one stored record or chunk, or part of one, its checksum verified. Blocks.

        Raises `StorageDamaged` if the bytes are no longer what was written, KeyError for a file
        that was released.
        """

    async def prepare_snapshot(self) -> None:
        """Make ready for `cut()`, in a worker thread. Raises `SnapshotFailed` if out of space."""

    def cut(self) -> int:
        """End the part of the log that the next snapshot covers; a switch in memory.

        Returns the record number up to which (exclusive) the snapshot must cover. The caller
        freezes its state in the same step, before anything else is appended.
        """

    async def write_snapshot(self, upto: int, chunks: Iterable[bytes]) -> SnapshotReport:
        """Write the snapshot of all records below `upto`, then retire what it covers.

        Chunks are pulled on the event loop, for about 2 ms at a step, and written in a worker
        thread. Raises `SnapshotFailed` if out of space: the old snapshot and the log stay. Once the
        new one counts, it does not: see `SnapshotReport.left`.
        An exception from `chunks`, or a cancellation, leaves the old snapshot too.
        """

    async def release(self, files: Iterable[int]) -> None:
        """Let go of retired files: from the call on, their positions can no longer be read.

        Unknown ones are fine. Runs in a worker thread: large files take long to go.
        """

    async def make_room(self) -> None:
        """Where `poll_space` would find the disk full: give up what is kept and is no part of the
        log. Runs in a worker thread, also beside a snapshot. To be called before `poll_space`.
        """

    def poll_space(self) -> bool:
        """Look at the free space, rebuild the reserve if there is room; returns `full`. Blocks.

        Cheap; to be called about once a second.
        """

    def close(self, clean: bool) -> None:
        """Let go of everything. Blocks. `clean`: sync first, and leave proof of the exact end.

        With `clean` False nothing more is written, as if the process had been killed.
        """

    def statistics(self) -> StorageStatistics:
        """Figures for monitoring."""
