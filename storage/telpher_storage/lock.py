"""One owner at a time: an exclusive flock on the file `lock`, which holds the owner's pid.

The system releases it when the process ends, however it ends, so a left-over file means nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from .api import StorageLocked
from .files import LOCK, NO_SPACE, READ, Files

LOCK_NAME = "lock"
# As many as the largest pid has on Linux and macOS.
_PID_CHARACTERS = 7


class DirectoryLock:
    """Held from construction to `release`. Raises `StorageLocked`, OSError."""

    def __init__(self, files: Files, directory: Path, name: str = LOCK_NAME) -> None:
        self._files = files
        self._fd = files.open(directory / name, LOCK)
        if not files.try_lock(self._fd):
            owner = files.read(self._fd, 32, 0).decode("ascii", "replace").strip()
            files.close(self._fd)
            raise StorageLocked(
                f"{directory} is in use by process {owner or 'unknown'}: stop it, or name another "
                "directory"
            )
        try:
            files.truncate(self._fd, 0)
            self._write_pid()
        except OSError:
            files.close(self._fd)
            raise

    def _write_pid(self) -> None:
        """For whoever is refused; on a full disk it is left out. Of one width, so that what a test
        draws of a directory's bytes does not hang on how many processes there were before."""
        try:
            self._files.write(self._fd, f"{os.getpid():<{_PID_CHARACTERS}}\n".encode("ascii"))
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise

    def release(self) -> None:
        self._files.close(self._fd)


def lock_owner(files: Files, directory: Path) -> str | None:
    """The pid of the live process that holds the lock, None if nobody does. Changes nothing."""
    try:
        fd = files.open(directory / LOCK_NAME, READ)
    except FileNotFoundError:
        return None
    try:
        if files.try_lock(fd):
            return None
        return files.read(fd, 32, 0).decode("ascii", "replace").strip()
    finally:
        files.close(fd)
