"""One run: a broker that lives and dies on its machine, clients, and what befalls them.

The broker's process is `Life`: it recovers, serves, and ends by a kill, a loss of power, a disk
that fails, or in order; then the machine starts the next one on what the disk has left. Clients and
broker meet in the network alone. At the end nothing goes wrong any more, and everything that was
confirmed has to be delivered and settled within bounded time.
"""

from __future__ import annotations

import errno
import hashlib
import random
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import trio
import trio.testing

from telpher.protocol import frames as f
from telpher_broker import listeners
from telpher_broker.core import Broker
from telpher_broker.daemon import FAILED_EXIT_SECONDS, FAILED_LOOK_SECONDS
from telpher_broker.engine.dump import dump
from telpher_broker.engine.turn import Effect
from telpher_broker.options import Settings
from telpher_storage import (
    FileStorage,
    Position,
    SnapshotReport,
    StorageDamaged,
    StorageError,
    StorageFailed,
    StorageSettings,
)
from tests.engine.invariants import check_engine, unsettled

from .chance import MACHINE_BYTES, Gauges, stream
from .clients import run_client, set_up
from .disk import Arm, Killed, SimulatedDisk, Surroundings
from .features import Sketch
from .ledger import Ledger
from .network import BrokerEnd, Network
from .plan import Fault, Part, Plan
from .threads import Turns

DATA = Path("/data")
EXIT_SECONDS = 1.0
CALM_SECONDS = 120.0
SWEEPERS = 1000  # the numbers of the clients that settle what is left begin here


