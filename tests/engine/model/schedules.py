"""Schedules as the model has them: the next time is looked for as they are due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .publishing import Dropped, Promised, Publishing, Refused


@dataclass
class Schedule:
    """Its times are the multiples of `period_ms`."""

    name: str
    channel: str
    period_ms: int
    catch_up: str
    is_paused: bool
    batch: bytes
    due_ms: int = 0
    fired: int = 0
    fired_ms: int = 0
    has_failed: bool = False

    def go_on(self, after_ms: int) -> None:
        """It is due at the first of its times after that."""
        self.due_ms = 0 if self.is_paused else (after_ms // self.period_ms + 1) * self.period_ms

    @property
    def told(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "channel": self.channel,
            "expression": str(self.period_ms),
            "timezone": "UTC",
            "catch_up": self.catch_up,
            "paused": self.is_paused,
            "due_ms": self.due_ms or None,
            "batch": self.batch,
            "fired": self.fired,
            "fired_ms": self.fired_ms or None,
            "failure": self.has_failed,
        }


class Scheduling(Publishing):
    """What the broker publishes by itself."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.schedules: dict[str, Schedule] = {}
        self.started_ms = 0

    def set_schedule(self, schedule: Schedule) -> None:
        """Make it, or change it; how often it fired is kept."""
        former = self.schedules.get(schedule.name, schedule)
        schedule.fired, schedule.fired_ms = former.fired, former.fired_ms
        schedule.has_failed = former.has_failed
        schedule.go_on(self.now_ms)
        self.schedules[schedule.name] = schedule

    def fire(self) -> None:
        """Everything that is due, the earliest first. What was due before the start was missed."""
        while due := [s for s in self.schedules.values() if 0 < s.due_ms <= self.now_ms]:
            schedule = min(due, key=lambda s: (s.due_ms, s.name))
            was_missed = schedule.due_ms < self.started_ms
            schedule.has_failed = False
            if not was_missed or schedule.catch_up != "skip":
                self._fire(schedule)
            is_each = not was_missed or schedule.catch_up == "all"
            schedule.go_on(schedule.due_ms if is_each else self.started_ms - 1)

    def _fire(self, schedule: Schedule) -> None:
        promised: Promised = {}
        try:
            publication = self._prepare(None, schedule.channel, schedule.batch, promised)
        except (Refused, Dropped):
            schedule.has_failed = True
            return
        self._take(promised)
        self._store(publication, {"schedule": schedule.name, "scheduled_ms": schedule.due_ms})
        schedule.fired, schedule.fired_ms = schedule.fired + 1, self.now_ms
