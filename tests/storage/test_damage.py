"""Every cut, every flipped bit, zeroed sectors, blocks swapped, duplicated, put back.

The law: what is opened is an exact prefix of what was appended, whole, or with a tail cut that
is reported; never less than what is proven. Everything else is refused, changes nothing, and
becomes openable by repair, which loses no more than it reports.

These are samples on a real file system; the programme `cuts` tries every byte and every bit of a
directory with all kinds of records.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import trio
from google_crc32c import value as crc32c

from telpher_storage.block import HEADER_BYTES, MAGIC, decode_header, encode_header
from telpher_storage.check import check
from telpher_storage.clean import CLEAN
from telpher_storage.file_header import FILE_HEADER_BYTES, increment_name
from telpher_storage.files import READ, Files
from telpher_storage.footer import FOOTER_BYTES, decode_footer, encode_footer
from telpher_storage.manifest import MANIFEST, decode_manifest
from telpher_storage.reader import BlockReader
from telpher_storage.repair import repair

from .worlds import (
    QuickFiles,
    append,
    build,
    copy,
    data_files,
    flip,
    opened,
    outcome,
    prefix_length,
    shorten,
    zero,
)

SCRIPTS = ["asasa", "asSasa", "asPasa", "asrasa"]


def judge(directory: Path, proven: int) -> str:
    """Open a damaged copy; hold the law; returns what happened."""
    before = {path.name: path.read_bytes() for path in data_files(directory)}
    verdict = check(directory).verdict
    happened, found = outcome(directory)
    if found is not None:
        assert prefix_length(found) >= proven
        assert verdict == {"cut": "torn", "whole": "sound"}[happened]
        again, found_again = outcome(directory)
        assert again == "whole"
        assert found_again is not None
        assert prefix_length(found_again) == prefix_length(found)
        return happened
    assert verdict == "damaged"
    assert {path.name: path.read_bytes() for path in data_files(directory)} == before
    return happened


def judge_repair(directory: Path) -> None:
    report = repair(directory, QuickFiles())
    assert report.folder is not None
    happened, found = outcome(directory)
    assert happened == "whole"
    assert found is not None
    kept = prefix_length(found)
    assert kept == report.lost_from
    assert not report.snapshot_lost or kept == 0
    with opened(directory) as storage:
        append(storage, 1)
    _, found = outcome(directory)
    assert found is not None
    assert prefix_length(found) == kept + 1


def last_proof(directory: Path) -> int:
    """The highest record number that anything in the directory claims as synced."""
    manifest = decode_manifest((directory / MANIFEST).read_bytes())
    assert manifest is not None
    proven = manifest.synced_record
    for generation in manifest.increments:
        fd = Files().open(directory / increment_name(generation), READ)
        reader = BlockReader(Files(), fd, "", manifest.directory, generation, manifest.epoch)
        for _, header in reader.intact_blocks_after(FILE_HEADER_BYTES):
            proven = max(proven, header.synced_record)
        Files().close(fd)
    return proven


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("clean", [False, True])
def test_every_file_cut_at_every_seventh_byte_and_between_blocks(
    tmp_path: Path, script: str, clean: bool
) -> None:
    build(tmp_path / "original", script, clean=clean)
    happened: Counter[str] = Counter()
    for path in data_files(tmp_path / "original"):
        size = path.stat().st_size
        between = {match.start() for match in re.finditer(re.escape(MAGIC), path.read_bytes())}
        for length in sorted({*range(0, size, 7), *between}):
            directory = copy(tmp_path / "original", tmp_path / "cut")
            shorten(directory / path.name, length)
            result = judge(directory, last_proof_or_zero(directory))
            happened[result] += 1
            if result == "refused" and length % 6 == 0:
                judge_repair(directory)
    assert happened["refused"]
    assert not (clean and happened["cut"] + happened["whole"])


def last_proof_or_zero(directory: Path) -> int:
    if decode_manifest((directory / MANIFEST).read_bytes()) is None:
        return 0
    return last_proof(directory)


@pytest.mark.parametrize("script", ["asasa", "asPasa", "asSas"])
@pytest.mark.parametrize("clean", [False, True])
def test_every_eleventh_bit_flipped(tmp_path: Path, script: str, clean: bool) -> None:
    """Only bits behind the last proof may be taken for a torn tail; no flip goes unnoticed."""
    synced = build(tmp_path / "original", script, clean=clean)
    proven = last_proof(tmp_path / "original")
    assert clean or proven <= synced
    directory = copy(tmp_path / "original", tmp_path / "flipped")
    happened: Counter[str] = Counter()
    for path in data_files(directory):
        good = path.read_bytes()
        for bit in range(0, len(good) * 8, 11):
            flip(path, bit)
            verdict = check(directory).verdict
            happened[verdict] += 1
            if verdict == "torn" and bit % 3 == 0:
                assert judge(copy(directory, tmp_path / "torn"), proven) == "cut"
            elif verdict == "damaged" and bit % 12 == 0:
                assert judge(copy(directory, tmp_path / "refused"), proven) == "refused"
                judge_repair(tmp_path / "refused")
            path.write_bytes(good)
    assert happened["sound"] == 0
    assert happened["damaged"]
    assert not (clean and happened["torn"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_zeroed_sectors(tmp_path: Path, script: str) -> None:
    build(tmp_path / "original", script * 4)
    for path in data_files(tmp_path / "original"):
        for start in range(0, path.stat().st_size, 512):
            directory = copy(tmp_path / "original", tmp_path / "zeroed")
            zero(directory / path.name, start)
            if judge(directory, last_proof_or_zero(directory)) == "refused":
                judge_repair(directory)


def blocks(directory: Path, generation: int) -> list[bytes]:
    """The bytes of each block of an increment."""
    manifest = decode_manifest((directory / MANIFEST).read_bytes())
    assert manifest is not None
    fd = Files().open(directory / increment_name(generation), READ)
    reader = BlockReader(Files(), fd, "", manifest.directory, generation, manifest.epoch)
    found = reader.intact_blocks_after(FILE_HEADER_BYTES)
    spans = [(place, place + HEADER_BYTES + header.body_bytes) for place, header in found]
    Files().close(fd)
    data = (directory / increment_name(generation)).read_bytes()
    return [data[start:end] for start, end in spans]


def test_any_two_blocks_swapped_any_duplicated_are_refused(tmp_path: Path) -> None:
    build(tmp_path / "original", "aaaa")
    parts = blocks(tmp_path / "original", 1)
    assert len(parts) == 4
    header = (tmp_path / "original" / increment_name(1)).read_bytes()[:FILE_HEADER_BYTES]
    orders = [[parts[0], *parts]]
    for i in range(4):
        orders.append([*parts[: i + 1], parts[i], *parts[i + 1 :]])
        for j in range(i + 1, 4):
            swapped = list(parts)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            orders.append(swapped)
    for order in orders:
        directory = copy(tmp_path / "original", tmp_path / "changed")
        (directory / increment_name(1)).write_bytes(header + b"".join(order))
        assert judge(directory, 0) == "refused"
        judge_repair(directory)


@pytest.mark.parametrize(
    ("field", "value"),
    [("offset", 7), ("generation", 7), ("epoch", 7), ("epoch", 0), ("directory", b"another.")],
)
def test_a_block_that_is_not_from_here_is_refused(
    tmp_path: Path, field: str, value: object
) -> None:
    """The record's number alone would not tell: it is the one that belongs there."""
    build(tmp_path, "aa")
    path = tmp_path / increment_name(1)
    last = blocks(tmp_path, 1)[-1]
    header = decode_header(last)
    assert header is not None
    moved = encode_header(header._replace(**{field: value}))
    path.write_bytes(path.read_bytes()[: -len(last)] + moved + last[HEADER_BYTES:])
    assert judge(tmp_path, 0) == "refused"


