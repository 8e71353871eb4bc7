"""Compacted topics, each rule by a story."""

from __future__ import annotations

from typing import Any

import pytest

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine.uniqueness import compact as compact_module

from .driver import Driver, delivered, make_batch


class Table:
    """A compacted topic of single letters and what they stand for."""

    def __init__(self, driver: Driver, **config: Any) -> None:
        self.driver = driver
        self.session = driver.connect()
        self.declared = self.call("declare", kind="topic", config={"compact": True, **config})

    def call(self, verb: str, **arguments: Any) -> Any:
        return self.driver.call(self.session, verb, channel="state", **arguments)

    def put(self, *rows: str) -> None:
        """A batch of `k=v`, or `=v` for a message without a key."""
        pairs = [row.split("=") for row in rows]
        keys = [key or None for key, _ in pairs]
        batch = make_batch([value.encode() for _, value in pairs], keys=keys)
        answer = self.driver.publish(self.session, "state", batch=batch)
        assert isinstance(answer, f.Confirm), answer

    def rows(self, **arguments: Any) -> list[str]:
        """What is there, as `offset:k=v`."""
        found = []
        for first, _, _, batch in self.call("browse", **arguments)["parts"]:
            columns = batches.decode(batch)
            for index, body in enumerate(columns.bodies):
                key = (columns.keys or [None] * len(columns.bodies))[index]
                found.append(f"{first + index}:{key or ''}={body.decode()}")
        return found

    def restart(self) -> None:
        self.driver.restart(len(self.driver.journal) // 2)
        self.driver.settle()
        self.session = self.driver.connect()


@pytest.fixture
def table(driver: Driver) -> Table:
    return Table(driver)


def test_what_is_superseded_goes_when_half_of_its_batch_is(table: Table) -> None:
    table.put("a=1", "b=1", "c=1")
    table.put("a=2")
    assert table.rows() == ["0:a=1", "1:b=1", "2:c=1", "3:a=2"]
    table.put("b=2")
    assert table.rows() == ["2:c=1", "3:a=2", "4:b=2"]
    table.put("c=3")
    inspected = table.call("inspect")
    assert (inspected["start"], inspected["next"], inspected["messages"]) == (3, 6, 3)
    assert inspected["keys"] == 3
    table.driver.check_replay(range(len(table.driver.journal)))


def test_a_fresh_reader_gets_the_last_of_every_key_in_order(table: Table) -> None:
    for n in range(40):
        table.put(f"{'abcdefg'[n % 7]}={n}", f"{'abcdefg'[n * 3 % 7]}={n}")
    table.restart()
    consumer = table.driver.consume(table.session, "state", prefetch=100, start="earliest")
    got = [
        (offset, body)
        for taken in table.driver.rounds
        for offset, _, body in delivered(taken.effects, consumer)
    ]
    assert got == sorted(got)
    assert len(got) <= 2 * 7 + 2
    keys = {int(row.partition(":")[0]): row.partition(":")[2][0] for row in table.rows(count=100)}
    read = {keys[offset]: body for offset, body in got}
    for key in "abcdefg":
        ((_, _, _, batch),) = table.call("latest", key=key)["parts"]
        assert batches.decode(batch).bodies == (read[key],)


def test_an_old_reader_misses_nothing_but_what_is_superseded(table: Table) -> None:
    table.call("subscribe", subscription="old", start="earliest")
    table.put("a=1")
    table.put("b=1")
    table.put("a=2")
    (told,) = table.call("inspect")["subscriptions"]
    assert (told["ready"], told["missed"], told["next"]) == (2, 0, 1)
    assert table.rows(subscription="old") == ["1:b=1", "2:a=2"]
    assert table.call("purge", subscription="old") == {"purged": 2}


def test_what_a_consumer_holds_waits_until_it_comes_back(table: Table) -> None:
    table.put("a=1")
    consumer = table.driver.consume(
        table.session, "state", "slow", prefetch=1, start="earliest", lease_ms=5000
    )
    table.put("a=2")
    assert table.rows() == ["0:a=1", "1:a=2"]
    table.driver.settle_offsets(table.session, consumer, f.Outcome.REQUEUE, (0, 1))
    # Given back, it was at once delivered again; the next time it is settled.
    table.driver.settle_offsets(table.session, consumer, f.Outcome.ACK, (0, 1))
    table.driver.pass_time(2000)
    assert table.rows() == ["1:a=2"]


def test_a_deleted_value_does_not_come_back(driver: Driver) -> None:
    table = Table(driver, tombstone_seconds=10)
    table.put("a=1", "b=1", "c=1")
    table.put("a=")
    assert table.call("latest", key="a")["parts"][0][0] == 3
    driver.pass_time(60_000)
    # Older than it has to be kept, and still there, for so is what it deleted.
    assert "3:a=" in table.rows()
    table.restart()
    driver.pass_time(60_000)
    table.put("b=2")
    driver.pass_time(2000)
    assert table.rows() == ["2:c=1", "4:b=2"]
    assert table.call("latest", key="a") == {"parts": ()}


def test_messages_without_a_key_are_kept_as_in_any_topic(driver: Driver) -> None:
    table = Table(driver, retain_seconds=10)
    table.call("subscribe", subscription="log", start="earliest")
    table.put("=one", "a=1")
    driver.pass_time(60_000)
    assert table.rows() == ["0:=one", "1:a=1"]
    table.call("purge", subscription="log")
    driver.pass_time(2000)
    assert table.rows() == ["1:a=1"]
    table.put("=two")
    table.call("purge", subscription="log")
    driver.pass_time(9000)
    assert "2:=two" in table.rows()
    driver.pass_time(2000)
    assert table.rows() == ["1:a=1"]


def test_age_takes_what_it_takes(driver: Driver) -> None:
    table = Table(driver, limit_seconds=10)
    table.put("a=1")
    driver.pass_time(6000)
    table.put("b=1")
    driver.pass_time(6000)
    assert table.rows() == ["1:b=1"]
    assert table.call("latest", key="a") == {"parts": ()}
    driver.check_replay(range(len(driver.journal)))


def test_a_round_does_so_much_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch, driver: Driver
) -> None:
    monkeypatch.setattr(compact_module, "ROUND_BATCHES", 2)
    table = Table(driver)
    for n in range(10):
        table.put(f"k{n}=1", f"l{n}=1")
    table.put(*[f"k{n}=2" for n in range(10)])
    compaction = driver.engine.state.channels["state"].compaction
    assert compaction is not None
    assert compaction.due_count == 8
    driver.pass_time(3)
    assert compaction.due_count == 2
    driver.pass_time(1)
    assert compaction.due_count == 0
    assert driver.engine.statistics()["compacted"] == 10


