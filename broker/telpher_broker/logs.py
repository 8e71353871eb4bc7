"""Logs on standard error: for people on a terminal, as JSON elsewhere; never one per message.

Three rules carry this file:

1. A line is a line: whatever strings go in, no control character comes out (`escape`).
2. Logging never fails: a closed or full standard error costs lines and not the broker.
3. What clients bring about is logged with `seldom`, so many lines a minute (`sparing`).

JSON lines have `time` (UTC), `level`, `event` and the event's own fields; a traceback is in
`exception`. On a terminal a traceback follows its line, each of its lines after a `|`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TextIO

from .escape import escape
from .sparing import Sparing

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31"}

Event = dict[str, Any]


class _Output(NamedTuple):
    """Where lines go, from which level on, and what makes a line of an event."""

    least: int
    render: Callable[[Event], str]
    stream: TextIO | None


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Log from `level` on, as `auto`, `human` or `json`, to `stream` (standard error if None).

    May be called again at any time; what was configured last holds.
    """
    terminal = (stream or sys.stderr).isatty()
    human = form == "human" or (form == "auto" and terminal)
    colour = human and terminal and not os.environ.get("NO_COLOR")
    global _output, _sparing
    _sparing = Sparing()
    _output = _Output(_LEVELS[level], _Human(colour) if human else json.dumps, stream)
    # Other libraries speak through the standard library's logging.
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)


class Logger:
    """One method a level: what happened, and the event's own fields.

    The field `exc_info` is an exception, whose traceback is then logged.
    """

    def debug(self, event: str, **fields: Any) -> None:
        """What helps to find a fault."""
        _log("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """What is as it should be."""
        _log("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What somebody should look at some time."""
        _log("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """What somebody should look at now."""
        _log("error", event, fields)

    def always(self, event: str, **fields: Any) -> bool:
        """What somebody has asked for, as `info` and whatever the level is; whether it was
        written."""
        return _write("info", event, fields)

    def seldom(self, level: str, event: str, **fields: Any) -> None:
        """What others bring about as often as they like; `code` in `fields` tells causes apart."""
        if _sparing.may_write((event, str(fields.get("code", ""))), time.monotonic()):
            _log(level, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """An error, with the traceback of the exception that is being handled."""
        _log("error", event, {**fields, "exc_info": sys.exception()})


def get_logger() -> Logger:
    """The logger: `log.info("what happened", field=value)`. Usable before configure()."""
    return _LOGGER


def say_withheld() -> None:
    """Say how many lines `seldom` has not written, when their minute is over; to be called often.

    It is a warning, whatever they were."""
    for (event, code), lines, seconds in _sparing.due(time.monotonic()):
        fields = {"event_withheld": event, "code": code or None}
        _log("warning", "more of the same", {**fields, "lines": lines, "seconds": round(seconds)})


def _log(level: str, event: str, fields: Event) -> None:
    if _LEVELS[level] >= _output.least:
        _write(level, event, fields)


def _write(level: str, event: str, fields: Event) -> bool:
    """Write a line; whether that could be done."""
    _, render, stream = _output
    error = fields.pop("exc_info", None)
    line = render(_safe(level, event, fields, error))
    try:  # whole lines; a standard error that is gone is not worth dying for
        out = sys.stderr if stream is None else stream
        out.write(line + "\n")
        out.flush()
    except (OSError, ValueError):
        return False
    return True


def _safe(level: str, event: str, fields: Event, error: BaseException | None) -> Event:
    """The whole event, in its order, with no control character in it."""
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    safe: Event = {"time": at, "level": level, "event": escape(event)}
    for name, value in fields.items():
        if isinstance(value, (bool, int, float)):
            safe[escape(name)] = value
        elif value is not None:
            safe[escape(name)] = escape(str(value))
    if error is not None:
        text = "".join(traceback.format_exception(error)).rstrip("\n")
        safe["exception"] = "\n".join(map(escape, text.split("\n")))
    return safe


class _Human:
    """One readable line: time, level, event, and the fields as name=value."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, event: Event) -> str:
        at, level, what = (event.pop(name) for name in ("time", "level", "event"))
        exception = event.pop("exception", None)
        fields = "".join(f"  {name}={_field(row)}" for name, row in event.items())
        lines = [f"{at[:23]}Z {self._tint(level)} {what}{fields}"]
        if exception is not None:
            lines += [f"    | {line}" for line in exception.split("\n")]
        return "\n".join(lines)

    def _tint(self, level: str) -> str:
        text = f"{level:<7}"
        return f"\x1b[{_COLOURS.get(level, '0')}m{text}\x1b[0m" if self._colour else text


def _field(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text


class _Forward(logging.Handler):
    """The standard library's log records as events."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for name in _LEVELS if record.levelno <= _LEVELS[name]), "error")
        error = record.exc_info[1] if record.exc_info else None
        _log(level, record.getMessage(), {"logger": record.name, "exc_info": error})


_LOGGER: Final = Logger()
_output = _Output(_LEVELS["info"], _Human(colour=False), None)
_sparing = Sparing()
