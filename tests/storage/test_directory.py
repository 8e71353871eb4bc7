"""The directory's own rules: one owner, nobody else may look, nothing foreign is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_storage import (
    FileStorage,
    Storage,
    StorageDamaged,
    StorageError,
    StorageFailed,
    StorageLocked,
    StorageSettings,
    open_storage,
)
from telpher_storage.check import check
from telpher_storage.clean import CLEAN
from telpher_storage.entries import entries
from telpher_storage.repair import repair
from telpher_storage.syncer import QUICK_US

from .disk import Disk
from .worlds import (
    QuickFiles,
    append,
    build,
    load,
    make,
    number,
    opened,
    outcome,
    prefix_length,
    replayed,
    snapshot,
    state_at,
)


def test_a_second_owner_is_refused_by_the_first_ones_pid(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as storage:
        append(storage, 2)
        with pytest.raises(StorageLocked, match=str(os.getpid())):
            make(tmp_path / "data").open()
        with pytest.raises(StorageLocked, match=str(os.getpid())):
            repair(tmp_path / "data")
        assert check(tmp_path / "data").locked_by == str(os.getpid())
        append(storage, 1)
    assert check(tmp_path / "data").locked_by is None
    assert outcome(tmp_path / "data")[0] == "whole"


def test_a_killed_owner_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from telpher_storage import *;"
        "s = open_storage(StorageSettings(pathlib.Path(sys.argv[1]), 'aof', 4096));"
        "r = s.open(); list(r.snapshot), list(r.records);"
        "s.append([b'kept']); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "data")], check=False)
    assert [entry.data for entry in entries(tmp_path / "data")] == [b"kept"]
    _, found = outcome(tmp_path / "data")
    assert found is not None
    assert found.records == [b"kept"]


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="thesis"):
        make(tmp_path).open()
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(StorageError, match="cannot be used"):
        make(tmp_path / "data").open()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    build(tmp_path / "data", "asSa", clean=True)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "data").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_an_unknown_back_end_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none, rdb, aof, aof\+rdb"):
        open_storage(StorageSettings(tmp_path, "aof+rbd"))


def test_a_registered_back_end_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Point:
        name = "mine"

        @staticmethod
        def load() -> object:
            return lambda settings: ("mine", settings)

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point] * (group != ""))
    wanted = StorageSettings(tmp_path, "mine")
    assert open_storage(wanted) == ("mine", wanted)


def test_modes_read_each_others_directories(tmp_path: Path) -> None:
    build(tmp_path, "asa", "aof")
    build(tmp_path, "", "rdb")
    _, found = outcome(tmp_path, "rdb")
    assert found is not None
    assert prefix_length(found) == 4
    build(tmp_path, "S", "rdb", clean=True)
    build(tmp_path, "a", "aof+rdb", clean=True)
    _, found = outcome(tmp_path, "aof+rdb")
    assert found is not None
    assert found.report.snapshot_upto == 4
    assert prefix_length(found) == 6


def test_entries_are_what_an_open_gives(tmp_path: Path) -> None:
    build(tmp_path, "asSasa")
    listed = list(entries(tmp_path))
    _, found = outcome(tmp_path)
    assert found is not None
    assert [each.data for each in listed if each.kind == "chunk"] == found.chunks
    assert [each.data for each in listed if each.kind == "record"] == found.records
    assert [each.number for each in listed if each.kind == "record"] == [2, 3, 4, 5]
    for each in listed:
        data = (tmp_path / each.file).read_bytes()
        assert data[each.offset : each.offset + len(each.data)] == each.data


def test_a_read_of_changed_bytes_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        (position,) = storage.append([b"precious"])
        path = tmp_path / "increment-0000000001"
        path.write_bytes(path.read_bytes().replace(b"precious", b"pRecious"))
        with pytest.raises(StorageDamaged, match="not what was written"):
            storage.read(position)


def test_released_positions_are_gone(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        (position,) = storage.append([number(0)])
        trio.run(snapshot, storage)
        assert storage.read(position) == number(0)
        trio.run(storage.release, [position.file])
        with pytest.raises(KeyError):
            storage.read(position)


def test_steps_of_two_snapshots_do_not_mix(tmp_path: Path) -> None:
    async def run() -> None:
        with opened(tmp_path) as storage:
            append(storage, 2)
            await storage.prepare_snapshot()
            upto = storage.cut()

            def chunks() -> Iterator[bytes]:
                yield from state_at(upto)
                with pytest.raises(StorageError, match="under way"):
                    storage.prepare_snapshot().send(None)

            await storage.write_snapshot(upto, chunks())

    trio.run(run)
    assert outcome(tmp_path)[0] == "whole"


def test_a_cut_needs_its_preparation(tmp_path: Path) -> None:
    with opened(tmp_path) as storage, pytest.raises(StorageError, match="prepare_snapshot"):
        storage.cut()


def test_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    build(tmp_path, "asS")
    (tmp_path / "snapshot-0000000004").write_bytes(b"half")
    (tmp_path / "increment-0000000001").write_bytes(b"retired")
    assert {found.kind for found in check(tmp_path).findings} == {"unlisted"}
    assert outcome(tmp_path)[0] == "whole"
    assert not (tmp_path / "snapshot-0000000004").exists()
    assert not (tmp_path / "increment-0000000001").exists()


def test_the_mark_of_an_orderly_end_is_gone_once_it_is_open(tmp_path: Path) -> None:
    build(tmp_path, "as", clean=True)
    assert (tmp_path / CLEAN).exists()
    with opened(tmp_path):
        assert not (tmp_path / CLEAN).exists()


class HeldFiles(QuickFiles):
    """Holds the next sync until it is let go; tells when it has begun."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.is_holding = False

    def sync_data(self, fd: int) -> None:
        if self.is_holding:
            self.is_holding = False
            self.begun.set()
            assert self.let_go.wait(10)


