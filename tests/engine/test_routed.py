"""Batches that several channels share: stored once, in the journal and in a snapshot, and each
channel's own in every other way."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.engine import publish
from telpher_broker.engine import records as r

from .driver import Driver, Said, delivered, make_batch

CHANNELS = {"a": "queue", "b": "queue", "c": "topic"}
sets = st.lists(st.sampled_from(sorted(CHANNELS)), min_size=1, max_size=3, unique=True)
portions = st.lists(st.tuples(sets, st.integers(1, 3), st.booleans()), min_size=1, max_size=3)


def forwarded(driver: Driver, rows: Any, bodies: Any) -> Said:
    """Store one record that takes batches to several channels."""
    turn = driver.engine._turn
    made = []
    for names, count, has_about in rows:
        batch = make_batch([next(bodies) for _ in range(count)])
        channels = [driver.engine.state.channels[name] for name in names]
        about = {"channel": "elsewhere"} if has_about else None
        made.append(publish.Portion(channels, batch, count, None, about))
    publish.forward(turn, made)
    return driver.settle()


def begun(**options: Any) -> tuple[Driver, int]:
    driver = Driver(**options)
    session = driver.connect()
    for name, kind in CHANNELS.items():
        driver.call(session, "declare", channel=name, kind=kind, config={})
    driver.call(session, "subscribe", channel="c", subscription="s", start="earliest")
    return driver, session


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(portions, min_size=1, max_size=5), st.integers(0, 10**6), st.booleans())
def test_every_channel_gets_its_messages_in_order(rows: Any, cut: int, spilled: bool) -> None:
    driver, session = begun(memory_limit_bytes=100 if spilled else None)
    bodies = iter(b"%d" % number for number in range(1000))
    expected: dict[str, list[bytes]] = {name: [] for name in CHANNELS}
    count = 0
    for one in rows:
        for names, size, _ in one:
            for name in names:
                expected[name] += [b"%d" % number for number in range(count, count + size)]
            count += size
        forwarded(driver, one, bodies)
    driver.check_replay([cut % (len(driver.journal) + 1)])
    driver.restart(cut % (len(driver.journal) + 1))
    session = driver.connect()
    for name in CHANNELS:
        consumer = driver.consume(session, name, "s" if name == "c" else None, prefetch=100)
        found = delivered([e for taken in driver.rounds for e in taken.effects], consumer)
        assert [body for _, _, body in found] == expected[name]
        assert [offset for offset, _, _ in found] == list(range(len(found)))
        driver.settle_offsets(session, consumer, f.Outcome.ACK, (0, len(found)) if found else ())
    assert driver.engine.body_bytes == 0
    driver.check_replay(range(0, len(driver.journal), 3))


def test_a_shared_batch_is_written_once() -> None:
    driver, session = begun()
    body = b"only once in all" * 10
    forwarded(driver, [(["a", "b", "c"], 1, True)], iter([body]))
    assert driver.journal[-1].count(body) == 1
    assert b"".join(driver.engine.freeze()).count(body) == 1
    # The first to have it is not there any more: the next one carries it.
    consumer = driver.consume(session, "a", prefetch=1)
    driver.settle_offsets(session, consumer, f.Outcome.ACK, (0, 1))
    assert b"".join(driver.engine.freeze()).count(body) == 1
    driver.check_replay(range(len(driver.journal)))


def test_a_spilled_shared_batch_is_found_after_its_snapshot() -> None:
    driver, session = begun(memory_limit_bytes=0)
    forwarded(driver, [(["a", "b", "c"], 2, False)], iter([b"x", b"y"]))
    driver.end_snapshot(driver.begin_snapshot())
    for name in ("b", "a"):
        consumer = driver.consume(session, name, prefetch=2)
        found = delivered([e for taken in driver.rounds for e in taken.effects], consumer)
        assert found == [(0, 1, b"x"), (1, 1, b"y")]


def test_what_the_broker_says_of_a_message_is_delivered_and_browsed() -> None:
    driver, session = begun()
    forwarded(driver, [(["a"], 1, True)], iter([b"x"]))
    (browsed,) = driver.call(session, "browse", channel="a")["parts"]
    consumer = driver.consume(session, "a", prefetch=1)
    (told,) = [
        frame.parts[0]
        for taken in driver.rounds
        for _, frame in taken.effects
        if isinstance(frame, f.Deliver) and frame.request == consumer
    ]
    assert told == browsed
    assert told[4] == {"channel": "elsewhere"}


def test_portions_are_picked_in_order() -> None:
    driver, _ = begun()
    channel = driver.engine.state.channels["a"]
    whole = publish.Portion(
        (channel,), make_batch([b"0", b"1", b"2"], keys=("x", None, "z")), 3, None
    )
    some = whole.picked([0, 2], (channel,))
    assert batches.decode(some.batch)[1:3] == ((b"0", b"2"), ("x", "z"))
    assert whole.picked([0, 1, 2], (channel,)).batch is whole.batch


def test_a_routed_record_names_all_its_batches() -> None:
    parts = ((1, None, None, (1, 0, 2, 5), b"first"), (2, None, None, (1, 1), b"firs"))
    record = r.Routed(0, 0, 0, 7, None, 0, parts)
    data = r.encode(record)
    found = [
        (channel, first, data[at : at + 4]) for channel, first, at in r.batches_at(record, data)
    ]
    assert found == [(1, 0, b"firs"), (2, 5, b"firs"), (1, 1, b"firs")]
    assert sorted(r.channels_of(record)) == [1, 1, 2]
    assert msgpack.unpackb(data)[0] == 12
