"""Storages without a disk: the mode `none`, and a full one for tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import trio
from google_crc32c import value as crc32c

from .api import (
    Entry,
    Position,
    Recovery,
    RecoveryReport,
    SnapshotReport,
    StorageDamaged,
    StorageError,
    StorageStatistics,
)

STEP_SECONDS = 0.002
_NOWHERE = Path()


class _Counting:
    """What both have: numbers, epochs, being open."""

    syncs = False

    def __init__(self) -> None:
        self.epoch = 0
        self.identity = secrets.token_bytes(8)
        self.next_record = 0
        self.synced_record = 0
        self.failed = self.full = False
        self._open = False
        self._cut: int | None = None
        self._blocks = self._records = self._bytes = self._syncs = self._snapshots = 0

    def _check(self) -> None:
        if not self._open:
            raise StorageError("the storage is not open, or its recovery is not finished")

    async def prepare_snapshot(self) -> None:
        self._check()
        await trio.lowlevel.checkpoint()

    def cut(self) -> int:
        self._check()
        self._cut = self.next_record
        return self.next_record

    async def _pull(self, upto: int, chunks: Iterable[bytes]) -> list[bytes]:
        """All chunks, a few at a time, as a storage on disk would take them."""
        self._check()
        if self._cut != upto:
            raise StorageError(f"no cut was made at record {upto}")
        taken: list[bytes] = []
        until = perf_counter() + STEP_SECONDS
        for chunk in chunks:
            taken.append(chunk)
            if perf_counter() > until:
                await trio.lowlevel.checkpoint()
                until = perf_counter() + STEP_SECONDS
        await trio.lowlevel.checkpoint()
        self._check()
        self._cut = None
        self._snapshots += 1
        return taken

    async def release(self, files: Iterable[int]) -> None:  # noqa: ARG002 (the contract's name)
        self._check()
        await trio.lowlevel.checkpoint()

    def sync_if_quick(self) -> bool:
        self._check()
        return False

    async def make_room(self) -> None:
        self._check()
        await trio.lowlevel.checkpoint()

    def poll_space(self) -> bool:
        self._check()
        return self.full

    def statistics(self) -> StorageStatistics:
        return StorageStatistics(
            appended_blocks=self._blocks,
            appended_records=self._records,
            appended_bytes=self._bytes,
            syncs=self._syncs,
            snapshots=self._snapshots,
            full=self.full,
        )


class MemoryStorage(_Counting):
    """The mode `none`: keeps nothing, only counts."""

    keeps_records = False
    keeps_snapshots = False

    def open(self) -> Recovery:
        if self._open:
            raise StorageError("the storage is open already")
        self.epoch += 1
        self.next_record = self.synced_record = 0
        return Recovery(iter(()), self._begin(), RecoveryReport())

    def _begin(self) -> Iterator[Entry]:
        self._open = True
        yield from ()

    def append(self, records: Sequence[bytes], time_ms: int = 0) -> list[Position]:  # noqa: ARG002
        self._check()
        self.next_record += len(records)
        return []

    async def sync(self) -> None:
        self._check()
        await trio.lowlevel.checkpoint()

    def read(self, position: Position) -> bytes:
        self._check()
        raise KeyError(f"nothing is kept, so nothing lies at {position}")

    async def write_snapshot(self, upto: int, chunks: Iterable[bytes]) -> SnapshotReport:
        taken = await self._pull(upto, chunks)
        return SnapshotReport(upto, len(taken), sum(map(len, taken)), 0.0)

    def close(self, clean: bool) -> None:  # noqa: ARG002 (the contract's name)
        self._open = False


class MemoryRecordsStorage(_Counting):
    """Keeps everything in this object: close it, or `kill` or `power_cut` it, and open it again.

    A position's `file` is 1 for every record ever appended and a higher number for each snapshot.
    """

    keeps_records = True
    keeps_snapshots = True
    syncs = True

    def __init__(self) -> None:
        super().__init__()
        self._first = 0
        self._log: list[bytes] = []
        self._chunks: list[bytes] = []
        self._clean = False
        self._time_ms = 0
        self._files: dict[int, bytearray] = {1: bytearray()}
        self._snapshot_file = 1

    def open(self) -> Recovery:
        if self._open:
            raise StorageError("the storage is open already")
        self.epoch += 1
        self._cut = None
        report = RecoveryReport(clean=self._clean, snapshot_upto=self._first)
        self._clean = False
        return Recovery(self._recover_snapshot(report), self._recover_records(report), report)

    def _recover_snapshot(self, report: RecoveryReport) -> Iterator[Entry]:
        self._snapshot_file += 1
        for chunk in self._chunks:
            report.snapshot_chunks += 1
            yield chunk, self._keep(self._snapshot_file, chunk)

    def _recover_records(self, report: RecoveryReport) -> Iterator[Entry]:
        for record in self._log:
            report.records += 1
            yield record, self._keep(1, record)
        report.time_ms = self._time_ms
        self.next_record = self.synced_record = self._first + len(self._log)
        self._open = True

    def _keep(self, file: int, data: bytes) -> Position:
        kept = self._files.setdefault(file, bytearray())
        kept += data
        return Position(file, len(kept) - len(data), len(data), crc32c(data))

    def append(self, records: Sequence[bytes], time_ms: int = 0) -> list[Position]:
        self._check()
        self._time_ms = time_ms
        self._log += records
        self.next_record += len(records)
        self._blocks += 1
        self._records += len(records)
        self._bytes += sum(map(len, records))
        return [self._keep(1, record) for record in records]

    async def sync(self) -> None:
        self._check()
        target = self.next_record
        await trio.lowlevel.checkpoint()
        self._check()
        self._syncs += 1
        self.synced_record = max(self.synced_record, target)

    def read(self, position: Position) -> bytes:
        self._check()
        data = bytes(self._files[position.file][position.offset :][: position.length])
        if len(data) != position.length or crc32c(data) != position.checksum:
            raise StorageDamaged(_NOWHERE, "memory", position.offset, "not what was written")
        return data

    async def write_snapshot(self, upto: int, chunks: Iterable[bytes]) -> SnapshotReport:
        taken = await self._pull(upto, chunks)
        self._log = self._log[upto - self._first :]
        self._first = upto
        self._chunks = taken
        self.synced_record = max(self.synced_record, upto)
        self._snapshot_file += 1
        positions = tuple(self._keep(self._snapshot_file, chunk) for chunk in taken)
        return SnapshotReport(upto, len(taken), sum(map(len, taken)), 0.0, positions)

    def close(self, clean: bool) -> None:
        if clean and self._open:
            self.synced_record = self.next_record
            self._clean = True
        self._open = False

    def kill(self) -> None:
        """The process dies: what was appended is there at the next open."""
        self.close(clean=False)

    def power_cut(self, surviving: int | None = None) -> None:
        """The machine dies: the unsynced records are gone, but for the first `surviving`."""
        self.close(clean=False)
        kept = self.synced_record if surviving is None else self.synced_record + surviving
        del self._log[max(0, kept - self._first) :]
