"""What earlier versions wrote is read as it was, goes on, and is taken by every command.

golden/make.py says what the directories are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from telpher_broker.engine.ports import Ports
from telpher_broker.schemas import compile_schema
from telpher_storage import Position
from telpher_storage.backup import backup
from telpher_storage.check import check
from telpher_storage.file_header import VERSION, VERSIONS_READ, decode_file_header
from telpher_storage.repair import repair
from telpher_storage.restore import restore
from tests.daemon.process import serving

from ..engine.driver import Driver, every
from .everything import SETTINGS, Life
from .golden.make import FOLDER, KINDS, names, text_of
from .stored import digest, load
from .worlds import QuickFiles, copy, make

NAMES = names()


def mode_of(name: str) -> str:
    return KINDS[name.partition("-")[2]][0]


class Started(Driver):
    """A broker that was started on a directory: the production engine on the production storage."""

    def __init__(self, directory: Path, mode: str) -> None:
        unspilled = {"memory_limit_bytes": 1 << 40} if mode == "rdb" else {}
        super().__init__(**SETTINGS | unspilled)
        self.storage = make(directory, mode)
        ports = Ports(lambda place: self.storage.read(place), every, compile_schema)
        self.engine, self.report = load(self.storage, self.settings, ports)
        self.now_ms += 3_600_000
        self.engine.at(self.now_ms)
        self.engine.started()

    def keep(self, records: list[bytes]) -> list[Position]:
        return self.storage.append(records, self.now_ms) if records else []

    def snapshot(self) -> None:
        async def run() -> None:
            await self.storage.prepare_snapshot()
            upto = self.storage.cut()
            frozen = self.engine.freeze()
            report = await self.storage.write_snapshot(upto, frozen)
            for _ in frozen.move(report.positions):
                pass
            await self.storage.release(report.retired)

        trio.run(run)


def versions(directory: Path) -> set[int]:
    """Of the files in a directory."""
    headers = [decode_file_header(path.read_bytes()) for path in directory.glob("*-??????????")]
    return {header.version for header in headers if header is not None}


def test_there_are_directories_of_every_version() -> None:
    assert {int(name.partition("-")[0]) for name in NAMES} == set(VERSIONS_READ)
    assert len(NAMES) == len(VERSIONS_READ) * len(KINDS)
    for name in NAMES:
        assert versions(FOLDER / name) == {int(name.partition("-")[0])}
        assert all(path.stat().st_size < 50_000 for path in (FOLDER / name).iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_what_it_held(tmp_path: Path, name: str) -> None:
    directory = copy(FOLDER / name, tmp_path / "data")
    expected = {"clean": "sound", "killed": "torn", "rdb": "sound"}[name.partition("-")[2]]
    assert check(directory).verdict == expected
    assert text_of(directory) == (FOLDER / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_broker_goes_on_with_it(tmp_path: Path, name: str) -> None:
    """Over a kill, with files of both versions, and over a snapshot that leaves the old behind."""
    mode = mode_of(name)
    directory = copy(FOLDER / name, tmp_path / "data")
    broker = Started(directory, mode)
    assert bool(broker.report.bytes_cut) == name.endswith("killed")
    life = Life(broker, "z")  # type: ignore[arg-type]
    life.some()
    before = digest(broker.engine)
    if mode != "rdb":
        broker.storage.close(clean=False)
        if not name.startswith(f"{VERSION}-"):
            assert len(versions(directory)) == 2
        assert check(directory).verdict == "sound"
        broker = Started(directory, mode)
        assert digest(broker.engine) == before
    broker.snapshot()
    assert versions(directory) == {VERSION}
    broker.storage.close(clean=True)
    broker = Started(directory, mode)
    assert digest(broker.engine) == before
    broker.storage.close(clean=False)


@pytest.mark.parametrize("name", NAMES)
def test_it_needs_no_repair_and_can_be_backed_up_and_restored(tmp_path: Path, name: str) -> None:
    directory = copy(FOLDER / name, tmp_path / "data")
    assert repair(directory, QuickFiles()).folder is None
    base = backup(directory, tmp_path / "backups", 0, files=QuickFiles()).base
    restore(base, tmp_path / "new", files=QuickFiles())
    for written in (base, tmp_path / "new"):
        assert versions(written) == {VERSION}
        assert check(written).verdict == "sound"
        assert text_of(written) == (FOLDER / f"{name}.txt").read_text()


def test_a_backup_goes_on_over_the_change_of_the_version(tmp_path: Path) -> None:
    directory = copy(FOLDER / "1-clean", tmp_path / "data")
    first = backup(directory, tmp_path / "backups", 0, files=QuickFiles())
    broker = Started(directory, "aof+rdb")
    Life(broker, "z").some()  # type: ignore[arg-type]
    second = backup(directory, tmp_path / "backups", 0, files=QuickFiles())
    assert (second.base, second.from_record) == (first.base, first.record)
    restore(tmp_path / "backups", tmp_path / "new", files=QuickFiles())
    assert digest(Started(tmp_path / "new", "aof+rdb").engine) == digest(broker.engine)


def test_the_daemon_starts_on_the_first_version(tmp_path: Path) -> None:
    from telpher.sync import connect

    copy(FOLDER / "1-killed", tmp_path / "data")
    with serving(tmp_path, "--trust-unix-socket") as daemon:
        with connect(daemon.unix_url) as bus:
            bus.publish("sourceb", b"new")
            found: list[Any] = bus.fetch("sourceb", max=10, wait=1)
        daemon.kill()
    assert [message.body for message in found] == [b"next", b"again", b"new"]
