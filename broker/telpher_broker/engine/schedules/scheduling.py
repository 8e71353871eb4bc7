"""Scheduling: setting schedules, and publishing their messages when they are due.

When a schedule is next due is asked of a port and stands in the record, so replay knows nothing of
calendars. That it fired, when it is due again, and its message are records of one round: so over
any crash it has fired or not, and never twice for one time.
"""

from __future__ import annotations

from typing import Any, Final

from telpher.protocol import batch as batches
from telpher.protocol.errors import BatchError
from telpher.protocol.frames import Options

from .. import records as r
from ..arguments import Arguments, Verb
from ..decide import check_full_name
from ..limits.lines import Postponed
from ..publish import prepare, store
from ..security.access import sees
from ..sessions import Session
from ..turn import Refusal, Turn
from .schedule import ALL, CATCH_UPS, SKIP, Schedule

SCHEDULES_MAX: Final = 100_000
# How many missed times of a schedule are made up for after a start, at most.
CATCH_UP_MAX: Final = 1000
TIMES_MAX: Final = 50
_TIME_MS_MAX: Final = batches.PROPERTY_BOUNDS["due_ms"][1]
# How many schedules fire in one tick: the others follow in the next round.
_FIRE_MAX: Final = 100
_RETRY_MS: Final = 1000
_PAGE_BYTES: Final = 1024 * 1024
# Who publishes what is scheduled: the broker itself.
_NOBODY: Final = Session(0, 0)


def fire(turn: Turn) -> None:
    """Publish what is due, and set the alarm for what is due next."""
    calendar = turn.state.calendar
    if turn.shortages:
        # It is late then, but not missed.
        turn.set_alarm(calendar, turn.now_ms + _RETRY_MS)
        return
    for _ in range(_FIRE_MAX):
        schedule = calendar.due(turn.now_ms)
        if schedule is None:
            break
        _fire(turn, schedule)
    next_ms = calendar.next_due_ms
    # What is left over is for the next tick, after a round.
    turn.set_alarm(calendar, None if next_ms is None else max(next_ms, turn.now_ms + 1))


def _fire(turn: Turn, schedule: Schedule) -> None:
    is_missed = schedule.due_ms < turn.started_ms
    # What is due from the start on is not missed, however late the first tick is.
    missed_until_ms = turn.started_ms - 1
    if is_missed and not _is_made_up_for(turn, schedule):
        _fired(turn, schedule, 0, None, missed_until_ms)
        return
    failure = _publish(turn, schedule)
    is_each = not is_missed or schedule.catch_up == ALL
    _fired(turn, schedule, turn.now_ms, failure, schedule.due_ms if is_each else missed_until_ms)


def _is_made_up_for(turn: Turn, schedule: Schedule) -> bool:
    if schedule.catch_up == SKIP:
        return False
    caught_up = turn.state.calendar.caught_up
    caught_up[schedule.name] = caught_up.get(schedule.name, 0) + 1
    return caught_up[schedule.name] <= CATCH_UP_MAX


def _fired(
    turn: Turn, schedule: Schedule, fired_ms: int, failure: str | None, after_ms: int
) -> None:
    """Put on record that this time is done with, and which is the next one after `after_ms`."""
    try:
        next_ms = _next_ms(turn, schedule.expression, schedule.timezone, after_ms)
    except ValueError as error:  # a time zone that an upgrade has done away with
        next_ms, failure = 0, str(error)
    record = r.ScheduleFired(schedule.name, schedule.due_ms, fired_ms, next_ms, failure)
    turn.commit(record)
    turn.counters["schedules_fired"] += bool(fired_ms and failure is None)


def _publish(turn: Turn, schedule: Schedule) -> str | None:
    """Store the message; why it could not be, or None."""
    about = {"schedule": schedule.name, "scheduled_ms": schedule.due_ms}
    try:
        publication = prepare(turn, _NOBODY, schedule.channel, schedule.batch)
    except (Refusal, Postponed) as refused:
        turn.forget_prepared()
        return str(refused)
    for portion in publication.portions:
        portion.about = {**(portion.about or {}), **about}
    store(turn, publication)
    return None


def _next_ms(turn: Turn, expression: str, timezone: str, after_ms: int) -> int:
    """The next time, 0 if there is none. Raises ValueError with what is wrong."""
    if turn.ports.next_time is None:
        raise ValueError("this broker has no calendar")
    return turn.ports.next_time(expression, timezone, after_ms) or 0


def _first_ms(turn: Turn, expression: str, timezone: str) -> int:
    """When what is set now is due first, or a refusal."""
    try:
        due_ms = _next_ms(turn, expression, timezone, turn.now_ms)
    except ValueError as error:
        raise Refusal("bad_request", str(error)) from None
    if not due_ms:
        raise Refusal("bad_request", f"{expression!r:.80} names no time within 50 years")
    return due_ms


