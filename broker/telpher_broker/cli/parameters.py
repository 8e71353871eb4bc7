"""Types of the command line's parameters: times, sizes, places in a log, headers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from telpher_broker import values


class _Parsed(click.ParamType[Any]):
    """A type out of a name for the help and a function that raises ValueError."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; a usage error says what is wrong with it."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


class Whole(click.IntRange):
    """A whole number, within bounds that are told to who writes something else."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; a usage error says what it may be."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            bounds = f"from {self.min}" + ("" if self.max is None else f" to {self.max}")
            self.fail(f"{value!r}: write a whole number {bounds}", param, ctx)


def _read_seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return values.milliseconds(0, 10 * 365 * 86_400_000).read(text) / 1000
    if not 0 <= found < float("inf"):
        raise ValueError("a time is 0 or more")
    return found


def _read_while(text: str) -> str | float:
    return text if text in ("waiting", "unsettled") else _read_seconds(text)


def _read_start(text: str) -> str | int | datetime:
    if text in ("earliest", "latest"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    return _read_time(text, "earliest, latest, an offset, or ")


def _read_time(text: str, other: str = "") -> datetime:
    """A time; local time where it names no zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"write {other}a time such as 2026-01-31T12:00:00") from None
    return time if time.tzinfo else time.astimezone()


def _read_offsets(text: str) -> range:
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not all(number.isascii() and number.isdigit() for number in (first, last)):
        raise ValueError("write an offset such as 17, or a range such as 20-29")
    found = range(int(first), int(last) + 1)
    if not found:
        raise ValueError("a range begins with the lower offset")
    return found


def _read_header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError("write NAME=VALUE")
    return name, value


def _read_criterion(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name.rstrip(":"):
        raise ValueError("write NAME=TEXT, NAME:=JSON, or NAME for any value")
    if not name.endswith(":"):
        return name, value if equals else None
    found = json.loads(value)
    if isinstance(found, (dict, list)):
        raise ValueError("a header is a text, a number, true or false")  # noqa: TRY004
    return name[:-1], found


def _read_count(text: str) -> tuple[str, int]:
    name, equals, number = text.rpartition("=")
    if not (name and equals and number.isascii() and number.isdigit()):
        raise ValueError("write NAME=NUMBER")
    return name, int(number)


SECONDS = _Parsed("seconds", _read_seconds)
WHILE = _Parsed("state or time", _read_while)
SIZE = _Parsed("size", values.size(0, 1 << 60).read)
START = _Parsed("start", _read_start)
TIME = _Parsed("time", _read_time)
OFFSETS = _Parsed("offsets", _read_offsets)
HEADER = _Parsed("name=value", _read_header)
CRITERION = _Parsed("name=value", _read_criterion)
COUNT_OF = _Parsed("name=number", _read_count)
