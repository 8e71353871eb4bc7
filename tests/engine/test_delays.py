"""What is delayed: when it comes, and where it then stands in line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import frames as f
from telpher_broker.engine.ranges import DELAYED
from telpher_broker.engine.schedules import delays

from .driver import START_MS, Driver, delivered, short_ticks
from .model import row_of


def test_what_is_due_earlier_is_delivered_earlier(driver: Driver) -> None:
    """Nobody consumed while they became due; they come by due time and not by offset."""
    session = driver.connect()
    for body, delay_ms in ((b"c", 3000), (b"a", 1000), (b"b", 2000)):
        driver.publish(session, "jobs", body, properties={"delay_ms": delay_ms})
    driver.pass_time(5000)
    driver.consume(session, "jobs", prefetch=10)
    assert delivered(driver.rounds[-1].effects) == [(1, 1, b"a"), (2, 1, b"b"), (0, 1, b"c")]


def test_a_delay_that_is_over_stands_where_its_due_time_puts_it(driver: Driver) -> None:
    """Behind what was published before it was due, before what was published after that."""
    session = driver.connect()
    driver.publish(session, "jobs", b"late", properties={"delay_ms": 1000})
    driver.publish(session, "jobs", b"1", b"2")
    driver.pass_time(1500)
    driver.publish(session, "jobs", b"3")
    driver.publish(session, "jobs", b"first", properties={"priority": 1})
    driver.restart()
    session = driver.connect()
    driver.consume(session, "jobs", prefetch=10)
    bodies = [body for _, _, body in delivered(driver.rounds[-1].effects)]
    assert bodies == [b"first", b"1", b"2", b"late", b"3"]


def test_it_cuts_through_a_span_that_waits(driver: Driver) -> None:
    """The tail became one span; a delay that is over goes in the middle of it."""
    session = driver.connect()
    driver.publish(session, "jobs", b"late", properties={"delay_ms": 1000})
    driver.publish(session, "jobs", b"1", b"2")
    driver.pass_time(2000)
    driver.publish(session, "jobs", b"3", b"4")
    driver.publish(session, "jobs", b"later", properties={"delay_ms": 60_000})
    driver.consume(session, "jobs", prefetch=3)
    assert [body for _, _, body in delivered(driver.rounds[-1].effects)] == [b"1", b"2", b"late"]


def test_a_nack_with_a_delay_goes_back_to_its_old_place(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"1")
    driver.publish(session, "jobs", b"2")
    consumer = driver.consume(session, "jobs", prefetch=1)
    said = driver.settle_offsets(session, consumer, 1, (0, 1), delay_ms=1000)
    assert delivered(said) == [(1, 1, b"2")]
    driver.publish(session, "jobs", b"3")
    driver.pass_time(1000)
    said = driver.settle_offsets(session, consumer, 0, (1, 2))
    assert delivered(said) == [(0, 2, b"1")]


def test_what_was_delivered_after_its_delay_waits_for_its_consumer_after_a_restart(
    driver: Driver,
) -> None:
    """The first delivery ends the delay, also on the record."""
    session = driver.connect()
    driver.publish(session, "jobs", b"a", properties={"delay_ms": 1000})
    driver.pass_time(1000)
    driver.consume(session, "jobs", prefetch=1, token=b"t" * 16)
    driver.restart()
    driver.engine.hold_for_resume()
    session = driver.connect()
    driver.consume(session, "jobs", prefetch=1)
    assert delivered(driver.rounds[-1].effects) == []
    assert delivered(driver.pass_time(driver.settings.resume_ms)) == [(0, 2, b"a")]


def test_a_due_time_is_kept(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a", properties={"due_ms": START_MS + 2000})
    driver.consume(session, "jobs", prefetch=10)
    assert delivered(driver.pass_time(1999)) == []
    assert delivered(driver.pass_time(1)) == [(0, 1, b"a")]


def test_a_due_time_that_is_past_delays_nothing(driver: Driver) -> None:
    """Nor does it overtake what was published before it."""
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    driver.pass_time(1000)
    driver.publish(session, "jobs", b"b", properties={"due_ms": START_MS - 1000})
    driver.consume(session, "jobs", prefetch=10)
    assert [body for _, _, body in delivered(driver.rounds[-1].effects)] == [b"a", b"b"]


def delayed_in(driver: Driver, name: str) -> int:
    return int(driver.engine.state.channels[name].subscriptions[""].ranges.counts[DELAYED])


@pytest.mark.parametrize("key_order", [False, True])
def test_what_becomes_due_together_holds_nothing_else_up(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, key_order: bool
) -> None:
    """So much of it is made ready in a round, and others have theirs in between."""
    short_ticks(monkeypatch, driver, 4)
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config={"key_order": key_order})
    if key_order:
        driver.publish(session, "jobs", *[b"x"] * 20, properties={"delay_ms": 1000})
    else:
        for number in range(20):
            driver.publish(session, "jobs", b"x", properties={"delay_ms": 1000 - number})
    driver.publish(session, "other", b"too", properties={"delay_ms": 1000})
    driver.consume(session, "other", prefetch=1)
    driver.advance(1000)
    assert 12 <= delayed_in(driver, "jobs") < 20
    assert [body for _, _, body in delivered(driver.pass_time(2))] == [b"too"]
    assert delayed_in(driver, "jobs") > 0
    driver.pass_time(100)
    assert delayed_in(driver, "jobs") == 0
    driver.consume(session, "jobs", prefetch=100)
    assert len(delivered(driver.said)) == 20


def test_what_becomes_due_together_is_delivered_in_one_order(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it, and nothing behind it, before all of it stands in line."""
    short_ticks(monkeypatch, driver, 4)
    session = driver.connect()
    for number in range(20):
        properties = {"delay_ms": 1000 - number, "priority": number % 2}
        driver.publish(session, "jobs", b"%d" % number, properties=properties)
    driver.consume(session, "jobs", prefetch=100)
    said = driver.advance(1000)
    driver.publish(session, "jobs", b"plain")
    said += [*driver.said, *driver.pass_time(100)]
    order = [*range(19, 0, -2), *range(18, -1, -2), 20]
    assert [offset for offset, _, _ in delivered(said)] == order


