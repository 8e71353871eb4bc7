"""The log in a directory: opened, recovered, appended to, synced, read, closed.

Reading order: `open` (lock, manifest, recovery), `_begin` (what recovery's end makes of the
directory), `append`, `sync`. Snapshots of it are made in file_storage.py.

Rules that hold throughout both:
- the event loop's thread owns all state; a worker thread gets arguments and gives back results;
- a file exists and is synced before the manifest names it, and is deleted after the manifest has
  stopped naming it;
- after the first failed write or sync nothing is written any more, by any method.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NoReturn

import trio
from google_crc32c import value as crc32c

from .api import (
    Entry,
    Position,
    Recovery,
    RecoveryReport,
    StorageDamaged,
    StorageError,
    StorageFailed,
    StorageSettings,
    StorageStatistics,
)
from .clean import CLEAN, CleanMarker, encode_clean
from .directory import (
    adopt_directory,
    close_all_quietly,
    close_quietly,
    remove_names,
    set_aside,
    settle_increment,
    sync_name,
)
from .file_header import VERSION, increment_name, snapshot_name
from .files import NO_SPACE, READ, Files
from .increment import Increment
from .lock import DirectoryLock
from .manifest import (
    MANIFEST,
    Manifest,
    data_names,
    encode_manifest,
    remove_if_there,
    replace_small,
)
from .recovery import LogRecovery, check_unlisted, load_clean, load_manifest
from .reserve import Reserve
from .retired import covered_by_snapshot, remove_retired, retire
from .syncer import Syncer


class FileLog:
    """Everything of `FileStorage` but its snapshots. `journal` False: it keeps no records."""

    def __init__(
        self, settings: StorageSettings, *, journal: bool, files: Files | None = None
    ) -> None:
        self.keeps_records = journal
        self.syncs = journal
        self.epoch = 0
        self.next_record = 0
        self._files = files or Files()
        self._path = settings.directory
        self._reserve = Reserve(self._files, self._path, settings.reserve_bytes)
        self._retired_log_bytes = settings.retired_log_bytes
        self._syncer = Syncer(self._files)
        self._manifest = Manifest(b"")
        self._lock: DirectoryLock | None = None
        self._left: list[str] = []
        self._current: Increment | None = None
        self._prepared: Increment | None = None
        self._cut: tuple[int, int, int] | None = None
        self._readers: dict[int, int] = {}
        self._retired: set[int] = set()
        self._sizes: dict[int, int] = {}
        self._ready = False
        self._busy = False
        self._closed = False
        self._failure: BaseException | None = None
        self._time_ms = 0
        self._snapshots = self._blocks = self._records = self._bytes = 0

    @property
    def identity(self) -> bytes:
        return self._manifest.directory

    @property
    def synced_record(self) -> int:
        return self._syncer.upto

    @property
    def failed(self) -> bool:
        return self._failure is not None

    @property
    def full(self) -> bool:
        return self._reserve.full

    # Opening

    def open(self) -> Recovery:
        if self._lock is not None or self._closed:
            raise StorageError("a storage object is opened once")
        try:
            adopt_directory(self._files, self._path)
            self._lock = DirectoryLock(self._files, self._path)
        except OSError as error:
            raise StorageError(f"{self._path} cannot be used: {error}") from error
        try:
            return self._recover()
        except OSError as error:
            self.close(clean=False)
            raise StorageError(f"{self._path} cannot be read: {error}") from error
        except StorageError:
            self.close(clean=False)
            raise

    def _recover(self) -> Recovery:
        manifest = load_manifest(self._files, self._path)
        if manifest is None:
            sync_name(self._files, self._path)
            manifest = Manifest(secrets.token_bytes(8))
            replace_small(self._files, self._path, MANIFEST, encode_manifest(manifest))
        clean = load_clean(self._files, self._path, manifest)
        self._left = check_unlisted(self._files, self._path, manifest)
        self._manifest = manifest
        self.epoch = manifest.epoch + 1
        report = RecoveryReport(files=tuple(data_names(manifest)))
        log = LogRecovery(self._files, self._path, manifest, clean, report)
        return Recovery(self._readable(log.snapshot()), self._replay(log), report)

    def _readable(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        try:
            yield from entries
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {error}") from error

    def _replay(self, log: LogRecovery) -> Iterator[Entry]:
        yield from self._readable(log.records())
        try:
            self._with_reserve(lambda: self._begin(log))
        except OSError as error:
            self._fail(error)

    def _with_reserve(self, work: Callable[[], None]) -> None:
        """Do it, and if there is no space for it, once more with the reserve's. Raises OSError."""
        try:
            work()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._reserve.spend()
            work()

    def _begin(self, log: LogRecovery) -> None:
        """Cut the torn tail, make what was read durable, and take over with a new epoch.

        Where the last increment is of an earlier version, the log goes on in a new one.
        The order matters. What a killed process wrote may be only in memory, so it is synced
        before the manifest claims it; files go after the manifest has stopped naming them.
        """
        cut = log.cut
        kept = self._manifest.increments
        self.next_record, self._time_ms = log.next_record, log.time_ms
        if cut is not None:
            kept = kept[: kept.index(cut.file) + 1]
        for generation in kept:
            at = cut.offset if cut and cut.file == generation else None
            name = increment_name(generation)
            unproven = log.unproven.offset_in(generation)
            size = settle_increment(self._files, self._path / name, at, unproven)
            self._sizes[generation] = size
        increments, next_file = kept, self._manifest.next_file
        self._remove_left()
        if self.keeps_records and (not kept or log.version < VERSION):
            self._current = self._create_increment(next_file)
            left = self._readers.pop(next_file, None)
            if left is not None:  # of a first attempt that found no space
                close_quietly(self._files, left)
            self._readers[next_file] = self._current.fd
            increments, next_file = (*kept, next_file), next_file + 1
        self._write_manifest(
            replace(
                self._manifest,
                epoch=self.epoch,
                next_file=next_file,
                synced_record=self.next_record,
                increments=increments,
            )
        )
        if cut is not None:
            later = [increment_name(generation) for generation in cut.later]
            set_aside(self._files, self._path, f"cut-{self.epoch}", later)
        if remove_if_there(self._files, self._path / CLEAN):
            self._files.sync_directory(self._path)
        self._take_over(kept)

    def _remove_left(self) -> None:
        """What a crash has left; a snapshot that had yet to retire something retires it now."""
        covered = covered_by_snapshot(self._manifest, self._left)
        names = [name for name in self._left if name not in map(increment_name, covered)]
        names += retire(self._files, self._path, covered, self._retired_log_bytes)
        remove_names(self._files, self._path, names)
        self._left = []

    def _take_over(self, kept: tuple[int, ...]) -> None:
        if self.keeps_records and self._current is None:
            self._current = Increment.reopen(
                self._files, self._path, self._manifest.directory, kept[-1]
            )
        if self._current is not None:
            self._readers[self._current.generation] = self._current.fd
        if self._manifest.snapshot is not None:
            self._sizes[self._manifest.snapshot] = self._files.size(
                self._reader(self._manifest.snapshot)
            )
        self._syncer.upto = self.next_record
        self._reserve.poll()
        self._ready = True

    def _create_increment(self, generation: int) -> Increment:
        remove_if_there(self._files, self._path / increment_name(generation))
        return Increment.create(self._files, self._path, self._manifest.directory, generation)

    def _write_manifest(self, manifest: Manifest) -> None:
        replace_small(self._files, self._path, MANIFEST, encode_manifest(manifest))
        self._manifest = manifest

    # Appending

    def append(self, records: Sequence[bytes], time_ms: int = 0) -> list[Position]:
        current = self._current
        if self._failure is not None or not self._ready:
            self._refuse()
        self._time_ms = time_ms
        if current is None or not records:
            self.next_record += len(records)
            return []
        parts, positions = current.encode(
            records, self.next_record, self._syncer.upto, self.epoch, time_ms
        )
        last = positions[-1]
        length_bytes = last.offset + last.length - current.size
        try:
            current.write(parts, length_bytes)
        except OSError as error:
            self._write_again(current, parts, length_bytes, error)
        self._syncer.written(current.fd)
        self.next_record += len(records)
        self._blocks += 1
        self._records += len(records)
        self._bytes += length_bytes
        return positions

    def _write_again(
        self, current: Increment, parts: list[bytes], length_bytes: int, error: OSError
    ) -> None:
        """Once, and only where there was no space: nothing was lost then, and room can be made."""
        if error.errno not in NO_SPACE:
            self._fail(error)
        try:
            current.take_back()
            self._reserve.spend()
            current.write(parts, length_bytes)
        except OSError as second:
            self._fail(second)

    async def sync(self) -> None:
        self._check()
        target = self.next_record
        if not self.syncs:
            await trio.lowlevel.checkpoint()
            return
        while True:
            try:
                await self._syncer.sync(target, lambda: self.next_record)
            except OSError as error:
                self._fail(error)
            self._check()
            if self._syncer.upto >= target:
                return

    def sync_if_quick(self) -> bool:
        self._check()
        if not self.syncs:
            return False
        try:
            return self._syncer.sync_if_quick(self.next_record)
        except OSError as error:
            self._fail(error)

    def read(self, position: Position) -> bytes:
        self._check()
        try:
            data = self._files.read(self._reader(position.file), position.length, position.offset)
        except OSError as error:
            self._fail(error)
        if len(data) != position.length or crc32c(data) != position.checksum:
            name = self._name(position.file)
            raise StorageDamaged(self._path, name, position.offset, "it is not what was written")
        return data

    def _reader(self, generation: int) -> int:
        fd = self._readers.get(generation)
        if fd is None:
            if generation not in (*self._manifest.increments, self._manifest.snapshot):
                raise KeyError(f"file {generation} is not part of the storage any more")
            fd = self._files.open(self._path / self._name(generation), READ)
            self._readers[generation] = fd
        return fd

    def _name(self, generation: int) -> str:
        is_snapshot = generation == self._manifest.snapshot
        return (snapshot_name if is_snapshot else increment_name)(generation)

    async def release(self, files: Iterable[int]) -> None:
        fds = []
        for generation in [number for number in files if number in self._retired]:
            self._retired.discard(generation)
            self._sizes.pop(generation, None)
            fd = self._readers.pop(generation, None)
            if fd is not None:
                self._syncer.forget(fd)
                fds.append(fd)
        with trio.CancelScope(shield=True):
            await self._syncer.idle()
            # The last close of a deleted file gives its blocks back: long work for a large one.
            await trio.to_thread.run_sync(close_all_quietly, self._files, fds)

    # The rest

    async def make_room(self) -> None:
        self._check()
        try:
            if self._reserve.is_short():
                await trio.to_thread.run_sync(remove_retired, self._files, self._path)
            else:
                await trio.lowlevel.checkpoint()
        except OSError as error:
            if error.errno not in NO_SPACE:
                self._fail(error)

    def poll_space(self) -> bool:
        self._check()
        try:
            return self._reserve.poll()
        except OSError as error:
            self._fail(error)

    def close(self, clean: bool) -> None:
        if self._closed:
            return
        try:
            if clean and self._ready:
                self._check()
                self._leave_marker()
        except OSError as error:
            self._fail(error)
        finally:
            self._closed, self._ready = True, False
            self._current = self._prepared = None
            for fd in self._readers.values():
                close_quietly(self._files, fd)
            self._readers.clear()
            if self._lock is not None:
                self._lock.release()

    def _leave_marker(self) -> None:
        """Sync, write down what is durable, and only then the proof of where it ends."""
        self._syncer.sync_now(self.next_record if self.keeps_records else 0)
        end = self._prepared or self._current
        durable = self.next_record
        if end is not None:
            marker = CleanMarker(
                self._manifest.directory, self.epoch, end.generation, end.size, durable
            )
        else:
            marker = self._end_without_journal()
        self._with_reserve(
            lambda: replace_small(self._files, self._path, CLEAN, encode_clean(marker))
        )

    def _end_without_journal(self) -> CleanMarker:
        """In mode rdb: where the snapshot, or the log of an earlier mode, ends."""
        manifest = self._manifest
        last = manifest.increments[-1] if manifest.increments else 0
        durable = manifest.synced_record if last else manifest.upto
        return CleanMarker(manifest.directory, self.epoch, last, self._sizes.get(last, 0), durable)

    def statistics(self) -> StorageStatistics:
        manifest, current = self._manifest, self._current
        if current is not None:
            self._sizes[current.generation] = current.size
        reserve = self._reserve
        base = self._sizes.get(manifest.snapshot, 0) if manifest.snapshot is not None else 0
        return StorageStatistics(
            base_bytes=base,
            increment_bytes=sum(self._sizes.get(number, 0) for number in manifest.increments),
            files=len(data_names(manifest)),
            appended_blocks=self._blocks,
            appended_records=self._records,
            appended_bytes=self._bytes,
            syncs=self._syncer.rounds,
            last_sync_us=self._syncer.last_us,
            max_sync_us=self._syncer.max_us,
            snapshots=self._snapshots,
            free_disk_bytes=reserve.free_bytes,
            reserve_bytes=reserve.bytes,
            full_below_bytes=reserve.full_below_bytes,
            room_from_bytes=reserve.room_from_bytes,
            full=reserve.full,
        )

    def _check(self) -> None:
        if self._failure is not None or not self._ready:
            self._refuse()

    def _refuse(self) -> NoReturn:
        if self._failure is not None:
            raise StorageFailed(f"the storage has failed: {self._failure}") from self._failure
        if self._closed:
            raise StorageError("the storage is closed")
        raise StorageError("recovery is not finished: read its snapshot and its records first")

    def _fail(self, error: BaseException) -> NoReturn:
        """The first failure is final: what the disk holds is unknown from now on."""
        if self._failure is None:
            self._failure = error
        raise StorageFailed(f"the storage has failed: {error}") from error
