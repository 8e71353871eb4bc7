"""What waits to leave is bounded over all connections; who takes none of it goes."""

from __future__ import annotations

import pytest
import trio

from telpher.protocol import frames as f
from telpher_broker.output import STALLED_SECONDS, Output

from .harness import batch, house

pytestmark = pytest.mark.trio
TOTAL = 64 * 1024


async def test_an_answer_that_nobody_takes_holds_calls_up_for_a_while_and_nothing_else(
    autojump_clock: trio.abc.Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    async with house(output_bytes_total=TOTAL) as place:
        peer, asking = await place.peer(), await place.peer()
        large = f.Publish(1, "jobs", None, 0, None, batch(b"x" * 2 * TOTAL))
        assert isinstance(await peer.ask(large), f.Confirm)
        deaf = place.stranger(lockstep=True)
        await deaf.open()
        await deaf.say(f.Call(1, "browse", {"channel": "jobs"}))
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await asking.say(f.Call(2, "inspect", {"channel": "jobs"}))
        await trio.sleep(STALLED_SECONDS / 2)
        small = f.Publish(3, "jobs", None, 0, None, batch(b"x"))
        assert isinstance(await peer.ask(small), f.Confirm)
        reply = await asking.hear()
        assert isinstance(reply, f.Reply)
        assert STALLED_SECONDS <= trio.current_time() - began <= STALLED_SECONDS + 2
        assert place.broker.statistics()["connections"] == 2
    assert "peer takes nothing" in capfd.readouterr().err


async def test_who_takes_slowly_stays(autojump_clock: trio.abc.Clock) -> None:
    async with house(output_bytes_total=TOTAL) as place:
        peer, asking = await place.peer(), await place.peer()
        large = f.Publish(1, "jobs", None, 0, None, batch(b"x" * 4 * TOTAL))
        assert isinstance(await peer.ask(large), f.Confirm)
        slow = place.stranger(lockstep=True)
        await slow.open()
        await slow.say(f.Call(1, "browse", {"channel": "jobs"}))
        await trio.testing.wait_all_tasks_blocked()
        await asking.say(f.Call(2, "inspect", {"channel": "jobs"}))
        taken = 0
        while taken <= 4 * TOTAL:  # the answer is a little longer
            await trio.sleep(STALLED_SECONDS - 1.5)
            taken += len(await slow.stream.receive_some(TOTAL))
        assert isinstance(await asking.hear(), f.Reply)
        assert place.broker.statistics()["connections"] == 3


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
