"""Patterns and filters at the command line."""

from __future__ import annotations

import uuid

import pytest

from telpher_broker.exit_codes import ExitCode

from .conftest import Command


@pytest.fixture
def name() -> str:
    """The first word of this test's topics."""
    return "t" + uuid.uuid4().hex


def test_a_pattern_is_subscribed_and_consumed(on_broker: Command, name: str) -> None:
    on_broker("declare", f"{name}.eu", "--topic", "--retain-count", "9")
    on_broker("publish", f"{name}.eu", "kept")
    result = on_broker("subscribe", f"{name}.*", "s", "--start", "earliest")
    assert result.out == f"subscription s of {name}.*, 1 ready\n"
    on_broker("declare", f"{name}.us", "--topic")
    on_broker("publish", f"{name}.us", "later")
    rows = on_broker("consume", f"{name}.*", "--subscription", "s", "--json").rows
    assert [(row["channel"], row["body"]) for row in rows] == [
        (f"{name}.eu", "kept"),
        (f"{name}.us", "later"),
    ]
    assert on_broker("consume", f"{name}.*", "--subscription", "s", "--ack").out == "kept\nlater\n"
    assert on_broker("consume", f"{name}.*", "--subscription", "s").out == ""
    assert on_broker("delete", f"{name}.*", "--subscription", "s", "--yes").code == ExitCode.OK
    assert on_broker("channels", f"{name}.*@").out.splitlines()[1:] == []


def test_a_feed_is_configured_and_explained_by_its_name(on_broker: Command, name: str) -> None:
    on_broker("subscribe", f"{name}.*", "s")
    on_broker("declare", f"{name}.eu", "--topic")
    on_broker("publish", f"{name}.eu", "later")
    feed = f"{name}.*@s"
    result = on_broker("configure", feed, "--backoff", "fixed")
    assert (result.code, result.out) == (ExitCode.OK, f"feed {feed}: backoff=fixed\n")
    assert "no consumer is connected" in on_broker("explain", feed, "0").out
    assert "is not a name" in on_broker("configure", f"{name}@s", "--backoff", "fixed").err


def test_an_option_is_taken_away_by_the_name_of_its_flag(on_broker: Command, name: str) -> None:
    on_broker("declare", name, "--limit-count", "3", "--retain-count", "2")
    result = on_broker("configure", name, "--unset", "limit-count")
    assert result.out == f"queue {name}: retain_count=2\n"
    result = on_broker("configure", name, "--unset", "retain_cuont")
    assert (result.code, "did you mean 'retain_count'?" in result.err) == (ExitCode.REFUSED, True)


def test_a_number_that_cannot_be_sent_is_a_fault_of_one_line(on_broker: Command, name: str) -> None:
    on_broker("declare", name)
    result = on_broker("explain", name, str(1 << 64))
    assert (result.code, result.err) == (
        ExitCode.USAGE,
        "Error: an integer is of more than 64 bits\n",
    )


def test_a_filter_is_set_and_taken_away(on_broker: Command, name: str) -> None:
    on_broker("declare", name, "--topic")
    on_broker("subscribe", name, "s", "--header", "region=eu")
    on_broker("publish", name, "1", "--header", "region=us")
    on_broker("publish", name, "2", "--header", "region=eu")
    (row,) = on_broker("subscriptions", name, "--json").rows
    assert row["filter"] == {"headers": {"region": "eu"}, "match": "all"}
    assert on_broker("consume", name, "--subscription", "s", "--ack").out == "2\n"
    assert on_broker("filter", name, "s").out == "s wants all messages\n"
    on_broker("publish", name, "3")
    assert on_broker("consume", name, "--subscription", "s", "--ack").out == "3\n"
    result = on_broker("subscribe", name, "s", "--header", "region=us", "--any")
    assert (result.code, "no filter" in result.err) == (ExitCode.REFUSED, True)
    several = ("--header", "size:=1", "--header", "region=eu", "--header", "urgent")
    told = on_broker("filter", name, "s", *several, "--any").out
    assert told == "s wants messages with size:=1 or region=eu or urgent\n"


def test_a_pattern_is_not_looked_at_without_a_subscription(on_broker: Command, name: str) -> None:
    result = on_broker("consume", f"{name}.#")
    assert (result.code, "--follow" in result.err) == (ExitCode.USAGE, True)
    wrong = on_broker("subscribe", f"{name}.#.x*", "s")
    assert (wrong.code, "no pattern of names" in wrong.err) == (ExitCode.REFUSED, True)
