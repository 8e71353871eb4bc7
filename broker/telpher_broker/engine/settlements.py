"""The latest settlements, for `explain`: in memory only, and bounded by what they name.

To remember one costs an append; nothing is looked up before somebody asks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from .records import Settled
    from .subscription import Subscription

NUMBERS_MAX: Final = 100_000


class Settlement(NamedTuple):
    """Why a message was settled (a `Reason`), and when, in ms since 1970."""

    reason: int
    settled_ms: int


class Settlements:
    """What was settled last; `NUMBERS_MAX` bounds how many numbers the records have together."""

    __slots__ = ("_latest", "_numbers")

    def __init__(self) -> None:
        self._latest: deque[tuple[int, Settled]] = deque()
        self._numbers = 0

    def note(self, settled_ms: int, record: Settled) -> None:
        """Remember a settlement, and forget the oldest ones beyond the bound."""
        latest = self._latest
        latest.append((settled_ms, record))
        self._numbers += len(record.offsets)
        while self._numbers > NUMBERS_MAX:
            self._numbers -= len(latest.popleft()[1].offsets)

    def find(self, subscription: Subscription, offset: int) -> Settlement | None:
        """The latest settlement of a message; None if it is not remembered."""
        number, name = subscription.channel.number, subscription.name
        for settled_ms, record in reversed(self._latest):
            if record.channel == number and record.subscription == name:
                offsets = record.offsets
                for index in range(0, len(offsets), 2):
                    if offsets[index] <= offset < offsets[index + 1]:
                        return Settlement(record.reason, settled_ms)
        return None
