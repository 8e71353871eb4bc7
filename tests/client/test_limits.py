"""Publishers that wait for room or a quota, with a real daemon that is killed or stops."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import telpher
from telpher.errors import QuotaExceeded
from telpher.sync import connect as connect_sync

from .daemon import Daemon


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A running daemon of this test's own."""
    with tempfile.TemporaryDirectory(prefix="telpher-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        yield daemon
        daemon.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_who_waits_for_room_is_stored_once_and_in_order_over_a_restart(daemon, number):
    bodies = [b"%d" % n for n in range(400)]
    seen: list[bytes] = []
    async with telpher.connect(daemon.url) as bus:
        await bus.declare("jobs", limit_count=50, overflow="wait")

        async def produce() -> None:
            async with bus.producer("jobs", batch_messages=10) as producer:
                for body in bodies:
                    await producer.send(body)

        async def consume() -> None:
            async with bus.consume("jobs", prefetch=20) as messages:
                async for message in messages:
                    if not message.redelivered:
                        seen.append(message.body)
                    await message.ack()
                    if message.body == bodies[-1]:
                        return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(produce)
            with anyio.fail_after(30):
                while True:
                    if (await bus.stats())["engine"]["waiting_publishes"]:
                        break
                    await anyio.sleep(0.01)
            # In a thread: here is the client, which the broker waits for when it stops in order.
            await anyio.to_thread.run_sync(daemon.stop, number)
            daemon.start()
            with anyio.fail_after(60):
                await consume()
        assert seen == bodies
        assert (await bus.inspect("jobs")).messages == 0


@pytest.mark.anyio
async def test_a_quota_paces_a_producer_and_is_changed_while_it_waits(daemon):
    async with telpher.connect(daemon.url) as bus:
        made = await bus.set_quota("slow", "channel:jobs", 10, window_seconds=3600)
        assert (made.limit, made.window_seconds, made.burst) == (10, 3600, 10)
        async with anyio.create_task_group() as tasks:

            async def produce() -> None:
                async with bus.producer("jobs", batch_messages=10) as producer:
                    await producer.send_many([b"x"] * 40)

            tasks.start_soon(produce)
            with anyio.fail_after(30):
                while True:
                    (quota,) = await bus.quotas()
                    if any(level.waiting for level in quota.levels):
                        break
                    await anyio.sleep(0.01)
            assert (await bus.inspect("jobs")).messages == 10
            await bus.delete_quota("slow")
        assert (await bus.inspect("jobs")).messages == 40


def test_without_await_a_refusal_says_when_to_come_again(daemon):
    with connect_sync(daemon.url) as bus:
        bus.set_quota("q", "connection", 1, window_seconds=60, at_limit="refuse")
        bus.publish("jobs", b"a")
        with pytest.raises(QuotaExceeded, match="quota 'q' of 1 messages in 60 s") as caught:
            bus.publish("jobs", b"b")
        assert 0 < caught.value.retry_after_seconds <= 60
        assert [quota.name for quota in bus.quotas()] == ["q"]
        bus.delete_quota("q")
        with pytest.raises(telpher.UnknownQuota):
            bus.delete_quota("q")
        bus.publish("jobs", b"b")


@pytest.mark.anyio
async def test_a_topic_that_drops_tells_its_readers(daemon):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare_topic("ticks")
        await bus.set_quota("calm", "channel:ticks", 5, window_seconds=3600, at_limit="drop")
        async with bus.subscribe("ticks") as messages:
            levels = [(await bus.publish("ticks", b"%d" % n)).level for n in range(8)]
            assert levels == ["written"] * 5 + ["received"] * 3
            await bus.delete_quota("calm")
            assert (await bus.publish("ticks", b"last")).offset == 5
            got = []
            async for message in messages:
                got.append(message.body)
                if message.body == b"last":
                    break
            assert got == [b"0", b"1", b"2", b"3", b"4", b"last"]
            assert messages.missed == 3


@pytest.mark.anyio
async def test_what_a_topic_drops_out_of_a_reader_s_hands_is_missed_too(daemon):
    """It was delivered and waited here: the application never had it, and never will."""
    async with telpher.connect(daemon.url) as bus:
        await bus.declare_topic("prices", limit_count=20)
        async with bus.subscribe("prices", name="bill") as messages:
            for n in range(10):
                await bus.publish("prices", b"%d" % n)
            first = await anext(messages)
            for n in range(10, 60):
                await bus.publish("prices", b"%d" % n)
            with pytest.raises(telpher.LeaseLost, match="a limit of the topic has dropped it"):
                async with first:
                    pass
            assert messages.gap == (1, messages.missed + 1)
            seen = 1
            async for message in messages:
                async with message:
                    seen += 1
                if message.body == b"59":
                    break
            assert 20 <= seen < 60
            assert seen + messages.missed == 60
            (subscription,) = (await bus.inspect("prices")).subscriptions
            assert subscription.missed == messages.missed + 1


def test_what_a_topic_drops_out_of_a_thread_s_hands_is_missed_too(daemon):
    with connect_sync(daemon.url) as bus:
        bus.declare_topic("prices", limit_count=20)
        with bus.subscribe("prices", name="bill") as messages:
            for n in range(10):
                bus.publish("prices", b"%d" % n)
            first = next(messages)
            for n in range(10, 60):
                bus.publish("prices", b"%d" % n)
            seen = 1
            for message in messages:
                seen += 1
                message.ack()
                if message.body == b"59":
                    break
            assert 20 <= seen < 60
            assert seen + messages.missed == 60
            with pytest.raises(telpher.LeaseLost, match="a limit of the topic has dropped it"):
                first.ack()


@pytest.mark.anyio
async def test_who_is_cut_off_is_told_of_all_that_it_had_not_settled(daemon):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare_topic("prices", limit_count=20)
        async with bus.subscribe("prices", name="bill", lagging="close") as messages:
            for n in range(60):
                await bus.publish("prices", b"%d" % n)
            with pytest.raises(telpher.Lagged, match="between the offsets 0 and"):
                async for _ in messages:
                    pass
