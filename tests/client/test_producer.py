"""A producer: batches by itself, bounded memory, and the truth about what was not confirmed."""

from __future__ import annotations

from itertools import chain
from typing import Any

import anyio
import pytest

import telpher
from telpher.content import as_properties
from telpher.protocol import frames as f
from telpher.protocol.batch import decode

from .scripted import Conversation, Opened, Result

pytestmark = pytest.mark.anyio


async def confirm_all(broker: Conversation, batches: list[f.Publish]) -> None:
    """Confirm whatever comes, for ever."""
    offset = 0
    while True:
        publish = await broker.hear(f.Publish)
        batches.append(publish)
        await broker.say(f.Confirm(publish.request, offset, 1))
        offset += len(decode(publish.batch).bodies)


def bodies_of(batches: list[f.Publish]) -> list[bytes]:
    return [body for publish in batches for body in decode(publish.batch).bodies]


async def test_the_first_goes_at_once_and_the_rest_gathers():
    async with Opened() as (bus, broker, _):
        producer = bus.producer("jobs")
        for n in range(5):
            await producer.send(b"%d" % n)
        first = await broker.hear(f.Publish)
        assert decode(first.batch).bodies == (b"0",)
        assert producer.statistics() == (5, 0, 0, 1, 4, 1, 0)
        await broker.say(f.Confirm(first.request, 0, 1))
        second = await broker.hear(f.Publish)
        assert decode(second.batch).bodies == (b"1", b"2", b"3", b"4")
        assert (second.producer, second.sequence) == (first.producer, 2)
        await broker.say(f.Confirm(second.request, 1, 1))
        await producer.flush()
        assert producer.statistics() == (5, 5, 0, 0, 0, 2, 0)


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 25_000])
async def test_send_and_send_many_deliver_the_same_in_order(count):
    bodies = [b"%d" % n for n in range(count)]
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        batches: list[f.Publish] = []
        tasks.start_soon(confirm_all, broker, batches)
        async with bus.producer("jobs") as producer:
            for body in bodies:
                await producer.send(body)
        async with bus.producer("jobs") as producer:
            await producer.send_many(iter(bodies))
            assert producer.statistics().sent == count
        assert bodies_of(batches) == bodies * 2
        assert all(len(decode(publish.batch).bodies) <= 1000 for publish in batches)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("count", [0, 1, 1000, 2500])
async def test_each_of_many_has_its_key(count):
    bodies = [b"%d" % n * (1 + n % 900) for n in range(count)]
    keys = [None if n % 7 == 3 else f"key-{n}" for n in range(count)]
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        batches: list[f.Publish] = []
        tasks.start_soon(confirm_all, broker, batches)
        async with bus.producer("jobs") as producer:
            await producer.send_many(iter(bodies), chain(keys, ["more than there are bodies"]))
            await producer.send(b"without")
        columns = [decode(publish.batch) for publish in batches]
        found = [
            (body, None if column.keys is None else column.keys[index])
            for column in columns
            for index, body in enumerate(column.bodies)
        ]
        assert found == [*zip(bodies, keys, strict=True), (b"without", None)]
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("keys", "error", "text"),
    [
        (["a"], ValueError, "keys for 1 of 2 messages"),
        (["a", 5], TypeError, "a key is a string"),
        (["a", "x" * 1025], ValueError, "at most 1024 characters"),
    ],
)
async def test_keys_that_do_not_fit_send_nothing(keys, error, text):
    async with Opened() as (bus, _, _):
        producer = bus.producer("jobs")
        with pytest.raises(error, match=text):
            await producer.send_many([b"1", b"2"], keys)
        assert producer.statistics().sent == 0


async def test_keys_and_headers_stay_with_their_messages():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        batches: list[f.Publish] = []
        tasks.start_soon(confirm_all, broker, batches)
        async with bus.producer("jobs", priority=4) as producer:
            await producer.send(b"0")
            await producer.send(b"1")
            await producer.send(b"2", key="two")
            await producer.send(b"3", headers={"n": 3})
            await producer.send(b"4")
        columns = decode(batches[1].batch)
        assert columns.properties == {"priority": 4}
        assert columns.bodies == (b"1", b"2", b"3", b"4")
        assert columns.keys == (None, "two", None, None)
        assert columns.headers == (None, None, {"n": 3}, None)
        tasks.cancel_scope.cancel()


async def test_memory_is_bounded_by_the_window():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        producer = bus.producer("jobs", window=2, batch_messages=10)

        async def send_for_ever() -> None:
            while True:
                await producer.send(b"x")

        tasks.start_soon(send_for_ever)
        await anyio.wait_all_tasks_blocked()
        statistics = producer.statistics()
        assert (statistics.batches, statistics.unconfirmed, statistics.gathered) == (2, 11, 10)
        publish = await broker.hear(f.Publish)
        await broker.say(f.Confirm(publish.request, 0, 1))
        await anyio.wait_all_tasks_blocked()
        statistics = producer.statistics()
        assert (statistics.batches, statistics.unconfirmed, statistics.gathered) == (3, 20, 10)
        tasks.cancel_scope.cancel()


