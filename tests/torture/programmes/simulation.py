"""Simulation: many seeds of the whole broker on a fake machine, judged and made small.

See tests/simulation. A seed that fails is shrunk, and told as the command that runs it again.
"""

from __future__ import annotations

from collections import Counter

from tests.simulation.mutants import MUTANTS, Mutant, planted
from tests.simulation.plan import draw
from tests.simulation.run import run as run_plan
from tests.simulation.shrink import command, shrunk

from ..programme import Figures, Programme

SEEDS_EACH = 1_000_000  # of one seed of the programme to the next
SHRUNK_MAX = 5
# A planted fault is to be found in so many seeds.
MUTANT_SEEDS = 60


def run(size: int, seed: int) -> Figures:
    """`size` seeds of the simulation."""
    counts: Counter[str] = Counter()
    hours = 0.0
    violations: list[str] = []
    for number in range(seed * SEEDS_EACH, seed * SEEDS_EACH + size):
        plan = draw(number)
        result = run_plan(plan)
        counts += result.counts
        hours += result.seconds / 3600
        if result.violations:
            smaller = shrunk(plan) if len(violations) < SHRUNK_MAX else plan
            violations.append(f"{result.violations[0]}: {command(smaller)}")
    found = [mutant for mutant in MUTANTS if _is_found(mutant)]
    violations += [
        f"a planted fault was not found in {MUTANT_SEEDS} seeds: {mutant.name}"
        for mutant in MUTANTS
        if mutant not in found
    ]
    figures: dict[str, int | float | str] = {
        "seeds": size,
        "simulated hours": hours,
        "starts": counts["starts"],
        "kills": counts["kills"],
        "power cuts": counts["power cuts"],
        "confirmed": counts["confirmed"],
        "violations": len(violations),
        "planted faults found": f"{len(found)}/{len(MUTANTS)}",
    }
    return Figures(figures, violations)


def _is_found(mutant: Mutant) -> bool:
    with planted(mutant):
        seeds = range(mutant.seed, mutant.seed + MUTANT_SEEDS)
        return any(run_plan(mutant.plan(draw(seed))).violations for seed in seeds)


PROGRAMME = Programme(
    name="simulation",
    id="T9",
    title="the whole broker and its clients on a fake disk and network in virtual time: kills, "
    "losses of power, failing and slow disks, broken connections, by one seed each",
    unit="seeds",
    short=40,
    long=10_000,
    run=run,
    promises=(
        *("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G9", "G10", "G11", "G12", "G14"),
        *("G21", "G25", "G28"),
    ),
)
