"""The directory itself: making it ours, and taking files out of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from .api import StorageError
from .clean import CLEAN
from .file_header import parse_name
from .files import WRITE, Files
from .lock import LOCK_NAME
from .manifest import MANIFEST, MANIFEST_TEMPORARY, remove_if_there
from .reserve import RESERVE

COPY_BYTES = 4 * 1024 * 1024
_OURS = frozenset({LOCK_NAME, MANIFEST, MANIFEST_TEMPORARY, RESERVE, CLEAN})


def adopt_directory(files: Files, path: Path) -> None:
    """Make it, or see that it is empty or ours; see that nobody else may look into it.

    Raises `StorageError` for a directory with other things in it and nothing of ours, OSError.
    """
    mode = files.directory_mode(path)
    if mode is None:
        files.make_directory(path)
        return
    refuse_foreign(files, path)
    if mode & 0o077:
        files.restrict(path, 0o700)


def sync_name(files: Files, path: Path) -> None:
    """Put the directory's own name on the disk: who made it may not have lived to. OSError.

    A parent that we may not read is of somebody who made the directory for us.
    """
    with contextlib.suppress(PermissionError):
        files.sync_directory(path.parent)


def refuse_foreign(files: Files, path: Path) -> None:
    """Raise `StorageError` for a directory with other things in it and nothing of ours."""
    names = files.list(path)
    if not names or any(name in _OURS or parse_name(name) for name in names):
        return
    bases = sorted(name for name in names if name.startswith("base-"))
    if bases:
        raise StorageError(f"{path} holds backups: name one of them, such as {path / bases[-1]}")
    raise StorageError(
        f"{path} holds other files ({names[0]}, ...) and no manifest of ours: it is no data "
        "directory; a new one begins in an empty directory, or where there is none"
    )


def remove_names(files: Files, path: Path, names: Iterable[str]) -> None:
    """Delete files that the manifest does not name. Raises OSError."""
    removed = [remove_if_there(files, path / name) for name in names]
    if any(removed):
        files.sync_directory(path)


def set_aside(files: Files, path: Path, folder: str, names: Iterable[str]) -> None:
    """Move files into a folder of the directory. Raises OSError."""
    target = path / folder
    for name in names:
        if files.directory_mode(target) is None:
            files.make_directory(target)
        files.rename(path / name, target / name)
        files.sync_directory(target)
    files.sync_directory(path)


def settle_increment(
    files: Files, path: Path, cut_offset: int | None, unproven_offset: int | None
) -> int:
    """Put on the disk what recovery has read of it, cut at `cut_offset`; its length. OSError.

    What no sync is proven to have covered, from `unproven_offset` on, is written once more: a sync
    of it may have failed, and then the system holds it for written and the next sync leaves it out.
    """
    fd = files.open(path, WRITE)
    try:
        if cut_offset is not None:
            files.truncate(fd, cut_offset)
        size = files.size(fd)
        if unproven_offset is not None:
            _write_again(files, fd, unproven_offset, size)
        files.sync_data(fd)
        return size
    finally:
        files.close(fd)


def _write_again(files: Files, fd: int, start: int, end: int) -> None:
    while start < end:
        data = files.read(fd, min(COPY_BYTES, end - start), start)
        start += files.overwrite(fd, data, start)


def close_quietly(files: Files, fd: int) -> None:
    """Close a descriptor from which nothing is expected any more."""
    with contextlib.suppress(OSError):
        files.close(fd)


def close_all_quietly(files: Files, fds: Iterable[int]) -> None:
    """Close descriptors from which nothing is expected any more."""
    for fd in fds:
        close_quietly(files, fd)
