"""When a cron expression is due next, in a time zone: all that the broker knows of calendars.

Expressions have five fields (minute, hour, day of the month, month, day of the week) or six, with
seconds first, as https://github.com/cuu508/cronsim has them, or are one of cron's nicknames such as
@daily. Where clocks are put forward or back,
it is as in Debian's cron: see `next_time`. Imported at the first schedule, as it takes a while.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

EXPRESSION_CHARACTERS_MAX: Final = 255
_NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def next_time(expression: str, timezone: str, after_ms: int) -> int | None:
    """The first time after `after_ms` that the expression names, both in ms since 1970.

    None: there is none within 50 years. Raises ValueError with what is wrong with either string.

    At a fixed hour and minute, what falls into the hour that a clock skips is due right after it,
    once; what falls into an hour that comes twice is due the first time only. An expression whose
    hour or minute begins with `*`, or that has seconds, is due whenever the clock shows it.

    >>> next_time("30 2 * * *", "Europe/Berlin", 1_774_738_800_000) == 1_774_746_000_000
    True
    """
    if len(expression) > EXPRESSION_CHARACTERS_MAX:
        raise ValueError(f"an expression has at most {EXPRESSION_CHARACTERS_MAX} characters")
    after = datetime.fromtimestamp(after_ms / 1000, _zone(timezone))
    try:
        times = CronSim(_NICKNAMES.get(expression.strip().lower(), expression), after)
        for time in times:
            time_ms = round(time.timestamp()) * 1000
            # A clock that was put back shows times that are over.
            if time_ms > after_ms:
                return time_ms
    except CronSimError as error:
        raise ValueError(_what_is_wrong(expression, str(error))) from None
    except OverflowError:  # behind the year 9999
        pass
    return None


def _what_is_wrong(expression: str, text: str) -> str:
    fields = "5 fields (minute hour day month weekday), or 6 with seconds first"
    return f"{text[:1].lower()}{text[1:]} in {expression!r:.80}; an expression has {fields}"


def _zone(name: str) -> ZoneInfo:
    """The time zone of that name; a name that is not in the list never becomes a path."""
    if name not in _zone_names():
        raise ValueError(f"there is no time zone {name!r:.80}; write one like Europe/Berlin or UTC")
    return ZoneInfo(name)


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("ascii").split())
