"""Publishes that the broker holds back: noticed, so that nobody waits without knowing why.

A broker that answers everything else may let publishes wait: for room in a channel, a quota, or the
end of an alarm. Nothing is kept for this at each publish: numbers rise, so what flies with a number
from before a mark has flown since then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from .window import Publishing, Window

HELD_SECONDS: Final = 10.0
# Who was told once is told again after this.
AGAIN_SECONDS: Final = 300.0


class Held:
    """Looks for publishes that fly for long; to be asked now and then."""

    def __init__(self) -> None:
        self._number = 0
        self._marked_at = 0.0
        self._quiet_until = 0.0

    def look(
        self, windows: Iterable[Window], newest: Callable[[], int], now: float
    ) -> tuple[str, float] | None:
        """What it is published to and for how long, if there is one; `newest` gives a number
        that is higher than those that were given to requests."""
        seconds = now - self._marked_at
        if seconds < HELD_SECONDS:
            return None
        oldest: Publishing | None = None
        for window in windows:
            for publishing in window.flying.values():
                if oldest is None or publishing.number < oldest.number:
                    oldest = publishing
        is_held = oldest is not None and 0 < oldest.number <= self._number
        if not is_held:
            self._number, self._marked_at = newest(), now
        if oldest is None or not is_held or now < self._quiet_until:
            return None
        self._quiet_until = now + AGAIN_SECONDS
        return oldest.window.channel, seconds