def listed(driver: Driver, session: int, count: int, **given: Any) -> list[tuple[int, int, bytes]]:
    """(due_ms, offset, body) of everything that is scheduled, by pages of `count`."""
    found: list[tuple[int, int, bytes]] = []
    start = None
    while True:
        page = driver.call(
            session,
            "scheduled",
            channel=given.get("channel", "jobs"),
            count=count,
            start=start,
            subscription=given.get("subscription"),
        )
        rows = [
            (due_ms, offset, body)
            for due_ms, part in page["scheduled"]
            for offset, _, body in delivered([(0, f.Deliver(0, (part,)))])
        ]
        assert len(rows) == count or page["next"] is None
        found += rows
        start = page["next"]
        if start is None:
            return found


batches_of_delays = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from([0, 1000, 1000, 2000, 7000])), max_size=12
)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(batches_of_delays, st.integers(1, 9), st.sets(st.integers(0, 40)), st.integers(0, 10**6))
def test_what_is_scheduled_is_listed_by_due_time(
    published: list[tuple[int, int]], count: int, cancelled: set[int], cut: int
) -> None:
    driver = Driver()
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue")
    expected, offset = [], 0
    for messages, delay_ms in published:
        bodies = [b"%d" % (offset + n) for n in range(messages)]
        driver.publish(session, "jobs", *bodies, properties={"delay_ms": delay_ms})
        due_ms = driver.now_ms + delay_ms
        expected += [(due_ms, offset + n, body) for n, body in enumerate(bodies) if delay_ms]
        offset += messages
    driver.call(session, "cancel_scheduled", channel="jobs", offsets=row_of(cancelled))
    expected = sorted(row for row in expected if row[1] not in cancelled)
    assert listed(driver, session, count) == expected
    driver.check_replay([cut % (len(driver.journal) + 1)])
    driver.restart(cut % (len(driver.journal) + 1))
    session = driver.connect()
    assert listed(driver, session, count) == expected
    # And so they come.
    driver.pass_time(1)
    driver.consume(session, "jobs", prefetch=1000)
    said = driver.pass_time(10_000)
    assert [(offset, body) for offset, _, body in delivered(said)] == [row[1:] for row in expected]


def test_what_is_moved_comes_at_its_new_time(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"0", b"1", b"2", properties={"delay_ms": 60_000})
    driver.consume(session, "jobs", prefetch=10)
    answer = driver.call(session, "reschedule", channel="jobs", offsets=(1, 2), delay_ms=5000)
    assert answer == {"rescheduled": 1, "not_scheduled": (), "next": None}
    assert delivered(driver.pass_time(4999)) == []
    assert delivered(driver.pass_time(1)) == [(1, 1, b"1")]
    driver.call(session, "reschedule", channel="jobs", offsets=(2, 3), due_ms=START_MS + 100_000)
    assert delivered(driver.pass_time(55_000)) == [(0, 1, b"0")]
    driver.restart()
    session = driver.connect()
    driver.consume(session, "jobs", prefetch=10)
    assert delivered(driver.rounds[-1].effects) == [(0, 2, b"0"), (1, 2, b"1")]
    assert delivered(driver.pass_time(39_999)) == []
    assert delivered(driver.pass_time(1)) == [(2, 1, b"2")]


