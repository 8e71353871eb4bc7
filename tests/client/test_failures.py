"""Failures, letters and replays with the real daemon, in both event loops and without one."""

from __future__ import annotations

import signal
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
    return f"failing.{next(NAMES)}"


async def fail(message: telpher.Message) -> None:
    """Handle a message, badly."""
    async with message:
        raise LookupError(f"customer {message.attempt}")


@pytest.mark.anyio
async def test_a_message_that_always_fails_becomes_a_letter_and_comes_back(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        dead = f"{name}.dead"
        policy = {"backoff": "exponential", "backoff_ms": 1, "max_attempts": 3}
        await bus.declare(name, dead_letter=dead, **policy)
        await bus.publish(name, b"x", headers={"a": 1}, priority=4)
        attempts = []
        async with bus.consume(name) as messages:
            while len(attempts) < 3:
                message = await anext(messages)
                attempts.append(message.attempt)
                with pytest.raises(LookupError):
                    await fail(message)
        assert attempts == [1, 2, 3]
        (found,) = await bus.letters(dead).all()
        letter = found.letter
        assert (letter.reason, letter.channel, letter.attempts) == ("max_attempts", name, 3)
        assert (letter.first_error, letter.last_error) == (
            "LookupError: customer 1",
            "LookupError: customer 3",
        )
        done = await bus.redrive(dead)
        assert (done.moved, done.running) == (1, False)
        async with bus.consume(name) as messages, await anext(messages) as message:
            assert (message.body, message.headers, message.attempt) == (b"x", {"a": 1}, 1)
            assert message.priority == 4


@pytest.mark.anyio
async def test_a_letter_is_consumed_like_any_message(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        dead = f"{name}.dead"
        await bus.declare(name, dead_letter=dead)
        async with bus.producer(name) as producer:
            await producer.send_many([b"%d" % number for number in range(100)])
        async with bus.consume(name) as messages:
            taken = 0
            async for batch in messages.batches():
                taken += len(batch)
                batch.nack(error=ValueError("no"), dead_letter=True)
                if taken == 100:
                    break
        async with bus.consume(dead, prefetch=7) as messages:
            for number in range(100):
                async with await anext(messages) as message:
                    assert message.body == b"%d" % number
                    assert (message.letter.offset, message.letter.last_error) == (
                        number,
                        "ValueError: no",
                    )


@pytest.mark.anyio
async def test_rejecting_without_a_place_is_told(daemon, name):
    async with telpher.connect(daemon.url) as bus:
        await bus.declare(name)
        await bus.publish(name, b"x")
        async with bus.consume(name) as messages:
            with pytest.raises(telpher.NoDeadLetter, match="has no dead_letter"):
                await (await anext(messages)).nack(dead_letter=True)
        with pytest.raises(telpher.NoDeadLetter):
            async with bus.consume(name, lease_seconds=1) as messages:
                (await anext(messages)).nack(dead_letter=True)


@pytest.mark.anyio
async def test_two_holders_of_a_message_are_told_apart(daemon, name):
    async with telpher.connect(daemon.url) as bus, telpher.connect(daemon.url) as other:
        await bus.declare(name)
        await bus.publish(name, b"x")
        async with bus.consume(name, fence=True) as first:
            stale = await anext(first)
            async with other.consume(name, fence=True) as second:
                stale.nack()
                await first.flush_acks()
                await first.leave()
                fresh = await anext(second)
                assert fresh.fence > stale.fence > 0
                await fresh.ack()


def test_without_await(daemon, name):
    with connect_sync(daemon.url) as bus:
        dead, again = f"{name}.dead", f"{name}.again"
        bus.declare(name, dead_letter=dead, max_attempts=1, retain_count=10)
        bus.declare(again)
        for body in (b"a", b"b", b"c"):
            bus.publish(name, body)
        with bus.consume(name, fence=True) as messages:
            first, second, third = next(messages), next(messages), next(messages)
            assert first.fence is not None
            first.ack()
            second.nack(error="no such customer")
            with pytest.raises(KeyError), third:
                raise KeyError("x")
        groups = {group.error: group for group in bus.letter_groups(dead)}
        assert set(groups) == {"no such customer", "KeyError: '*'"}
        (letter,) = bus.letters(dead, fingerprint=groups["KeyError: '*'"].fingerprint)
        assert letter.body == b"c"
        changed = bus.edit_letter(dead, letter.offset, body=b"C")
        assert bus.redrive(dead, changed).moved == 1
        assert bus.delete_letters(dead, range(10)) == 1
        assert [message.body for message in bus.browse(name)] == [b"C"]
        assert bus.replay(name, again).moved == 1
        assert [message.body for message in bus.browse(again)] == [b"a"]
        assert bus.seek(name, None, "earliest") == 0
        begun = bus.redrive(dead, rate=1)
        assert [one.transfer for one in bus.transfers()][-1] == begun.transfer
        with pytest.raises(telpher.UnknownTransfer):
            bus.stop_transfer(begun.transfer)


@pytest.mark.anyio
async def test_a_redrive_goes_on_after_a_kill_and_every_letter_is_in_one_place(name):
    with tempfile.TemporaryDirectory(prefix="telpher-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        async with telpher.connect(daemon.url) as bus:
            await bus.declare(name, dead_letter="dead")
            async with bus.producer(name, batch_messages=5) as producer:
                await producer.send_many([b"%d" % number for number in range(1000)])
            async with bus.consume(name) as messages:
                taken = 0
                async for batch in messages.batches():
                    taken += len(batch)
                    batch.nack(error="no", dead_letter=True)
                    if taken == 1000:
                        break
            await bus.redrive("dead", rate=1500)
            for _ in range(2):
                await anyio.sleep(0.1)
                daemon.stop(signal.SIGKILL)
                daemon.start()
                there = [channel.messages async for channel in bus.channels()]
                assert sum(there) == 1000
            seen: list[bytes] = []
            async with bus.consume(name) as messages:
                async for batch in messages.batches():
                    seen += batch.bodies
                    batch.ack()
                    if len(seen) >= 1000:
                        break
            assert sorted(seen) == sorted(b"%d" % number for number in range(1000))
            (transfer,) = await bus.transfers()
            assert (transfer.moved, transfer.running) == (1000, False)
        daemon.stop()
