"""The throttle: nobody is locked out, guessing is slow, and memory is bounded."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_broker import throttle
from telpher_broker.throttle import ADDRESS_SECONDS_MAX, USER_SECONDS_MAX, Throttle

LAWS = settings(deadline=None, derandomize=True, max_examples=100)
ATTEMPTS = st.lists(
    st.tuples(
        st.sampled_from(("10.0.0.1", "10.0.0.2")),
        st.sampled_from(("ann", "bob")),
        st.booleans(),
        st.floats(0, 100),
    ),
    max_size=60,
)


def test_the_first_failures_cost_nothing_and_then_the_wait_doubles() -> None:
    guard = Throttle()
    waits = [guard.charge("10.0.0.1", f"user{number}", 0.0) for number in range(10)]
    assert waits == [0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0]


def test_many_addresses_slow_a_user_down_by_a_second_at_most() -> None:
    guard = Throttle()
    waits = [guard.charge(f"10.0.0.{number}", "ann", 0.0) for number in range(100)]
    assert waits[-1] == USER_SECONDS_MAX
    assert guard.charge("10.1.0.1", "bob", 0.0) == 0.0


def test_failures_are_forgotten() -> None:
    guard = Throttle()
    for _ in range(20):
        guard.charge("10.0.0.1", "ann", 0.0)
    assert guard.charge("10.0.0.1", "ann", 180.0) < guard.charge("10.0.0.1", "ann", 1.0)
    assert guard.charge("10.0.0.1", "ann", 1000.0) == 0.0


def test_who_knows_the_password_is_never_slowed_down() -> None:
    guard = Throttle()
    for _ in range(1000):
        assert guard.charge("10.0.0.1", "ann", 0.0) == 0.0
        guard.acquit("10.0.0.1", "ann", 0.0)
    assert len(guard) == 0


def test_what_is_remembered_is_bounded() -> None:
    guard = Throttle()
    for number in range(throttle.REMEMBERED_MAX * 2):
        guard.charge("10.0.0.1", f"user{number}", 0.0)
    assert len(guard) == throttle.REMEMBERED_MAX
    assert guard.charge("10.0.0.1", "ann", 0.0) == ADDRESS_SECONDS_MAX


@LAWS
@given(ATTEMPTS)
def test_more_failures_never_wait_less_and_no_wait_is_long(attempts) -> None:
    guard, now, waits = Throttle(), 0.0, {}
    for address, user, succeeds, pause in attempts:
        now += pause
        seconds = guard.charge(address, user, now)
        assert 0.0 <= seconds <= ADDRESS_SECONDS_MAX
        again = guard.charge(address, user, now)
        assert again >= seconds
        guard.acquit(address, user, now)
        if succeeds:
            guard.acquit(address, user, now)
        waits[address, user] = seconds
