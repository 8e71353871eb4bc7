"""Recovery: the files of the manifest read as one logical log, and what damage in it means.

The rule. Let d be the number of the first record that cannot be read. If anything proves that
records past d were on the disk, then bytes that a sync had covered are gone: refuse, and change
nothing. Otherwise what follows is the torn tail of a crash: cut it, and say so. What may prove
it: an intact block header anywhere after the damage (it tells up to where the log was synced when
it was written), the manifest, the CLEAN marker. A block that is intact but in a wrong place, and
any damage to a manifest, marker, snapshot or file header, is left by no crash: refuse.

Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NoReturn

from .api import Entry, RecoveryReport, StorageDamaged, StorageError
from .clean import CLEAN, CleanMarker, decode_clean
from .file_header import (
    FILE_HEADER_BYTES,
    INCREMENT,
    SNAPSHOT,
    VERSION,
    VERSIONS_READ,
    FileHeader,
    decode_file_header,
    increment_name,
    parse_name,
    snapshot_name,
)
from .files import READ, Files
from .footer import FOOTER_BYTES, decode_footer
from .manifest import MANIFEST, Manifest, decode_manifest, is_newer_manifest, read_small
from .reader import Block, BlockReader, Damage
from .unproven import Unproven


@dataclass(frozen=True, slots=True)
class Cut:
    """A torn tail: `file` (a generation) is to end at `offset`; `later` files are to go."""

    file: int
    offset: int
    bytes: int
    later: tuple[int, ...]


class LogRecovery:
    """The log of one manifest.

    After `records` or `blocks` is exhausted, these hold: `cut`, `next_record`, the `version` of
    the last increment that is kept, `time_ms`, when the last block was written (0: unknown), and
    `unproven`.
    """

    def __init__(
        self,
        files: Files,
        directory: Path,
        manifest: Manifest,
        clean: CleanMarker | None,
        report: RecoveryReport,
    ) -> None:
        self.manifest = manifest
        self.next_record = manifest.upto
        self.cut: Cut | None = None
        self.version = VERSION
        self.time_ms = 0
        self.unproven = Unproven(manifest.synced_record if clean is None else clean.next_record)
        self.report = report
        self._files = files
        self._directory = directory
        self._clean = clean
        self._started = perf_counter()
        report.snapshot_upto = manifest.upto
        report.clean = clean is not None

    def snapshot(self) -> Iterator[Entry]:
        """The chunks of the snapshot. Raises `StorageDamaged` for anything wrong with it."""
        for block in self.snapshot_blocks():
            yield from block.entries

    def snapshot_blocks(self) -> Iterator[Block]:
        """As `snapshot`, by blocks."""
        generation = self.manifest.snapshot
        if generation is None:
            return
        name = snapshot_name(generation)
        with OpenFile(self._files, self._directory, name) as fd:
            reader, count = self._open_snapshot(fd, name, generation)
            self.report.bytes_read += reader.size
            for block in reader.blocks(reader.size - FOOTER_BYTES):
                self.report.snapshot_chunks += len(block.entries)
                self.time_ms = block.header.time_ms
                yield block
            if reader.damage is not None:
                raise self.damaged(reader.damage)
            if reader.expected != count or reader.offset != reader.size - FOOTER_BYTES:
                self.refuse(name, reader.offset, f"it should hold {count} chunks")

    def _open_snapshot(self, fd: int, name: str, generation: int) -> tuple[BlockReader, int]:
        self.check_header(fd, name, SNAPSHOT, generation)
        reader = self.reader(fd, name, generation)
        end = max(reader.size - FOOTER_BYTES, FILE_HEADER_BYTES)
        footer = decode_footer(self._files.read(fd, FOOTER_BYTES, end))
        found = None if footer is None else (*footer[:3], footer.upto)
        if footer is None or found != (
            self.manifest.directory,
            generation,
            end,
            self.manifest.upto,
        ):
            self.refuse(name, end, "no intact footer proves that the snapshot is whole")
        return reader, footer.chunk_count

    def reader(self, fd: int, name: str, generation: int) -> BlockReader:
        manifest = self.manifest
        return BlockReader(self._files, fd, name, manifest.directory, generation, manifest.epoch)

    def check_header(self, fd: int, name: str, kind: bytes, generation: int) -> int:
        """The version of the file, which begins with just the header it should.

        Raises `StorageDamaged` if it does not, `StorageError` for a version that is newer than
        all that are read.
        """
        upto = self.manifest.upto if kind == SNAPSHOT else 0
        header = decode_file_header(self._files.read(fd, FILE_HEADER_BYTES, 0))
        if header is None:
            self.refuse(name, 0, "the file header is damaged")
        if header.version > VERSION:
            raise StorageError(
                f"{self._directory / name} is of format {header.version}, and this version of "
                f"Telpher reads up to {VERSION}. Nothing was changed. Start the newer version"
            )
        expected = FileHeader(kind, header.version, self.manifest.directory, generation, upto)
        if header != expected or header.version not in VERSIONS_READ:
            self.refuse(name, 0, f"another file was put in its place: {describe(header)}")
        return header.version

    def records(self) -> Iterator[Entry]:
        """The records after the snapshot. Raises `StorageDamaged` where the rule says refuse."""
        for block in self.blocks():
            yield from block.entries

    def blocks(self) -> Iterator[Block]:
        """As `records`, by blocks."""
        end = (0, 0)
        for index, generation in enumerate(self.manifest.increments):
            name = increment_name(generation)
            with OpenFile(self._files, self._directory, name) as fd:
                self.version = self.check_header(fd, name, INCREMENT, generation)
                reader = self.reader(fd, name, generation)
                reader.expected = self.next_record
                for block in reader.blocks():
                    self.unproven.add(block.header)
                    self.report.records += len(block.entries)
                    self.time_ms = block.header.time_ms
                    yield block
                self.next_record = reader.expected
                self.report.bytes_read += reader.offset
                if reader.damage is not None:
                    self._judge(index, reader, reader.damage)
                    break
                end = (generation, reader.size)
        self._check_end(end)
        self.report.time_ms = self.time_ms
        self.report.seconds = perf_counter() - self._started

    def _judge(self, index: int, reader: BlockReader, damage: Damage) -> None:
        """Refuse, or set `cut`."""
        no_earlier_file_lost_them = damage.gap and index == 0
        if damage.certain or no_earlier_file_lost_them:
            raise self.damaged(damage)
        if self._clean is not None:
            self.refuse(damage.file, damage.offset, f"{damage.text}, after an orderly close")
        proven = max(self.manifest.synced_record, self._proven_by_blocks(index, damage))
        if proven > damage.record:
            self.refuse(
                damage.file,
                damage.offset,
                f"{damage.text}, and records up to {proven - 1} are proven to have been synced; "
                f"record {damage.record} cannot be read",
            )
        self._cut(index, reader, damage)

    def _proven_by_blocks(self, index: int, damage: Damage) -> int:
        """The highest claim of any intact header after the damage, in this file and later ones."""
        proven, start = 0, damage.offset
        for generation in self.manifest.increments[index:]:
            name = increment_name(generation)
            with OpenFile(self._files, self._directory, name) as fd:
                self.check_header(fd, name, INCREMENT, generation)
                for _, header in self.reader(fd, name, generation).intact_blocks_after(start):
                    proven = max(proven, header.synced_record)
            start = FILE_HEADER_BYTES
        return proven

    def _cut(self, index: int, reader: BlockReader, damage: Damage) -> None:
        later = self.manifest.increments[index + 1 :]
        bytes_cut = reader.size - damage.offset
        for generation in later:
            with OpenFile(self._files, self._directory, increment_name(generation)) as fd:
                bytes_cut += self._files.size(fd) - FILE_HEADER_BYTES
        self.cut = Cut(self.manifest.increments[index], damage.offset, bytes_cut, later)
        self.report.bytes_cut = bytes_cut
        self.report.cut_file = damage.file
        self.report.cut_offset = damage.offset
        self.report.cut_reason = damage.text

    def _check_end(self, end: tuple[int, int]) -> None:
        """The log ends where the CLEAN marker and the manifest say, if they do."""
        generation, size = end
        name = increment_name(generation) if generation else MANIFEST
        proven = self.manifest.synced_record
        if self.cut is None and self._clean is not None:
            found = (generation, size, self.next_record)
            marked = (self._clean.file, self._clean.offset, self._clean.next_record)
            if found != marked:
                self.refuse(
                    name,
                    size,
                    f"the log ends at record {found[2]}, byte {size} of file {generation}; an "
                    f"orderly close left it at record {marked[2]}, byte {marked[1]} of {marked[0]}",
                )
        if proven > self.next_record:
            self.refuse(
                name,
                size,
                f"the log ends before record {self.next_record}, and records up to {proven - 1} "
                "are proven to have been synced",
            )

    def damaged(self, damage: Damage) -> StorageDamaged:
        return StorageDamaged(self._directory, damage.file, damage.offset, damage.text)

    def refuse(self, file: str, offset: int, text: str) -> NoReturn:
        raise StorageDamaged(self._directory, file, offset, text)


class OpenFile:
    """A data file open for reading. A missing one is damage: the manifest names it."""

    def __init__(self, files: Files, directory: Path, name: str) -> None:
        self._files = files
        self._directory = directory
        self._name = name
        self._fd = -1

    def __enter__(self) -> int:
        try:
            self._fd = self._files.open(self._directory / self._name, READ)
        except FileNotFoundError:
            raise StorageDamaged(
                self._directory, self._name, 0, "the manifest names it, but it is missing"
            ) from None
        return self._fd

    def __exit__(self, *exc: object) -> None:
        self._files.close(self._fd)


def describe(header: FileHeader) -> str:
    kind = "snapshot" if header.kind == SNAPSHOT else "increment"
    return (
        f"{kind} {header.generation} of directory {header.directory.hex()}, "
        f"format {header.version}, up to record {header.upto}"
    )


def load_manifest(files: Files, directory: Path) -> Manifest | None:
    """The manifest, None in a directory that has none and no data.

    Raises `StorageDamaged`, `StorageError` for one of a newer format, OSError.
    """
    data = read_small(files, directory / MANIFEST)
    if data is None:
        if any(parse_name(name) or name == CLEAN for name in files.list(directory)):
            raise StorageDamaged(directory, MANIFEST, 0, "it is missing, but data files are there")
        return None
    if is_newer_manifest(data):
        raise StorageError(
            f"{directory / MANIFEST} is of a newer format. Nothing was changed. "
            "Start the newer version of Telpher"
        )
    manifest = decode_manifest(data)
    if manifest is None:
        raise StorageDamaged(directory, MANIFEST, 0, "its content does not match its checksum")
    return manifest


def load_clean(files: Files, directory: Path, manifest: Manifest) -> CleanMarker | None:
    """The marker, None if there is none for this manifest. Raises `StorageDamaged`."""
    data = read_small(files, directory / CLEAN)
    if data is None:
        return None
    marker = decode_clean(data)
    if marker is None:
        raise StorageDamaged(directory, CLEAN, 0, "its content does not match its checksum")
    if marker.directory != manifest.directory:
        raise StorageDamaged(directory, CLEAN, 0, "it belongs to another directory")
    if marker.epoch > manifest.epoch:
        text = f"it is older than the CLEAN marker: epoch {manifest.epoch}, {marker.epoch} there"
        raise StorageDamaged(directory, MANIFEST, 0, text)
    return marker if marker.epoch == manifest.epoch else None


def check_unlisted(files: Files, directory: Path, manifest: Manifest) -> list[str]:
    """Data files that the manifest does not name: left by a crash, to be removed.

    Raises `StorageDamaged` for one that a crash cannot leave beside this manifest: then it is an
    older one put back.
    """
    left: list[str] = []
    for name in files.list(directory):
        parsed = parse_name(name)
        if parsed is None or parsed[1] in (*manifest.increments, manifest.snapshot):
            continue
        if parsed[1] >= manifest.next_file:
            text = _unknown_to(manifest, files, directory, name)
            if text is not None:
                raise StorageDamaged(directory, MANIFEST, 0, f"{text}: it is an older one")
        left.append(name)
    return left


def _unknown_to(manifest: Manifest, files: Files, directory: Path, name: str) -> str | None:
    """Why the manifest cannot be the one that this file came after, whatever crashed.

    A crash leaves one file at most that has the next number: an increment without a block, or a
    snapshot of the manifest's own epoch that was not yet named.
    """
    parsed = parse_name(name)
    assert parsed is not None
    kind, generation = parsed
    if generation > manifest.next_file:
        return f"{name} was made after files that it does not know"
    with OpenFile(files, directory, name) as fd:
        if kind == INCREMENT:
            holds = files.size(fd) > FILE_HEADER_BYTES
            return f"{name} holds records that it does not know" if holds else None
        reader = BlockReader(files, fd, name, manifest.directory, generation, manifest.epoch)
        header = reader.header_at(FILE_HEADER_BYTES)
        if header is not None and header.epoch > manifest.epoch:
            return f"{name} was written in epoch {header.epoch}"
    return None
