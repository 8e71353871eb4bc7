"""A directory as it was at one moment, though its owner goes on: for backups of a running broker.

What a view needs to be one is there already: increments only grow, snapshots never change, and a
file that was deleted can still be read by who has it open. So it is the manifest, all its files
open, and how long each was. If the manifest has not changed meanwhile, these belong together: the
last increment may end within a block that is just being written, which recovery takes for the torn
tail that it is; all that was appended before the moment is there.
"""

from __future__ import annotations

import os
from pathlib import Path

from .api import RecoveryReport, StorageDamaged, StorageError
from .clean import CleanMarker
from .directory import close_all_quietly
from .files import READ, Files
from .manifest import MANIFEST, Manifest, data_names, read_small
from .recovery import LogRecovery, OpenFile, load_clean, load_manifest

TRIES = 100  # each takes about a millisecond; a manifest changes twice in a snapshot


class HeldFiles(Files):
    """The data files of a directory, each as long as it was. Only for reading."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, tuple[int, int]] = {}
        self._lengths: dict[int, int] = {}

    def hold(self, name: str) -> None:
        """Open a file for good. Raises `StorageDamaged` if it is missing, OSError."""
        with OpenFile(Files(), self._directory, name) as fd:
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
            self.manifest, self._clean, self._files = found
            if read_small(Files(), directory / MANIFEST) == before:
                return
            self._files.let_go()
        raise StorageError(f"{directory} changes all the time; try again")

    def log(self) -> LogRecovery:
        """To be read once; a further one begins anew."""
        report = RecoveryReport()
        return LogRecovery(self._files, self.directory, self.manifest, self._clean, report)

    def __enter__(self) -> View:
        return self

    def __exit__(self, *exc: object) -> None:
        self._files.let_go()


def _view(directory: Path) -> tuple[Manifest, CleanMarker | None, HeldFiles]:
    files = Files()
    manifest = load_manifest(files, directory)
    if manifest is None:
        raise StorageError(f"{directory} holds no data of Telpher")
    clean = load_clean(files, directory, manifest)
    held = HeldFiles(directory)
    try:
        for name in data_names(manifest):
            held.hold(name)
    except BaseException:
        held.let_go()
        raise
    return manifest, clean, held
