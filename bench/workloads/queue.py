"""Throughput through one queue: end to end, with a backlog, and beside a backlog."""

from __future__ import annotations

from ..rows import Figures
from ..stage import Stage, seconds, stage
from ..workload import GIGABYTE, Request, Workload

SIZES = (100, 16, 1024, 65_536, 1_048_576)
DEPTH_MESSAGES = 200_000
SINGLES = 1000


def through(stage: Stage, kind: str, **options: int) -> Figures:
    """Producer, server and consumer at once: until the last message is acknowledged."""
    consumer = stage.player(f"consume_{kind}", **options)
    producer = stage.player(f"produce_{kind}", **options)
    before = stage.server.cpu_seconds()
    consumer.say()
    producer.say()
    began = producer.outcome()["began"]
    ended = consumer.outcome()["ended"]
    cpu_seconds = stage.server.cpu_seconds() - before
    return {
        "msgs_per_s": stage.n / (ended - began),
        "broker_cpu_us": cpu_seconds / stage.n * 1e6,
    }


def queue(request: Request) -> Figures:
    """End to end, by batches or by messages."""
    with stage(request.system, "queue", request.n, request.body_bytes) as one:
        figures = through(one, request.case)
        request.system.check_drained(one.server, request.n)
    return figures


def limit(request: Request) -> Figures:
    """End to end through the bare relay, with batches of one size."""
    with stage(request.system, "limit", request.n, request.body_bytes) as one:
        figures = through(one, "batches", batch=request.number)
        request.system.check_drained(one.server, request.n)
    return figures


def backlog(request: Request) -> Figures:
    """Publish all, look at the memory, then drain."""
    published = "unbatched" if request.case == "messages" else "batches"
    with stage(request.system, "backlog", request.n, request.body_bytes) as one:
        empty_bytes = one.server.resident_bytes()
        publishing = one.play(f"produce_{published}")
        waiting_bytes = one.server.resident_bytes() - empty_bytes
        draining = one.play("consume_batches")
        request.system.check_drained(one.server, request.n)
    return {
        "publish_msgs_per_s": request.n / seconds(publishing),
        "drain_msgs_per_s": request.n / seconds(draining),
        "waiting_bytes": waiting_bytes / request.n,
    }


def depth(request: Request) -> Figures:
    """End to end beside messages that wait in front: the consumer reads old ones throughout."""
    waiting = request.number * GIGABYTE // request.body_bytes * request.n // DEPTH_MESSAGES
    with stage(request.system, "queue", request.n, request.body_bytes) as one:
        if waiting:
            one.play("produce_batches", waiting)
        single = one.play("publish_each", min(SINGLES, request.n), connections=1)
        figures = through(one, "batches", at_least=True)
    return {**figures, "p50_us": single["p50_us"], "p99_us": single["p99_us"]}


QUEUE = Workload(
    "queue",
    "Producer, broker and consumer as three processes, all confirmed, received and acknowledged.",
    1_000_000,
    queue,
    is_bulk=True,
    sizes=SIZES,
)
LIMIT = Workload(
    "limit",
    "The bare relay: trio, opaque batches, a log and CRCs, no semantics: what the machine can do.",
    1_000_000,
    limit,
    is_bulk=True,
)
BACKLOG = Workload(
    "backlog",
    "Publish everything, then drain; what a waiting message costs in memory. "
    "`batches`: 1,000 to a batch; `messages`: each a batch of its own.",
    500_000,
    backlog,
    figure="drain_msgs_per_s",
    is_bulk=True,
    sizes=SIZES,
)
DEPTH = Workload(
    "depth",
    "The queue workload with so much waiting in front, which the consumer reads meanwhile; "
    "p50 and p99 are of single publishes at that depth. "
    "With another n, the depth is in proportion.",
    DEPTH_MESSAGES,
    depth,
    figure="broker_cpu_us",
    more_is_better=False,
    sizes=(1024,),
    runs_max=1,
)
