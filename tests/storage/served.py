"""The production broker over the production storage on a disk in memory, in virtual time, and a
client that writes down what it was told.

`Served` is one process: it recovers, runs, and ends when it is told to or when its disk fails.
`Client` speaks frames. `Told` outlives both; `wrong` holds an engine that recovered later to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio
import trio.testing

from telpher.protocol import batch as batches
from telpher.protocol import frames as f
from telpher_broker.core import Broker
from telpher_broker.engine.engine import Engine
from telpher_broker.engine.settings import EngineSettings
from telpher_broker.engine_settings import engine_settings
from telpher_broker.options import Settings
from telpher_storage import FileStorage, Position, SnapshotReport, StorageSettings

from ..broker.harness import House, Peer, batch
from ..engine.invariants import unsettled
from .disk import Disk
from .stored import HOME, History

QUEUE = "jobs"
SERVED_RESERVE_BYTES = 64 * 1024
ANSWERS = (f.Confirm, f.ConfirmEach, f.Settled)


@contextmanager
def no_threads() -> Iterator[None]:
    """What goes to a thread is done at once; then all others have a turn."""

    async def run_sync(work: Callable[..., Any], *args: Any, **_options: Any) -> Any:
        with trio.CancelScope(shield=True):
            found = work(*args)
            await trio.lowlevel.checkpoint()
        return found

    before = trio.to_thread.run_sync
    trio.to_thread.run_sync = run_sync  # type: ignore[assignment]
    try:
        yield
    finally:
        trio.to_thread.run_sync = before


class NotedStorage(FileStorage):
    """Adds every record to the history before it goes to the disk."""

    history: History | None = None

    def append(self, records: Sequence[bytes], time_ms: int = 0) -> list[Position]:
        if self.history is not None and self._failure is None and records:
            self.history.add(records)
        return super().append(records, time_ms)

    async def write_snapshot(self, upto: int, chunks: Iterable[bytes]) -> SnapshotReport:
        noted = list(chunks)
        if self.history is not None:
            self.history.chunks[upto] = noted
        return await super().write_snapshot(upto, noted)


@dataclass
class Told:
    """What the client holds: bodies by offset, with the level of each confirm, and what is settled.

    `asked` to be settled is what may be either way when no answer came.
    """

    confirmed: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    synced_settled: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)

    def wrong(self, engine: Engine, level: int = f.Level.WRITTEN) -> str | None:
        """What this engine has forgotten that was told to be at a level, or brings back."""
        channel = engine.state.channels.get(QUEUE)
        waiting = set() if channel is None else unsettled(channel.subscriptions[""])
        for offset, (body, reached) in self.confirmed.items():
            if reached < level or offset in self.asked:
                continue
            if channel is None or offset not in waiting:
                return f"message {offset} was confirmed and is lost"
            stored = channel.log.find(offset)
            assert stored is not None
            columns = batches.decode(engine.state.memory.load(stored.batch))
            if columns.bodies[offset - stored.first] != body:
                return f"message {offset} has another body"
        again = (self.settled if level < f.Level.FSYNCED else self.synced_settled) & waiting
        return f"{sorted(again)} were settled and come again" if again else None


class Served:
    """One process. `spoken` counts confirms and settlements that were said after the disk failed;
    `ended_at` is when it stopped running."""

    def __init__(self, disk: Disk, history: History | None = None, **options: Any) -> None:
        self.disk = disk
        self.settings = Settings(**options)
        storage = StorageSettings(HOME, "aof+rdb", reserve_bytes=SERVED_RESERVE_BYTES)
        self.storage = NotedStorage(storage, journal=True, files=disk)
        self.storage.history = history
        self.broker = Broker(self.settings, self.storage)
        self.spoken = 0
        self.ended_at = 0.0
        self.has_failed: Callable[[], bool] = lambda: False

    @property
    def engine_settings(self) -> EngineSettings:
        return engine_settings(self.settings, self.storage)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[House]:
        """Recover and run for the length of the block; then end as if killed."""
        self.broker.recover()
        rounds = self.broker._rounds
        rounds._speak = partial(self._speak, rounds._speak)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._run)
            yield House(self.broker, nursery)
            nursery.cancel_scope.cancel()

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self.broker.run(task_status=task_status)
        finally:
            self.ended_at = trio.current_time()

    def _speak(self, speak: Callable[..., None], effects: list[Any]) -> None:
        if self.has_failed():
            self.spoken += sum(isinstance(frame, ANSWERS) for _, frame in effects)
        speak(effects)


class Client:
    """Publishes, consumes and settles, and writes down in `told` what it hears.

    `is_synced`: the broker syncs before it says anything.
    """

    def __init__(self, peer: Peer, told: Told, *, is_synced: bool) -> None:
        self.peer = peer
        self.told = told
        self.is_synced = is_synced
        self.held: list[int] = []
        self.consumer = 0
        self._request = 10

    def _next(self) -> int:
        self._request += 1
        return self._request

    async def _ask(self, frame: Any) -> Any:
        """The answer; deliveries that come before it are noted."""
        await self.peer.say(frame)
        while True:
            heard = await self.peer.hear()
            if isinstance(heard, f.Deliver):
                for first, _, _, encoded, *_ in heard.parts:
                    self.held += range(first, first + len(batches.decode(encoded).bodies))
            elif heard.request == frame.request:
                return heard

    async def publish(self, *bodies: bytes, confirm: int | None = None) -> Any:
        answer = await self._ask(f.Publish(self._next(), QUEUE, None, 0, confirm, batch(*bodies)))
        if isinstance(answer, f.Confirm):
            for offset, body in enumerate(bodies, answer.first):
                self.told.confirmed[offset] = (body, answer.level)
        else:
            self.told.refused.append(answer.code)
        return answer

    async def consume(self, prefetch: int = 100) -> None:
        self.consumer = self._next()
        await self._ask(f.Consume(self.consumer, QUEUE, None, {"prefetch": prefetch}))

    async def settle(self, count: int) -> Any:
        """Acknowledge the first that are held; None if nothing is."""
        taken, self.held = self.held[:count], self.held[count:]
        if not taken:
            return None
        offsets = tuple(number for offset in taken for number in (offset, offset + 1))
        self.told.asked |= set(taken)
        answer = await self._ask(f.Settle(self._next(), self.consumer, 0, offsets, 0))
        if isinstance(answer, f.Settled):
            self.told.settled |= set(taken)
            self.told.synced_settled |= set(taken) if self.is_synced else set()
        return answer

    async def call(self, verb: str) -> Any:
        return await self._ask(f.Call(self._next(), verb, {}))
