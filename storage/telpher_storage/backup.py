"""Backups of a data directory, whether or not a broker runs on it.

A backup root holds bases: directories `base-N`, each a data directory by itself, which a broker
can start on. A base is a snapshot and what came after it; a later run adds an increment with what
is new, for as long as the log, with what is kept of it after a rewrite, still reaches back to where
the base ends. If it does not, a new base begins.

Order, so that a run that is killed leaves the backup as it was before: a base is made under
another name and renamed when it is whole; an increment gets its number first, is written, synced
and read back, then its facts are written, and only then the manifest names it.

docs/storage.md has the layout and the facts.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from time import perf_counter

from .api import StorageDamaged, StorageError
from .directory import remove_names
from .facts import CopiedFile, Facts, decode_facts, encode_facts, facts_name
from .file_header import increment_name, snapshot_name
from .files import Files
from .held import TRIES, View
from .lock import DirectoryLock
from .manifest import (
    MANIFEST,
    Manifest,
    encode_manifest,
    read_small,
    remove_if_there,
    replace_small,
)
from .reader import Block
from .recovery import OpenFile, check_unlisted, load_manifest
from .transcript import Passed, checksum_of, read_back, write_increment, write_snapshot

ROOT_LOCK = "backup.lock"
_BASE = re.compile(r"base-([1-9][0-9]*)(\.partial)?")


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a run did.

    `base` holds every record below `record`; this run added those from `from_record` on, or all
    of them, where it began the base: `because` says why, and is empty where it did not. `damage`
    is what is wrong with the newest base, where that is why.
    """

    base: Path
    because: str
    from_record: int
    record: int
    time_ms: int
    taken_ms: int
    files: int
    bytes: int
    seconds: float
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Base:
    """A base that is there: its manifest, and the facts of each run that added to it, in order.

    If it cannot be used, `damage` says why, and nothing else of it is known.
    """

    path: Path
    manifest: Manifest
    runs: tuple[Facts, ...]
    damage: str = ""

    @property
    def is_as_it_was_left(self) -> bool:
        """No broker has started on it since, and all that the manifest names has facts."""
        if not self.runs or len(self.runs) != len(self.manifest.increments):
            return False
        return self.runs[-1].epoch == self.manifest.epoch

    @property
    def unusable(self) -> str:
        """Why nothing is restored from it unless it is named itself; empty where that is done."""
        if self.damage or self.is_as_it_was_left:
            return self.damage
        return "it is no backup any more: a broker was started on it since, or it was repaired"


def backup(
    source: Path, root: Path, taken_ms: int, *, full: bool = False, files: Files | None = None
) -> BackupReport:
    """Bring the backups in `root` up to the log in `source`; `full` begins a new base.

    `taken_ms` is the time, in ms since 1970. A base that cannot be used is left as it is, and
    another begun. Raises `StorageDamaged` for what is wrong with the source, `StorageLocked` while
    another run is under way, `StorageError`.
    """
    files = files or Files()
    try:
        _see_source(files, source)
        with _own(files, root, source):
            return _back_up(files, root, source, taken_ms, full)
    except OSError as error:
        raise StorageError(f"the backup of {source} to {root} failed: {error}") from error


def _back_up(files: Files, root: Path, source: Path, taken_ms: int, full: bool) -> BackupReport:
    """Once more if an owner started meanwhile: it may have cut a torn tail, and written there."""
    for _ in range(TRIES):
        with View(source) as view:
            try:
                return _Run(files, root, view, taken_ms).run(full)
            except StorageDamaged:
                if view.is_of_now():
                    raise
    raise StorageError(f"{source} changes all the time; try again")


def _see_source(files: Files, source: Path) -> None:
    with suppress(NotADirectoryError):
        if files.directory_mode(source) is not None:
            return
    raise StorageError(
        f"there is no data directory {source.absolute()}; name the one to back up: --data-dir, or "
        "--config with the broker's configuration"
    )


@contextmanager
def _own(files: Files, root: Path, source: Path) -> Iterator[None]:
    """Make the root, or see that it is one; and nobody else's for now."""
    if root.resolve().is_relative_to(source.resolve()):
        raise StorageError(f"{root} is in the data directory itself; name a place on another disk")
    if files.directory_mode(root) is None:
        see_parent(files, root)
        files.make_directory(root)
        files.sync_directory(root.parent)
    names = files.list(root)
    if names and not any(name == ROOT_LOCK or _BASE.fullmatch(name) for name in names):
        raise StorageError(
            f"{root} holds other files ({names[0]}, ...) and no backups of ours; "
            "name an empty directory or a new one"
        )
    lock = DirectoryLock(files, root, ROOT_LOCK)
    try:
        for name in names:
            if name.endswith(".partial") and _BASE.fullmatch(name):
                remove_all(files, root / name)
        yield
    finally:
        lock.release()


def see_parent(files: Files, directory: Path) -> None:
    """See that a directory can be made. Raises `StorageError`, OSError."""
    parent = directory.absolute().parent
    if files.directory_mode(parent) is None:
        raise StorageError(f"there is no directory {parent}; make it first")


