"""Increments that a snapshot has retired, kept for a while under the name `retired-GENERATION`.

They are no part of the log. Backups read them, so as to go on without a gap over a rewrite. All
functions raise OSError.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .directory import remove_names
from .file_header import INCREMENT, increment_name, parse_name
from .files import NO_SPACE, READ, Files
from .manifest import Manifest

_NAME = re.compile(r"retired-([0-9]{10})")


def retired_name(generation: int) -> str:
    return f"retired-{generation:010}"


def parse_retired_name(name: str) -> int:
    """Its generation; 0 for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else 0


def retired_files(files: Files, path: Path) -> list[int]:
    """The generations of those that there are, oldest first."""
    return [number for name in files.list(path) if (number := parse_retired_name(name))]


def covered_by_snapshot(manifest: Manifest, left: Iterable[str]) -> list[int]:
    """Those of the files left by a crash that are increments before the snapshot.

    What comes before all increments of the log is that, and nothing else: what recovery or repair
    takes out of the log comes behind one that stays, or there is no snapshot.
    """
    if manifest.snapshot is None or not manifest.increments:
        return []
    parsed = filter(None, map(parse_name, left))
    increments = [generation for kind, generation in parsed if kind == INCREMENT]
    return sorted(number for number in increments if number < manifest.increments[0])


def retire(files: Files, path: Path, generations: Iterable[int], keep_bytes: int) -> list[str]:
    """Keep these, and of all so many bytes, the newest; the names of what is to be deleted.

    One that is not there was renamed by an attempt before; one for whose new name there is no space
    is not kept. `remove_retired` may be at work at the same time.
    """
    names = []
    for generation in generations:
        if not keep_bytes or not _keep(files, path, generation):
            names.append(increment_name(generation))
    for generation in reversed(retired_files(files, path)):
        name = retired_name(generation)
        keep_bytes -= _size(files, path / name)
        if keep_bytes < 0:
            names.append(name)
    return names


def _keep(files: Files, path: Path, generation: int) -> bool:
    """Whether there was space for it."""
    try:
        files.rename(path / increment_name(generation), path / retired_name(generation))
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        return False
    return True


def _size(files: Files, path: Path) -> int:
    """0 for one that has gone meanwhile."""
    try:
        fd = files.open(path, READ)
    except FileNotFoundError:
        return 0
    try:
        return files.size(fd)
    finally:
        files.close(fd)


def remove_retired(files: Files, path: Path) -> None:
    """Make room. Takes its time, by the gigabyte."""
    remove_names(files, path, map(retired_name, retired_files(files, path)))
