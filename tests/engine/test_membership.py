"""Joining, leaving, fetching and coming back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from telpher.protocol import frames as f

from .driver import Driver, answer_of, delivered, short_ticks

TOKEN = b"t" * 16


def test_cancel_answers_the_open_fetch(driver: Driver) -> None:
    session = driver.connect()
    consumer = driver.consume(session, "jobs")
    assert driver.send(session, f.Fetch(1, consumer, 10, 5000)) == []
    said = driver.send(session, f.Cancel(2, consumer))
    assert said == [(session, f.Reply(1, {"count": 0})), (session, f.Reply(2, {}))]


def test_a_token_that_comes_back_ends_the_consumer_that_still_had_it(driver: Driver) -> None:
    first, second = driver.connect(), driver.connect()
    former = driver.consume(first, "jobs", token=TOKEN)
    driver.send(first, f.Fetch(1, former, 10, 5000))
    said = driver.send(second, f.Consume(7, "jobs", None, {"token": TOKEN}))
    assert answer_of(said, first, 1).code == "resumed_elsewhere"
    assert [frame.code for _, frame in said if isinstance(frame, f.Closed)] == ["resumed_elsewhere"]
    assert answer_of(said, second, 7).result == {
        "subscription": "",
        "next": 0,
        "start": 0,
        "lost": (),
    }


def test_a_lease_that_nobody_renews_ends_in_its_time(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    consumer = driver.consume(session, "jobs", prefetch=1, lease_ms=5000)
    assert driver.advance(4999) == []
    said = driver.advance(1)
    assert (session, f.Lost(consumer, (0, 1))) in said
    assert delivered(said) == [(0, 2, b"a")]


def test_what_somebody_held_who_leaves_goes_to_another(driver: Driver) -> None:
    holder, other = driver.connect(), driver.connect()
    driver.publish(holder, "jobs", b"a")
    consumer = driver.consume(holder, "jobs", prefetch=1)
    driver.consume(other, "jobs", prefetch=1)
    assert delivered(driver.send(holder, f.Cancel(driver.request(), consumer))) == [(0, 2, b"a")]


def test_what_a_broken_connection_held_goes_to_another(driver: Driver) -> None:
    """At once without a token, by which somebody may come back; with one after a moment."""
    holder, other = driver.connect(), driver.connect()
    driver.publish(holder, "jobs", b"a", b"b")
    driver.consume(holder, "jobs", prefetch=1)
    driver.consume(holder, "jobs", prefetch=1, token=b"t" * 16)
    driver.consume(other, "jobs", prefetch=2)
    assert delivered(driver.disconnect(holder)) == [(0, 2, b"a")]
    assert driver.pass_time(driver.settings.resume_ms - 1) == []
    assert delivered(driver.pass_time(1)) == [(1, 2, b"b")]


def test_resuming_with_less_prefetch_never_exceeds_it(driver: Driver) -> None:
    session = driver.connect()
    driver.consume(session, "jobs", prefetch=8, token=TOKEN)
    driver.publish(session, "jobs", *[b"%d" % n for n in range(20)])
    driver.disconnect(session)
    session = driver.connect()
    consumer = driver.consume(session, "jobs", prefetch=2, token=TOKEN, held=(0, 8))
    said = driver.settle_offsets(session, consumer, 0, (0, 5))
    assert delivered(said) == []
    said = driver.settle_offsets(session, consumer, 0, (5, 7))
    assert [offset for offset, _, _ in delivered(said)] == [8]


def test_what_was_never_delivered_is_held_by_nobody(driver: Driver) -> None:
    """It is in the place of another message, whose channel was deleted while its consumer was away,
    say: an acknowledgement of that one must not settle it.
    """
    session = driver.connect()
    driver.publish(session, "jobs", b"a", properties={"priority": 1})
    driver.publish(session, "jobs", b"b")
    said = driver.send(session, f.Consume(7, "jobs", None, {"token": TOKEN, "held": (0, 2)}))
    assert f.pairs(answer_of(said, session, 7).result["lost"]) == [(0, 1), (1, 2)]
    driver.consume(session, "jobs", prefetch=2)
    assert delivered(driver.rounds[-1].effects) == [(0, 1, b"a"), (1, 1, b"b")]


def test_what_an_earlier_run_delivered_is_held_only_while_it_is_the_same_message(
    driver: Driver,
) -> None:
    """A loss of power takes the end of the log, and other messages get the same offsets."""
    runs = [b"%16d" % number for number in range(4)]
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    driver.consume(session, "jobs", prefetch=10)
    kept = len(driver.journal)
    driver.publish(session, "jobs", b"b")
    del driver.journal[kept:]
    driver.restart()
    driver.engine.recovered(runs[1], runs[0])
    session = driver.connect()
    driver.publish(session, "jobs", b"c")
    consumer = driver.consume(session, "jobs", prefetch=10)
    driver.settle_offsets(session, consumer, 1, (0, 2))
    driver.send(session, f.Cancel(driver.request(), consumer))

    def lost(run: bytes) -> f.Offsets:
        session = driver.connect()
        options = {"token": TOKEN, "held": (0, 2), "broker": run}
        reply = answer_of(driver.send(session, f.Consume(7, "jobs", None, options)), session, 7)
        driver.disconnect(session, orderly=True)
        return reply.result["lost"]

    assert lost(runs[0]) == (1, 2)
    assert lost(runs[1]) == ()
    assert lost(runs[2]) == (0, 2)


def test_an_ack_from_before_a_loss_of_power_settles_nothing_published_since(driver: Driver) -> None:
    """It comes when its consumer has been delivered what has the same offset now."""
    runs = [b"%16d" % number for number in range(2)]
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    driver.consume(session, "jobs", prefetch=10)
    kept = len(driver.journal)
    driver.publish(session, "jobs", b"b")
    del driver.journal[kept:]
    driver.restart()
    driver.engine.recovered(runs[1], runs[0])
    session = driver.connect()
    driver.publish(session, "jobs", b"c")
    options = {"prefetch": 10, "token": TOKEN, "held": (0, 2), "broker": runs[0]}
    said = driver.send(session, f.Consume(7, "jobs", None, options))
    assert delivered(said) == [(1, 1, b"c")]
    said = driver.send(session, f.Settle(8, 7, f.Outcome.ACK_AGAIN, (0, 2), 0))
    assert answer_of(said, session, 8).lost == (1, 2)
    said = driver.send(session, f.Settle(9, 7, f.Outcome.ACK, (1, 2), 0))
    assert answer_of(said, session, 9).lost == ()


def test_an_ack_of_what_was_lost_with_the_power_is_not_answered_as_settled(driver: Driver) -> None:
    """Not by what has its offset now and was settled meanwhile, nor where nothing has it: the lost
    message may be published once more, and come again. What the log kept was settled in time.
    """
    runs = [b"%16d" % number for number in range(2)]
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    consumer = driver.consume(session, "jobs", prefetch=10)
    driver.settle_offsets(session, consumer, 0, (0, 1))
    kept = len(driver.journal)
    driver.publish(session, "jobs", b"b", b"c")
    del driver.journal[kept:]
    driver.restart()
    driver.engine.recovered(runs[1], runs[0])
    session = driver.connect()
    driver.publish(session, "jobs", b"d")
    other = driver.consume(session, "jobs", prefetch=10)
    driver.settle_offsets(session, other, 0, (1, 2))
    options = {"prefetch": 10, "token": TOKEN, "held": (0, 3), "broker": runs[0]}
    driver.send(session, f.Consume(7, "jobs", None, options))
    said = driver.send(session, f.Settle(8, 7, f.Outcome.ACK_AGAIN, (0, 3), 0))
    assert answer_of(said, session, 8).lost == (1, 3)


class Watched(list[Any]):
    """A list that counts how often it is gone through."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        self.walks += 1
        return super().__iter__()


