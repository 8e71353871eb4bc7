"""Storage in a directory, the modes `rdb`, `aof` and `aof+rdb`: the log and its snapshots.

Reading order: `prepare_snapshot`, `cut`, `write_snapshot`. The rules stand in file_log.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TypeVar

import trio

from .api import (
    SnapshotFailed,
    SnapshotReport,
    StorageError,
)
from .directory import close_quietly, remove_names
from .file_header import increment_name, snapshot_name
from .file_log import FileLog
from .files import NO_SPACE
from .increment import Increment
from .manifest import (
    MANIFEST,
    Manifest,
    encode_manifest,
    replace_small,
)
from .retired import retire
from .snapshot import SnapshotWriter

STEP_BYTES = 1024 * 1024
STEP_SECONDS = 0.002

T = TypeVar("T")


class FileStorage(FileLog):
    """See `Storage`. `journal` False is the mode `rdb`: snapshots only."""

    keeps_snapshots = True

    async def prepare_snapshot(self) -> None:
        self._check()
        if not self.keeps_records or self._prepared is not None:
            await trio.lowlevel.checkpoint()
            return
        with self._alone():
            await self._prepare()

    async def _prepare(self) -> None:
        generation = self._manifest.next_file
        manifest = replace(
            self._manifest,
            next_file=generation + 1,
            synced_record=self._syncer.upto,
            increments=(*self._manifest.increments, generation),
        )

        create = partial(self._create_registered, manifest, generation)
        try:
            self._prepared = await self._housekeep(create, "prepare a snapshot")
        except SnapshotFailed:
            if not self._give_reserve():
                raise
            self._prepared = await self._housekeep(create, "prepare a snapshot")
        self._manifest = manifest
        self._readers[generation] = self._prepared.fd

    def _create_registered(self, manifest: Manifest, generation: int) -> Increment:
        increment = self._create_increment(generation)
        try:
            replace_small(self._files, self._path, MANIFEST, encode_manifest(manifest))
        except OSError:
            close_quietly(self._files, increment.fd)
            raise
        return increment

    async def _housekeep(self, work: Callable[[], T], what: str) -> T:
        """Run it in a thread. No space is a refusal, for nothing that counts was touched."""
        self._check()
        try:
            return await trio.to_thread.run_sync(work)
        except OSError as error:
            if error.errno in NO_SPACE:
                self._reserve.full = True
                raise SnapshotFailed(f"cannot {what}: {error}") from error
            self._fail(error)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One step of a snapshot at a time: each works on the manifest that it found."""
        if self._busy:
            raise StorageError("another step of a snapshot is under way")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def cut(self) -> int:
        self._check()
        if self._prepared is not None:
            if self._current is not None:
                self._sizes[self._current.generation] = self._current.size
            self._current, self._prepared = self._prepared, None
        elif self.keeps_records:
            raise StorageError("cut() comes after prepare_snapshot()")
        first_kept = self._current.generation if self._current else self._manifest.next_file
        self._cut = (self.next_record, first_kept, self._time_ms)
        return self.next_record

    async def write_snapshot(self, upto: int, chunks: Iterable[bytes]) -> SnapshotReport:
        self._check()
        if self._cut is None or self._cut[0] != upto:
            raise StorageError(f"no cut was made at record {upto}")
        with self._alone():
            return await self._write_snapshot(upto, chunks, *self._cut[1:])

    async def _write_snapshot(
        self, upto: int, chunks: Iterable[bytes], first_kept: int, time_ms: int
    ) -> SnapshotReport:
        started = perf_counter()
        generation = self._manifest.next_file
        writer = SnapshotWriter(
            self._files, self._path, self._manifest.directory, generation, self.epoch, upto, time_ms
        )
        try:
            await self._write_chunks(writer, iter(chunks))
            retired, left = await self._register(writer, upto, first_kept)
        except BaseException:
            self._abandon(writer)
            self._restore_reserve()
            raise
        self._cut = None
        self._snapshots += 1
        return SnapshotReport(
            upto,
            len(writer.positions),
            writer.size,
            perf_counter() - started,
            tuple(writer.positions),
            retired,
            left,
        )

    async def _write_chunks(self, writer: SnapshotWriter, chunks: Iterator[bytes]) -> None:
        more = True
        while more:
            batch, size = [], 0
            until = perf_counter() + STEP_SECONDS
            while size < STEP_BYTES:
                chunk = next(chunks, None)
                if chunk is None:
                    more = False
                    break
                batch.append(chunk)
                size += len(chunk)
                if perf_counter() > until:
                    break
            if batch:
                self._leave_room(writer.size + 2 * size)
                await self._housekeep(partial(writer.write, batch), "write a snapshot")
            self._check()

    def _leave_room(self, taken_bytes: int) -> None:
        """On a full disk, a snapshot leaves as much as it takes: the log goes on in the rest."""
        if not self._reserve.full or self._free_bytes() >= taken_bytes:
            return
        if not self._give_reserve() or self._free_bytes() < taken_bytes:
            raise SnapshotFailed("cannot write a snapshot: what space is left is for the log")

    def _free_bytes(self) -> int:
        try:
            return self._files.space(self._path)[0]
        except OSError as error:
            self._fail(error)

    def _give_reserve(self) -> bool:
        """Let a snapshot have it, for nothing else may make room: whether there was any.

        When it is written, what it covers goes; when it fails, the reserve is made again.
        """
        if not self._reserve.bytes:
            return False
        try:
            self._reserve.spend()
        except OSError as error:
            self._fail(error)
        return True

    def _restore_reserve(self) -> None:
        if self._failure is not None:
            return
        try:
            self._reserve.restore()
        except OSError as error:
            self._fail(error)

    async def _register(
        self, writer: SnapshotWriter, upto: int, first_kept: int
    ) -> tuple[frozenset[int], str]:
        """Sync the snapshot, name it in the manifest in place of what it covers, delete that.

        Returns what was retired, and why it could not be deleted.
        """
        before = self._manifest
        kept = tuple(number for number in before.increments if number >= first_kept)
        after = replace(
            before,
            next_file=writer.generation + 1,
            synced_record=max(self._syncer.upto, upto),
            snapshot=writer.generation,
            upto=upto,
            increments=kept,
        )
        increments = [number for number in before.increments if number < first_kept]
        snapshots = [] if before.snapshot is None else [before.snapshot]
        retired = [*increments, *snapshots]
        self._hold(retired)

        def register() -> None:
            writer.finish()
            replace_small(self._files, self._path, MANIFEST, encode_manifest(after))

        await self._housekeep(register, "write a snapshot")
        self._manifest = after
        self._readers[writer.generation] = writer.fd
        self._sizes[writer.generation] = writer.size
        self._syncer.upto = max(self._syncer.upto, upto)
        await self.release(self._retired - set(retired))
        self._retired.update(retired)
        with trio.CancelScope(shield=True):
            left = await self._delete(increments, snapshots)
        return frozenset(retired), left

    async def _delete(self, increments: list[int], snapshots: list[int]) -> str:
        """Delete what does not count any more, or keep it for backups; why some of it is left.

        The new snapshot counts already, so want of space does not undo it. The next deletes it.
        """
        covered = [*map(increment_name, increments), *map(snapshot_name, snapshots)]
        names = [*self._left, *covered]

        def delete() -> None:
            old = retire(self._files, self._path, increments, self._retired_log_bytes)
            remove_names(self._files, self._path, [*old, *names])

        try:
            await self._housekeep(delete, "delete what a snapshot covers")
        except SnapshotFailed as error:
            self._left = names
            return str(error)
        self._left = []
        return ""

    def _hold(self, generations: list[int]) -> None:
        """Open them now, so that their positions hold until they are released."""
        try:
            for generation in generations:
                self._reader(generation)
        except OSError as error:
            self._fail(error)

    def _abandon(self, writer: SnapshotWriter) -> None:
        """Unless the manifest names it; after a failure nothing is touched any more."""
        if self._manifest.snapshot == writer.generation:
            return
        if self._failure is not None:
            writer.close()
            return
        try:
            writer.abandon()
        except OSError as error:
            self._fail(error)
