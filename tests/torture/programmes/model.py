"""Model: the engine against a broker of dicts and lists, by examples that hypothesis makes up.

The state machine is that of tests/engine/machine: after every step everything that was said
is compared, and between any two steps the engine may be restarted from a snapshot and the rest of
its journal. Here it takes more examples, and longer ones.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from tests.engine.machine import EngineAgainstModel

from ..programme import Figures, Programme

EXAMPLES_EACH = 500  # of one seed of hypothesis
STEPS_MAX = 80


def run(size: int, seed: int) -> Figures:
    """`size` examples."""
    counts = {"examples": 0, "steps": 0, "restarts": 0}
    violations: list[str] = []
    for part in range(-(-size // EXAMPLES_EACH)):
        examples = min(EXAMPLES_EACH, size - part * EXAMPLES_EACH)
        found = _try(examples, seed * 1_000_000 + part, counts)
        if found is not None:
            violations.append(f"examples {part * EXAMPLES_EACH} to {size}: {found}")
            break
    return Figures({**counts, "differences": len(violations)}, violations)


def _try(examples: int, seed: int, counts: dict[str, int]) -> str | None:
    """Run so many; what differed, or None."""

    class Counted(EngineAgainstModel):
        _hypothesis_internal_use_seed = seed

        def __init__(self) -> None:
            super().__init__()
            counts["examples"] += 1
            counts["steps"] -= 1  # the first look is before the first step

        @invariant()
        def count(self) -> None:
            counts["steps"] += 1

        def teardown(self) -> None:
            counts["restarts"] += self.restarts
            super().teardown()

    told: Any = settings(
        max_examples=examples,
        stateful_step_count=STEPS_MAX,
        deadline=None,
        database=None,
        print_blob=True,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(Counted, settings=told)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what differs)
        notes = "\n".join(getattr(error, "__notes__", ()))
        return f"{type(error).__name__} {error}\n{notes}"
    return None


PROGRAMME = Programme(
    name="model",
    id="T10",
    title="the engine against a model of dicts and lists, all that is said compared step by step, "
    "restarted from a snapshot and its journal between any two",
    unit="examples",
    short=60,
    long=5_000,
    run=run,
    promises=("G3", "G4", "G5", "G6", "G7", "G19", "G22", "G27", "G34", "G39", "G40", "G44"),
)
