"""The commands and flags about order."""

from __future__ import annotations

import uuid

import pytest

from telpher_broker.exit_codes import ExitCode

from .conftest import Command


@pytest.fixture
def name() -> str:
    """A channel of this test's own."""
    return "t" + uuid.uuid4().hex


def test_keys(on_broker: Command, name: str) -> None:
    on_broker(
        "declare", name, "--key-order", "--key-weights", "a=3", "--key-rate-per-second", "0.5"
    )
    for key in "aab":
        on_broker("publish", name, "x", "--key", key)
    on_broker("publish", name, "x")
    titles, first, *rest = on_broker("keys", name).out.splitlines()
    assert titles.split() == ["KEY", "READY", "DELAYED", "IN", "FLIGHT", "WEIGHT", "NEXT"]
    assert first.split() == ["a", "2", "0", "0", "3", "-"]
    assert sorted(row.split()[0] for row in rest) == ["-", "b"]
    (row,) = on_broker("keys", name, "-n", "1", "--json").rows
    assert row == {
        "key": "a", "ready": 2, "delayed": 0, "in_flight": 0, "weight": 3, "next_at": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("declare", "q", "--key-rate-per-second", "0"), "0.001"),
        (("declare", "q", "--key-weights", "a"), "a"),
        (("consume", "q", "--exclusive"), "--exclusive needs --ack and --follow"),
        (("consume", "q", "--exclusive", "--ack", "--follow", "-n", "1"), "no --count"),
    ],
)
def test_nonsense_is_told(command: Command, arguments: tuple[str, ...], what: str) -> None:
    result = command(*arguments)
    assert result.code == ExitCode.USAGE
    assert what in result.err


def test_an_option_that_needs_another(on_broker: Command, name: str) -> None:
    result = on_broker("declare", name, "--key-in-flight", "2")
    assert "key_in_flight means nothing without key_order; set both" in result.err
