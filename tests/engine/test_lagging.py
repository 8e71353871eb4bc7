"""Who reads a topic gets every message in order, or is told what it missed, or is cut off.

The law is checked by random stories: whatever is published, dropped, read and not read, what a
reader was delivered and what it was told that it missed make up all that there was, in order.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import frames as f
from telpher_broker.engine.sessions import Session
from telpher_broker.engine.turn import Turn

from .driver import Driver, Said, delivered, delivered_bytes, make_batch

BACKLOG = 200


def news(session: int, driver: Driver, **config: Any) -> None:
    told = driver.call(session, "declare", channel="news", kind="topic", config=config)
    assert isinstance(told, dict), told


def missed(said: Said) -> list[f.Missed]:
    return [frame for _, frame in said if isinstance(frame, f.Missed)]


def test_what_is_missed_is_told_though_nothing_comes_after_it() -> None:
    """One batch that is larger than all that may be kept: nothing is left to deliver."""
    driver = Driver()
    session, publisher = driver.connect(), driver.connect()
    news(publisher, driver, limit_bytes=100)
    consumer = driver.consume(session, "news", prefetch=0, acks=True)
    driver.publish(publisher, "news", b"x" * 60, b"y" * 60)
    assert missed(driver.said) == [f.Missed(consumer, 2, 0, 2)]


def test_nothing_piles_up_for_who_does_not_read() -> None:
    """Whatever is dropped while its window is closed is one gap when it opens."""
    driver = Driver(output_bytes_max=1, ephemeral_backlog_bytes=BACKLOG)
    session, publisher = driver.connect(), driver.connect()
    news(publisher, driver)
    consumer = driver.consume(session, "news", prefetch=9)
    driver.publish(publisher, "news", b"a")
    outstanding = delivered_bytes(driver.said, session)
    for _ in range(50):
        driver.publish(publisher, "news", b"x" * 60)
        assert missed(driver.said) == []
    start = driver.engine.state.channels["news"].log.start
    said = driver.drained(session, outstanding)
    assert missed(said) == [f.Missed(consumer, start - 1, 1, start)]
    assert driver.engine.statistics()["missed"] == start - 1
    (inspected,) = driver.call(publisher, "inspect", channel="news")["subscriptions"]
    assert inspected["missed"] == start - 1


def test_who_lags_and_does_not_read_is_not_looked_at_in_every_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten thousand of those made a message of any queue take 38 ms."""
    driver = Driver(output_bytes_max=1, ephemeral_backlog_bytes=BACKLOG)
    publisher = driver.connect()
    news(publisher, driver)
    lagging = [driver.connect() for _ in range(20)]
    consumers = [driver.consume(session, "news", prefetch=9) for session in lagging]
    driver.publish(publisher, "news", b"a")
    outstanding = delivered_bytes(driver.said, lagging[0])
    for _ in range(10):
        driver.publish(publisher, "news", b"x" * 60)
    reader = driver.connect()
    driver.consume(reader, "jobs", prefetch=9)
    looked_at: list[Session] = []

    def may_send(turn: Turn, session: Session) -> bool:
        looked_at.append(session)
        return session.window_bytes > 0

    monkeypatch.setattr(Turn, "may_send", may_send)
    for _ in range(3):
        driver.publish(publisher, "jobs", b"y")
        assert driver.drained(reader, delivered_bytes(driver.said, reader)) == []
    assert {session.number for session in looked_at} == {reader}
    start = driver.engine.state.channels["news"].log.start
    for session, consumer in zip(lagging, consumers, strict=True):
        said = driver.drained(session, outstanding)
        assert missed(said) == [f.Missed(consumer, start - 1, 1, start)]


def test_who_reads_again_is_told_though_all_is_gone() -> None:
    driver = Driver(output_bytes_max=1)
    session, publisher = driver.connect(), driver.connect()
    news(publisher, driver, limit_seconds=1)
    consumer = driver.consume(session, "news", prefetch=9)
    driver.publish(publisher, "news", b"a")
    outstanding = delivered_bytes(driver.said, session)
    driver.publish(publisher, "news", b"b", b"c")
    driver.pass_time(2000)
    assert driver.engine.state.channels["news"].log.start == 3
    said = driver.drained(session, outstanding)
    assert said == [(session, f.Missed(consumer, 2, 1, 3))]


def test_one_that_asked_for_it_is_cut_off_before_anything_follows_the_gap() -> None:
    driver = Driver(output_bytes_max=1, ephemeral_backlog_bytes=BACKLOG)
    session, publisher = driver.connect(), driver.connect()
    news(publisher, driver)
    consumer = driver.consume(session, "news", prefetch=9, lagging="close")
    driver.publish(publisher, "news", b"a")
    said: Said = []
    for _ in range(10):
        driver.publish(publisher, "news", b"x" * 60)
        said += driver.said
    (closed,) = [frame for number, frame in said if number == session]
    assert isinstance(closed, f.Closed)
    assert (closed.request, closed.code) == (consumer, "lagged")
    assert closed.text == (
        "1 messages of 'news' between the offsets 1 and 2 were dropped before this consumer had "
        "settled them; consume faster, or keep more"
    )
    assert driver.engine.statistics()["cut_off"] == 1
    assert driver.engine.state.channels["news"].log.start == 11  # nobody needs it any more


