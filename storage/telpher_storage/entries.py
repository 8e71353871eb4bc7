"""Everything a directory holds, in order, for dumps. Read-only, and needs no lock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .api import Entry, RecoveryReport, StorageError
from .directory import refuse_foreign
from .file_header import increment_name, snapshot_name
from .files import Files
from .recovery import LogRecovery, load_clean, load_manifest


class StoredEntry(NamedTuple):
    """`kind` is `chunk` or `record`, `number` counts each kind, `offset` is where `data` lies."""

    kind: str
    number: int
    file: str
    offset: int
    data: bytes


def entries(directory: Path, files: Files | None = None) -> Iterator[StoredEntry]:
    """The snapshot's chunks, then the records after it, as opening would give them.

    Stops where opening would cut a torn tail. Raises `StorageDamaged` where it would refuse, and
    `StorageError` for a directory that is somebody else's or cannot be read.
    """
    files = files or Files()
    try:
        refuse_foreign(files, directory)
        yield from _entries(files, directory)
    except OSError as error:
        raise StorageError(f"{directory} cannot be read: {error}") from error


def _entries(files: Files, directory: Path) -> Iterator[StoredEntry]:
    manifest = load_manifest(files, directory)
    if manifest is None:
        return
    clean = load_clean(files, directory, manifest)
    log = LogRecovery(files, directory, manifest, clean, RecoveryReport())
    yield from _named("chunk", 0, log.snapshot())
    yield from _named("record", manifest.upto, log.records())


def _named(kind: str, number: int, found: Iterator[Entry]) -> Iterator[StoredEntry]:
    name_of = snapshot_name if kind == "chunk" else increment_name
    for data, position in found:
        if position is not None:
            yield StoredEntry(kind, number, name_of(position.file), position.offset, data)
        number += 1
