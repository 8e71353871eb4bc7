"""What the storage tests share: small directories in every shape, opened, damaged, compared."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from telpher_storage import (
    FileStorage,
    RecoveryReport,
    StorageDamaged,
    StorageSettings,
)
from telpher_storage.files import Files

RESERVE_BYTES = 4096


class QuickFiles(Files):
    """Syncs nothing: for tests in which the machine stays up."""

    def sync_data(self, fd: int) -> None:
        pass

    def sync_directory(self, directory: Path) -> None:
        pass


def make(
    directory: Path, mode: str = "aof", files: Files | None = None, **options: Any
) -> FileStorage:
    settings = StorageSettings(directory, mode, reserve_bytes=RESERVE_BYTES, **options)
    return FileStorage(settings, journal=mode != "rdb", files=files or QuickFiles())


@dataclass
class Found:
    """What an open gave: the snapshot's chunks, the records, and the report."""

    chunks: list[bytes]
    records: list[bytes]
    report: RecoveryReport


def load(storage: FileStorage) -> Found:
    recovery = storage.open()
    chunks = [data for data, _ in recovery.snapshot]
    records = [data for data, _ in recovery.records]
    return Found(chunks, records, recovery.report)


@contextmanager
def opened(directory: Path, mode: str = "aof", files: Files | None = None) -> Iterator[FileStorage]:
    """Opened and recovered; closed as if killed."""
    storage = make(directory, mode, files)
    try:
        load(storage)
        yield storage
    finally:
        storage.close(clean=False)


def outcome(directory: Path, mode: str = "aof") -> tuple[str, Found | None]:
    """`refused`, `cut` or `whole`, and what was recovered."""
    storage = make(directory, mode)
    try:
        found = load(storage)
    except StorageDamaged:
        return "refused", None
    finally:
        storage.close(clean=False)
    return ("cut" if found.report.bytes_cut else "whole"), found


def number(index: int) -> bytes:
    """The record with a number, so that any recovered sequence can be judged."""
    return b"record-%d." % index + b"x" * (index * 7 % 40)


def append(storage: FileStorage, count: int) -> None:
    first = storage.next_record
    storage.append([number(index) for index in range(first, first + count)])


def state_at(upto: int) -> list[bytes]:
    """The chunks of a snapshot that covers the records below `upto`."""
    return [b"state to %d" % upto, *(number(index) for index in range(upto))]


async def snapshot(storage: FileStorage) -> None:
    await storage.prepare_snapshot()
    upto = storage.cut()
    await storage.write_snapshot(upto, state_at(upto))


def replayed(found: Found) -> list[bytes]:
    """The whole history: what the snapshot stands for, then the records. Checks the snapshot."""
    upto = 0
    if found.chunks:
        upto = int(found.chunks[0].split()[-1])
        assert found.chunks == state_at(upto)
    return [number(index) for index in range(upto)] + found.records


def prefix_length(found: Found) -> int:
    """How many records of the history were recovered; they must be an exact prefix."""
    history = replayed(found)
    assert history == [number(index) for index in range(len(history))]
    return len(history)


def copy(source: Path, target: Path) -> Path:
    if target.exists():
        shutil.rmtree(target)
    return Path(shutil.copytree(source, target))


def data_files(directory: Path) -> list[Path]:
    """Every file that holds state: not the lock, not the reserve."""
    found = [path for path in directory.iterdir() if path.is_file()]
    return sorted(path for path in found if path.name not in ("lock", "reserve"))


def build(
    directory: Path, script: str, mode: str = "aof", clean: bool = False, **options: Any
) -> int:
    """Run a script and return how many records were synced at its end.

    a: append 2 records, s: sync, S: a whole snapshot, P: prepare and cut only, r: reopen.
    """

    async def run() -> int:
        storage = make(directory, mode, **options)
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
            elif step == "r":
                storage.close(clean=False)
                storage = make(directory, mode, **options)
                load(storage)
        synced = storage.next_record if clean else storage.synced_record
        storage.close(clean)
        return synced

    return trio.run(run)


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))


def shorten(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def zero(path: Path, start: int) -> None:
    """One sector, or what there is of it."""
    data = bytearray(path.read_bytes())
    end = min(start + 512, len(data))
    data[start:end] = bytes(end - start)
    path.write_bytes(bytes(data))
