"""What unfinished frames hold, over all connections: one budget, and who goes when it is spent.

A frame is kept until it is whole, and nobody can be made to finish one. Ten thousand connections
that each begin a frame of 16 MiB would be 160 GB; so those are closed that have not come in yet,
and then those that have held the most bytes for the longest. What is sent steadily, and small, is
the last to go.
"""

from __future__ import annotations

from typing import Final

from .connection import ClientConnection

# Down to so much of the budget at a time, so that it is not looked through for each read.
_KEPT: Final = 7 / 8


class Unfinished:
    """The unfinished frames by their connections. Times are seconds on a clock that only rises."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        # What it holds, and since when it holds anything without a pause.
        self._frames: dict[ClientConnection, tuple[int, float]] = {}

    def __contains__(self, connection: ClientConnection) -> bool:
        return connection in self._frames

    def note(self, connection: ClientConnection, now: float) -> list[ClientConnection]:
        """A connection has read; who is to be closed for the budget, and is forgotten here."""
        held, (known, since) = connection.unfinished_bytes, self._frames.get(connection, (0, now))
        if not held:
            self.forget(connection)
            return []
        # Less than before, and it is another frame.
        self._frames[connection] = (held, since if held >= known else now)
        self.bytes += held - known
        if self.bytes <= self.bytes_max:
            return []
        victims = []
        for victim in sorted(self._frames, key=lambda one: self._burden(one, now), reverse=True):
            if self.bytes <= self.bytes_max * _KEPT:
                break
            self.forget(victim)
            victims.append(victim)
        return victims

    def forget(self, connection: ClientConnection) -> None:
        """A connection has ended, or all its frames are whole."""
        held, _ = self._frames.pop(connection, (0, 0.0))
        self.bytes -= held

    def _burden(self, connection: ClientConnection, now: float) -> tuple[bool, float]:
        held, since = self._frames[connection]
        # A thousandth, so that of those that come at once the largest goes.
        return not connection.is_member, held * (now - since + 0.001)