def remove_all(files: Files, directory: Path) -> None:
    """A directory and the files in it. Raises OSError."""
    for name in files.list(directory):
        files.unlink(directory / name)
    files.remove_directory(directory)


def bases(root: Path, files: Files | None = None) -> list[Base]:
    """The bases in a backup root, oldest first. Raises OSError for the root."""
    files = files or Files()
    return [find_base(path, files) for path in base_paths(root, files)]


def base_paths(root: Path, files: Files) -> list[Path]:
    """Where the bases in a backup root are, oldest first. Raises OSError."""
    found = [_BASE.fullmatch(name) for name in files.list(root)]
    numbers = sorted(int(match[1]) for match in found if match and not match[2])
    return [root / f"base-{number}" for number in numbers]


def find_base(path: Path, files: Files) -> Base:
    """One base of a root. If it rots or is half removed, that is no matter of the others."""
    try:
        base = load_base(path, files)
        if base.is_as_it_was_left:
            _see_files(files, base)
    except (StorageError, OSError) as error:
        return Base(path, Manifest(b""), (), damage_told_by(error))
    return base


def damage_told_by(error: Exception) -> str:
    if isinstance(error, StorageDamaged):
        return f"{error.file} is damaged at byte {error.offset}: {error.text}"
    return str(error)


def _see_files(files: Files, base: Base) -> None:
    """See that all is there, by the lengths: what it holds is read by who restores it."""
    for run in base.runs:
        for name, length_bytes, _ in run.files:
            with OpenFile(files, base.path, name) as fd:
                found_bytes = files.size(fd)
            if found_bytes != length_bytes:
                text = f"it should be of {length_bytes} bytes"
                raise StorageDamaged(base.path, name, min(found_bytes, length_bytes), text)


def load_base(path: Path, files: Files | None = None) -> Base:
    """A data directory, with the facts that go with it: none, where no backup made it."""
    files = files or Files()
    manifest = load_manifest(files, path)
    if manifest is None:
        raise StorageError(f"{path} holds no data of Telpher")
    runs = []
    for generation in manifest.increments:
        data = read_small(files, path / facts_name(generation))
        facts = None if data is None else decode_facts(data)
        if data is not None and facts is None:
            text = f"{path / facts_name(generation)} does not match its checksum"
            raise StorageError(f"{text}: this is no backup to rely on")
        if facts is not None:
            runs.append(facts)
    return Base(path, manifest, tuple(runs))


def _number_after(base: Base) -> int:
    return int(base.path.name.partition("-")[2]) + 1


