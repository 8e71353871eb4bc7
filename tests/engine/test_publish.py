"""Publishing: numbers, levels, refusals."""

from __future__ import annotations

import pytest

from telpher.protocol import frames as f
from telpher.protocol.frames import PRODUCER_WINDOW, Call, Confirm, Level, Refused

from .driver import Driver, make_batch

PRODUCER = b"p" * 16


def test_no_batch_inside_the_window_is_stored_twice(driver: Driver) -> None:
    """Also when one came late: what was refused for a full disk, say, and sent again."""
    session = driver.connect()

    def send(sequence: int) -> int | str:
        answer = driver.publish(session, "jobs", b"x", producer=PRODUCER, sequence=sequence)
        return answer.code if isinstance(answer, Refused) else answer.first

    sequences = [1, *range(3, PRODUCER_WINDOW + 2), 2, PRODUCER_WINDOW + 2]
    offsets = {sequence: send(sequence) for sequence in sequences}
    assert sorted(offsets.values()) == list(range(len(sequences)))
    for sequence in sequences:
        assert send(sequence) in (offsets[sequence], "sequence_too_old")
    assert send(PRODUCER_WINDOW) == offsets[PRODUCER_WINDOW]
    driver.check_replay([5, 20])


def test_a_producer_is_remembered_for_as_long_as_it_was_told(driver: Driver) -> None:
    session = driver.connect()
    once = {"producer": b"p" * 16, "sequence": 1}

    def publish_after(ms: int) -> int:
        driver.pass_time(ms)
        driver.engine.tick()
        first: int = driver.publish(session, "jobs", b"a", **once).first
        return first

    assert publish_after(0) == 0
    assert publish_after(driver.settings.producer_expiry_ms - 1) == 0
    assert publish_after(2000) == 1


def test_a_refused_publish_leaves_nothing(driver: Driver) -> None:
    driver = Driver(level_max=Level.WRITTEN)
    session = driver.connect()
    assert driver.publish(session, "a", b"x", confirm=2).code == "durability_unavailable"
    assert driver.publish(session, "b", batch=b"\x90").code == "bad_batch"
    assert driver.publish(session, "c", b"x", producer=b"short", sequence=1).code == "bad_request"
    driver.engine.set_disk_full(True)
    assert driver.publish(session, "d", b"x").code == "disk_full"
    assert driver.journal == []


def test_a_full_disk_still_confirms_what_is_stored(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"x", producer=PRODUCER, sequence=1)
    driver.engine.set_disk_full(True)
    assert driver.publish(session, "jobs", b"y", producer=PRODUCER, sequence=2).code == "disk_full"
    again = driver.publish(session, "jobs", b"x", producer=PRODUCER, sequence=1)
    assert isinstance(again, Confirm)
    driver.engine.set_disk_full(False)
    assert driver.publish(session, "jobs", b"y", producer=PRODUCER, sequence=2).first == 1


@pytest.mark.parametrize("asked", [None, 0, 1, 2])
def test_the_confirm_waits_for_its_level(driver: Driver, asked: int | None) -> None:
    session = driver.connect()
    answer = driver.publish(session, "jobs", b"x", confirm=asked)
    assert answer.level == max(asked or 0, Level.WRITTEN)
    last = driver.rounds[-1]
    assert (len(last.effects), len(last.synced_effects)) == ((0, 1) if asked == 2 else (1, 0))


def test_a_producer_keeps_to_its_channel(driver: Driver) -> None:
    session = driver.connect()
    driver.publish(session, "jobs", b"x", producer=PRODUCER, sequence=1)
    refused = driver.publish(session, "other", b"x", producer=PRODUCER, sequence=2)
    assert refused.code == "bad_request"
    assert "'jobs'" in refused.text
    driver.send(session, Call(90, "delete", {"channel": "jobs"}))
    assert driver.publish(session, "other", b"x", producer=PRODUCER, sequence=2).first == 0


def test_a_batch_that_could_not_be_delivered_is_refused(driver: Driver) -> None:
    session = driver.connect()
    bound = driver.engine.settings.batch_bytes_max
    answer = driver.publish(session, "jobs", *([bytes(1 << 20)] * (bound // (1 << 20))))
    assert answer.code == "batch_too_large"


def test_of_too_many_producers_those_that_published_last_are_remembered() -> None:
    driver = Driver(producers_max=1000)
    session = driver.connect()
    names = [number.to_bytes(16, "big") for number in range(3000)]
    for name in names:
        driver.engine.handle(
            session, f.Publish(driver.request(), "jobs", name, 1, None, make_batch([b"x"]))
        )
        driver.now_ms += 1
        driver.engine.at(driver.now_ms)
    driver.settle()
    driver.publish(session, "jobs", b"again", producer=names[0], sequence=2)
    driver.engine.at(driver.now_ms + 1000)
    driver.engine.tick()
    driver.pass_time(1100)
    known = driver.engine.state.producers
    assert list(known) == [*names[-999:], names[0]]
    again = driver.publish(session, "jobs", b"x", producer=names[-1], sequence=1)
    assert again.first == len(names) - 1
    driver.check_replay([1500, len(driver.journal) - 1])


def test_many_producers_are_forgotten_a_thousand_at_a_time() -> None:
    """Half a million at once were one tick of three seconds, and one record of seven megabytes."""
    driver = Driver(producers_max=100, producer_expiry_ms=60_000)
    session = driver.connect()
    for number in range(3500):
        name = number.to_bytes(16, "big")
        publish = f.Publish(driver.request(), "jobs", name, 1, None, make_batch([b"x"]))
        driver.engine.handle(session, publish)
    driver.settle()
    left = []
    driver.on_round = lambda _: left.append(len(driver.engine.state.producers))
    driver.engine.tick()
    driver.settle()
    driver.pass_time(100)  # nothing else happens
    assert left[:4] == [2500, 1500, 500, 100]
    assert driver.engine.next_alarm_ms() is None
    driver.engine.at(driver.now_ms + 61_000)
    driver.engine.tick()
    assert not driver.engine.state.producers
