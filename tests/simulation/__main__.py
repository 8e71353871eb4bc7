"""Run one seed of the simulation, or a part of it, and tell what happens: see the package."""

from __future__ import annotations

import argparse
import sys

from .plan import draw
from .run import run
from .shrink import command, shrunk


def main(arguments: list[str] | None = None) -> int:
    """1 if a promise was broken."""
    options = parse(arguments)
    plan = draw(options.seed).part(options.clients, options.faults, options.seconds)
    print(plan)
    result = run(plan, print if options.show else None)
    print(f"{result.digest}: {result.seconds:.0f} s, {dict(result.counts)}")
    for violation in result.violations:
        print(f"VIOLATION: {violation}")
    if result.violations and options.shrink:
        print(f"smaller: {command(shrunk(plan))}")
    return bool(result.violations)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--faults", type=_numbers, help="of the plan's faults only these: 0,3")
    parser.add_argument("--clients", type=_numbers, help="of its clients only these")
    parser.add_argument("--seconds", type=float, help="so many seconds at most")
    parser.add_argument("--show", action="store_true", help="print everything that happens")
    parser.add_argument("--shrink", action="store_true", help="make it smaller if it fails")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [] if text == "none" else [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
