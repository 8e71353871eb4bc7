"""What the commands print: tables for people, JSON lines for programs, bodies for either.

Bodies go out as they are, except to a terminal, which gets them escaped.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click

from telpher_broker.escape import escape, escape_bytes


def print_json(row: Any) -> None:
    """One JSON object on a line; bytes in it as text, or `{"base64": ...}` where they are none."""
    click.echo(json.dumps(row, default=_plain))


def _plain(value: object) -> object:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        return str(value)
    data = bytes(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def local_time(seconds: float) -> str:
    """A time, in seconds since 1970, as it is shown: on this machine's clock, with its zone."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="milliseconds")


def print_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns under titles; numbers to the right, everything escaped."""
    texts = [[_cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[index]) for row in texts) for index in range(len(titles))]
    table = [[title.upper() for title in titles], *texts]
    widths = [max(len(row[index]) for row in table) for index in range(len(titles))]
    for row in table:
        cells = (
            text.rjust(width) if right and texts else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(str(value))


def _is_number(text: str) -> bool:
    return text == "-" or text.isdecimal()


def print_body(body: bytes, *, raw: bool = False) -> None:
    """A body and a newline; `raw`: the body alone, even to a terminal."""
    if raw:
        sys.stdout.buffer.write(body)
    elif sys.stdout.isatty():
        sys.stdout.write(escape_bytes(body) + "\n")
    else:
        sys.stdout.buffer.write(body + b"\n")


def flat(value: Any, prefix: str = "") -> Iterable[tuple[str, object]]:
    """The leaves of nested maps, with dotted names."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flat(inner, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value
