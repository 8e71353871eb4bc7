"""Many readers: of the same messages, and of shares of them."""

from __future__ import annotations

from ..rows import Figures
from ..stage import seconds, stage
from ..workload import Request, Workload

WORKERS_NUMBER = 100


def fanout(request: Request) -> Figures:
    """One publisher; every subscriber receives every message."""
    readers = request.number
    n = max(10, request.n // readers)
    with stage(request.system, "fanout", n, request.body_bytes) as one:
        subscribers = one.player("subscribe_all", connections=readers)
        producer = one.player("produce_batches")
        subscribers.say()
        producer.say()
        began = producer.outcome()["began"]
        ended = subscribers.outcome()["ended"]
    return {"deliveries_per_s": n * readers / (ended - began), "msgs_per_s": n / (ended - began)}


def workers(request: Request) -> Figures:
    """Messages wait; workers take them one at a time."""
    with stage(request.system, "workers", request.n, request.body_bytes) as one:
        one.play("produce_batches")
        outcome, cpu_us = one.play_counted(
            "work_all", connections=WORKERS_NUMBER, is_answered=request.case.endswith("answered")
        )
        request.system.check_drained(one.server, request.n)
    return {"msgs_per_s": request.n / seconds(outcome), "broker_cpu_us": cpu_us}


FANOUT = Workload(
    "fanout",
    "One publisher, every subscriber receives everything; all subscribers in one process.",
    1_000_000,
    fanout,
    figure="deliveries_per_s",
    is_bulk=True,
)
WORKERS = Workload(
    "workers",
    "Workers with prefetch 1 share what waits in a queue, all of them in one process: they send "
    "an ack and take the next, or (answered) wait for the answer to the ack first.",
    20_000,
    workers,
)
