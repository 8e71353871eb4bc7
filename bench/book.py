"""The recorded rows, docs/benchmarks/rows.jsonl, and what they were measured on.

A row replaces the one of the same workload, case, size and system, so that each can be measured
anew alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .machine import machine
from .rows import Row

FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"
ROWS = FOLDER / "rows.jsonl"
MACHINE = FOLDER / "machine.json"


def recorded(file: Path = ROWS) -> list[Row]:
    """All rows, in the order in which they were first recorded."""
    if not file.exists():
        return []
    return [Row.from_json(line) for line in file.read_text().splitlines()]


def record(rows: Sequence[Row], file: Path = ROWS) -> None:
    """Put these rows in the place of the older ones of the same keys, or at the end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    book = {row.key: row for row in recorded(file)} | {row.key: row for row in rows}
    file.write_text("".join(row.to_json() + "\n" for row in book.values()))


def record_machine() -> None:
    """Write down what the rows to come are measured on."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    MACHINE.write_text(json.dumps(machine(), indent=1) + "\n")
