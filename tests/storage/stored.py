"""The production engine over the production storage, in memory, under virtual time.

`StoredDriver` is the engine's driver with a `FileStorage` for a shelf. It commits as the daemon
does, one block a round, and syncs before it says what waits for a sync. Beside it goes a shadow: an
engine that replays each record when it is decided. Its dump after so many records is what any
recovery of that many must be equal to, byte by byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import trio

from telpher_broker.engine.dump import dump
from telpher_broker.engine.engine import Engine, Round
from telpher_broker.engine.ports import Ports
from telpher_broker.engine.settings import EngineSettings
from telpher_broker.schemas import compile_schema
from telpher_storage import (
    FileStorage,
    Position,
    RecoveryReport,
    StorageSettings,
    file_log,
    file_storage,
    syncer,
)

from ..engine.driver import Driver, every
from .disk import Disk

HOME = Path("/model/data")
RESERVE_BYTES = 4096


def new_disk() -> Disk:
    disk = Disk()
    disk.directories.add(str(HOME.parent))
    return disk


def new_storage(disk: Disk, mode: str = "aof+rdb") -> FileStorage:
    settings = StorageSettings(HOME, mode, reserve_bytes=RESERVE_BYTES)
    return FileStorage(settings, journal=mode != "rdb", files=disk)


@contextmanager
def determined(seed: int) -> Iterator[None]:
    """The same calls and bytes for the same seed, however fast the machine is: ids are drawn by it,
    and whether syncs are so quick that they need no thread; each chunk is a block."""
    random = Random(seed)
    step, file_storage.STEP_SECONDS = file_storage.STEP_SECONDS, -1.0
    quick, syncer.QUICK_US = syncer.QUICK_US, random.choice((-1, 10**9))
    secrets, file_log.secrets = file_log.secrets, _Secrets(random)
    try:
        yield
    finally:
        file_storage.STEP_SECONDS, syncer.QUICK_US, file_log.secrets = step, quick, secrets


class _Secrets:
    def __init__(self, random: Random) -> None:
        self.token_bytes = random.randbytes


def digest(engine: Engine) -> bytes:
    """Equal for equal durable states, and for no others."""
    return hashlib.blake2b(dump(engine.state), digest_size=16).digest()


@dataclass
class History:
    """What was ever accepted: every record, and the digest of the state after so many of them.

    `blocks` are the record numbers between two blocks: all that a recovery may end at. `chunks` are
    those of every snapshot, by the record number that it covers up to.
    """

    settings: EngineSettings

    def __post_init__(self) -> None:
        self.records: list[bytes] = []
        self._shadow = Engine(self.settings)
        self.digests = [digest(self._shadow)]
        self.blocks = {0}
        self.chunks: dict[int, list[bytes]] = {0: []}

    @classmethod
    def since(cls, settings: EngineSettings, upto: int, chunks: list[bytes]) -> History:
        """One of which only a snapshot is left, and what comes after it."""
        history = cls(settings)
        for chunk in chunks:
            history._shadow.load(chunk)
        history._shadow.loaded()
        history.records += [b""] * upto
        history.digests += [digest(history._shadow)] * upto
        history.chunks[upto] = chunks
        return history

    def add(self, records: Iterable[bytes]) -> None:
        for record in records:
            self._shadow.replay(record)
            self.records.append(record)
            self.digests.append(digest(self._shadow))
        self.blocks.add(len(self.records))

    def cut(self, count: int) -> None:
        """What comes after so many records was lost, and something else will stand there."""
        del self.records[count:], self.digests[count + 1 :]
        self.blocks = {end for end in self.blocks if end <= count}
        self.chunks = {upto: chunks for upto, chunks in self.chunks.items() if upto <= count}
        self._shadow = Engine(self.settings)
        for record in self.records:
            self._shadow.replay(record)


def load(
    storage: FileStorage, settings: EngineSettings, ports: Ports | None = None
) -> tuple[Engine, RecoveryReport]:
    """Open the storage and give the engine what it has, as the daemon does."""
    recovery = storage.open()
    engine = Engine(settings, ports)
    for chunk, place in recovery.snapshot:
        engine.load(chunk, place)
    engine.loaded()
    for record, place in recovery.records:
        engine.replay(record, place)
    engine.recovered()
    return engine, recovery.report


class StoredDriver(Driver):
    """One broker's life over restarts, on a disk."""

    def __init__(self, disk: Disk, mode: str = "aof+rdb", **options: Any) -> None:
        super().__init__(**options)
        self.disk = disk
        self.mode = mode
        self.history = History(self.settings)
        # How many records somebody was told are synced.
        self.claimed = 0
        self.on_round = self._sync_for
        # What each process left behind when it ended.
        self.left: list[dict[str, bytes]] = []
        self.storage = new_storage(disk, mode)
        self._open()

    def _open(self) -> RecoveryReport:
        self.said = []
        ports = Ports(lambda place: self.storage.read(place), every, compile_schema)
        self.engine, report = load(self.storage, self.settings, ports)
        self.engine.at(self.now_ms)
        self.engine.started()
        self.claim()
        return report

    def keep(self, records: list[bytes]) -> list[Position]:
        if not records:
            return []
        self.history.add(records)
        return self.storage.append(records, self.now_ms)

    def _sync_for(self, taken: Round) -> None:
        if taken.synced_effects:
            self.sync()

    def sync(self) -> None:
        if not self.storage.sync_if_quick():
            trio.run(self.storage.sync)
        self.claim()

    def claim(self) -> None:
        """Somebody is told what is synced."""
        self.claimed = max(self.claimed, self.storage.synced_record)

    def rotate(self) -> int:
        """The steps of a snapshot up to the cut: a new increment takes over."""
        trio.run(self.storage.prepare_snapshot)
        return self.storage.cut()

    def snapshot(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """A whole snapshot; `meanwhile` goes on between the cut and the writing."""
        upto = self.rotate()
        frozen = self.engine.freeze()
        self.history.chunks[upto] = list(self.engine.freeze())
        meanwhile()
        report = trio.run(self.storage.write_snapshot, upto, frozen)
        for _ in frozen.move(report.positions):
            pass
        trio.run(self.storage.release, report.retired)
        self.claim()

    def close(self, clean: bool) -> None:
        self.storage.close(clean)
        self.left.append(self.disk.content())
        if clean:
            self.claimed = len(self.history.records)

    def reopen(self, clean: bool = False, disk: Disk | None = None) -> RecoveryReport:
        """End, orderly or as if killed, and start again, on `disk` if one is given."""
        self.close(clean)
        self.disk = disk or self.disk.restarted()
        self.storage = new_storage(self.disk, self.mode)
        report = self._open()
        self.history.cut(self.storage.next_record)
        return report
