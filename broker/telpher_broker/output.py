"""What was said and has not left, over all connections: one budget, and who goes for it.

Deliveries keep within it by themselves, by shares (`Turn.may_send`). Answers to CALLs do not, and
may be large: while the budget is spent no CALL is taken, until what holds it has left, or those are
closed that have taken nothing of what waits for them for a while.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import trio

from .logs import get_logger

if TYPE_CHECKING:
    from .connection import ClientConnection

log = get_logger()

STALLED_SECONDS: Final = 5.0


class Output:
    """`bytes` is what waits to leave, `bytes_max` what may."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def is_full(self) -> bool:
        """Whether more waits than may."""
        return self.bytes > self.bytes_max

    def change(self, size: int) -> None:
        """So many bytes more wait, or fewer."""
        self.bytes += size
        if size < 0 and not self.is_full:
            self._waiting.unpark()

    async def room(self) -> None:
        """Wait until it is within its bound. One goes on after the other: all together would take
        their time, and fill it again."""
        while self.is_full:
            await self._waiting.park()
        self._waiting.unpark()

    def make_room(self, connections: Iterable[ClientConnection]) -> None:
        """If it is beyond its bound, close who has taken nothing for a while, and first who has
        the most waiting. To be called about once a second."""
        excess = self.bytes - self.bytes_max
        if excess <= 0:
            return
        since = trio.current_time() - STALLED_SECONDS
        stalled = [one for one in connections if one.unsent_bytes and one.took_at < since]
        for connection in sorted(stalled, key=lambda one: one.unsent_bytes, reverse=True):
            if excess <= 0:
                break
            excess -= connection.unsent_bytes
            log.seldom(
                "warning",
                "peer takes nothing; connection dropped for output_bytes_total",
                peer=connection.peer,
                client=connection.client,
                bytes=connection.unsent_bytes,
            )
            connection.break_off()
