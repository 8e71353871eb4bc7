"""Priorities, and the option against starvation: waiting raises them."""

from __future__ import annotations

from telpher.protocol import frames as f

from .driver import Driver, delivered

AGING = {"priority_aging_seconds": 1}


def bodies(driver: Driver, session: int, **options: int) -> list[bytes]:
    """What a new consumer gets at once."""
    driver.consume(session, "jobs", prefetch=100, **options)
    return [body for _, _, body in delivered(driver.rounds[-1].effects)]


def test_without_the_option_what_is_urgent_always_goes_first(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"old")
    driver.pass_time(3_600_000)
    driver.publish(session, "jobs", b"urgent", properties={"priority": 1})
    assert bodies(driver, session) == [b"urgent", b"old"]


def test_what_comes_back_keeps_its_priority(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"plain")
    driver.publish(session, "jobs", b"urgent", properties={"priority": 5})
    consumer = driver.consume(session, "jobs", prefetch=1)
    assert delivered(driver.rounds[-1].effects) == [(1, 1, b"urgent")]
    said = driver.settle_offsets(session, consumer, f.Outcome.REQUEUE, (1, 2))
    assert delivered(said) == [(1, 2, b"urgent")]


def test_waiting_raises_by_one_priority_for_each_so_long(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config=AGING)
    driver.publish(session, "jobs", b"0")
    driver.pass_time(2500)
    driver.publish(session, "jobs", b"2", properties={"priority": 2})
    driver.publish(session, "jobs", b"3", properties={"priority": 3})
    driver.publish(session, "jobs", b"new")
    assert bodies(driver, session) == [b"3", b"0", b"2", b"new"]


def test_nothing_starves(driver: Driver) -> None:
    """However much that is urgent comes, what waits goes when it has waited long enough."""
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config=AGING)
    driver.publish(session, "jobs", b"plain")
    consumer = driver.consume(session, "jobs")
    order = []
    for _ in range(20):
        driver.publish(session, "jobs", b"urgent", b"urgent", properties={"priority": 5})
        said = driver.send(session, f.Fetch(driver.request(), consumer, 1, 0))
        order += [body for _, _, body in delivered(said)]
        driver.pass_time(1000)
    # Of the ten that were published before 5 s had passed four had gone.
    assert order.index(b"plain") == 10


def test_one_span_of_many_batches_ages_batch_by_batch(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config=AGING)
    for second in range(6):
        driver.publish(session, "jobs", b"%d" % second)
        driver.pass_time(1000)
    driver.publish(session, "jobs", b"urgent", properties={"priority": 3})
    driver.restart(len(driver.journal) // 2)
    session = driver.connect()
    assert bodies(driver, session) == [b"0", b"1", b"2", b"3", b"urgent", b"4", b"5"]


def test_a_redelivery_counts_from_its_publish(driver: Driver) -> None:
    session = driver.connect()
    driver.call(session, "declare", channel="jobs", kind="queue", config=AGING)
    driver.publish(session, "jobs", b"old")
    consumer = driver.consume(session, "jobs", prefetch=1)
    driver.pass_time(5000)
    driver.publish(session, "jobs", b"urgent", properties={"priority": 3})
    said = driver.settle_offsets(session, consumer, 1, (0, 1))
    assert delivered(said) == [(0, 2, b"old")]


def test_it_may_be_switched_on_and_off_while_messages_wait(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"0")
    driver.pass_time(2000)
    driver.publish(session, "jobs", b"1", properties={"priority": 1})
    for config, first in ((AGING, b"0"), ({"priority_aging_seconds": None}, b"1")):
        driver.call(session, "configure", channel="jobs", config=config)
        consumer = driver.consume(session, "jobs")
        said = driver.send(session, f.Fetch(driver.request(), consumer, 1, 0))
        assert delivered(said)[0][2] == first
        driver.send(session, f.Cancel(driver.request(), consumer))
