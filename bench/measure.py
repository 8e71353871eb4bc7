"""Runs the cases of a workload: the systems in turn, several times, and the medians of that.

A system that fails in one case is reported, and the others go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .rows import Figures, Row, middle
from .systems.system import System
from .workload import Request, Workload


@dataclass(frozen=True)
class Skipped:
    """A case that was not measured on a peer."""

    system: str
    workload: str
    case: str
    reason: str

    def to_text(self) -> str:
        """One line for a person."""
        return f"{self.system}, {self.workload}, {self.case}: {self.reason}"


@dataclass
class Failure:
    """A case that a system did not get through."""

    system: str
    workload: str
    case: str
    body_bytes: int
    reason: str

    def to_text(self) -> str:
        """One line for a person."""
        return f"{self.system}, {self.workload}, {self.case}, {self.body_bytes} B: {self.reason}"


def measure(
    workload: Workload, systems: Sequence[System], n: int | None, body_bytes: int, runs: int
) -> Iterator[Row | Failure | Skipped]:
    """One row per case and system, or why there is none. The systems alternate, so that a noisy
    minute hits them all.
    """
    runs = workload.runs(runs)
    for case in _cases(workload, systems):
        able = []
        for system in systems:
            reason = system.why_not(workload.name, case)
            if reason is None:
                able.append(system)
            else:
                yield Skipped(system.name, workload.name, case, reason)
        requests = [workload.request(system, case, n, body_bytes) for system in able]
        figures: list[list[Figures]] = [[] for _ in requests]
        failures: dict[int, str] = {}
        for _ in range(runs):
            for index, request in enumerate(requests):
                if index not in failures:
                    try:
                        figures[index].append(workload.measure(request))
                    except (AssertionError, RuntimeError, OSError) as error:
                        failures[index] = f"{type(error).__name__}: {error}"
        for index, request in enumerate(requests):
            if index in failures:
                name = request.system.name
                yield Failure(name, workload.name, case, request.body_bytes, failures[index])
            else:
                yield _row(workload, request, figures[index])


def _row(workload: Workload, request: Request, figures: list[Figures]) -> Row:
    system = request.system
    return Row(
        system.name,
        workload.name,
        request.case,
        request.n,
        request.body_bytes,
        middle(figures),
        system.settings(workload.name, workload.fsync) | {"runs": len(figures)},
        system.versions(),
    )


def _cases(workload: Workload, systems: Sequence[System]) -> list[str]:
    """All cases of all systems, in order, each once."""
    cases = [case for system in systems for case in system.cases.get(workload.name, ())]
    return list(dict.fromkeys(cases))
