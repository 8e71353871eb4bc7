"""Schedules: messages that the broker publishes by itself, by a cron expression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from telpher.protocol.batch import Columns, decode, encode

from ..content import Body, as_body, as_headers, as_key, as_name, as_properties, as_time_ms
from .asking import Asking
from .pages import Pages
from .told import Info

CatchUp = Literal["skip", "once", "all"]
CATCH_UPS: Final[tuple[CatchUp, ...]] = ("skip", "once", "all")


@dataclass(frozen=True)
class ScheduleInfo(Info):
    """A schedule: `body`, `key` and `headers` go to `channel` whenever `expression` says so on the
    clocks of `timezone`.

    Times are in seconds since 1970: `due_at` is the next one (None: there is none), `times` are the
    next few where they were asked for. `fired` counts how often its message was stored, `fired_at`
    is the last of those (None: never); `failure` says why it was not the last time (None: it was).
    """

    name: str
    channel: str
    expression: str
    timezone: str
    catch_up: str
    paused: bool
    due_at: float | None
    times: tuple[float, ...]
    fired: int
    fired_at: float | None
    failure: str | None
    body: bytes
    key: str | None
    headers: Mapping[str, Any]
    raw: Mapping[str, Any] = field(repr=False, compare=False)


class ScheduleAdministration(Asking):
    """The verbs about schedules."""

    async def set_schedule(
        self,
        name: str,
        expression: str,
        channel: str,
        body: Body,
        *,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        priority: int | None = None,
        timezone: str = "UTC",
        catch_up: CatchUp = "skip",
        paused: bool = False,
    ) -> ScheduleInfo:
        """Have the broker publish a message whenever a cron expression says so; change the schedule
        of this name if there is one.

        `channel` may be an exchange, too. `catch_up` is what becomes of the times that pass while
        the broker is not running: none, one message for all of them, or one for each. Raises
        BadRequest for an expression or a time zone that means nothing.

            await bus.set_schedule("nightly", "30 2 * * *", "jobs", b"clean up",
                                   timezone="Europe/Berlin", catch_up="once")
        """
        given_headers = as_headers(headers)
        columns = Columns(
            dict(as_properties(None, ttl, priority)) or None,
            (as_body(body),),
            None if key is None else (as_key(key),),
            None if given_headers is None else (given_headers,),
        )
        told = await self.call(
            "set_schedule",
            schedule=as_name(name),
            channel=as_name(channel),
            expression=expression,
            timezone=timezone,
            catch_up=catch_up,
            paused=paused,
            batch=encode(columns),
        )
        return schedule_info(told)

    async def schedule(self, name: str, *, count: int = 5) -> ScheduleInfo:
        """A schedule and its `count` (0 to 50) next times. Raises UnknownSchedule."""
        return schedule_info(await self.call("schedule", schedule=as_name(name), count=count))

    def schedules(self, prefix: str = "") -> Pages[ScheduleInfo]:
        """Every schedule whose name begins so, in order of name.

        async for schedule in bus.schedules():
            print(schedule.name, schedule.due_at)
        """

        async def page(after: Any) -> tuple[list[ScheduleInfo], Any]:
            told = await self.call("schedules", prefix=prefix or None, after=after, limit=100)
            return list(map(schedule_info, told["schedules"])), told["next"]

        return Pages(page)

    async def pause_schedule(self, name: str) -> ScheduleInfo:
        """Let a schedule rest; what would have been due is not made up for. Raises
        UnknownSchedule."""
        return schedule_info(await self.call("pause_schedule", schedule=as_name(name)))

    async def resume_schedule(self, name: str) -> ScheduleInfo:
        """Let a schedule go on from now. Raises UnknownSchedule."""
        return schedule_info(await self.call("resume_schedule", schedule=as_name(name)))

    async def delete_schedule(self, name: str) -> None:
        """Have a schedule no more; what it has published stays. Raises UnknownSchedule."""
        await self.call("delete_schedule", schedule=as_name(name))

    async def next_times(
        self,
        expression: str,
        *,
        timezone: str = "UTC",
        count: int = 5,
        after: datetime | None = None,
    ) -> list[float]:
        """When an expression is due after now, or after a datetime with a time zone: the next
        `count` (1 to 50) times, in seconds since 1970. Raises BadRequest."""
        told = await self.call(
            "next_times",
            expression=expression,
            timezone=timezone,
            count=count,
            after_ms=None if after is None else as_time_ms("after", after),
        )
        return [time_ms / 1000 for time_ms in told["times"]]


def schedule_info(told: Mapping[str, Any]) -> ScheduleInfo:
    """What the broker told of a schedule."""
    columns = decode(told["batch"])
    return ScheduleInfo(
        told["name"],
        told["channel"],
        told["expression"],
        told["timezone"],
        told["catch_up"],
        told["paused"],
        _seconds(told["due_ms"]),
        tuple(time_ms / 1000 for time_ms in told.get("times", ())),
        told["fired"],
        _seconds(told["fired_ms"]),
        told["failure"],
        columns.bodies[0],
        columns.keys[0] if columns.keys else None,
        (columns.headers[0] if columns.headers else None) or {},
        told,
    )


def _seconds(time_ms: int | None) -> float | None:
    return None if time_ms is None else time_ms / 1000