def test_records_that_changed_places_with_their_checksums_are_refused(tmp_path: Path) -> None:
    """Each is intact, and its entry beside it: it is the table that knows their order."""
    one, other = b"A" * 40, b"B" * 40
    with opened(tmp_path) as storage:
        storage.append([one, other])
        trio.run(storage.sync)
        storage.append([b"proof"])
    (path,) = tmp_path.glob("increment-*")
    data = path.read_bytes()
    entries = [len(record).to_bytes(4) + crc32c(record).to_bytes(4) for record in (one, other)]
    assert data.count(b"".join(entries)) == data.count(one + other) == 1
    data = data.replace(b"".join(entries), entries[1] + entries[0])
    path.write_bytes(data.replace(one + other, other + one))
    assert outcome(tmp_path)[0] == "refused"


def test_a_snapshot_that_says_to_hold_more_chunks_is_refused(tmp_path: Path) -> None:
    build(tmp_path, "aS")
    (path,) = tmp_path.glob("snapshot-*")
    data = path.read_bytes()
    footer = decode_footer(data[-FOOTER_BYTES:])
    assert footer is not None
    more = footer._replace(chunk_count=footer.chunk_count + 1)
    path.write_bytes(data[:-FOOTER_BYTES] + encode_footer(more))
    assert outcome(tmp_path)[0] == "refused"