def test_who_joins_or_leaves_is_not_compared_with_all_who_are_there(driver: Driver) -> None:
    sessions = [driver.connect() for _ in range(20)]
    driver.call(sessions[0], "declare", channel="jobs", kind="queue")
    queue = driver.engine.state.channels["jobs"].subscriptions[""]
    queue.consumers = watched = Watched()
    for session in sessions:
        driver.engine.handle(session, f.Consume(1, "jobs", None, {"prefetch": 1}))
    assert len(watched) == 20
    for session in sessions:
        driver.engine.disconnect(session, orderly=True)
    assert (len(watched), watched.walks) == (0, 0)


def test_leases_that_end_together_hold_nothing_else_up(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many end in a round, and others have theirs in between; what comes back is in order."""
    short_ticks(monkeypatch, driver, 4)
    session = driver.connect()
    driver.consume(session, "jobs", prefetch=100, lease_ms=1000)
    for _ in range(20):
        driver.publish(session, "jobs", b"x")
    driver.publish(session, "other", b"too", properties={"delay_ms": 1000})
    driver.consume(session, "other", prefetch=1)
    said = driver.advance(1000)
    assert 0 < driver.engine.statistics()["leases_ended"] <= 4
    later = driver.pass_time(2)
    assert b"too" in [body for _, _, body in delivered(later)]
    assert driver.engine.statistics()["leases_ended"] < 20
    said += [*later, *driver.pass_time(100)]
    assert driver.engine.statistics()["leases_ended"] == 20
    back = [offset for offset, attempt, _ in delivered(said) if attempt == 2]
    assert back == list(range(20))


def test_a_subscription_that_does_not_lease_holds_nothing(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config={"retain_count": 10})
    driver.publish(session, "news", b"a", b"b")
    options = {"token": TOKEN, "held": (0, 2), "start": "earliest", "prefetch": 1}
    said = driver.send(session, f.Consume(7, "news", None, options))
    assert answer_of(said, session, 7).result["lost"] == (0, 2)
    assert [offset for offset, _, _ in delivered(said)] == [0, 1]


def test_an_ephemeral_subscription_is_not_joined_by_name(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic")
    consumer = driver.consume(session, "news")
    name = f"~{session}.{consumer}"
    said = driver.send(session, f.Consume(7, "news", name, {}))
    assert answer_of(said, session, 7).code == "bad_name"
    assert driver.call(session, "subscribe", channel="news", subscription=name).code == "bad_name"


def test_a_refused_consume_makes_no_channel(driver: Driver) -> None:
    session = driver.connect()
    said = driver.send(session, f.Consume(7, "jobs", "billing", {}))
    assert answer_of(said, session, 7).code == "wrong_kind"
    assert driver.journal == []


def test_a_blocked_consumer_is_remembered_once(driver: Driver) -> None:
    driver = Driver(output_bytes_max=10)
    session = driver.connect()
    consumer = driver.consume(session, "jobs")
    driver.publish(session, "jobs", b"a" * 20)
    driver.publish(session, "jobs", b"b")
    driver.send(session, f.Fetch(1, consumer, 1, 0))
    for request in range(2, 9):
        said = driver.send(session, f.Fetch(request, consumer, 1, 0))
        assert answer_of(said, session, request).result == {"count": 0}
    assert len(driver.engine.state.sessions[session].blocked) == 1
    driver.send(session, f.Cancel(9, consumer))
    assert not driver.engine.state.sessions[session].blocked


def test_settle_delay_has_bounds(driver: Driver) -> None:
    session = driver.connect()
    consumer = driver.consume(session, "jobs", prefetch=1)
    driver.publish(session, "jobs", b"a")
    for delay_ms in (2**63, 2**64 - 1, -1):
        said = driver.settle_offsets(session, consumer, 1, (0, 1), delay_ms)
        assert [frame.code for _, frame in said] == ["bad_request"]


def test_what_is_lost_is_told_in_order(driver: Driver) -> None:
    """Also when some of what a client claims to hold was never published here."""
    session = driver.connect()
    driver.publish(session, "jobs", b"a", properties={"delay_ms": 1000})
    driver.publish(session, "jobs", b"b")
    consumer = driver.consume(session, "jobs", prefetch=1)
    driver.send(session, f.Cancel(driver.request(), consumer))
    said = driver.send(session, f.Consume(7, "jobs", None, {"token": TOKEN, "held": (0, 9)}))
    assert f.pairs(answer_of(said, session, 7).result["lost"]) == [(0, 1), (2, 9)]
