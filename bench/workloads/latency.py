"""How long one message takes: alone, and when others are under way."""

from __future__ import annotations

from ..rows import Figures
from ..stage import stage
from ..workload import Request, Workload
from .queue import through

# The event loop of Telpher's async client here, some percent faster than trio.
LOOP = "asyncio"


def rtt(request: Request) -> Figures:
    """One in flight, through a worker and back."""
    suffix = "_sync" if request.case == "sync client" else ""
    with stage(request.system, "rtt", request.n, request.body_bytes) as one:
        worker = one.player(f"answer{suffix}", loop=LOOP)
        asker = one.player(f"ask{suffix}", loop=LOOP)
        worker.say()
        asker.say()
        outcome = asker.outcome()
        worker.outcome()
    return _percentiles(outcome)


def load_latency(request: Request) -> Figures:
    """Find the highest rate first, then send at a share of it and see how old messages get."""
    size = max(8, request.body_bytes)
    with stage(request.system, "queue", request.n, size) as one:
        highest = through(one, "messages")["msgs_per_s"]
    rate = highest * request.number / 100
    with stage(request.system, "queue", request.n, size) as one:
        consumer = one.player("consume_stamped")
        producer = one.player("produce_at_rate", msgs_per_s=rate)
        consumer.say()
        producer.say()
        producer.outcome()
        outcome = consumer.outcome()
        request.system.check_drained(one.server, request.n)
    return {"msgs_per_s": rate, **_percentiles(outcome)}


def _percentiles(outcome: Figures) -> Figures:
    return {name: outcome[name] for name in ("p50_us", "p99_us", "p999_us")}


RTT = Workload(
    "rtt",
    "One message in flight: publisher to worker and back, through two queues.",
    5_000,
    rtt,
    figure="p50_us",
    more_is_better=False,
)
LOAD_LATENCY = Workload(
    "load-latency",
    "Messages at a share of the highest rate: their age when they are received.",
    200_000,
    load_latency,
    figure="p99_us",
    more_is_better=False,
)
