"""Partitioned channels through the client, with the real daemon."""

from __future__ import annotations

import tempfile
from collections import defaultdict
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
    return f"parted-{next(NAMES)}"


async def publish(bus: telpher.Bus, name: str, messages: int) -> None:
    async with bus.producer(name) as producer:
        for number in range(messages):
            await producer.send(b"%d" % number, key=f"key-{number % 20}")


@pytest.mark.anyio
async def test_each_key_comes_in_order_while_members_come_and_go(daemon, name):
    seen: dict[str, list[int]] = defaultdict(list)
    done = anyio.Event()

    async def work(bus: telpher.Bus, messages: int) -> None:
        async with bus.consume_partitions(name, prefetch=5) as parts:
            async for message in parts:
                async with message:
                    seen[message.key].append(int(message.body))
                messages -= 1
                if sum(map(len, seen.values())) == 600:
                    done.set()
                if not messages:
                    return

    async with telpher.connect(daemon.url) as bus, telpher.connect(daemon.url) as other:
        await bus.declare_partitioned(name, partitions=6)
        await publish(bus, name, 600)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, bus, 50)
            tasks.start_soon(work, other, 120)
            tasks.start_soon(work, bus, -1)
            tasks.start_soon(work, other, 200)
            await done.wait()
            tasks.cancel_scope.cancel()
    assert sum(map(len, seen.values())) == 600
    for numbers in seen.values():
        assert numbers == sorted(numbers)


@pytest.mark.anyio
async def test_members_share_a_topic_out_and_find_what_is_new(daemon, name):
    async with telpher.connect(daemon.url) as bus, telpher.connect(daemon.url) as other:
        made = await bus.declare_partitioned(name, partitions=2, kind="topic", retain_seconds=60)
        assert (made.kind, made.partitions, made.names) == ("topic", 2, (f"{name}.0", f"{name}.1"))
        one = bus.consume_partitions(name, "group", start="earliest", refresh_seconds=0)
        two = other.consume_partitions(name, "group", start="earliest", refresh_seconds=0)
        async with one, two:
            await bus.declare_partitioned(name, partitions=4, kind="topic", retain_seconds=60)
            await publish(bus, name, 100)
            taken: set[int] = set()
            enough = anyio.Event()

            async def take(parts: telpher.Partitions) -> None:
                async for batch in parts.batches():
                    taken.update(map(int, batch.bodies))
                    batch.ack()
                    if len(taken) == 100:
                        enough.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take, one)
                tasks.start_soon(take, two)
                await enough.wait()
                tasks.cancel_scope.cancel()
            assert len(one.names) == len(two.names) == 4
            assert one.statistics().delivered > 0
            assert two.statistics().delivered > 0
            await one.flush_acks()


@pytest.mark.anyio
async def test_who_has_left_or_lost_a_partition_is_told(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare_partitioned(name, partitions=2)
        parts = bus.consume_partitions(name)
        async with parts:
            await bus.delete(f"{name}.1")
            with pytest.raises(telpher.ChannelDeleted):
                await anext(parts)
        with pytest.raises(telpher.Closed, match="was left"):
            await anext(parts)
        with pytest.raises(telpher.UnknownExchange):
            async with bus.consume_partitions(f"{name}.0"):
                pass
        await bus.declare_partitioned(name, partitions=2)
        with pytest.raises(telpher.ChannelDiffers, match="does not shrink"):
            await bus.declare_partitioned(name, partitions=1)


def test_without_await(daemon, name):
    with connect_sync(daemon.url) as bus:
        bus.declare_partitioned(name, partitions=3)
        assert bus.partitions(name).names == tuple(f"{name}.{number}" for number in range(3))
        taken = []
        with bus.consume_partitions(name) as parts:
            for number in range(40):
                bus.publish(name, b"%d" % number, key=f"key-{number}")
            for message in parts:
                with message:
                    taken.append(int(message.body))
                if len(taken) == 40:
                    break
            parts.flush_acks()
            for number in range(40, 80):
                bus.publish(name, b"%d" % number, key=f"key-{number}")
            for batch in parts.batches():
                taken += map(int, batch.bodies)
                batch.ack()
                if len(taken) == 80:
                    break
            assert len(parts.names) == 3
        assert sorted(taken) == list(range(80))
        assert not any(bus.inspect(part).messages for part in bus.partitions(name).names)
