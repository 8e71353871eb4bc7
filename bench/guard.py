"""The regression guard: what the plain path costs the broker, over what the bare relay costs.

Counted are the instructions of the server process per message, where `perf` may count them, and its
processor time otherwise; by the same producer and consumer in turn, so that the machine cancels
out. The least of several runs counts: noise only adds.
"""

from __future__ import annotations

import json
from pathlib import Path

from .instructions import Counter, is_able
from .rows import Figures
from .stage import stage
from .systems.registry import SYSTEMS
from .systems.system import System
from .workloads.queue import through

FILE = Path(__file__).with_name("guard.json")
MORE_ALLOWED = 0.10
MESSAGES = 200_000
BODY_BYTES = 100


def unit() -> str:
    """What can be counted here."""
    return "instructions" if is_able() else "cpu_us"


def cost(runs: int, n: int = MESSAGES) -> Figures:
    """The least cost of a message on both, and their ratio."""
    counted = unit()
    least = {"telpher": float("inf"), "limit": float("inf")}
    for _ in range(runs):
        for name in least:
            least[name] = min(least[name], _cost_once(SYSTEMS[name], n, counted))
    figures = {f"{name}_{counted}": value for name, value in least.items()}
    return {**figures, f"ratio_{counted}": least["telpher"] / least["limit"]}


def _cost_once(system: System, n: int, counted: str) -> float:
    with stage(system, "queue", n, BODY_BYTES) as one:
        if counted == "cpu_us":
            return through(one, "batches")["broker_cpu_us"]
        counter = Counter(one.server.process.pid)
        through(one, "batches")
        total = counter.total()
    assert total is not None, "perf counted nothing"
    return total / n


def record(measured: Figures) -> None:
    """Make this what is compared with; what was counted in the other unit stays."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    known |= {name: round(value, 3) for name, value in measured.items()}
    FILE.write_text(json.dumps(known, indent=1) + "\n")


def verdict(measured: Figures) -> str | None:
    """What is wrong, or None."""
    name, ratio = next(item for item in measured.items() if item[0].startswith("ratio"))
    recorded = json.loads(FILE.read_text()).get(name) if FILE.exists() else None
    if recorded is None:
        return f"no {name} is recorded; run `python -m bench guard --record`"
    most = recorded * (1 + MORE_ALLOWED)
    if ratio <= most:
        return None
    return (
        f"the plain path costs {ratio:.2f} times the bare relay ({name}); recorded is "
        f"{recorded:.2f}, at most {most:.2f} is allowed: find what made it dearer, or record it "
        "anew with `python -m bench guard --record`"
    )
