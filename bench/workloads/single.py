"""Unbatched publishes: one at a time from many connections, and each on the disk."""

from __future__ import annotations

from typing import Any

from ..rows import Figures
from ..stage import Stage, seconds, stage
from ..workload import Request, Workload


def small(request: Request) -> Figures:
    """Each publish confirmed before the next of its connection."""
    with stage(request.system, "small", request.n, request.body_bytes) as one:
        processes = min(request.number, request.system.client_processes)
        return _publish(one, "publish_each", processes, connections=request.number)


def sync(request: Request) -> Figures:
    """Each publish confirmed when it is on the disk, so many at a time."""
    with stage(request.system, "sync", request.n, request.body_bytes, "always") as one:
        role = "publish_from_tasks" if request.case.endswith("tasks") else "publish_in_flight"
        return _publish(one, role, 1, in_flight=request.number, loop="asyncio")


def _publish(one: Stage, role: str, processes: int, **options: Any) -> Figures:
    outcome, cpu_us = one.play_counted(role, processes, **options)
    percentiles = {name: outcome[name] for name in ("p50_us", "p99_us", "p999_us")}
    return {"msgs_per_s": one.n / seconds(outcome), **percentiles, "broker_cpu_us": cpu_us}


SMALL = Workload(
    "small",
    "Each publish confirmed before the next of its connection; "
    "the connections in one process, or in as many as the settings say.",
    20_000,
    small,
)
SYNC = Workload(
    "sync",
    "Each publish confirmed after an fsync, with so many of them in flight on one connection: "
    "handed over together, or (tasks) each by a task that waits for its own.",
    20_000,
    sync,
    fsync="always",
)
