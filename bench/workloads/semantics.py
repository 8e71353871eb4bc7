"""What each way of messaging gives, batched; and what one message costs beside many others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ..rows import Figures
from ..stage import stage
from ..workload import Request, Workload

_ROOT = Path(__file__).parents[2]
_MANY = 1_000_000


def semantics(request: Request) -> Figures:
    """Producer, broker and consumer at once, by the way that the case names."""
    with stage(request.system, "semantics", request.n, request.body_bytes) as one:
        way = request.case
        one.play("semantics.prepare", way=way)
        consumer = one.player("semantics.consume", way=way)
        producer = one.player("semantics.produce", way=way)
        before = one.server.cpu_seconds()
        consumer.say()
        producer.say()
        began = producer.outcome()["began"]
        ended = consumer.outcome()["ended"]
        cpu_us = (one.server.cpu_seconds() - before) / request.n * 1e6
    return {"msgs_per_s": request.n / (ended - began), "broker_cpu_us": cpu_us}


def flat(request: Request) -> Figures:
    """One message in the engine alone, beside as many others as the case says."""
    kind = request.case.split()[-1]
    count = max(1, min(request.number, request.number * request.n // _MANY))
    done = subprocess.run(
        [sys.executable, "-m", "bench.flat", kind, str(count)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {"message_us": float(done.stdout)}


SEMANTICS = Workload(
    "semantics",
    "Each way of messaging with one producer and one consumer, batches of up to 1,000, "
    "all confirmed and acknowledged; `plain` uses none.",
    200_000,
    semantics,
)
FLAT = Workload(
    "flat",
    "What one message costs the engine alone, unbatched, to be published, delivered and "
    "acknowledged beside so many others. With another n, there are in proportion.",
    _MANY,
    flat,
    figure="message_us",
    more_is_better=False,
    bytes_max=1 << 40,
    runs_max=1,
)
