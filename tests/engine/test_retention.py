"""What a topic keeps, and what its limits take."""

from __future__ import annotations

from telpher.protocol import frames as f

from .driver import Driver, delivered, delivered_bytes

TOKEN = b"t" * 16


def start_of(driver: Driver, session: int) -> int:
    return driver.call(session, "inspect", channel="news")["start"]


def test_leases_that_a_limit_takes_are_told_and_give_credit_back(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config={"limit_count": 2})
    consumer = driver.consume(session, "news", "billing", prefetch=2)
    driver.publish(session, "news", b"a")
    driver.publish(session, "news", b"b")
    request = driver.request()
    batch = driver.engine.state.channels["news"].log.last.batch
    said = driver.send(session, f.Publish(request, "news", None, 0, None, batch))
    assert (session, f.Lost(consumer, (0, 1))) in said
    assert [offset for offset, _, _ in delivered(said)] == [2]


def test_a_consumer_that_is_away_goes_when_a_limit_takes_its_leases(driver: Driver) -> None:
    session, other = driver.connect(), driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config={"limit_count": 1})
    driver.consume(session, "news", "billing", prefetch=2, token=TOKEN)
    driver.publish(session, "news", b"a")
    driver.disconnect(session)
    driver.publish(other, "news", b"b")
    (inspected,) = driver.call(other, "inspect", channel="news")["subscriptions"]
    assert (inspected["consumers"], inspected["missed"], inspected["ready"]) == (0, 1, 1)


def test_what_an_unblocked_reader_has_seen_goes_at_once() -> None:
    driver = Driver(output_bytes_max=1)
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic")
    driver.consume(session, "news", prefetch=1)
    driver.publish(session, "news", b"a")
    seen = delivered_bytes(driver.rounds[-1].effects, session)
    driver.publish(session, "news", b"b")
    assert start_of(driver, session) == 1
    driver.drained(session, seen)
    assert start_of(driver, session) == 2


def test_retention_by_time() -> None:
    driver = Driver()
    session = driver.connect()
    config = {"retain_seconds": 10}
    driver.call(session, "declare", channel="news", kind="topic", config=config)
    for n in range(5):
        driver.publish(session, "news", b"%d" % n)
        driver.pass_time(2000)
    assert start_of(driver, session) == 1
    driver.pass_time(1999)
    assert start_of(driver, session) == 1
    driver.pass_time(1)
    assert start_of(driver, session) == 2
    driver.check_replay(range(len(driver.journal)))


def test_retention_waits_for_a_durable_subscription_and_limits_do_not() -> None:
    driver = Driver()
    session = driver.connect()
    config = {"retain_seconds": 1, "limit_seconds": 60}
    driver.call(session, "declare", channel="news", kind="topic", config=config)
    driver.call(session, "subscribe", channel="news", subscription="billing")
    driver.publish(session, "news", b"a", b"b")
    driver.pass_time(59_999)
    assert start_of(driver, session) == 0
    driver.pass_time(1)
    assert start_of(driver, session) == 2
    (inspected,) = driver.call(session, "inspect", channel="news")["subscriptions"]
    assert (inspected["missed"], inspected["ready"]) == (2, 0)


def test_retention_by_bytes_and_count_is_by_whole_batches() -> None:
    driver = Driver()
    session = driver.connect()
    config = {"retain_count": 5}
    driver.call(session, "declare", channel="news", kind="topic", config=config)
    for _ in range(4):
        driver.publish(session, "news", b"a", b"b", b"c")
    assert start_of(driver, session) == 6
    size = driver.engine.state.channels["news"].log.last and len(
        driver.engine.state.channels["news"].log.last.batch
    )
    config = {"retain_bytes": 2 * size + 1}
    driver.call(session, "delete", channel="news")
    driver.call(session, "declare", channel="news", kind="topic", config=config)
    for _ in range(4):
        driver.publish(session, "news", b"a", b"b", b"c")
    assert start_of(driver, session) == 6


def test_an_ephemeral_reader_that_lags_is_told_what_it_missed() -> None:
    driver = Driver(output_bytes_max=1, ephemeral_backlog_bytes=200)
    session, publisher = driver.connect(), driver.connect()
    driver.call(session, "declare", channel="news", kind="topic")
    consumer = driver.consume(session, "news", prefetch=1)
    driver.publish(publisher, "news", b"a" * 50)
    seen = delivered_bytes(driver.rounds[-1].effects, session)
    for n in range(10):
        driver.publish(publisher, "news", b"%d" % n * 50)
    start = start_of(driver, publisher)
    assert 1 < start < 11
    said = driver.drained(session, seen)
    assert said[0] == (session, f.Missed(consumer, start - 1, 1, start))
    assert [offset for offset, _, _ in delivered(said)] == [start]


def test_settled_batches_are_not_waited_for_to_expire(driver: Driver) -> None:
    """A queue whose messages have a long ttl holds nothing of those that are gone."""
    session = driver.connect()
    consumer = driver.consume(session, "jobs", prefetch=10)
    for n in range(5):
        driver.publish(session, "jobs", b"x", properties={"ttl_ms": 86_400_000})
        driver.settle_offsets(session, consumer, 0, (n, n + 1))
    assert len(driver.engine.state.channels["jobs"].expiring) == 0
    driver.call(session, "declare", channel="news", kind="topic", config={"retain_count": 1})
    for _ in range(5):
        driver.publish(session, "news", b"x", properties={"ttl_ms": 86_400_000})
    assert len(driver.engine.state.channels["news"].expiring) == 1


def test_of_what_was_delivered_its_consumer_counts_what_it_missed() -> None:
    driver = Driver()
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config={"limit_count": 1})
    consumer = driver.consume(session, "news", prefetch=1, acks=True)
    driver.publish(session, "news", b"a")
    request = driver.request()
    batch = driver.engine.state.channels["news"].log.last.batch
    said = driver.send(session, f.Publish(request, "news", None, 0, None, batch))
    assert [type(frame) for _, frame in said] == [f.Confirm, f.Missed, f.Lost, f.Deliver]
    assert said[1] == (session, f.Missed(consumer, 0, 0, 1))


def test_what_only_the_dropped_held_back_goes_too() -> None:
    """A limit takes the one unsettled message: nothing holds the settled ones behind it."""
    driver = Driver()
    session = driver.connect()
    config = {"limit_count": 5, "retain_count": 1}
    driver.call(session, "declare", channel="news", kind="topic", config=config)
    consumer = driver.consume(session, "news", "billing", prefetch=9)
    for n in range(5):
        driver.publish(session, "news", b"%d" % n)
    driver.settle_offsets(session, consumer, 0, (1, 5))
    assert start_of(driver, session) == 0
    driver.publish(session, "news", b"5")
    assert start_of(driver, session) == 5


def test_a_resumed_lease_over_several_batches_is_lost_in_part() -> None:
    driver = Driver()
    session = driver.connect()
    driver.call(session, "declare", channel="news", kind="topic", config={"limit_count": 3})
    driver.consume(session, "news", "billing", prefetch=9, token=TOKEN)
    for n in range(3):
        driver.publish(session, "news", b"%d" % n)
    driver.disconnect(session)
    driver.restart()
    session = driver.connect()
    consumer = driver.consume(session, "news", "billing", prefetch=9, token=TOKEN, held=(0, 3))
    driver.publish(session, "news", b"3")
    lost = [frame for _, frame in driver.rounds[-2].effects if isinstance(frame, f.Lost)]
    assert lost == [f.Lost(consumer, (0, 1))]
    (subscription,) = driver.call(session, "inspect", channel="news")["subscriptions"]
    assert subscription["leased"] == 3
