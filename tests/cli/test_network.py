"""Commands against a running broker."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from telpher_broker.cli.top import _Sample, rates
from telpher_broker.exit_codes import ExitCode
from tests.daemon.process import environment

from .conftest import Command


@pytest.fixture
def name() -> str:
    """A channel of this test's own."""
    return "t" + uuid.uuid4().hex


def started(url: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "telpher_broker", *arguments, "--url", url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), **options)


def test_publish_an_argument_and_look_at_it(on_broker: Command, name: str) -> None:
    result = on_broker("publish", name, "hello", "--key", "k", "--header", "a=b=c")
    assert result.out == f"published to {name} at offset 0 (written)\n"
    (row,) = on_broker("consume", name, "--json").rows
    assert (row["body"], row["key"], row["headers"]) == ("hello", "k", {"a": "b=c"})
    assert on_broker("consume", name).out == "hello\n"


def test_publish_lines_of_standard_input(on_broker: Command, name: str) -> None:
    result = on_broker("publish", name, input=b"one\n\ntwo\nthree")
    assert result.out == f"published 4 messages to {name}\n"
    assert on_broker("consume", name).out == "one\n\ntwo\nthree\n"
    assert on_broker("consume", name, "--raw", "--start", "2").out == "twothree"


def test_publish_a_dash_is_standard_input(on_broker: Command, name: str) -> None:
    result = on_broker("publish", name, "-", input=b"one\ntwo")
    assert result.out == f"published 2 messages to {name}\n"
    on_broker("publish", name, "-", "--whole", input=b"three\nfour")
    assert on_broker("consume", name, "--raw").out == "onetwothree\nfour"


def test_a_queue_is_not_consumed_from_the_middle(on_broker: Command, name: str) -> None:
    on_broker("publish", name, input=b"one\ntwo")
    result = on_broker("consume", name, "--ack", "--start", "1", "--count", "1")
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert "from its front" in result.err
    assert on_broker("consume", name).out == "one\ntwo\n"


def test_ctrl_c_ends_a_publish_that_waits_for_a_terminal(
    broker_url: str, on_broker: Command, name: str
) -> None:
    on_broker("declare", name)
    master, slave = pty.openpty()
    with started(broker_url, "publish", name, stdin=slave) as waiting:
        os.write(master, b"one\n")
        while on_broker("consume", name).out != "one\n":
            assert waiting.poll() is None
        waiting.send_signal(signal.SIGINT)
        try:
            assert waiting.wait(10) == ExitCode.INTERRUPTED
        finally:
            waiting.kill()
    os.close(master)
    os.close(slave)


def test_publish_lines_of_files_and_whole_files(
    on_broker: Command, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"a\nb\n")
    assert on_broker("publish", name, "--file", str(file), "--json").rows == [
        {"channel": name, "count": 2}
    ]
    on_broker("publish", name, "--file", str(file), "--whole")
    assert [row["body"] for row in on_broker("consume", name, "--json").rows] == [
        "a",
        "b",
        "a\nb\n",
    ]
    result = on_broker("publish", name, "--file", str(tmp_path / "none"))
    assert result.code == ExitCode.USAGE
    assert "does not exist" in result.err


def test_a_confirm_is_as_durable_as_asked(on_broker: Command, name: str) -> None:
    assert "(fsynced)" in on_broker("publish", name, "x", "--confirm", "fsynced").out


def test_a_delayed_message_waits_and_priorities_jump_the_queue(
    on_broker: Command, name: str
) -> None:
    on_broker("publish", name, "later", "--delay", "1h")
    on_broker("publish", name, "low")
    on_broker("publish", name, "high", "--priority", "9", "--ttl", "1d")
    assert on_broker("consume", name, "--ack").out == "high\nlow\n"
    (row,) = on_broker("subscriptions", name, "--json").rows
    assert (row["ready"], row["delayed"]) == (0, 1)


def test_consuming_takes_only_what_was_asked_for(on_broker: Command, name: str) -> None:
    on_broker("publish", name, input=b"1\n2\n3\n")
    assert on_broker("consume", name, "--ack", "--count", "2").out == "1\n2\n"
    assert on_broker("consume", name, "--count", "5").out == "3\n"
    assert on_broker("consume", name, "--ack").out == "3\n"
    assert on_broker("consume", name, "--ack").out == ""


def test_follow_until_the_signal_and_ack_what_was_shown(
    on_broker: Command, broker_url: str, name: str
) -> None:
    on_broker("declare", name)
    with started(broker_url, "consume", name, "--ack", "--follow") as follower:
        assert follower.stdout is not None
        for body in ("one", "two"):
            on_broker("publish", name, body)
            assert follower.stdout.readline() == body.encode() + b"\n"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == ExitCode.OK
    (row,) = on_broker("subscriptions", name, "--json").rows
    assert (row["ready"], row["leased"], row["next"]) == (0, 0, 2)


