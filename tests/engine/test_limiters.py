"""The law of each limiter, both ways: something passes if and only if the law allows it.

Each law is written down here as it is promised, over everything that ever passed, in whole numbers;
the limiters must agree with it at every step, through bursts, pauses and clocks that step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_broker.engine.limits.limiters import (
    EVEN_MS,
    LOG_PARTS,
    FixedWindow,
    LeakyBucket,
    Limiter,
    SlidingWindow,
    TokenBucket,
)

START_MS = 1_700_000_000_123
Passed = list[tuple[int, int]]


@dataclass
class Case:
    """A limiter, its law, and what has passed it."""

    limiter: Limiter
    allows: Callable[[Passed, int, int], bool]
    most: int
    passed: Passed = field(default_factory=list)

    def offer(self, amount: int, now_ms: int) -> int:
        """Let it pass if the limiter allows, or learn for how long it has to wait."""
        wait_ms = self.limiter.wait_ms(amount, now_ms)
        if not wait_ms:
            self.limiter.take(amount, now_ms)
            self.passed.append((now_ms, amount))
        return wait_ms


def since(passed: Passed, begin_ms: int) -> int:
    """How much passed at `begin_ms` and later."""
    return sum(amount for when_ms, amount in passed if when_ms >= begin_ms)


def token_bucket(limit: int, window_ms: int, burst: int) -> Case:
    def allows(passed: Passed, amount: int, now_ms: int) -> bool:
        """Over every span that ends now: no more than the burst and what the rate gives in it."""
        begins = {now_ms, *(when_ms for when_ms, _ in passed)}
        return all(
            (since(passed, begin) + min(amount, burst) - burst) * window_ms
            <= (now_ms - begin) * limit
            for begin in begins
        )

    return Case(TokenBucket(limit, window_ms, burst), allows, burst)


def leaky_bucket(limit: int, window_ms: int, burst: int) -> Case:
    def allows(passed: Passed, amount: int, now_ms: int) -> bool:
        """Over every span that ends now: what passed in it has leaked before this ms is over."""
        return all(
            since(passed, begin) * window_ms < (now_ms + 1 - begin + EVEN_MS) * limit
            for begin in {when_ms for when_ms, _ in passed}
        )

    return Case(LeakyBucket(limit, window_ms), allows, 10**9)


def fixed_window(limit: int, window_ms: int, burst: int) -> Case:
    def allows(passed: Passed, amount: int, now_ms: int) -> bool:
        """From every window to this one: no more than the limit for each of them."""
        this = now_ms // window_ms
        return all(
            since(passed, window * window_ms) + min(amount, limit) <= (this - window + 1) * limit
            for window in {this, *(when_ms // window_ms for when_ms, _ in passed)}
        )

    return Case(FixedWindow(limit, window_ms), allows, limit)


def sliding_window(limit: int, window_ms: int, burst: int) -> Case:
    def allows(passed: Passed, amount: int, now_ms: int) -> bool:
        """In the window that ends now: no more than the limit; what was larger stays for longer."""
        inside = [
            taken
            for when_ms, taken in passed
            if now_ms - when_ms < window_ms * max(-(-taken // limit), 1)
        ]
        return sum(inside) + min(amount, limit) <= limit

    return Case(SlidingWindow(limit, window_ms), allows, limit)


CASES = [token_bucket, leaky_bucket, fixed_window, sliding_window]
STEPS = st.lists(
    st.tuples(st.integers(1, 40), st.one_of(st.integers(0, 5), st.integers(-30, 400))),
    min_size=1,
    max_size=60,
)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    limit=st.integers(1, 30), window_ms=st.integers(1, 700), burst=st.integers(1, 40), steps=STEPS
)
def test_it_passes_if_and_only_if_the_law_allows(
    make: Any, limit: int, window_ms: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    case = make(limit, window_ms, burst)
    told_ms = clock_ms = START_MS
    case.limiter.room(START_MS)
    for amount, step_ms in steps:
        told_ms += step_ms
        # A clock that steps back stands still.
        clock_ms = max(clock_ms, told_ms)
        allowed = case.allows(case.passed, amount, clock_ms)
        wait_ms = case.limiter.wait_ms(amount, told_ms)
        assert (wait_ms == 0) == allowed
        if wait_ms:
            # To the ms: then it would pass, and one before that it would not.
            assert case.allows(case.passed, amount, clock_ms + wait_ms)
            assert not case.allows(case.passed, amount, clock_ms + wait_ms - 1)
        else:
            case.limiter.take(amount, told_ms)
            case.passed.append((clock_ms, amount))


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    limit=st.integers(1, 30), window_ms=st.integers(1, 700), burst=st.integers(1, 40), steps=STEPS
)
def test_its_room_is_what_passes_at_once(
    make: Any, limit: int, window_ms: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    case = make(limit, window_ms, burst)
    now_ms = START_MS
    for amount, step_ms in steps:
        now_ms += max(step_ms, 0)
        case.offer(amount, now_ms)
    room = case.limiter.room(now_ms)
    for _ in range(room):
        assert case.offer(1, now_ms) == 0
    assert case.offer(1, now_ms) > 0


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    limit=st.integers(1, 2000),
    window_ms=st.integers(1, 1000),
    amount=st.integers(1, 300),
    late_ms=st.integers(0, EVEN_MS),
)
def test_who_always_waits_gets_the_whole_rate(
    make: Any, limit: int, window_ms: int, amount: int, late_ms: int
) -> None:
    """Nothing is lost to rounding or to a timer that comes late, however long it goes on."""
    burst = amount + limit * (late_ms + 2)
    case = make(limit, window_ms, burst)
    now_ms = START_MS
    for _ in range(300):
        wait_ms = case.offer(amount, now_ms)
        now_ms += wait_ms + late_ms if wait_ms else 0
    spent_ms = now_ms - START_MS
    got = sum(taken for _, taken in case.passed)
    most = (spent_ms + EVEN_MS + 1) * limit + (max(burst, limit) + amount) * window_ms
    assert got * window_ms <= most
    if make in (token_bucket, leaky_bucket):
        assert got * window_ms >= (spent_ms - late_ms - 1) * limit


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("amount", [1000, 12_345])
def test_what_is_larger_than_ever_fits_passes_and_is_paid_for(make: Any, amount: int) -> None:
    """100 in 1,000 ms, in batches that are larger: the rate is kept over the hours all the same,
    by windows to the whole window."""
    case = make(100, 1000, 100)
    now_ms = START_MS
    for _ in range(50):
        wait_ms = case.offer(amount, now_ms)
        now_ms += wait_ms
        assert not wait_ms or case.offer(amount, now_ms) == 0
    for (before_ms, _), (after_ms, _) in pairwise(case.passed):
        assert abs(after_ms - before_ms - amount * 10) <= 1000
    spent_ms = case.passed[-1][0] - START_MS
    worth_ms = sum(taken for _, taken in case.passed[:-1]) * 10
    assert worth_ms <= spent_ms + 1000
    if make in (token_bucket, leaky_bucket):
        assert worth_ms >= spent_ms - 1000


def test_a_long_sliding_window_remembers_little_and_never_allows_more() -> None:
    """Times are kept to a part of the window: later, so that the promise holds."""
    day_ms = 86_400_000
    limiter = SlidingWindow(10**9, day_ms)
    passed: Passed = []
    now_ms = START_MS
    for number in range(50_000):
        now_ms += 7919 + number % 13
        amount = 300_000 + number % 7
        if not limiter.wait_ms(amount, now_ms):
            limiter.take(amount, now_ms)
            passed.append((now_ms, amount))
    assert len(limiter._leaving) <= LOG_PARTS + 1
    begin = total = 0
    for when_ms, amount in passed:
        total += amount
        while passed[begin][0] <= when_ms - day_ms:
            total -= passed[begin][1]
            begin += 1
        assert total <= 10**9
    # And hardly less: what leaves late is a thousandth.
    days = (passed[-1][0] - passed[0][0]) // day_ms
    assert sum(amount for _, amount in passed) >= days * 10**9 * 99 // 100


def test_an_idle_bucket_gives_no_more_than_its_burst() -> None:
    limiter = TokenBucket(10, 1000, 30)
    assert limiter.room(START_MS) == 30
    limiter.take(30, START_MS)
    assert limiter.room(START_MS + 99) == 0
    assert limiter.room(START_MS + 100) == 1
    assert limiter.room(START_MS + 10**12) == 30
