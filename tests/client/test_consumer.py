"""A consumer: iteration, settling, leases, and the ways it ends."""

from __future__ import annotations

import anyio
import pytest

import telpher
from telpher.bus import Bus
from telpher.consumer import Consumer
from telpher.protocol import frames as f

from .scripted import Conversation, Opened, Result, batch

pytestmark = pytest.mark.anyio


class Consuming:
    """`async with Consuming(bus, broker) as messages`; leaves without waiting for answers."""

    def __init__(self, bus: Bus, broker: Conversation, **options) -> None:
        self.messages: Consumer = bus.consume("jobs", **options)
        self._broker = broker

    async def __aenter__(self) -> Consumer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._broker.joined)
            await self.messages.join()
        return self.messages

    async def __aexit__(self, *exception) -> None:
        await self.messages.leave(wait=False)


def deliver(messages: Consumer, first: int, *bodies: bytes, attempt: int = 1) -> f.Deliver:
    return f.Deliver(messages.state.number, ((first, attempt, 1_500, batch(*bodies)),))


async def test_messages_come_in_order_and_acks_go_together():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 7, b"a", b"b"), deliver(messages, 9, b"c", attempt=3))
        seen = []
        async with anyio.create_task_group() as tasks:

            async def consume() -> None:
                async for message in messages:
                    seen.append((message.offset, message.body, message.attempt))
                    message.ack()

            tasks.start_soon(consume)
            settle = await broker.settled()
            tasks.cancel_scope.cancel()
        assert seen == [(7, b"a", 1), (8, b"b", 1), (9, b"c", 3)]
        assert (settle.outcome, settle.offsets) == (0, (7, 10))


async def test_a_message_tells_what_it_is():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 7, b"a", attempt=2))
        message = await anext(messages)
        assert (message.channel, message.offset, message.key, message.headers) == (
            "jobs",
            7,
            None,
            {},
        )
        assert (message.redelivered, message.published_at, message.priority) == (True, 1.5, 0)
        assert repr(message) == "<Message jobs 7, attempt 2>"


async def test_the_block_acks_at_its_end_and_nacks_with_a_growing_delay():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 0, b"a"), deliver(messages, 1, b"b", attempt=4))
        async with await anext(messages):
            pass
        with pytest.raises(KeyError, match="bad"):
            async with await anext(messages):
                raise KeyError("bad")
        ack, nack = await broker.settled(), await broker.nacked()
        assert (ack.outcome, ack.offsets) == (0, (0, 1))
        assert nack.offsets == (1, 2)
        failed = {"error": "KeyError: 'bad'", "default_delay_ms": 8000, "attempt": 4}
        assert nack.options == failed


async def test_a_nack_says_what_it_was_told():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 0, b"a", b"b", b"c", b"d"))
        group = ExceptionGroup("unhandled", [ValueError("x" * 2000)])
        (await anext(messages)).nack(error=group)
        (await anext(messages)).nack(0, error="no such customer", dead_letter=True)
        (await anext(messages)).nack()
        with pytest.raises(ValueError, match="delay=-1; it is 0 seconds or more"):
            (await anext(messages)).nack(-1)
        one, two, three = [await broker.nacked() for _ in range(3)]
        error = "ValueError: " + "x" * (f.ERROR_CHARACTERS_MAX - 12)
        assert one.options == {"error": error, "attempt": 1}
        rejected = {"delay_ms": 0, "error": "no such customer", "dead_letter": True, "attempt": 1}
        assert (two.offsets, two.options) == ((1, 2), rejected)
        assert (three.offsets, three.options) == ((2, 3), {"attempt": 1})


async def test_a_refused_nack_is_told_to_who_waits_for_it():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 0, b"a"))
        message = await anext(messages)

        async def reject() -> None:
            await message.nack(dead_letter=True)

        async with anyio.create_task_group() as tasks:
            rejecting = Result(tasks, reject)
            nack = await broker.hear(f.Nack)
            await broker.say(f.Refused(nack.request, "no_dead_letter", "'jobs' has none"))
            with pytest.raises(telpher.NoDeadLetter, match="'jobs' has none"):
                await rejecting.get()
        await messages.flush_acks()


