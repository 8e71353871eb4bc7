"""While memory or disk is short publishes are refused or wait, and all that makes room goes on."""

from __future__ import annotations

from typing import Any

import pytest

from telpher.protocol import frames as f
from telpher_broker.engine.limits.shortage import DISK_FULL, MEMORY_FULL

from .driver import Driver, answer_of, delivered, make_batch

PRODUCER = b"p" * 16


def declare(driver: Driver, session: int, name: str, **config: Any) -> None:
    told = driver.call(session, "declare", channel=name, kind="queue", config=config)
    assert isinstance(told, dict), told


def send(driver: Driver, session: int, channel: str, *bodies: bytes, **given: Any) -> int:
    """Publish without looking at the answer; the request's number."""
    request = driver.request()
    numbers = given.get("producer"), given.get("sequence", 0), given.get("confirm")
    driver.send(session, f.Publish(request, channel, *numbers, make_batch(bodies)))
    return request


def answered(driver: Driver, request: int) -> list[str]:
    """How a request was answered so far, over all rounds: kinds, or codes of refusals."""
    said = [frame for taken in driver.rounds for _, frame in taken.effects + taken.synced_effects]
    answers = [one for one in said if isinstance(one, (f.Confirm, f.Refused))]
    return [
        one.code if isinstance(one, f.Refused) else "confirm"
        for one in answers
        if one.request == request
    ]


@pytest.fixture
def waiting() -> Driver:
    """A broker where publishes wait for the end of a shortage."""
    return Driver(wait_when_full=True)


def test_a_refusal_names_the_channel_the_reason_and_the_next_step(driver: Driver) -> None:
    session = driver.connect()
    driver.engine.set_shortage(MEMORY_FULL, "900 MiB of 800 are in use; let consumers run")
    refused = driver.publish(session, "jobs", b"x")
    assert refused.code == MEMORY_FULL
    assert refused.text == (
        "'jobs' takes no messages now: 900 MiB of 800 are in use; let consumers run"
    )
    assert driver.journal == []
    driver.engine.set_shortage(MEMORY_FULL, None)
    assert isinstance(driver.publish(session, "jobs", b"x"), f.Confirm)


@pytest.mark.parametrize("code", [MEMORY_FULL, DISK_FULL])
def test_consuming_settling_and_deleting_go_on(driver: Driver, code: str) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"a", b"b")
    driver.engine.set_shortage(code, "short")
    consumer = driver.consume(session, "jobs", prefetch=2)
    driver.settle_offsets(session, consumer, f.Outcome.ACK, (0, 1))
    driver.settle_offsets(session, consumer, f.Outcome.REQUEUE, (1, 2))
    assert driver.engine.statistics()["acked"] == 1
    assert driver.call(session, "delete", channel="jobs") == {}


def test_a_batch_that_is_stored_is_confirmed_all_the_same(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"x", producer=PRODUCER, sequence=1)
    driver.engine.set_shortage(MEMORY_FULL, "short")
    assert isinstance(
        driver.publish(session, "jobs", b"x", producer=PRODUCER, sequence=1), f.Confirm
    )


def test_who_waits_is_answered_in_order_when_all_shortages_are_over(waiting: Driver) -> None:
    driver = waiting
    session = driver.connect()
    driver.engine.set_shortage(MEMORY_FULL, "short")
    driver.engine.set_shortage(DISK_FULL, "short")
    requests = [send(driver, session, "jobs", body) for body in (b"a", b"b", b"c")]
    driver.engine.set_shortage(MEMORY_FULL, None)
    driver.settle()
    assert [answered(driver, request) for request in requests] == [[], [], []]
    assert driver.engine.statistics()["waiting_publishes"] == 3
    driver.engine.set_shortage(DISK_FULL, None)
    assert not driver.engine.is_idle
    said = driver.settle()
    assert [frame.request for _, frame in said] == requests
    consumer = driver.consume(session, "jobs", prefetch=9)
    assert [body for _, _, body in delivered(driver.said, consumer)] == [b"a", b"b", b"c"]


def test_nobody_passes_who_has_waited(waiting: Driver) -> None:
    """The shortage ends, and before the next round another publish to the channel arrives."""
    driver = waiting
    ann, bob = driver.connect(), driver.connect()
    driver.engine.set_shortage(MEMORY_FULL, "short")
    send(driver, ann, "jobs", b"first")
    driver.engine.set_shortage(MEMORY_FULL, None)
    send(driver, bob, "jobs", b"second")
    consumer = driver.consume(ann, "jobs", prefetch=9)
    assert [body for _, _, body in delivered(driver.said, consumer)] == [b"first", b"second"]


