"""The manifest: which files make up the log, in order. Whatever it does not name is not there.

    telpher manifest 1
    directory 6fd20e7ac4b15d90
    epoch 3
    next-file 5
    synced-record 1200
    snapshot 3 upto 1000
    increment 4
    checksum 0a1b2c3d

It is replaced whole: written beside, synced, renamed over, the directory synced. So a reader
finds the old or the new one. The text is canonical: what does not encode to the very bytes it
was decoded from is damaged, and so is every flipped bit.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from google_crc32c import value as crc32c

from .file_header import increment_name, snapshot_name
from .files import CREATE, READ, Files

MANIFEST = "manifest"
MANIFEST_TEMPORARY = "manifest.new"
MANIFEST_BYTES_MAX = 16 * 1024 * 1024
_FIRST_LINE = b"telpher manifest 1"


@dataclass(frozen=True, slots=True)
class Manifest:
    """`next_file` is the lowest generation number no registered file has used.

    `synced_record`: every record below it was on the disk when this was written.
    """

    directory: bytes
    epoch: int = 0
    next_file: int = 1
    synced_record: int = 0
    snapshot: int | None = None
    upto: int = 0
    increments: tuple[int, ...] = ()


def encode_manifest(manifest: Manifest) -> bytes:
    lines = [
        _FIRST_LINE.decode(),
        f"directory {manifest.directory.hex()}",
        f"epoch {manifest.epoch}",
        f"next-file {manifest.next_file}",
        f"synced-record {manifest.synced_record}",
    ]
    if manifest.snapshot is not None:
        lines.append(f"snapshot {manifest.snapshot} upto {manifest.upto}")
    lines += [f"increment {generation}" for generation in manifest.increments]
    return seal("\n".join(lines) + "\n")


def decode_manifest(data: bytes) -> Manifest | None:
    """The manifest, or None if any byte of it is not as it was written."""
    try:
        manifest = _parse(data.decode("ascii").splitlines())
    except (ValueError, IndexError):
        return None
    return manifest if encode_manifest(manifest) == data else None


def is_newer_manifest(data: bytes) -> bool:
    """Whether it is intact, and of a format that only later versions of Telpher read."""
    lines, _, last = data.rpartition(b"checksum ")
    first = lines.split(b"\n")[0]
    is_whole = last == b"%08x\n" % crc32c(lines)
    return is_whole and first.startswith(b"telpher manifest ") and first != _FIRST_LINE


def _parse(lines: list[str]) -> Manifest:
    directory = bytes.fromhex(lines[1].split(" ")[1])
    epoch, next_file, synced = (int(line.split(" ")[1]) for line in lines[2:5])
    snapshot, upto = None, 0
    if lines[5].startswith("snapshot "):
        _, generation, _, covered = lines[5].split(" ")
        snapshot, upto = int(generation), int(covered)
    increments = (line.split(" ")[1] for line in lines if line.startswith("increment "))
    return Manifest(
        directory, epoch, next_file, synced, snapshot, upto, tuple(map(int, increments))
    )


def data_names(manifest: Manifest) -> list[str]:
    """The files of the log in order."""
    snapshot = [] if manifest.snapshot is None else [snapshot_name(manifest.snapshot)]
    return snapshot + [increment_name(generation) for generation in manifest.increments]


def seal(text: str) -> bytes:
    """Text whose last line is the CRC-32C of the lines before it."""
    data = text.encode("ascii")
    return data + f"checksum {crc32c(data):08x}\n".encode("ascii")


def read_small(files: Files, path: Path) -> bytes | None:
    """The content of a small file, None if there is none. Raises OSError."""
    try:
        fd = files.open(path, READ)
    except FileNotFoundError:
        return None
    try:
        return files.read(fd, MANIFEST_BYTES_MAX, 0)
    finally:
        files.close(fd)


def replace_small(files: Files, directory: Path, name: str, data: bytes) -> None:
    """Put `data` in place of a small file: after any crash the old or the new one is there.

    Raises OSError; the old one is then still there, or the new one already.
    """
    temporary = directory / f"{name}.new"
    remove_if_there(files, temporary)
    fd = files.open(temporary, CREATE)
    try:
        write_all(files, fd, data)
        files.sync_data(fd)
    finally:
        files.close(fd)
    files.rename(temporary, directory / name)
    try:
        files.sync_directory(directory)
    except OSError as error:  # even for want of space: which of the two counts is now unknown
        raise OSError(errno.EIO, f"the directory cannot be synced: {error}") from error


def write_all(files: Files, fd: int, data: bytes) -> None:
    """Write it all; a short write is followed up once, which tells why. Raises OSError."""
    written = files.write(fd, data)
    while written < len(data):
        more = files.write(fd, data[written:])
        if not more:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        written += more


def remove_if_there(files: Files, path: Path) -> bool:
    try:
        files.unlink(path)
    except FileNotFoundError:
        return False
    return True
