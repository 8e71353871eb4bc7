"""The block: the records of one append, written, checksummed and recovered as a whole.

docs/storage.md is the format's definition; this is its only encoder and decoder.

    header (60 bytes) | table: (u32 length, u32 CRC-32C) per record | the records' bytes

Invariant: every byte of a block is covered by exactly one checksum. The header's covers the
header, which holds the table's; the table holds each record's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from google_crc32c import value as crc32c

MAGIC = b"\xf5TB\x01"  # 0xf5 occurs in no UTF-8 text; the last byte is the block version
MAX_BODY_BYTES = 2**32 - 1

_HEADER = struct.Struct(">4s8sIIQQQIIII")
_UNSUMMED = struct.Struct(">4s8sIIQQQIII")
_CHECKSUM = struct.Struct(">I")
_PAIR = struct.Struct(">II")
HEADER_BYTES = _HEADER.size
ENTRY_BYTES = _PAIR.size


class BlockHeader(NamedTuple):
    """The fields in their order on the disk, without magic and header checksum."""

    directory: bytes
    generation: int
    epoch: int
    offset: int
    first_record: int
    synced_record: int
    record_count: int
    body_bytes: int
    table_checksum: int


def encode_table(records: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """The table of the records, and their checksums."""
    if len(records) == 1:
        record = records[0]
        checksum = crc32c(record)
        return _PAIR.pack(len(record), checksum), [checksum]
    checksums = [crc32c(record) for record in records]
    flat: list[int] = [0] * (2 * len(records))
    flat[::2] = map(len, records)
    flat[1::2] = checksums
    return struct.pack(f">{len(flat)}I", *flat), checksums


def encode_header(header: BlockHeader) -> bytes:
    unsummed = _UNSUMMED.pack(MAGIC, *header)
    return unsummed + _CHECKSUM.pack(crc32c(unsummed))


def decode_header(data: bytes, at: int = 0) -> BlockHeader | None:
    """The header at `at`, or None if there is no whole and intact one."""
    end = at + HEADER_BYTES
    if len(data) < end or data[at : at + 4] != MAGIC:
        return None
    _, *fields, checksum = _HEADER.unpack_from(data, at)
    if crc32c(data[at : end - 4]) != checksum:
        return None
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
