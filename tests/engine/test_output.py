"""What has been delivered and has not left is bounded, and who reads is not held up by it."""

from __future__ import annotations

from typing import Any

import pytest

from telpher_broker.engine import dispatch

from .driver import Driver, delivered, delivered_bytes, make_batch

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


LARGE = 20_000


def crowd(driver: Driver, size: int, **config: Any) -> list[tuple[int, int]]:
    """So many who never read, and a large message for each in the queue `jobs`: each of them with
    what it was delivered."""
    publisher = driver.connect()
    driver.call(publisher, "declare", channel="jobs", kind="queue", config=config)
    batch = make_batch([b"x" * LARGE] * size, keys=tuple(f"key-{n}" for n in range(size)))
    driver.publish(publisher, "jobs", batch=batch)
    sessions = [driver.connect() for _ in range(size)]
    got: list[tuple[int, int]] = []
    for session in sessions:
        driver.consume(session, "jobs", prefetch=1)
        got.append((session, delivered_bytes(driver.said, session)))
    return got


@pytest.mark.parametrize("config", [{}, {"key_order": True}])
def test_beyond_the_bound_large_messages_wait_for_room_and_go_on_when_there_is(
    config: dict[str, Any],
) -> None:
    total = 4 * LARGE
    driver = Driver(output_bytes_max=LARGE, output_bytes_total=total)
    had = crowd(driver, 20, **config)
    assert total <= driver.engine.statistics()["output_bytes"] <= total + LARGE + PART_BYTES
    assert sum(bool(size) for _, size in had) == 4
    # Whoever reads makes room for one of those that wait, and for no more.
    reading = [(session, size) for session, size in had if size]
    for number in range(4, 20):
        session, size = reading.pop(0)
        said = driver.drained(session, size)
        assert [offset for offset, _, _ in delivered(said)] == [number]
        reading += [(other, size) for other, _ in had if (size := delivered_bytes(said, other))]
        assert driver.engine.statistics()["output_bytes"] <= total + LARGE + PART_BYTES


def test_of_a_batch_of_little_and_large_messages_the_large_ones_wait() -> None:
    for config in ({}, {"key_order": True}):
        driver = Driver(output_bytes_max=LARGE, output_bytes_total=LARGE)
        ((stalled_session, size),) = crowd(driver, 1, **config)
        reader = driver.connect()
        consumer = driver.consume(reader, "jobs", prefetch=100)
        bodies = [b"a", b"b", b"c" * LARGE, *[b"d"] * 20]
        driver.publish(reader, "jobs", *bodies)
        got: list[bytes] = []
        while mine := delivered(driver.said, consumer):
            got += [body[:1] for _, _, body in mine]
            driver.drained(reader, delivered_bytes(driver.said, reader))
        assert got == [b"a", b"b"]
        said = driver.drained(stalled_session, size)
        assert delivered(said, consumer)[0][2][:1] == b"c"


def test_what_waits_for_room_has_its_turn_before_others_take_the_room_again() -> None:
    driver = Driver(output_bytes_max=LARGE, output_bytes_total=LARGE)
    publisher = driver.connect()
    sessions = {}
    for name in ("first", "second", "third"):
        sessions[name] = driver.connect()
        driver.publish(publisher, name, b"x" * LARGE)
        driver.publish(publisher, name, b"y" * LARGE)
        driver.consume(sessions[name], name, prefetch=10)
    for name in ("first", "second", "third") * 2:
        outstanding = size_of_window(driver, sessions[name])
        assert outstanding > LARGE  # it is its turn
        driver.drained(sessions[name], outstanding)
    assert driver.engine.statistics()["output_bytes"] == 0


def size_of_window(driver: Driver, session: int) -> int:
    """What is on its way to a session."""
    most = driver.settings.output_bytes_max
    return most - driver.engine.state.sessions[session].window_bytes


def test_what_waits_for_room_and_goes_meanwhile_holds_up_nobody_behind_it() -> None:
    driver = Driver(output_bytes_max=LARGE, output_bytes_total=LARGE)
    publisher = driver.connect()
    sessions = {}
    for name in ("stalled", "gone", "behind"):
        sessions[name] = driver.connect()
        driver.publish(publisher, name, b"x" * LARGE)
        driver.consume(sessions[name], name, prefetch=10)
    before_ms = driver.now_ms
    assert driver.engine.output_excess(before_ms - 1) == 0
    assert driver.engine.output_excess(before_ms) > 0
    driver.call(publisher, "purge", channel="gone")
    assert driver.engine.output_excess(before_ms) > 0
    said = driver.drained(sessions["stalled"], size_of_window(driver, sessions["stalled"]))
    assert delivered_bytes(said, sessions["behind"]) > LARGE
    assert driver.engine.output_excess(driver.now_ms) == 0


def test_a_round_delivers_so_many_parts(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Single messages are little to send and much to do: others have their turn in between."""
    monkeypatch.setattr(dispatch, "ROUND_PARTS", 4)
    session = driver.connect()
    for _ in range(10):
        driver.publish(session, "jobs", b"x")
    before = len(driver.rounds)
    driver.consume(session, "jobs", prefetch=100)
    assert [len(delivered(taken.effects)) for taken in driver.rounds[before:]] == [4, 4, 2]
