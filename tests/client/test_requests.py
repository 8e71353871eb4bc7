"""Requests and replies, through the real daemon, over reconnects and a killed broker too."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from threading import Thread

import anyio
import pytest

import telpher
from telpher.bus import Bus
from telpher.requests import CORRELATION_ID, REPLY_TO
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
    return f"rpc.{next(NAMES)}"


async def upper(bus: Bus, name: str, *, task_status=anyio.TASK_STATUS_IGNORED) -> None:
    """A responder: upper case, twice where a header says so."""
    async with bus.consume(name) as messages:
        task_status.started()
        async for message in messages:
            async with message:
                for _ in range(message.headers.get("replies", 1)):
                    await message.reply(message.body.upper(), headers={"by": name})


@asynccontextmanager
async def answered(daemon: Daemon, name: str) -> AsyncIterator[Bus]:
    """A bus to ask by, and a responder on another one."""
    async with (
        telpher.connect(daemon.url) as bus,
        telpher.connect(daemon.url) as other,
        anyio.create_task_group() as tasks,
    ):
        await tasks.start(partial(upper, other, name))
        yield bus
        tasks.cancel_scope.cancel()


async def inboxes(bus: Bus) -> list[str]:
    return [channel.name for channel in await bus.channels("telpher-inbox.").all()]


@pytest.mark.anyio
async def test_a_request_is_answered(daemon, name):
    async with answered(daemon, name) as bus:
        reply = await bus.request(name, b"hello", timeout=10, headers={"n": 1})
        assert (reply.body, reply.headers) == (b"HELLO", {"by": name})
        assert reply.published_at > 1_700_000_000


@pytest.mark.anyio
async def test_many_requests_at_once_each_get_their_own(daemon, name):
    async with answered(daemon, name) as bus:
        found: dict[bytes, bytes] = {}

        async def ask(body: bytes) -> None:
            found[body] = (await bus.request(name, body, timeout=30)).body

        async with anyio.create_task_group() as tasks:
            for n in range(300):
                tasks.start_soon(ask, b"a%d" % n)
        assert found == {b"a%d" % n: b"A%d" % n for n in range(300)}
        assert len(await inboxes(bus)) == 1
    async with telpher.connect(daemon.url) as bus:
        assert await inboxes(bus) == []


@pytest.mark.anyio
async def test_many_replies(daemon, name):
    async with answered(daemon, name) as bus:
        given = {"headers": {"replies": 3}, "timeout": 30}
        found = [reply.body async for reply in bus.request_many(name, b"x", max=3, **given)]
        assert found == [b"X"] * 3
        found = [reply.body async for reply in bus.request_many(name, b"y", max=2, **given)]
        assert found == [b"Y"] * 2
        found = [reply.body async for reply in bus.request_many(name, b"z", timeout=0.5)]
        assert found == [b"Z"]


@pytest.mark.anyio
async def test_nobody_answers(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        with pytest.raises(telpher.NoResponders):
            await bus.request(name, b"x", fail_fast=True)
        with pytest.raises(telpher.Timeout, match="no reply") as caught:
            await bus.request(name, b"x", timeout=0.05)
        assert caught.value.maybe_stored
        assert [reply async for reply in bus.request_many(name, b"x", timeout=0.05)] == []


@pytest.mark.anyio
async def test_a_request_expires_when_nobody_waits_any_more(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        with pytest.raises(telpher.Timeout):
            await bus.request(name, b"x", timeout=0.05)
        while (await bus.inspect(name)).messages:
            await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_a_reply_to_who_has_gone_is_told(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.publish(name, b"x", headers={REPLY_TO: "telpher-inbox.gone", CORRELATION_ID: "1"})
        await bus.publish(name, b"no request")
        first, second = await bus.fetch(name, wait=10)
        assert (first.is_request, second.is_request) == (True, False)
        assert await first.reply(b"late") is False
        with pytest.raises(ValueError, match="no request"):
            await second.reply(b"what for?")


@pytest.mark.anyio
async def test_a_reply_nobody_waits_for_is_dropped(daemon, name):
    async with answered(daemon, name) as bus:
        assert (await bus.request(name, b"a", headers={"replies": 5}, timeout=10)).body == b"A"
        assert (await bus.request(name, b"b", timeout=10)).body == b"B"
        (inbox,) = await inboxes(bus)
        while (await bus.inspect(inbox)).messages:
            await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_an_inbox_that_is_gone_ends_what_waits_and_is_made_anew(daemon, name):
    async with answered(daemon, name) as bus:
        await bus.request(name, b"a", timeout=10)
        (inbox,) = await inboxes(bus)
        failed = []

        async def ask() -> None:
            with pytest.raises(telpher.Broken, match="may have been carried out"):
                await bus.request(f"{name}.nobody", b"x", timeout=30)
            failed.append(True)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            while not (await bus.channels(f"{name}.nobody").all()):
                await anyio.lowlevel.checkpoint()
            await bus.delete(inbox)
        assert failed
        assert (await bus.request(name, b"b", timeout=10)).body == b"B"
        assert await inboxes(bus) != [inbox]


@pytest.mark.anyio
async def test_a_request_survives_a_killed_broker():
    with tempfile.TemporaryDirectory(prefix="telpher-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        try:
            async with telpher.connect(daemon.url) as bus, telpher.connect(daemon.url) as other:
                await other.declare("rpc")
                replies = []

                async def ask() -> None:
                    replies.append(await bus.request("rpc", b"x", timeout=60))

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask)
                    async with other.consume("rpc") as messages:
                        message = await anext(messages)
                        await anyio.to_thread.run_sync(daemon.stop, signal.SIGKILL)
                        tasks.start_soon(anyio.to_thread.run_sync, daemon.start)
                        assert await message.reply(b"y")
                        await message.ack()
                assert [reply.body for reply in replies] == [b"y"]
        finally:
            daemon.stop()


def test_without_await(daemon, name):
    with connect_sync(daemon.url) as bus, connect_sync(daemon.url) as other:
        bus.declare(name)

        def respond() -> None:
            with other.consume(name) as messages:
                for message in messages:
                    with message:
                        for _ in range(message.headers.get("replies", 1)):
                            assert message.reply(message.body.upper())
                    if message.body == b"last":
                        return

        thread = Thread(target=respond)
        thread.start()
        assert bus.request(name, b"hello", timeout=30).body == b"HELLO"
        found = bus.request_many(name, b"x", headers={"replies": 2}, max=2, timeout=30)
        assert [reply.body for reply in found] == [b"X", b"X"]
        assert bus.request(name, b"last", timeout=30).body == b"LAST"
        thread.join()
        with pytest.raises(telpher.NoResponders):
            bus.request(name, b"x", fail_fast=True)
        assert list(bus.request_many(name, b"x", timeout=0.01)) == []
