"""T19: planted faults of the durable path and of the door are each found by the test named for it.

A unit is a mutant. Before any is planted the tests pass, so that none of them fails for another
reason. A mutant that survives is a test that is missing.
"""

from __future__ import annotations

import random

from ..mutants import MUTANTS
from ..mutants.mutant import Mutant, workshop
from ..programme import Figures, Programme


def run(size: int, seed: int) -> Figures:
    """Plant so many, chosen by the seed, one after the other."""
    misfits = [text for mutant in MUTANTS if (text := mutant.misfit())]
    fitting = [mutant for mutant in MUTANTS if mutant.misfit() is None]
    chosen = random.Random(seed).sample(fitting, min(size, len(fitting)))
    killed, violations = _planted(chosen)
    return Figures({"planted": len(chosen), "killed": killed}, misfits + violations)


def _planted(chosen: list[Mutant]) -> tuple[int, list[str]]:
    """How many are killed, and what became of the others."""
    survivors: list[str] = []
    with workshop() as shop:
        tests = " ".join(sorted({mutant.by for mutant in chosen}))
        sound = shop.verdict(None, tests)
        if sound != "passed":
            return 0, [f"without any mutant: {sound}; see python -m pytest {tests}"]
        for mutant in chosen:
            verdict = shop.verdict(mutant, mutant.by)
            if verdict != "killed":
                survivors.append(f"{mutant.name} ({mutant.file}): {verdict}, by {mutant.by}")
    return len(chosen) - len(survivors), survivors


PROGRAMME = Programme(
    name="mutants",
    id="T19",
    title="planted faults of the durable path and of the door: each is found by its test",
    unit="mutants",
    short=6,
    long=len(MUTANTS),
    run=run,
    promises=("G1", "G2", "G3", "G4", "G5", "G7", "G8", "G9", "G10", "G11", "G12"),
)
