"""`telpher schemas`, `telpher schema …` and `telpher explain`, on a broker that runs."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from telpher_broker.exit_codes import ExitCode

from .conftest import Command

NAMES = count(1)
SCHEMA = '{"type": "object", "required": ["id"]}'


@pytest.fixture
def name() -> str:
    """A queue that no other test uses."""
    return f"checked.{next(NAMES)}"


def test_the_life_of_a_schema(on_broker: Command, name: str, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(SCHEMA)
    on_broker("declare", name)
    assert on_broker("schema", "set", name, str(file)).out == "version 1\n"
    assert on_broker("publish", name, '{"id": 1}').code == 0
    refused = on_broker("publish", name, "{}")
    assert refused.code != 0
    assert "message 0 breaks version 1 of the schema" in refused.err
    narrower = SCHEMA.replace('["id"]', '["id", "at"]').encode()
    checked = on_broker("schema", "check", name, "-", input=narrower)
    assert checked.code == 1
    assert checked.out.startswith("/required/1: the new schema accepts nothing without 'at'")
    assert "incompatible_schema" in on_broker("schema", "set", name, "-", input=narrower).err
    assert on_broker("schema", "check", name, "-", input=b"true").out.startswith("it goes with")
    assert on_broker("schema", "set", name, "-", input=b'{"type": "object"}').out == "version 2\n"
    assert [row["version"] for row in on_broker("schemas", name, "--json").rows] == [1, 2]
    assert "VERSION" in on_broker("schemas", name).out
    assert '"required": [' in on_broker("schema", "show", name, "--version", "1").out
    assert on_broker("schema", "delete", name, "--version", "2").out == "deleted 1 version\n"
    assert on_broker("schema", "delete", name, "--yes").out == "deleted 1 version\n"
    assert "unknown_schema" in on_broker("schema", "show", name).err
    assert "bad_schema" in on_broker("schema", "set", name, "-", input=b"{").err


def test_explain(on_broker: Command, name: str) -> None:
    on_broker("publish", name, "a")
    on_broker("publish", name, "b", "--delay", "1h")
    out = on_broker("explain", name, "0").out
    assert out.startswith(f"{name} 0: in the log, published 20")
    assert out.endswith("  ready, behind nothing; no consumer is connected\n")
    assert "delayed for 60.0 min more" in on_broker("explain", name, "1").out
    on_broker("consume", name, "--ack", "--count", "1")
    assert "  acknowledged " in on_broker("explain", name, "0").out
    (row,) = on_broker("explain", name, "0", "--json").rows
    assert row["subscriptions"][0]["state"] == "acknowledged"
    assert "not published yet" in on_broker("explain", name, "7").out
    result = on_broker("explain", f"{name}.none", "0")
    assert result.code not in (0, ExitCode.USAGE)
    assert "unknown_channel" in result.err
