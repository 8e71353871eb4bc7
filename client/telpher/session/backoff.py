"""How long to wait before the next attempt: doubled each time, capped, and spread by chance."""

from __future__ import annotations

from typing import Final

FIRST_SECONDS: Final = 0.05
MOST_SECONDS: Final = 5.0


def reconnect_seconds(attempt: int, chance: float) -> float:
    """The wait before reconnect `attempt` (from 0), `chance` being a number from 0 to 1.

    Half of the wait is fixed and half is chance, so that a thousand clients of a broker that was
    restarted do not come back in the same millisecond.

    >>> reconnect_seconds(0, 1.0), reconnect_seconds(50, 0.0)
    (0.05, 2.5)
    """
    whole = min(MOST_SECONDS, FIRST_SECONDS * (1 << min(attempt, 30)))
    return whole * (0.5 + 0.5 * chance)


def retry_seconds(attempt: int, first_seconds: float = 1.0, most_seconds: float = 300.0) -> float:
    """The delay of a message whose handler failed at delivery number `attempt` (from 1).

    >>> [retry_seconds(attempt) for attempt in (1, 2, 3, 30)]
    [1.0, 2.0, 4.0, 300.0]
    """
    return min(most_seconds, first_seconds * (1 << min(attempt - 1, 60)))
