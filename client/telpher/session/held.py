"""Publishes that the broker holds back: noticed, so that nobody waits without knowing why.

A broker that answers everything else may let publishes wait: for room in a channel, a quota, or the
end of an alarm. Nothing is kept for this at each publish: numbers rise, so what flies with a number
from before a mark has flown since then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from .window import Publishing, Window

HELD_SECONDS: Final = 10.0
# Who was told once is told again after this.
AGAIN_SECONDS: Final = 300.0


class Held:
    """Looks for publishes that fly for long; to be asked now and then."""

    def __init__(self) -> None:
        self._quiet_until = 0.0
        self.begin()

    def begin(self) -> None:
        """On a new connection everything flies from now on, under the numbers that it had: the
        broker has held back nothing of it yet."""
        self._number = 0
        self._marked_at = -math.inf

    def look(self, windows: Iterable[Window], now: float) -> tuple[str, float] | None:
        """What it is published to and for how long, if there is one."""
        seconds = now - self._marked_at
        if seconds < HELD_SECONDS:
            return None
        flying = [publishing for window in windows for publishing in window.flying.values()]
        oldest = min(flying, key=_number_of, default=None)
        if oldest is None or oldest.number > self._number:
            self._number = max(map(_number_of, flying), default=0)
            self._marked_at = now
            return None
        if now < self._quiet_until:
            return None
        self._quiet_until = now + AGAIN_SECONDS
        return oldest.window.channel, seconds


def _number_of(publishing: Publishing) -> int:
    return publishing.number