class _Run:
    """One backup, of one view."""

    def __init__(self, files: Files, root: Path, view: View, taken_ms: int) -> None:
        self._files = files
        self._root = root
        self._view = view
        self._taken_ms = taken_ms
        self._began = perf_counter()

    def run(self, full: bool) -> BackupReport:
        before = base_paths(self._root, self._files)
        if not before:
            return self._begin(1, "there was none")
        newest = find_base(before[-1], self._files)
        number = _number_after(newest)
        self._see_origin(newest, before[:-1])
        if full:
            return self._begin(number, "it was asked for")
        if newest.damage:
            return self._begin_beside(newest, newest.damage)
        if not newest.is_as_it_was_left:
            return self._begin(number, f"{newest.path.name} was used otherwise since")
        try:
            left = check_unlisted(self._files, newest.path, newest.manifest)
        except StorageDamaged as error:
            return self._begin_beside(newest, damage_told_by(error))
        new = self._new_blocks(newest.runs[-1])
        if new is None:
            is_retired = newest.runs[-1].record <= self._view.manifest.upto
            retired = f"the log was rewritten since, and begins behind {newest.path.name}"
            other = f"{newest.path.name} has records that the log has lost"
            return self._begin(number, retired if is_retired else other)
        with self._locked(newest.path):
            self._sweep(newest, left)
            return self._add(newest, new)

    def _see_origin(self, newest: Base, earlier: list[Path]) -> None:
        """The newest base that tells whose it is speaks for all: each was begun beside such."""
        base = newest
        while not base.runs and earlier:
            base = find_base(earlier.pop(), self._files)
        if base.runs and base.runs[-1].source != self._view.manifest.directory:
            raise StorageError(
                f"{self._root} holds backups of another data directory than "
                f"{self._view.directory}, or of what was restored from one; name another place"
            )

    @contextmanager
    def _locked(self, base: Path) -> Iterator[None]:
        lock = DirectoryLock(self._files, base)
        try:
            yield
        finally:
            lock.release()

    def _sweep(self, base: Base, left: list[str]) -> None:
        """Remove what a run has left that was killed."""
        kept = [facts_name(generation) for generation in base.manifest.increments]
        names = self._files.list(base.path)
        facts = [name for name in names if name.startswith("backup-") and name not in kept]
        remove_names(self._files, base.path, [*left, *facts])

    def _new_blocks(self, facts: Facts) -> Iterator[Block] | None:
        """What comes after the last block of a base; None if the log does not have that block."""
        log = self._view.log_from_before(facts.record)
        blocks = log.blocks()
        if facts.record <= log.manifest.upto:  # no block to know it by
            is_known = facts.record == 0 or facts.snapshot == self._view.manifest.snapshot
            return blocks if is_known and facts.record == log.manifest.upto else None
        for header, _ in blocks:
            if header.end >= facts.record:
                last = (facts.record, facts.block_epoch, facts.block_table)
                it_is = (header.end, header.epoch, header.table_checksum) == last
                return blocks if it_is else None
        return None

    # A new base

    def _begin(self, number: int, because: str) -> BackupReport:
        partial = self._root / f"base-{number}.partial"
        self._files.make_directory(partial)
        try:
            facts = self._write_base(partial)
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell; the next run removes it
                remove_all(self._files, partial)
            raise
        base = self._root / f"base-{number}"
        self._files.rename(partial, base)
        self._files.sync_directory(self._root)
        return self._report(base, because, 0, facts)

    def _begin_beside(self, base: Base, damage: str) -> BackupReport:
        report = self._begin(_number_after(base), f"{base.path.name} cannot be used")
        return replace(report, damage=damage)

    def _write_base(self, path: Path) -> Facts:
        source, files = self._view.manifest, self._files
        snapshot = None if source.snapshot is None else 1
        manifest = Manifest(
            secrets.token_bytes(8), source.epoch, 3, 0, snapshot, source.upto, increments=(2,)
        )
        log = self._view.log()
        write_snapshot(files, path, manifest, log)
        base_ms = log.time_ms
        passed = Passed(log.blocks(), source.upto)
        write_increment(files, path, manifest.directory, 2, passed)
        manifest = replace(manifest, synced_record=passed.record)
        read_back(files, path, manifest, passed.record)
        facts = self._facts(
            path,
            (*([] if snapshot is None else [snapshot_name(1)]), increment_name(2)),
            manifest,
            passed,
            base_ms,
        )
        replace_small(files, path, facts_name(2), encode_facts(facts))
        replace_small(files, path, MANIFEST, encode_manifest(manifest))
        return facts

    def _facts(
        self,
        path: Path,
        names: tuple[str, ...],
        manifest: Manifest,
        passed: Passed,
        base_ms: int,
    ) -> Facts:
        last = passed.last
        return Facts(
            source=self._view.manifest.directory,
            taken_ms=self._taken_ms,
            epoch=manifest.epoch,
            snapshot=self._view.manifest.snapshot or 0,
            base_record=manifest.upto,
            base_ms=base_ms,
            record=passed.record,
            time_ms=base_ms if last is None else last.time_ms,
            block_epoch=0 if last is None else last.epoch,
            block_table=0 if last is None else last.table_checksum,
            files=tuple(CopiedFile(name, *checksum_of(self._files, path / name)) for name in names),
        )

    # One more increment

    def _add(self, base: Base, new: Iterator[Block]) -> BackupReport:
        last = base.runs[-1]
        first = next(new, None)
        if first is None:
            name = facts_name(base.manifest.increments[-1])
            still = replace(last, taken_ms=self._taken_ms)
            replace_small(self._files, base.path, name, encode_facts(still))
            return self._report(base.path, "", last.record, replace(still, files=()))
        generation = base.manifest.next_file
        try:
            facts, manifest = self._write_increment(base, generation, chain([first], new))
        except BaseException:
            with suppress(OSError):
                remove_if_there(self._files, base.path / increment_name(generation))
            raise
        replace_small(self._files, base.path, MANIFEST, encode_manifest(manifest))
        return self._report(base.path, "", last.record, facts)

    def _write_increment(
        self, base: Base, generation: int, blocks: Iterator[Block]
    ) -> tuple[Facts, Manifest]:
        """The increment and its facts, and the manifest that is to name it."""
        path, files, last = base.path, self._files, base.runs[-1]
        # A file whose number the manifest does not know, with records in it, would be taken for
        # the work of a newer manifest that was lost.
        manifest = replace(base.manifest, next_file=generation + 1)
        replace_small(files, path, MANIFEST, encode_manifest(manifest))
        passed = Passed(blocks, last.record)
        write_increment(files, path, manifest.directory, generation, passed)
        manifest = replace(
            manifest,
            epoch=max(manifest.epoch, self._view.manifest.epoch),
            synced_record=passed.record,
            increments=(*manifest.increments, generation),
        )
        alone = replace(manifest, snapshot=None, upto=last.record, increments=(generation,))
        read_back(files, path, alone, passed.record)
        facts = self._facts(path, (increment_name(generation),), manifest, passed, last.base_ms)
        # The base stays what it was taken from, whatever snapshot the source has now.
        facts = replace(facts, snapshot=last.snapshot)
        replace_small(files, path, facts_name(generation), encode_facts(facts))
        return facts, manifest

    def _report(self, base: Path, because: str, from_record: int, facts: Facts) -> BackupReport:
        return BackupReport(
            base,
            because,
            from_record,
            facts.record,
            facts.time_ms,
            self._taken_ms,
            len(facts.files),
            sum(file.bytes for file in facts.files),
            perf_counter() - self._began,
        )
