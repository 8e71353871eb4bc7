"""One run: a broker that lives and dies on its machine, clients, and what befalls them.

The broker's process is `Life`: it recovers, serves, and ends by a kill, a loss of power, a disk
that fails, or in order; then the machine starts the next one on what the disk has left. Clients and
broker meet in the network alone. At the end nothing goes wrong any more, and everything that was
confirmed has to be delivered and settled within bounded time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing

from telpher_broker.engine.dump import dump
from telpher_broker.options import Settings
from tests.engine.invariants import check_engine, unsettled

from .chance import Gauges, stream
from .clients import run_client, set_up
from .disk import SimulatedDisk, Surroundings
from .faults import befall
from .features import Sketch
from .ledger import Ledger
from .life import DATA, Life
from .network import Network
from .plan import Part, Plan
from .threads import Turns

CALM_SECONDS = 120.0
SWEEPERS = 1000  # the numbers of the clients that settle what is left begin here


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
        self.slow_until, self.slow_seconds, self._longest_sync = 0.0, 0.0, 0.0
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
                    befall(self, fault)
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

    def start(self, task: Callable[..., Awaitable[None]], *given: Any) -> None:
        """Run something beside everything else."""
        self._nursery.start_soon(task, *given)

    def _calm_down(self) -> None:
        """From now on nothing goes wrong."""
        self.note("calm")
        self.is_calm = True
        self.slow_until = 0.0
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
        """A sync takes its time, and so does a snapshot: what is written from a thread."""
        is_sync = call.startswith("sync")
        if not is_sync and (call != "write" or self.turns.current is None):
            return 0.00002
        seconds = self.plan.sync_seconds * (0.5 + self._cost_chance.random())
        if self._clock.current_time() < self.slow_until:
            seconds = self.slow_seconds
        if is_sync:
            self._longest_sync = max(self._longest_sync, seconds)
        return seconds

    def _pass_time(self, seconds: float) -> None:
        self.gauges.worked_seconds += seconds
        if self.turns.current is not None:
            self.turns.pause(seconds)


def _sweepers(sketch: Sketch) -> list[Part]:
    queues = [name for name, (kind, _) in sketch.channels.items() if kind == "queue"]
    parts = [(name, *sketch.sweepers.get(name, ("sweeper", {}))) for name in queues]
    parts += [
        (topic, "sweeper", {"subscription": name}) for name, topic in sketch.subscriptions.items()
    ]
    return [
        Part(SWEEPERS + number, role, channel, {"pace": 0.0, **given})
        for number, (channel, role, given) in enumerate(parts)
    ]


def _settings(plan: Plan) -> Settings:
    return Settings(persistence=plan.persistence, fsync=plan.fsync, data_dir=DATA, **plan.settings)


def _plain(data: bytes) -> str:
    return data.hex() if len(data) < 40 else f"{data[:40].hex()}... {len(data)} bytes"
