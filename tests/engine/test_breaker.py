"""The law of the breaker, against a list of every outcome."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_broker.engine.breaker import CLOSED, HALF_OPEN, OPEN, Breaker

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
