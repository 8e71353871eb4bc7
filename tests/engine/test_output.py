"""What has been delivered and has not left is bounded, and who reads is not held up by it."""

from __future__ import annotations

from .driver import Driver, delivered, delivered_bytes

TOTAL = 4000
BODY = b"x" * 100
PART_BYTES = 150  # a body with what it takes on its way, and a little more


def stalled(driver: Driver, name: str) -> tuple[int, int]:
    """A consumer that never reads, of a queue of its own that has enough; its session, and the
    bytes that are on their way to it."""
    session = driver.connect()
    for _ in range(30):
        driver.publish(session, name, BODY)
    driver.consume(session, name, prefetch=1000)
    return session, delivered_bytes(driver.said, session)


def test_all_that_is_on_its_way_is_bounded_and_who_reads_gets_everything() -> None:
    driver = Driver(output_bytes_max=1500, output_bytes_total=TOTAL)
    outstanding = dict(stalled(driver, f"stalled-{n}") for n in range(10))
    assert max(outstanding.values()) >= 1500  # who comes first may have its whole window
    assert driver.engine.statistics()["output_bytes"] == sum(outstanding.values())
    assert sum(outstanding.values()) <= TOTAL + len(outstanding) * PART_BYTES
    reader, publisher = driver.connect(), driver.connect()
    consumer = driver.consume(reader, "healthy", prefetch=1000)
    got = 0
    for _ in range(20):
        driver.publish(publisher, "healthy", BODY)
        said = driver.said
        while mine := delivered(said, consumer):
            got += len(mine)
            said = driver.drained(reader, delivered_bytes(said, reader))
    assert got == 20
    for session in outstanding:
        driver.disconnect(session)
    assert driver.engine.statistics()["output_bytes"] == 0


def test_who_was_held_up_for_the_others_goes_on_when_it_has_read() -> None:
    driver = Driver(output_bytes_max=1500, output_bytes_total=TOTAL)
    outstanding = dict(stalled(driver, f"stalled-{n}") for n in range(6))
    last, size = list(outstanding.items())[-1]
    assert 0 < size < 1500
    while size:
        size = delivered_bytes(driver.drained(last, size), last)
    assert not driver.engine.state.channels["stalled-5"].subscriptions[""].has_ready


def test_beyond_the_bound_large_batches_go_out_in_little_pieces() -> None:
    driver = Driver(output_bytes_max=65_536, output_bytes_total=65_536)
    stalling, publisher = driver.connect(), driver.connect()
    driver.publish(publisher, "stalled", b"x" * 70_000)
    driver.consume(stalling, "stalled", prefetch=10)
    reader = driver.connect()
    driver.publish(publisher, "jobs", *[b"y" * 1000] * 100)
    driver.consume(reader, "jobs", prefetch=100)
    size = delivered_bytes(driver.said, reader)
    got = 0
    while size:
        assert size <= 16_384 + PART_BYTES
        got += len(delivered(driver.said))
        size = delivered_bytes(driver.drained(reader, size), reader)
    assert got == 100
