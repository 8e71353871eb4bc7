"""Where every clock, identity and accident of a run comes from: its seed.

Production asks the machine for randomness and time at few places. Here they are answered from the
seed, and trio's scheduler, which picks at random whose turn it is, picks by the seed. So one seed
is one run, to the last byte, in any process.

Each part of the world has a stream of chance of its own, by name: taking a fault out of a plan, or
a client, leaves the accidents of the others what they were.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from telpher_broker import core, persist, resident, watermarks
from telpher_storage import file_storage, syncer

from .network import SimulatedConnection

# 2023-11-14: what the wall clock says when a run begins.
EPOCH_MS = 1_700_000_000_000
MACHINE_BYTES = 1 << 30


def stream(seed: int, name: str) -> random.Random:
    """The chance of one part of the world."""
    return random.Random(f"{seed}/{name}")


class Gauges:
    """What the broker reads off its machine: clocks, which virtual time moves, and its memory.

    `wall_step_ms`: by how much the wall clock has been set wrong. `worked_seconds`: what calls that
    block took, in which virtual time stands still. `resident_bytes`: how much the broker has.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.wall_step_ms = 0
        self.worked_seconds = 0.0
        self.resident_bytes = 0

    def wall_ms(self) -> int:
        """What the wall clock says, in milliseconds since 1970."""
        return EPOCH_MS + int(self.now() * 1000) + self.wall_step_ms

    def wall_ns(self) -> int:
        """For `time.time_ns`."""
        return self.wall_ms() * 1_000_000

    def worked_ns(self) -> int:
        """A clock of work alone: for measuring how long a call takes that is made in a thread."""
        return int(self.worked_seconds * 1e9)


@contextmanager
def decided_by(seed: int, gauges: Gauges, run_in_thread: Callable[..., Any]) -> Iterator[None]:
    """Within it everything that production asks the machine comes from the seed."""
    identities = stream(seed, "identities")
    places: list[tuple[Any, str, Any]] = [
        (secrets, "token_bytes", lambda count=32: identities.randbytes(count)),
        (secrets, "token_hex", lambda count=32: identities.randbytes(count).hex()),
        (time, "time_ns", gauges.wall_ns),
        (time, "perf_counter", gauges.now),
        (file_storage, "perf_counter", gauges.now),
        # States are small here: so that a snapshot takes more than one step all the same.
        (file_storage, "STEP_BYTES", 100),
        (syncer, "perf_counter_ns", gauges.worked_ns),
        (resident, "machine_bytes", lambda: MACHINE_BYTES),
        (watermarks, "resident_bytes", lambda: gauges.resident_bytes),
        # A snapshot is slow here, and its pauses need not be known to the millisecond.
        (persist, "_PROBE_SECONDS", 0.05),
        (core, "ClientConnection", SimulatedConnection),
        (trio.to_thread, "run_sync", run_in_thread),
        # As hypothesis has it of trio, so that a run can be had again.
        (trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    chance_before = random.getstate()
    try:
        for owner, name, value in places:
            setattr(owner, name, value)
        trio._core._run._r.seed(f"{seed}/scheduler")
        random.seed(f"{seed}/reconnects")
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        random.setstate(chance_before)
