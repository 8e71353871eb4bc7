"""Plays one role; see the package."""

from __future__ import annotations

import importlib
import json
import signal
import sys

from ..job import Job

# Nothing hangs for ever: the alarm ends the process.
ROLE_SECONDS_MAX = 900


def main(system: str, role: str, job: str) -> None:
    """Play one role and print what was measured; `MODULE.ROLE` is in a module of its own."""
    signal.alarm(ROLE_SECONDS_MAX)
    name, _, function = role.rpartition(".")
    module = importlib.import_module(f".{name or system}", __package__)
    outcome = getattr(module, function)(Job(**json.loads(job)))
    print(json.dumps(outcome), flush=True)


main(*sys.argv[1:])