class Life:
    """One process of the broker, from its start to its end."""

    def __init__(self, world: World, settings: Settings, disk: SimulatedDisk) -> None:
        self._world = world
        self.disk = disk
        journal = settings.persistence != "rdb"
        told = StorageSettings(DATA, settings.persistence, settings.reserve_bytes)
        self.storage = WatchedStorage(told, journal=journal, files=disk)
        self.storage.appended, self.storage.snapshot_at = [], trio.current_time()
        self.broker = WatchedBroker(world, disk, settings, self.storage)
        self.ended = trio.Event()
        self.is_dead = False
        self.is_serving = False
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Until it ends, in whatever way; what goes wrong in it is told to the world."""
        try:
            with self._scope:
                await self._run()
        except BaseException as error:  # noqa: BLE001 (it is judged)
            self._judge(error)
        if not self.is_dead:
            self._world.process_ended(self)

    async def _run(self) -> None:
        world, broker = self._world, self.broker
        broker.recover()
        world.unsynced_since = None
        check_engine(broker.engine)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(broker.run)
            world.network.accept = lambda end: nursery.start_soon(self._serve, end)
            nursery.start_soon(self._bound_exit)
            self.is_serving = True
            world.note("serving")
            await self.ended.wait()
            nursery.cancel_scope.cancel()

    async def _bound_exit(self) -> None:
        """As the daemon does, which ends the process whatever still hangs."""
        while not self.broker.has_failed:  # noqa: ASYNC110 (a storage has no events)
            await trio.sleep(FAILED_LOOK_SECONDS)
        await trio.sleep(FAILED_EXIT_SECONDS)
        self._world.process_ended(self)

    async def _serve(self, end: BrokerEnd) -> None:
        try:
            await self.broker.serve(end, listeners.Peer(f"client {end.wire.number}"))
        finally:
            if not self.is_dead:
                end.wire.leave(end.wire.down)

    async def drain(self, seconds: float) -> None:
        """End in order."""
        world = self._world
        world.network.accept = None
        began = trio.current_time()
        await self.broker.drain(seconds)
        if not self.is_dead:
            world.note("drained")
            took = trio.current_time() - began
            if took > seconds + 10:
                world.violated(f"an orderly end took {took:.1f} s")
            world.process_ended(self)

    async def snapshot(self) -> None:
        """What a CALL of `snapshot` does."""
        self._world.note(f"snapshot: {type(await self.broker.persistence.snapshot_on_demand(0))}")

    def start(self, task: Callable[..., Awaitable[None]], *given: Any) -> None:
        """Run something in the process."""
        self._nursery.start_soon(task, *given)

    def die(self) -> None:
        """Be killed: nothing that is still done in it reaches the world."""
        self.is_dead = True
        self._scope.cancel()
        self.ended.set()

    def _judge(self, error: BaseException) -> None:
        if self.is_dead:
            return
        world = self._world
        for leaf in _leaves(error):
            if isinstance(leaf, (Killed, trio.Cancelled)):
                continue
            if isinstance(leaf, StorageFailed) and self.disk.failed:
                late = trio.current_time() - self.disk.failed_at
                if late > EXIT_SECONDS:
                    world.violated(f"the disk failed, and the exit came {late:.1f} s later")
            elif isinstance(leaf, StorageDamaged) and world.may_refuse:
                world.refused()
            elif isinstance(leaf, StorageDamaged) or not isinstance(leaf, StorageError):
                text = "".join(traceback.format_exception(leaf))
                world.violated(f"the broker ended: {text}")


class WatchedBroker(Broker):
    """The broker, seen to say nothing any more once its disk has failed."""

    def __init__(
        self, world: World, disk: SimulatedDisk, settings: Settings, storage: FileStorage
    ) -> None:
        super().__init__(settings, storage)
        self._world = world
        self._disk = disk

    def _speak(self, effects: list[Effect]) -> None:
        if self._disk.failed and any(type(frame) is f.Confirm for _, frame in effects):
            self._world.violated(f"a confirm after a failed {self._disk.failed}")
        super()._speak(effects)


def _leaves(error: BaseException) -> Any:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


class WatchedStorage(FileStorage):
    """The storage, with a note of when each record was appended, or the last snapshot cut."""

    appended: list[tuple[int, float]]
    cut_at = snapshot_at = 0.0

    def append(self, records: Sequence[bytes], time_ms: int = 0) -> list[Position]:
        self.appended.append((self.next_record, trio.current_time()))
        return super().append(records, time_ms)

    def cut(self) -> int:
        self.cut_at = trio.current_time()
        return super().cut()

    async def write_snapshot(self, upto: int, chunks: Iterable[bytes]) -> SnapshotReport:
        cut_at = self.cut_at
        report = await super().write_snapshot(upto, chunks)
        self.snapshot_at = cut_at
        return report

    def kept_until(self) -> float:
        """The time up to which everything that happened is on the disk for good."""
        if not self.keeps_records:
            return self.snapshot_at
        for first, at in self.appended:
            if first >= self.synced_record:
                return at
        return trio.current_time()


class World:
    """Everything of one run."""

    def __init__(
        self, plan: Plan, clock: trio.testing.MockClock, shown: Callable[[str], None] | None
    ) -> None:
        self.plan = plan
        self.gauges = Gauges(clock.current_time)
        self.turns = Turns(self._after_turn)
        self.violations: list[str] = []
        self.digest = hashlib.blake2b(digest_size=16)
        self.is_calm = self.is_over = False
        self.scopes: dict[int, trio.CancelScope] = {}
        self.network = Network(stream(plan.seed, "network"), plan.weather, self.trace)
        self.ledger = Ledger(plan.sketch, clock.current_time, self.note, self.violated)
        # Who has something to publish that is not confirmed.
        self.publishing: set[str] = set()
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._shown = shown
        self._down_chance = stream(plan.seed, "downtime")
        self._cost_chance = stream(plan.seed, "costs")
        self._slow_until, self._slow_seconds, self._longest_sync = 0.0, 0.0, 0.0
        self._dying: bool | None = None
        self._down_seconds = 0.0
        self._changed = trio.Event()
        self._nursery: trio.Nursery
        self._clients: trio.Nursery
        self.disk = SimulatedDisk(
            Surroundings(
                stream(plan.seed, "disk"),
                self._cost_seconds,
                self._pass_time,
                self.note,
                self._died_in_call,
                clock.current_time,
            )
        )
        self.disk.directories = {str(DATA.parent)}
        # What a process left in the system's cache, until the next one has it on the disk.
        self.unsynced_since: float | None = None
        self._was_power_lost = False
        self.has_ended = trio.Event()
        self.life: Life | None = None

    # --- what is seen

    def note(self, text: str) -> None:
        """Something happened."""
        self.trace(text, b"")

    def trace(self, text: str, data: bytes) -> None:
        """It belongs to what a run is."""
        line = f"{self._clock.current_time():.6f} {text}"
        self.digest.update(line.encode())
        self.digest.update(data)
        if self._shown is not None:
            self._shown(f"{line} {_plain(data)}")

    def violated(self, text: str) -> None:
        """A promise was broken."""
        self.note(f"VIOLATION {text}")
        self.violations.append(text)

    # --- the run

    @property
    def may_refuse(self) -> bool:
        """Whether the power has gone where nobody synced."""
        return self._was_power_lost and self.plan.fsync == "no"

    def refused(self) -> None:
        """The broker does not start, and may: that is the end of the run."""
        self.note("the start is refused")
        self.counts["refused starts"] += 1
        self.has_ended.set()

    async def run(self) -> None:
        """All of it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run)
            await self.has_ended.wait()
            nursery.cancel_scope.cancel()
        self.turns.close()
        if not self.counts["refused starts"]:
            self.violations += map(str, self.ledger.history.end())
            self.ledger.check_cooked()

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._machine)
            await set_up(self)
            async with trio.open_nursery() as clients:
                self._clients = clients
                for part in self.plan.clients:
                    clients.start_soon(run_client, self, part)
                for fault in self.plan.faults:
                    await trio.sleep_until(fault.at)
                    self._befall(fault)
                await trio.sleep_until(self.plan.seconds)
                self._calm_down()
                await self._until_settled()
                self.is_over = True
                clients.cancel_scope.cancel()
            await self._end_in_order()
            nursery.cancel_scope.cancel()
        self.has_ended.set()

    async def _machine(self) -> None:
        """Start the broker, again and again."""
        while True:
            self.life = life = Life(self, _settings(self.plan), self.disk)
            self.counts["starts"] += 1
            self._nursery.start_soon(life.run)
            await life.ended.wait()
            await trio.sleep(self._down_seconds)
            if self.network.is_dark:
                self.network.power_back()

    def _calm_down(self) -> None:
        """From now on nothing goes wrong."""
        self.note("calm")
        self.is_calm = True
        self._slow_until = 0.0
        self.disk.arms.clear()
        self.disk.used_bytes_extra = 0
        self.network.clear_up()
        self.gauges.resident_bytes = 0
        for part in _sweepers(self.plan.sketch):
            self._clients.start_soon(run_client, self, part)

    async def _until_settled(self) -> None:
        """Everything is delivered and settled, in bounded time."""
        deadline = trio.current_time() + CALM_SECONDS
        while trio.current_time() < deadline and not self.violations:
            await trio.sleep(1.0)
            waiting = self._waiting()
            if not waiting:
                return
        if not self.violations:
            self.violated(f"stuck: {CALM_SECONDS:g} s after the last fault there is {waiting}")

    def _waiting(self) -> str:
        """What is not settled yet."""
        life = self.life
        if life is None or not life.is_serving or life.is_dead:
            return "no broker"
        found = [
            f"{sorted(left)[:5]} of {name} {subscription.name}"
            for name, channel in sorted(life.broker.engine.state.channels.items())
            for subscription in channel.subscriptions.values()
            if (left := unsettled(subscription))
        ]
        found += [f"what {name} publishes" for name in sorted(self.publishing)]
        return "; ".join(found)

    async def _end_in_order(self) -> None:
        """Drain, start anew, and find the same state."""
        life = self.life
        assert life is not None
        if self.violations:
            return
        before = life.broker.engine
        check_engine(before)
        self._down_seconds = 0.0
        life.start(life.drain, 5.0)
        await life.ended.wait()
        await trio.sleep(1.0)
        assert self.life is not None
        if dump(before.state) != dump(self.life.broker.engine.state):
            self.violated("the state after an orderly end and a start is not what it was")

    # --- the broker's process

    def process_ended(self, life: Life) -> None:
        """It ended by itself: in order, or because its disk failed or was full."""
        self.note("the process ended")
        self._end_life(life, power_lost=False, down_seconds=0.5 + 2 * self._down_chance.random())

    def kill(self, *, power_lost: bool) -> None:
        """The process dies, with the machine if `power_lost`."""
        life = self.life
        if life is None or life.is_dead or life.ended.is_set():
            return
        self.note("the power is lost" if power_lost else "the process is killed")
        self.counts["power cuts" if power_lost else "kills"] += 1
        down = self._down_chance.choice((0.05, 1.0, 10.0 if power_lost else 3.0))
        self._end_life(life, power_lost=power_lost, down_seconds=down)

    def _end_life(self, life: Life, *, power_lost: bool, down_seconds: float) -> None:
        kept_until = life.storage.kept_until()
        if self.unsynced_since is not None:  # it did not come to sync what an earlier one left
            kept_until = min(kept_until, self.unsynced_since)
        elif power_lost:
            self._check_window(kept_until)
        self.unsynced_since = None if power_lost else kept_until
        self.disk = self.disk.next_life(power_lost=power_lost)
        if power_lost:
            self.network.power_lost()
        else:
            self.network.process_died()
        self._was_power_lost |= power_lost
        # With `always` nothing was said that can be undone.
        is_undone = power_lost and self.plan.fsync != "always"
        is_undone |= self.plan.persistence == "rdb"
        self.ledger.crashed(kept_until if is_undone else None)
        self._down_seconds = 0.2 if self.is_calm else down_seconds
        life.die()

    def _check_window(self, kept_until: float) -> None:
        """With `everysec` what is older than a second and a sync is on the disk."""
        lost_seconds = trio.current_time() - kept_until
        is_promised = self.plan.fsync == "everysec" and self.plan.persistence != "rdb"
        if is_promised and lost_seconds > 1.1 + 2 * self._longest_sync:
            self.violated(f"the last {lost_seconds:.1f} s were not on the disk")

    def _died_in_call(self, power_lost: bool) -> None:
        self._dying = power_lost
        if self.turns.current is None:
            self._after_turn()

    def _after_turn(self) -> None:
        """In the loop: a thread may have made the call in which the process died."""
        if self._dying is not None:
            power_lost, self._dying = self._dying, None
            self.kill(power_lost=power_lost)

    # --- how long calls take

    def _cost_seconds(self, call: str) -> float:
        if not call.startswith("sync"):
            return 0.00002
        seconds = self.plan.sync_seconds * (0.5 + self._cost_chance.random())
        if self._clock.current_time() < self._slow_until:
            seconds = self._slow_seconds
        self._longest_sync = max(self._longest_sync, seconds)
        return seconds

    def _pass_time(self, seconds: float) -> None:
        self.gauges.worked_seconds += seconds
        if self.turns.current is not None:
            self.turns.pause(seconds)

    # --- what befalls it

    def _befall(self, fault: Fault) -> None:
        self.note(str(fault))
        chance = stream(self.plan.seed, f"fault {fault.number}")
        _FAULTS[fault.kind](self, chance, **fault.given)

    def _cut(self, chance: random.Random) -> None:
        wires = self.network.live()
        if wires:
            chance.choice(wires).cut()

    def _flaky(self, chance: random.Random, seconds: float) -> None:
        self._nursery.start_soon(self._cut_for, chance, trio.current_time() + seconds)

    async def _cut_for(self, chance: random.Random, until: float) -> None:
        while trio.current_time() < until and not self.is_calm:
            self._cut(chance)
            await trio.sleep(0.3 * chance.random())

    def _silence(self, chance: random.Random) -> None:
        wires = self.network.live()
        if wires:
            wire = chance.choice(wires)
            for way in chance.choice(([wire.up], [wire.down], [wire.up, wire.down])):
                way.silence()

    def _stall(self, chance: random.Random, seconds: float) -> None:
        wires = self.network.live()
        if wires:
            chance.choice(wires).down.stall(trio.current_time() + seconds)

    def _arm(self, among: str, code: int | None, calls: int, *, power_lost: bool = False) -> None:
        self.disk.arms.append(Arm(among, calls, code, power_lost))

    def _slow_syncs(self, _: random.Random, seconds: float, sync_seconds: float) -> None:
        self._slow_until, self._slow_seconds = trio.current_time() + seconds, sync_seconds

    def _fill_disk(self, chance: random.Random, seconds: float) -> None:
        free = self.disk.total_bytes - self.disk.used_bytes()
        left = chance.choice((0, 500, 5000, 70_000))
        self._nursery.start_soon(self._full_for, left, free, seconds)

    async def _full_for(self, left_bytes: int, free_bytes: int, seconds: float) -> None:
        self.disk.used_bytes_extra += max(0, free_bytes - left_bytes)
        await trio.sleep(seconds)
        self.disk.used_bytes_extra = 0

    def _memory_full(self, _: random.Random, seconds: float) -> None:
        self._nursery.start_soon(self._no_memory_for, seconds)

    async def _no_memory_for(self, seconds: float) -> None:
        self.gauges.resident_bytes = MACHINE_BYTES
        await trio.sleep(seconds)
        self.gauges.resident_bytes = 0

    def _clock_step(self, _: random.Random, days: float) -> None:
        self.gauges.wall_step_ms += int(days * 86_400_000)

    def _drain(self, _: random.Random) -> None:
        life = self.life
        if life is not None and life.is_serving and not life.is_dead:
            life.is_serving = False
            life.start(life.drain, 5.0)

    def _snapshot(self, _: random.Random) -> None:
        life = self.life
        if life is not None and life.is_serving and not life.is_dead:
            life.start(life.snapshot)

    def _client_dies(self, chance: random.Random) -> None:
        number = chance.choice(sorted(self.scopes)) if self.scopes else None
        if number is None:
            return
        name = next(part.name for part in self.plan.clients if part.number == number)
        for wire in self.network.live():
            if wire.client.split(".")[0] == name:
                wire.leave(wire.up)
        self.publishing = {one for one in self.publishing if one.split(".")[0] != name}
        self.scopes[number].cancel()


