"""Due times and schedules from a program: with await in both event loops, and without."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

import telpher
from telpher.admin.delays import Changed, offsets_value
from telpher.sync import connect as connect_sync

from .daemon import Daemon

NAMES = count(1)
TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A running daemon for all tests of this module."""
    with tempfile.TemporaryDirectory(prefix="telpher-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        yield daemon
        daemon.stop()


@pytest.fixture
def name() -> str:
    """A channel that no other test uses."""
    return f"later.{next(NAMES)}"


@pytest.mark.anyio
async def test_what_is_scheduled_is_listed_moved_and_cancelled(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        first = await bus.publish(name, b"a", key="k", headers={"n": 1}, due=TOMORROW)
        async with bus.producer(name, delay=3600) as producer:
            await producer.send_many([b"%d" % n for n in range(2500)])
        found = await bus.scheduled(name).all()
        assert [message.offset for message in found] == [*range(1, 2501), 0]
        last = found[-1]
        assert (last.body, last.key, last.headers, last.attempt) == (b"a", "k", {"n": 1}, 1)
        assert last.due_at == pytest.approx(TOMORROW.timestamp(), abs=0.001)
        moved = await bus.reschedule(name, [range(5, 10), 7, 10], due=TOMORROW + timedelta(hours=1))
        assert moved == Changed(6, ())
        assert [m.offset async for m in bus.scheduled(name)][-6:] == [5, 6, 7, 8, 9, 10]
        done = await bus.cancel_scheduled(name, range(1, 2502))
        assert done == Changed(2500, (range(2501, 2502),))
        assert (await bus.reschedule(name, first.offset, delay=0)).messages == 1
        async with bus.consume(name) as messages:
            assert (await anext(messages)).body == b"a"
        assert await bus.cancel_scheduled(name, first.offset) == Changed(0, (range(1),))


@pytest.mark.anyio
async def test_a_time_needs_a_zone(daemon, name):
    naive = datetime(2030, 1, 1)
    async with telpher.connect(daemon.url) as bus:
        with pytest.raises(ValueError, match="time zone"):
            await bus.publish(name, b"a", due=naive)
        with pytest.raises(TypeError, match="datetime"):
            await bus.publish(name, b"a", due=5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="either"):
            await bus.publish(name, b"a", due=TOMORROW, delay=5)
        with pytest.raises(ValueError, match="give delay"):
            await bus.reschedule(name, 1)
        with pytest.raises(ValueError, match="0 or more"):
            await bus.cancel_scheduled(name, -1)


@pytest.mark.anyio
async def test_a_schedule_from_first_to_last(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        made = await bus.set_schedule(
            name, "* * * * * *", name, b"tick", key="k", headers={"a": 1}, catch_up="once"
        )
        assert (made.expression, made.timezone, made.fired) == ("* * * * * *", "UTC", 0)
        assert (made.body, made.key, made.headers) == (b"tick", "k", {"a": 1})
        async with bus.consume(name) as messages:
            message = await anext(messages)
            assert (message.body, message.key) == (b"tick", "k")
            assert message.about["schedule"] == name
            assert message.about["scheduled_ms"] % 1000 == 0
            await message.ack()
        told = await bus.schedule(name, count=3)
        assert told.fired >= 1
        assert told.fired_at is not None
        assert [b - a for a, b in zip(told.times, told.times[1:], strict=False)] == [1, 1]
        assert told["catch_up"] == "once"
        assert (await bus.pause_schedule(name)).due_at is None
        assert (await bus.resume_schedule(name)).due_at is not None
        assert name in [one.name async for one in bus.schedules("later.")]
        await bus.delete_schedule(name)
        with pytest.raises(telpher.UnknownSchedule):
            await bus.schedule(name)
        with pytest.raises(telpher.BadRequest, match="bad minute"):
            await bus.set_schedule(name, "77 * * * *", name, b"tick")


@pytest.mark.anyio
async def test_the_broker_knows_the_calendar(daemon):
    """The last Sunday of March: there is no 02:30 in Berlin."""
    after = datetime(2026, 3, 28, 12, tzinfo=UTC)
    async with telpher.connect(daemon.url) as bus:
        times = await bus.next_times("30 2 * * *", timezone="Europe/Berlin", count=2, after=after)
    assert [datetime.fromtimestamp(time, UTC).isoformat() for time in times] == [
        "2026-03-29T01:00:00+00:00",
        "2026-03-30T00:30:00+00:00",
    ]


def test_without_await(daemon, name):
    with connect_sync(daemon.url) as bus:
        receipt = bus.publish(name, b"a", due=TOMORROW)
        with bus.producer(name, due=TOMORROW) as producer:
            producer.send(b"b")
        assert [message.body for message in bus.scheduled(name)] == [b"a", b"b"]
        assert bus.reschedule(name, receipt.offset, delay=7200).messages == 1
        assert [message.body for message in bus.scheduled(name)] == [b"a", b"b"]
        assert bus.cancel_scheduled(name, [0, 1, 2]) == Changed(2, (range(2, 3),))
        bus.set_schedule(name, "@yearly", name, b"x", timezone="Asia/Tokyo", paused=True)
        assert [one.paused for one in bus.schedules(name)] == [True]
        assert bus.resume_schedule(name).due_at is not None
        assert bus.pause_schedule(name).due_at is None
        assert bus.schedule(name).times == ()
        assert len(bus.next_times("@daily", count=3)) == 3
        bus.delete_schedule(name)
        assert bus.schedules(name) == []


def test_offsets_as_they_travel():
    assert offsets_value([]) == ()
    assert offsets_value(range(5, 5)) == ()
    assert offsets_value(range(0, 6, 2)) == (0, 1, 2, 3, 4, 5)
    assert offsets_value([range(8, 10), 3, range(4, 9)]) == (3, 10)


@pytest.mark.anyio
async def test_many_are_moved_and_cancelled_request_by_request(daemon, name):
    """The broker goes only so far at a time; the client asks until all is done."""
    async with telpher.connect(daemon.url) as bus:
        async with bus.producer(name, delay=3600) as producer:
            await producer.send_many([b"x"] * 5000)
        assert (await bus.cancel_scheduled(name, range(0, 5000, 2))).messages == 2500
        done = await bus.reschedule(name, range(4000, 5002), due=TOMORROW)
        assert (done.messages, len(done.not_scheduled)) == (500, 501)
        assert done.not_scheduled[-1] == range(5000, 5002)
        done = await bus.cancel_scheduled(name, range(5000))
        assert (done.messages, len(done.not_scheduled)) == (2500, 2500)
        assert await bus.scheduled(name).all() == []
