"""What is delayed: when it comes, and where it then stands in line."""

from __future__ import annotations

from .driver import START_MS, Driver, delivered


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
