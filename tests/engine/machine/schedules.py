"""Schedules, which fire while time passes, and what is missed while the broker is down."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ..model import Schedule
from .base import pick, sources
from .publishing import Rows, rows
from .quotas import Quotas

periods = st.sampled_from([700, 700, 4000])
catch_ups = st.sampled_from(["once", "all", "once", "skip"])


class Schedules(Quotas):
    @rule(
        which=pick,
        name=st.sampled_from(["often", "daily"]),
        to=sources,
        period_ms=periods,
        catch_up=catch_ups,
        is_paused=st.sampled_from([False, False, True]),
        rows=rows,
    )
    def set_schedule(
        self,
        which: int,
        name: str,
        to: str,
        period_ms: int,
        catch_up: str,
        is_paused: bool,
        rows: Rows,
    ) -> None:
        batch = self.batch(to, 2, None, rows)
        schedule = Schedule(name, to, period_ms, catch_up, is_paused, batch)
        self.model.set_schedule(schedule)
        self.call(
            which,
            "set_schedule",
            schedule.told,
            schedule=name,
            channel=to,
            expression=str(period_ms),
            catch_up=catch_up,
            paused=is_paused,
            batch=batch,
        )

    @precondition(lambda self: self.model.schedules)
    @rule(snapshot_at=st.floats(0, 1), down_ms=st.sampled_from([900, 3000, 3000]))
    def miss_times(self, snapshot_at: float, down_ms: int) -> None:
        self.restart(snapshot_at, down_ms)
        self.advance(1)

    @precondition(lambda self: self.model.schedules)
    @rule(which=pick, number=pick, verb=st.sampled_from(["pause", "resume", "delete"]))
    def change_schedule(self, which: int, number: int, verb: str) -> None:
        schedules = list(self.model.schedules.values())
        schedule = schedules[number % len(schedules)]
        if verb == "delete":
            del self.model.schedules[schedule.name]
        elif schedule.is_paused == (verb == "resume"):
            schedule.is_paused = verb == "pause"
            schedule.go_on(self.model.now_ms)
        told = {} if verb == "delete" else schedule.told
        self.call(which, f"{verb}_schedule", told, schedule=schedule.name)