def test_time_to_live_and_delay_go_on_over_a_rewriting(table: Table) -> None:
    table.call("subscribe", subscription="s", start="earliest")
    properties = {"ttl_ms": 5000, "delay_ms": 1000}
    batch = make_batch([b"1", b"1"], properties, keys=["a", "b"])
    table.driver.publish(table.session, "state", batch=batch)
    table.put("a=2")
    assert table.rows() == ["1:b=1", "2:a=2"]
    (told,) = table.call("inspect")["subscriptions"]
    assert (told["ready"], told["delayed"]) == (1, 1)
    table.restart()
    table.driver.pass_time(5000)
    assert table.rows(subscription="s") == ["2:a=2"]
    assert table.call("latest", key="b") == {"parts": ()}


def test_a_batch_that_other_channels_share_is_its_own(table: Table) -> None:
    driver, session = table.driver, table.session
    driver.call(session, "declare_exchange", exchange="all", kind="fanout")
    driver.call(session, "declare", channel="jobs", kind="queue")
    for target in ("jobs", "state"):
        driver.call(session, "bind", exchange="all", target=target)
    for n in range(3):
        batch = make_batch([b"%d" % n, b"x"], keys=["a", f"b{n}"])
        driver.publish(session, "all", batch=batch)
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 6
    assert [row.split(":")[1] for row in table.rows()] == ["b0=x", "b1=x", "a=2", "b2=x"]
    driver.check_replay(range(len(driver.journal)))


def test_it_is_said_when_the_topic_is_declared(driver: Driver) -> None:
    table = Table(driver)
    assert table.declared["keys"] == 0
    for config in ({"compact": False}, {"compact": None}, {"limit_count": 5}):
        assert table.call("configure", config=config).code == "bad_request"
    assert table.call("configure", config={"tombstone_seconds": 5})["config"] == {
        "compact": True,
        "tombstone_seconds": 5,
    }
    driver.call(table.session, "declare", channel="plain", kind="topic")
    refused = driver.call(table.session, "configure", channel="plain", config={"compact": True})
    assert "declare another" in refused.text
    assert driver.call(table.session, "latest", channel="plain", key="a").code == "wrong_kind"
    answer = driver.call(table.session, "declare", channel="x", kind="queue", config={"compact": 1})
    assert answer.code == "bad_request"


def test_explaining_says_what_has_superseded_a_message(table: Table) -> None:
    table.call("subscribe", subscription="s", start="earliest")
    table.put("a=1", "b=1", "c=1", "=x")
    table.put("a=2")
    assert "message 4 has superseded it" in table.call("explain", offset=0)["text"]
    assert table.call("explain", offset=4)["text"] == "in the log"
    table.put("b=2")
    assert "a later message of its key" in table.call("explain", offset=0)["text"]
    (told,) = table.call("explain", offset=4)["subscriptions"]
    assert (told["state"], told["ahead"]) == ("ready", 2)
