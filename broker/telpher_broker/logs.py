"""Logs on standard error: for people on a terminal, as JSON elsewhere; never one per message.

Two rules carry this file:

1. A line is a line: whatever strings go in, no control character comes out (`escape`).
2. Logging never fails: a closed or full standard error costs lines and not the broker.

JSON lines have `time` (UTC), `level`, `event` and the event's own fields; a traceback is in
`exception`. On a terminal a traceback follows its line, each of its lines after a `|`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from .escape import escape

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}
_FIRST: Final = ("time", "level", "event")

Event = MutableMapping[str, Any]


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Log from `level` on, as `auto`, `human` or `json`, to `stream` (standard error if None).

    May be called again at any time; what was configured last holds.
    """
    out = sys.stderr if stream is None else stream
    terminal = out.isatty()
    human = form == "human" or (form == "auto" and terminal)
    colour = human and terminal and not os.environ.get("NO_COLOR")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _escape_values,
            _Human(colour) if human else _render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Writer(out),
        cache_logger_on_first_use=False,
    )
    # Other libraries speak through the standard library's logging.
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The logger: `log.info("what happened", field=value)`. Usable before configure()."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def _escape_values(_logger: object, _method: str, event: Event) -> Event:
    safe: dict[str, Any] = {}
    for name, value in event.items():
        if isinstance(value, str) and name == "exception":
            safe[name] = "\n".join(map(escape, value.split("\n")))
        elif isinstance(value, (bool, int, float)):
            safe[escape(name)] = value
        elif value is not None:
            safe[escape(name)] = escape(str(value))
    return safe


def _render_json(_logger: object, _method: str, event: Event) -> str:
    first = {name: event.pop(name) for name in _FIRST if name in event}
    return json.dumps({**first, **event})


class _Human:
    """One readable line: time, level, event, and the fields as name=value."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, _logger: object, _method: str, event: Event) -> str:
        time, level, what = (str(event.pop(name, "")) for name in _FIRST)
        exception = event.pop("exception", None)
        fields = "".join(
            f"  {name}={_field(row)}" for name, row in event.items() if row is not None
        )
        lines = [f"{time[:23]}Z {self._tint(level)} {what}{fields}"]
        if exception is not None:
            lines += [f"    | {line}" for line in str(exception).split("\n")]
        return "\n".join(lines)

    def _tint(self, level: str) -> str:
        text = f"{level:<7}"
        return f"\x1b[{_COLOURS.get(level, '0')}m{text}\x1b[0m" if self._colour else text


def _field(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text


class _Writer:
    """Writes whole lines; a standard error that is gone is not worth dying for."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = exception = msg


class _Forward(logging.Handler):
    """The standard library's log records as events."""

    def emit(self, record: logging.LogRecord) -> None:
        level = logging.getLevelName(min(record.levelno, logging.ERROR)).lower()
        emit = getattr(get_logger(), level, get_logger().warning)
        emit(record.getMessage(), logger=record.name, exc_info=record.exc_info)
