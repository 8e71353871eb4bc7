"""Guessing made slow: after failures, the next attempts from there and at that user wait longer.

Nobody is locked out: a wait is short, the longest a few seconds, and ends. Failures are forgotten
by half each minute. What is remembered is bounded; the oldest goes first.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

FREE_FAILURES: Final = 3
FIRST_SECONDS: Final = 0.1
HALF_LIFE_SECONDS: Final = 60.0
# An address may only harm itself; of a user, others may try to spoil the access.
ADDRESS_SECONDS_MAX: Final = 4.0
USER_SECONDS_MAX: Final = 1.0
REMEMBERED_MAX: Final = 10_000


class Throttle:
    """Counts failures by address and by user. Times are seconds on a clock that only rises."""

    def __init__(self) -> None:
        # By what has failed: how often, and when that was counted.
        self._failures: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def charge(self, address: str, user: str, now: float) -> float:
        """Count an attempt as failed until it has succeeded; how many seconds it must wait.

        Counted at once, so that many at the same time do not all come first.
        """
        return max(
            _wait(self._count("address", address, now, 1.0), ADDRESS_SECONDS_MAX),
            _wait(self._count("user", user, now, 1.0), USER_SECONDS_MAX),
        )

    def acquit(self, address: str, user: str, now: float) -> None:
        """An attempt that was charged has succeeded."""
        self._count("address", address, now, -1.0)
        self._count("user", user, now, -1.0)

    def _count(self, kind: str, name: str, now: float, change: float) -> float:
        failures, since = self._failures.pop((kind, name), (0.0, now))
        failures = failures * math.exp2((since - now) / HALF_LIFE_SECONDS) + change
        if failures > 0:
            self._failures[kind, name] = (failures, now)
            if len(self._failures) > REMEMBERED_MAX:
                self._failures.popitem(last=False)
        return failures

    def __len__(self) -> int:
        return len(self._failures)


def _wait(failures: float, most: float) -> float:
    """The seconds to wait: none at first, then twice as long each time."""
    if failures <= FREE_FAILURES:
        return 0.0
    return min(FIRST_SECONDS * math.exp2(min(failures - FREE_FAILURES - 1, 10.0)), most)
