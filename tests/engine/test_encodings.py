"""The bytes of each kind of record are for ever: what they mean does not change.

`encodings.txt` has an example of each, and what it says. Where a test here fails, a record that
brokers have in their journals would be read otherwise, or not at all: give the new shape a new kind
(docs/records.md) and add a line. `python -m tests.engine.test_encodings` adds what is lacking.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from telpher_broker.engine import records as r

from .test_laws import RECORDS

FILE = Path(__file__).with_name("encodings.txt")
LINES = FILE.read_text().splitlines() if FILE.exists() else []


def line_of(record: r.Record) -> str:
    """The kind, the bytes, and what they say."""
    encoded = r.encode(record)
    return f"{r.NUMBERS[type(record)]} {encoded.hex()} {r.decode(encoded)!r}"


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split("(")[0].split()[-1])
def test_an_example_says_what_it_said(line: str) -> None:
    kind, encoded, said = line.split(" ", 2)
    record = r.decode(bytes.fromhex(encoded))
    assert repr(record) == said
    assert r.encode(record).hex() == encoded
    assert r.NUMBERS[type(record)] == int(kind)


def test_every_kind_has_an_example() -> None:
    assert {int(line.split(" ")[0]) for line in LINES} == set(r.KINDS)


if __name__ == "__main__":
    lines = [*LINES, *(line for line in map(line_of, RECORDS) if line not in LINES)]
    lines.sort(key=lambda line: int(line.split(" ")[0]))
    FILE.write_text("\n".join(lines) + "\n")
