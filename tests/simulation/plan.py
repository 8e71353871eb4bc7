"""What a seed means: the settings, who is there, and what befalls them and when.

A plan is drawn from the seed alone, before anything runs. It is a list of clients and a list of
faults, so a part of it is a plan too: that is how a failing one is made small.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from .chance import stream
from .features import Sketch, sketched
from .network import Weather


@dataclass(frozen=True)
class Fault:
    """Something that happens to the broker, its machine or the network, `at` seconds."""

    number: int
    at: float
    kind: str
    given: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = "".join(f" {name}={value:.3g}" for name, value in self.given.items())
        return f"fault {self.number}: {self.kind} at {self.at:.3f}{given}"


@dataclass(frozen=True)
class Part:
    """A client: its role on a channel, and how it behaves."""

    number: int
    role: str
    channel: str
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the network and for publishers."""
        return f"{self.role}{self.number}"

    def __str__(self) -> str:
        given = "".join(f" {name}={value}" for name, value in self.given.items())
        return f"client {self.number}: {self.role} of {self.channel}{given}"


@dataclass(frozen=True)
class Plan:
    """A run. `seconds`: for how long things go wrong, before everything is left alone."""

    seed: int
    seconds: float
    persistence: str
    fsync: str
    settings: dict[str, Any]
    weather: Weather
    sync_seconds: float
    sketch: Sketch
    clients: tuple[Part, ...]
    faults: tuple[Fault, ...]

    def part(
        self,
        clients: Collection[int] | None = None,
        faults: Collection[int] | None = None,
        seconds: float | None = None,
    ) -> Plan:
        """The same with only these clients and faults, and for so long at most."""
        until = self.seconds if seconds is None else min(seconds, self.seconds)
        return replace(
            self,
            seconds=until,
            clients=tuple(one for one in self.clients if clients is None or one.number in clients),
            faults=tuple(
                fault
                for fault in self.faults
                if (faults is None or fault.number in faults) and fault.at <= until
            ),
        )

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.seconds:g} s, {self.persistence}, fsync {self.fsync}, "
            f"syncs of {self.sync_seconds:.2g} s"
        ]
        channels = self.sketch.channels.items()
        lines += [f"{kind} {name} {config}" for name, (kind, config) in channels]
        return "\n  ".join([*lines, *map(str, self.clients), *map(str, self.faults)])


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    chance = stream(seed, "plan")
    seconds = chance.choice((5.0, 10.0, 20.0, 60.0))
    persistence = chance.choice(("aof+rdb", "aof+rdb", "aof", "rdb"))
    sketch = sketched(chance, seconds)
    return Plan(
        seed,
        seconds,
        persistence,
        chance.choice(("always", "everysec", "everysec", "no")),
        {
            "rewrite_min_bytes": chance.choice((2000, 20_000, 1_000_000)),
            "reserve_bytes": 64 * 1024,
            "resume_ms": chance.choice((0, 1000, 5000)),
            "lease_ms": chance.choice((2000, 10_000)),
            "heartbeat_ms": 5000,
            "memory_limit": chance.choice((0, 1 << 30)),
            "create_channels": "declared",
            "when_full": chance.choice(("refuse", "wait")),
        },
        _weather(chance),
        chance.choice((0.0002, 0.002, 0.02)),
        sketch,
        tuple(Part(number, *client) for number, client in enumerate(sketch.clients)),
        _faults(chance, seconds),
    )


def _weather(chance: random.Random) -> Weather:
    most = chance.choice((0.0005, 0.005, 0.05))
    return Weather(
        least=most / 10,
        most=most,
        spike=chance.choice((0.05, 0.5, 3.0)),
        spikes=chance.choice((0.0, 0.01, 0.05)),
        piece_bytes=chance.choice((20, 300, 300, 16_384, 16_384, 16_384)),
    )


def _faults(chance: random.Random, seconds: float) -> tuple[Fault, ...]:
    count = chance.choice((0, 3, 6, 12))
    times = sorted(chance.uniform(0, seconds) for _ in range(count))
    return tuple(_fault(chance, number, at) for number, at in enumerate(times))


def _fault(chance: random.Random, number: int, at: float) -> Fault:
    kind = chance.choice(tuple(_KINDS) + _OFTEN)
    given = {name: draw_one(chance) for name, draw_one in _KINDS[kind].items()}
    return Fault(number, at, kind, given)


def _few_calls(chance: random.Random) -> int:
    return chance.choice((1, 2, 3, 5, 10, 30))


def _a_while(chance: random.Random) -> float:
    return chance.choice((0.1, 1.0, 5.0, 20.0))


def _a_moment(chance: random.Random) -> float:
    return chance.choice((0.02, 0.1, 0.3))


_OFTEN = (
    "kill",
    "power",
    "power_in_call",
    "power_in_sync",
    "flaky",
    "flaky",
    "kill_after_snapshot",
)
# Each kind of fault, and what has to be drawn for it.
_KINDS: dict[str, dict[str, Any]] = {
    "kill": {},
    "power": {},
    "kill_in_call": {"calls": _few_calls},
    "power_in_call": {"calls": _few_calls},
    "kill_in_sync": {"calls": _few_calls},
    "power_in_sync": {"calls": _few_calls},
    "cut": {},
    "flaky": {"seconds": _a_while},
    "silence": {},
    "away": {"seconds": _a_while},
    "stall": {"seconds": _a_while},
    "sync_fails": {"calls": _few_calls},
    "write_fails": {"calls": _few_calls},
    "slow_syncs": {"seconds": _a_while, "sync_seconds": lambda chance: chance.choice((0.1, 0.8))},
    "disk_full": {"seconds": _a_while},
    "drain": {},
    "snapshot": {},
    "kill_after_snapshot": {"write_seconds": _a_moment},
    "power_after_snapshot": {"write_seconds": _a_moment},
    "memory_full": {"seconds": _a_while},
    "clock_step": {"days": lambda chance: chance.choice((-3650.0, -1.0, 1.0))},
    "client_dies": {},
}
