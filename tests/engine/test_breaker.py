"""The law of the breaker, against a list of every outcome; and what it does to deliveries."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import frames as f
from telpher_broker.engine.failure.breaker import CLOSED, HALF_OPEN, OPEN, Breaker

from .driver import Driver, delivered
from .test_dead_letters import nack

steps = st.lists(
    st.one_of(
        st.tuples(st.just("note"), st.booleans(), st.integers(1, 30)),
        st.tuples(st.just("pass"), st.just(False), st.integers(1, 1500)),
        st.tuples(st.just("deliver"), st.just(False), st.integers(1, 30)),
    ),
    max_size=60,
)


class Naive:
    """The definition: every outcome since the state began, in a list."""

    def __init__(self, percent: int, messages: int, open_ms: int) -> None:
        self.percent, self.messages, self.open_ms = percent, messages, open_ms
        self.state = CLOSED
        self.outcomes: list[bool] = []
        self.since_ms = 0

    def note(self, failed: bool, count: int, now_ms: int) -> None:
        if self.state == OPEN:
            return
        self.outcomes += [failed] * count
        window = self.messages if self.state == CLOSED else min(self.messages, 10)
        if len(self.outcomes) < window:
            return
        if sum(self.outcomes[-window:]) * 100 >= self.percent * window:
            self.enter(OPEN, now_ms)
        elif self.state == HALF_OPEN:
            self.enter(CLOSED, now_ms)

    def at(self, now_ms: int) -> None:
        if self.state == OPEN and now_ms >= self.since_ms + self.open_ms:
            self.enter(HALF_OPEN, now_ms)

    def enter(self, state: str, now_ms: int) -> None:
        self.state, self.since_ms, self.outcomes = state, now_ms, []


@settings(deadline=None, derandomize=True, max_examples=400)
@given(st.integers(1, 100), st.integers(1, 40), st.integers(1, 1000), steps)
def test_it_does_as_the_definition_says(
    percent: int, messages: int, open_ms: int, steps: list[tuple[str, bool, int]]
) -> None:
    breaker, naive = Breaker(percent, messages, open_ms), Naive(percent, messages, open_ms)
    now_ms = 1000
    for what, failed, count in steps:
        naive.at(now_ms)
        allowed = breaker.allowance(now_ms)
        assert breaker.state == naive.state
        assert (allowed is None) == (naive.state == CLOSED)
        if what == "note":
            breaker.note(failed, count, now_ms)
            naive.note(failed, count, now_ms)
            assert breaker.state == naive.state
        elif what == "pass":
            now_ms += count
        elif allowed is not None:
            assert 0 <= allowed <= (0 if breaker.state == OPEN else min(messages, 10))
            breaker.grant(min(allowed, count))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(1, 100), st.integers(1, 40), st.integers(1, 1000), steps)
def test_it_always_comes_back(
    percent: int, messages: int, open_ms: int, steps: list[tuple[str, bool, int]]
) -> None:
    """Whatever has happened, what is granted in time and goes well closes it again."""
    breaker = Breaker(percent, messages, open_ms)
    now_ms = 0
    for what, failed, count in steps:
        if what == "note":
            breaker.note(failed, count, now_ms)
        now_ms += count
    for _ in range(1000):
        if breaker.state == CLOSED:
            break
        now_ms += open_ms
        allowed = breaker.allowance(now_ms)
        assert allowed
        breaker.grant(allowed)
        breaker.note(False, allowed, now_ms)
    assert breaker.state == CLOSED


def test_a_thousand_failures_at_once_are_one_opening() -> None:
    breaker = Breaker(50, 100, 1000)
    breaker.note(False, 1000, 0)
    breaker.note(True, 49, 0)
    assert (breaker.state, breaker.failed_percent) == (CLOSED, 49)
    breaker.note(True, 1000, 0)
    assert (breaker.state, breaker.opened, breaker.until_ms) == (OPEN, 1, 1000)


def test_a_trial_without_an_answer_is_granted_again() -> None:
    breaker = Breaker(50, 100, 1000)
    breaker.note(True, 100, 0)
    assert breaker.allowance(999) == 0
    assert breaker.allowance(1000) == 10
    breaker.grant(10)
    assert breaker.allowance(1999) == 0
    assert breaker.allowance(2000) == 10


def broken(driver: Driver, **config: Any) -> tuple[int, int]:
    """A queue of 100 messages, whose breaker has opened by ten failures out of ten."""
    session = driver.connect()
    config = {"breaker_percent": 50, "breaker_messages": 10, "breaker_seconds": 5, **config}
    driver.call(session, "declare", channel="jobs", kind="queue", config=config)
    driver.publish(session, "jobs", *[b"%d" % number for number in range(100)])
    consumer = driver.consume(session, "jobs", prefetch=20)
    nack(driver, session, consumer, (0, 10), error="the database is down")
    return session, consumer


def told(driver: Driver, session: int) -> Any:
    (subscription,) = driver.call(session, "inspect", channel="jobs")["subscriptions"]
    return subscription["breaker"]


def test_an_open_breaker_keeps_the_queue_from_burning(driver: Driver) -> None:
    session, consumer = broken(driver, max_attempts=2, dead_letter="dead")
    assert told(driver, session) == {
        "state": "open",
        "failed_percent": 0,
        "opened": 1,
        "until_ms": driver.now_ms + 5000,
    }
    said = nack(driver, session, consumer, (10, 20), error="the database is down")
    assert delivered(said) == []
    assert delivered(driver.pass_time(4999)) == []
    trial = delivered(driver.pass_time(1))
    assert [(offset, attempt) for offset, attempt, _ in trial] == [(n, 2) for n in range(10)]
    assert driver.call(session, "inspect", channel="jobs")["messages"] == 100
    assert driver.engine.statistics()["breakers_opened"] == 1


def test_a_trial_that_fails_opens_it_again_and_one_that_succeeds_closes_it(driver: Driver) -> None:
    session, consumer = broken(driver)
    driver.settle_offsets(session, consumer, f.Outcome.REQUEUE, (10, 20))
    assert len(delivered(driver.pass_time(5000))) == 10
    nack(driver, session, consumer, (0, 10))
    assert told(driver, session)["opened"] == 2
    assert len(delivered(driver.pass_time(5000))) == 10
    assert told(driver, session)["state"] == "half_open"
    said = driver.settle_offsets(session, consumer, f.Outcome.ACK, (0, 10))
    assert told(driver, session)["state"] == "closed"
    assert len(delivered(said)) == 20


def test_who_pulls_gets_nothing_from_an_open_breaker(driver: Driver) -> None:
    session, _ = broken(driver)
    puller = driver.consume(session, "jobs")
    request = driver.request()
    assert driver.send(session, f.Fetch(request, puller, 5, 0)) == [
        (session, f.Reply(request, {"count": 0}))
    ]


def test_leases_that_end_are_failures_and_what_is_given_back_is_none(driver: Driver) -> None:
    session = driver.connect()
    config = {"breaker_percent": 100, "breaker_messages": 4}
    driver.call(session, "declare", channel="jobs", kind="queue", config=config)
    driver.publish(session, "jobs", *[b"x"] * 10)
    consumer = driver.consume(session, "jobs", prefetch=5, lease_ms=1000)
    driver.settle_offsets(session, consumer, f.Outcome.REQUEUE, (0, 5))
    assert told(driver, session)["state"] == "closed"
    driver.pass_time(1000)
    assert told(driver, session)["state"] == "open"


def test_a_breaker_is_configured_while_the_channel_lives(driver: Driver) -> None:
    session, _ = broken(driver)
    driver.call(session, "configure", channel="jobs", config={"max_attempts": None})
    assert told(driver, session)["state"] == "open", "another option changes nothing of it"
    driver.call(session, "configure", channel="jobs", config={"breaker_percent": 60})
    assert told(driver, session)["state"] == "closed"
    gone = dict.fromkeys(("breaker_percent", "breaker_messages", "breaker_seconds"))
    found = driver.call(session, "configure", channel="jobs", config=gone)
    assert "breaker" not in found["subscriptions"][0]


def test_a_restart_closes_it(driver: Driver) -> None:
    session, _ = broken(driver)
    driver.restart(len(driver.journal))
    session = driver.connect()
    assert told(driver, session)["state"] == "closed"
    driver.check_replay([len(driver.journal) // 2])


def test_an_open_breaker_with_nothing_to_deliver_rings_no_alarm_without_end(driver: Driver) -> None:
    session, consumer = broken(driver)
    driver.settle_offsets(session, consumer, f.Outcome.ACK, (10, 20))
    driver.call(session, "purge", channel="jobs")
    driver.advance(5000)
    alarm_ms = driver.engine.next_alarm_ms()
    assert alarm_ms is None or alarm_ms > driver.now_ms
    driver.publish(session, "jobs", *[b"x"] * 20)
    assert len(delivered(driver.rounds[-1].effects)) == 10, "the trial"
    assert told(driver, session)["state"] == "half_open"
