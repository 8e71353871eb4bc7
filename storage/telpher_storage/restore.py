"""A data directory out of a backup, as it is now or as it was at a record or a time.

What is restored goes on as a history of its own: it has another identity than the backup and than
what the backup was taken from, so no file of these can get among its own by mistake.

A point lies between two blocks: what was written as one (a round's records, so a transaction too)
is restored whole or not at all. All of the base is read and checked before anything is written.
A new directory gets its name when all of it is on the disk. One that is there keeps its place and
its owner, as it may be a volume: it is built within, and no broker starts on it before the manifest
is moved up, which is the last that is.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from .api import StorageError
from .backup import Base, base_paths, find_base, load_base, remove_all, see_parent
from .directory import remove_names
from .file_header import parse_name
from .files import Files
from .held import View
from .manifest import MANIFEST, MANIFEST_TEMPORARY, Manifest, encode_manifest, replace_small
from .recovery import LogRecovery
from .transcript import checksum_of, read_back, write_increment, write_snapshot


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """All records below `record` were restored from `base`, the last of them written at `time_ms`;
    `given_up` more are in the base and come after it.
    """

    base: Path
    directory: Path
    record: int
    time_ms: int
    given_up: int
    seconds: float


class Target(NamedTuple):
    """How far to restore: up to a record, that one included, or a time, or (None, None) all."""

    record: int | None = None
    time_ms: int | None = None


ALL = Target()
WITHIN = "restore.partial"


class _Point(NamedTuple):
    """Where the log is to end: before `record`, the last block being of `time_ms`."""

    record: int
    time_ms: int


def restore(
    backup: Path, directory: Path, target: Target = ALL, files: Files | None = None
) -> RestoreReport:
    """Make `directory`, which may be there if it is empty, out of a backup root, one base of it,
    or any data directory. Raises `StorageDamaged`, `StorageError`; no broker starts on what is
    there then, and the next attempt removes it.
    """
    files = files or Files()
    began = perf_counter()
    directory = directory.absolute()
    try:
        partial = _make_room(files, directory)
        base, newer = _choose(files, backup, target)
        _check_files(files, base)
        with View(base.path) as view:
            point, whole = _find(view, base, newer, target)
            _build(files, view, partial, directory, point)
        _put_in_place(files, partial, directory)
    except OSError as error:
        raise StorageError(f"{backup} cannot be restored to {directory}: {error}") from error
    given_up = whole - point.record
    return RestoreReport(base.path, directory, *point, given_up, perf_counter() - began)


def _make_room(files: Files, directory: Path) -> Path:
    """Where to build it; nothing may be there that would be lost."""
    if files.directory_mode(directory) is None:
        see_parent(files, directory)
        partial = directory.with_name(directory.name + ".partial")
    else:
        partial = directory / WITHIN
        _see_empty(files, directory, partial)
    if files.directory_mode(partial) is not None:
        ours = (MANIFEST, MANIFEST_TEMPORARY)
        foreign = [name for name in files.list(partial) if not (parse_name(name) or name in ours)]
        if foreign:
            raise StorageError(f"{partial} is in the way, with {foreign[0]} in it; move it away")
        remove_all(files, partial)
    return partial


def _see_empty(files: Files, directory: Path, partial: Path) -> None:
    """But for what an attempt has moved up that ended before it moved the manifest."""
    names = [name for name in files.list(directory) if name != partial.name]
    if not names:
        return
    is_unfinished = (
        all(map(parse_name, names))
        and files.directory_mode(partial) is not None
        and MANIFEST in files.list(partial)
    )
    if not is_unfinished:
        raise StorageError(
            f"{directory} is not empty; name an empty directory or a new one, or move it away first"
        )
    remove_names(files, directory, names)


def _choose(files: Files, backup: Path, target: Target) -> tuple[Base, Base | None]:
    """The newest base that reaches back to the target, and the next one, which does not."""
    if MANIFEST in files.list(backup):
        return load_base(backup, files), None
    paths = base_paths(backup, files)
    if not paths:
        raise StorageError(f"there is no backup in {backup}, and it is no data directory")
    newer = None
    while True:
        base = find_base(paths.pop(), files)
        if paths and base.runs and not _reaches_back(base, target):
            newer = base
            continue
        if base.unusable:
            as_it_is = "" if base.damage else "what is in it now, or "
            raise StorageError(
                f"{base.path} cannot be used: {base.unusable}. To restore {as_it_is}from another "
                f"base, name that one; see what there is by: telpher backups {backup}"
            )
        return base, newer  # the oldest will say itself how far it reaches back


def _reaches_back(base: Base, target: Target) -> bool:
    first = base.runs[0]
    if target.record is not None and first.base_record > target.record + 1:
        return False
    return not (target.time_ms is not None and first.base_ms > target.time_ms)


def _check_files(files: Files, base: Base) -> None:
    """See that the files are those that the backup made, if no broker has used them since."""
    if not base.is_as_it_was_left:
        return
    for run in base.runs:
        for name, size, checksum in run.files:
            if checksum_of(files, base.path / name) != (size, checksum):
                raise StorageError(
                    f"{base.path / name} is not what the backup wrote; "
                    f"see what is wrong with it by: telpher check {base.path}"
                )


def _find(view: View, base: Base, newer: Base | None, target: Target) -> tuple[_Point, int]:
    """Read all of the log; where it is to end, and where it does. Raises `StorageError`."""
    log = view.log()
    for _ in log.snapshot_blocks():
        pass
    point, is_beyond = _Point(log.manifest.upto, log.time_ms), False
    for header, _ in log.blocks():
        end = header.end
        is_beyond = is_beyond or (
            (target.record is not None and end > target.record + 1)
            or (target.time_ms is not None and header.time_ms > target.time_ms)
        )
        if not is_beyond:
            point = _Point(end, header.time_ms)
    if target.record is not None:
        _see_record(view, newer, log, target.record)
    if target.time_ms is not None:
        _see_time(view, base, newer, point, target.time_ms, is_beyond)
    return point, log.next_record


def _see_record(view: View, newer: Base | None, log: LogRecovery, record: int) -> None:
    first, end = log.manifest.upto, log.next_record
    if record >= end:
        if newer is not None:
            begins = f"all up to record {newer.runs[0].base_record - 1}"
            raise _between(f"record {record}", view, f"with record {end - 1}", newer, begins)
        raise StorageError(
            f"{view.directory} ends with record {end - 1}; it has no {record}. To restore all of "
            "it, name no record"
        )
    if record < first - 1:
        raise StorageError(
            f"{view.directory} begins with a snapshot of all up to record {first - 1}; "
            f"for record {record}, restore from an earlier backup"
        )


def _between(asked: str, view: View, ends: str, newer: Base, begins: str) -> StorageError:
    return StorageError(
        f"{asked} lies between {view.directory}, which ends {ends}, and {newer.path}, which begins "
        f"with a snapshot of {begins}. To restore all of the former, name it and no point: telpher "
        f"restore {view.directory} DIR"
    )


def _see_time(
    view: View, base: Base, newer: Base | None, point: _Point, time_ms: int, is_beyond: bool
) -> None:
    is_backup = base.is_as_it_was_left
    known_ms = max(point.time_ms, base.runs[-1].taken_ms if is_backup else 0)
    if point.record == 0:
        raise StorageError(f"{view.directory} begins after {_shown(time_ms)}, with nothing before")
    if point.time_ms == 0:
        raise StorageError(
            f"{view.directory} does not tell when record {point.record - 1} was written, for an "
            "earlier version wrote it; name the record to restore up to"
        )
    if point.time_ms > time_ms:
        raise StorageError(
            f"{view.directory} begins with a snapshot of {_shown(point.time_ms)}; "
            f"for {_shown(time_ms)}, restore from an earlier backup"
        )
    if not is_beyond and time_ms > known_ms:
        if newer is not None:
            ends, begins = f"at {_shown(known_ms)}", _shown(newer.runs[0].base_ms)
            raise _between(_shown(time_ms), view, ends, newer, begins)
        raise StorageError(
            f"{view.directory} ends at {_shown(known_ms)}; what was written from then to "
            f"{_shown(time_ms)} is not in it. To restore all of it, name no time"
        )


def _shown(time_ms: int) -> str:
    """As `telpher backups` shows it: by this machine's clock, with its zone."""
    time = datetime.fromtimestamp(time_ms / 1000).astimezone()
    return time.isoformat(sep=" ", timespec="milliseconds")


