"""One row per measured case, for people or as JSON, and how rows of several runs become one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass
class Row:
    """One case. `figures` are what was measured, by name with the unit last."""

    workload: str
    case: str
    n: int
    body_bytes: int
    figures: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    system: str = "telpher"

    def json(self) -> str:
        """One line of JSON."""
        row = asdict(self)
        figures = row.pop("figures")
        return json.dumps({**row, **figures})

    def text(self) -> str:
        """One line for a person."""
        shown = "  ".join(f"{name}={value:,.6g}" for name, value in self.figures.items())
        return f"{self.workload:8} {self.case:24} n={self.n:<9,} {self.body_bytes} B  {shown}"


def middle(rows: list[Row]) -> Row:
    """The row of medians over several runs of one case."""
    first = rows[0]
    figures = {name: median(row.figures[name] for row in rows) for name in first.figures}
    settings = {**first.settings, "runs": len(rows)}
    return Row(
        first.workload, first.case, first.n, first.body_bytes, figures, settings, first.system
    )
