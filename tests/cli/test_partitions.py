"""The commands about partitioned channels, against a running broker."""

from __future__ import annotations

import uuid

import pytest

from telpher_broker.exit_codes import ExitCode

from .conftest import Command


@pytest.fixture
def name() -> str:
    """A channel of this test's own."""
    return "t" + uuid.uuid4().hex


def test_make_list_and_let_grow(on_broker: Command, name: str) -> None:
    assert on_broker("partition", name, "2").out == f"{name} in 2 queues\n"
    on_broker("publish", name, "hello", "--key", "ada")
    rows = on_broker("partitions", name, "--json").rows
    assert [row["name"] for row in rows] == [f"{name}.0", f"{name}.1"]
    assert sum(row["messages"] for row in rows) == 1
    assert on_broker("partition", name, "3").out == f"{name} in 3 queues\n"
    assert on_broker("partitions", name).out.count("queue") == 3
    refused = on_broker("partition", name, "2")
    assert refused.code == ExitCode.REFUSED
    assert "has 3 partitions; it grows and does not shrink" in refused.err
    consumed = on_broker("consume", name)
    assert consumed.code == ExitCode.REFUSED
    assert f"its partitions do: {name}.0 and so on" in consumed.err


def test_topics_with_options(on_broker: Command, name: str) -> None:
    made = on_broker("partition", name, "2", "--topic", "--retain-seconds", "1h")
    assert made.out == f"{name} in 2 topics\n"
    (row, _) = on_broker("partitions", name, "--json").rows
    assert row["config"] == {"retain_seconds": 3600, "partition": 0}
    assert on_broker("partition", name, "3", "--topic").code == ExitCode.REFUSED
