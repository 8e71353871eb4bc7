"""Backups are exact prefixes, whatever goes on meanwhile and whenever the run is killed."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from telpher_storage import FileStorage, StorageError, StorageLocked
from telpher_storage import held as held_module
from telpher_storage.backup import BackupReport, backup, bases
from telpher_storage.check import check
from telpher_storage.facts import CopiedFile, Facts, decode_facts, encode_facts
from telpher_storage.files import CREATE, LOCK, Files
from telpher_storage.held import View
from telpher_storage.manifest import MANIFEST, decode_manifest
from telpher_storage.recovery import LogRecovery
from telpher_storage.repair import repair

from .test_format import DIRECTORY, text
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
    prefix_length,
    shorten,
    snapshot,
    state_at,
)

TAKEN_MS = 1_793_536_500_000


class Killed(BaseException):
    """No handler of errors may stop it, as none stops SIGKILL."""


class FaultyFiles(QuickFiles):
    """From the call number `at` on nothing is done any more; or just that one call fails."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.calls = 0
        self._at = at
        self._error = error
        self._open: set[int] = set()

    def die(self) -> None:
        """What the system does for a process that has ended."""
        for fd in self._open:
            os.close(fd)

    def _call(self) -> None:
        self.calls += 1
        is_over = isinstance(self._error, Killed) and self.calls > self._at
        if self.calls == self._at or is_over:
            raise self._error

    def open(self, path: Path, flags: int) -> int:
        if flags in (CREATE, LOCK):
            self._call()
        fd = super().open(path, flags)
        self._open.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self._open.discard(fd)
        super().close(fd)

    def write(self, fd: int, data: bytes) -> int:
        """Some of it arrives."""
        try:
            self._call()
        except BaseException:
            super().write(fd, data[: len(data) // 2])
            raise
        return super().write(fd, data)

    def write_parts(self, fd: int, parts: Any) -> int:
        return self.write(fd, b"".join(parts))

    def sync_data(self, fd: int) -> None:
        self._call()

    def sync_directory(self, directory: Path) -> None:
        self._call()

    def rename(self, source: Path, target: Path) -> None:
        self._call()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._call()
        super().unlink(path)

    def make_directory(self, directory: Path) -> None:
        self._call()
        super().make_directory(directory)

    def remove_directory(self, directory: Path) -> None:
        self._call()
        super().remove_directory(directory)


def back_up(source: Path, root: Path, **options: Any) -> BackupReport:
    return backup(source, root, TAKEN_MS, **{"files": QuickFiles(), **options})


def length(directory: Path, scratch: Path) -> int:
    """How many records of the history a start on a copy of it finds; it must find it whole."""
    assert check(directory).verdict == "sound"
    happened, found = outcome(copy(directory, scratch))
    assert happened == "whole"
    assert found is not None
    return prefix_length(found)


def kept(root: Path, scratch: Path) -> list[int]:
    return [length(base.path, scratch) for base in bases(root)]


@contextmanager
def told(error: BaseException) -> Iterator[None]:
    """The user may be told of the error that there was, and of nothing else."""
    try:
        yield
    except StorageError as found:
        if str(error) not in str(found):
            raise


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def test_a_run_adds_what_is_new_and_begins_a_base_after_a_rewrite(
    source: Path, root: Path, scratch: Path
) -> None:
    build(source, "aa")
    first = back_up(source, root)
    assert (first.base.name, first.from_record, first.record) == ("base-1", 0, 4)
    build(source, "a")
    second = back_up(source, root)
    assert (second.base.name, second.because, second.from_record) == ("base-1", "", 4)
    assert back_up(source, root).files == 0
    build(source, "Sa")  # the log begins where the base ends, which is not known to be the same
    third = back_up(source, root)
    assert (third.base.name, third.from_record, third.record) == ("base-2", 0, 8)
    assert "rewritten" in third.because
    build(source, "aS")
    assert back_up(source, root).base.name == "base-3"
    assert back_up(source, root).because == ""
    build(source, "a", clean=True)
    assert back_up(source, root).base.name == "base-3"
    assert back_up(source, root, full=True).base.name == "base-4"
    assert kept(root, scratch) == [6, 8, 12, 12]


@pytest.mark.parametrize("mode", ["aof", "aof+rdb", "rdb"])
def test_what_is_backed_up_of_a_running_owner_is_all_that_it_has_appended(
    source: Path, root: Path, scratch: Path, mode: str
) -> None:
    async def run() -> None:
        storage = make(source, mode)
        load(storage)
        append(storage, 3)
        await storage.prepare_snapshot()
        assert back_up(source, root).record == (0 if mode == "rdb" else 3)
        upto = storage.cut()
        append(storage, 2)
        assert back_up(source, root).record == (0 if mode == "rdb" else 5)
        await storage.write_snapshot(upto, [b"state to 3", *_numbers(3)])
        assert back_up(source, root).record == (3 if mode == "rdb" else 5)
        storage.close(clean=True)

    trio.run(run)
    assert back_up(source, root).record == (3 if mode == "rdb" else 5)
    assert kept(root, scratch)[-1] == (3 if mode == "rdb" else 5)


def _numbers(count: int) -> list[bytes]:
    from .worlds import number

    return [number(index) for index in range(count)]


def test_a_block_that_is_just_being_written_is_left_out(
    source: Path, root: Path, scratch: Path
) -> None:
    build(source, "aa")
    (increment,) = source.glob("increment-*")
    whole = increment.read_bytes()
    build(source, "a")
    more = increment.read_bytes()[len(whole) :]
    increment.write_bytes(whole + more[:-1])
    assert back_up(source, root).record == 4
    increment.write_bytes(whole + more)
    assert back_up(source, root).record == 6
    assert kept(root, scratch) == [6]


def test_an_owner_that_starts_while_it_is_read_is_not_taken_for_damage(
    source: Path, root: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cuts the torn tail that the view has, and writes blocks of its own there."""
    build(source, "aa")
    (increment,) = source.glob("increment-*")
    increment.write_bytes(increment.read_bytes()[:-1])
    starts = iter(["aa"])
    real = View.log

    def log(view: View) -> LogRecovery:
        for script in starts:
            build(source, script)
        return real(view)

    monkeypatch.setattr(View, "log", log)
    assert back_up(source, root).record == 6
    assert kept(root, scratch) == [6]


def test_what_changes_while_the_view_is_taken_is_seen_before_or_after(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole rewrite, an end and a new start between any two steps."""
    changes: list[Callable[[], object]] = [
        lambda: build(source, "aSa"),
        lambda: build(source, "a", clean=True),
        lambda: build(source, "raPa"),
    ]
    for change in changes:
        for at in range(6):
            steps = iter(range(100))

            def disturbed(real: Any, at: int = at, steps: Any = steps, change: Any = change) -> Any:
                def call(*arguments: Any) -> Any:
                    if next(steps) == at:
                        change()
                    return real(*arguments)

                return call

            build(source, "as")
            before = _count(source)
            with monkeypatch.context() as patch:
                for name in ("load_manifest", "load_clean", "read_small"):
                    patch.setattr(held_module, name, disturbed(getattr(held_module, name)))
                with View(source) as view:
                    log = view.log()
                    chunks = list(log.snapshot())
                    records = list(log.records())
            assert before <= log.next_record <= _count(source)
            assert log.next_record - view.manifest.upto == len(records)
            assert len(chunks) == (view.manifest.upto + 1 if view.manifest.snapshot else 0)


def test_a_file_that_is_retired_while_the_view_is_taken_is_seen(
    source: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two looks at the names; it would be a gap otherwise."""
    for at in range(1, 5):
        build(source, "a", **KEEP)
        back_up(source, root)
        build(source, "aaS", **KEEP)
        newest = sorted(source.glob("retired-*"))[-1]
        unretired = newest.rename(source / newest.name.replace("retired", "increment"))
        looks = iter(range(1, 100))
        real = Files.list

        def names(
            files: Files,
            directory: Path,
            *,
            at: int = at,
            looks: Iterator[int] = looks,
            real: Any = real,
            move: Callable[[], Path] = lambda u=unretired, n=newest: u.rename(n),  # type: ignore[misc]
        ) -> list[str]:
            if directory == source and next(looks) == at:
                move()
            found: list[str] = real(files, directory)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(Files, "list", names)
            assert back_up(source, root).because == ""


def _count(source: Path) -> int:
    with View(source) as view:
        log = view.log()
        for _ in log.blocks():
            pass
        return log.next_record


@pytest.mark.parametrize("script", ["", "a", "Sa"])
@pytest.mark.parametrize(
    "error", [Killed(), OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O")]
)
def test_a_run_that_ends_at_any_call_leaves_the_backups_as_they_were_or_done(
    source: Path, root: Path, scratch: Path, tmp_path: Path, script: str, error: BaseException
) -> None:
    build(source, "aSaa")
    if script:
        back_up(source, tmp_path / "before")
        build(source, script)
    for at in range(1, 100):
        if root.exists():
            copy(tmp_path / "empty", root)
        (tmp_path / "empty").mkdir(exist_ok=True)
        if script:
            copy(tmp_path / "before", root)
        before = kept(root, scratch) if script else []
        files = FaultyFiles(at, error)
        with suppress(Killed), told(error):
            back_up(source, root, files=files)
        files.die()
        after = kept(root, scratch) if root.exists() else []
        done = back_up(source, root)
        assert not list(root.glob("*.partial"))
        assert after in (before, kept(root, scratch))
        assert length(done.base, scratch) == done.record == _count(source)
        left = {path.name.partition("-")[2] for path in done.base.glob("*-*")}
        assert len(list(done.base.glob("increment-*"))) == len(list(done.base.glob("backup-*")))
        assert "" not in left
        if files.calls < at:
            return
    raise AssertionError("the run has no end")


def test_records_that_the_log_has_lost_begin_a_new_base(
    source: Path, root: Path, tmp_path: Path, scratch: Path
) -> None:
    """A backup reads what is not synced yet; a loss of power may take that from the log."""
    build(source, "as")
    old = copy(source, tmp_path / "old")
    build(source, "a")
    assert back_up(source, root).record == 4
    build(old, "ra")  # as many records, in a later epoch
    report = back_up(old, root)
    assert (report.base.name, report.record) == ("base-2", 4)
    assert "lost" in report.because
    assert kept(root, scratch) == [4, 4]


def test_a_base_on_which_a_broker_was_started_is_left_alone(
    source: Path, root: Path, scratch: Path
) -> None:
    build(source, "aa")
    base = back_up(source, root).base
    with opened(base) as storage:
        build(source, "a")
        with pytest.raises(StorageError):
            make(base).open()
        assert back_up(source, root).base.name == "base-2"
        append(storage, 1)
    assert kept(root, scratch) == [5, 6]


def test_a_base_is_a_history_of_its_own(source: Path, root: Path, tmp_path: Path) -> None:
    """Files of the original are refused in it, and its files in the original."""
    build(source, "aaSaa")
    base = back_up(source, root).base
    for ours, theirs in ((source, base), (base, source)):
        for kind in ("increment", "snapshot"):
            mixed = copy(ours, tmp_path / "mixed")
            (mine,) = mixed.glob(f"{kind}-*")
            (other,) = theirs.glob(f"{kind}-*")
            mine.write_bytes(other.read_bytes())
            assert outcome(mixed)[0] == "refused"


def test_what_is_no_place_for_backups_is_refused_and_stays_as_it_is(
    source: Path, tmp_path: Path
) -> None:
    build(source, "a")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    refused = [
        (source, "in the data directory"),
        (source / "backups", "in the data directory"),
        (tmp_path / "home", "holds other files"),
        (tmp_path / "absent" / "backups", "there is no directory .*absent; make it first"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for place, why in refused:
        with pytest.raises(StorageError, match=why):
            back_up(source, place)
    build(tmp_path / "other", "a")
    back_up(tmp_path / "other", tmp_path / "backups")
    with pytest.raises(StorageError, match="another data directory"):
        back_up(source, tmp_path / "backups")
    with pytest.raises(StorageError, match="no data"):
        back_up(tmp_path / "home", tmp_path / "more")
    assert [path for path in sorted(tmp_path.rglob("*")) if path in before] == before


def test_one_run_at_a_time(source: Path, root: Path) -> None:
    build(source, "a")
    back_up(source, root)
    fd = os.open(root / "backup.lock", os.O_RDWR)
    assert Files().try_lock(fd)
    with pytest.raises(StorageLocked):
        back_up(source, root)
    os.close(fd)
    back_up(source, root)


def test_a_damaged_source_is_said_to_be_and_makes_no_backup(source: Path, root: Path) -> None:
    build(source, "asSasas")
    (increment,) = source.glob("increment-*")
    flip(increment, 8 * 150)
    with pytest.raises(StorageError, match="damaged at byte"):
        back_up(source, root)
    assert not list(root.glob("base-*"))


def test_a_base_can_be_repaired_like_any_directory(source: Path, root: Path, scratch: Path) -> None:
    build(source, "aaa")
    base = back_up(source, root).base
    flip(base / "increment-0000000002", 8 * 300)
    assert check(base).verdict == "damaged"
    repair(base, QuickFiles())
    assert back_up(source, root).base.name == "base-2"
    assert kept(root, scratch)[-1] == 6


def test_the_documented_facts_decode() -> None:
    files = (
        CopiedFile("snapshot-0000000001", 173, 0x37FC3F46),
        CopiedFile("increment-0000000002", 144, 0x89DE4F0F),
    )
    facts = Facts(
        source=DIRECTORY,
        taken_ms=TAKEN_MS,
        epoch=3,
        snapshot=3,
        base_record=1000,
        base_ms=1793536495789,
        record=1002,
        time_ms=1793536496789,
        block_epoch=3,
        block_table=0x264CE1A3,
        files=files,
    )
    assert decode_facts(text("telpher backup 1")) == facts
    assert encode_facts(facts) == text("telpher backup 1")


def test_every_flipped_bit_of_the_facts_is_found(source: Path, root: Path) -> None:
    build(source, "aa")
    path = back_up(source, root).base / "backup-0000000002"
    good = path.read_bytes()
    for bit in range(len(good) * 8):
        flip(path, bit)
        assert decode_facts(path.read_bytes()) is None
        path.write_bytes(good)
    flip(path, 99)
    report = back_up(source, root)
    assert report.base.name == "base-2"
    assert f"{path} does not match its checksum" in report.damage


def _is_a_file(base: Path) -> None:
    shutil.rmtree(base)
    base.write_text("what a copy has left")


SPOILT: dict[str, Callable[[Path], object]] = {
    "a bit of its facts": lambda base: flip(base / "backup-0000000002", 99),
    "a bit of its manifest": lambda base: flip(base / "manifest", 99),
    "no manifest": lambda base: (base / "manifest").unlink(),
    "no data": lambda base: (base / "increment-0000000002").unlink(),
    "half its data": lambda base: shorten(base / "increment-0000000002", 100),
    "no directory": _is_a_file,
}


@pytest.mark.parametrize("how", SPOILT)
def test_an_older_base_that_is_spoilt_stops_no_run_and_no_list(
    source: Path, root: Path, scratch: Path, how: str
) -> None:
    """It may be half removed: there is a time for that each week."""
    build(source, "aa")
    back_up(source, root)
    back_up(source, root, full=True)
    SPOILT[how](root / "base-1")
    build(source, "a")
    report = back_up(source, root)
    assert (report.base.name, report.because, report.damage) == ("base-2", "", "")
    first, second = bases(root)
    assert first.damage
    assert second.damage == ""
    assert length(root / "base-2", scratch) == 6


@pytest.mark.parametrize("how", SPOILT)
def test_where_the_newest_base_is_spoilt_another_begins_and_says_why(
    source: Path, root: Path, tmp_path: Path, scratch: Path, how: str
) -> None:
    build(source, "aa")
    back_up(source, root)
    back_up(source, root, full=True)
    SPOILT[how](root / "base-2")
    build(tmp_path / "other", "a")
    with pytest.raises(StorageError, match="another data directory"):
        back_up(tmp_path / "other", root)
    report = back_up(source, root)
    assert (report.base.name, report.because) == ("base-3", "base-2 cannot be used")
    assert report.damage
    assert back_up(source, root).because == ""
    assert length(root / "base-3", scratch) == 4


def test_a_base_with_an_older_manifest_put_back_is_left_alone(source: Path, root: Path) -> None:
    build(source, "aa")
    base = back_up(source, root).base
    older = (base / MANIFEST).read_bytes()
    build(source, "a")
    back_up(source, root)
    (base / MANIFEST).write_bytes(older)
    before = {path: path.read_bytes() for path in base.iterdir()}
    report = back_up(source, root)
    assert report.base.name == "base-2"
    assert "older one" in report.damage
    assert {path: path.read_bytes() for path in base.iterdir()} == before


def test_the_copies_claim_no_more_than_was_synced(source: Path, root: Path) -> None:
    build(source, "aasSaa")
    base = back_up(source, root).base
    manifest = decode_manifest((base / MANIFEST).read_bytes())
    assert manifest is not None
    assert manifest.synced_record == 8
    with View(base) as view:
        log = view.log()
        for header, _ in log.blocks():
            assert header.synced_record <= header.first_record


def test_a_snapshot_and_a_backup_at_once(source: Path, root: Path, scratch: Path) -> None:
    async def run() -> None:
        with opened(source) as storage:
            for _ in range(5):
                append(storage, 4)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(snapshot, storage)
                    nursery.start_soon(trio.to_thread.run_sync, lambda: back_up(source, root))

    trio.run(run)
    assert max(kept(root, scratch)) == 20


KEEP = {"retired_log_bytes": 1 << 20}


def count_of(kind: str, directory: Path) -> int:
    return len(list(directory.glob(f"{kind}-*")))


def test_with_what_is_kept_of_the_log_a_base_goes_on_over_rewrites(
    source: Path, root: Path, scratch: Path
) -> None:
    build(source, "aa", **KEEP)
    back_up(source, root)
    # Two rewrites, one of them right behind what is backed up, and an empty increment.
    build(source, "SaaraPSaS", **KEEP)
    report = back_up(source, root)
    assert (report.base.name, report.from_record, report.record) == ("base-1", 4, 12)
    build(source, "aS", clean=True, **KEEP)
    assert back_up(source, root).from_record == 12
    assert kept(root, scratch) == [14]
    assert not list((root / "base-1").glob("snapshot-*"))


def test_a_base_that_was_begun_before_the_first_record_goes_on(
    source: Path, root: Path, scratch: Path
) -> None:
    build(source, "", **KEEP)
    assert back_up(source, root).record == 0
    build(source, "aSa", **KEEP)
    assert back_up(source, root).because == ""
    assert kept(root, scratch) == [4]


def test_no_more_files_are_held_than_a_process_may_open(
    source: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_module, "OLDER_MAX", 2)
    build(source, "a", **KEEP)
    back_up(source, root)
    build(source, "aSa", **KEEP)
    assert back_up(source, root).because == ""
    build(source, "SaSaSaS", **KEEP)
    assert "rewritten" in back_up(source, root).because


def test_a_gap_in_what_is_kept_begins_a_new_base(source: Path, root: Path, scratch: Path) -> None:
    for spoil in (Path.unlink, lambda path: flip(path, 8 * 70)):
        build(source, "a", **KEEP)
        back_up(source, root)
        build(source, "aSaS", **KEEP)
        spoil(sorted(source.glob("retired-*"))[-2])
        before = len(bases(root))
        report = back_up(source, root)
        assert "rewritten" in report.because
        assert len(bases(root)) == before + 1
    assert kept(root, scratch)[-1] == _count(source)


def test_no_more_of_the_log_is_kept_than_was_asked_for(source: Path) -> None:
    build(source, "aSaSaSaS", **KEEP)
    sizes = [path.stat().st_size for path in sorted(source.glob("retired-*"))]
    assert len(sizes) == 4
    build(source, "aS", retired_log_bytes=sum(sizes[-2:]) + 200)
    left = sorted(source.glob("retired-*"))
    assert 1 <= len(left) < 4
    assert sum(path.stat().st_size for path in left) <= sum(sizes[-2:]) + 200
    build(source, "aS")
    assert not list(source.glob("retired-*"))


def test_on_a_full_disk_what_is_kept_of_the_log_goes_first(source: Path) -> None:
    class Full(QuickFiles):
        def space(self, directory: Path) -> tuple[int, int]:
            kept_bytes = sum(path.stat().st_size for path in directory.glob("retired-*"))
            return (0 if kept_bytes else 1 << 20), 1 << 30

        def unlink(self, path: Path) -> None:
            if path.name.startswith("retired"):
                assert threading.current_thread() is not threading.main_thread()
            super().unlink(path)

    build(source, "aSaS", **KEEP)
    storage = make(source, files=Full(), **KEEP)
    load(storage)
    assert count_of("retired", source) == 2
    trio.run(storage.make_room)
    assert not storage.poll_space()
    assert count_of("retired", source) == 0
    storage.close(clean=False)


def test_making_room_beside_a_snapshot_that_retires_is_no_failure(source: Path) -> None:
    """What it removes may be what the other has just listed."""
    listed, removed = threading.Event(), threading.Event()

    class Full(QuickFiles):
        is_full = False

        def space(self, directory: Path) -> tuple[int, int]:
            return (0 if self.is_full else 1 << 30), 1 << 33

        def list(self, directory: Path) -> list[str]:
            names = super().list(directory)
            if self.is_full and not listed.is_set():
                listed.set()
                assert removed.wait(10)
            return names

    async def make_room(storage: FileStorage) -> None:
        await trio.to_thread.run_sync(listed.wait)
        await storage.make_room()
        assert count_of("retired", source) == 0
        removed.set()

    async def run() -> None:
        files = Full()
        storage = make(source, files=files, **KEEP)
        load(storage)
        append(storage, 2)
        await storage.prepare_snapshot()
        upto = storage.cut()
        files.is_full = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_room, storage)
            await storage.write_snapshot(upto, state_at(upto))
        append(storage, 2)
        storage.close(clean=True)

    build(source, "aS", **KEEP)
    trio.run(run)
    assert outcome(source)[0] == "whole"


class NoSpace(QuickFiles):
    """No space for a new name that begins so, or for an old one to go, in that call to do it."""

    def __init__(self, renames: str = "none", unlinks: str = "none", at: int = 1) -> None:
        self._renames, self._unlinks, self._left = renames, unlinks, at

    def _call(self, name: str, beginning: str) -> None:
        self._left -= name.startswith(beginning)
        if name.startswith(beginning) and not self._left:
            raise OSError(errno.ENOSPC, "No space left on device")

    def rename(self, source: Path, target: Path) -> None:
        self._call(target.name, self._renames)
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._call(path.name, self._unlinks)
        super().unlink(path)


@pytest.mark.parametrize(
    ("files", "left", "is_kept"),
    [
        (NoSpace(renames="retired"), "", False),
        (NoSpace(unlinks="snapshot"), "No space", True),
    ],
)
def test_a_snapshot_that_counts_is_not_undone_by_want_of_space(
    source: Path, files: NoSpace, left: str, is_kept: bool
) -> None:
    """What it covers is then not kept, or deleted by the next one."""
    build(source, "aS")

    async def run() -> None:
        storage = make(source, files=files, **KEEP)
        load(storage)
        append(storage, 2)
        await storage.prepare_snapshot()
        upto = storage.cut()
        report = await storage.write_snapshot(upto, state_at(upto))
        assert left in report.left
        assert bool(report.left) == bool(left)
        assert count_of("snapshot", source) == (2 if left else 1)
        assert storage.read(report.positions[1]) == number(0)
        await storage.release(report.retired)
        assert count_of("retired", source) == is_kept
        assert count_of("increment", source) == 1
        append(storage, 2)
        await snapshot(storage)
        assert count_of("snapshot", source) == 1
        storage.close(clean=False)

    trio.run(run)
    assert outcome(source)[0] == "whole"


@pytest.mark.parametrize(
    ("files", "keep_bytes"),
    [(NoSpace(renames="retired", at=2), 1 << 20), (NoSpace(unlinks="retired"), 1)],
)
def test_a_start_that_finds_no_space_for_what_is_retired_goes_on(
    source: Path, files: NoSpace, keep_bytes: int
) -> None:
    """An owner was killed before it retired two increments; the first is renamed, and then ..."""
    build(source, "aPaS", **KEEP)
    for path in source.glob("retired-*"):
        path.rename(source / path.name.replace("retired", "increment"))
    storage = make(source, files=files, retired_log_bytes=keep_bytes)
    assert prefix_length(load(storage)) == 4
    assert count_of("increment", source) == 1
    storage.close(clean=False)
    assert outcome(source)[0] == "whole"


def test_an_owner_killed_while_it_retires_leaves_a_log_that_is_whole(
    source: Path, root: Path, tmp_path: Path, scratch: Path
) -> None:
    build(tmp_path / "before", "aaSaa", **KEEP)
    back_up(tmp_path / "before", tmp_path / "copied")
    build(tmp_path / "before", "a", **KEEP)
    for at in range(1, 100):
        copy(tmp_path / "before", source)
        copy(tmp_path / "copied", root)
        files = FaultyFiles(at, Killed())

        async def run(files: FaultyFiles = files) -> None:
            storage = make(source, files=files, **KEEP)
            load(storage)
            await snapshot(storage)

        with suppress(Killed):
            trio.run(run)
        files.die()
        assert length(source, scratch) == 10
        if at % 2:
            build(source, "", **KEEP)
        report = back_up(source, root)
        assert (report.base.name, report.record) == ("base-1", 10)
        assert kept(root, scratch) == [10]
        if files.calls < at:
            return
    raise AssertionError("the run has no end")
