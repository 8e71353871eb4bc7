"""What befalls the broker, its machine and the network in a run: each kind of fault of a plan."""

from __future__ import annotations

import errno
import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from .chance import MACHINE_BYTES, stream
from .disk import Arm
from .plan import Fault

if TYPE_CHECKING:
    from .life import Life
    from .world import World


def befall(world: World, fault: Fault) -> None:
    """Let a fault of the plan happen."""
    world.note(str(fault))
    chance = stream(world.plan.seed, f"fault {fault.number}")
    _FAULTS[fault.kind](world, chance, **fault.given)


def _cut(world: World, chance: random.Random) -> None:
    wires = world.network.live()
    if wires:
        chance.choice(wires).cut()


def _flaky(world: World, chance: random.Random, seconds: float) -> None:
    world.start(_cut_for, world, chance, trio.current_time() + seconds)


async def _cut_for(world: World, chance: random.Random, until: float) -> None:
    while trio.current_time() < until and not world.is_calm:
        _cut(world, chance)
        await trio.sleep(0.3 * chance.random())


def _silence(world: World, chance: random.Random) -> None:
    wires = world.network.live()
    if wires:
        wire = chance.choice(wires)
        for way in chance.choice(([wire.up], [wire.down], [wire.up, wire.down])):
            way.silence()


def _part(world: World, chance: random.Random, seconds: float) -> None:
    wires = world.network.live()
    if wires:
        world.network.part(chance.choice(wires).client, trio.current_time() + seconds)


def _stall(world: World, chance: random.Random, seconds: float) -> None:
    wires = world.network.live()
    if wires:
        chance.choice(wires).down.stall(trio.current_time() + seconds)


def _arm(
    world: World, among: str, code: int | None, calls: int, *, power_lost: bool = False
) -> None:
    world.disk.arms.append(Arm(among, calls, code, power_lost))


def _slow_syncs(world: World, _: random.Random, seconds: float, sync_seconds: float) -> None:
    world.slow_until, world.slow_seconds = trio.current_time() + seconds, sync_seconds


def _fill_disk(world: World, chance: random.Random, seconds: float) -> None:
    free = world.disk.total_bytes - world.disk.used_bytes()
    left = chance.choice((0, 500, 5000, 70_000))
    world.start(_full_for, world, left, free, seconds)


async def _full_for(world: World, left_bytes: int, free_bytes: int, seconds: float) -> None:
    world.disk.used_bytes_extra += max(0, free_bytes - left_bytes)
    await trio.sleep(seconds)
    world.disk.used_bytes_extra = 0


def _memory_full(world: World, _: random.Random, seconds: float) -> None:
    world.start(_no_memory_for, world, seconds)


async def _no_memory_for(world: World, seconds: float) -> None:
    world.gauges.resident_bytes = MACHINE_BYTES
    await trio.sleep(seconds)
    world.gauges.resident_bytes = 0


def _clock_step(world: World, _: random.Random, days: float) -> None:
    world.gauges.wall_step_ms += int(days * 86_400_000)


def _drain(world: World, _: random.Random) -> None:
    life = world.life
    if life is not None and life.is_serving and not life.is_dead:
        life.is_serving = False
        life.start(life.drain, 5.0)


def _snapshot(world: World, _: random.Random) -> None:
    life = world.life
    if life is not None and life.is_serving and not life.is_dead:
        life.ask(life.snapshot)


def _end_after_snapshot(world: World, write_seconds: float, *, power_lost: bool) -> None:
    """What is on the disk then is read by the next process; what it took is slow."""
    life = world.life
    if life is not None and life.is_serving and not life.is_dead:
        world.slow_until, world.slow_seconds = math.inf, write_seconds
        life.ask(_snapshot_and_end, world, life, power_lost)


async def _snapshot_and_end(world: World, life: Life, power_lost: bool) -> None:
    try:
        await life.snapshot()
    finally:
        world.slow_until = 0.0
    if not world.is_calm:
        world.kill(power_lost=power_lost)


def _client_dies(world: World, chance: random.Random) -> None:
    number = chance.choice(sorted(world.scopes)) if world.scopes else None
    if number is None:
        return
    name = next(part.name for part in world.plan.clients if part.number == number)
    for wire in world.network.live():
        if wire.client.split(".")[0] == name:
            wire.leave(wire.up)
    world.publishing = {one for one in world.publishing if one.split(".")[0] != name}
    world.scopes[number].cancel()


_FAULTS: dict[str, Callable[..., None]] = {
    "kill": lambda world, _: world.kill(power_lost=False),
    "power": lambda world, _: world.kill(power_lost=True),
    "kill_in_call": lambda world, _, calls: _arm(world, "", None, calls),
    "power_in_call": lambda world, _, calls: _arm(world, "", None, calls, power_lost=True),
    "kill_in_sync": lambda world, _, calls: _arm(world, "sync", None, calls),
    "power_in_sync": lambda world, _, calls: _arm(world, "sync", None, calls, power_lost=True),
    "memory_full": _memory_full,
    "clock_step": _clock_step,
    "cut": _cut,
    "flaky": _flaky,
    "silence": _silence,
    "away": _part,
    "stall": _stall,
    "sync_fails": lambda world, _, calls: _arm(world, "sync", errno.EIO, calls),
    "write_fails": lambda world, _, calls: _arm(world, "write", errno.EIO, calls),
    "slow_syncs": _slow_syncs,
    "disk_full": _fill_disk,
    "drain": _drain,
    "snapshot": _snapshot,
    "kill_after_snapshot": lambda world, _, write_seconds: _end_after_snapshot(
        world, write_seconds, power_lost=False
    ),
    "power_after_snapshot": lambda world, _, write_seconds: _end_after_snapshot(
        world, write_seconds, power_lost=True
    ),
    "client_dies": _client_dies,
}