def test_what_waits_for_room_goes_on_to_wait_for_the_shortage(waiting: Driver) -> None:
    driver = waiting
    session = driver.connect()
    declare(driver, session, "jobs", limit_count=1, overflow="wait")
    driver.publish(session, "jobs", b"a")
    request = send(driver, session, "jobs", b"b")
    consumer = driver.consume(session, "jobs", prefetch=9)
    driver.engine.set_shortage(MEMORY_FULL, "short")
    driver.settle_offsets(session, consumer, f.Outcome.ACK, (0, 1))
    assert answered(driver, request) == []
    driver.engine.set_shortage(MEMORY_FULL, None)
    driver.settle()
    assert answered(driver, request) == ["confirm"]


def test_where_publishes_are_refused_those_that_wait_are_too(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, "jobs", limit_count=1, overflow="wait")
    driver.publish(session, "jobs", b"a")
    request = send(driver, session, "jobs", b"b")
    driver.engine.set_shortage(MEMORY_FULL, "short")
    driver.settle()
    assert answered(driver, request) == [MEMORY_FULL]
    assert driver.engine.statistics()["waiting_bytes"] == 0


def test_what_waits_is_bounded_and_then_refused() -> None:
    driver = Driver(wait_when_full=True, waiting_bytes_max=600)
    session = driver.connect()
    driver.engine.set_shortage(MEMORY_FULL, "short")
    requests = [send(driver, session, "jobs", b"x" * 50) for _ in range(2)]
    assert [answered(driver, request) for request in requests] == [[], ["limit_reached"]]


def test_a_lost_connection_takes_what_it_had_waiting_with_it(waiting: Driver) -> None:
    driver = waiting
    session = driver.connect()
    driver.engine.set_shortage(MEMORY_FULL, "short")
    send(driver, session, "jobs", b"x")
    driver.disconnect(session)
    driver.engine.set_shortage(MEMORY_FULL, None)
    driver.settle()
    assert "jobs" not in driver.engine.state.channels
    assert driver.engine.statistics()["waiting_bytes"] == 0


def test_a_transaction_does_not_wait(waiting: Driver) -> None:
    driver = waiting
    session = driver.connect()
    driver.engine.set_shortage(MEMORY_FULL, "short")
    request = driver.request()
    batch = make_batch([b"x"])
    said = driver.send(session, f.Transact(request, PRODUCER, 1, None, (), (("jobs", batch),)))
    assert answer_of(said, session, request).code == MEMORY_FULL


@pytest.mark.parametrize("code", [MEMORY_FULL, DISK_FULL])
def test_a_transaction_behind_what_has_waited_is_told_what_that_has_waited_for(
    waiting: Driver, code: str
) -> None:
    driver = waiting
    session = driver.connect()
    driver.engine.set_shortage(code, "short")
    send(driver, session, "jobs", b"a")
    driver.engine.set_shortage(code, None)
    request, batch = driver.request(), make_batch([b"x"])
    said = driver.send(session, f.Transact(request, PRODUCER, 1, None, (), (("jobs", batch),)))
    assert answer_of(said, session, request).code == code


def test_a_schedule_comes_late_and_a_dead_letter_in_time(driver: Driver) -> None:
    session = driver.connect()
    declare(driver, session, "dead")
    declare(driver, session, "jobs", dead_letter="dead")
    driver.publish(session, "jobs", b"bad")
    batch = make_batch([b"tick"])
    given = {"schedule": "s", "channel": "out", "expression": "250", "batch": batch}
    assert driver.call(session, "set_schedule", **given)["name"] == "s"
    driver.engine.set_shortage(MEMORY_FULL, "short")
    consumer = driver.consume(session, "jobs", prefetch=1)
    nack = f.Nack(driver.request(), consumer, (0, 1), {"dead_letter": True})
    driver.send(session, nack)
    assert driver.engine.state.channels["dead"].log.next == 1
    driver.pass_time(1000)
    assert driver.engine.statistics()["schedules_fired"] == 0
    driver.engine.set_shortage(MEMORY_FULL, None)
    driver.pass_time(1000)
    assert driver.engine.statistics()["schedules_fired"] > 4
