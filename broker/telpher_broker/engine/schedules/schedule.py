"""Schedules: messages that the broker publishes by itself, again and again, by a cron expression.

A schedule is immutable, and the calendar keeps the current one under each name, so a view of all
of them is a copy of references.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .. import ordered
from ..ordered import Ordered

# What becomes of the times that passed while the broker was not running: none, one message for all
# of them, or one for each.
SKIP: Final = "skip"
ONCE: Final = "once"
ALL: Final = "all"
CATCH_UPS: Final = (SKIP, ONCE, ALL)


class Schedule(NamedTuple):
    """`batch` goes to `channel` whenever `expression` says so on the clocks of `timezone`.

    `due_ms` is the next time, 0 while there is none. `fired` counts the times that its messages
    were stored, `fired_ms` is the last of those (0: never), and `failure` says why the latest time
    they were not, None if they were.
    """

    name: str
    channel: str
    expression: str
    timezone: str
    catch_up: str
    is_paused: bool
    due_ms: int
    batch: bytes
    fired: int = 0
    fired_ms: int = 0
    failure: str | None = None


class Calendar:
    """All schedules, by name and by when they are due.

    Volatile are `alarm_ms` and `caught_up`: how many missed times of a schedule were made up for
    since the start.
    """

    __slots__ = ("_due", "alarm_ms", "caught_up", "schedules")

    def __init__(self) -> None:
        self.schedules: dict[str, Schedule] = {}
        self._due: Ordered[tuple[int, str]] = ()
        self.alarm_ms = 0
        self.caught_up: dict[str, int] = {}

    @property
    def next_due_ms(self) -> int | None:
        """When the next one is due, in ms since 1970."""
        return self._due[0][0] if self._due else None

    def due(self, now_ms: int) -> Schedule | None:
        """The one that is due first, if one is."""
        if not self._due or self._due[0][0] > now_ms:
            return None
        return self.schedules[self._due[0][1]]

    def put(self, schedule: Schedule) -> None:
        """Have this schedule, in place of the one of its name."""
        former = self.schedules.get(schedule.name)
        if former is not None and former.due_ms:
            self._due = ordered.remove(self._due, (former.due_ms, former.name))
        self.schedules[schedule.name] = schedule
        if schedule.due_ms:
            self._due = ordered.add(self._due, (schedule.due_ms, schedule.name))

    def remove(self, name: str) -> None:
        """Have no schedule of this name any more."""
        former = self.schedules.pop(name)
        self.caught_up.pop(name, None)
        if former.due_ms:
            self._due = ordered.remove(self._due, (former.due_ms, name))
