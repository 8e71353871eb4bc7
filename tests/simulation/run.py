"""One seed, from its plan to what came of it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import trio
import trio.testing

from telpher_broker import logs

from .chance import decided_by
from .plan import Plan
from .world import World

END_SECONDS = 3600.0


@dataclass(frozen=True)
class Result:
    """`digest` is of everything that happened: the same one, the same run."""

    plan: Plan
    digest: str
    violations: tuple[str, ...]
    seconds: float
    counts: Counter[str]


def run(plan: Plan, shown: Callable[[str], None] | None = None) -> Result:
    """Run a plan to its end; `shown` gets a line for everything that happens."""
    logs.configure("error", "json", io.StringIO())
    clock = trio.testing.MockClock(autojump_threshold=0)
    world = World(plan, clock, shown)

    async def main() -> None:
        with trio.move_on_after(END_SECONDS) as bound:
            await world.run()
        if bound.cancelled_caught:
            world.violated(f"the run did not end within {END_SECONDS:g} s")

    with decided_by(plan.seed, world.gauges, world.turns.run_sync):
        trio.run(main, clock=clock)
    history = world.ledger.history
    world.counts |= Counter(
        confirmed=history.confirmed_messages,
        delivered=history.delivered_messages,
        settled=history.settled_messages,
        stale=world.ledger.stale,
        refused=world.ledger.refused,
    )
    return Result(
        plan,
        world.digest.hexdigest(),
        tuple(world.violations),
        clock.current_time(),
        world.counts,
    )
