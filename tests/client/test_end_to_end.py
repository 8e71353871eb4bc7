"""The client and the real daemon, over a Unix socket, in both event loops and without one."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import anyio
import pytest

import telpher
from telpher.sync import connect as connect_sync

from .daemon import Daemon

NAMES = count(1)


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
    return f"test.{next(NAMES)}"


@pytest.mark.anyio
async def test_the_sketch_of_the_design_works(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(name)
        receipt = await bus.publish(
            name, b"one", key="cust-7", headers={"n": 1}, ttl=3600, priority=5, confirm="fsynced"
        )
        assert receipt == (name, 0, "fsynced", False)
        async with bus.producer(name) as producer:
            for n in range(2500):
                await producer.send(b"%d" % n)
            await producer.flush()
        seen = []
        async with bus.consume(name, prefetch=1000) as messages:
            async for message in messages:
                async with message:
                    seen.append(message.body)
                if len(seen) == 2501:
                    break
        assert seen == [b"one"] + [b"%d" % n for n in range(2500)]
        assert (await bus.inspect(name)).messages == 0
        assert len(await bus.fetch(name, wait=0)) == 0


@pytest.mark.anyio
async def test_a_failed_message_comes_again(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(name)
        await bus.publish(name, b"x")
        async with bus.consume(name) as messages:
            message = await anext(messages)
            message.nack()
            again = await anext(messages)
            assert (again.body, again.attempt, again.redelivered) == (b"x", 2, True)
            await again.ack()
        assert (await bus.inspect(name)).subscriptions[0].ready == 0


@pytest.mark.anyio
async def test_pull_leases_until_acked(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(name)
        async with bus.producer(name) as producer:
            await producer.send_many([b"%d" % n for n in range(10)])
        first = await bus.fetch(name, max=4)
        rest = await bus.fetch(name, max=100)
        assert [message.body for message in first] == [b"0", b"1", b"2", b"3"]
        assert len(rest) == 6
        await first.ack()
        rest[0].nack()
        await rest.ack()
        last = await bus.fetch(name, wait=5)
        assert (last.bodies[0], last.attempt, len(last)) == (b"4", 2, 1)
        await last.ack()
        assert (await bus.inspect(name)).messages == 0


@pytest.mark.anyio
async def test_a_topic_reaches_every_subscription(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare_topic(name, retain_count=100)
        await bus.publish(name, b"before")
        async with (
            bus.subscribe(name) as live,
            bus.subscribe(name, name="billing", start="earliest") as billing,
        ):
            await bus.publish(name, b"after")
            assert (await anext(live)).body == b"after"
            for expected in (b"before", b"after"):
                async with await anext(billing) as message:
                    assert message.body == expected
        info = await bus.create_subscription(name, "audit", start=datetime.now(UTC))
        assert (info.name, info.durable) == ("audit", True)
        assert await bus.seek(name, "audit", "earliest") == 0
        assert len(await bus.fetch(name, subscription="audit")) == 2
        await bus.delete_subscription(name, "billing")


@pytest.mark.anyio
async def test_administration(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(name)
        assert (await bus.declare(name)).kind == "queue"
        await bus.publish(name, b"x", key="k")
        (browsed,) = await bus.browse(name)
        assert (browsed.offset, browsed.body, browsed.key) == (0, b"x", "k")
        assert name in [channel.name async for channel in bus.channels("test.")]
        with pytest.raises(telpher.ChannelNotEmpty):
            await bus.delete(name, if_empty=True)
        assert await bus.purge(name) == 1
        assert (await bus.stats())["connections"] >= 1
        assert "records" in await bus.snapshot()
        assert "records" in await bus.rewrite()
        await bus.delete(name)
        with pytest.raises(telpher.UnknownChannel):
            await bus.inspect(name)


@pytest.mark.anyio
async def test_a_killed_daemon_loses_nothing_and_stores_nothing_twice(tmp_path, name):
    with tempfile.TemporaryDirectory(prefix="telpher-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        try:
            async with telpher.connect(daemon.url) as bus:
                await bus.declare(name)
                bodies = [b"%d" % n for n in range(20_000)]
                async with bus.producer(name, batch_messages=100) as producer:
                    await producer.send_many(bodies[:10_000])
                    daemon.stop(signal.SIGKILL)
                    daemon.start()
                    await producer.send_many(bodies[10_000:])
                seen = []
                async with bus.consume(name) as messages:
                    async for batch in messages.batches():
                        seen += batch.bodies
                        batch.ack()
                        if len(seen) >= len(bodies):
                            break
                assert seen == bodies
                assert bus.reconnects == 1
                assert (await bus.inspect(name)).messages == 0
        finally:
            daemon.stop()


@pytest.mark.anyio
async def test_an_ephemeral_subscriber_goes_on_after_a_kill(name):
    with tempfile.TemporaryDirectory(prefix="telpher-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        try:
            async with telpher.connect(daemon.url) as bus:
                await bus.declare_topic(name, retain_count=10)
                async with bus.subscribe(name) as messages:
                    await bus.publish(name, b"before")
                    assert (await anext(messages)).body == b"before"
                    daemon.stop(signal.SIGKILL)
                    daemon.start()
                    await bus.publish(name, b"after")
                    assert (await anext(messages)).body == b"after"
                    assert messages.missed == 0
        finally:
            daemon.stop()


@pytest.mark.anyio
async def test_a_block_left_by_an_exception_gives_its_leases_back_at_once(daemon, name):
    async def hold_and_fail():
        async with telpher.connect(daemon.url) as bus:
            (message,) = await bus.fetch(name)
            assert message.attempt == 1
            raise ValueError("the block's")

    async with telpher.connect(daemon.url) as other:
        await other.publish(name, b"held")
        with pytest.raises(ValueError, match="the block's"):
            await hold_and_fail()
        (message,) = await other.fetch(name, wait=0.9)  # less than resume_ms
        assert message.attempt == 2


def test_the_sync_facade_has_the_same_names(daemon, name):
    with connect_sync(daemon.url) as bus:
        bus.declare(name)
        assert bus.publish(name, b"first", confirm="written").level == "written"
        with bus.producer(name) as producer:
            for n in range(3000):
                producer.send(b"%d" % n, key="k" if n == 7 else None)
            producer.send_many([b"many"] * 5)
            producer.flush()
            assert producer.statistics().confirmed == 3005
        seen = []
        with bus.consume(name) as messages:
            for message in messages:
                with message:
                    seen.append((message.body, message.key))
                if len(seen) == 3006:
                    break
        expected = [b"first", *[b"%d" % n for n in range(3000)], *[b"many"] * 5]
        assert seen == [(body, "k" if body == b"7" else None) for body in expected]
        assert bus.inspect(name).messages == 0
        assert [channel.name for channel in bus.channels(name)] == [name]
        assert "connections" in bus.stats()
        bus.delete(name)
    with pytest.raises(telpher.Closed):
        bus.publish(name, b"")


def test_the_sync_facade_settles(daemon, name):
    with connect_sync(daemon.url) as bus:
        bus.declare(name)
        with bus.producer(name) as producer:
            producer.send_many([b"a", b"b", b"c"])
        batch = bus.fetch(name, max=2)
        batch[0].ack()
        batch[1].nack()
        batch.flush()
        with bus.consume(name) as messages:
            found = next(messages)
            assert (found.body, found.attempt) == (b"b", 2)

            def fail() -> None:
                with found:
                    raise KeyError("bad")

            with pytest.raises(KeyError, match="bad"):
                fail()
            with next(messages) as other:
                assert other.body == b"c"
            messages.flush_acks()
        (subscription,) = bus.inspect(name).subscriptions
        assert (subscription.delayed, subscription.ready, subscription.leased) == (1, 0, 0)


def test_a_message_outlives_its_consumer_but_not_its_lease(daemon, name):
    with connect_sync(daemon.url) as bus:
        bus.declare(name)
        bus.publish(name, b"late")
        with bus.consume(name) as messages:
            late = next(messages)
        with pytest.raises(telpher.Closed):
            late.ack()


def test_the_sync_facade_passes_errors_on(daemon, name):
    with connect_sync(daemon.url) as bus:
        with pytest.raises(telpher.UnknownChannel):
            bus.inspect(name)
        bus.declare(name)
        with pytest.raises(TypeError, match="encode the string"):
            bus.publish(name, "text")
        with pytest.raises(telpher.BadName):
            bus.subscribe("a*")
    with (
        pytest.raises(telpher.CannotConnect),
        connect_sync("telpher://127.0.0.1:1", connect_seconds=0),
    ):
        pytest.fail("nobody listens there")


@pytest.mark.anyio
async def test_a_cancelled_consumer_gives_its_messages_back(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(name)
        await bus.publish(name, b"x")
        with anyio.CancelScope() as scope:
            async with bus.consume(name) as messages:
                async for message in messages:
                    async with message:
                        scope.cancel()
                        await anyio.sleep_forever()
        batch = await bus.fetch(name, wait=5)
        assert batch.bodies[0] == b"x"
        assert batch.attempt > 1
        await batch.ack()
