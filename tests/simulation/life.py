"""One process of the broker, as production has it, and what is watched of it."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from telpher.protocol import frames as f
from telpher_broker import listeners
from telpher_broker.core import Broker
from telpher_broker.daemon import FAILED_EXIT_SECONDS, FAILED_LOOK_SECONDS
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
from tests.engine.invariants import check_engine

from .disk import Killed, SimulatedDisk
from .network import BrokerEnd

if TYPE_CHECKING:
    from .world import World

DATA = Path("/data")
EXIT_SECONDS = 1.0


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
        """As the daemon does, which ends the process whatever still hangs, and however it ends."""
        try:
            while not self.broker.has_failed:  # noqa: ASYNC110 (a storage has no events)
                await trio.sleep(FAILED_LOOK_SECONDS)
        finally:
            if self.broker.has_failed and not self.is_dead:
                self._world.start(self._exit_soon)

    async def _exit_soon(self) -> None:
        await trio.sleep(FAILED_EXIT_SECONDS)
        if not self.is_dead:
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

    def ask(self, task: Callable[..., Awaitable[None]], *given: Any) -> None:
        """Run something where the broker answers CALLs: it ends before the storage is closed."""
        assert self.broker._nursery is not None
        self.broker._nursery.start_soon(task, *given)

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
        for name in self._world.plan.sketch.alone:
            self._check_alone(name)

    def _check_alone(self, name: str) -> None:
        channel = self.engine.state.channels.get(name)
        consumers = [] if channel is None else channel.subscriptions[""].consumers
        holders = sum(bool(consumer.leases) for consumer in consumers)
        if holders > 1:
            self._world.violated(f"{holders} consumers hold messages of {name}")

    def recover(self) -> None:
        super().recover()
        self._world.ledger.serving = self._run


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
