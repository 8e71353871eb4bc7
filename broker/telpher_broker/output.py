"""What was said and has not left, over all connections, and who goes for it.

Deliveries keep within their part of `output_bytes_total` by themselves, by shares
(`Turn.may_send`); beyond it, large messages wait. Answers to CALLs do not, and may be large: a
quarter of it is theirs, and while that is spent no CALL is taken. Nobody can be made to read. So
while others are held up, those are closed that have had the most bytes waiting for the longest, as
it is with unfinished frames: to take a little now and then makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

import trio

from .logs import get_logger

if TYPE_CHECKING:
    from .connection import ClientConnection

log = get_logger()

# For so long everybody may have something waiting, whoever else is held up.
PATIENCE_SECONDS: Final = 5.0


class Output:
    """`bytes` is what answers have waiting to leave, `bytes_max` what they may."""

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

    def make_room(self, connections: Collection[ClientConnection], excess: int) -> None:
        """Close who holds up the CALLs that wait for room, and who has so much of deliveries that
        others are held up by. To be called about once a second."""
        _close(connections, excess, lambda one: one.unsent_body_bytes)
        if self._waiting:
            _close(connections, self.bytes - self.bytes_max, lambda one: one.unsent_answer_bytes)


def _close(
    connections: Collection[ClientConnection],
    excess: int,
    held: Callable[[ClientConnection], int],
) -> None:
    """Close connections until so much less is held."""
    if excess <= 0:
        return
    now = trio.current_time()
    waits = [one for one in connections if held(one) and now - one.waits_since >= PATIENCE_SECONDS]
    waits.sort(key=lambda one: held(one) * (now - one.waits_since), reverse=True)
    for connection in waits:
        if excess <= 0:
            break
        excess -= held(connection)
        log.seldom(
            "warning",
            "peer takes too little; connection dropped for output_bytes_total",
            peer=connection.peer,
            client=connection.client,
            bytes=held(connection),
            seconds=round(now - connection.waits_since, 1),
        )
        connection.break_off()
