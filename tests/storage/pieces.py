"""What a directory consists of, and what recovery must make of a damaged copy of it.

`Original` knows every piece of every file (headers, blocks, footer) and which record begins where.
`expected` is the rule of docs/storage.md, said once more and in another way: a piece is good if it
has the very bytes that were written there, so it never asks a checksum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from telpher_storage.clean import CLEAN
from telpher_storage.entries import entries
from telpher_storage.file_header import FILE_HEADER_BYTES, increment_name, snapshot_name
from telpher_storage.files import READ
from telpher_storage.footer import FOOTER_BYTES
from telpher_storage.manifest import MANIFEST, Manifest, decode_manifest
from telpher_storage.reader import BlockReader

from .disk import Disk
from .stored import HOME

Content = Mapping[str, bytes]

REFUSED: Final = "refused"
CUT: Final = "cut"
WHOLE: Final = "whole"


def state_of(content: Content) -> dict[str, bytes]:
    """The files of the directory by their names, without lock and reserve."""
    named = {name.removeprefix(f"{HOME}/"): data for name, data in content.items()}
    return {name: data for name, data in named.items() if name not in ("lock", "reserve")}


@dataclass(frozen=True)
class Block:
    """A block of records: where it is, its records, and what it claims to be synced."""

    start: int
    header_end: int
    end: int
    first_record: int
    end_record: int
    synced_record: int


@dataclass(frozen=True)
class Verdict:
    """What an open must come to. `record` is the number of the first that is not recovered;
    `file` and `offset` are where the damage is, and None where nothing is said of it."""

    outcome: str
    record: int
    file: str | None = None
    offset: int | None = None
    bytes_cut: int = 0


@dataclass
class Original:
    """An undamaged directory: `content` by name, without lock and reserve."""

    content: dict[str, bytes]
    manifest: Manifest
    blocks: dict[str, list[Block]] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, disk: Disk) -> Original:
        content = state_of(disk.content())
        manifest = decode_manifest(content[MANIFEST])
        assert manifest is not None
        found = cls(content, manifest)
        for entry in entries(HOME, disk):
            (found.chunks if entry.kind == "chunk" else found.records).append(entry.data)
        for generation in (*manifest.increments, manifest.snapshot):
            if generation is not None:
                is_snapshot = generation == manifest.snapshot
                name = (snapshot_name if is_snapshot else increment_name)(generation)
                found.blocks[name] = found._blocks_of(disk, name, generation)
        return found

    def _blocks_of(self, disk: Disk, name: str, generation: int) -> list[Block]:
        fd = disk.open(HOME / name, READ)
        reader = BlockReader(
            disk, fd, name, self.manifest.directory, generation, self.manifest.epoch
        )
        found = []
        for start, header in reader.intact_blocks_after(FILE_HEADER_BYTES):
            found.append(
                Block(
                    start,
                    start + header.header_bytes,
                    start + header.block_bytes,
                    header.first_record,
                    header.first_record + header.record_count,
                    header.synced_record,
                )
            )
        disk.close(fd)
        return found

    @property
    def increments(self) -> list[str]:
        return [increment_name(generation) for generation in self.manifest.increments]

    @property
    def snapshot(self) -> str | None:
        return None if self.manifest.snapshot is None else snapshot_name(self.manifest.snapshot)

    @property
    def end_record(self) -> int:
        return self.manifest.upto + len(self.records)

    def expected(self, content: Content) -> Verdict:
        """What opening a copy must come to in which pieces were damaged, cut off or taken away,
        and nothing was put in that looks like a block."""
        for name in (MANIFEST, CLEAN, self.snapshot):
            if name is not None and name in self.content and not self._is_lost(name, content):
                verdict = self._whole_file(name, content)
                if verdict is not None:
                    return verdict
        for name in self.increments:
            data = content.get(name, b"")
            if data[:FILE_HEADER_BYTES] != self.content[name][:FILE_HEADER_BYTES]:
                # It is found when recovery comes to it: behind damage that counts, or at all.
                return self._with_header_gone(name, content)
        return self._log(content)

    def _is_lost(self, name: str, content: Content) -> bool:
        """Without its marker a directory is one that was not closed."""
        return name == CLEAN and CLEAN not in content

    def _whole_file(self, name: str, content: Content) -> Verdict | None:
        """Of these every byte counts."""
        if content.get(name, b"") == self.content[name]:
            return None
        if name == self.snapshot:
            return Verdict(REFUSED, 0, name, self._reported(content))
        is_snapshot_good = self.snapshot is None or self.snapshot in content
        return Verdict(REFUSED, self._log(content).record if is_snapshot_good else 0, name, 0)

    def _reported(self, content: Content) -> int | None:
        """Which byte of a snapshot is named: its header is looked at first, then its footer."""
        assert self.snapshot is not None
        data, good = content.get(self.snapshot, b""), self.content[self.snapshot]
        footer = len(good) - FOOTER_BYTES
        if data[:FILE_HEADER_BYTES] != good[:FILE_HEADER_BYTES]:
            return 0
        if len(data) != len(good):
            return None  # its footer is looked for where the file ends
        if data[footer:] != good[footer:]:
            return footer
        blocks = self.blocks[self.snapshot]
        return next(one.start for one in blocks if not _is_good(one, data, good))

    def _with_header_gone(self, name: str, content: Content) -> Verdict:
        """A repair makes the header anew, if there is anything behind it."""
        found = self._log(content)
        names = self.increments
        if found.file is not None and names.index(found.file) < names.index(name):
            return Verdict(REFUSED, found.record)
        is_long = len(content.get(name, b"")) >= FILE_HEADER_BYTES
        return Verdict(REFUSED, found.record if is_long else self.first_of(name), name, 0)

    def first_of(self, name: str) -> int:
        """The number of the first record of a file."""
        before = self.increments[: self.increments.index(name)]
        ends = [block.end_record for one in before for block in self.blocks[one]]
        return max(ends, default=self.manifest.upto)

    def _log(self, content: Content) -> Verdict:
        """Only blocks are amiss, if anything is."""
        expected = self.manifest.upto
        for index, name in enumerate(self.increments):
            data, good = content.get(name, b""), self.content[name]
            offset = FILE_HEADER_BYTES
            for block in self.blocks[name]:
                if block.first_record != expected or not _is_good(block, data, good):
                    break
                expected, offset = block.end_record, block.end
            if offset < len(data):
                return self._damaged(content, index, offset, expected)
        if CLEAN in content and expected < self.end_record:
            return Verdict(REFUSED, expected)
        if self.manifest.synced_record > expected:
            return Verdict(REFUSED, expected)
        return Verdict(WHOLE, expected)

    def _damaged(self, content: Content, index: int, offset: int, record: int) -> Verdict:
        name = self.increments[index]
        proven = self.manifest.synced_record
        for later in self.increments[index:]:
            data, good = content.get(later, b""), self.content[later]
            for block in self.blocks[later]:
                header = slice(block.start, block.header_end)
                is_behind = later != name or block.start >= offset
                if is_behind and data[header] == good[header]:
                    proven = max(proven, block.synced_record)
        if proven > record or CLEAN in content:
            return Verdict(REFUSED, record, name, offset)
        sizes = [len(content[one]) - FILE_HEADER_BYTES for one in self.increments[index + 1 :]]
        return Verdict(CUT, record, name, offset, len(content[name]) - offset + sum(sizes))


def _is_good(block: Block, data: bytes, good: bytes) -> bool:
    return data[block.start : block.end] == good[block.start : block.end]