def test_consumers_of_a_durable_subscription_are_told_each() -> None:
    driver = Driver()
    ann, bob = driver.connect(), driver.connect()
    news(ann, driver, limit_count=2)
    consumers = [driver.consume(one, "news", "s", prefetch=0) for one in (ann, bob)]
    for _ in range(4):
        driver.publish(ann, "news", b"x")
    told = [(number, frame) for taken in driver.rounds for number, frame in taken.effects]
    for session, consumer in zip((ann, bob), consumers, strict=True):
        mine = [frame for number, frame in told if number == session]
        assert missed(mine_of(session, mine)) == [
            f.Missed(consumer, 1, 0, 1),
            f.Missed(consumer, 1, 1, 2),
        ]


def mine_of(session: int, frames: list[Any]) -> Said:
    return [(session, frame) for frame in frames]


def test_what_was_missed_while_a_connection_was_away_is_told_to_who_comes_back() -> None:
    driver = Driver()
    session, publisher = driver.connect(), driver.connect()
    news(publisher, driver, limit_count=2)
    token = b"t" * 16
    driver.call(publisher, "subscribe", channel="news", subscription="s")
    driver.publish(publisher, "news", b"later")
    driver.publish(publisher, "news", b"first", properties={"priority": 5})
    driver.consume(session, "news", "s", prefetch=1, token=token)
    assert delivered(driver.said) == [(1, 1, b"first")]
    driver.disconnect(session)
    driver.publish(publisher, "news", b"x")
    session = driver.connect()
    consumer = driver.consume(session, "news", "s", prefetch=1, token=token, held=(1, 2))
    assert missed(driver.said) == [f.Missed(consumer, 1, 0, 1)]


@pytest.mark.parametrize("lagging", ["stay", 1, None])
def test_lagging_is_one_of_two_words(driver: Driver, lagging: object) -> None:
    session = driver.connect()
    options = {"prefetch": 1, "lagging": lagging}
    said = driver.send(session, f.Consume(1, "jobs", None, options))
    assert said[0][1].code == "bad_request"  # type: ignore[union-attr]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 4), st.integers(1, 80)),
        st.tuples(st.just("read"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 1500), st.just(0)),
    ),
    max_size=60,
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    STEPS,
    st.sampled_from([{}, {"limit_count": 3}, {"limit_bytes": 150}, {"limit_seconds": 1}]),
    st.lists(st.booleans(), min_size=1, max_size=3),
)
def test_what_was_delivered_and_what_was_missed_make_up_all(
    steps: list[tuple[str, int, int]], config: dict[str, int], closing: list[bool]
) -> None:
    driver = Driver(output_bytes_max=150, ephemeral_backlog_bytes=BACKLOG)
    publisher = driver.connect()
    news(publisher, driver, **config)
    readers = [_Reader(driver, closes) for closes in closing]
    for step, amount, size in steps:
        if step == "publish":
            batch = make_batch([b"x" * size] * amount)
            said = driver.send(publisher, f.Publish(driver.request(), "news", None, 0, None, batch))
        elif step == "wait":
            said = driver.pass_time(amount)
        else:
            reader = readers[amount % len(readers)]
            outstanding, reader.outstanding = reader.outstanding, 0
            said = driver.drained(reader.session, outstanding)
        for reader in readers:
            reader.hear(said)
    for _ in range(200):
        if not any(reader.outstanding for reader in readers):
            break
        for reader in readers:
            outstanding, reader.outstanding = reader.outstanding, 0
            said = driver.drained(reader.session, outstanding)
            for other in readers:
                other.hear(said)
    end = driver.engine.state.channels["news"].log.next
    for reader in readers:
        assert reader.is_cut_off or reader.reached == end
        assert not (reader.is_cut_off and not reader.closes)
        assert not (reader.closes and reader.was_told)


class _Reader:
    """An ephemeral consumer, and how far it has been delivered or told."""

    def __init__(self, driver: Driver, closes: bool) -> None:
        self.session = driver.connect()
        self.closes = closes
        options = {"lagging": "close"} if closes else {}
        self.consumer = driver.consume(self.session, "news", prefetch=5, **options)
        self.reached = self.outstanding = 0
        self.is_cut_off = self.was_told = False

    def hear(self, said: Said) -> None:
        mine = [(number, frame) for number, frame in said if number == self.session]
        self.outstanding += delivered_bytes(mine, self.session)
        for number, frame in mine:
            assert not self.is_cut_off
            if isinstance(frame, f.Missed):
                assert frame.first == self.reached
                assert frame.messages == frame.end - frame.first
                self.reached, self.was_told = frame.end, True
            elif isinstance(frame, f.Closed):
                assert frame.code == "lagged"
                self.is_cut_off = True
            for offset, _, _ in delivered([(number, frame)]):
                assert offset == self.reached
                self.reached += 1
