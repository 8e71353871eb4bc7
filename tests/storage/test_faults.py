"""Each system call of a scripted run fails, for every one of them; power goes at every one.

The laws: after a failure nothing is ever claimed again; what was claimed as synced is recovered,
as part of an exact prefix; a snapshot is there whole or not at all; and a new open succeeds.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import trio

from telpher_storage import (
    FileStorage,
    SnapshotFailed,
    StorageError,
    StorageFailed,
    file_storage,
)
from telpher_storage.unproven import MARK_BYTES

from .disk import Disk
from .worlds import append, load, make, prefix_length, state_at

HOME = Path("/model/data")


def append_forever(storage: FileStorage) -> None:
    while True:
        append(storage, 1)


def new_disk() -> Disk:
    disk = Disk()
    disk.directories.add("/model")
    return disk


class Run:
    """The script: append, sync, two snapshots with appends between their steps, close, reopen.

    `synced` is what was claimed, `after_failure` counts the calls that succeeded after one.
    """

    def __init__(self, disk: Disk, mode: str, keep_bytes: int = 0) -> None:
        self.disk = disk
        self.mode = mode
        self.keep_bytes = keep_bytes
        self.appended = self.synced = self.after_failure = 0

    def note(self, storage: FileStorage) -> None:
        self.appended = max(self.appended, storage.next_record)
        self.synced = max(self.synced, storage.synced_record)

    async def script(self) -> None:
        for closing in (False, True):
            storage = make(HOME, self.mode, self.disk, retired_log_bytes=self.keep_bytes)
            try:
                load(storage)
                await self._steps(storage)
            except StorageFailed:
                await self._stays_failed(storage)
                raise
            finally:
                self.note(storage)
                try:
                    storage.close(closing)
                    self.note(storage)
                finally:
                    storage.close(clean=False)

    async def _steps(self, storage: FileStorage) -> None:
        self._append(storage)
        await storage.sync()
        self.note(storage)
        self._append(storage)
        try:
            await self._snapshot(storage)
        except SnapshotFailed:
            self._append(storage)
        self.note(storage)
        self._append(storage)
        await storage.make_room()
        storage.poll_space()
        self._append(storage)

    async def _snapshot(self, storage: FileStorage) -> None:
        """With appends and a sync between the cut and the writing: two increments are unsynced."""
        await storage.prepare_snapshot()
        upto = storage.cut()
        state = state_at(upto)
        self._append(storage)
        await storage.sync()
        self.note(storage)
        await storage.write_snapshot(upto, state)

    def _append(self, storage: FileStorage) -> None:
        self.appended = max(self.appended, storage.next_record + 2)
        append(storage, 2)

    async def _stays_failed(self, storage: FileStorage) -> None:
        for call in (lambda: append(storage, 1), storage.cut, storage.poll_space):
            try:
                call()
                self.after_failure += 1
            except StorageFailed:
                pass
        for step in (storage.sync, storage.prepare_snapshot, storage.make_room):
            try:
                await step()
                self.after_failure += 1
            except StorageFailed:
                pass


def attempt(disk: Disk, mode: str, keep_bytes: int = 0) -> tuple[Run, str]:
    run = Run(disk, mode, keep_bytes)
    try:
        trio.run(run.script)
    except StorageFailed:
        return run, "failed"
    except StorageError:
        return run, "not opened"
    return run, "done"


def recovered(disk: Disk, mode: str) -> int:
    """Open what is there; how long a prefix of the history it holds."""
    storage = make(HOME, mode, disk)
    try:
        return prefix_length(load(storage))
    finally:
        storage.close(clean=False)


@pytest.mark.parametrize(("mode", "keep_bytes"), [("aof", 0), ("aof", 1 << 20), ("rdb", 0)])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("once", [True, False])
def test_the_kth_call_fails(mode: str, keep_bytes: int, code: int, once: bool) -> None:
    disk = new_disk()
    attempt(disk, mode, keep_bytes)
    outcomes: Counter[str] = Counter()
    for index in range(len(disk.calls)):
        failing = new_disk()
        if once:
            failing.fail_at = {index: code}
        else:
            failing.fail_from = (index, code)
        run, outcome = attempt(failing, mode, keep_bytes)
        outcomes[outcome] += 1
        assert run.after_failure == 0
        assert failing.open_files == {}, failing.calls[index]
        length = recovered(failing.restarted(), mode)
        assert length <= run.appended
        assert length >= run.synced
        if code == errno.EIO:
            assert outcome != "done", failing.calls[index]
    assert outcomes["failed"]


@pytest.mark.parametrize("mode", ["aof", "rdb"])
def test_power_goes_at_every_call(mode: str) -> None:
    """Before each call a part of the states that the model allows; `power` tries the others."""
    disk = new_disk()
    run = Run(disk, mode)
    states = 0

    def power_goes(call: str) -> None:
        nonlocal states
        for state in islice(disk.power_cuts(), states % 7, None, 7):
            states += 1
            length = recovered(state, mode)
            assert run.synced <= length <= run.appended, call
            assert recovered(state.restarted(), mode) == length

    disk.before_call = power_goes
    trio.run(run.script)
    print(f"{mode}: {len(disk.calls)} points, {states} states")
    assert states > 100


class Killed(BaseException):
    """The process ends here."""


def test_a_directory_that_its_maker_did_not_live_to_sync_is_synced_by_the_next() -> None:
    disk = new_disk()

    def kill(call: str) -> None:
        if call == "sync directory":
            raise Killed

    disk.before_call = kill
    with pytest.raises(Killed):
        load(make(HOME, "aof", disk))
    disk = disk.restarted()
    storage = make(HOME, "aof", disk)
    load(storage)
    append(storage, 2)
    trio.run(storage.sync)
    storage.close(clean=False)
    for state in disk.power_cuts():
        assert recovered(state, "aof") == 2


def test_what_a_failed_sync_left_out_is_written_again_by_the_next_process() -> None:
    """The system takes those bytes for written; the next sync succeeds and leaves them out."""
    disk = new_disk()
    storage = make(HOME, "aof", disk)
    load(storage)
    append(storage, 2)
    trio.run(storage.sync)
    append(storage, 2)
    disk.fail_at = {len(disk.calls): errno.EIO}
    with pytest.raises(StorageFailed):
        trio.run(storage.sync)
    storage.close(clean=False)
    disk = disk.restarted()
    storage = make(HOME, "aof", disk)
    assert prefix_length(load(storage)) == 4
    append(storage, 2)
    trio.run(storage.sync)
    storage.close(clean=False)
    for state in disk.power_cuts():
        assert recovered(state, "aof") == 6


def test_only_what_no_sync_covered_is_written_again() -> None:
    disk = new_disk()
    storage = make(HOME, "aof", disk)
    load(storage)
    for _ in range(3):
        storage.append([bytes(MARK_BYTES)])
        trio.run(storage.sync)
    storage.append([b"not synced"])
    storage.close(clean=False)
    disk = disk.restarted()
    load(make(HOME, "aof", disk)).records.clear()
    (inode,) = [inode for name, inode in disk.names.items() if "increment" in name]
    assert "overwrite" in disk.calls
    assert inode.overwritten_bytes < 2 * MARK_BYTES + 500


def test_after_a_failed_append_a_snapshot_under_way_deletes_nothing() -> None:
    disk = new_disk()
    storage = make(HOME, "aof", disk)
    load(storage)
    append(storage, 2)

    def fail(call: str) -> None:
        if call == "rename manifest":
            disk.before_call = None
            disk.fail_at = {len(disk.calls): errno.EIO}
            with pytest.raises(StorageFailed):
                append(storage, 1)

    async def snapshot() -> None:
        await storage.prepare_snapshot()
        upto = storage.cut()
        disk.before_call = fail
        await storage.write_snapshot(upto, state_at(upto))

    with pytest.raises(StorageFailed):
        trio.run(snapshot)
    assert not [call for call in disk.calls[disk.failed[-1] :] if call.startswith("unlink")]
    storage.close(clean=False)
    assert recovered(disk.restarted(), "aof") == 2


def test_an_orderly_close_on_a_full_disk_marks_its_end() -> None:
    disk = new_disk()
    disk.total_bytes = 64 * 1024
    storage = make(HOME, "aof", disk)
    load(storage)
    append(storage, 2)
    disk.used_bytes_extra = disk.total_bytes - disk.used_bytes()
    storage.close(clean=True)
    assert load(make(HOME, "aof", disk.restarted())).report.clean


def test_a_full_disk_is_survived_and_left() -> None:
    """Appends go on from the reserve, nothing is lost, and `full` goes by itself."""
    disk = new_disk()
    disk.total_bytes = 64 * 1024
    storage = make(HOME, "aof", disk)
    load(storage)
    assert not storage.full
    assert storage.statistics().reserve_bytes == 4096
    disk.used_bytes_extra = disk.total_bytes - disk.used_bytes() - 100
    while not storage.full:
        append(storage, 1)
    append(storage, 3)
    assert storage.poll_space()
    trio.run(storage.sync)
    disk.used_bytes_extra = 0
    assert not storage.poll_space()
    assert storage.statistics().reserve_bytes == 4096
    append(storage, 1)
    count = storage.next_record
    storage.close(clean=False)
    assert recovered(disk.restarted(), "aof") == count


def test_the_marks_of_a_full_disk_are_those_that_are_told() -> None:
    disk = new_disk()
    disk.total_bytes = 64 * 1024
    storage = make(HOME, "aof", disk)
    load(storage)

    def is_full_with(free_bytes: int) -> bool:
        disk.used_bytes_extra += disk.total_bytes - disk.used_bytes() - free_bytes
        return storage.poll_space()

    def told() -> tuple[int, int]:
        found = storage.statistics()
        assert found.full_below_bytes is not None
        assert found.room_from_bytes is not None
        return found.full_below_bytes, found.room_from_bytes

    assert not is_full_with(told()[0])
    assert is_full_with(told()[0] - 1)
    assert is_full_with(told()[1] - 1)
    assert not is_full_with(told()[1])
    disk.used_bytes_extra += disk.total_bytes - disk.used_bytes() - 100
    while not storage.full:
        append(storage, 1)
    free_bytes = storage.statistics().free_disk_bytes
    assert free_bytes is not None
    assert free_bytes < told()[0]  # what there is now, and not when it was looked at last
    assert is_full_with(told()[1] - 1)
    disk.used_bytes_extra += disk.total_bytes - disk.used_bytes() - 100
    while storage.statistics().reserve_bytes:
        append(storage, 1)
    assert not is_full_with(told()[1])
    storage.close(clean=False)


def test_on_a_full_disk_a_snapshot_leaves_room_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_storage, "STEP_SECONDS", 0.0)
    disk = new_disk()
    disk.total_bytes = 64 * 1024
    storage = make(HOME, "aof", disk)
    load(storage)
    disk.used_bytes_extra = disk.total_bytes - disk.used_bytes() - 100
    while not storage.full:
        append(storage, 1)

    def chunks() -> Iterator[bytes]:
        while True:
            yield bytes(100)
            append(storage, 1)

    async def snapshot() -> None:
        await storage.prepare_snapshot()
        await storage.write_snapshot(storage.cut(), chunks())

    with pytest.raises(SnapshotFailed, match="space"):
        trio.run(snapshot)
    append(storage, 3)
    storage.close(clean=False)


@pytest.mark.parametrize("left_bytes", [0, 600])
def test_a_full_disk_of_a_log_that_nobody_needs_is_left_by_a_snapshot(left_bytes: int) -> None:
    """Nothing is left to write it into but the reserve, which no append has needed yet."""
    disk = new_disk()
    disk.total_bytes = 64 * 1024
    storage = make(HOME, "aof", disk)
    load(storage)
    append(storage, 400)
    disk.used_bytes_extra = disk.total_bytes - disk.used_bytes() - left_bytes
    assert storage.poll_space()
    assert storage.statistics().reserve_bytes == 4096

    async def snapshot() -> None:
        await storage.prepare_snapshot()
        report = await storage.write_snapshot(storage.cut(), [bytes(500)])
        await storage.release(report.retired)

    trio.run(snapshot)
    assert not storage.poll_space()
    assert storage.statistics().reserve_bytes == 4096
    storage.close(clean=False)


def test_a_snapshot_that_finds_no_space_gives_the_reserve_back() -> None:
    disk = new_disk()
    disk.total_bytes = 64 * 1024
    storage = make(HOME, "aof", disk)
    load(storage)
    disk.used_bytes_extra = disk.total_bytes - disk.used_bytes() - 1000
    assert storage.poll_space()

    async def snapshot() -> None:
        await storage.prepare_snapshot()
        await storage.write_snapshot(storage.cut(), [bytes(3000)])

    with pytest.raises(SnapshotFailed, match="space"):
        trio.run(snapshot)
    assert storage.full
    assert storage.statistics().reserve_bytes == 4096
    storage.close(clean=False)


def test_full_is_told_ahead_of_time() -> None:
    disk = new_disk()
    disk.total_bytes = 64 * 1024
    storage = make(HOME, "aof", disk)
    load(storage)
    disk.used_bytes_extra = disk.total_bytes - disk.used_bytes() - 4000
    assert storage.poll_space()
    storage.close(clean=False)


def test_when_the_reserve_is_used_up_the_storage_fails() -> None:
    disk = new_disk()
    disk.total_bytes = 64 * 1024
    storage = make(HOME, "aof", disk)
    load(storage)
    disk.used_bytes_extra = disk.total_bytes - disk.used_bytes()
    with pytest.raises(StorageFailed, match="No space"):
        append_forever(storage)
    count = storage.next_record
    storage.close(clean=False)
    disk.used_bytes_extra = 0
    assert recovered(disk.restarted(), "aof") == count


def test_a_full_disk_does_not_keep_it_from_opening() -> None:
    disk = new_disk()
    disk.total_bytes = 64 * 1024
    storage = make(HOME, "aof", disk)
    load(storage)
    append(storage, 5)
    storage.close(clean=False)
    disk.used_bytes_extra = disk.total_bytes - disk.used_bytes()
    storage = make(HOME, "aof", disk)
    assert prefix_length(load(storage)) == 5
    assert storage.full
    append(storage, 1)
    storage.close(clean=False)


def test_a_snapshot_without_space_leaves_the_log() -> None:
    disk = new_disk()
    disk.total_bytes = 64 * 1024
    storage = make(HOME, "aof", disk)
    load(storage)
    append(storage, 5)

    async def try_snapshot() -> None:
        await storage.prepare_snapshot()
        upto = storage.cut()
        with pytest.raises(SnapshotFailed):
            await storage.write_snapshot(upto, [b"x" * disk.total_bytes])

    trio.run(try_snapshot)
    append(storage, 5)
    assert not [name for name in disk.list(HOME) if name.startswith("snapshot")]
    storage.close(clean=False)
    assert recovered(disk.restarted(), "aof") == 10
