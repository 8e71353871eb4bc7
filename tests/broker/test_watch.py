"""Looking after connections takes little, however many there are and however soon some are due."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from telpher_broker.watch import Watch

pytestmark = pytest.mark.trio
SECONDS = 20


class Looked(SimpleNamespace):
    """What a Watch reads of a connection; counts how often it was looked at."""

    def __init__(self, number: int, opened_at: float) -> None:
        super().__init__(number=number, peer="p", client="c", is_paused=False)
        self.opened_at = self.heard_at = self.spoke_at = opened_at
        self.heartbeat_seconds = 120.0
        self.looks = 0
        self.dropped_at: float | None = None

    __hash__ = object.__hash__

    @property
    def is_member(self) -> bool:
        self.looks += 1
        return self.number >= 100

    def dismiss(self, code: str, text: str) -> None:
        self.dropped_at = trio.current_time()

    def hang_up(self) -> None:
        pass


async def test_of_many_only_those_are_looked_at_again_that_are_due_soon(
    autojump_clock: trio.abc.Clock,
) -> None:
    """A hundred strangers whose time is up one soon after the other, beside many members."""
    now = trio.current_time()
    connections: dict[int, Any] = {
        number: Looked(number, now + (number / 10 if number < 100 else 0)) for number in range(2000)
    }
    members = [one for one in connections.values() if one.number >= 100]
    async with trio.open_nursery() as nursery:
        watch = Watch(connections, 5.0, lambda _: False)
        nursery.start_soon(watch.run, lambda: None)
        for _ in range(SECONDS * 20):
            await trio.sleep(0.05)
            for number in [n for n, one in connections.items() if one.dropped_at is not None]:
                gone = connections.pop(number)
                assert gone.dropped_at - gone.opened_at <= 5.06
        nursery.cancel_scope.cancel()
    assert max(member.looks for member in members) <= SECONDS + 2
    assert min(connections) == 100
