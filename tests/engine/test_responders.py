"""Publishes that need a consumer, and the queues that first use does not make."""

from __future__ import annotations

from .driver import Driver, delivered

NEEDY = {"needs_consumer": 1}


def test_without_a_consumer_it_is_refused(driver: Driver) -> None:
    """Whether the channel is there or not; and it is not made by this."""
    session = driver.connect()
    refused = driver.publish(session, "rpc", b"a", properties=NEEDY)
    assert refused.code == "no_responders"
    assert not driver.engine.state.channels
    driver.publish(session, "rpc", b"waits")
    assert driver.publish(session, "rpc", b"a", properties=NEEDY).code == "no_responders"
    consumer = driver.consume(session, "rpc", prefetch=0)
    assert driver.publish(session, "rpc", b"b", properties=NEEDY).first == 1
    assert driver.publish(session, "rpc", b"c", properties={"needs_consumer": 0}).first == 2
    assert consumer


def test_one_that_is_away_does_not_count(driver: Driver) -> None:
    session, other = driver.connect(), driver.connect()
    driver.publish(session, "rpc", b"a")
    driver.consume(other, "rpc", prefetch=1, token=b"t" * 16)
    driver.disconnect(other)
    assert driver.publish(session, "rpc", b"b", properties=NEEDY).code == "no_responders"


def test_what_was_stored_before_is_confirmed_again(driver: Driver) -> None:
    """The consumer has gone meanwhile; the request has not."""
    session = driver.connect()
    driver.consume(session, "rpc", prefetch=1)
    given = {"properties": NEEDY, "producer": b"p" * 16, "sequence": 1}
    assert driver.publish(session, "rpc", b"a", **given).first == 0
    driver.disconnect(session, orderly=True)
    assert driver.publish(driver.connect(), "rpc", b"a", **given).first == 0


def test_through_an_exchange_one_consumer_is_enough(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare_exchange", exchange="x", kind="fanout")
    for name in ("a", "b"):
        driver.call(session, "declare", channel=name, kind="queue")
        driver.call(session, "bind", exchange="x", target=name)
    assert driver.publish(session, "x", b"1", properties=NEEDY).code == "no_responders"
    driver.consume(session, "b", prefetch=5)
    assert driver.publish(session, "x", b"2", properties=NEEDY).first == 0
    assert [body for _, _, body in delivered(driver.rounds[-1].effects)] == [b"2"]


def test_an_inbox_is_not_made_by_first_use(driver: Driver) -> None:
    """A reply that comes too late must not leave a queue behind."""
    session = driver.connect()
    assert driver.publish(session, "telpher-inbox.a", b"x").code == "unknown_channel"
    driver.call(session, "declare", channel="telpher-inbox.a", kind="queue")
    assert driver.publish(session, "telpher-inbox.a", b"x").first == 0