def _build(files: Files, view: View, partial: Path, directory: Path, point: _Point) -> None:
    files.make_directory(partial)
    try:
        if partial.parent == directory:
            _own(files, partial, directory)
        _write(files, view, partial, point.record)
        if partial.parent == directory:
            for name in files.list(partial):
                _own(files, partial / name, directory)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            remove_all(files, partial)
        raise


def _own(files: Files, path: Path, directory: Path) -> None:
    """Give it to the owner of the directory, who is to run the broker. Raises OSError."""
    owner = files.owner(directory)
    if files.owner(path)[0] != owner[0]:
        files.give(path, *owner)


def _put_in_place(files: Files, partial: Path, directory: Path) -> None:
    if partial.parent != directory:
        files.rename(partial, directory)
        files.sync_directory(directory.parent)
        return
    if (files.directory_mode(directory) or 0) & 0o077:
        files.restrict(directory, 0o700)
    for name in files.list(partial):
        if name != MANIFEST:
            files.rename(partial / name, directory / name)
    files.sync_directory(directory)
    files.rename(partial / MANIFEST, directory / MANIFEST)
    files.sync_directory(directory)
    files.remove_directory(partial)


def _write(files: Files, view: View, partial: Path, record: int) -> None:
    source, log = view.manifest, view.log()
    manifest = Manifest(
        directory=secrets.token_bytes(8),
        epoch=source.epoch,
        next_file=3,
        synced_record=record,
        snapshot=None if source.snapshot is None else 1,
        upto=source.upto,
        increments=(2,),
    )
    write_snapshot(files, partial, manifest, log)
    kept = takewhile(lambda block: block.header.end <= record, log.blocks())
    write_increment(files, partial, manifest.directory, 2, kept)
    read_back(files, partial, manifest, record)
    replace_small(files, partial, MANIFEST, encode_manifest(manifest))
