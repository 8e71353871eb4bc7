"""The CLEAN marker: left by an orderly close, it proves exactly where the log ends.

    telpher clean 1
    directory 6fd20e7ac4b15d90
    epoch 3
    file 4
    offset 8812
    next-record 1200
    checksum 0a1b2c3d

It binds to the epoch of the manifest: the next open writes a manifest with a higher epoch, which
makes the marker void in the same step, and removes it before anything is appended.
"""

from __future__ import annotations

from dataclasses import dataclass

from .manifest import seal

CLEAN = "CLEAN"


@dataclass(frozen=True, slots=True)
class CleanMarker:
    """`file` is the last increment's generation (0: there is none), `offset` its length."""

    directory: bytes
    epoch: int
    file: int
    offset: int
    next_record: int


def encode_clean(marker: CleanMarker) -> bytes:
    return seal(
        f"telpher clean 1\ndirectory {marker.directory.hex()}\nepoch {marker.epoch}\n"
        f"file {marker.file}\noffset {marker.offset}\nnext-record {marker.next_record}\n"
    )


def decode_clean(data: bytes) -> CleanMarker | None:
    """The marker, or None if any byte of it is not as it was written."""
    try:
        lines = [line.split(" ")[1] for line in data.decode("ascii").splitlines()]
        directory = bytes.fromhex(lines[1])
        marker = CleanMarker(directory, *(int(word) for word in lines[2:6]))
    except (ValueError, IndexError, TypeError):
        return None
    return marker if encode_clean(marker) == data else None
