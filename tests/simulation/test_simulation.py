"""The simulation itself: one seed is one run, and what is wrong is seen and made small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import __main__ as main_module
from .mutants import MUTANTS, Mutant, planted
from .plan import draw
from .run import run
from .shrink import command, shrunk

# Quick ones, with kills and losses of power.
SEEDS = (4, 11, 26)
_DIGESTS = """
from tests.simulation.plan import draw
from tests.simulation.run import run
print(*[run(draw(seed)).digest for seed in %r])
"""


def test_a_seed_is_the_same_run_in_any_process() -> None:
    here = [run(draw(seed)).digest for seed in SEEDS]
    assert len(set(here)) == len(SEEDS)
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    assert _digests_elsewhere(other) == here


def _digests_elsewhere(hash_seed: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _DIGESTS % (SEEDS,)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def _mutant(name: str) -> Mutant:
    (found,) = [mutant for mutant in MUTANTS if mutant.name == name]
    return found


def test_a_failing_run_is_made_small_and_fails_by_its_command() -> None:
    with planted(_mutant("an acknowledgement is not journalled")):
        plan = draw(11)
        smaller = shrunk(plan)
        assert len(smaller.faults) <= 1 < len(plan.faults)
        assert len(smaller.clients) < len(plan.clients)
        options = main_module.parse(command(smaller).split()[3:])
        again = draw(options.seed).part(options.clients, options.faults, options.seconds)
        assert again == smaller
        assert run(again).violations == run(smaller).violations != ()
    assert run(smaller).violations == ()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_planted_faults_are_still_there_to_be_planted(mutant: Mutant) -> None:
    with planted(mutant):
        pass
