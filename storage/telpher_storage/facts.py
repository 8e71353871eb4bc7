"""The facts of a backup: a small file beside each increment that a run of `telpher backup` made.

    telpher backup 1
    source 6fd20e7ac4b15d90
    taken 1793536500000
    epoch 3
    snapshot 3
    base 1000 time 1793536495789
    record 1002 time 1793536496789
    block 3 264ce1a3
    file snapshot-0000000001 bytes 173 checksum 0a1b2c3d
    file increment-0000000002 bytes 144 checksum 0a1b2c3d
    checksum 4e5f6071

It is written before the manifest names the increment, and changed only by a run that finds nothing
new, which was the last to look. The text is canonical, as the manifest's is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .manifest import seal


class CopiedFile(NamedTuple):
    """A file that a run made, and how to know it again."""

    name: str
    bytes: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What one run of a backup did.

    `source` and `snapshot` are the directory and the generation of the snapshot that the base
    was taken from (0: none); `epoch` is the manifest's of the backup. All records below `record`
    are in the backup; those below `base_record` are so only as its snapshot. A time is that of
    the last block, 0 if unknown; `block_epoch` and `block_table` tell which block that is (0, 0:
    there is none). `taken_ms` is when it was, by the clock of who ran the backup.
    """

    source: bytes
    taken_ms: int
    epoch: int
    snapshot: int
    base_record: int
    base_ms: int
    record: int
    time_ms: int
    block_epoch: int
    block_table: int
    files: tuple[CopiedFile, ...]


def facts_name(generation: int) -> str:
    return f"backup-{generation:010}"


def encode_facts(facts: Facts) -> bytes:
    lines = [
        "telpher backup 1",
        f"source {facts.source.hex()}",
        f"taken {facts.taken_ms}",
        f"epoch {facts.epoch}",
        f"snapshot {facts.snapshot}",
        f"base {facts.base_record} time {facts.base_ms}",
        f"record {facts.record} time {facts.time_ms}",
        f"block {facts.block_epoch} {facts.block_table:08x}",
    ]
    lines += [f"file {name} bytes {size} checksum {sum_:08x}" for name, size, sum_ in facts.files]
    return seal("\n".join(lines) + "\n")


def decode_facts(data: bytes) -> Facts | None:
    """The facts, or None if any byte of them is not as it was written."""
    try:
        facts = _parse([line.split(" ") for line in data.decode("ascii").splitlines()])
    except (ValueError, IndexError):
        return None
    return facts if encode_facts(facts) == data else None


def _parse(rows: list[list[str]]) -> Facts:
    taken_ms, epoch, snapshot = (int(row[1]) for row in rows[2:5])
    base, record, block = rows[5:8]
    return Facts(
        source=bytes.fromhex(rows[1][1]),
        taken_ms=taken_ms,
        epoch=epoch,
        snapshot=snapshot,
        base_record=int(base[1]),
        base_ms=int(base[3]),
        record=int(record[1]),
        time_ms=int(record[3]),
        block_epoch=int(block[1]),
        block_table=int(block[2], 16),
        files=tuple(
            CopiedFile(row[1], int(row[3]), int(row[5], 16)) for row in rows[8:] if row[0] == "file"
        ),
    )
