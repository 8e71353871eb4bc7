"""T11: the checker of histories is tried itself: it finds every planted fault, and nothing else.

A unit is a valid history of a naive broker, told in single messages and in runs, and the same
history spoiled once by each kind of fault.
"""

from __future__ import annotations

import random
import time

from ..faults import FAULTS, Fault
from ..histories import Event, history, joined, judged
from ..history import History
from ..programme import Figures, Programme

STEPS = 120
BATCH = 500
MESSAGES = 1_000_000


def run(size: int, seed: int) -> Figures:
    """Judge so many valid histories, and as many spoiled ones of each kind."""
    planted = found = alarms = 0
    violations: list[str] = []
    for number in range(size):
        again = f"SIZE=1 SEED={seed + number}"
        events = _valid(seed + number)
        wrong = _false_alarms(events, seed + number)
        alarms += len(wrong)
        violations += [f"false alarm, {again}: {text}" for text in wrong]
        for fault in FAULTS:
            verdict = _verdict(fault, events, seed + number)
            if verdict is None:
                continue
            planted += 1
            found += not verdict
            violations += [f"{fault.__name__}, {again}: {verdict}"] if verdict else []
    counts = {"valid histories": size, "false alarms": alarms, "planted faults": planted}
    return Figures({**counts, "found": found, "million messages/s": _speed()}, violations)


def _valid(seed: int) -> list[Event]:
    return history(random.Random(seed), STEPS, power_cuts=seed % 2 == 0)


def _false_alarms(events: list[Event], seed: int) -> list[str]:
    runs = joined(events, random.Random(seed))
    return [str(finding) for told in (events, runs) for finding in judged(told).findings]


def _verdict(fault: Fault, events: list[Event], seed: int) -> str | None:
    """Empty if exactly the planted fault is found, else what is; None if there is no place."""
    rng = random.Random(f"{seed} {fault.__name__}")
    planted = fault(events, rng)
    if planted is None:
        return None
    findings = judged(joined(planted.events, rng)).findings
    kinds = {finding.kind for finding in findings}
    is_named = any(
        finding.whose == planted.whose and finding.first <= planted.number < finding.end
        for finding in findings
    )
    if kinds == {planted.kind} and is_named:
        return ""
    return f"{planted.whose} {planted.number}: found {sorted(map(str, findings))[:3]}"


def _speed() -> float:
    """Millions of messages a second, published, delivered and settled in batches."""
    checker = History()
    checker.reads("jobs")
    began = time.perf_counter()
    for first in range(0, MESSAGES, BATCH):
        checker.sent("ann", "jobs", first, BATCH)
        checker.confirmed("ann", "jobs", first, BATCH, offset=first)
        checker.delivered("jobs", "c1", "ann", first, BATCH, offset=first)
        checker.acked("jobs", "ann", first, BATCH)
        checker.settled("jobs", "ann", first, BATCH)
    assert not checker.end()
    return MESSAGES / 1e6 / (time.perf_counter() - began)


PROGRAMME = Programme(
    name="history",
    id="T11",
    title="the checker of histories: planted faults are found, valid histories pass",
    unit="histories",
    short=150,
    long=20_000,
    run=run,
    promises=("G1", "G3", "G4", "G5", "G6", "G7", "G19"),
)
