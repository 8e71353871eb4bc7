"""What is restored is an exact prefix, up to the block asked for, and a history of its own."""

from __future__ import annotations

import errno
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from telpher_broker.cli.output import local_time
from telpher_storage import StorageError
from telpher_storage.backup import backup, bases
from telpher_storage.held import View
from telpher_storage.restore import ALL, RestoreReport, Target, restore

from .test_backup import FaultyFiles, Killed, length, told
from .test_format import write_example
from .worlds import (
    QuickFiles,
    append,
    build,
    copy,
    flip,
    load,
    make,
    number,
    opened,
    outcome,
    state_at,
)

MINUTE_MS = 60_000


def put_back(backup: Path, directory: Path, target: Target = ALL, **options: Any) -> RestoreReport:
    return restore(backup, directory, target, **{"files": QuickFiles(), **options})


def write(source: Path, counts: list[int], at_ms: int, snapshot_after: int = -1) -> None:
    """Blocks of so many records, a minute apart; a snapshot after one of them."""

    async def run() -> None:
        with opened(source) as storage:
            for index, count in enumerate(counts):
                first = storage.next_record
                records = [number(one) for one in range(first, first + count)]
                storage.append(records, at_ms + index * MINUTE_MS)
                if index == snapshot_after:
                    await storage.prepare_snapshot()
                    upto = storage.cut()
                    await storage.write_snapshot(upto, state_at(upto))

    trio.run(run)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two bases: records 0 to 9, in blocks of 1, 2, 3 and 4 at 0 to 3 minutes, by two runs; and
    12 to 15, the others a snapshot of the minute 10, in blocks of 3 and 1 at 11 and 12 minutes.
    The runs were half a minute after the last block, each.
    """
    source, found = tmp_path / "data", tmp_path / "backups"
    write(source, [1, 2], 1 * MINUTE_MS)
    backup(source, found, 2 * MINUTE_MS + 30_000, files=QuickFiles())
    write(source, [3, 4], 3 * MINUTE_MS)
    backup(source, found, 4 * MINUTE_MS + 30_000, files=QuickFiles())
    write(source, [2, 3, 1], 10 * MINUTE_MS, snapshot_after=0)
    backup(source, found, 12 * MINUTE_MS + 30_000, files=QuickFiles())
    assert [(base.manifest.upto, base.runs[-1].record) for base in bases(found)] == [
        (0, 10),
        (12, 16),
    ]
    return found


@pytest.mark.parametrize(
    ("record", "base", "restored"),
    [
        (0, 1, 1),
        (1, 1, 1),
        (2, 1, 3),
        (4, 1, 3),
        (5, 1, 6),
        (9, 1, 10),
        (11, 2, 12),
        (12, 2, 12),
        (14, 2, 15),
        (15, 2, 16),
    ],
)
def test_up_to_a_record(root: Path, tmp_path: Path, record: int, base: int, restored: int) -> None:
    """Or to the block before, if the record is within one."""
    report = put_back(root, tmp_path / "new", Target(record=record))
    assert (report.base.name, report.record) == (f"base-{base}", restored)
    assert report.record + report.given_up == {1: 10, 2: 16}[base]
    assert length(tmp_path / "new", tmp_path / "scratch") == restored


@pytest.mark.parametrize(
    ("minute", "base", "restored"),
    [
        (1, 1, 1),
        (1.9, 1, 1),
        (2, 1, 3),
        (3, 1, 6),
        (4, 1, 10),
        (4.5, 1, 10),
        (10, 2, 12),
        (10.9, 2, 12),
        (11, 2, 15),
        (12, 2, 16),
        (12.5, 2, 16),
    ],
)
def test_up_to_a_time(root: Path, tmp_path: Path, minute: float, base: int, restored: int) -> None:
    report = put_back(root, tmp_path / "new", Target(time_ms=int(minute * MINUTE_MS)))
    assert (report.base.name, report.record) == (f"base-{base}", restored)
    assert length(tmp_path / "new", tmp_path / "scratch") == restored


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (
            Target(record=10),
            "record 10 lies between .*base-1, which ends with record 9, and .*base-2, which begins "
            "with a snapshot of all up to record 11. .*: telpher restore .*base-1 DIR",
        ),
        (Target(record=16), "base-2 ends with record 15; it has no 16. .* name no record"),
        (Target(time_ms=30_000), "base-1 begins after {0.5}"),
        (
            Target(time_ms=5 * MINUTE_MS),
            "{5} lies between .*base-1, which ends at {4.5}, and .*base-2, which begins with a "
            "snapshot of {10}. .*: telpher restore .*base-1 DIR",
        ),
        (Target(time_ms=13 * MINUTE_MS), "base-2 ends at {12.5}; .* to {13} .* name no time"),
    ],
)
def test_a_point_that_is_not_in_the_backup_is_refused(
    root: Path, tmp_path: Path, target: Target, why: str
) -> None:
    """A minute in the text is {}; it is told by this machine's clock, as `backups` does."""

    def told(minute: re.Match[str]) -> str:
        return re.escape(local_time(float(minute[1]) * 60))

    with pytest.raises(StorageError, match=re.sub(r"\{(.*?)\}", told, why)):
        put_back(root, tmp_path / "new", target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backups", "data"]


def test_a_point_before_a_base_is_refused_where_only_that_base_is_named(
    root: Path, tmp_path: Path
) -> None:
    for target in (Target(record=10), Target(time_ms=9 * MINUTE_MS)):
        with pytest.raises(StorageError, match="begins with a snapshot"):
            put_back(root / "base-2", tmp_path / "new", target)
    assert put_back(root / "base-1", tmp_path / "new").record == 10


def test_a_run_that_found_nothing_new_knows_of_its_own_time(root: Path, tmp_path: Path) -> None:
    backup(tmp_path / "data", root, 13 * MINUTE_MS, files=QuickFiles())
    assert put_back(root, tmp_path / "new", Target(time_ms=13 * MINUTE_MS)).record == 16


def test_any_data_directory_can_be_restored_from(root: Path, tmp_path: Path) -> None:
    report = put_back(tmp_path / "data", tmp_path / "new", Target(record=13))
    assert (report.record, report.given_up) == (12, 4)
    with pytest.raises(StorageError, match="what was written from then"):
        put_back(tmp_path / "data", tmp_path / "more", Target(time_ms=13 * MINUTE_MS))
    assert put_back(tmp_path / "new", tmp_path / "again").record == 12
    assert root.exists()


def test_a_log_that_tells_no_times_is_restored_by_records_only(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    write_example(tmp_path / "old", "-1")
    with pytest.raises(StorageError, match="does not tell when record 1001 was written"):
        put_back(tmp_path / "old", tmp_path / "new", Target(time_ms=MINUTE_MS))
    assert put_back(tmp_path / "old", tmp_path / "new", Target(record=1001)).record == 1002
    assert outcome(tmp_path / "new")[0] == "whole"


def test_what_is_restored_goes_on_as_a_history_of_its_own(root: Path, tmp_path: Path) -> None:
    put_back(root, tmp_path / "one", Target(record=14))
    put_back(root, tmp_path / "two", Target(record=14))
    for directory in ("one", "two"):
        build(tmp_path / directory, "a")
        assert length(tmp_path / directory, tmp_path / "scratch") == 17
    origins = [tmp_path / "one", tmp_path / "two", root / "base-2", tmp_path / "data"]
    for target in origins:
        for source in origins:
            if source is target:
                continue
            mixed = copy(target, tmp_path / "mixed")
            mine, theirs = (sorted(path.glob("increment-*"))[-1] for path in (mixed, source))
            mine.write_bytes(theirs.read_bytes())
            assert outcome(mixed)[0] == "refused"


def test_a_started_base_can_still_be_restored_with_what_came_since(
    root: Path, tmp_path: Path
) -> None:
    with opened(root / "base-2") as storage:
        append(storage, 5)
        assert put_back(root / "base-2", tmp_path / "new").record == 21


@pytest.mark.parametrize("keeps_the_facts", [True, False])
def test_a_started_base_is_restored_only_where_it_is_named(
    root: Path, tmp_path: Path, keeps_the_facts: bool
) -> None:
    with opened(root / "base-2") as storage:
        append(storage, 5)
        assert bases(root)[1].unusable
        with pytest.raises(StorageError, match=r"base-2 cannot be used: .* a broker was started"):
            put_back(root, tmp_path / "new")
        assert put_back(root / "base-2", tmp_path / "new").record == 21
    assert put_back(root, tmp_path / "then", Target(record=9)).record == 10
    if not keeps_the_facts:
        write(root / "base-2", [1], 13 * MINUTE_MS, snapshot_after=0)
        assert not bases(root)[1].runs
        assert bases(root)[1].unusable
        for target in (ALL, Target(record=9)):  # how far it reached back is not known any more
            with pytest.raises(StorageError, match=r"base-2 cannot be used"):
                put_back(root, tmp_path / "more", target)
    backup(tmp_path / "data", root, 13 * MINUTE_MS, files=QuickFiles())
    assert put_back(root, tmp_path / "more").base.name == "base-3"


def test_a_file_that_is_not_what_the_backup_wrote_is_found(root: Path, tmp_path: Path) -> None:
    for path in sorted((root / "base-2").glob("*-*")):
        good = path.read_bytes()
        for byte in range(0, len(good), 7):
            flip(path, 8 * byte)
            with pytest.raises(StorageError):
                put_back(root, tmp_path / "new")
        path.write_bytes(good)
    put_back(root, tmp_path / "new")


@pytest.mark.parametrize("spoilt", ["backup-0000000002", "manifest", "increment-0000000002"])
def test_a_spoilt_base_hinders_none_that_is_newer_and_is_told_before_one_that_is_older(
    root: Path, tmp_path: Path, spoilt: str
) -> None:
    backup(tmp_path / "data", root, 13 * MINUTE_MS, full=True, files=QuickFiles())
    (root / "base-2" / spoilt).write_bytes(b"")
    assert put_back(root, tmp_path / "new").record == 16
    with pytest.raises(StorageError, match=r"base-2 cannot be used: .* name that one"):
        put_back(root, tmp_path / "then", Target(record=9))
    assert put_back(root / "base-1", tmp_path / "then", Target(record=9)).record == 10


def test_nothing_is_written_where_something_is(root: Path, tmp_path: Path) -> None:
    for name in ("new", "other.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "letter").write_text("dear")
    with pytest.raises(StorageError, match="new is not empty"):
        put_back(root, tmp_path / "new")
    with pytest.raises(StorageError, match=r"other\.partial is in the way"):
        put_back(root, tmp_path / "other")
    (tmp_path / "empty").mkdir()
    put_back(root, tmp_path / "empty")
    with pytest.raises(StorageError, match="there is no backup in"):
        put_back(tmp_path / "new", tmp_path / "more")
    with pytest.raises(StorageError, match=r"there is no directory .*deep; make it first"):
        put_back(root, tmp_path / "deep" / "er")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["letter"]
    assert not (tmp_path / "more").exists()


class MountedFiles(QuickFiles):
    """A directory which is a mount point, and another user's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.given: set[tuple[str, int, int]] = set()

    def rename(self, source: Path, target: Path) -> None:
        if target == self._directory:
            raise OSError(errno.EBUSY, "Device or resource busy")
        super().rename(source, target)

    def owner(self, path: Path) -> tuple[int, int]:
        return (54321, 54322) if path == self._directory else super().owner(path)

    def give(self, path: Path, user: int, group: int) -> None:
        self.given.add((path.name, user, group))


def test_a_mount_point_stays_and_its_owner_owns_what_is_restored(
    root: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    new.mkdir(mode=0o755)
    files = MountedFiles(new)
    put_back(root, new, files=files)
    assert length(new, tmp_path / "scratch") == 16
    names = {path.name for path in new.iterdir()}
    assert files.given == {(name, 54321, 54322) for name in (*names, "restore.partial")}
    assert "restore.partial" not in names
    assert new.stat().st_mode & 0o777 == 0o700


def test_who_may_not_give_files_to_the_owner_is_told_before_they_are_written(
    root: Path, tmp_path: Path
) -> None:
    class Files(MountedFiles):
        def give(self, path: Path, user: int, group: int) -> None:
            assert path.name == "restore.partial"
            raise PermissionError(errno.EPERM, "Operation not permitted")

    new = tmp_path / "new"
    new.mkdir()
    with pytest.raises(StorageError, match="not permitted"):
        put_back(root, new, files=Files(new))
    assert list(new.iterdir()) == []


def test_data_that_lost_its_manifest_is_not_taken_for_an_unfinished_restore(
    root: Path, tmp_path: Path
) -> None:
    """The process ended before it removed the place within; the manifest was lost later."""
    new = tmp_path / "new"
    new.mkdir()
    put_back(root, new)
    (new / "restore.partial").mkdir()
    for spoil in (lambda: None, (new / "manifest").unlink):
        spoil()
        before = sorted(new.iterdir())
        with pytest.raises(StorageError, match="not empty"):
            put_back(root, new)
        assert sorted(new.iterdir()) == before


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize(
    "error", [Killed(), OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O")]
)
def test_a_restore_that_ends_at_any_call_leaves_nothing_by_that_name_or_all(
    root: Path, tmp_path: Path, error: BaseException, is_there: bool
) -> None:
    """Where the directory is there, nothing that a broker would start on."""
    for at in range(1, 60):
        directory = tmp_path / f"new-{at}"
        if is_there:
            directory.mkdir()
        files = FaultyFiles(at, error)
        with suppress(Killed), told(error):
            put_back(root, directory, Target(record=14), files=files)
        files.die()
        if (directory / "manifest" if is_there else directory).exists():
            assert length(directory, tmp_path / "scratch") == 15
        else:
            if is_there and any(directory.iterdir()):
                with pytest.raises(StorageError):
                    load(make(copy(directory, tmp_path / "scratch")))
            assert put_back(root, directory).record == 16
            assert length(directory, tmp_path / "scratch") == 16
        assert not directory.with_name(f"new-{at}.partial").exists()
        if files.calls < at:
            return
    raise AssertionError("the restore has no end")


def test_a_running_source_is_restored_as_of_one_moment(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as storage:
        append(storage, 3)
        assert put_back(tmp_path / "data", tmp_path / "one").record == 3
        append(storage, 3)
        assert put_back(tmp_path / "data", tmp_path / "two").record == 6
    with View(tmp_path / "two") as view:
        assert [data for data, _ in view.log().records()] == [number(index) for index in range(6)]
