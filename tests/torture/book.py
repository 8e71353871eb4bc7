"""The last figures of each programme: docs/guarantees/NAME.json.

Only runs without violations are written down. `docs/guarantees.md` is generated from here.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .programme import Outcome, all_programmes

FOLDER = Path(__file__).parents[2] / "docs" / "guarantees"


def recorded(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """The last figures of a programme, or None."""
    file = folder / f"{name}.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def record(outcome: Outcome, folder: Path = FOLDER) -> None:
    """Put this outcome in the place of the programme's former one."""
    name = outcome.programme.name
    if outcome.figures.violations:
        raise ValueError(f"{name}: a run with violations is not written down")
    row = {
        "size": outcome.size,
        "seed": outcome.seed,
        "figures": outcome.figures.line(),
        "seconds": round(outcome.seconds),
        "load": round(os.getloadavg()[0], 1),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(row, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", "utf-8")


def table() -> str:
    """The programmes with their last figures, for the page."""
    lines = [
        "| id | `make torture NAME=` | what is done | promises | last figures |\n",
        "| --- | --- | --- | --- | --- |\n",
    ]
    for programme in all_programmes().values():
        row = recorded(programme.name)
        figures = "none yet" if row is None else _figures(row)
        promises = ", ".join(programme.promises)
        cells = [programme.id, f"`{programme.name}`", programme.title, promises, figures]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def _figures(row: dict[str, Any]) -> str:
    return f"{row['figures']} ({row['seconds']:,} s, seed {row['seed']}, {row['date']})"
