"""The records of schedules.

`records` has what holds of all records, and their numbers.
"""

from __future__ import annotations

from typing import NamedTuple


class ScheduleSet(NamedTuple):
    """A schedule is this from now on, and due next at `due_ms` (0: it is not)."""

    schedule: str
    channel_name: str
    expression: str
    timezone: str
    catch_up: str
    is_paused: bool
    due_ms: int
    batch: bytes


class ScheduleRemoved(NamedTuple):
    """A schedule is gone."""

    schedule: str


class ScheduleFired(NamedTuple):
    """The time `due_ms` of a schedule is done with, and `next_ms` is the next (0: there is none).

    Its message is stored by another record of the same round, unless `failure` says why it could
    not be. `fired_ms` 0: it was missed and is skipped.
    """

    schedule: str
    due_ms: int
    fired_ms: int
    next_ms: int
    failure: str | None
