"""Runs the cases of a workload: the systems in turn, several times, and the medians of that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .rows import Figures, Row, middle
from .systems.system import System
from .workload import Workload


def measure(
    workload: Workload, systems: Sequence[System], n: int | None, body_bytes: int, runs: int
) -> Iterator[Row]:
    """One row per case and system. The systems alternate, so that a noisy minute hits them all."""
    for case in _cases(workload, systems):
        figures: dict[str, list[Figures]] = {}
        able = [system for system in systems if case in system.cases.get(workload.name, ())]
        for _ in range(runs):
            for system in able:
                request = workload.request(system, case, n, body_bytes)
                figures.setdefault(system.name, []).append(workload.measure(request))
        for system in able:
            request = workload.request(system, case, n, body_bytes)
            settings = system.settings(workload.name, workload.fsync) | {"runs": runs}
            yield Row(
                system.name,
                workload.name,
                case,
                request.n,
                request.body_bytes,
                middle(figures[system.name]),
                settings,
                system.versions(),
            )


def _cases(workload: Workload, systems: Sequence[System]) -> list[str]:
    """All cases of all systems, in order, each once."""
    cases = [case for system in systems for case in system.cases.get(workload.name, ())]
    return list(dict.fromkeys(cases))