def _set(turn: Turn, arguments: Arguments) -> Options:
    name = arguments.text("schedule")
    channel = arguments.text("channel")
    expression = arguments.text("expression")
    timezone = arguments.text("timezone", "UTC")
    catch_up = arguments.text("catch_up", SKIP)
    is_paused = arguments.flag("paused")
    batch = arguments.blob("batch")
    arguments.done()
    for given in (name, channel):
        check_full_name(turn, given)
    if catch_up not in CATCH_UPS:
        raise Refusal("bad_request", f"catch_up is {catch_up!r:.40}; it may be {_CATCH_UPS_TEXT}")
    _check_batch(turn, batch)
    calendar = turn.state.calendar
    if name not in calendar.schedules and len(calendar.schedules) >= SCHEDULES_MAX:
        raise Refusal("limit_reached", f"there are {SCHEDULES_MAX} schedules")
    due_ms = _first_ms(turn, expression, timezone)
    _commit_set(
        turn,
        Schedule(
            name,
            channel,
            expression,
            timezone,
            catch_up,
            is_paused,
            0 if is_paused else due_ms,
            batch,
        ),
    )
    return _info(calendar.schedules[name])


_CATCH_UPS_TEXT: Final = ", ".join(map(repr, CATCH_UPS))


def _check_batch(turn: Turn, batch: bytes) -> None:
    if len(batch) > turn.settings.batch_bytes_max:
        raise Refusal(
            "batch_too_large",
            f"a batch of {len(batch)} bytes; it may have {turn.settings.batch_bytes_max}",
        )
    try:
        batches.check(batch, turn.settings.batch)
    except BatchError as error:
        raise Refusal(error.code, str(error)) from None


def _commit_set(turn: Turn, schedule: Schedule) -> None:
    turn.commit(r.ScheduleSet._make(schedule[: len(r.ScheduleSet._fields)]))
    turn.set_alarm(turn.state.calendar, schedule.due_ms or None)


def _schedule_of(turn: Turn, arguments: Arguments) -> Schedule:
    name = arguments.text("schedule")
    schedule = turn.state.calendar.schedules.get(name)
    if schedule is None:
        raise Refusal("unknown_schedule", f"there is no schedule {name!r:.80}")
    return schedule


def _pause(turn: Turn, arguments: Arguments) -> Options:
    schedule = _schedule_of(turn, arguments)
    arguments.done()
    if not schedule.is_paused:
        _commit_set(turn, schedule._replace(is_paused=True, due_ms=0))
    return _info(turn.state.calendar.schedules[schedule.name])


def _resume(turn: Turn, arguments: Arguments) -> Options:
    """Go on from now; the times that passed meanwhile were not missed, they were not wanted."""
    schedule = _schedule_of(turn, arguments)
    arguments.done()
    if schedule.is_paused:
        due_ms = _first_ms(turn, schedule.expression, schedule.timezone)
        _commit_set(turn, schedule._replace(is_paused=False, due_ms=due_ms))
    return _info(turn.state.calendar.schedules[schedule.name])


def _delete(turn: Turn, arguments: Arguments) -> Options:
    schedule = _schedule_of(turn, arguments)
    arguments.done()
    turn.commit(r.ScheduleRemoved(schedule.name))
    return {}


def _show(turn: Turn, arguments: Arguments) -> Options:
    schedule = _schedule_of(turn, arguments)
    count = arguments.integer("count", 0, TIMES_MAX, default=5)
    arguments.done()
    times = []
    if schedule.due_ms and count:
        times = [schedule.due_ms]
        times += _times(turn, schedule.expression, schedule.timezone, schedule.due_ms, count - 1)
    return {**_info(schedule), "times": times}


def _list(turn: Turn, arguments: Arguments) -> Options:
    prefix = arguments.text("prefix", "")
    after = arguments.text("after", "")
    limit = arguments.integer("limit", 1, 1000, default=100)
    arguments.done()
    schedules = turn.state.calendar.schedules
    names = sorted(
        name
        for name in schedules
        if name.startswith(prefix) and name > after and sees(turn, arguments.session, name)
    )
    page: list[Options] = []
    size = 0
    for name in names[:limit]:
        if size > _PAGE_BYTES:
            break
        page.append(_info(schedules[name]))
        size += len(schedules[name].batch)
    return {"schedules": page, "next": names[len(page) - 1] if len(page) < len(names) else None}


def _preview(turn: Turn, arguments: Arguments) -> Options:
    """When an expression is due, without a schedule."""
    expression = arguments.text("expression")
    timezone = arguments.text("timezone", "UTC")
    count = arguments.integer("count", 1, TIMES_MAX, default=5)
    after_ms = arguments.integer("after_ms", 0, _TIME_MS_MAX, default=turn.now_ms)
    arguments.done()
    return {"times": _times(turn, expression, timezone, after_ms, count)}


def _times(turn: Turn, expression: str, timezone: str, after_ms: int, count: int) -> list[int]:
    times: list[int] = []
    try:
        while len(times) < count:
            after_ms = _next_ms(turn, expression, timezone, after_ms)
            if not after_ms:
                break
            times.append(after_ms)
    except ValueError as error:
        raise Refusal("bad_request", str(error)) from None
    return times


def _info(schedule: Schedule) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "channel": schedule.channel,
        "expression": schedule.expression,
        "timezone": schedule.timezone,
        "catch_up": schedule.catch_up,
        "paused": schedule.is_paused,
        "due_ms": schedule.due_ms or None,
        "batch": schedule.batch,
        "fired": schedule.fired,
        "fired_ms": schedule.fired_ms or None,
        "failure": schedule.failure,
    }


VERBS: Final[dict[str, Verb]] = {
    "set_schedule": _set,
    "schedules": _list,
    "schedule": _show,
    "pause_schedule": _pause,
    "resume_schedule": _resume,
    "delete_schedule": _delete,
    "next_times": _preview,
}
