"""Who has gone silent: heartbeats to both sides, and the time in which to introduce oneself.

A peer that says nothing for two heartbeats is dropped then, and not at the next look. What counts
is the time in which it could have been heard: while the process is stopped, or does not get its
turn, nobody is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

from telpher.protocol import frames as f
from telpher.protocol.errors import CODES

from .connection import ClientConnection
from .logs import get_logger

log = get_logger()

LOOK_SECONDS: Final = 1.0
# Many may fall silent one soon after the other.
_LOOK_SECONDS_MIN: Final = 0.05
# Each may have to be pinged, and others have their turn in between.
_LOOKED_AT_ONCE: Final = 100
# A loop that comes so much later than it should was not running.
_LATE_SECONDS: Final = 1.0


class Watch:
    """Looks after `connections`; `is_ended` tells whose session may do nothing any more."""

    def __init__(
        self,
        connections: Mapping[int, ClientConnection],
        open_seconds: float,
        is_ended: Callable[[int], bool],
    ) -> None:
        self._connections = connections
        self._open_seconds = open_seconds
        self._is_ended = is_ended

    async def run(self, each: Callable[[], None]) -> None:
        """Look, for ever; `each` is called with every look at all connections.

        That takes milliseconds where they are thousands: so in between only those are looked at
        whose time will be up before the next one.
        """
        now = trio.current_time()
        while True:
            until = now + LOOK_SECONDS
            soon = await self._look_at(list(self._connections.values()), now, until)
            each()
            while soon and (due := max(min(soon.values()), now + _LOOK_SECONDS_MIN)) < until:
                now = await self._sleep(due)
                soon = await self._look_at(list(soon), now, until)
            now = await self._sleep(until)

    async def _sleep(self, due: float) -> float:
        """Sleep until then; what time it is."""
        await trio.sleep_until(due)
        now = trio.current_time()
        if now - due > _LATE_SECONDS:
            self._forgive(now - due)
        return now

    async def _look_at(
        self, connections: Sequence[ClientConnection], now: float, until: float
    ) -> dict[ClientConnection, float]:
        """Look at these; whose time will be up before `until`, and when."""
        soon: dict[ClientConnection, float] = {}
        for index, connection in enumerate(connections, 1):
            if self._connections.get(connection.number) is connection:
                due = self._look(connection, now)
                if now < due < until:
                    soon[connection] = due
            if index % _LOOKED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return soon

    def _forgive(self, seconds: float) -> None:
        """Nobody could be heard for so long."""
        for connection in self._connections.values():
            connection.heard_at += seconds
            connection.opened_at += seconds

    def _look(self, connection: ClientConnection, now: float) -> float:
        """Drop it, ping it or let it be; when its time will be up."""
        if not connection.is_member:
            due = connection.opened_at + self._open_seconds
            if now >= due:
                connection.dismiss("slow_start", CODES["slow_start"])
                connection.hang_up()
            return due
        if self._is_ended(connection.number):
            connection.hang_up()
            return now + LOOK_SECONDS
        due = connection.heard_at + 2 * connection.heartbeat_seconds
        if connection.is_paused:
            due = now + LOOK_SECONDS
        elif now >= due:
            log.seldom(
                "warning",
                "peer is silent; connection dropped",
                peer=connection.peer,
                client=connection.client,
            )
            connection.dismiss("heartbeat_missed", CODES["heartbeat_missed"])
            connection.hang_up()
        if now < due and now - connection.spoke_at > connection.heartbeat_seconds / 2:
            connection.say(f.Ping(0))
            connection.flush()
        return due