def test_a_sync_is_not_one_that_began_before_it(tmp_path: Path) -> None:
    """What is appended while a round runs is for the next one."""
    files = HeldFiles()

    async def run(storage: FileStorage) -> None:
        append(storage, 2)
        async with trio.open_nursery() as nursery:
            files.is_holding = True
            nursery.start_soon(storage.sync)
            await trio.to_thread.run_sync(files.begun.wait)
            append(storage, 2)
            nursery.start_soon(until_let_go)
            await storage.sync()
            assert storage.synced_record == 4

    async def until_let_go() -> None:
        files.let_go.set()

    with opened(tmp_path, files=files) as storage:
        trio.run(run, storage)


def test_a_failed_sync_fails_every_waiter_and_everything_after() -> None:
    disk = Disk()
    disk.directories.add("/model")
    storage = make(Path("/model/data"), "aof", disk)
    load(storage)
    failed = 0

    async def sync() -> None:
        nonlocal failed
        with pytest.raises(StorageFailed):
            await storage.sync()
        failed += 1

    async def run() -> None:
        append(storage, 1)
        disk.fail_at = {len(disk.calls): 5}
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(sync)

    trio.run(run)
    assert failed == 5
    assert storage.synced_record == 0
    with pytest.raises(StorageFailed):
        append(storage, 1)
    storage.close(clean=False)


def test_a_sync_on_the_spot_is_only_for_a_disk_that_was_quick() -> None:
    disk = Disk()
    disk.directories.add("/model")
    storage = make(Path("/model/data"), "aof", disk)
    load(storage)
    append(storage, 1)
    assert not storage.sync_if_quick()  # nothing is known of it yet
    trio.run(storage.sync)
    append(storage, 2)
    storage._syncer.last_us = QUICK_US + 1
    assert not storage.sync_if_quick()
    assert storage.synced_record < storage.next_record
    storage._syncer.last_us = QUICK_US
    assert storage.sync_if_quick()
    assert storage.synced_record == storage.next_record
    append(storage, 1)
    disk.fail_at = {len(disk.calls): 5}
    storage._syncer.last_us = QUICK_US
    with pytest.raises(StorageFailed):
        storage.sync_if_quick()
    with pytest.raises(StorageFailed):
        append(storage, 1)
    storage.close(clean=False)


def test_concurrent_syncs_share_rounds(tmp_path: Path) -> None:
    async def run(storage: Storage) -> None:
        storage.append([b"a"])
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(storage.sync)

    with opened(tmp_path) as storage:
        trio.run(run, storage)
        assert storage.statistics().syncs == 1


steps = st.lists(st.sampled_from("aaassSPr"), max_size=12).map("".join)


@settings(max_examples=60, deadline=None)
@given(script=steps, mode=st.sampled_from(["aof", "rdb"]), clean=st.booleans())
def test_any_script_is_recovered_whole(script: str, mode: str, clean: bool) -> None:
    """On the model disk, killed or closed in order: everything appended is there (aof)."""
    disk = Disk()
    disk.directories.add("/model")
    home = Path("/model/data")

    async def run() -> int:
        storage = make(home, mode, disk)
        load(storage)
        for step in script:
            if step == "a":
                append(storage, 2)
            elif step == "s":
                await storage.sync()
            elif step == "S":
                await snapshot(storage)
            elif step == "P":
                await storage.prepare_snapshot()
                storage.cut()
            else:
                storage.close(clean)
                storage = make(home, mode, disk)
                load(storage)
        count = storage.next_record
        storage.close(clean)
        return count

    appended = trio.run(run)
    storage = make(home, mode, disk)
    found = load(storage)
    storage.close(clean=False)
    assert found.report.clean == clean
    assert found.report.bytes_cut == 0
    if mode == "aof":
        assert len(replayed(found)) == appended
    assert prefix_length(found) <= appended
