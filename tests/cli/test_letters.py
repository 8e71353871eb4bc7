"""The commands about dead letters, replays and transfers, against a running broker."""

from __future__ import annotations

import uuid

import pytest

import telpher.sync
from telpher_broker.exit_codes import ExitCode

from .conftest import Command


@pytest.fixture
def name(on_broker: Command, broker_url: str) -> str:
    """A queue of this test's own with three rejected messages; their letters are in NAME.dead."""
    name = "t" + uuid.uuid4().hex
    on_broker("declare", name, "--dead-letter", f"{name}.dead", "--retain-count", "100")
    on_broker("publish", name, "--header", "a=b", input=b"one\ntwo\nthree")
    errors = ["user 1 is gone", "user 2 is gone", "boom"]
    with telpher.sync.connect(broker_url) as bus, bus.consume(name) as messages:
        for error, message in zip(errors, messages, strict=False):
            message.nack(error=error, dead_letter=True)
            if error == errors[-1]:
                break
    return name


def test_letters_are_listed_grouped_and_shown(on_broker: Command, name: str) -> None:
    dead = f"{name}.dead"
    rows = on_broker("letters", "list", dead, "--json").rows
    assert [row["body"] for row in rows] == ["one", "two", "three"]
    assert [row["about"]["dead"]["last_error"] for row in rows][2] == "boom"
    table = on_broker("letters", "list", dead, "-n", "1").out.splitlines()
    assert len(table) == 2
    assert table[1].startswith("     0  ")
    assert "rejected" in table[1]
    groups = on_broker("letters", "groups", dead, "--json").rows
    assert [(group["messages"], group["error"]) for group in groups] == [
        (2, "user # is gone"),
        (1, "boom"),
    ]
    assert "user # is gone" in on_broker("letters", "groups", dead).out
    shown = on_broker("letters", "show", dead, "1").out
    assert f"from:         {name}, offset 1\n" in shown
    assert "last error:   user 2 is gone\n" in shown
    assert "header a:     b\n" in shown
    assert shown.endswith("\n\ntwo\n")
    assert on_broker("letters", "show", dead, "1", "--raw").out == "two"
    assert on_broker("letters", "show", dead, "99").code == ExitCode.USAGE


def test_letters_are_changed_deleted_and_redriven(on_broker: Command, name: str) -> None:
    dead = f"{name}.dead"
    result = on_broker("letters", "edit", dead, "2", "THREE", "--header", "x=y")
    assert result.out == f"letter 2 of {dead} is now 3\n"
    group = on_broker("letters", "groups", dead, "--json").rows[0]["fingerprint"]
    assert on_broker("letters", "redrive", dead, "0", "--rate", "100").out.endswith(": 1 moved\n")
    result = on_broker("letters", "delete", dead, "--fingerprint", group)
    assert result.out == f"deleted 1 letter of {dead}\n"
    (row,) = on_broker("letters", "redrive", dead, "--json").rows
    assert (row["moved"], row["running"]) == (1, False)
    assert on_broker("consume", name, "--json").rows[1]["headers"] == {"x": "y"}
    assert on_broker("consume", name).out == "one\nTHREE\n"
    assert on_broker("letters", "list", dead, "--json").rows == []
    transfers = on_broker("transfers", "--json").rows
    assert [one["moved"] for one in transfers if one["channel"] == dead] == [1, 1]


def test_a_transfer_is_left_running_and_stopped(on_broker: Command, name: str) -> None:
    (row,) = on_broker(
        "letters", "redrive", f"{name}.dead", "--rate", "1", "--background", "--json"
    ).rows
    assert row["running"]
    number = str(row["transfer"])
    assert number in on_broker("transfers").out
    assert on_broker("transfers", "--stop", number).out.startswith(f"transfer {number} (redrive)")
    assert on_broker("transfers", "--stop", number).code == ExitCode.REFUSED


def test_what_was_acknowledged_is_replayed(on_broker: Command, name: str) -> None:
    again = f"{name}.again"
    on_broker("declare", again)
    on_broker("publish", name, input=b"four\nfive\nsix")
    assert on_broker("consume", name, "--ack", "--count", "3").out == "four\nfive\nsix\n"
    result = on_broker("replay", name, "--into", again, "--from", "1", "--to", "5")
    assert result.out.endswith("(replay) ended: 2 moved\n")
    assert on_broker("consume", again).out == "four\nfive\n"
    assert on_broker("seek", name, "-", "5").out == f"{name} continues at offset 5\n"
    assert on_broker("consume", name).out == "six\n"


def test_a_breaker_is_shown(on_broker: Command, name: str) -> None:
    assert "BREAKER" not in on_broker("subscriptions", name).out
    on_broker("configure", name, "--breaker-percent", "50", "--breaker-messages", "3")
    assert on_broker("subscriptions", name).out.endswith("closed\n")
    (row,) = on_broker("subscriptions", name, "--json").rows
    assert (row["breaker"]["state"], row["breaker"]["opened"]) == ("closed", 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("letters", "delete", "c"),
        ("letters", "delete", "c", "1", "--fingerprint", "x"),
        ("letters", "edit", "c", "1"),
        ("replay", "c"),
        ("letters", "redrive", "c", "x"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    on_broker: Command, arguments: tuple[str, ...]
) -> None:
    assert on_broker(*arguments).code == ExitCode.USAGE
