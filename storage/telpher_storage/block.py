"""The block: the records of one append, written, checksummed and recovered as a whole.

docs/storage.md is the format's definition; this is its only encoder and decoder.

    header (68 bytes) | table: (u32 length, u32 CRC-32C) per record | the records' bytes

Invariant: every byte of a block is covered by exactly one checksum. The header's covers the
header, which holds the table's; the table holds each record's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from google_crc32c import value as crc32c

MAGIC = b"\xf5TB"  # 0xf5 occurs in no UTF-8 text; the block version follows
BLOCK_VERSION = 2
MAX_BODY_BYTES = 2**32 - 1

_LAYOUTS = {1: struct.Struct(">3sB8sIIQQQIIII"), BLOCK_VERSION: struct.Struct(">3sB8sIIQQQQIIII")}
_UNSUMMED = struct.Struct(">3sB8sIIQQQQIII")
_CHECKSUM = struct.Struct(">I")
_PAIR = struct.Struct(">II")
_TIME = 7  # the field's place, where version 1 has none
HEADER_BYTES = _LAYOUTS[BLOCK_VERSION].size
HEADER_BYTES_MIN = _LAYOUTS[1].size
ENTRY_BYTES = _PAIR.size


class BlockHeader(NamedTuple):
    """The fields in their order on the disk, without magic and header checksum.

    `time_ms` is 0 where it is not known: nobody told, or the version is 1.
    """

    version: int
    directory: bytes
    generation: int
    epoch: int
    offset: int
    first_record: int
    synced_record: int
    time_ms: int
    record_count: int
    body_bytes: int
    table_checksum: int

    @property
    def end(self) -> int:
        """The number that comes after the last record."""
        return self.first_record + self.record_count

    @property
    def header_bytes(self) -> int:
        """How long the header itself is."""
        return _LAYOUTS[self.version].size

    @property
    def block_bytes(self) -> int:
        """How long the block is: header, table and records."""
        return self.header_bytes + self.body_bytes


def encode_table(records: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """The table of the records, and their checksums."""
    if len(records) == 1:
        record = records[0]
        checksum = crc32c(record)
        return _PAIR.pack(len(record), checksum), [checksum]
    checksums = list(map(crc32c, records))
    return b"".join(map(_PAIR.pack, map(len, records), checksums)), checksums


def encode_header(header: BlockHeader) -> bytes:
    """The bytes of a header of the version that is written."""
    unsummed = _UNSUMMED.pack(MAGIC, *header)
    return unsummed + _CHECKSUM.pack(crc32c(unsummed))


def decode_header(data: bytes, at: int = 0) -> BlockHeader | None:
    """The header at `at`, or None if there is no whole and intact one."""
    if data[at : at + 3] != MAGIC or len(data) < at + HEADER_BYTES_MIN:
        return None
    layout = _LAYOUTS.get(data[at + 3])
    if layout is None or len(data) < at + layout.size:
        return None
    _, *fields, checksum = layout.unpack_from(data, at)
    if crc32c(data[at : at + layout.size - 4]) != checksum:
        return None
    if fields[0] == 1:
        fields.insert(_TIME, 0)
    return BlockHeader(*fields)


def decode_table(header: BlockHeader, data: bytes, at: int) -> tuple[int, ...] | None:
    """Length and checksum of each record in turn, from the table at `at`; None if damaged."""
    size = header.record_count * ENTRY_BYTES
    table = data[at : at + size]
    if len(table) != size or crc32c(table) != header.table_checksum:
        return None
    flat = struct.unpack(f">{2 * header.record_count}I", table)
    if size + sum(flat[::2]) != header.body_bytes:
        return None
    return flat
