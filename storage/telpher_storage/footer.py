"""The last 44 bytes of a snapshot: they prove that it is whole. Written last, synced, then named
in the manifest. docs/storage.md is the format's definition.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from google_crc32c import value as crc32c

FOOTER_MAGIC = b"\xf5TE\x01"
_FOOTER = struct.Struct(">4s8sIQQQI")
_UNSUMMED = struct.Struct(">4s8sIQQQ")
FOOTER_BYTES = _FOOTER.size


class Footer(NamedTuple):
    """`offset` is where the footer itself lies, so that a snapshot cannot lose its middle."""

    directory: bytes
    generation: int
    offset: int
    chunk_count: int
    upto: int


def encode_footer(footer: Footer) -> bytes:
    unsummed = _UNSUMMED.pack(FOOTER_MAGIC, *footer)
    return unsummed + struct.pack(">I", crc32c(unsummed))


def decode_footer(data: bytes) -> Footer | None:
    """The footer, or None if `data` is not exactly an intact one."""
    if len(data) != FOOTER_BYTES or data[:4] != FOOTER_MAGIC:
        return None
    _, *fields, checksum = _FOOTER.unpack(data)
    return Footer(*fields) if crc32c(data[:-4]) == checksum else None
