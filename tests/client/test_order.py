"""Order and fairness through the client, with the real daemon."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
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
async def test_an_exclusive_consumer_is_alone(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(name)
        async with bus.consume(name, exclusive=True):
            with pytest.raises(telpher.ConsumerExclusive, match="has an exclusive consumer"):
                async with bus.consume(name):
                    pass
        async with bus.consume(name):
            with pytest.raises(telpher.ConsumerExclusive, match="has other consumers"):
                async with bus.consume(name, exclusive=True):
                    pass


def test_without_await_an_exclusive_subscriber_is_alone(daemon, name):
    with connect_sync(daemon.url) as bus:
        bus.declare_topic(name)
        with bus.subscribe(name, "billing", exclusive=True):
            with pytest.raises(telpher.ConsumerExclusive):
                bus.subscribe(name, "billing").__enter__()
            with bus.subscribe(name, "mail", exclusive=True):
                pass


@pytest.mark.anyio
async def test_the_next_takes_over_where_one_at_a_time_is_served(daemon, name):
    async with telpher.connect(daemon.url) as bus, telpher.connect(daemon.url) as other:
        await bus.declare(name, single_active=True)
        second = other.consume(name)
        async with bus.consume(name) as first, second:
            await bus.publish(name, b"a")
            assert (await anext(first)).body == b"a"
            await first.leave()
            message = await anext(second)
            assert (message.body, message.attempt) == (b"a", 2)


@pytest.mark.anyio
async def test_each_key_comes_in_order_over_several_consumers(daemon, name):
    seen: dict[str, list[int]] = {}
    done = anyio.Event()

    async def work(bus: telpher.Bus) -> None:
        async with bus.consume(name, prefetch=5) as messages:
            async for message in messages:
                async with message:
                    seen.setdefault(message.key, []).append(int(message.body))
                if sum(map(len, seen.values())) == 300:
                    done.set()

    async with telpher.connect(daemon.url) as bus, telpher.connect(daemon.url) as other:
        await bus.declare(name, key_order=True)
        async with bus.producer(name) as producer:
            for number in range(300):
                await producer.send(b"%d" % number, key=f"key-{number % 7}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, bus)
            tasks.start_soon(work, other)
            await done.wait()
            tasks.cancel_scope.cancel()
    assert seen == {f"key-{key}": list(range(key, 300, 7)) for key in range(7)}


@pytest.mark.anyio
async def test_the_keys_are_told(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(name, key_order=True, key_rate_per_second=0.001)
        for key in ("a", "a", None):
            await bus.publish(name, b"", key=key)
        await bus.fetch(name, max=5)
        first, second = await bus.keys(name)
        assert (first.key, first.ready, first.in_flight, first.next_at) == ("a", 1, 1, None)
        assert (second.key, second.ready, second.in_flight, second.weight) == (None, 0, 1, 1)


def test_the_keys_are_told_without_await(daemon, name):
    with connect_sync(daemon.url) as bus:
        bus.declare_topic(name, key_order=True)
        bus.create_subscription(name, "sub", start="earliest")
        bus.publish(name, b"", key="a")
        (row,) = bus.keys(name, subscription="sub", count=1)
        assert row == ("a", 1, 0, 0, 1, None)
        bus.declare(f"{name}.plain")
        with pytest.raises(telpher.BadRequest, match="has no key order"):
            bus.keys(f"{name}.plain")
