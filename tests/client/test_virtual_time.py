"""What time does to a bus: heartbeats, leases, deadlines, reconnects; on a clock that jumps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
import trio
import trio.testing

import telpher
from telpher.bus import Bus
from telpher.protocol import frames as f

from .scripted import Opened, Result, Scripted, batch


def run(test: Callable[[], Awaitable[None]]) -> float:
    """Run a test on a virtual clock; how many seconds passed on it."""

    async def timed() -> float:
        began = trio.current_time()
        await test()
        return trio.current_time() - began

    return trio.run(timed, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_silent_broker_is_left_after_two_heartbeats():
    async def test() -> None:
        async with Opened() as (_bus, broker, scripted):
            began = trio.current_time()
            again = await scripted.accept()
            assert 60 <= trio.current_time() - began < 61
            await again.welcome()
            pings = [await broker.hear(f.Ping) for _ in range(3)]
            assert len({ping.request for ping in pings}) == 3

    run(test)


@pytest.mark.parametrize(("connect_seconds", "expected"), [(1, 5), (7, 7), (10, 10)])
def test_a_broker_that_takes_the_connection_and_says_nothing_is_given_up(
    connect_seconds: float, expected: float
) -> None:
    """A stopped one does; the system takes connections for it."""

    async def test() -> None:
        bus = Bus([("a:7400", Scripted().dial)], connect_seconds=connect_seconds)
        with pytest.raises(telpher.CannotConnect, match=r"a:7400: no WELCOME .* stopped"):
            async with bus:
                pytest.fail("nobody has welcomed it")

    assert expected <= run(test) < expected + 1


def test_a_transaction_is_waited_for_until_its_timeout_and_settles_by_itself():
    async def test() -> None:
        async with Opened() as (bus, broker, _):
            work = bus.transaction(timeout=20)
            work.publish("out", b"a")
            await trio.sleep(5)
            with pytest.raises(telpher.Timeout, match="it may have been done") as caught:
                await work.commit()
            assert caught.value.maybe_stored
            late = await broker.hear(f.Transact)
            await broker.say(f.Reply(late.request, {"level": 1, "firsts": (0,)}))
            with pytest.raises(telpher.Closed):
                await work.commit()

    assert 20 <= run(test) < 21


def test_a_talking_broker_is_kept():
    async def test() -> None:
        async with Opened() as (bus, broker, scripted):
            for _ in range(10):
                ping = await broker.hear(f.Ping)
                await broker.say(f.Pong(ping.request))
            assert scripted.dialled == 1
            assert bus.is_connected

    assert run(test) >= 150


def test_a_held_message_is_renewed_until_it_is_settled():
    async def test() -> None:
        async with Opened({"heartbeat_ms": 120_000}) as (bus, broker, _):
            messages = bus.consume("jobs", lease_seconds=9)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(broker.joined)
                await messages.join()
            part = (0, 1, 0, batch(b"x"))
            await broker.say(f.Deliver(messages.state.number, (part,)))
            message = await anext(messages)
            began = trio.current_time()
            for _ in range(5):
                renew = await broker.hear(f.Renew)
                await broker.say(f.Settled(renew.request, ()))
            assert trio.current_time() - began == pytest.approx(15)
            message.ack()
            assert (await broker.settled()).offsets == (0, 1)
            with trio.move_on_after(30) as quiet:
                await broker.hear(f.Renew)
            assert quiet.cancelled_caught
            await messages.leave(wait=False)

    run(test)


def test_an_ack_waits_five_milliseconds_at_most():
    async def test() -> None:
        async with Opened() as (bus, broker, _):
            messages = bus.consume("jobs")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(broker.joined)
                await messages.join()
            part = (0, 1, 0, batch(b"x", b"y"))
            await broker.say(f.Deliver(messages.state.number, (part,)))
            began = trio.current_time()
            (await anext(messages)).ack()
            await broker.settled()
            assert 0 < trio.current_time() - began < 0.006
            await messages.leave(wait=False)

    run(test)


def test_a_deadline_counts_also_while_there_is_no_connection():
    async def test() -> None:
        async with Opened() as (bus, broker, scripted):
            await broker.cut()
            scripted.refuse = 10_000
            began = trio.current_time()
            with pytest.raises(telpher.Timeout):
                await bus.publish("jobs", b"x", deadline=20)
            assert trio.current_time() - began == pytest.approx(20)

    run(test)


def test_reconnects_slow_down_and_give_up_when_told_so():
    async def test() -> None:
        async with Opened(reconnect_seconds=60) as (bus, broker, scripted):
            scripted.refuse = 10_000
            await broker.cut()
            async with anyio.create_task_group() as tasks:
                result = Result(tasks, lambda: bus.publish("jobs", b"x"))
                with pytest.raises(telpher.Broken, match="no broker answered within 60 s"):
                    await result.get()
            # 50 ms doubled up to 5 s, each with half of it by chance.
            assert 15 < scripted.dialled < 45

    assert run(test) == pytest.approx(60, abs=1)


def test_a_host_that_accepts_and_says_nothing_is_passed_over():
    async def test() -> None:
        deaf, good = Scripted(), Scripted()
        async with anyio.create_task_group() as tasks:

            async def welcome() -> None:
                await (await good.accept()).welcome()

            tasks.start_soon(welcome)
            async with Bus([("deaf", deaf.dial), ("good", good.dial)]) as bus:
                assert bus.is_connected

    assert run(test) == pytest.approx(10, abs=0.1)


def test_a_long_poll_takes_what_is_left_of_its_wait_along():
    async def test() -> None:
        async with Opened() as (bus, broker, scripted), anyio.create_task_group() as tasks:
            result = Result(tasks, lambda: bus.fetch("jobs", wait=30))
            await broker.joined()
            assert (await broker.hear(f.Fetch)).wait_ms == 30_000
            await trio.sleep(12)
            await broker.cut()
            again = await scripted.accept()
            await again.welcome()
            await again.joined()
            fetch = await again.hear(f.Fetch)
            assert 17_000 < fetch.wait_ms < 18_100
            await again.say(f.Reply(fetch.request, {"count": 0}))
            assert len(await result.get()) == 0

    run(test)
