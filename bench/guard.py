"""The regression guard: what the plain path costs, over what the bare relay costs.

Both are driven step by step in a process of their own (`drive.py`), in turn, and the least
processor time of many slices of a few milliseconds counts: noise only adds, and the ratio cancels
the machine out. So it stays within about two percent on a busy machine, where whole runs differ by
a quarter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from .rows import Figures

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_name("guard.json")
# The client's part, which does not change, is in the figure too: this is less than 10 %, so that
# a path that costs 10 % more is sure to be found.
MORE_ALLOWED = 0.05
BATCHES = 3000


def cost(runs: int, batches: int = BATCHES) -> Figures:
    """The least cost of a batch of 1,000 on both in µs, and their ratio."""
    least = {"telpher": float("inf"), "limit": float("inf")}
    for _ in range(runs):
        for name in least:
            least[name] = min(least[name], _cost_once(name, batches))
    figures = {f"{name}_us": value for name, value in least.items()}
    return {**figures, "ratio": least["telpher"] / least["limit"]}


def _cost_once(name: str, batches: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "bench.drive", name, str(batches)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def record(measured: Figures) -> None:
    """Make this what is compared with."""
    rounded = {name: round(value, 3) for name, value in measured.items()}
    FILE.write_text(json.dumps(rounded, indent=1) + "\n")


def verdict(measured: Figures) -> str | None:
    """What is wrong, or None."""
    recorded = json.loads(FILE.read_text()).get("ratio") if FILE.exists() else None
    if recorded is None:
        return "no ratio is recorded; run `python -m bench guard --record`"
    most = recorded * (1 + MORE_ALLOWED)
    if measured["ratio"] <= most:
        return None
    return (
        f"the plain path costs {measured['ratio']:.2f} times the bare relay; recorded is "
        f"{recorded:.2f}, at most {most:.2f} is allowed: find what made it dearer, or record it "
        "anew with `python -m bench guard --record`"
    )
