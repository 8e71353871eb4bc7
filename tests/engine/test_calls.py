"""What is rare: declare, delete, purge, seek, browse."""

from __future__ import annotations

import gc

import pytest

from telpher.protocol import frames as f
from telpher_broker.engine.calls import VERBS
from telpher_broker.engine.schedules import delays
from telpher_broker.engine.security.access import FREE_VERBS, NEEDS
from telpher_broker.engine.sessions import Consumer

from .driver import Driver, delivered

TOKEN = b"t" * 16


def consumers_alive() -> int:
    gc.collect()
    return sum(isinstance(found, Consumer) for found in gc.get_objects())


@pytest.mark.parametrize("key_order", [False, True])
def test_a_long_queue_is_purged_in_several_requests(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, key_order: bool
) -> None:
    """Each does so much; what is leased, or published meanwhile, stays."""
    monkeypatch.setattr(delays, "SPANS_MAX", 4)
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config={"key_order": key_order})
    driver.publish(session, "jobs", *[b"held"] * 3)
    driver.consume(session, "jobs", prefetch=3)
    for number in range(10):
        driver.publish(session, "jobs", b"x", properties={"delay_ms": 1000 + number})
    for _ in range(10):
        driver.publish(session, "jobs", b"x")
    counts, start = [], None
    while True:
        told = driver.call(session, "purge", channel="jobs", start=start)
        counts.append(told["purged"])
        assert counts[-1] <= 4
        driver.publish(session, "jobs", b"later")
        start = told.get("next")
        if start is None:
            break
    assert sum(counts) == 20
    queue = driver.engine.state.channels["jobs"].subscriptions[""]
    assert queue.unsettled(0, queue.channel.log.next) == [(0, 3), (23, 23 + len(counts))]
    driver.check_replay([len(driver.journal) // 2])


def test_leases_of_a_deleted_channel_end_in_silence(driver: Driver) -> None:
    session = driver.connect()
    driver.consume(session, "jobs", prefetch=5, lease_ms=1000)
    driver.publish(session, "jobs", b"a")
    driver.call(session, "delete", channel="jobs")
    assert driver.advance(2000) == []
    driver.check_replay([])


def test_unsubscribing_an_ephemeral_subscription_is_not_journalled(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic")
    consumer = driver.consume(session, "news", prefetch=1)
    assert (
        driver.call(session, "unsubscribe", channel="news", subscription=f"~{session}.{consumer}")
        == {}
    )
    driver.check_replay([1])


def test_seek_lets_a_consumer_that_is_away_go(driver: Driver) -> None:
    session, admin = driver.connect(), driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config={"retain_count": 10})
    driver.consume(session, "news", "billing", prefetch=5, token=TOKEN)
    driver.publish(session, "news", b"a")
    driver.disconnect(session)
    driver.call(admin, "seek", channel="news", subscription="billing", to="earliest")
    (inspected,) = driver.call(admin, "inspect", channel="news")["subscriptions"]
    assert inspected["consumers"] == 0
    assert inspected["ready"] == 1


def test_refusals_do_not_echo_without_bound(driver: Driver) -> None:
    session = driver.connect()
    long = "x" * 100_000
    refusals = [
        driver.call(session, "inspect", channel=long),
        driver.call(session, "inspect", channel="jobs", **{long: 1}),
        driver.call(session, "declare", channel="jobs", kind=long),
        driver.call(session, "declare", channel="jobs", kind="queue", config={long: 1}),
        driver.call(session, long),
        driver.publish(session, "jobs", b"a", properties={long: 1}),
        driver.publish(session, "jobs", b"a", properties={"priority": long}),
    ]
    driver.publish(session, "jobs", b"a")
    refusals.append(driver.call(session, "purge", channel="jobs", subscription=long))
    said = driver.send(session, f.Consume(9, "jobs", long, {}))
    refusals += [frame for _, frame in said]
    for refusal in refusals:
        assert isinstance(refusal, f.Refused)
        assert len(refusal.text) < 400, refusal.code


def test_browse_pages_through_what_is_unsettled(driver: Driver) -> None:
    session = driver.connect()
    for n in range(4):
        driver.publish(session, "jobs", b"%d" % n, b"%d+" % n)
    consumer = driver.consume(session, "jobs", prefetch=3)
    driver.settle_offsets(session, consumer, 0, (1, 2))
    seen, start = [], 0
    while True:
        page = driver.call(session, "browse", channel="jobs", start=start, count=2)
        if not page["parts"]:
            break
        said = [(session, f.Deliver(1, page["parts"]))]
        seen += [(offset, attempt) for offset, attempt, _ in delivered(said)]
        start = page["next"]
    assert seen == [(0, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)]


def test_messages_counts_what_is_there(driver: Driver) -> None:
    session = driver.connect()
    consumer = driver.consume(session, "jobs", prefetch=10)
    for n in range(3):
        driver.publish(session, "jobs", b"%d" % n)
    driver.settle_offsets(session, consumer, 0, (1, 2))
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 2
    assert driver.engine.messages == 2


def test_a_queue_is_neither_sought_nor_unsubscribed(driver: Driver) -> None:
    """Its one subscription is the queue."""
    session = driver.connect()
    driver.publish(session, "jobs", b"a", b"b")
    for name in ("", "billing"):
        answer = driver.call(session, "seek", channel="jobs", subscription=name, to="latest")
        assert answer.code == "wrong_kind"
        answer = driver.call(session, "unsubscribe", channel="jobs", subscription=name)
        assert answer.code == "wrong_kind"
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 2


def test_what_waits_long_is_not_remembered_for_as_long(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue")
    before = consumers_alive()
    for _ in range(10):
        brief = driver.connect()
        consumer = driver.consume(brief, "jobs")
        driver.send(brief, f.Fetch(90, consumer, 1, 86_400_000))
        driver.disconnect(brief)
    stays = driver.consume(session, "jobs")
    driver.send(session, f.Fetch(91, stays, 1, 100_000))
    driver.publish(session, "later", b"x", properties={"ttl_ms": 100_000})
    driver.publish(session, "later", b"x", properties={"delay_ms": 100_000})
    assert driver.pass_time(99_000) == []
    assert consumers_alive() == before + 1
    assert driver.pass_time(2000) == [(session, f.Reply(91, {"count": 0}))]
    (inspected,) = driver.call(session, "inspect", channel="later")["subscriptions"]
    assert (inspected["ready"], inspected["delayed"]) == (1, 0)


def test_a_living_channel_is_configured(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config={"retain_count": 2})
    found = driver.call(
        session, "configure", channel="news", config={"retain_count": None, "limit_count": 3}
    )
    assert found["config"] == {"limit_count": 3}
    driver.call(session, "subscribe", channel="news", subscription="s", start="earliest")
    for body in b"abcde":
        driver.publish(session, "news", bytes([body]))
    assert driver.call(session, "inspect", channel="news")["start"] == 2
    driver.check_replay(range(len(driver.journal)))


def test_a_wrong_configuration_changes_nothing(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config={"retain_count": 2})
    refused = driver.call(session, "configure", channel="news", config={"limit_count": 0})
    assert (refused.code, refused.text) == (
        "bad_request",
        f"limit_count is 0; it may be 1 to {2**60}",
    )
    records = len(driver.journal)
    driver.call(session, "configure", channel="news", config={"retain_count": 2})
    refused = driver.call(session, "configure", channel="news", config={"retain_cuont": None})
    assert (refused.code, refused.text) == (
        "bad_request",
        "a topic has no configuration 'retain_cuont'; did you mean 'retain_count'?",
    )
    assert len(driver.journal) == records


def test_every_verb_says_what_it_needs() -> None:
    """A verb that is in neither table needs an administrator: add yours to NEEDS in access.py."""
    assert set(VERBS) <= set(NEEDS) | FREE_VERBS
    assert not set(NEEDS) & FREE_VERBS
