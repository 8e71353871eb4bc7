"""What the engine is given to call: pure functions for what it may not do itself.

Each gives the same answer to the same question, and none waits. Replay calls none of them but
`read`: what they answered stands in the records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .memory import Read


@dataclass(frozen=True, slots=True)
class Ports:
    """The functions.

    `read` gives back what the storage keeps at a place; None: nothing spills. `next_time` gives the
    first time that a cron expression names in a time zone after another time, in ms since 1970, or
    None if there is none, and raises ValueError with what is wrong; None: nothing is scheduled.
    """

    read: Read | None = None
    next_time: Callable[[str, str, int], int | None] | None = None
