"""One row per measured case, for people or as JSON, and how rows of several runs become one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

Figures = dict[str, float]


@dataclass
class Row:
    """One case. `figures` are what was measured, by name with the unit last."""

    system: str
    workload: str
    case: str
    n: int
    body_bytes: int
    figures: Figures
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What it is the figure of; a later row with the same key replaces it."""
        return self.workload, self.case, self.body_bytes, self.system

    def to_json(self) -> str:
        """One line of JSON, the figures among the rest."""
        row = asdict(self)
        figures = row.pop("figures")
        settings, versions = row.pop("settings"), row.pop("versions")
        return json.dumps({**row, **figures, "settings": settings, "versions": versions})

    @classmethod
    def from_json(cls, line: str) -> Row:
        """The row of a line."""
        values = json.loads(line)
        names = ("system", "workload", "case", "n", "body_bytes")
        known = {name: values.pop(name) for name in names}
        settings, versions = values.pop("settings"), values.pop("versions")
        return cls(**known, figures=values, settings=settings, versions=versions)

    def to_text(self) -> str:
        """One line for a person."""
        shown = "  ".join(f"{name}={value:,.6g}" for name, value in self.figures.items())
        what = f"{self.system:11} {self.workload:12} {self.case:22}"
        return f"{what} n={self.n:<9,} {self.body_bytes} B  {shown}"


def middle(runs: list[Figures]) -> Figures:
    """The median of each figure over several runs."""
    return {name: median(run[name] for run in runs) for name in runs[0]}
