"""What waits to leave is bounded over all connections; who holds the others up goes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pytest
import trio

from telpher.protocol import frames as f
from telpher_broker import logs
from telpher_broker.listeners import Peer as Origin
from telpher_broker.output import PATIENCE_SECONDS, Output

from .harness import House, Peer, batch, house

pytestmark = pytest.mark.trio
TOTAL = 64 * 1024
LARGE = 20_000
UNIX = Origin("unix", uid=os.geteuid())


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What is logged meanwhile."""
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    yield stream
    logs.configure("info", "auto")


async def ask_for_much(place: House, size: int) -> Peer:
    """Someone who asks for so much that is in `jobs`, and has to be made to take it."""
    deaf = place.stranger(lockstep=True)
    await deaf.open()
    filler = await place.peer()
    assert isinstance(await filler.ask(publish(1, size)), f.Confirm)
    await deaf.say(f.Call(1, "browse", {"channel": "jobs"}))
    await trio.testing.wait_all_tasks_blocked()
    return deaf


def publish(request: int, size: int) -> f.Publish:
    return f.Publish(request, "jobs", None, 0, None, batch(b"x" * size))


async def test_an_answer_that_nobody_takes_holds_calls_up_for_a_while_and_nothing_else(
    autojump_clock: trio.abc.Clock, logged: io.StringIO
) -> None:
    async with house(output_bytes_total=TOTAL) as place:
        peer, asking = await place.peer(), await place.peer()
        await ask_for_much(place, TOTAL)
        began = trio.current_time()
        await asking.say(f.Call(2, "inspect", {"channel": "jobs"}))
        await trio.sleep(PATIENCE_SECONDS / 2)
        assert isinstance(await peer.ask(publish(3, 1)), f.Confirm)
        reply = await asking.hear()
        assert isinstance(reply, f.Reply)
        assert PATIENCE_SECONDS <= trio.current_time() - began <= PATIENCE_SECONDS + 2
        assert place.broker.statistics()["connections"] == 3
    assert "peer takes too little" in logged.getvalue()


async def test_who_takes_a_little_now_and_then_holds_calls_up_no_longer(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with house(output_bytes_total=TOTAL) as place:
        asking = await place.peer()
        deaf = await ask_for_much(place, 20 * TOTAL)
        await asking.say(f.Call(2, "inspect", {"channel": "jobs"}))
        with trio.move_on_after(PATIENCE_SECONDS + 2) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take_slowly, deaf)
                assert isinstance(await asking.hear(), f.Reply)
                nursery.cancel_scope.cancel()
        assert not scope.cancelled_caught


async def test_who_takes_slowly_stays_while_it_holds_nobody_up(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with house(output_bytes_total=TOTAL) as place:
        deaf = await ask_for_much(place, 4 * TOTAL)
        with trio.move_on_after(60):
            await take_slowly(deaf)
        assert isinstance(await deaf.ask(f.Call(2, "inspect", {"channel": "jobs"})), f.Reply)


async def take_slowly(peer: Peer) -> None:
    while True:
        await trio.sleep(1)
        if not (data := await peer.stream.receive_some(TOTAL)):
            return
        peer.protocol.receive_data(data)


async def test_deliveries_that_are_taken_slowly_hold_up_no_call() -> None:
    """Sixteen of whom each has a quarter of what is for all of them, and takes none of it."""
    async with house(output_bytes_total=TOTAL) as place:
        peer = await place.peer()
        for number in range(16):
            deaf = place.stranger(lockstep=True)
            await deaf.open()
            await deaf.say(f.Consume(number, "jobs", None, {"prefetch": 1}))
            assert isinstance(await deaf.hear(), f.Reply)
            assert isinstance(await peer.ask(publish(number, TOTAL // 4)), f.Confirm)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            assert isinstance(await peer.ask(f.Call(99, "stats", {})), f.Reply)


async def test_who_holds_up_large_deliveries_to_others_goes(
    autojump_clock: trio.abc.Clock, logged: io.StringIO
) -> None:
    async with house(output_bytes_total=TOTAL) as place:
        peer, reader = await place.peer(), await place.peer()
        for number in range(3):
            deaf = place.stranger(lockstep=True)
            await deaf.open()
            await deaf.say(f.Consume(number, "jobs", None, {"prefetch": 1}))
            assert isinstance(await deaf.hear(), f.Reply)
            assert isinstance(await peer.ask(publish(number, LARGE)), f.Confirm)
        await trio.testing.wait_all_tasks_blocked()
        consume = f.Consume(1, "mine", None, {"prefetch": 1})
        assert isinstance(await reader.ask(consume), f.Reply)
        began = trio.current_time()
        assert isinstance(await peer.ask(publish(9, LARGE)._replace(channel="mine")), f.Confirm)
        assert isinstance(await reader.hear(), f.Deliver)
        assert PATIENCE_SECONDS <= trio.current_time() - began <= PATIENCE_SECONDS + 2
        assert place.broker.statistics()["connections"] == 4  # one was enough
    assert "peer takes too little" in logged.getvalue()


async def test_who_administers_by_the_unix_socket_is_not_held_up(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with house(output_bytes_total=TOTAL, trust_unix_socket=True) as place:
        await ask_for_much(place, TOTAL)
        operator = place.stranger(UNIX)
        await operator.open()
        with trio.fail_after(PATIENCE_SECONDS / 2):
            assert isinstance(await operator.ask(f.Call(1, "stats", {})), f.Reply)


async def test_of_all_who_wait_for_room_only_so_many_go_on_as_there_is_room_for() -> None:
    output, went_on = Output(100), []

    async def wait(number: int) -> None:
        await output.room()
        went_on.append(number)
        output.change(60)

    output.change(200)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(wait, number)
        await trio.testing.wait_all_tasks_blocked()
        assert went_on == []
        output.change(-180)
        await trio.testing.wait_all_tasks_blocked()
        assert len(went_on) == 2  # 20 waited, then 80, then 140
        output.change(-140)
        await trio.testing.wait_all_tasks_blocked()
        assert len(went_on) == 4
        output.change(-120)
