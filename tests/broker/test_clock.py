"""G15: a wall clock that is set while the broker runs, and one that was set before it starts.

Time is virtual, and the wall clock is what `rounds.py` reads. A broker reads it once, at its start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from telpher.protocol import frames as f
from telpher_broker import rounds
from telpher_storage import MemoryRecordsStorage, Position

from .harness import House, Peer, batch, house

TEN_YEARS_MS = 10 * 365 * 86_400_000
SetClock = Callable[[int], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Sets the wall clock so many ms before or after the real time; it goes on from there."""
    real_ms = time.time_ns() // 1_000_000

    def set_clock(ms: int) -> None:
        def wall_ns() -> int:
            return (real_ms + ms + round(trio.current_time() * 1000)) * 1_000_000

        monkeypatch.setattr(rounds.time, "time_ns", wall_ns)

    set_clock(0)
    return set_clock


async def say_publish(peer: Peer, request: int, channel: str, **properties: int) -> None:
    frame = f.Publish(request, channel, None, 0, None, batch(b"x", **properties))
    assert isinstance(await peer.ask(frame), f.Confirm)


async def consuming(place: House, channel: str, **options: Any) -> Peer:
    peer = await place.peer(heartbeat_ms=120_000)
    answer = await peer.ask(f.Consume(1, channel, None, {"prefetch": 10, **options}))
    assert isinstance(answer, f.Reply)
    return peer


async def first_published_ms(peer: Peer) -> int:
    deliver = await peer.hear()
    assert isinstance(deliver, f.Deliver)
    published_ms: int = deliver.parts[0][2]
    return published_ms


@pytest.mark.trio
@pytest.mark.parametrize("step_ms", [TEN_YEARS_MS, -TEN_YEARS_MS])
async def test_a_step_moves_nothing_while_the_broker_runs(
    autojump_clock: MockClock, set_clock: SetClock, step_ms: int
) -> None:
    async with house() as place:
        publisher = await place.peer(heartbeat_ms=120_000)
        await say_publish(publisher, 1, "leased")
        await say_publish(publisher, 2, "delayed", delay_ms=5000)
        await say_publish(publisher, 3, "short", ttl_ms=3000)
        holder = await consuming(place, "leased", lease_ms=4000)
        before_ms = await first_published_ms(holder)
        delayed = await consuming(place, "delayed")
        began = trio.current_time()
        await trio.sleep(1)
        set_clock(step_ms)

        await say_publish(publisher, 4, "leased")
        assert 0 < await first_published_ms(holder) - before_ms < 1100
        await trio.sleep(1.5)
        assert trio.current_time() - began < 3
        (short,) = await listed(publisher, "short")
        assert short["messages"] == 1
        assert isinstance(await holder.hear(), f.Lost)
        assert trio.current_time() - began == pytest.approx(4, abs=0.1)
        (short,) = await listed(publisher, "short")
        assert short["messages"] == 0
        await first_published_ms(delayed)
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)


async def listed(peer: Peer, channel: str) -> list[dict[str, Any]]:
    answer = await peer.ask(f.Call(99, "list", {"prefix": channel}))
    assert isinstance(answer, f.Reply)
    found: list[dict[str, Any]] = answer.result["channels"]
    return found


@pytest.mark.trio
async def test_a_step_drops_no_peer_that_speaks_and_keeps_none_that_does_not(
    autojump_clock: MockClock, set_clock: SetClock
) -> None:
    async with house() as place:
        silent = await place.peer(heartbeat_ms=5000)
        await trio.sleep(4)
        set_clock(TEN_YEARS_MS)
        await trio.sleep(1)
        set_clock(-TEN_YEARS_MS)
        assert isinstance(goaway := await silent.hear(), f.Goaway)
        assert goaway.code == "heartbeat_missed"
        assert trio.current_time() == pytest.approx(10, abs=0.1)


class TellingStorage(MemoryRecordsStorage):
    def __init__(self) -> None:
        super().__init__()
        self.times_ms: list[int] = []

    def append(self, records: Sequence[bytes], time_ms: int = 0) -> list[Position]:
        self.times_ms.append(time_ms)
        return super().append(records, time_ms)


@pytest.mark.trio
async def test_no_block_is_earlier_than_the_one_before_it_though_the_clock_was_set_back(
    autojump_clock: MockClock, set_clock: SetClock
) -> None:
    """Not even one that published nothing: a point in time would give up what came before it."""
    storage = TellingStorage()
    async with house(storage) as place:
        peer = await place.peer(heartbeat_ms=120_000)
        await say_publish(peer, 1, "jobs")
        await trio.sleep(100)
        consumer = await consuming(place, "jobs")
        await first_published_ms(consumer)
    storage.close(clean=False)
    set_clock(-50_000)
    async with house(storage) as place:
        await say_publish(await place.peer(), 1, "jobs")
    assert storage.times_ms == sorted(storage.times_ms)
    assert storage.times_ms[-1] - storage.times_ms[0] >= 100_000


@pytest.mark.trio
@pytest.mark.parametrize(
    ("step_ms", "messages", "due"),
    [
        # Ten years later everything that had a time is over it.
        (TEN_YEARS_MS, 0, 0.0),
        # Ten years before, time goes on from the newest message, and nothing comes later for it.
        (-TEN_YEARS_MS, 1, 5.0),
    ],
)
async def test_a_start_counts_by_the_clock_that_it_finds(
    autojump_clock: MockClock,
    set_clock: SetClock,
    step_ms: int,
    messages: int,
    due: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    storage = MemoryRecordsStorage()
    async with house(storage) as place:
        peer = await place.peer(heartbeat_ms=120_000)
        await say_publish(peer, 1, "short", ttl_ms=3000)
        await say_publish(peer, 2, "delayed", delay_ms=5000)
    storage.close(clean=False)
    set_clock(step_ms)
    capsys.readouterr()
    async with house(storage) as place:
        assert ("wall clock" in capsys.readouterr().err) == (step_ms < 0)
        began = trio.current_time()
        peer = await place.peer(heartbeat_ms=120_000)
        await trio.sleep(0.01)
        (short,) = await listed(peer, "short")
        assert short["messages"] == messages
        delayed = await consuming(place, "delayed")
        await first_published_ms(delayed)
        assert trio.current_time() - began == pytest.approx(due, abs=0.1)
