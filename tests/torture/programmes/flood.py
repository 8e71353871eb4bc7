"""T15: more than there is memory for, from every side, and what is resident at the peak.

Four abuses, each of a broker of its own, each beside its budget: what is resident after the start,
and what is configured.

  stopped   a consumer stops reading while a producer runs flat out into a log (`memory_limit`);
            then another consumer gets all of it, in order
  alarm     a producer runs flat out where everything stays in memory (persistence none): it is
            refused at `memory_high_bytes`, consuming goes on, and then it may publish again
  visits    connect, consume, ask, leave, so many times: memory and descriptors are as before
  idle      so many connections that say no more than HELLO, and leave
"""

from __future__ import annotations

import time
from typing import Final

from telpher.protocol import frames as f

from ..abuse import MIB, Flood, Watched, Wire, allow_descriptors, batch_of, drain, watched
from ..programme import Figures, Programme

MEMORY_LIMIT: Final = 32 * MIB
OUTPUT_BYTES: Final = 16 * MIB
INPUT_BYTES: Final = 16 * MIB
BODY_BYTES: Final = 1000
BATCH_MESSAGES: Final = 1000
# What a batch takes beside its body: its place, its entry in the log, its message's range.
INDEX_BYTES: Final = 1024
# What is read into memory and written out of it at a time, and what the allocator keeps.
WORKING_BYTES: Final = 64 * MIB
CONNECTION_BYTES: Final = 32 * 1024
LEAK_BYTES: Final = 12 * MIB
MESSAGES_A_VISIT: Final = 100
BOUNDS: Final = (
    *("--memory-limit", f"{MEMORY_LIMIT}", "--output-bytes-total", f"{OUTPUT_BYTES}"),
    *("--input-bytes-max", f"{INPUT_BYTES}", "--connections-max", "20000"),
)


class Pressed:
    """The figures of one abuse, gathered for the line."""

    def __init__(self) -> None:
        self.counts: dict[str, int | float | str] = {}
        self.violations: list[str] = []

    def peak(self, name: str, broker: Watched, budget_bytes: int) -> None:
        """Compare the peak with the budget, which comes on top of what the start took."""
        peak, most = broker.peak_bytes, broker.base_bytes + budget_bytes
        self.counts[f"{name}: MiB at the peak of"] = f"{peak // MIB}/{most // MIB}"
        if peak > most:
            self.violations.append(f"{name}: {peak // MIB} MiB resident of {most // MIB}")

    def check(self, holds: bool, text: str) -> None:
        if not holds:
            self.violations.append(text)