async def test_a_letter_says_how_it_died():
    dead = {
        "reason": "max_attempts",
        "subscription": "s",
        "offset": 7,
        "attempts": 3,
        "published_ms": 1000,
        "dead_ms": 4000,
        "first_error": "a",
        "first_error_ms": 2000,
        "last_error": "b",
        "earlier": (
            {
                "channel": "first",
                "reason": "expired",
                "offset": 1,
                "attempts": 0,
                "published_ms": 500,
                "dead_ms": 1000,
            },
        ),
    }
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        plain = deliver(messages, 0, b"a", b"b")
        parts = tuple((*part, {"channel": "jobs", "dead": dead}) for part in plain.parts)
        await broker.say(plain._replace(parts=parts), deliver(messages, 2, b"c"))
        await anext(messages)
        message = await anext(messages)
        earlier = telpher.Death("first", None, None, 2, "expired", 0, 0.5, 1.0, None, None, None)
        assert message.letter == telpher.Letter(
            "jobs", "s", None, 8, "max_attempts", 3, 1.0, 4.0, "a", 2.0, "b", (earlier,)
        )
        assert message.origin == "jobs"
        assert (await anext(messages)).letter is None


async def test_a_cancelled_block_gives_the_message_back_at_once():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 0, b"a", attempt=5))
        with anyio.CancelScope() as scope:
            async with await anext(messages):
                scope.cancel()
                await anyio.sleep_forever()
        nack = await broker.settled()
        assert (nack.outcome, nack.offsets, nack.delay_ms) == (1, (0, 1), 0)


async def test_what_the_block_settled_itself_is_settled_once():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 0, b"a", b"b"))
        async with await anext(messages) as message:
            message.nack(delay=2.5)
        async with await anext(messages) as message:
            message.ack()
            message.ack()
            message.nack()
        nack = await broker.nacked()
        assert (nack.offsets, nack.options) == ((0, 1), {"delay_ms": 2500, "attempt": 1})
        ack = await broker.settled()
        assert (ack.outcome, ack.offsets) == (0, (1, 2))


async def test_a_lost_lease_cancels_the_block_and_says_so():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 0, b"a", b"b", b"c"))
        message = await anext(messages)

        async def work() -> None:
            async with message:
                await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            working = Result(tasks, work)
            await anyio.wait_all_tasks_blocked()
            await broker.say(f.Lost(messages.state.number, (0, 2)))
            with pytest.raises(telpher.LeaseLost, match="the lease of 0 of 'jobs' was lost"):
                await working.get()
        assert message.is_lost
        with pytest.raises(telpher.LeaseLost):
            message.ack()
        assert (await anext(messages)).offset == 2


async def test_an_awaited_ack_is_answered():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 0, b"a", b"b"))
        first, second = await anext(messages), await anext(messages)

        async def settle(message) -> None:
            await message.ack()

        async with anyio.create_task_group() as tasks:
            acked = Result(tasks, lambda: settle(first))
            await broker.settled()
            await acked.get()
            acked = Result(tasks, lambda: settle(second))
            await broker.settled(lost=(1, 2))
            with pytest.raises(telpher.LeaseLost, match="the lease of 1 of"):
                await acked.get()


async def test_an_ack_that_has_no_answer_may_have_settled_it():
    opened = Opened(reconnect_seconds=0.0)
    async with opened as (bus, broker, _), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 0, b"a", b"b"))
        first, second = await anext(messages), await anext(messages)

        async def settle() -> None:
            first.ack()
            await second.nack()

        async with anyio.create_task_group() as tasks:
            waiting = Result(tasks, settle)
            await broker.hear(f.Settle)
            await broker.cut()
            with pytest.raises(telpher.Broken):
                await waiting.get()


async def test_batches_carry_columns_and_ack_as_one():
    async with Opened() as (bus, broker, _), Consuming(bus, broker, prefetch=4) as messages:
        await broker.say(deliver(messages, 0, b"a", b"b"), deliver(messages, 2, b"c"))
        found = await messages.next_batch()
        assert list(found.bodies) == [b"a", b"b", b"c"]
        assert (list(found.keys), list(found.headers)) == ([None] * 3, [{}] * 3)
        assert (found.first, found.attempt, len(found), found[1:][0].body) == (0, 1, 3, b"b")
        with pytest.raises(IndexError):
            found[3]
        found[1].ack()
        found.ack()
        offsets = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(messages.flush_acks)
            while len(telpher_offsets(offsets)) < 3:
                offsets.append((await broker.settled()).offsets)
        assert sorted(telpher_offsets(offsets)) == [0, 1, 2]


def telpher_offsets(rows) -> list[int]:
    return [offset for row in rows for pair in f.pairs(row) for offset in range(*pair)]


