"""Schedules, as `telpher.admin.schedules`."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from telpher.admin.schedules import ScheduleInfo
from telpher.content import Body

from .asking import Asking


class ScheduleAdministration(Asking):
    """The verbs about schedules."""

    def set_schedule(
        self, name: str, expression: str, channel: str, body: Body, **options: Any
    ) -> ScheduleInfo:
        """Have the broker publish a message whenever a cron expression says so; the options are
        those of `telpher.Bus.set_schedule`."""
        set_schedule = partial(self._bus.set_schedule, name, expression, channel, body)
        return self._run(partial(set_schedule, **options))

    def schedule(self, name: str, *, count: int = 5) -> ScheduleInfo:
        """A schedule and its next times."""
        return self._run(partial(self._bus.schedule, name, count=count))

    def schedules(self, prefix: str = "") -> list[ScheduleInfo]:
        """Every schedule whose name begins so, in order of name."""
        return self._run(self._bus.schedules(prefix).all)

    def pause_schedule(self, name: str) -> ScheduleInfo:
        """Let a schedule rest."""
        return self._run(partial(self._bus.pause_schedule, name))

    def resume_schedule(self, name: str) -> ScheduleInfo:
        """Let a schedule go on from now."""
        return self._run(partial(self._bus.resume_schedule, name))

    def delete_schedule(self, name: str) -> None:
        """Have a schedule no more; what it has published stays."""
        self._run(partial(self._bus.delete_schedule, name))

    def next_times(
        self,
        expression: str,
        *,
        timezone: str = "UTC",
        count: int = 5,
        after: datetime | None = None,
    ) -> list[float]:
        """When an expression is due next, in seconds since 1970."""
        next_times = partial(self._bus.next_times, expression, timezone=timezone)
        return self._run(partial(next_times, count=count, after=after))