_FAULTS: dict[str, Callable[..., None]] = {
    "kill": lambda world, _: world.kill(power_lost=False),
    "power": lambda world, _: world.kill(power_lost=True),
    "kill_in_call": lambda world, _, calls: world._arm("", None, calls),
    "power_in_call": lambda world, _, calls: world._arm("", None, calls, power_lost=True),
    "kill_in_sync": lambda world, _, calls: world._arm("sync", None, calls),
    "power_in_sync": lambda world, _, calls: world._arm("sync", None, calls, power_lost=True),
    "memory_full": World._memory_full,
    "clock_step": World._clock_step,
    "cut": World._cut,
    "flaky": World._flaky,
    "silence": World._silence,
    "stall": World._stall,
    "sync_fails": lambda world, _, calls: world._arm("sync", errno.EIO, calls),
    "write_fails": lambda world, _, calls: world._arm("write", errno.EIO, calls),
    "slow_syncs": World._slow_syncs,
    "disk_full": World._fill_disk,
    "drain": World._drain,
    "snapshot": World._snapshot,
    "client_dies": World._client_dies,
}


def _sweepers(sketch: Sketch) -> list[Part]:
    queues = [name for name, (kind, _) in sketch.channels.items() if kind == "queue"]
    parts = [(sketch.sweepers.get(name, "sweeper"), name, {}) for name in queues]
    parts += [
        ("sweeper", topic, {"subscription": name}) for name, topic in sketch.subscriptions.items()
    ]
    return [
        Part(SWEEPERS + number, role, channel, {"pace": 0.0, **given})
        for number, (role, channel, given) in enumerate(parts)
    ]


def _settings(plan: Plan) -> Settings:
    return Settings(persistence=plan.persistence, fsync=plan.fsync, data_dir=DATA, **plan.settings)


def _plain(data: bytes) -> str:
    return data.hex() if len(data) < 40 else f"{data[:40].hex()}... {len(data)} bytes"
