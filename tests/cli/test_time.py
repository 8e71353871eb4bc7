"""The commands about due times, schedules and requests."""

from __future__ import annotations

import subprocess
import sys
import uuid

import pytest

from telpher_broker.exit_codes import ExitCode
from tests.daemon.process import environment

from .conftest import Command


@pytest.fixture
def name() -> str:
    """A channel of this test's own."""
    return "t" + uuid.uuid4().hex


def test_what_is_scheduled(on_broker: Command, name: str) -> None:
    on_broker("publish", name, "one", "--delay", "1h", "--key", "k")
    on_broker("publish", name, "two", "--due", "2099-01-01T00:00+00:00")
    on_broker("publish", name, input=b"three\nfour\nfive\n")
    result = on_broker("scheduled", name)
    titles, first, second = map(str.split, result.out.splitlines())
    assert titles == ["DUE", "OFFSET", "ATTEMPT", "KEY", "BODY"]
    assert first[2:] == ["0", "1", "k", "one"]
    assert second[2:] == ["1", "1", "-", "two"]
    (row,) = on_broker("scheduled", name, "--count", "1", "--json").rows
    assert (row["offset"], row["body"], row["attempt"]) == (0, "one", 1)
    result = on_broker("reschedule", name, "0-1", "--delay", "2h")
    assert (result.out, result.err) == ("rescheduled 2 messages\n", "")
    result = on_broker("cancel", name, "0", "2-3", "9")
    assert result.out == "cancelled 1 message\n"
    assert result.err == "not scheduled: 2-3, 9\n"
    (row,) = on_broker("cancel", name, "1-2", "--json").rows
    assert row == {"cancelled": 1, "not_scheduled": [[2, 2]]}
    assert on_broker("scheduled", name, "--json").rows == []


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("cancel", "q", "5-3"), "lower offset"),
        (("cancel", "q", "-5"), "no such option|No such option"),
        (("cancel", "q", "x"), "write an offset"),
        (("cancel", "q"), "Missing argument"),
        (("reschedule", "q", "1"), "either --delay or --due"),
        (("reschedule", "q", "1", "--delay", "1", "--due", "2030-01-01"), "either"),
        (("publish", "q", "x", "--due", "soon"), "write a time"),
        (("request", "q", "x", "--count", "2"), "--many"),
    ],
)
def test_nonsense_is_told(command: Command, arguments: tuple[str, ...], what: str) -> None:
    result = command(*arguments)
    assert result.code == ExitCode.USAGE
    assert any(part in result.err for part in what.split("|"))


def test_a_schedule(on_broker: Command, name: str) -> None:
    options = ("--timezone", "Europe/Berlin", "--catch-up", "all", "--key", "k", "--header", "a=b")
    result = on_broker("schedule", "set", name, "30 2 * * *", name, "clean up", *options)
    assert result.code == ExitCode.OK
    fields = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    assert fields["expression"] == "30 2 * * *"
    assert (fields["body"], fields["last"], fields["paused"]) == ("clean up", "never", "no")
    (row,) = on_broker("schedule", "show", name, "--json", "-n", "3").rows
    assert (row["timezone"], row["catch_up"], row["body"]) == ("Europe/Berlin", "all", "clean up")
    assert len(row["times"]) == 3
    assert on_broker("schedule", "pause", name).out == f"paused {name}\n"
    assert "paused" in on_broker("schedule", "list", name).out
    assert on_broker("schedule", "resume", name).out.startswith(f"{name} is due next 20")
    assert [row["name"] for row in on_broker("schedule", "list", name, "--json").rows] == [name]
    assert on_broker("schedule", "delete", name).out == f"deleted {name}\n"
    result = on_broker("schedule", "show", name)
    assert (result.code, result.out) == (ExitCode.REFUSED, "")
    assert "unknown_schedule" in result.err


def test_when_an_expression_is_due(on_broker: Command) -> None:
    after = ("--after", "2026-03-28T12:00+00:00")
    result = on_broker("schedule", "next", "30 2 * * *", "--timezone", "Europe/Berlin", *after)
    assert len(result.out.splitlines()) == 5
    result = on_broker("schedule", "next", "61 * * * *")
    assert result.code == ExitCode.REFUSED
    assert "bad minute" in result.err


def test_a_request(on_broker: Command, broker_url: str, name: str) -> None:
    respond = (
        "from telpher.sync import connect\n"
        f"with connect({broker_url!r}) as bus, bus.consume({name!r}) as messages:\n"
        "    print('here', flush=True)\n"
        "    for message in messages:\n"
        "        with message:\n"
        "            message.reply(message.body.upper(), headers={'n': 1})\n"
    )
    responder = subprocess.Popen(
        [sys.executable, "-c", respond], stdout=subprocess.PIPE, env=environment()
    )
    try:
        assert responder.stdout is not None
        responder.stdout.readline()
        assert on_broker("request", name, "hello").out == "HELLO\n"
        assert on_broker("request", name, input=b"in").out == "IN\n"
        (row,) = on_broker("request", name, "x", "--many", "-n", "1", "--json").rows
        assert (row["body"], row["headers"]) == ("X", {"n": 1})
    finally:
        responder.kill()
        responder.communicate()


def test_a_time_that_is_none_is_told_how_to_write_one(on_broker: Command, name: str) -> None:
    result = on_broker("publish", name, "x", "--delay", "soon")
    assert result.code == ExitCode.USAGE
    assert "'soon': write a whole number, with a unit if you like: d, h, min, s, ms" in result.err


def test_a_request_that_nobody_answers(on_broker: Command, name: str) -> None:
    result = on_broker("request", name, "x", "--fail-fast")
    assert result.code == ExitCode.REFUSED
    assert "no_responders" in result.err
    assert on_broker("request", name, "x", "--timeout", "0.05").code == ExitCode.TIMEOUT
    assert on_broker("request", name, "x", "--many", "--timeout", "0.05").code == ExitCode.TIMEOUT
