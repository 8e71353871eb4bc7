"""What one connection may ask of a round: what is dear to decide holds up nobody else."""

from __future__ import annotations

from typing import Any

import pytest
import trio.testing

from telpher.protocol import frames as f
from telpher.protocol.frames import Level
from telpher_broker.engine.engine import Engine

from .harness import House, Peer, batch, house

pytestmark = pytest.mark.trio
DEAR = 5
DEAR_SECONDS = 1.0
MANY = 5


@pytest.fixture(autouse=True)
def _dear(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """Each publish to `dear` takes `DEAR_SECONDS` to be decided."""
    decide = Engine.handle

    def handle(engine: Engine, session: int, frame: Any) -> None:
        decide(engine, session, frame)
        if isinstance(frame, f.Publish) and frame.channel == "dear":
            autojump_clock.jump(DEAR_SECONDS)

    monkeypatch.setattr(Engine, "handle", handle)


def publish(request: int, channel: str) -> f.Publish:
    return f.Publish(request, channel, None, 0, None, batch(b"x"))


async def enter(place: House, connections: int) -> list[Peer]:
    return [await place.peer(heartbeat_ms=120_000) for _ in range(connections)]


@pytest.mark.parametrize("connections", [2, MANY + 1])
async def test_others_are_answered_between_requests_that_are_dear(
    autojump_clock: trio.testing.MockClock, connections: int
) -> None:
    async with house() as place:
        hog, other, *_ = await enter(place, connections)
        # Whose task has the first turn is random.
        for attempt in range(1, 11):
            began = trio.current_time()
            await hog.say(*(publish(request, "dear") for request in range(1, DEAR + 1)))
            assert await other.ask(publish(attempt, "cheap")) == f.Confirm(
                attempt, attempt - 1, Level.WRITTEN
            )
            assert trio.current_time() - began <= 2 * DEAR_SECONDS
            heard = [await hog.hear() for _ in range(DEAR)]
            first = (attempt - 1) * DEAR
            assert heard == [f.Confirm(n + 1, first + n, Level.WRITTEN) for n in range(DEAR)]
            assert trio.current_time() - began == pytest.approx(DEAR * DEAR_SECONDS, abs=0.1)


@pytest.mark.parametrize("connections", [1, MANY + 1])
async def test_no_more_is_taken_from_who_has_asked_for_more_than_its_share(
    autojump_clock: trio.testing.MockClock, connections: int
) -> None:
    async with house() as place:
        hog, *_ = await enter(place, connections)
        for first in range(0, 20 * DEAR, DEAR):
            await hog.say(*(publish(first + n, "dear") for n in range(DEAR)))
            await trio.testing.wait_all_tasks_blocked()
        # What one read may have is taken, and with many connections that of the next one.
        decided = place.broker.engine.statistics()["published"]
        assert decided < 5 * DEAR
        heard = [await hog.hear() for _ in range(20 * DEAR)]
        assert [confirm.request for confirm in heard] == list(range(20 * DEAR))


@pytest.mark.parametrize("connections", [1, MANY + 1])
async def test_what_was_asked_before_a_connection_ended_is_done(
    autojump_clock: trio.testing.MockClock, connections: int
) -> None:
    async with house() as place:
        hog, *_ = await enter(place, connections)
        await hog.say(*(publish(request, "dear") for request in range(1, DEAR + 1)), f.Goodbye(0))
        await hog.stream.aclose()
        await trio.sleep(2 * DEAR * DEAR_SECONDS)
        assert place.broker.engine.statistics()["published"] == DEAR
        assert place.broker.engine.statistics()["sessions"] == connections - 1
