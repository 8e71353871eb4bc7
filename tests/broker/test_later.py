"""Delays and schedules in the whole broker: on its clock, with its calendar, over restarts."""

from __future__ import annotations

import time

import pytest
import trio
import trio.testing

from telpher.protocol import frames as f
from telpher_broker import rounds
from telpher_storage import MemoryRecordsStorage

from .harness import Peer, batch, house

pytestmark = pytest.mark.trio
HOUR_MS = 3_600_000


async def consumed(peer: Peer) -> f.Deliver:
    """The first delivery to a consumer of `jobs`."""
    await peer.say(f.Consume(9, "jobs", None, {"prefetch": 10, "lease_ms": HOUR_MS}))
    while not isinstance(frame := await peer.hear(), f.Deliver):
        pass
    return frame


async def test_a_due_time_survives_a_restart_by_the_wall_clock_of_then(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine was off for longer than the delay: what is due comes at once."""
    storage = MemoryRecordsStorage()
    now_ns = time.time_ns()
    due_ms = now_ns // 1_000_000 + HOUR_MS
    async with house(storage) as place:
        late = f.Publish(1, "jobs", None, 0, None, batch(b"late", due_ms=due_ms))
        assert isinstance(await (await place.peer()).ask(late), f.Confirm)
    storage.close(clean=False)
    monkeypatch.setattr(rounds.time, "time_ns", lambda: now_ns + 2 * HOUR_MS * 1_000_000)
    async with house(storage) as place:
        began = trio.current_time()
        await consumed(await place.peer(heartbeat_ms=120_000))
        assert trio.current_time() == began


async def test_a_step_of_the_wall_clock_moves_no_delay(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = time.time_ns()
    async with house() as place:
        peer = await place.peer(heartbeat_ms=120_000)
        began = trio.current_time()
        late = f.Publish(1, "jobs", None, 0, None, batch(b"late", delay_ms=30_000))
        assert isinstance(await peer.ask(late), f.Confirm)
        monkeypatch.setattr(rounds.time, "time_ns", lambda: now_ns + HOUR_MS * 10**9)
        await consumed(peer)
        assert trio.current_time() - began == pytest.approx(30, abs=0.1)


async def test_a_schedule_fires_on_the_broker_s_clock_and_makes_up_for_a_restart(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every minute; then the machine is off for an hour, and one message stands for it."""
    storage = MemoryRecordsStorage()
    noon_ns = 1_800_014_400 * 10**9
    monkeypatch.setattr(rounds.time, "time_ns", lambda: noon_ns + 1)
    given = {
        "schedule": "beat",
        "channel": "jobs",
        "expression": "* * * * *",
        "timezone": "Europe/Berlin",
        "catch_up": "once",
        "batch": batch(b"beat"),
    }
    async with house(storage) as place:
        peer = await place.peer(heartbeat_ms=120_000)
        told = await peer.ask(f.Call(1, "set_schedule", given))
        assert isinstance(told, f.Reply)
        assert told.result["due_ms"] == noon_ns // 10**6 + 60_000
        began = trio.current_time()
        delivered = await consumed(peer)
        assert delivered.parts[0][4]["scheduled_ms"] == noon_ns // 10**6 + 60_000
        assert trio.current_time() - began == pytest.approx(60, abs=0.1)
        await peer.ask(f.Settle(2, 9, f.Outcome.ACK, (0, 1), 0))
    storage.close(clean=False)
    monkeypatch.setattr(rounds.time, "time_ns", lambda: noon_ns + HOUR_MS * 10**6 + 1)
    async with house(storage) as place:
        peer = await place.peer(heartbeat_ms=120_000)
        missed = await consumed(peer)
        assert missed.parts[0][4]["scheduled_ms"] == noon_ns // 10**6 + 120_000
        following = await peer.hear()
        assert isinstance(following, f.Deliver)
        scheduled_ms = following.parts[0][4]["scheduled_ms"]
        assert scheduled_ms == noon_ns // 10**6 + HOUR_MS + 60_000
