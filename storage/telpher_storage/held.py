"""A directory as it was at one moment, though its owner goes on: for backups of a running broker.

What a view needs is there already: increments only grow, snapshots never change, and a
file that was deleted can still be read by who has it open. So it is the manifest, all its files
open, and how long each was. If the manifest has not changed meanwhile, these belong together: the
last increment may end within a block that is just being written, which recovery takes for the torn
tail that it is; all that was appended before the moment is there.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from .api import RecoveryReport, StorageDamaged, StorageError
from .clean import CleanMarker
from .directory import close_all_quietly
from .file_header import FILE_HEADER_BYTES, INCREMENT, SNAPSHOT, increment_name, parse_name
from .files import READ, Files
from .manifest import MANIFEST, Manifest, data_names, encode_manifest, read_small
from .recovery import LogRecovery, OpenFile, load_clean, load_manifest
from .retired import parse_retired_name

OLDER_MAX = 500  # of retired files: each takes an open file
TRIES = 100  # each takes about a millisecond; a manifest changes twice in a snapshot


class HeldFiles(Files):
    """The data files of a directory, each as long as it was. Only for reading."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, tuple[int, int]] = {}
        self._lengths: dict[int, int] = {}

    def hold(self, name: str, stored_as: str | None = None) -> None:
        """Open a file for good. Raises `StorageDamaged` if it is missing, OSError."""
        with OpenFile(Files(), self._directory, stored_as or name) as fd:
            self._held[name] = (os.dup(fd), super().size(fd))

    def open(self, path: Path, flags: int) -> int:
        held, length_bytes = self._held[path.name]
        if flags != READ:
            raise PermissionError(1, "a view is only read", str(path))
        fd = os.dup(held)
        self._lengths[fd] = length_bytes
        return fd

    def size(self, fd: int) -> int:
        return self._lengths[fd]

    def read(self, fd: int, length_bytes: int, offset: int) -> bytes:
        length_bytes = min(length_bytes, self._lengths[fd] - offset)
        return super().read(fd, length_bytes, offset) if length_bytes > 0 else b""

    def close(self, fd: int) -> None:
        del self._lengths[fd]
        super().close(fd)

    def let_go(self) -> None:
        """Close what is held."""
        close_all_quietly(Files(), [fd for fd, _ in self._held.values()])
        self._held.clear()


class View:
    """The log of a directory at one moment. Raises `StorageDamaged`, `StorageError`, OSError.

    A directory whose owner has ended is seen as its next open would see it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for _ in range(TRIES):
            before = read_small(Files(), directory / MANIFEST)
            try:
                found = _view(directory)
            except StorageDamaged:
                found = None
                if read_small(Files(), directory / MANIFEST) == before:
                    raise
            if found is None:
                continue
            self.manifest, self._clean, self._files, self._older = found
            if self.is_of_now():
                return
            self._files.let_go()
        raise StorageError(f"{directory} changes all the time; try again")

    def is_of_now(self) -> bool:
        """Whether the manifest is still the same: no other file, and no other owner."""
        return read_small(Files(), self.directory / MANIFEST) == encode_manifest(self.manifest)

    def log(self) -> LogRecovery:
        """To be read once; a further one begins anew."""
        return self._log_of(self.manifest, self._clean)

    def _log_of(self, manifest: Manifest, clean: CleanMarker | None = None) -> LogRecovery:
        return LogRecovery(self._files, self.directory, manifest, clean, RecoveryReport())

    def log_from_before(self, record: int) -> LogRecovery:
        """The log with what was retired of it, if that goes on without a gap: from before a record
        on, or as far back as there is something. There is no snapshot in it.
        """
        manifest = self.manifest
        first, increments = manifest.upto, manifest.increments
        for generation in reversed(self._older):
            if first < record:
                break
            found = self._first_of(generation, first)
            if found is None:
                break
            first, increments = found, (generation, *increments)
        longer = replace(manifest, snapshot=None, upto=first, increments=increments)
        return self._log_of(longer, self._clean)

    def _first_of(self, generation: int, end: int) -> int | None:
        """The first record of a retired increment, if it is whole and `end` comes behind it."""
        name = increment_name(generation)
        log = self._log_of(self.manifest)
        with OpenFile(self._files, self.directory, name) as fd:
            try:
                log.check_header(fd, name, INCREMENT, generation)
            except StorageDamaged:
                return None
            reader = log.reader(fd, name, generation)
            header = reader.header_at(FILE_HEADER_BYTES)
            first = reader.expected = end if header is None else header.first_record
            for _ in reader.blocks():
                pass
            return None if reader.damage is not None or reader.expected != end else first

    def __enter__(self) -> View:
        return self

    def __exit__(self, *exc: object) -> None:
        self._files.let_go()


def _view(
    directory: Path,
) -> tuple[Manifest, CleanMarker | None, HeldFiles, list[int]] | None:
    """None if a file that was there is not any more."""
    files = Files()
    manifest = load_manifest(files, directory)
    if manifest is None:
        raise StorageError(f"{directory} holds no data of Telpher")
    clean = load_clean(files, directory, manifest)
    held = HeldFiles(directory)
    try:
        for name in data_names(manifest):
            held.hold(name)
        older = _hold_older(files, directory, manifest, held)
    except BaseException:
        held.let_go()
        raise
    if older is None:
        held.let_go()
        return None
    return manifest, clean, held, older


def _hold_older(
    files: Files, directory: Path, manifest: Manifest, held: HeldFiles
) -> list[int] | None:
    """Hold what was retired, also what has not got its name as such yet; the generations.

    A file that is renamed while the names are listed may be listed twice, or not at all.
    """
    older = _older_names(files, directory, manifest)
    try:
        for generation, name in older.items():
            held.hold(increment_name(generation), name)
    except StorageDamaged:
        return None
    return sorted(older) if older == _older_names(files, directory, manifest) else None


def _older_names(files: Files, directory: Path, manifest: Manifest) -> dict[int, str]:
    """The name of each generation that a snapshot covers, the newest."""
    older = {}
    for name in files.list(directory):
        kind, generation = parse_name(name) or (b"", parse_retired_name(name))
        if generation and kind != SNAPSHOT and generation not in manifest.increments:
            older[generation] = name
    return dict(sorted(older.items())[-OLDER_MAX:])
