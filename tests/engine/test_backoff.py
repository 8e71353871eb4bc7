"""The law of a back-off: bounded, growing as its kind says, and the same whenever it is asked."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_broker.engine.failure.backoff import Backoff, mixed

CALM = settings(deadline=None, derandomize=True, max_examples=300)
policies = st.builds(
    Backoff,
    st.sampled_from(["fixed", "linear", "exponential"]),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 100),
)
places = st.tuples(st.integers(1, 10**6), st.integers(0, 2**62), st.integers(1, 10**6))


@CALM
@given(policies, places)
def test_the_jitter_takes_off_at_most_its_share(
    policy: Backoff, place: tuple[int, int, int]
) -> None:
    whole_ms = policy._replace(jitter_percent=0).delay_ms(*place)
    delay_ms = policy.delay_ms(*place)
    assert delay_ms == policy.delay_ms(*place)
    assert whole_ms - whole_ms * policy.jitter_percent // 100 <= delay_ms <= whole_ms
    assert whole_ms <= policy.most_ms


@CALM
@given(policies, places)
def test_the_wait_never_shrinks_with_the_attempts(
    policy: Backoff, place: tuple[int, int, int]
) -> None:
    channel, offset, attempt = place
    calm = policy._replace(jitter_percent=0)
    assert calm.delay_ms(channel, offset, attempt) <= calm.delay_ms(channel, offset, attempt + 1)


@pytest.mark.parametrize(
    ("kind", "waits"),
    [
        ("fixed", [100, 100, 100, 100]),
        ("linear", [100, 200, 300, 350]),
        ("exponential", [100, 200, 350, 350]),
    ],
)
def test_each_kind_grows_in_its_way(kind: str, waits: list[int]) -> None:
    policy = Backoff(kind, 100, 350)
    assert [policy.delay_ms(1, 0, attempt) for attempt in (1, 2, 3, 4)] == waits


def test_full_jitter_spreads_neighbours_over_the_whole_wait() -> None:
    policy = Backoff("fixed", 1000, 1000, 100)
    tenths = Counter(policy.delay_ms(7, offset, 1) // 100 for offset in range(10_000))
    assert all(850 <= tenths[tenth] <= 1150 for tenth in range(10))


@CALM
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4), st.integers(0, 255))
def test_every_bit_of_every_number_matters(numbers: list[int], bit: int) -> None:
    changed = list(numbers)
    changed[bit // 64 % len(numbers)] ^= 1 << bit % 64
    assert 0 <= mixed(*numbers) < 2**64
    assert mixed(*changed) != mixed(*numbers)
