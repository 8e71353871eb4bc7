"""From a failing run to a small one: fewer faults, fewer clients, less time.

Since each part of a plan has its own chance, a part of it can be run alone. Delta debugging: leave
out halves, then quarters, then single ones, for as long as the run still fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .plan import Plan
from .run import run

RUNS_MAX = 200


class Shrinker:
    """Makes a plan small that `fails`; `runs_left` bounds the work."""

    def __init__(self, fails: Callable[[Plan], bool], runs_max: int = RUNS_MAX) -> None:
        self._fails = fails
        self.runs_left = runs_max

    def shrink(self, plan: Plan) -> Plan:
        """The smallest that was found; the plan itself if nothing can be left out."""
        before = None
        while before != plan and self.runs_left > 0:
            before = plan
            plan = self._without_faults(plan)
            plan = self._without_clients(plan)
            plan = self._shorter(plan)
        return plan

    def _without_faults(self, plan: Plan) -> Plan:
        numbers = [fault.number for fault in plan.faults]
        kept = self._least(numbers, lambda some: plan.part(faults=some))
        return plan.part(faults=kept)

    def _without_clients(self, plan: Plan) -> Plan:
        numbers = [part.number for part in plan.clients]
        kept = self._least(numbers, lambda some: plan.part(clients=some))
        return plan.part(clients=kept)

    def _shorter(self, plan: Plan) -> Plan:
        last = plan.faults[-1].at if plan.faults else 0.0
        for seconds in (last + 0.001, (last + plan.seconds) / 2):
            shorter = plan.part(seconds=seconds)
            if shorter.seconds < plan.seconds and self._still_fails(shorter):
                return shorter
        return plan

    def _least(self, numbers: list[int], part: Callable[[Sequence[int]], Plan]) -> list[int]:
        size = (len(numbers) + 1) // 2
        while numbers and size:
            for start in range(0, len(numbers), size):
                rest = numbers[:start] + numbers[start + size :]
                if self._still_fails(part(rest)):
                    numbers = rest
                    break
            else:
                size = size // 2
            size = min(size, len(numbers))
        return numbers

    def _still_fails(self, plan: Plan) -> bool:
        if self.runs_left <= 0:
            return False
        self.runs_left -= 1
        return self._fails(plan)


def shrunk(plan: Plan, runs_max: int = RUNS_MAX) -> Plan:
    """A failing plan, made small."""
    return Shrinker(lambda smaller: bool(run(smaller).violations), runs_max).shrink(plan)


def command(plan: Plan) -> str:
    """What runs a part of a seed's plan again."""
    faults = ",".join(str(fault.number) for fault in plan.faults) or "none"
    clients = ",".join(str(part.number) for part in plan.clients) or "none"
    return (
        f"python -m tests.simulation {plan.seed} --faults {faults} --clients {clients} "
        f"--seconds {plan.seconds!r}"
    )
