"""The first 48 bytes of increments and snapshots: which file of which directory this is.

Also how those files are named. docs/storage.md is the format's definition.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from google_crc32c import value as crc32c

INCREMENT = b"I"
SNAPSHOT = b"S"
VERSION = 2
VERSIONS_READ = (1, VERSION)

_MAGIC = b"TELPHER"
_HEADER = struct.Struct(">7scI8sQQQI")
_UNSUMMED = struct.Struct(">7scI8sQQQ")
FILE_HEADER_BYTES = _HEADER.size
_NAME = re.compile(r"(increment|snapshot)-([0-9]{10})")


class FileHeader(NamedTuple):
    """`upto` is the record number a snapshot covers up to (exclusive); 0 in an increment."""

    kind: bytes
    version: int
    directory: bytes
    generation: int
    upto: int


def encode_file_header(header: FileHeader) -> bytes:
    unsummed = _UNSUMMED.pack(_MAGIC, *header, 0)
    return unsummed + struct.pack(">I", crc32c(unsummed))


def decode_file_header(data: bytes) -> FileHeader | None:
    """The header at the start of `data`, or None if there is no whole and intact one."""
    if len(data) < FILE_HEADER_BYTES:
        return None
    magic, kind, version, directory, generation, upto, reserved, checksum = _HEADER.unpack_from(
        data
    )
    if magic != _MAGIC or reserved or crc32c(data[: FILE_HEADER_BYTES - 4]) != checksum:
        return None
    return FileHeader(kind, version, directory, generation, upto)


def increment_name(generation: int) -> str:
    return f"increment-{generation:010}"


def snapshot_name(generation: int) -> str:
    return f"snapshot-{generation:010}"


def parse_name(name: str) -> tuple[bytes, int] | None:
    """Kind and generation from the name of a data file; None for any other name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return (INCREMENT if match[1] == "increment" else SNAPSHOT), int(match[2])
