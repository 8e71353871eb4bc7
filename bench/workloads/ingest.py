"""How fast a server takes what is published, with nobody reading."""

from __future__ import annotations

from ..native import xadd
from ..rows import Figures
from ..stage import Stage, seconds, stage
from ..workload import Request, Workload
from .queue import SIZES

PRODUCERS = 3
PIPELINE = 100


def ingest(request: Request) -> Figures:
    """Publish n messages and wait until all are confirmed; Redis by its own tool."""
    is_native = request.system.name == "redis"
    # The tool sends whole pipelines.
    n = -(-request.n // PIPELINE) * PIPELINE if is_native else request.n
    with stage(request.system, "queue", n, request.body_bytes) as one:
        before = one.server.cpu_seconds()
        took = _by_native_tool(one) if is_native else _by_producers(one)
        cpu_us = (one.server.cpu_seconds() - before) / n * 1e6
        request.system.check_stored(one.server, n)
    return {"msgs_per_s": n / took, "broker_cpu_us": cpu_us}


def _by_producers(one: Stage) -> float:
    producers = one.players("produce_batches", PRODUCERS)
    producers.say()
    return seconds(producers.outcome())


def _by_native_tool(one: Stage) -> float:
    return one.n / xadd(one.server, one.n, one.body_bytes, PIPELINE)["msgs_per_s"]


INGEST = Workload(
    "ingest",
    f"Publish only, all confirmed: {PRODUCERS} Python producers of batches; Redis is given XADD by "
    "redis-benchmark -P 100, its own tool in C.",
    3_000_000,
    ingest,
    sizes=SIZES,
)
