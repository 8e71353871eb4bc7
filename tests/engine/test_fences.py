"""Fencing tokens: of two leases of a message the later has the greater number, whatever happens
in between; so whoever writes by a lease can be told from one who has lost it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import frames as f

from .driver import Driver
from .test_dead_letters import nack


def fences(driver: Driver, consumer: int) -> list[tuple[int, int]]:
    """(first offset, number) of every delivery to a consumer, in order."""
    return [
        (part[0], part[4]["fence"])
        for taken in driver.rounds
        for _, frame in taken.effects
        if isinstance(frame, f.Deliver) and frame.request == consumer
        for part in frame.parts
    ]


class Store:
    """What a handler writes to: it refuses a number below one that it has seen."""

    def __init__(self) -> None:
        self.greatest: dict[int, int] = {}

    def write(self, offset: int, fence: int) -> bool:
        if fence < self.greatest.get(offset, 0):
            return False
        self.greatest[offset] = fence
        return True


def test_a_stale_holder_is_told_apart(driver: Driver) -> None:
    store = Store()
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    slow = driver.consume(session, "jobs", prefetch=1, lease_ms=1000, fence=True)
    ((_, stale),) = fences(driver, slow)
    other = driver.connect()
    driver.send(session, f.Fetch(driver.request(), slow, 1, 0))
    quick = driver.consume(other, "jobs", prefetch=1, lease_ms=1000, fence=True)
    driver.pass_time(1000)
    driver.disconnect(session, orderly=True)
    ((_, fresh),) = fences(driver, quick)[-1:]
    assert fresh > stale
    assert store.write(0, fresh)
    assert not store.write(0, stale)


def test_only_who_asks_is_told(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a")
    consumer = driver.consume(session, "jobs", prefetch=1)
    (part,) = [
        part
        for taken in driver.rounds
        for _, frame in taken.effects
        if isinstance(frame, f.Deliver) and frame.request == consumer
        for part in frame.parts
    ]
    assert len(part) == 4
    assert driver.engine.state.run == 0


steps = st.lists(
    st.sampled_from(["publish", "nack", "lease", "cut", "restart", "snapshot", "consume"]),
    max_size=25,
)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(steps, st.floats(0, 1))
def test_numbers_grow_whatever_happens(steps: list[str], at: float) -> None:
    driver = Driver()
    seen: list[tuple[int, int]] = []

    def joined() -> tuple[int, int]:
        session = driver.connect()
        return session, driver.consume(session, "jobs", prefetch=2, lease_ms=1000, fence=True)

    def gather(consumer: int) -> None:
        nonlocal seen
        seen += fences(driver, consumer)
        driver.rounds.clear()

    session, consumer = joined()
    for step in steps:
        if step == "publish":
            driver.publish(session, "jobs", b"x", b"y")
        elif step == "nack":
            held = driver.engine.state.sessions[session].consumers[consumer].leases
            row: Any = f.flatten(sorted((span.first, span.end) for span in held.values()))
            nack(driver, session, consumer, row)
        elif step == "lease":
            driver.pass_time(1000)
        elif step == "consume":
            gather(consumer)
            session, consumer = joined()
        else:
            gather(consumer)
            if step == "cut":
                driver.disconnect(session)
            else:
                driver.restart(int(at * len(driver.journal)) if step == "snapshot" else 0)
            session, consumer = joined()
        gather(consumer)
    numbers = [number for _, number in seen]
    assert numbers == sorted(set(numbers))
    driver.check_replay([int(at * len(driver.journal))])
