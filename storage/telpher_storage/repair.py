"""Making a refused directory openable, at the price it names. Nothing is ever deleted.

The rule is the reader's: an exact prefix. What lies before the first damage stays, what lies
after it is moved into a folder `damaged-N` of the directory, because records whose predecessors
are missing cannot be replayed. A damaged snapshot therefore takes the log after it along. Two plans
are made, one by the manifest that is there and one by the files alone, and the one that keeps more
is carried out: a manifest may be an older one, or of another directory.

Order, so that a crash in the middle leaves a directory in which nothing is lost and that can be
repaired again: copy what is to be cut, move what is to go, write the new manifest, then truncate.
An open removes what the manifest does not name, so nothing that counts may be left there unnamed.
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from .api import RecoveryReport, StorageDamaged, StorageError
from .clean import CLEAN, decode_clean
from .directory import COPY_BYTES, adopt_directory, set_aside
from .file_header import (
    FILE_HEADER_BYTES,
    INCREMENT,
    SNAPSHOT,
    VERSION,
    VERSIONS_READ,
    FileHeader,
    decode_file_header,
    encode_file_header,
    increment_name,
    parse_name,
    snapshot_name,
)
from .files import APPEND, CREATE, READ, Files
from .lock import DirectoryLock
from .manifest import (
    MANIFEST,
    Manifest,
    data_names,
    decode_manifest,
    encode_manifest,
    read_small,
    replace_small,
    write_all,
)
from .reader import BlockReader
from .recovery import LogRecovery, OpenFile, check_unlisted, load_clean, load_manifest

EPOCH_MAX = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Dropped:
    """A piece of a file that was moved aside, from `offset` to its end."""

    file: str
    offset: int
    bytes: int
    reason: str


@dataclass(slots=True)
class RepairReport:
    """What was done. Records from `lost_from` up to, exclusive, `lost_to` are not there any more.

    `lost_to` is the highest number of which any trace was found. `snapshot_lost`: the state of
    all records below the snapshot's is gone too. `missing`: the files of the log that were not
    there; how many records they held is not always known. `folder` is None if nothing had to be
    done.
    """

    directory: Path
    folder: Path | None = None
    snapshot_lost: bool = False
    lost_from: int = 0
    lost_to: int = 0
    dropped: list[Dropped] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def repair(directory: Path, files: Files | None = None) -> RepairReport:
    """Make the directory openable. Raises `StorageLocked`, and `StorageError` if files cannot be
    read or written; it can then be run again.
    """
    files = files or Files()
    try:
        adopt_directory(files, directory)
        lock = DirectoryLock(files, directory)
        try:
            if _opens(files, directory):
                return RepairReport(directory)
            best = _best_plan(files, directory)
            best.carry_out()
            return best.report
        finally:
            lock.release()
    except OSError as error:
        raise StorageError(f"{directory} cannot be repaired: {error}") from error


def foresee(directory: Path, files: Files | None = None) -> RepairReport:
    """What `repair` would report of a damaged directory. Changes nothing. Raises `StorageError` if
    files cannot be read."""
    try:
        return _best_plan(files or Files(), directory).report
    except OSError as error:
        raise StorageError(f"{directory} cannot be read: {error}") from error


def _best_plan(files: Files, directory: Path) -> _Repair:
    """The one that keeps more: by the manifest that is there, or by one made from the files."""
    plans = [_Repair(files, directory, by_files) for by_files in (False, True)]
    return max(plans, key=lambda plan: plan.report.lost_from)


def _opens(files: Files, directory: Path) -> bool:
    try:
        manifest = load_manifest(files, directory)
        if manifest is None:
            return True
        clean = load_clean(files, directory, manifest)
        check_unlisted(files, directory, manifest)
        log = LogRecovery(files, directory, manifest, clean, RecoveryReport())
        for _ in log.snapshot():
            pass
        for _ in log.records():
            pass
    except StorageDamaged:
        return False
    return True


class _Repair:
    """What is to be done, planned when it is made, which only reads; `carry_out` writes."""

    def __init__(self, files: Files, path: Path, by_files: bool) -> None:
        self.report = RepairReport(path)
        self._files = files
        self._path = path
        self._aside: list[str] = []
        self._cut: tuple[str, int] | None = None
        self._headers: list[tuple[str, bytes]] = []
        self._epoch = 0
        self._highest = 0
        self._manifest = self._plan(by_files)

    def _plan(self, by_files: bool) -> Manifest:
        manifest = self._usable_manifest(by_files) or self._rebuilt_manifest()
        self._epoch = max(self._epoch, manifest.epoch)
        self._highest = max(self._highest, manifest.synced_record, manifest.upto)
        self._note_clean()
        manifest = self._checked_snapshot(manifest)
        manifest = self._checked_increments(manifest)
        self._set_aside_unnamed(manifest)
        return self._renumbered(manifest)

    def _usable_manifest(self, by_files: bool) -> Manifest | None:
        """The one that is there, unless it is damaged or knows less than the files do."""
        data = read_small(self._files, self._path / MANIFEST)
        if data is None:
            return None
        manifest = decode_manifest(data)
        if manifest is None:
            self._set_aside(MANIFEST, 0, len(data), "damaged; made anew from the files")
            return None
        text = "the files tell of more than it does; made anew from them" if by_files else ""
        try:
            check_unlisted(self._files, self._path, manifest)
        except StorageDamaged as damage:
            text = damage.text
        if not text:
            return manifest
        self._set_aside(MANIFEST, 0, len(data), text)
        self._epoch = manifest.epoch
        return None

    def _set_aside(self, name: str, offset: int, size: int, reason: str) -> None:
        self.report.dropped.append(Dropped(name, offset, size, reason))
        if name not in self._aside:
            self._aside.append(name)

    def _set_aside_unnamed(self, manifest: Manifest) -> None:
        """What the new manifest does not name, the next open would remove."""
        for name in self._files.list(self._path):
            is_data = parse_name(name) is not None
            if is_data and name not in data_names(manifest) and name not in self._aside:
                self._set_aside(name, 0, self._size(name), "it is not part of the log")

    def _rebuilt_manifest(self) -> Manifest:
        """From the files: the newest whole snapshot, and all increments of that directory."""
        headers = self._all_headers()
        counted = Counter(header.directory for header in headers.values() if header)
        directory = counted.most_common(1)[0][0] if counted else secrets.token_bytes(8)
        manifest = Manifest(directory, EPOCH_MAX)
        for name in sorted(headers, reverse=True):
            header = headers[name]
            if header is None or header.kind != SNAPSHOT or header.directory != directory:
                continue
            found = replace(manifest, snapshot=header.generation, upto=header.upto)
            if manifest.snapshot is None and self._snapshot_is_whole(found):
                manifest = found
        increments = [
            parsed[1] for name in headers if (parsed := parse_name(name)) and parsed[0] == INCREMENT
        ]
        return replace(manifest, epoch=self._epoch, increments=tuple(sorted(increments)))

    def _all_headers(self) -> dict[str, FileHeader | None]:
        found: dict[str, FileHeader | None] = {}
        for name in self._files.list(self._path):
            if parse_name(name) is not None:
                with OpenFile(self._files, self._path, name) as fd:
                    data = self._files.read(fd, FILE_HEADER_BYTES, 0)
                    found[name] = decode_file_header(data)
        return found

    def _snapshot_is_whole(self, manifest: Manifest) -> bool:
        log = LogRecovery(
            self._files,
            self._path,
            replace(manifest, epoch=EPOCH_MAX),
            None,
            RecoveryReport(),
        )
        try:
            for _ in log.snapshot():
                pass
        except StorageDamaged:
            return False
        return True

    def _note_clean(self) -> None:
        """It proves an end that will no longer be true; what it says is remembered."""
        data = read_small(self._files, self._path / CLEAN)
        if data is None:
            return
        marker = decode_clean(data)
        if marker is not None:
            self._highest = max(self._highest, marker.next_record)
            self._epoch = max(self._epoch, marker.epoch)
        self._set_aside(CLEAN, 0, len(data), "void after a repair")

    def _checked_snapshot(self, manifest: Manifest) -> Manifest:
        if manifest.snapshot is None:
            return manifest
        name = snapshot_name(manifest.snapshot)
        if self._snapshot_is_whole(manifest):
            with OpenFile(self._files, self._path, name) as fd:
                self._note_epoch(self._reader(fd, name, manifest, manifest.snapshot))
            return manifest
        self.report.snapshot_lost = True
        if name in self._files.list(self._path):
            self._set_aside(name, 0, self._size(name), "the snapshot is damaged")
        return replace(manifest, snapshot=None, upto=0)

    def _size(self, name: str) -> int:
        with OpenFile(self._files, self._path, name) as fd:
            return self._files.size(fd)

    def _checked_increments(self, manifest: Manifest) -> Manifest:
        """Keep files while they continue each other, and the first part of the first that fails."""
        kept: list[int] = []
        expected = manifest.upto
        present = set(self._files.list(self._path))
        broken = ""
        for generation in manifest.increments:
            name = increment_name(generation)
            if name not in present:
                broken = broken or f"{name} before it is missing"
                self.report.missing.append(name)
                continue
            with OpenFile(self._files, self._path, name) as fd:
                reader = self._reader(fd, name, manifest, generation)
                self._note_epoch(reader)
                self._note_highest(reader)
                reason = broken or self._covered(reader, expected, bool(kept))
                if reason:
                    self._set_aside(name, 0, reader.size, reason)
                    continue
                expected, broken = self._keep(manifest, fd, reader, expected)
                kept.append(generation)
        self.report.lost_from = expected
        self.report.lost_to = max(self._highest, expected)
        return replace(manifest, increments=tuple(kept), synced_record=expected)

    def _reader(self, fd: int, name: str, manifest: Manifest, generation: int) -> BlockReader:
        return BlockReader(self._files, fd, name, manifest.directory, generation, EPOCH_MAX)

    def _note_epoch(self, reader: BlockReader) -> None:
        for _, header in reader.intact_blocks_after(FILE_HEADER_BYTES):
            self._epoch = max(self._epoch, header.epoch)

    def _note_highest(self, reader: BlockReader) -> None:
        for _, header in reader.intact_blocks_after(FILE_HEADER_BYTES):
            end = header.first_record + header.record_count
            self._highest = max(self._highest, header.synced_record, end)

    def _covered(self, reader: BlockReader, expected: int, later: bool) -> str:
        """Why a file cannot come next at all; empty if it can."""
        if reader.size <= FILE_HEADER_BYTES:
            return "" if reader.size == FILE_HEADER_BYTES else "it is shorter than its header"
        header = reader.header_at(FILE_HEADER_BYTES)
        if header is None or header.first_record == expected:
            return ""
        if header.first_record < expected and not later:
            return "the snapshot covers it"
        return f"it begins with record {header.first_record}, and {expected} comes next"

    def _keep(
        self, manifest: Manifest, fd: int, reader: BlockReader, expected: int
    ) -> tuple[int, str]:
        """The record that comes after what is kept of a file, and why nothing else may follow."""
        reader.expected = expected
        for _ in reader.blocks():
            pass
        found = decode_file_header(self._files.read(fd, FILE_HEADER_BYTES, 0))
        wanted = FileHeader(INCREMENT, VERSION, manifest.directory, reader.generation, 0)
        if found not in [wanted._replace(version=version) for version in VERSIONS_READ]:
            self._headers.append((reader.name, encode_file_header(wanted)))
            size = FILE_HEADER_BYTES
            self.report.dropped.append(Dropped(reader.name, 0, size, "file header made anew"))
        if reader.damage is None:
            return reader.expected, ""
        left = reader.size - reader.offset
        self.report.dropped.append(Dropped(reader.name, reader.offset, left, reader.damage.text))
        self._cut = (reader.name, reader.offset)
        return reader.expected, f"{reader.name} before it is damaged"

    def _renumbered(self, manifest: Manifest) -> Manifest:
        """Numbers above all that any file has ever used, listed or not."""
        found = (parse_name(name) for name in self._files.list(self._path))
        used = [parsed[1] for parsed in found if parsed is not None]
        next_file = max([manifest.next_file, *(number + 1 for number in used)])
        return replace(manifest, epoch=self._epoch + 1, next_file=next_file)

    def carry_out(self) -> None:
        """Do what is planned. Raises OSError."""
        folder = self._new_folder()
        self.report.folder = self._path / folder
        if self._cut is not None:
            self._copy(folder, self._cut[0], self._cut[1], None)
        for name, _ in self._headers:
            self._copy(folder, name, 0, FILE_HEADER_BYTES)
        if MANIFEST in self._aside:
            self._copy(folder, MANIFEST, 0, None)
            self._aside.remove(MANIFEST)
        set_aside(self._files, self._path, folder, self._aside)
        replace_small(self._files, self._path, MANIFEST, encode_manifest(self._manifest))
        for name, header in self._headers:
            self._restore_header(name, header)
        if self._cut is not None:
            self._truncate(*self._cut)

    def _new_folder(self) -> str:
        names = self._files.list(self._path)
        number = 1
        while f"damaged-{number}" in names:
            number += 1
        self._files.make_directory(self._path / f"damaged-{number}")
        self._files.sync_directory(self._path)
        return f"damaged-{number}"

    def _copy(self, folder: str, name: str, offset: int, length: int | None) -> None:
        source = self._files.open(self._path / name, READ)
        target = self._files.open(self._path / folder / f"{name}.from-{offset}", CREATE)
        try:
            end = self._files.size(source) if length is None else offset + length
            for at in range(offset, end, COPY_BYTES):
                data = self._files.read(source, min(COPY_BYTES, end - at), at)
                write_all(self._files, target, data)
            self._files.sync_data(target)
            self._files.sync_directory(self._path / folder)
        finally:
            self._files.close(source)
            self._files.close(target)

    def _restore_header(self, name: str, header: bytes) -> None:
        """A new file with the right header and the old rest, renamed over the old one."""
        temporary = self._path / f"{name}.new"
        source = self._files.open(self._path / name, READ)
        target = self._files.open(temporary, CREATE)
        try:
            write_all(self._files, target, header)
            for at in range(FILE_HEADER_BYTES, self._files.size(source), COPY_BYTES):
                write_all(self._files, target, self._files.read(source, COPY_BYTES, at))
            self._files.sync_data(target)
        finally:
            self._files.close(source)
            self._files.close(target)
        self._files.rename(temporary, self._path / name)
        self._files.sync_directory(self._path)

    def _truncate(self, name: str, offset: int) -> None:
        fd = self._files.open(self._path / name, APPEND)
        try:
            self._files.truncate(fd, offset)
            self._files.sync_data(fd)
        finally:
            self._files.close(fd)
