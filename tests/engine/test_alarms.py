"""Alarms of who has gone, or has an earlier one, are not kept until they would have rung."""

from __future__ import annotations

from telpher.protocol import frames as f

from .driver import Driver


def test_waits_of_clients_that_come_and_go_leave_nothing_behind(driver: Driver) -> None:
    for _ in range(5000):
        session = driver.connect()
        driver.engine.handle(session, f.Consume(1, "jobs", None, {}))
        driver.engine.handle(session, f.Fetch(2, 1, 1, 60_000))
        driver.engine.disconnect(session, orderly=True)
    driver.settle()
    assert len(driver.engine._turn._alarms) <= 1001


def test_a_wait_that_becomes_shorter_and_shorter_has_one_alarm_and_ends_in_time(
    driver: Driver,
) -> None:
    session = driver.connect()
    consumer = driver.consume(session, "jobs")
    for number in range(3000):
        driver.engine.handle(session, f.Fetch(10 + number, consumer, 1, 60_000 - number * 10))
        driver.publish(session, "jobs", b"x")
        driver.settle_offsets(session, consumer, f.Outcome.ACK, (number, number + 1))
    assert len(driver.engine._turn._alarms) <= 1001
    request = driver.request()
    driver.send(session, f.Fetch(request, consumer, 1, 100))
    assert driver.pass_time(99) == []
    assert driver.pass_time(1) == [(session, f.Reply(request, {"count": 0}))]
