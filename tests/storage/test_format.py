"""The documented bytes are the written bytes: the examples of docs/storage.md."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from telpher_storage.block import BlockHeader, decode_header, encode_header
from telpher_storage.clean import CleanMarker, decode_clean, encode_clean
from telpher_storage.file_header import (
    FILE_HEADER_BYTES,
    INCREMENT,
    SNAPSHOT,
    FileHeader,
    decode_file_header,
)
from telpher_storage.footer import FOOTER_BYTES, Footer, decode_footer
from telpher_storage.manifest import Manifest, decode_manifest, encode_manifest

from .worlds import make

DOCUMENT = (Path(__file__).parents[2] / "docs" / "storage.md").read_text()
DIRECTORY = bytes.fromhex("6fd20e7ac4b15d90")

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


def test_the_worked_example_is_a_directory_that_opens(tmp_path: Path) -> None:
    (tmp_path / "increment-0000000004").write_bytes(example("increment"))
    (tmp_path / "snapshot-0000000003").write_bytes(example("snapshot"))
    (tmp_path / "manifest").write_bytes(text("telpher manifest 1"))
    (tmp_path / "CLEAN").write_bytes(text("telpher clean 1"))
    storage = make(tmp_path)
    recovery = storage.open()
    assert [data for data, _ in recovery.snapshot] == [b"state"]
    assert [data for data, _ in recovery.records] == [b"hello", b"telpher"]
    assert recovery.report.clean
    storage.close(clean=False)


def test_the_worked_example_says_what_the_document_says() -> None:
    increment, snapshot = example("increment"), example("snapshot")
    assert decode_file_header(increment) == FileHeader(INCREMENT, 1, DIRECTORY, 4, 0)
    assert decode_file_header(snapshot) == FileHeader(SNAPSHOT, 1, DIRECTORY, 3, 1000)
    block = decode_header(increment, FILE_HEADER_BYTES)
    assert block is not None
    assert block[:-1] == (DIRECTORY, 4, 3, 48, 1000, 1000, 2, 28)
    assert decode_footer(snapshot[-FOOTER_BYTES:]) == Footer(DIRECTORY, 3, 121, 1, 1000)


def test_the_documented_texts_decode() -> None:
    manifest = decode_manifest(text("telpher manifest 1"))
    assert manifest == Manifest(DIRECTORY, 3, 5, 1000, 3, 1000, (4,))
    assert decode_clean(text("telpher clean 1")) == CleanMarker(DIRECTORY, 3, 4, 136, 1002)


@given(st.builds(BlockHeader, identity, u32, u32, u64, u64, u64, u32, u32, u32), st.data())
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