def test_follow_a_subscription_for_so_many_messages(
    on_broker: Command, broker_url: str, name: str
) -> None:
    on_broker("declare", name, "--topic", "--subscription", "s")
    arguments = ("consume", name, "--ack", "--follow", "--subscription", "s")
    with started(broker_url, *arguments) as follower:
        assert follower.stdout is not None
        on_broker("publish", name, "one")
        assert follower.stdout.readline() == b"one\n"
        follower.send_signal(signal.SIGTERM)
        assert follower.wait(20) == ExitCode.OK
    with started(broker_url, *arguments, "--count", "2") as follower:
        on_broker("publish", name, input=b"two\nthree\nfour\n")
        assert follower.stdout is not None
        assert follower.stdout.read() == b"two\nthree\n"
        assert follower.wait(20) == ExitCode.OK
    (row,) = on_broker("subscriptions", name, "--json").rows
    assert (row["ready"], row["leased"]) == (1, 0)


def test_a_topic_is_followed_without_a_trace(
    on_broker: Command, broker_url: str, name: str
) -> None:
    on_broker("declare", name, "--topic", "--retain-seconds", "1h")
    on_broker("publish", name, "past")
    arguments = ("consume", name, "--follow", "--count", "2", "--start", "earliest")
    with started(broker_url, *arguments) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"past\n"
        on_broker("publish", name, "present")
        assert follower.stdout.read() == b"present\n"
        assert follower.wait(20) == ExitCode.OK
    assert on_broker("subscriptions", name, "--json").rows == []


def test_a_topic_is_consumed_by_a_subscription(on_broker: Command, name: str) -> None:
    on_broker("declare", name, "--topic", "--subscription", "s", "--retain-bytes", "1MiB")
    on_broker("publish", name, input=b"1\n2\n")
    assert on_broker("consume", name, "--ack").code == ExitCode.USAGE
    assert on_broker("consume", name, "--ack", "--subscription", "s").out == "1\n2\n"
    assert on_broker("consume", name, "--subscription", "s").out == ""
    assert on_broker("consume", name).out == "1\n2\n"
    assert on_broker("seek", name, "s", "1").out == "s continues at offset 1\n"
    assert on_broker("consume", name, "--ack", "--subscription", "s").out == "2\n"
    assert "deleted" in on_broker("delete", name, "--subscription", "s").out
    assert on_broker("seek", name, "s", "1").code == ExitCode.REFUSED


def test_channels_are_listed_for_people_and_programs(on_broker: Command, name: str) -> None:
    on_broker("publish", f"{name}.a", "x")
    on_broker("declare", f"{name}.b", "--topic")
    rows = on_broker("channels", name, "--json").rows
    assert [(row["name"], row["kind"]) for row in rows] == [
        (f"{name}.a", "queue"),
        (f"{name}.b", "topic"),
    ]
    titles, first, second = on_broker("channels", name).out.splitlines()
    assert titles.split()[:3] == ["NAME", "KIND", "MESSAGES"]
    assert first.split()[:3] == [f"{name}.a", "queue", "1"]
    assert second.split()[-1] == "0"


def test_purge_and_delete(on_broker: Command, name: str) -> None:
    on_broker("publish", name, "x")
    assert on_broker("delete", name, "--if-empty").code == ExitCode.REFUSED
    assert on_broker("purge", name).out == "dropped 1 message\n"
    assert on_broker("delete", name, "--if-empty").out == f"deleted {name}\n"
    result = on_broker("consume", name)
    assert result.code == ExitCode.REFUSED
    assert "(unknown_channel)" in result.err
    assert result.err.count("\n") == 1


def test_a_person_is_asked_before_it_is_too_late(
    broker_url: str, on_broker: Command, name: str
) -> None:
    on_broker("publish", name, "precious")
    master, slave = pty.openpty()
    with started(broker_url, "purge", name, stdin=slave) as asking:
        os.write(master, b"n\n")
        assert asking.wait(20) == ExitCode.INTERRUPTED
    os.close(master)
    os.close(slave)
    assert on_broker("consume", name).out == "precious\n"


def test_a_terminal_gets_bodies_escaped(broker_url: str, on_broker: Command, name: str) -> None:
    on_broker("publish", name, input=b"\x1b[2Jevil\xff")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "telpher_broker", "consume", name, "--url", broker_url]
    subprocess.run(command, stdout=slave, check=True, env=environment())
    assert os.read(master, 1000).strip() == rb"\x1b[2Jevil\xff"
    os.close(master)
    os.close(slave)


