"""What a programme of the torture tests is, and how one is run.

A programme is a function of a size and a seed: the same two give the same run again, as far as
the programme is alone in deciding (processes and kernels are not). What it finds wrong are
violations: texts that each say how to see it again. Without any, its figures are what is proven.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from . import programmes

SHOWN_MAX = 20


@dataclass(frozen=True)
class Figures:
    """What a run came to: named counts in the order in which they are shown, and what was wrong."""

    counts: Mapping[str, int | float | str]
    violations: Sequence[str] = ()

    def line(self) -> str:
        """`2,000 kills, 10,000,000 confirmed, 0 lost`, as the counts are named."""
        return ", ".join(f"{_shown(count)} {name}" for name, count in self.counts.items())


def _shown(count: int | float | str) -> str:
    if isinstance(count, float):
        return f"{count:,.3g}" if abs(count) < 1000 else f"{count:,.0f}"
    return count if isinstance(count, str) else f"{count:,}"


@dataclass(frozen=True)
class Programme:
    """One kind of harm.

    `unit` is what its size counts; `short` and `long` are the sizes in `make check` and
    `make torture`. `promises` are those of docs/guarantees.md that it tries. `missing` tells what
    this machine lacks for it and what is not proven then, or None.
    """

    name: str
    id: str
    title: str
    unit: str
    short: int
    long: int
    run: Callable[[int, int], Figures]
    promises: tuple[str, ...]
    missing: Callable[[], str | None] = lambda: None


@dataclass(frozen=True)
class Outcome:
    """One run of one programme, as it is printed and recorded."""

    programme: Programme
    size: int
    seed: int
    seconds: float
    figures: Figures

    @property
    def replay(self) -> str:
        """The command that does it again."""
        return f"make torture NAME={self.programme.name} SIZE={self.size} SEED={self.seed}"

    def line(self) -> str:
        """The one line of figures, and below it the violations."""
        name = f"{self.programme.id:4} {self.programme.name}"
        violations = self.figures.violations
        verdict = f"{len(violations)} VIOLATIONS: {self.replay}" if violations else "ok"
        text = f"{name:22} {self.figures.line()}, {self.seconds:.0f} s, seed {self.seed}: {verdict}"
        more = [f"     ... and {len(violations) - SHOWN_MAX} more"]
        shown = [f"     {violation}" for violation in violations[:SHOWN_MAX]]
        return "\n".join([text, *shown, *(more if len(violations) > SHOWN_MAX else [])])


def all_programmes() -> dict[str, Programme]:
    """Every programme by its name, in the order of their ids."""
    names = [module.name for module in pkgutil.iter_modules(programmes.__path__)]
    modules = [importlib.import_module(f"{programmes.__name__}.{name}") for name in names]
    found: list[Programme] = [module.PROGRAMME for module in modules]
    found.sort(key=lambda programme: (int(programme.id[1:]), programme.id, programme.name))
    return {programme.name: programme for programme in found}


def carry_out(programme: Programme, size: int, seed: int) -> Outcome:
    """Run it and measure how long it took."""
    began = time.perf_counter()
    figures = programme.run(size, seed)
    return Outcome(programme, size, seed, time.perf_counter() - began, figures)