async def test_batches_are_bounded_in_bytes():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        batches: list[f.Publish] = []
        tasks.start_soon(confirm_all, broker, batches)
        async with bus.producer("jobs", batch_bytes=1000) as producer:
            await producer.send_many([b"x" * 300] * 20)
            await producer.send_many([b"y" * 5000, b"z"])
        assert max(len(decode(publish.batch).bodies) for publish in batches) == 3
        assert bodies_of(batches) == [b"x" * 300] * 20 + [b"y" * 5000, b"z"]
        tasks.cancel_scope.cancel()


async def test_a_message_over_the_brokers_limit_is_refused_here():
    async with (
        Opened({"message_bytes_max": 100}) as (bus, broker, _),
        anyio.create_task_group() as tasks,
    ):
        batches: list[f.Publish] = []
        tasks.start_soon(confirm_all, broker, batches)
        async with bus.producer("jobs") as producer:
            await producer.send(b"a", key="k")
            await producer.send(b"b", key="k")
            with pytest.raises(telpher.MessageTooLarge, match="store it elsewhere"):
                await producer.send(b"c" * 101, key="k")
            await producer.send(b"d", key="k")
        assert bodies_of(batches) == [b"a", b"b", b"d"]
        tasks.cancel_scope.cancel()


async def test_flush_raises_with_what_was_refused_and_the_producer_goes_on():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        producer = bus.producer("jobs", batch_messages=2)
        await producer.send_many([b"0", b"1", b"2", b"3"])
        first, second = await broker.hear(f.Publish), await broker.hear(f.Publish)
        await broker.say(f.Refused(second.request, "disk_full", "no room"))
        await broker.say(f.Confirm(first.request, 0, 1))
        with pytest.raises(telpher.PublishFailed, match=r"2 messages to 'jobs'.*no room") as caught:
            await producer.flush()
        assert caught.value.bodies == [b"2", b"3"]
        assert isinstance(caught.value.reason, telpher.DiskFull)
        assert producer.statistics().failed == 2
        tasks.start_soon(confirm_all, broker, [])
        await producer.send(b"4")
        await producer.close()
        assert producer.statistics().confirmed == 3
        tasks.cancel_scope.cancel()


async def test_send_raises_once_something_was_refused():
    async with Opened() as (bus, broker, _):
        producer = bus.producer("jobs")
        await producer.send(b"0")
        publish = await broker.hear(f.Publish)
        await broker.say(f.Refused(publish.request, "unknown_channel", "no jobs"))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(telpher.PublishFailed):
            await producer.send(b"1")
        with pytest.raises(telpher.PublishFailed) as caught:
            await producer.flush()
        assert caught.value.bodies == [b"0"]


async def test_a_reconnect_repeats_the_unconfirmed_before_anything_newer():
    async with Opened() as (bus, broker, scripted), anyio.create_task_group() as tasks:
        producer = bus.producer("jobs", batch_messages=1)
        for n in range(3):
            await producer.send(b"%d" % n)
        first = await broker.hear(f.Publish)
        await broker.say(f.Confirm(first.request, 0, 1))
        await anyio.wait_all_tasks_blocked()
        await broker.cut()
        await anyio.wait_all_tasks_blocked()
        await producer.send(b"3")
        again = await scripted.accept()
        await again.welcome()
        batches: list[f.Publish] = []
        tasks.start_soon(confirm_all, again, batches)
        await producer.close()
        assert [publish.sequence for publish in batches] == [2, 3, 4]
        assert bodies_of(batches) == [b"1", b"2", b"3"]
        tasks.cancel_scope.cancel()


async def test_an_exception_in_the_block_is_not_hidden_by_the_unconfirmed():
    async with Opened() as (bus, broker, _):
        producer = bus.producer("jobs")

        async def fail() -> None:
            async with producer:
                await producer.send(b"0")
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await fail()
        await broker.hear(f.Publish)
        with pytest.raises(telpher.Closed):
            await producer.send(b"1")


async def test_the_end_of_the_bus_fails_what_was_not_confirmed():
    async with anyio.create_task_group() as tasks:
        async with Opened() as (bus, broker, _):
            producer = bus.producer("jobs")
            await producer.send_many([b"0", b"1"])
            await producer.send(b"2")
            flushed = Result(tasks, producer.flush)
            await broker.hear(f.Publish)
        with pytest.raises(telpher.PublishFailed) as caught:
            await flushed.get()
        assert caught.value.bodies == [b"0", b"1", b"2"]
        assert isinstance(caught.value.reason, telpher.Closed)


async def test_a_string_is_refused_with_advice():
    async with Opened() as (bus, _broker, _):
        producer = bus.producer("jobs")
        with pytest.raises(TypeError, match="encode the string"):
            await producer.send("text")
        with pytest.raises(TypeError, match="encode the string"):
            await producer.send_many([b"bytes", "text"])
        assert producer.statistics().sent == 0


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("ttl", "a", TypeError),
        ("ttl", 0, ValueError),
        ("delay", -1, ValueError),
        ("delay", float("nan"), ValueError),
        ("priority", 256, ValueError),
        ("priority", 1.5, TypeError),
    ],
)
def test_a_wrong_property_is_named_in_the_callers_words(
    argument: str, value: Any, error: type[Exception]
) -> None:
    given = {"delay": None, "ttl": None, "priority": None, argument: value}
    with pytest.raises(error, match=f"^{argument}"):
        as_properties(**given)
