"""Order and fairness through the client, with the real daemon."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

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
