"""Dedup ids, unique keys and fates in the client, and against a real daemon that is killed."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

import telpher
from telpher.identity import as_uniqueness, identified
from telpher.protocol import frames as f
from telpher.protocol.batch import decode
from telpher.sync import connect as connect_sync

from .daemon import Daemon
from .scripted import Opened, Result

NAMES = count(1)
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="telpher-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        yield daemon
        daemon.stop()


@pytest.fixture
def name() -> str:
    """A channel that no other test uses."""
    return f"test.{next(NAMES)}"


async def test_what_travels():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        asked = {"unique": "k", "unique_while": 1.5, "on_conflict": "extend", "dedup_id": "i"}
        result = Result(tasks, lambda: bus.publish("jobs", b"x", headers={"n": 1}, **asked))
        publish = await broker.hear(f.Publish)
        columns = decode(publish.batch)
        assert columns.properties == {"unique": 3, "unique_ms": 1500, "on_conflict": 3}
        assert columns.headers == ({"n": 1, "telpher-dedup-id": "i", "telpher-unique": "k"},)
        await broker.say(f.ConfirmEach(publish.request, 1, (17,), (0,), ()))
        assert await result.get() == ("jobs", 17, "written", True)


async def test_each_caller_of_a_shared_batch_has_its_own_fate():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        first = Result(tasks, lambda: bus.publish("jobs", b"0"))
        publish = await broker.hear(f.Publish)
        others = [
            Result(tasks, lambda n=n: bus.publish("jobs", b"%d" % n, dedup_id=str(n)))
            for n in range(1, 4)
        ]
        await anyio.wait_all_tasks_blocked()
        await broker.say(f.Confirm(publish.request, 0, 1))
        shared = await broker.hear(f.Publish)
        order = [int(body) for body in decode(shared.batch).bodies]
        refused = ((1, "not_unique", "the key is taken"),)
        await broker.say(f.ConfirmEach(shared.request, 1, (0, -1, 1), (0,), refused))
        assert (await first.get()).offset == 0
        assert await others[order[0] - 1].get() == ("jobs", 0, "written", True)
        assert await others[order[2] - 1].get() == ("jobs", 1, "written", False)
        with pytest.raises(telpher.NotUnique, match="taken"):
            await others[order[1] - 1].get()


async def test_a_producer_fails_for_what_was_refused_alone():
    async with Opened() as (bus, broker, _):
        producer = bus.producer("jobs", unique_while="waiting", on_conflict="ignore")
        for n in range(4):
            await producer.send(b"%d" % n, unique=str(n))
        await broker.say(f.Confirm((await broker.hear(f.Publish)).request, 0, 1))
        publish = await broker.hear(f.Publish)
        assert decode(publish.batch).properties == {"unique": 1, "on_conflict": 1}
        refused = ((0, "limit_reached", "full of ids"),)
        await broker.say(f.ConfirmEach(publish.request, 1, (-1, 0, 1), (1,), refused))
        with pytest.raises(telpher.PublishFailed, match="full of ids") as caught:
            await producer.flush()
        assert isinstance(caught.value.reason, telpher.LimitReached)
        assert caught.value.bodies == [b"1"]
        told = producer.statistics()
        assert (told.sent, told.confirmed, told.failed, told.duplicates) == (4, 3, 1, 1)
        await producer.flush()


async def test_a_malformed_fate_breaks_the_connection():
    async with Opened() as (bus, broker, scripted), anyio.create_task_group() as tasks:
        Result(tasks, lambda: bus.publish("jobs", b"0"))
        publish = await broker.hear(f.Publish)
        await broker.say(f.ConfirmEach(publish.request, 1, (-1,), (), ()))
        again = await scripted.accept()
        await again.welcome()
        repeated = await again.hear(f.Publish)
        assert repeated.sequence == publish.sequence
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"unique_while": "waiting"}, ValueError, "go with unique"),
        ({"on_conflict": "ignore"}, ValueError, "go with unique"),
        ({"unique": "k", "unique_while": "running"}, ValueError, "'waiting', 'unsettled', or sec"),
        ({"unique": "k", "unique_while": 0}, ValueError, "may be 0.001"),
        ({"unique": "k", "unique_while": True}, TypeError, "not bool"),
        ({"unique": "k", "on_conflict": "raise"}, ValueError, "'reject', 'ignore', 'replace'"),
        ({"unique": ""}, ValueError, "1 to 256"),
        ({"unique": 7}, TypeError, "use str"),
        ({"dedup_id": "x" * 257}, ValueError, "has 257"),
    ],
)
async def test_a_wrong_argument_names_what_may_be(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    async with Opened() as (bus, _, _):
        with pytest.raises(error, match=text):
            await bus.publish("jobs", b"x", **arguments)


def test_headers_of_the_caller_are_left_alone():
    assert identified(None, None, None) is None
    assert identified({"a": 1}, None, None) == {"a": 1}
    assert as_uniqueness(None, None) == ()


async def test_one_at_a_time_and_once(daemon, name):
    once, single = f"{name}.once", f"{name}.single"
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(once, dedup_seconds=60)
        async with bus.producer(once) as producer:
            for n in range(2500):
                await producer.send(b"%d" % n, dedup_id=str(n % 1000))
        assert producer.statistics().duplicates == 1500
        assert (await bus.inspect(once)).messages == 1000
        await bus.publish(single, b"1", unique="k")
        with pytest.raises(telpher.NotUnique, match="message 0"):
            await bus.publish(single, b"2", unique="k")
        replaced = await bus.publish(single, b"3", unique="k", on_conflict="replace")
        assert (replaced.offset, replaced.duplicate) == (1, False)
        (message,) = await bus.fetch(single, max=10)
        assert message.body == b"3"


def test_the_same_without_await(daemon, name):
    queue, table = f"{name}.queue", f"{name}.table"
    with connect_sync(daemon.url) as bus:
        receipts = [bus.publish(queue, b"1", dedup_id="i") for _ in range(2)]
        assert [receipt.duplicate for receipt in receipts] == [False, True]
        bus.publish(queue, b"2", unique="k", unique_while=60)
        with pytest.raises(telpher.NotUnique):
            bus.publish(queue, b"2", unique="k", unique_while=60)
        with bus.producer(queue, on_conflict="ignore") as producer:
            producer.send(b"3", unique="k")
            producer.send(b"4", dedup_id="i")
            producer.send(b"5", unique="l")
        assert producer.statistics().duplicates == 2
        bus.declare_topic(table, compact=True)
        for n in range(3):
            bus.publish(table, b"%d" % n, key="a")
        found = bus.latest(table, "a")
        assert found is not None
        assert (found.offset, found.body) == (2, b"2")
        bus.publish(table, b"", key="a")
        assert bus.latest(table, "a") is None
        with pytest.raises(telpher.WrongKind, match="compact"):
            bus.latest(queue, "a")


async def test_an_id_is_once_over_kills(daemon, name):
    """Whoever does not know whether a publish arrived, publishes it again: it is there once."""
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(name, dedup_seconds=600)
        for life in range(3):
            async with telpher.connect(daemon.url) as other, other.producer(name) as producer:
                for n in range(1000):
                    await producer.send(b"%d" % n, dedup_id=str(n))
                    if n == 500:
                        await anyio.to_thread.run_sync(daemon.stop, signal.SIGKILL)
                        await anyio.to_thread.run_sync(daemon.start)
            assert producer.statistics().confirmed == 1000, life
        found = []
        while batch := await bus.fetch(name, max=1000):
            found += batch.bodies
            await batch.ack()
        assert found == [b"%d" % n for n in range(1000)]
