"""Many of a thing: connections and queues, idle and in use."""

from __future__ import annotations

import time

from ..rows import Figures
from ..stage import seconds, stage
from ..workload import Request, Workload

IDLE_SECONDS = 1.0
IN_FLIGHT = 100
CHANNELS_MESSAGES = 300_000
CLIENT_PROCESSES = 4


def memory(request: Request) -> Figures:
    """What n idle connections, or n idle queues, take."""
    with stage(request.system, "memory", request.n, request.body_bytes) as one:
        before = one.server.resident_bytes()
        if request.case == "idle connection":
            idle = one.player("stay_connected", connections=request.n)
            taken = one.server.resident_bytes() - before
            cpu_before = one.server.cpu_seconds()
            time.sleep(IDLE_SECONDS)
            cpu = one.server.cpu_seconds() - cpu_before
            idle.say()
            idle.outcome()
            return {"each_bytes": taken / request.n, "cpu_percent": cpu / IDLE_SECONDS * 100}
        declaring = one.play("declare_queues", queues=request.n)
        taken = one.server.resident_bytes() - before
    return {"each_bytes": taken / request.n, "declares_per_s": request.n / seconds(declaring)}


def channels(request: Request) -> Figures:
    """Single publishes to queues in turn that are there and empty."""
    queues = max(1, min(request.number, request.number * request.n // CHANNELS_MESSAGES))
    with stage(request.system, "channels", request.n, request.body_bytes) as one:
        outcome, cpu_us = one.play_counted("spread", queues=queues, in_flight=IN_FLIGHT)
    return {"msgs_per_s": request.n / seconds(outcome), "broker_cpu_us": cpu_us}


def connections(request: Request) -> Figures:
    """Batches from so many connections at once, and one consumer."""
    with stage(request.system, "connections", request.n, request.body_bytes) as one:
        consumer = one.player("consume_batches")
        processes = min(request.number, CLIENT_PROCESSES)
        producers = one.players("produce_from_many", processes, connections=request.number)
        before = one.server.cpu_seconds()
        consumer.say()
        producers.say()
        began = producers.outcome()["began"]
        ended = consumer.outcome()["ended"]
        cpu_us = (one.server.cpu_seconds() - before) / request.n * 1e6
        request.system.check_drained(one.server, request.n)
    return {"msgs_per_s": request.n / (ended - began), "broker_cpu_us": cpu_us}


MEMORY = Workload(
    "memory",
    "What n idle connections, or n idle queues, take of the broker's memory.",
    2_000,
    memory,
    figure="each_bytes",
    more_is_better=False,
)
CHANNELS = Workload(
    "channels",
    f"Single publishes to so many queues in turn, which are there and empty: one producer, "
    f"{IN_FLIGHT} in flight, each a batch of its own. "
    "With another n, the queues are in proportion.",
    CHANNELS_MESSAGES,
    channels,
    figure="broker_cpu_us",
    more_is_better=False,
    runs_max=1,
)
CONNECTIONS = Workload(
    "connections",
    "Batches published from so many connections at once, of up to "
    f"{CLIENT_PROCESSES} processes, and one consumer.",
    500_000,
    connections,
    runs_max=1,
)
