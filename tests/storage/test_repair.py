"""Repair keeps what can be kept, whatever it finds, and loses nothing if it is cut short."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from telpher_storage import StorageDamaged
from telpher_storage.check import check
from telpher_storage.file_header import increment_name, parse_name, snapshot_name
from telpher_storage.manifest import MANIFEST, decode_manifest, encode_manifest
from telpher_storage.repair import repair

from .disk import Disk
from .stored import HOME, new_disk
from .worlds import QuickFiles, append, build, load, make, outcome, prefix_length, snapshot


def recovered(directory: Path, mode: str = "aof") -> int:
    """How many records are there after a repair; a second open must find them, too."""
    happened, found = outcome(directory, mode)
    assert happened == "whole"
    assert found is not None
    assert outcome(directory, mode)[0] == "whole"
    return prefix_length(found)


def test_a_lost_manifest_of_a_snapshot_alone_is_made_anew(tmp_path: Path) -> None:
    """The snapshot tells the epoch where no block of the log does."""
    build(tmp_path, "aar", "aof")
    build(tmp_path, "S", "rdb")
    (tmp_path / MANIFEST).unlink()
    repair(tmp_path, QuickFiles())
    assert recovered(tmp_path, "rdb") == 4


def test_beside_an_older_manifest_what_the_files_hold_is_kept(tmp_path: Path) -> None:
    """By it alone nothing is there, and the next open would have removed the snapshot."""
    build(tmp_path, "aas", "aof")
    older = (tmp_path / MANIFEST).read_bytes()
    build(tmp_path, "S", "rdb")
    (tmp_path / MANIFEST).write_bytes(older)
    report = repair(tmp_path, QuickFiles())
    assert report.lost_from == recovered(tmp_path, "rdb") == 4
    assert [dropped.file for dropped in report.dropped] == [MANIFEST]


def test_beside_the_manifest_of_another_directory_everything_is_kept(tmp_path: Path) -> None:
    build(tmp_path / "other", "aSas")
    build(tmp_path / "log", "asSas")
    other = (tmp_path / "other" / MANIFEST).read_bytes()
    (tmp_path / "log" / MANIFEST).write_bytes(other)
    assert outcome(tmp_path / "log")[0] == "refused"
    assert repair(tmp_path / "log", QuickFiles()).lost_from == 4
    assert recovered(tmp_path / "log") == 4


@pytest.mark.parametrize("script", ["aaSaS", "raaS"])
def test_an_older_manifest_that_knows_no_snapshot_is_refused(tmp_path: Path, script: str) -> None:
    """It would open as empty, and remove the snapshot as left over."""
    build(tmp_path, "", "rdb")
    older = (tmp_path / MANIFEST).read_bytes()
    build(tmp_path, script, "rdb")
    (tmp_path / MANIFEST).write_bytes(older)
    assert check(tmp_path).verdict == "damaged"
    assert outcome(tmp_path, "rdb")[0] == "refused"
    repair(tmp_path, QuickFiles())
    assert recovered(tmp_path, "rdb") >= 2


def test_what_a_crash_left_unnamed_is_moved_aside_and_not_removed_later(tmp_path: Path) -> None:
    build(tmp_path, "aSa")
    left = tmp_path / snapshot_name(9)
    left.write_bytes(b"half a snapshot")
    manifest = decode_manifest((tmp_path / MANIFEST).read_bytes())
    assert manifest is not None
    (tmp_path / snapshot_name(manifest.snapshot or 0)).write_bytes(b"")
    report = repair(tmp_path, QuickFiles())
    assert report.folder is not None
    assert (report.folder / left.name).read_bytes() == b"half a snapshot"


class Killed(BaseException):
    """The process ends here."""


def damaged_disk(kind: str) -> Disk:
    """Three increments behind a snapshot, and something amiss in the second or above them all."""
    disk = new_disk()

    async def run() -> None:
        storage = make(HOME, "aof", disk)
        load(storage)
        append(storage, 2)
        await snapshot(storage)
        for _ in range(3):
            append(storage, 2)
            await storage.sync()
            await storage.prepare_snapshot()
            storage.cut()
        append(storage, 2)
        storage.close(clean=True)

    trio.run(run)
    content = disk.content()
    manifest = decode_manifest(content[f"{HOME}/{MANIFEST}"])
    assert manifest is not None
    assert len(manifest.increments) == 4
    second = f"{HOME}/{increment_name(manifest.increments[1])}"
    if kind == "block":
        content[second] = content[second][:-1] + b"?"
    elif kind == "missing":
        del content[second]
    elif kind == "snapshot":
        content[f"{HOME}/{snapshot_name(manifest.snapshot or 0)}"] = b""
    else:
        older = encode_manifest(manifest).replace(b"increment", b"Increment", 1)
        content[f"{HOME}/{MANIFEST}"] = older
    return Disk(content)


@pytest.mark.parametrize("kind", ["block", "missing", "snapshot", "manifest"])
def test_repair_may_be_killed_at_any_call_and_loses_nothing(kind: str) -> None:
    """Whatever was there before is there after a start and another repair: in the log or aside."""
    whole = damaged_disk(kind)
    repair(HOME, whole)
    count = len(whole.calls)
    repaired = start(whole)
    for index in range(count):
        disk = damaged_disk(kind)
        before = {
            name: data for name, data in disk.content().items() if parse_name(Path(name).name)
        }

        def kill(call: str, disk: Disk = disk, index: int = index) -> None:
            if len(disk.calls) == index + 1:
                raise Killed

        disk.before_call = kill
        try:
            repair(HOME, disk)
        except Killed:
            disk = disk.restarted()
        found = start(disk)
        if found is None:
            disk = disk.restarted()
            repair(HOME, disk)
            found = start(disk)
        assert found == repaired, (kind, index)
        left = list(disk.restarted().content().values())
        for name, data in before.items():
            half = len(data) // 2
            for piece in (data[48:half], data[half:-1]):
                assert any(piece in one for one in left), (kind, index, name)


def start(disk: Disk) -> list[bytes] | None:
    """The records after the snapshot, None if it refuses."""
    storage = make(HOME, "aof", disk)
    try:
        return load(storage).records
    except StorageDamaged:
        return None
    finally:
        storage.close(clean=False)