def test_what_is_moved_into_the_past_comes_at_once_behind_what_waits(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"0", properties={"delay_ms": 60_000})
    driver.pass_time(10)
    driver.publish(session, "jobs", b"1")
    driver.pass_time(10)
    driver.call(session, "reschedule", channel="jobs", offsets=(0, 1), due_ms=1)
    driver.consume(session, "jobs", prefetch=10)
    assert [body for _, _, body in delivered(driver.rounds[-1].effects)] == [b"1", b"0"]


def test_only_what_is_delayed_is_touched(driver: Driver) -> None:
    """Ready, leased, settled and unknown offsets are told, and stay as they are."""
    session = driver.connect()
    driver.publish(session, "jobs", b"0", b"1")
    driver.publish(session, "jobs", b"2", b"3", properties={"delay_ms": 1000})
    driver.publish(session, "jobs", b"4")
    consumer = driver.consume(session, "jobs", prefetch=2)
    driver.settle_offsets(session, consumer, f.Outcome.ACK, (0, 1))
    told = driver.call(session, "reschedule", channel="jobs", offsets=(0, 3, 4, 9))
    assert told == {"rescheduled": 1, "not_scheduled": (0, 2, 4, 9), "next": None}
    told = driver.call(session, "cancel_scheduled", channel="jobs", offsets=(0, 3, 4, 9))
    assert told == {"cancelled": 0, "not_scheduled": (0, 3, 4, 9), "next": None}
    driver.call(session, "cancel_scheduled", channel="jobs", offsets=(3, 4))
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 3
    assert driver.engine.statistics()["cancelled"] == 1


def test_on_a_topic_one_subscription_is_meant_or_all(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic")
    for name in ("a", "b"):
        driver.call(session, "subscribe", channel="news", subscription=name)
    driver.publish(session, "news", b"0", b"1", properties={"delay_ms": 1000})
    told = driver.call(
        session, "cancel_scheduled", channel="news", subscription="a", offsets=(0, 1)
    )
    assert told == {"cancelled": 1, "not_scheduled": (), "next": None}
    row = START_MS + 1000, 1, b"1"
    assert listed(driver, session, 5, channel="news", subscription="a") == [row]
    assert len(listed(driver, session, 5, channel="news", subscription="b")) == 2
    told = driver.call(session, "cancel_scheduled", channel="news", offsets=(0, 3))
    assert told == {"cancelled": 2, "not_scheduled": (2, 3), "next": None}
    assert listed(driver, session, 5, channel="news", subscription="b") == []
    refused = driver.call(session, "scheduled", channel="news")
    assert refused.code == "bad_request"


@pytest.mark.parametrize(
    "given",
    [
        {"offsets": (1,)},
        {"offsets": (3, 2)},
        {"offsets": (0, 1), "due_ms": 5, "delay_ms": 5},
        {"offsets": (0, 1), "due_ms": -1},
        {"offsets": (0, 1), "when": 5},
        {"offsets": (0, 1), "subscription": "a"},
    ],
)
def test_nonsense_is_refused(driver: Driver, given: dict[str, Any]) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"0", properties={"delay_ms": 1000})
    assert driver.call(session, "reschedule", channel="jobs", **given).code in (
        "bad_request",
        "wrong_kind",
    )
    assert driver.call(session, "scheduled", channel="jobs", start=(1,)).code == "bad_request"
    assert driver.call(session, "cancel_scheduled", channel="none", offsets=()).code == (
        "unknown_channel"
    )


@pytest.mark.parametrize("verb", ["reschedule", "cancel_scheduled"])
def test_one_request_goes_so_far_and_says_where_the_next_goes_on(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Each message here is a span; also on a topic, where the subscriptions stand differently."""
    monkeypatch.setattr(delays, "SPANS_MAX", 3)
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config={"retain_count": 100})
    driver.call(session, "subscribe", channel="news", subscription="a")
    for number in range(10):
        if number == 4:
            driver.call(session, "subscribe", channel="news", subscription="b", start="latest")
        driver.publish(session, "news", b"x", properties={"delay_ms": 10_000 + number})
    left, done, missed, calls = (0, 3, 4, 12), 0, [], 0
    while left:
        told = driver.call(session, verb, channel="news", offsets=left)
        done += told["rescheduled" if verb == "reschedule" else "cancelled"]
        missed += told["not_scheduled"]
        calls += 1
        following = told["next"]
        if following is None:
            break
        left = tuple(
            offset
            for first, end in zip(left[::2], left[1::2], strict=True)
            if end > following
            for offset in (max(first, following), end)
        )
    assert (done, missed, calls) == (9, [10, 12], 3)
    driver.check_replay(range(0, len(driver.journal) + 1, 5))
