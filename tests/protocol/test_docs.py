"""Every example of docs/protocol.md is what its bytes say, and what is generated is current."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgpack
import pytest

from telpher.protocol import batch as b
from telpher.protocol import frames as f
from telpher.protocol.codec import FrameReader
from telpher.protocol.errors import CODES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "protocol.md").read_text("utf-8")
_HEX = re.compile(r"^((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  +(.*))?$")
EXAMPLES: dict[str, list[list[str]]] = {
    name: [block.splitlines() for block in re.findall(r"^```\n(.*?)^```$", text, re.M | re.S)]
    for name, text in re.findall(
        r"^<!-- example: (\w+) -->\n(.*?)^<!-- /example -->$", PAGE, re.M | re.S
    )
}
BLOCKS = [(name, block) for name, blocks in EXAMPLES.items() for block in blocks]


def parsed(text: str) -> Any:
    """The value of the page's notation, read without the code that wrote it."""
    text = re.sub(r"h'([0-9a-f]*)'", r'{"h": "\1"}', text).replace("nil", "null")

    def revived(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(revived, value))
        if isinstance(value, dict):
            if list(value) == ["h"]:
                return bytes.fromhex(value["h"])
            return {key: revived(inner) for key, inner in value.items()}
        return value

    return revived(json.loads(text))


def bytes_of(block: list[str]) -> bytes:
    data = ""
    for line in block[:-1]:
        match = _HEX.match(line)
        assert match is not None, line
        data += match[1]
    return bytes.fromhex(data)


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_the_text_is_what_the_bytes_say(name: str, block: list[str]) -> None:
    data = bytes_of(block)
    assert block[-1].startswith("= ")
    said = parsed(block[-1][2:])
    if name == "batch":
        assert msgpack.unpackb(data, use_list=False) == said
        assert b.check(data, b.BatchLimits(100, 100)).messages == said[0]
        return
    (frame,) = FrameReader(1 << 16).feed(data)
    assert (f.NUMBERS[type(frame)], *frame) == said
    assert f"{said[0]}: {f.name_of(type(frame))}" in block[2]
    if isinstance(frame, f.Publish):
        b.check(frame.batch, b.BatchLimits(100, 100))


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_the_notes_say_the_same(name: str, block: list[str]) -> None:
    """Each note but the first ones is `field: value`, in the order of the elements."""
    notes = [match[2] for line in block[:-1] if (match := _HEX.match(line)) and match[2]]
    values = parsed(block[-1][2:])
    fields = notes[1:] if name == "batch" else notes[3:]
    assert len(fields) == len(values) - (name != "batch")
    for note, value in zip(fields, values[name != "batch" :], strict=True):
        shown = note.partition(": ")[2]
        if not shown.endswith(" ..."):
            column = shown.removeprefix("bin of ")
            inner = msgpack.unpackb(value, use_list=False) if column != shown else value
            assert parsed(column) == inner


def test_every_frame_has_an_example() -> None:
    shown = {parsed(block[-1][2:])[0] for name, block in BLOCKS if name != "batch"}
    assert shown == set(f.SHAPES)
    assert len(re.findall("<!-- example: ", PAGE)) == len(EXAMPLES)


def test_every_code_is_explained() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.split("<!-- /codes -->")[0], re.M))
    assert table == CODES


def test_what_is_generated_is_current(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    copy = shutil.copytree(DOCS, tmp_path / "docs")
    module.generate(copy)
    for page in DOCS.rglob("*.md"):
        generated = (copy / page.relative_to(DOCS)).read_text("utf-8")
        assert generated == page.read_text("utf-8"), f"{page.name}: run `make docs`"
