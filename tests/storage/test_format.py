"""The documented bytes are the written bytes: the examples of docs/storage.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from telpher_storage import StorageDamaged, StorageError
from telpher_storage.block import BlockHeader, decode_header, encode_header
from telpher_storage.check import check
from telpher_storage.clean import CleanMarker, decode_clean, encode_clean
from telpher_storage.file_header import (
    FILE_HEADER_BYTES,
    INCREMENT,
    SNAPSHOT,
    FileHeader,
    decode_file_header,
    encode_file_header,
)
from telpher_storage.footer import FOOTER_BYTES, Footer, decode_footer
from telpher_storage.manifest import Manifest, decode_manifest, encode_manifest, seal
from telpher_storage.repair import repair

from .worlds import make, opened, outcome

DOCUMENT = (Path(__file__).parents[2] / "docs" / "storage.md").read_text()
DIRECTORY = bytes.fromhex("6fd20e7ac4b15d90")
TIME_MS = 1793536496789

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
identity = st.binary(min_size=8, max_size=8)


def example(name: str) -> bytes:
    match = re.search(rf"```hex {name}\n(.*?)```", DOCUMENT, re.S)
    assert match is not None
    return bytes.fromhex("".join(line.split("#")[0] for line in match[1].splitlines()))


def text(first_line: str) -> bytes:
    match = re.search(rf"```\n({first_line}\n.*?)```", DOCUMENT, re.S)
    assert match is not None
    return match[1].encode()


def write_example(directory: Path, version: str = "") -> None:
    (directory / "increment-0000000004").write_bytes(example(f"increment{version}"))
    (directory / "snapshot-0000000003").write_bytes(example(f"snapshot{version}"))
    (directory / "manifest").write_bytes(text("telpher manifest 1"))


def test_the_worked_example_is_a_directory_that_opens(tmp_path: Path) -> None:
    write_example(tmp_path)
    (tmp_path / "CLEAN").write_bytes(text("telpher clean 1"))
    storage = make(tmp_path)
    recovery = storage.open()
    assert [data for data, _ in recovery.snapshot] == [b"state"]
    assert [data for data, _ in recovery.records] == [b"hello", b"telpher"]
    assert recovery.report.clean
    storage.close(clean=False)


def test_the_example_of_version_1_opens_and_the_log_goes_on_in_a_file_of_its_own(
    tmp_path: Path,
) -> None:
    """A reader of version 1 that met a block of version 2 in its file would cut it off as torn."""
    write_example(tmp_path, "-1")
    first = (tmp_path / "increment-0000000004").read_bytes()
    with opened(tmp_path) as storage:
        assert storage.next_record == 1002
        storage.append([b"later"], 7)
    assert (tmp_path / "increment-0000000004").read_bytes() == first
    header = decode_file_header((tmp_path / "increment-0000000005").read_bytes())
    assert header == FileHeader(INCREMENT, 2, DIRECTORY, 5, 0)
    storage = make(tmp_path)
    recovery = storage.open()
    assert [data for data, _ in recovery.snapshot] == [b"state"]
    assert [data for data, _ in recovery.records] == [b"hello", b"telpher", b"later"]
    storage.close(clean=False)
    assert check(tmp_path).verdict == "sound"


def test_a_newer_version_is_refused_and_not_called_damage(tmp_path: Path) -> None:
    write_example(tmp_path)
    header = decode_file_header(example("increment"))
    assert header is not None
    newer = encode_file_header(header._replace(version=3)) + example("increment")[48:]
    (tmp_path / "increment-0000000004").write_bytes(newer)
    for examine in (outcome, check, repair):
        with pytest.raises(StorageError, match="format 3") as caught:
            examine(tmp_path)
        assert not isinstance(caught.value, StorageDamaged)
    assert (tmp_path / "increment-0000000004").read_bytes() == newer


def test_a_newer_manifest_is_refused_and_not_called_damage(tmp_path: Path) -> None:
    write_example(tmp_path)
    lines = text("telpher manifest 1").decode().replace("manifest 1", "manifest 2")
    (tmp_path / "manifest").write_bytes(seal(lines[: lines.index("checksum")]))
    for examine in (outcome, check, repair):
        with pytest.raises(StorageError, match="newer format") as caught:
            examine(tmp_path)
        assert not isinstance(caught.value, StorageDamaged)


def test_a_block_tells_when_it_was_written(tmp_path: Path) -> None:
    """And a snapshot, when the last block was that it covers; also after a restart."""

    async def run() -> None:
        with opened(tmp_path) as storage:
            storage.append([b"a"], 1000)
            storage.append([b"b"], 2000)
        with opened(tmp_path) as storage:
            await storage.prepare_snapshot()
            upto = storage.cut()
            storage.append([b"c"], 3000)
            await storage.write_snapshot(upto, [b"state"])

    def time_of(name: str) -> int:
        header = decode_header((tmp_path / name).read_bytes(), FILE_HEADER_BYTES)
        assert header is not None
        return header.time_ms

    trio.run(run)
    assert time_of("increment-0000000002") == 3000
    assert time_of("snapshot-0000000003") == 2000


def test_the_worked_example_says_what_the_document_says() -> None:
    increment, snapshot = example("increment"), example("snapshot")
    assert decode_file_header(increment) == FileHeader(INCREMENT, 2, DIRECTORY, 4, 0)
    assert decode_file_header(snapshot) == FileHeader(SNAPSHOT, 2, DIRECTORY, 3, 1000)
    block = decode_header(increment, FILE_HEADER_BYTES)
    assert block is not None
    assert block[:-1] == (2, DIRECTORY, 4, 3, 48, 1000, 1000, TIME_MS, 2, 28)
    assert decode_footer(snapshot[-FOOTER_BYTES:]) == Footer(DIRECTORY, 3, 129, 1, 1000)


def test_the_example_of_version_1_says_what_the_document_says() -> None:
    increment, snapshot = example("increment-1"), example("snapshot-1")
    assert decode_file_header(increment) == FileHeader(INCREMENT, 1, DIRECTORY, 4, 0)
    assert decode_file_header(snapshot) == FileHeader(SNAPSHOT, 1, DIRECTORY, 3, 1000)
    block = decode_header(increment, FILE_HEADER_BYTES)
    assert block is not None
    assert block[:-1] == (1, DIRECTORY, 4, 3, 48, 1000, 1000, 0, 2, 28)
    assert decode_footer(snapshot[-FOOTER_BYTES:]) == Footer(DIRECTORY, 3, 121, 1, 1000)


def test_the_documented_texts_decode() -> None:
    manifest = decode_manifest(text("telpher manifest 1"))
    assert manifest == Manifest(DIRECTORY, 3, 5, 1000, 3, 1000, (4,))
    assert decode_clean(text("telpher clean 1")) == CleanMarker(DIRECTORY, 3, 4, 144, 1002)


headers = st.builds(BlockHeader, st.just(2), identity, u32, u32, u64, u64, u64, u64, u32, u32, u32)


@given(headers, st.data())
def test_a_block_header_comes_back_and_a_flipped_one_does_not(
    header: BlockHeader, data: st.DataObject
) -> None:
    encoded = encode_header(header)
    assert decode_header(encoded) == header
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    flipped = bytearray(encoded)
    flipped[bit // 8] ^= 1 << bit % 8
    assert decode_header(bytes(flipped)) is None


@given(st.binary(max_size=200))
def test_no_bytes_make_a_decoder_fail(data: bytes) -> None:
    """Whatever a disk gives back is answered with None or something well-formed."""
    assert decode_header(data) is None or data[:1] == b"\xf5"
    assert decode_file_header(data) is None
    assert decode_footer(data) is None
    assert decode_manifest(data) is None
    assert decode_clean(data) is None


@given(
    st.builds(
        Manifest,
        identity,
        u32,
        u32,
        u64,
        st.none() | u32,
        st.just(0),
        st.lists(u32, max_size=4).map(tuple),
    )
)
def test_a_manifest_comes_back(manifest: Manifest) -> None:
    assert decode_manifest(encode_manifest(manifest)) == manifest


@given(st.builds(CleanMarker, identity, u32, u32, u64, u64))
def test_a_clean_marker_comes_back(marker: CleanMarker) -> None:
    assert decode_clean(encode_clean(marker)) == marker
