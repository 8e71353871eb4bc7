"""What is found on the disk: a whole directory of which any byte may be another.

The bytes are edits of a sound directory: which one, then of which file, where, and what stands
there. After that the checksums are made right again, all, some or none: so damage comes through to
what is behind them.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google_crc32c import value as crc32c

from telpher_storage import FileStorage, StorageDamaged, StorageError, StorageSettings
from telpher_storage.block import ENTRY_BYTES, MAGIC, decode_header
from telpher_storage.check import check
from telpher_storage.file_header import FILE_HEADER_BYTES
from telpher_storage.footer import FOOTER_BYTES, FOOTER_MAGIC

from ...storage.disk import Disk
from ...storage.worlds import build, data_files

HOME = Path("/fuzz/data")
SCRIPTS = ("asa", "asasa", "asSasa", "asrasa", "asPasa")
_TEXTS = ("manifest", "CLEAN")
_BLOCK_LAYOUTS = {1: 60, 2: 68}

Content = dict[str, bytearray]


def _made() -> list[dict[str, bytes]]:
    found = []
    for script in SCRIPTS:
        for is_clean in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                home = Path(folder) / "data"
                build(home, script, clean=is_clean)
                found.append({path.name: path.read_bytes() for path in data_files(home)})
    return found


_MADE: list[dict[str, bytes]] = []


def _directories() -> list[dict[str, bytes]]:
    if not _MADE:
        _MADE.extend(_made())
    return _MADE


def directory(data: bytes) -> None:
    """Whatever stands there is opened, or refused as damaged, twice alike; a check agrees."""
    content = _edited(data)
    first = _opened(content)
    verdict = _verdict(content)
    if first is None:
        assert verdict in ("damaged", "newer"), verdict
    else:
        assert verdict in ("sound", "torn", "empty"), verdict
    assert _opened(content) == first


def _opened(content: Content) -> tuple[list[bytes], list[bytes], int] | None:
    """Chunks, records and bytes cut; None when it is refused."""
    settings = StorageSettings(HOME, "aof+rdb", reserve_bytes=4096)
    storage = FileStorage(settings, journal=True, files=_disk(content))
    try:
        recovery = storage.open()
        chunks = [chunk for chunk, _ in recovery.snapshot]
        records = [record for record, _ in recovery.records]
    except (StorageDamaged, StorageError):
        return None
    finally:
        storage.close(clean=False)
    return chunks, records, recovery.report.bytes_cut


def _verdict(content: Content) -> str:
    try:
        return check(HOME, _disk(content)).verdict
    except StorageError:  # of a format that only a later version reads
        return "newer"


def _disk(content: Content) -> Disk:
    return Disk({f"{HOME}/{name}": bytes(data) for name, data in content.items()})


def _edited(data: bytes) -> Content:
    sound = _directories()
    start = data[0] if data else 0
    content = {name: bytearray(found) for name, found in sound[start % len(sound)].items()}
    names, position = sorted(content), 2
    while position + 5 <= len(data):
        kind, which, low, high, size = data[position : position + 5]
        position += 5
        one = content[names[which % len(names)]]
        at = (low | high << 8) % (len(one) + 1)
        if kind % 4 == 0:
            del one[at:]
        elif kind % 4 == 1:
            other = content[names[size % len(names)]]
            one[at : at + 64] = other[at : at + 64]
        else:
            patch = data[position : position + size % 64]
            position += len(patch)
            one[at : at + (len(patch) if kind % 4 == 2 else 0)] = patch
    _mend(content, data[1] if len(data) > 1 else 0)
    return content


def _mend(content: Content, how: int) -> None:
    """Make the checksums right of blocks (1), of file headers and footers (2), of texts (4)."""
    for name, one in content.items():
        if name in _TEXTS:
            if how & 4:
                _mend_text(one)
            continue
        if how & 1:
            _mend_blocks(one)
        if how & 2:
            _mend_ends(one)


def _mend_blocks(one: bytearray) -> None:
    at = one.find(MAGIC)
    while at >= 0:
        size = _BLOCK_LAYOUTS.get(one[at + 3] if at + 3 < len(one) else 0, 0)
        if size and at + size <= len(one):
            _mend_table(one, at, size)
            struct.pack_into(">I", one, at + size - 4, crc32c(bytes(one[at : at + size - 4])))
        at = one.find(MAGIC, at + 1)


def _mend_table(one: bytearray, at: int, size: int) -> None:
    """The checksums of the records in the table, and that of the table in the header."""
    (count,) = struct.unpack_from(">I", one, at + size - 16)
    table, record = at + size, at + size + count * ENTRY_BYTES
    if record > len(one):
        return
    for entry in range(table, record, ENTRY_BYTES):
        (length,) = struct.unpack_from(">I", one, entry)
        struct.pack_into(">I", one, entry + 4, crc32c(bytes(one[record : record + length])))
        record += length
    summed = bytes(one[table : table + count * ENTRY_BYTES])
    struct.pack_into(">I", one, at + size - 8, crc32c(summed))


def _mend_ends(one: bytearray) -> None:
    if len(one) >= FILE_HEADER_BYTES:
        end = FILE_HEADER_BYTES - 4
        struct.pack_into(">I", one, end, crc32c(bytes(one[:end])))
    end = len(one) - FOOTER_BYTES
    if end > 0 and one[end : end + len(FOOTER_MAGIC)] == FOOTER_MAGIC:
        struct.pack_into(">I", one, len(one) - 4, crc32c(bytes(one[end:-4])))


def _mend_text(one: bytearray) -> None:
    lines, found, _ = bytes(one).rpartition(b"checksum ")
    if found:
        one[:] = lines + b"checksum %08x\n" % crc32c(lines)


def directory_seeds() -> Iterator[bytes]:
    """Each directory as it is, cut, changed in the middle of each file, and mended."""
    sound = _directories()
    for number, files in enumerate(sound):
        yield bytes((number, 0))
        for which, name in enumerate(sorted(files)):
            for at in range(0, len(files[name]), max(1, len(files[name]) // 6)):
                for how in (0, 7):
                    yield bytes((number, how, 2, which, at & 255, at >> 8, 1, 255))
                yield bytes((number, 7, 0, which, at & 255, at >> 8, 0))


def check_mending() -> None:
    """What is mended without having been changed is as it was."""
    for sound in _directories():
        content = {name: bytearray(data) for name, data in sound.items()}
        _mend(content, 7)
        assert content == sound
        blocks = [data for name, data in sound.items() if name not in _TEXTS]
        assert any(decode_header(data, max(data.find(MAGIC), 0)) for data in blocks)