def run(size: int, seed: int) -> Figures:
    """`size` visits, with as much of everything else as goes with them."""
    allow_descriptors(size // 10 + 200)
    pressed = Pressed()
    _stopped(pressed, size * MESSAGES_A_VISIT // BATCH_MESSAGES)
    _alarm(pressed)
    _visits(pressed, size)
    _idle(pressed, size // 10)
    return Figures({"visits": size, **pressed.counts}, pressed.violations)


def _stopped(pressed: Pressed, batches: int) -> None:
    batch = batch_of(BATCH_MESSAGES, BODY_BYTES)
    budget = MEMORY_LIMIT + OUTPUT_BYTES + INPUT_BYTES + WORKING_BYTES + batches * INDEX_BYTES
    with watched(*BOUNDS, "--fsync", "no") as broker:
        stopped = Wire(broker.path)
        stopped.ask(f.Consume(1, "jobs", None, {"prefetch": 1_000_000, "lease_ms": 1000}))
        with Wire(broker.path) as wire:
            flood = Flood(wire, "jobs", batch)
            flood.send(batches)
        pressed.check(not flood.refused, f"stopped: publishes were refused, {flood.refused}")
        pressed.peak(f"{flood.confirmed * len(batch) / 1e9:.2g} GB waiting", broker, budget)
        stopped.close()
        with Wire(broker.path) as wire:
            came = drain(wire, "jobs", flood.confirmed * BATCH_MESSAGES)
        pressed.check(came == flood.confirmed * BATCH_MESSAGES, f"stopped: {came} messages came")
        pressed.peak("and delivered", broker, budget)


def _alarm(pressed: Pressed) -> None:
    high = 256 * MIB
    batch = batch_of(BATCH_MESSAGES, BODY_BYTES)
    flags = ("--persistence", "none", "--memory-high-bytes", f"{high}", *BOUNDS)
    with watched(*flags) as broker:
        with Wire(broker.path) as wire:
            flood = Flood(wire, "jobs", batch)
            sent = flood.send(10_000)
            pressed.check(list(flood.refused) == ["memory_full"], f"alarm: {flood.refused}")
            stored = flood.confirmed * BATCH_MESSAGES
            with Wire(broker.path) as consumer:
                came = drain(consumer, "jobs", stored)
            pressed.check(came == stored, f"alarm: {came} of {stored} messages came")
            began = time.perf_counter()
            while flood.send(1) == 0 and time.perf_counter() - began < 30:
                time.sleep(0.05)
            pressed.check(flood.confirmed * BATCH_MESSAGES > stored, "alarm: it was not cleared")
            seconds = time.perf_counter() - began
        pressed.counts["MB until refused"] = sent // 10**6
        pressed.counts["s until taken again"] = round(seconds, 2)
        pressed.peak("alarm", broker, high + INPUT_BYTES + OUTPUT_BYTES - broker.base_bytes)


def _visits(pressed: Pressed, visits: int) -> None:
    with watched(*BOUNDS) as broker:
        _visit(broker.path, visits // 10 + 1)
        descriptors = _settled(broker)
        broker.begin()
        before = broker.resident_bytes()
        _visit(broker.path, visits)
        left = _settled(broker, descriptors) - descriptors
        gained = broker.resident_bytes() - before
        pressed.peak("visits", broker, LEAK_BYTES + before - broker.base_bytes)
    pressed.counts["KiB gained"] = gained // 1024
    pressed.counts["descriptors gained"] = left
    pressed.check(gained <= LEAK_BYTES, f"visits: {gained // 1024} KiB were gained by {visits}")
    pressed.check(left <= 0, f"visits: {left} descriptors were gained by {visits}")


def _visit(path: str, visits: int) -> None:
    """Come, wait for a message, give up, and leave: half of them without a word."""
    for number in range(visits):
        wire = Wire(path)
        wire.ask(f.Consume(1, "empty", None, {"token": number.to_bytes(16, "big")}))
        wire.say(f.Fetch(2, 1, 1, 60_000))
        if number % 2:
            wire.say(f.Goodbye(3))
        wire.close()


def _settled(broker: Watched, descriptors: int | None = None) -> int:
    """Wait until all that left are gone for the broker, too; return how many descriptors it has.

    They are counted beside the one connection that asks, so two counts may be compared. A socket
    is closed a moment after its connection is no longer counted: where `descriptors` is given, the
    broker has the rest of 30 seconds to come down to it.
    """
    with Wire(broker.path) as wire:
        until = time.perf_counter() + 30
        while time.perf_counter() < until:
            held = broker.descriptors()
            alone = wire.ask(f.Call(1, "stats", {})).result["connections"] == 1
            if alone and (descriptors is None or held <= descriptors):
                break
            time.sleep(0.05)
        return broker.descriptors()


def _idle(pressed: Pressed, connections: int) -> None:
    with watched(*BOUNDS) as broker:
        descriptors = _settled(broker)
        wires = [Wire(broker.path) for _ in range(connections)]
        each = (broker.resident_bytes() - broker.base_bytes) / connections
        pressed.counts["idle connections"] = connections
        pressed.counts["KiB each"] = each / 1024
        pressed.peak("idle", broker, connections * CONNECTION_BYTES + WORKING_BYTES)
        for wire in wires:
            wire.close()
        left = _settled(broker, descriptors) - descriptors
        pressed.check(left <= 0, f"idle: {left} descriptors were left")


PROGRAMME = Programme(
    name="flood",
    id="T15",
    title="a consumer that stops while a producer runs flat out; 100,000 visits; idle connections",
    unit="visits",
    short=2_000,
    long=100_000,
    run=run,
    promises=("G13",),
)
