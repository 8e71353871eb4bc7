"""docs/records.md: every kind of record says what it means, and the example is what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from telpher_broker.engine import records as r

PAGE = (Path(__file__).parents[2] / "docs" / "records.md").read_text("utf-8")


@pytest.mark.parametrize("record", r.KINDS.values(), ids=lambda record: record.__name__)
def test_a_record_says_what_it_means(record: type[r.Record]) -> None:
    assert not (record.__doc__ or "").startswith(f"{record.__name__}(")
    assert f"| {r.NUMBERS[record]} | {record.__name__} |" in PAGE


def test_the_example_is_what_its_bytes_say() -> None:
    (block,) = re.findall(r"^```\n(.*?)^```$", PAGE, re.M | re.S)
    *lines, text = block.splitlines()
    data = bytes.fromhex("".join(re.split(r" {2,}", line)[0] for line in lines))
    number, *fields = json.loads(text.removeprefix("= "))
    record = r.decode(data)
    assert number == r.NUMBERS[type(record)]
    assert json.loads(json.dumps(record)) == fields