async def test_several_tasks_share_one_consumer():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        seen = []

        async def work() -> None:
            async for message in messages:
                seen.append(message.offset)
                message.ack()
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(work)
            await anyio.wait_all_tasks_blocked()
            await broker.say(deliver(messages, 0, *[b"x"] * 10))
            settled = 0
            while settled < 10:
                settled += len(telpher_offsets([(await broker.settled()).offsets]))
            tasks.cancel_scope.cancel()
        assert sorted(seen) == list(range(10))


async def test_tasks_that_wait_together_lose_nothing_of_deliveries_that_come_together():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        seen = []

        async def consume() -> None:
            async for message in messages:
                seen.append(message.offset)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(consume)
            await anyio.wait_all_tasks_blocked()
            await broker.say(deliver(messages, 0, b"a", b"b"), deliver(messages, 2, b"c", b"d"))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert sorted(seen) == [0, 1, 2, 3]


async def test_leaving_waits_for_acks_then_cancels():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:

        async def consume() -> None:
            async with bus.consume("jobs") as messages:
                (await anext(messages)).ack()

        consumed = Result(tasks, consume)
        consume_frame = await broker.joined()
        part = (0, 1, 0, batch(b"a", b"b"))
        await broker.say(f.Deliver(consume_frame.request, (part,)))
        assert (await broker.settled()).offsets == (0, 1)
        cancel = await broker.hear(f.Cancel)
        assert cancel.consumer == consume_frame.request
        await broker.say(f.Reply(cancel.request, {}))
        await consumed.get()


async def test_a_refused_consumer_raises_when_entered():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        joined = Result(tasks, bus.consume("jobs").join)
        consume = await broker.hear(f.Consume)
        await broker.say(f.Refused(consume.request, "unknown_channel", "no jobs here"))
        with pytest.raises(telpher.UnknownChannel, match="no jobs here"):
            await joined.get()


async def test_a_deleted_channel_ends_the_iteration():
    async with Opened() as (bus, broker, _), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 0, b"a"))
        await broker.say(f.Closed(messages.state.number, "channel_deleted", "jobs is gone"))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(telpher.ChannelDeleted, match="jobs is gone"):
            await anext(messages)


async def test_a_consumer_comes_back_with_what_it_holds():
    async with Opened() as (bus, broker, scripted), Consuming(bus, broker) as messages:
        await broker.say(deliver(messages, 0, b"a", b"b"))
        held = await anext(messages)
        await broker.cut()
        again = await scripted.accept()
        await again.welcome()
        consume = await again.joined(lost=(1, 2))
        assert consume.options["held"] == (0, 2)
        renewed = await again.hear(f.Renew)
        await again.say(deliver(messages, 1, b"b", attempt=2))
        assert renewed.offsets == (0, 1)
        redelivered = await anext(messages)
        assert (redelivered.offset, redelivered.attempt) == (1, 2)
        held.ack()
        redelivered.ack()
        messages.state.flush()
        assert (await again.settled()).offsets == (0, 2)


async def test_an_ephemeral_subscription_settles_by_itself():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        messages = bus.subscribe("prices", start=5)
        joined = Result(tasks, messages.join)
        consume = await broker.joined(subscription="~1.1")
        assert consume.options["acks"] is True
        assert consume.options["start"] == 5
        await joined.get()
        await broker.say(deliver(messages, 5, b"a"))
        async with await anext(messages) as message:
            assert message.body == b"a"
        messages.state.flush()
        assert (await broker.settled()).offsets == (5, 6)
        await messages.leave(wait=False)


@pytest.mark.parametrize("pattern", ["prices.e*", "prices..#", "#.*@x", "a/b/#"])
async def test_what_is_no_pattern_is_refused_at_once(pattern):
    async with Opened() as (bus, _broker, _):
        with pytest.raises(telpher.BadName, match="no pattern of names"):
            bus.subscribe(pattern)


async def test_a_pattern_and_a_filter_are_asked_for():
    async with Opened() as (bus, broker, _), anyio.create_task_group() as tasks:
        consumer = bus.subscribe("prices.#", "s", filter={"region": "eu"}, match="any")
        joining = Result(tasks, consumer.join)
        asked = await broker.hear(f.Consume)
        wanted = {"headers": {"region": "eu"}, "match": "any"}
        assert (asked.channel, asked.subscription) == ("prices.#", "s")
        assert asked.options["filter"] == wanted
        await broker.say(f.Reply(asked.request, {"subscription": "s", "next": 0, "lost": ()}))
        await joining.get()
        with pytest.raises(ValueError, match="'some'"):
            bus.subscribe("prices", filter={"a": 1}, match="some")