def test_bodies_that_are_no_text_in_json(on_broker: Command, name: str) -> None:
    on_broker("publish", name, input=b"\xff")
    (row,) = on_broker("consume", name, "--json").rows
    assert row["body"] == {"base64": "/w=="}


def test_stats_snapshot_and_rewrite(on_broker: Command) -> None:
    assert "uptime_seconds" in on_broker("stats").out
    metrics = on_broker("stats", "--format", "prometheus").out.splitlines()
    assert metrics[0].startswith('telpher_info{server="telpher')
    assert "telpher_alarms_memory_alarm 0" in metrics
    assert all(re.fullmatch(r"telpher_\w+(\{.*\})? [0-9.]+", line) for line in metrics)
    assert on_broker("stats", "--json").rows[0]["connections"] >= 1
    assert on_broker("snapshot").out.startswith("snapshot written: ")
    assert {"records", "bytes", "seconds"} <= set(on_broker("rewrite", "--json").rows[0])


def test_top_shows_channels(on_broker: Command, name: str) -> None:
    on_broker("publish", name, "x")
    result = on_broker("top", "--count", "2", "--interval", "0.05", "--limit", "1000")
    assert result.code == ExitCode.OK
    assert result.out.count("connections:") == 2
    assert name[:10] in result.out  # the table is as wide as the terminal


def test_rates_are_what_came_and_what_was_settled() -> None:
    def sample(at: float, next: int, ready: int) -> _Sample:
        row = SimpleNamespace(ready=ready, delayed=0, leased=0)
        return _Sample(at, {"c": cast(Any, SimpleNamespace(next=next, subscriptions=(row,)))})

    found = rates(sample(10.0, next=100, ready=50), sample(12.0, next=140, ready=30))
    assert found == {"c": (20.0, 30.0)}


@pytest.mark.parametrize(
    "arguments",
    [
        ("publish", "c", "x", "--ttl", "5 parsecs"),
        ("publish", "c", "x", "--delay", "-1"),
        ("publish", "c", "x", "--header", "novalue"),
        ("publish", "c", "x", "--whole"),
        ("publish", "c", "x", "--priority", "256"),
        ("consume", "c", "--raw", "--json"),
        ("consume", "c", "--start", "sometime"),
        ("declare", "c", "--max-attempts", "1"),
        ("seek", "c", "s", "nowhere"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(command: Command, arguments: tuple[str, ...]) -> None:
    result = command(*arguments)
    assert result.code == ExitCode.USAGE
    assert result.err.startswith("Usage: ")


def test_publish_once_and_one_at_a_time(on_broker: Command, name: str) -> None:
    on_broker("publish", name, "hello", "--dedup-id", "i")
    again = on_broker("publish", name, "hello", "--dedup-id", "i")
    assert again.out == f"nothing published: {name} has it at offset 0\n"
    on_broker("publish", name, "one", "--unique", "k")
    refused = on_broker("publish", name, "two", "--unique", "k")
    assert refused.code == ExitCode.REFUSED
    assert "message 1 has it" in refused.err
    on_broker("publish", name, "three", "--unique", "k", "--on-conflict", "replace")
    assert on_broker("consume", name).out == "hello\nthree\n"
    (row,) = on_broker(
        "publish", name, "x", "--unique", "k", "--on-conflict", "ignore", "--json"
    ).rows
    assert (row["offset"], row["duplicate"]) == (2, True)
    lines = on_broker("publish", name, "--unique", "k", input=b"one\ntwo")
    assert (lines.code, "give it as BODY" in lines.err) == (ExitCode.USAGE, True)
    wrong = on_broker("publish", name, "x", "--unique", "k", "--unique-while", "running")
    assert wrong.code == ExitCode.USAGE


def test_look_one_key_up(on_broker: Command, name: str) -> None:
    on_broker("declare", name, "--topic", "--compact", "--tombstone-seconds", "1h")
    for body in ("1.08", "1.09"):
        on_broker("publish", name, body, "--key", "EURUSD")
    assert on_broker("latest", name, "EURUSD").out == "1.09\n"
    (row,) = on_broker("latest", name, "EURUSD", "--json").rows
    assert (row["offset"], row["key"], row["body"]) == (1, "EURUSD", "1.09")
    on_broker("publish", name, "", "--key", "EURUSD")
    gone = on_broker("latest", name, "EURUSD")
    assert (gone.code, gone.out) == (ExitCode.REFUSED, "")
    assert "no value of 'EURUSD'" in gone.err
