"""Where a message is and why: each state, each reason to wait, and what is not known any more."""

from __future__ import annotations

from typing import Any

import pytest

from telpher.protocol import frames as f
from telpher_broker.engine import records as r
from telpher_broker.engine import settlements
from telpher_broker.engine.explain import REASONS, SETTLED, STATES
from telpher_broker.engine.ranges import LEASED

from .driver import Driver
from .test_walks import walk


def explained(driver: Driver, session: int, offset: int, channel: str = "jobs") -> Any:
    """What is said of a message of a queue."""
    told = driver.call(session, "explain", channel=channel, offset=offset)
    (standing,) = told["subscriptions"]
    return standing


def test_ready_behind_others_and_why(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a", b"b", b"c")
    told = explained(driver, session, 2)
    assert (told["state"], told["ahead"], told["attempt"]) == ("ready", 2, 0)
    assert told["text"] == "ready, behind 2 others; no consumer is connected"
    driver.publish(session, "jobs", b"d", properties={"priority": 3})
    assert explained(driver, session, 0)["ahead"] == 1
    assert explained(driver, session, 3)["ahead"] == 0
    consumer = driver.consume(session, "jobs", prefetch=2)
    told = explained(driver, session, 2)
    assert told["reasons"] == ("no consumer has credit: each holds as many as it asked for",)
    driver.settle_offsets(session, consumer, f.Outcome.REQUEUE, (0, 1))
    driver.send(session, f.Cancel(driver.request(), consumer))
    assert explained(driver, session, 0)["attempt"] >= 1
    assert "delivered" in explained(driver, session, 0)["text"]


def test_leased_to_whom_and_until_when(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    consumer = driver.consume(session, "jobs", prefetch=2, lease_ms=5000, token=b"t" * 16)
    driver.pass_time(1000)
    told = explained(driver, session, 0)
    assert told["state"] == "leased"
    assert (told["consumer"], told["session"], told["attempt"]) == (consumer, session, 1)
    assert told["until_ms"] == driver.now_ms + 4000
    assert "attempt 1, for 4.0 s unless it is renewed" in told["text"]
    other = driver.connect()
    driver.disconnect(session)
    told = explained(driver, other, 0)
    assert told["session"] is None
    assert "whose connection broke" in told["text"]


def test_times_are_told_in_units_that_fit_them(driver: Driver) -> None:
    session = driver.connect()
    for seconds in (90, 150, 9_000, 259_200):
        driver.publish(session, "jobs", b"a", properties={"delay_ms": seconds * 1000})
    found = [explained(driver, session, offset)["text"] for offset in range(4)]
    assert [text.removesuffix(" more: it was published for then") for text in found] == [
        "delayed for 90.0 s",
        "delayed for 2.5 min",
        "delayed for 2.5 h",
        "delayed for 3.0 days",
    ]
    driver.call(session, "cancel_scheduled", channel="jobs", offsets=(3, 4))
    driver.pass_time(7_200_000)
    assert explained(driver, session, 3)["text"] == "was cancelled 2.0 h ago"


def test_delayed_until(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a", properties={"delay_ms": 5000})
    told = explained(driver, session, 0)
    assert (told["state"], told["due_ms"]) == ("delayed", driver.now_ms + 5000)
    assert told["text"] == "delayed for 5.0 s more: it was published for then"
    driver.call(session, "reschedule", channel="jobs", offsets=(0, 1), delay_ms=3000)
    assert explained(driver, session, 0)["text"] == "delayed for 3.0 s more: it was moved to then"
    consumer = driver.consume(session, "jobs", prefetch=1)
    driver.pass_time(5000)
    driver.settle_offsets(session, consumer, f.Outcome.REQUEUE, (0, 1), 2000)
    assert "attempt 1 was given back or failed" in explained(driver, session, 0)["text"]
    driver.pass_time(2000)
    driver.send(session, f.Nack(driver.request(), consumer, (0, 1), {"error": "no paper"}))
    assert explained(driver, session, 0)["last_error"] == "no paper"


def test_settled_how_and_when(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a", b"b", b"c")
    driver.publish(session, "jobs", b"d", properties={"ttl_ms": 1000})
    consumer = driver.consume(session, "jobs", prefetch=1)
    driver.settle_offsets(session, consumer, f.Outcome.ACK, (0, 1))
    driver.pass_time(3000)
    told = explained(driver, session, 0)
    assert (told["state"], told["settled_ms"]) == ("acknowledged", driver.now_ms - 3000)
    assert told["text"] == "acknowledged 3.0 s ago"
    assert explained(driver, session, 3)["state"] == "expired"
    driver.call(session, "purge", channel="jobs")
    assert explained(driver, session, 2)["state"] == "purged"
    driver.restart()
    session = driver.connect()
    told = explained(driver, session, 0)
    assert told["state"] == "settled"
    assert told["text"].endswith("is not known any more")


def test_expired_and_not_gone_yet(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a", properties={"ttl_ms": 1000})
    driver.engine.at(driver.now_ms + 1500)
    driver.now_ms += 1500
    request = driver.request()
    driver.engine.handle(session, f.Call(request, "explain", {"channel": "jobs", "offset": 0}))
    (_, reply) = driver.engine.take_round().effects[0]
    (standing,) = reply.result["subscriptions"]
    assert (standing["state"], standing["text"]) == (
        "expired",
        "expired 0.5 s ago; it is not delivered",
    )


def test_a_dead_letter_says_where(driver: Driver) -> None:
    session = driver.connect()
    config = {"dead_letter": "dead", "max_attempts": 1}
    driver.call(session, "declare", channel="jobs", kind="queue", config=config)
    driver.publish(session, "jobs", b"a")
    consumer = driver.consume(session, "jobs", prefetch=1)
    driver.send(session, f.Nack(driver.request(), consumer, (0, 1), {}))
    told = explained(driver, session, 0)
    assert (told["state"], told["dead_letter"]) == ("dead", "dead")
    letter = driver.call(session, "explain", channel="dead", offset=0)
    assert letter["about"]["channel"] == "jobs"


def test_not_published_yet_and_not_there(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    told = driver.call(session, "explain", channel="jobs", offset=1)
    assert (told["state"], told["subscriptions"]) == ("unpublished", ())
    assert told["text"] == "not published yet: the next message gets offset 1"
    assert driver.call(session, "explain", channel="nowhere", offset=0).code == "unknown_channel"
    assert driver.call(session, "explain", channel="jobs", offset=-1).code == "bad_request"


def test_each_subscription_of_a_topic(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config={"retain_count": 1})
    for name in ("a", "b"):
        driver.call(session, "subscribe", channel="news", subscription=name)
    driver.publish(session, "news", b"a")
    driver.publish(session, "news", b"b")
    consumer = driver.consume(session, "news", "a", prefetch=1)
    driver.settle_offsets(session, consumer, f.Outcome.ACK, (0, 1))
    told = driver.call(session, "explain", channel="news", offset=0)
    states = {one["subscription"]: one["state"] for one in told["subscriptions"]}
    assert (told["state"], states) == ("kept", {"a": "acknowledged", "b": "ready"})
    driver.call(session, "purge", channel="news", subscription="b")
    assert driver.call(session, "explain", channel="news", offset=0)["state"] == "gone"


def test_one_consumer_at_a_time(driver: Driver) -> None:
    session = driver.connect()
    config = {"single_active": True}
    driver.call(session, "declare", channel="jobs", kind="queue", config=config)
    driver.consume(session, "jobs", prefetch=1)
    driver.publish(session, "jobs", b"a", b"b")
    assert any("one consumer at a time" in why for why in explained(driver, session, 1)["reasons"])


def test_what_is_remembered_is_bounded(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlements, "NUMBERS_MAX", 6)
    session = driver.connect()
    driver.publish(session, "jobs", *[b"x"] * 10)
    consumer = driver.consume(session, "jobs", prefetch=10)
    for offset in range(5):
        driver.settle_offsets(session, consumer, f.Outcome.ACK, (offset, offset + 1))
    states = [explained(driver, session, offset)["state"] for offset in range(5)]
    assert states == ["settled", "settled", "acknowledged", "acknowledged", "acknowledged"]


@pytest.mark.parametrize("seed", range(6))
def test_it_agrees_with_what_there_is(seed: int) -> None:
    """For every message of every subscription, whatever has happened to it."""
    driver = walk(seed + 400, 120).driver
    driver.on_round = None
    session = driver.connect()
    for channel in list(driver.engine.state.channels.values()):
        for offset in range(channel.log.next):
            told = driver.call(session, "explain", channel=channel.name, offset=offset)
            for one in told["subscriptions"]:
                subscription = channel.subscriptions[one["subscription"]]
                is_unsettled = bool(subscription.unsettled(offset, offset + 1))
                is_here = one["state"] in ("ready", "leased", "delayed")
                if told["state"] == "kept" and one["state"] != "expired":
                    assert is_here == is_unsettled, (channel.name, offset, one)
                spans = subscription.ranges.over(offset, offset + 1)
                assert (one["state"] == "leased") == any(s.state == LEASED for s in spans)
                assert one["text"]


def test_the_tables_have_one_of_each() -> None:
    assert SETTLED.keys() == set(r.Reason)
    assert len(set(STATES)) == len(STATES)
    assert len(set(REASONS)) == len(REASONS)