def test_an_older_generation_put_back_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "original", "aasS")
    old = copy(tmp_path / "original", tmp_path / "old")
    build(tmp_path / "original", "aasSaas")
    for older in data_files(old):
        for newer in data_files(tmp_path / "original"):
            if older.read_bytes() == newer.read_bytes():
                continue
            directory = copy(tmp_path / "original", tmp_path / "changed")
            (directory / newer.name).write_bytes(older.read_bytes())
            assert judge(directory, 0) == "refused"
            judge_repair(directory)


def test_a_block_of_an_older_generation_in_place_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "original", "aaS")
    old = copy(tmp_path / "original", tmp_path / "old")
    build(tmp_path / "original", "aaSaa")
    block = blocks(old, 2) or blocks(tmp_path / "original", 4)
    path = tmp_path / "original" / increment_name(4)
    path.write_bytes(path.read_bytes() + block[0])
    assert judge(tmp_path / "original", 0) == "refused"


def test_an_older_manifest_that_does_not_know_an_increment_is_refused(tmp_path: Path) -> None:
    """Opening by it would remove the increment as left over."""
    build(tmp_path, "aas")
    older = (tmp_path / MANIFEST).read_bytes()
    build(tmp_path, "Pas")
    (tmp_path / MANIFEST).write_bytes(older)
    assert judge(tmp_path, 0) == "refused"
    judge_repair(tmp_path)
    _, found = outcome(tmp_path)
    assert found is not None
    assert prefix_length(found) == 7


def test_a_missing_file_is_refused_and_repaired(tmp_path: Path) -> None:
    build(tmp_path / "original", "asSasPas")
    for path in data_files(tmp_path / "original"):
        directory = copy(tmp_path / "original", tmp_path / "missing")
        (directory / path.name).unlink()
        assert judge(directory, 0) == "refused"
        judge_repair(directory)


def test_bytes_after_an_orderly_end_are_refused(tmp_path: Path) -> None:
    build(tmp_path, "as", clean=True)
    assert (tmp_path / CLEAN).exists()
    path = tmp_path / increment_name(1)
    path.write_bytes(path.read_bytes() + b"\0")
    assert judge(tmp_path, 0) == "refused"


def test_a_log_inside_a_record_is_no_evidence(tmp_path: Path) -> None:
    """A message may hold a copy of another log; a torn tail around it is still cut."""
    build(tmp_path / "other", "asasas")
    inside = (tmp_path / "other" / increment_name(1)).read_bytes()
    with opened(tmp_path / "log") as storage:
        append(storage, 2)
        storage.append([inside])
    path = tmp_path / "log" / increment_name(1)
    shorten(path, path.stat().st_size - 1)
    happened, found = outcome(tmp_path / "log")
    assert happened == "cut"
    assert found is not None
    assert prefix_length(found) == 2


def test_the_report_of_a_cut_counts_its_bytes(tmp_path: Path) -> None:
    build(tmp_path, "aas")
    path = tmp_path / increment_name(1)
    size = path.stat().st_size
    last = len(blocks(tmp_path, 1)[-1])
    flip(path, size * 8 - 1)
    _, found = outcome(tmp_path)
    assert found is not None
    assert found.report.bytes_cut == last
    assert found.report.cut_offset == size - last
    assert found.report.cut_file == path.name
