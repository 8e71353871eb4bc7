"""Dedup ids and unique keys, each rule by a story."""

from __future__ import annotations

from typing import Any

import pytest

from telpher.protocol import frames as f
from telpher.protocol.batch import PROPERTY_BOUNDS
from telpher.protocol.uniqueness import DEDUP_HEADER, UNIQUE_HEADER, OnConflict, UniqueWhile

from .driver import Driver, answer_of, delivered, make_batch

WAITING, UNSETTLED, A_TIME = UniqueWhile
REJECT, IGNORE, REPLACE, EXTEND = OnConflict


class Client:
    """Publishes to one channel and consumes it, one message at a time."""

    def __init__(self, driver: Driver, channel: str = "jobs", **config: Any) -> None:
        self.driver = driver
        self.channel = channel
        self.session = driver.connect()
        kind = "topic" if channel == "news" else "queue"
        driver.call(self.session, "declare", channel=channel, kind=kind, config=config)

    def send(self, header: str, *identities: str | None, **properties: int) -> Any:
        """The answer to a publish of a message for each identity."""
        headers = [None if one is None else {header: one} for one in identities]
        batch = make_batch([b"m"] * len(identities), properties or None, headers=headers)
        return self.driver.publish(self.session, self.channel, batch=batch)

    def once(self, *ids: str | None, **properties: int) -> Any:
        return self.send(DEDUP_HEADER, *ids, **properties)

    def unique(self, key: str, while_: int = 0, conflict: int = 0, **properties: int) -> Any:
        given = {"unique": while_, "on_conflict": conflict, **properties}
        given = {name: value for name, value in given.items() if value}
        return self.send(UNIQUE_HEADER, key, **given)

    def consume(self, **options: Any) -> int:
        return self.driver.consume(self.session, self.channel, **options)

    def settle(self, consumer: int, outcome: int, offset: int, delay_ms: int = 0) -> None:
        row = (offset, offset + 1)
        self.driver.settle_offsets(self.session, consumer, outcome, row, delay_ms)

    def fetched(self, consumer: int) -> list[int]:
        request = self.driver.request()
        said = self.driver.send(self.session, f.Fetch(request, consumer, 10, 0))
        return [offset for offset, _, _ in delivered(said)]

    def restart(self) -> None:
        self.driver.restart(len(self.driver.journal) // 2)
        self.driver.settle()
        self.session = self.driver.connect()


@pytest.fixture
def jobs(driver: Driver) -> Client:
    return Client(driver)


# -- dedup ids


def test_an_id_is_remembered_for_two_minutes_where_nothing_is_said(jobs: Client) -> None:
    assert jobs.once("a") == f.Confirm(jobs.driver._requests, 0, 1)
    jobs.driver.pass_time(119_999)
    assert jobs.once("a").offsets == (0,)
    jobs.driver.pass_time(1)
    assert jobs.once("a").first == 1


def test_an_id_outlives_its_message(jobs: Client) -> None:
    jobs.once("a")
    assert jobs.driver.call(jobs.session, "purge", channel="jobs") == {"purged": 1}
    jobs.restart()
    assert jobs.once("a").duplicates == (0,)


def test_a_batch_with_what_is_new_and_what_is_not(jobs: Client) -> None:
    jobs.once("a", "b")
    answer = jobs.once("b", None, "c", "c", "a")
    assert (answer.offsets, answer.duplicates) == ((1, 2, 3, 3, 0), (0, 3, 4))
    assert answer.refused == ()
    inspected = jobs.driver.call(jobs.session, "inspect", channel="jobs")
    assert (inspected["messages"], inspected["dedup_ids"]) == (4, 3)


def test_no_id_is_forgotten_early() -> None:
    jobs = Client(Driver(dedup_ids_max=2), dedup_seconds=10)
    jobs.once("a")
    jobs.driver.pass_time(4000)
    answer = jobs.once("b", "c", "a", None)
    assert answer.offsets == (1, -1, 0, 2)
    ((index, code, text),) = answer.refused
    assert (index, code) == (1, "limit_reached")
    assert "dedup_ids_max = 2" in text
    jobs.driver.pass_time(6000)
    assert jobs.once("c").first == 3


def test_what_nobody_asks_for_is_forgotten_by_itself(jobs: Client) -> None:
    for n in range(5):
        jobs.once(str(n))
        jobs.driver.pass_time(100)
    jobs.driver.pass_time(121_000)
    assert "dedup_ids" not in jobs.driver.call(jobs.session, "inspect", channel="jobs")
    jobs.driver.check_replay(range(len(jobs.driver.journal)))


def test_the_window_changes_with_the_channel(jobs: Client) -> None:
    jobs.once("a")
    jobs.driver.call(jobs.session, "configure", channel="jobs", config={"dedup_seconds": 1000})
    jobs.driver.pass_time(500_000)
    assert jobs.once("a").duplicates == (0,)
    jobs.driver.call(jobs.session, "configure", channel="jobs", config={"dedup_seconds": 100})
    assert jobs.once("a").first == 1


@pytest.mark.parametrize("identity", [7, b"a", "", "x" * 257])
def test_an_identity_is_a_short_string(jobs: Client, identity: Any) -> None:
    for header in (DEDUP_HEADER, UNIQUE_HEADER):
        answer = jobs.send(header, identity)
        assert answer.code == "bad_request"
        assert header in answer.text


def test_a_resent_batch_is_answered_as_before_whatever_has_come_since(jobs: Client) -> None:
    jobs.unique("x")
    headers = [{UNIQUE_HEADER: key} for key in ("x", "y", "y")]
    batch = make_batch([b"m"] * 3, headers=headers)
    sent = {"batch": batch, "producer": b"p" * 16, "sequence": 1}
    first = jobs.driver.publish(jobs.session, "jobs", **sent)
    assert first.offsets == (-1, 1, -1)
    jobs.driver.call(jobs.session, "purge", channel="jobs")
    jobs.restart()
    again = jobs.driver.publish(jobs.session, "jobs", **sent)
    assert again == first._replace(request=again.request)


# -- unique keys


def test_a_key_is_free_when_its_message_is_settled(jobs: Client) -> None:
    assert jobs.unique("k").first == 0
    refused = jobs.unique("k")
    assert (refused.code, "message 0" in refused.text) == ("not_unique", True)
    consumer = jobs.consume()
    assert jobs.fetched(consumer) == [0]
    assert jobs.unique("k").code == "not_unique"
    jobs.settle(consumer, f.Outcome.ACK, 0)
    assert jobs.unique("k").first == 1


def test_a_key_for_as_long_as_a_message_waits_comes_back_with_it(jobs: Client) -> None:
    jobs.unique("k", WAITING)
    consumer = jobs.consume()
    jobs.fetched(consumer)
    jobs.settle(consumer, f.Outcome.REQUEUE, 0)
    assert jobs.unique("k", WAITING).code == "not_unique"
    jobs.fetched(consumer)
    assert jobs.unique("k", WAITING).first == 1
    jobs.settle(consumer, f.Outcome.REQUEUE, 0)
    answer = jobs.unique("k", WAITING)
    assert "message 0 and message 1" in answer.text


def test_a_restart_is_a_return_too(jobs: Client) -> None:
    jobs.unique("k", WAITING)
    jobs.fetched(jobs.consume())
    jobs.restart()
    jobs.driver.pass_time(jobs.driver.settings.resume_ms)
    assert jobs.unique("k", WAITING).code == "not_unique"


def test_a_key_for_a_time_is_free_after_it_and_not_before(jobs: Client) -> None:
    jobs.unique("k", A_TIME, unique_ms=1000)
    jobs.driver.call(jobs.session, "purge", channel="jobs")
    jobs.driver.pass_time(999)
    assert jobs.unique("k", A_TIME, unique_ms=1000).code == "not_unique"
    jobs.driver.pass_time(1)
    assert jobs.unique("k", A_TIME, unique_ms=1000).first == 1


def test_expiry_frees_a_key(jobs: Client) -> None:
    jobs.unique("k", ttl_ms=500)
    jobs.driver.pass_time(500)
    assert jobs.unique("k").first == 1


def test_death_frees_a_key(driver: Driver) -> None:
    jobs = Client(driver, dead_letter="dead", max_attempts=1)
    jobs.unique("k")
    consumer = jobs.consume()
    jobs.fetched(consumer)
    driver.send(jobs.session, f.Nack(driver.request(), consumer, (0, 1), {"error": "no"}))
    assert driver.call(jobs.session, "inspect", channel="dead")["messages"] == 1
    assert jobs.unique("k").first == 1


def test_what_is_replaced_is_gone_and_the_new_one_last(jobs: Client) -> None:
    jobs.unique("k")
    jobs.once(None)
    assert jobs.unique("k", UNSETTLED, REPLACE).first == 2
    assert jobs.fetched(jobs.consume()) == [1, 2]
    assert jobs.driver.engine.statistics()["replaced"] == 1


def test_what_is_being_worked_on_cannot_be_replaced(jobs: Client) -> None:
    jobs.unique("k")
    jobs.fetched(jobs.consume())
    answer = jobs.unique("k", UNSETTLED, REPLACE)
    assert (answer.code, "being worked on" in answer.text) == ("not_unique", True)


def test_a_debounce_moves_what_is_held_back_and_never_forward(jobs: Client) -> None:
    jobs.unique("k", UNSETTLED, EXTEND, delay_ms=1000)
    jobs.driver.pass_time(600)
    assert jobs.unique("k", UNSETTLED, EXTEND, delay_ms=1000).duplicates == (0,)
    jobs.driver.pass_time(300)
    jobs.unique("k", UNSETTLED, EXTEND, delay_ms=200)
    consumer = jobs.consume()
    jobs.driver.pass_time(699)
    assert jobs.fetched(consumer) == []
    jobs.driver.pass_time(1)
    # What is due is not held back again.
    jobs.unique("k", UNSETTLED, EXTEND, delay_ms=1000)
    assert jobs.fetched(consumer) == [0]


def test_extending_lengthens_a_time_and_never_shortens_it(jobs: Client) -> None:
    jobs.unique("k", A_TIME, EXTEND, unique_ms=1000)
    jobs.driver.pass_time(500)
    jobs.unique("k", A_TIME, EXTEND, unique_ms=1000)
    jobs.unique("k", A_TIME, EXTEND, unique_ms=10)
    jobs.restart()
    jobs.driver.pass_time(999)
    assert jobs.unique("k", A_TIME, unique_ms=1).code == "not_unique"
    jobs.driver.pass_time(1)
    assert jobs.unique("k", A_TIME, unique_ms=1).first == 1


def test_a_topic_has_keys_for_a_time(driver: Driver) -> None:
    news = Client(driver, "news", retain_count=100)
    assert news.unique("k").code == "wrong_kind"
    assert news.unique("k", A_TIME, REPLACE, unique_ms=5).code == "wrong_kind"
    assert news.unique("k", A_TIME, unique_ms=5).first == 0
    assert news.unique("k", A_TIME, IGNORE, unique_ms=5).offsets == (0,)


def test_a_time_goes_with_the_state_that_has_one(jobs: Client) -> None:
    assert jobs.unique("k", A_TIME).code == "bad_batch"
    assert jobs.unique("k", WAITING, unique_ms=5).code == "bad_batch"
    assert PROPERTY_BOUNDS["unique"] == (1, 3)


def test_a_refused_neighbour_is_nothing_to_the_others(jobs: Client) -> None:
    jobs.unique("a")
    answer = jobs.send(UNIQUE_HEADER, "a", "b", None, "b")
    assert answer.offsets == (-1, 1, 2, -1)
    assert [index for index, _, _ in answer.refused] == [0, 3]


# -- with others


def test_a_transaction_is_refused_whole_and_may_follow_itself(jobs: Client) -> None:
    jobs.unique("k")
    consumer = jobs.consume()
    jobs.fetched(consumer)
    batch = make_batch([b"next"], headers=[{UNIQUE_HEADER: "k"}])

    def transact(sequence: int, settles: Any, *batches: bytes) -> Any:
        publishes = tuple(("jobs", one) for one in batches)
        request = jobs.driver.request()
        frame = f.Transact(request, b"t" * 16, sequence, None, settles, publishes)
        return answer_of(jobs.driver.send(jobs.session, frame), jobs.session, request)

    assert transact(1, (), batch).code == "not_unique"
    held = ((consumer, (0, 1)),)
    assert transact(1, held, batch, batch).code == "not_unique"
    assert transact(1, held, batch).result["firsts"] == (1,)
    once = make_batch([b"x"], headers=[{DEDUP_HEADER: "i"}])
    assert transact(2, (), once, once).result["firsts"] == (2, 2)
    jobs.driver.check_replay(range(len(jobs.driver.journal)))


def test_behind_an_exchange_each_channel_judges_for_itself(jobs: Client) -> None:
    driver, session = jobs.driver, jobs.session
    driver.call(session, "declare_exchange", exchange="all", kind="fanout")
    driver.call(session, "declare", channel="other", kind="queue")
    for target in ("jobs", "other"):
        driver.call(session, "bind", exchange="all", target=target)
    jobs.once("a")
    batch = make_batch([b"1", b"2", b"3"], headers=[{DEDUP_HEADER: one} for one in "aba"])
    assert driver.publish(session, "all", batch=batch).first == 0
    counts = [
        driver.call(session, "inspect", channel=name)["messages"] for name in ("jobs", "other")
    ]
    assert counts == [2, 2]
    assert driver.publish(session, "all", batch=batch).first == 3
    driver.check_replay(range(len(driver.journal)))


def test_a_schedule_does_not_overlap_with_itself(jobs: Client) -> None:
    driver, session = jobs.driver, jobs.session
    batch = make_batch([b"run"], headers=[{UNIQUE_HEADER: "nightly"}])
    driver.call(
        session, "set_schedule", schedule="n", channel="jobs", expression="1000", batch=batch
    )
    driver.pass_time(3500)
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 1
    assert "nightly" in driver.call(session, "schedule", schedule="n")["failure"]
    driver.call(session, "purge", channel="jobs")
    ignoring = make_batch([b"run"], {"on_conflict": IGNORE}, headers=[{UNIQUE_HEADER: "n"}])
    driver.call(
        session, "set_schedule", schedule="n", channel="jobs", expression="1000", batch=ignoring
    )
    driver.pass_time(3500)
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 1
    assert driver.call(session, "schedule", schedule="n")["failure"] is None
    driver.check_replay(range(len(driver.journal)))


def test_explaining_names_the_key_that_a_message_has(jobs: Client) -> None:
    jobs.unique("k")
    told = jobs.driver.call(jobs.session, "explain", channel="jobs", offset=0)
    assert told["unique_key"] == "k"
    jobs.unique("k", UNSETTLED, REPLACE)
    told = jobs.driver.call(jobs.session, "explain", channel="jobs", offset=0)
    assert "unique_key" not in told
    assert told["subscriptions"][0]["state"] == "replaced"
