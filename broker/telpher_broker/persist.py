"""What persistence does beside the rounds: the sync each second, snapshots, rewrites, free space.

All of it runs beside the core task and shares its thread, so a cut and a freeze in one step see
a state whose every record has been appended, and none that has not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import trio

from telpher.protocol import frames as f
from telpher_storage import Position, SnapshotFailed, SnapshotReport, Storage

from .engine.dump import Frozen
from .engine.engine import Engine
from .logs import get_logger
from .options import Settings
from .watermarks import Alarms

log = get_logger()

_SECOND: Final = 1.0
# A log that grows fast has to be looked at more often than once a second.
_LOOK_EVERY_BLOCKS: Final = 16
# How much of the live content the log may have beside it before a save rule is worth a snapshot.
_WORTH: Final = 0.5
# How long a snapshot that found no space waits until it is tried again, if no less is to be held.
_RETRY_SECONDS: Final = 10.0
_PROBE_SECONDS: Final = 0.001
_STEP_SECONDS: Final = 0.002


class Persistence:
    """The background work of one broker's storage."""

    def __init__(
        self, settings: Settings, storage: Storage, engine: Engine, alarms: Alarms
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._engine = engine
        self._alarms = alarms
        self._snapshot_under_way = trio.Lock()
        self._saved_records = 0
        self._saved_at = 0.0
        self._not_before = 0.0
        self._failed_bytes = 0
        self._outgrown = trio.Event()
        self._blocks = 0
        self._last: dict[str, Any] = {}

    async def run(self) -> None:
        """Once a second: sync if the policy says so, look for alarms, save if it is time; that
        also as soon as the log has outgrown its content.
        """
        self._saved_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            if self._settings.fsync == "everysec" and self._storage.syncs:
                nursery.start_soon(self._sync_every_second)
            while True:
                self._outgrown = trio.Event()
                with trio.move_on_after(_SECOND):
                    await self._outgrown.wait()
                await self._storage.make_room()
                self._alarms.look()
                if not self._snapshot_under_way.locked() and self._is_due():
                    nursery.start_soon(self._snapshot_by_rule)

    def appended(self) -> None:
        """A block was written; it may have made the log outgrow its content, or filled the disk."""
        self._alarms.appended()
        self._blocks += 1
        if self._blocks < _LOOK_EVERY_BLOCKS:
            return
        self._blocks = 0
        if self._may_save() and not self._snapshot_under_way.locked() and self._has_outgrown():
            self._outgrown.set()

    async def close(self) -> None:
        """Bring everything to the disk, in the mode's way, and mark the end as CLEAN."""
        if self._saves and self._changes and self._is_worth_it():
            await self._snapshot_by_rule()
        await trio.to_thread.run_sync(self._storage.close, True)

    async def snapshot_on_demand(self, request: int) -> f.Reply | f.Refused:
        """Write a snapshot now, and answer the CALL that asked for it."""
        if not self._storage.keeps_snapshots:
            return f.Refused(request, "durability_unavailable", "persistence is none")
        if self._snapshot_under_way.locked():
            return f.Refused(request, "busy", "a snapshot is being written; try again later")
        try:
            report = await self._snapshot()
        except SnapshotFailed as error:
            return f.Refused(request, "disk_full", str(error))
        result = {"records": report.upto, "bytes": report.bytes, "seconds": report.seconds}
        return f.Reply(request, {**result, "longest_pause_ms": self._last["longest_pause_ms"]})

    def statistics(self) -> dict[str, Any]:
        """Sizes and counts of the storage, and how the last snapshot went."""
        now = self._storage.statistics()
        figures = {name: getattr(now, name) for name in now.__slots__}
        return {**figures, "changes": self._changes, "last_snapshot": self._last}

    @property
    def _saves(self) -> bool:
        """Whether save rules and an orderly stop write snapshots in this mode."""
        return self._settings.persistence in ("rdb", "aof+rdb")

    @property
    def _changes(self) -> int:
        return self._engine.records_decided - self._saved_records

    async def _sync_every_second(self) -> None:
        """A second from begin to begin: what is published is on the disk after a second and the
        sync that covers it, and not after another one that was under way before."""
        storage = self._storage
        began = trio.current_time()
        while True:
            await trio.sleep_until(began + _SECOND)
            began = trio.current_time()
            if storage.synced_record < storage.next_record:
                await storage.sync()

    def _is_due(self) -> bool:
        if not self._may_save():
            return False
        if self._storage.keeps_records and (self._has_outgrown() or self._would_make_room()):
            return True
        if not self._saves or not self._is_worth_it():
            return False
        age = trio.current_time() - self._saved_at
        return any(
            age >= rule.seconds and self._changes >= rule.changes for rule in self._settings.save
        )

    def _may_save(self) -> bool:
        """Not soon after one that found no space, unless half of what it was to hold has gone."""
        is_smaller = 2 * self._engine.body_bytes < self._failed_bytes
        return is_smaller or trio.current_time() >= self._not_before

    def _has_outgrown(self) -> bool:
        """Whether the log has outgrown its live content by `rewrite_growth_percent`."""
        percent = self._settings.rewrite_growth_percent
        files = self._storage.statistics()
        log_bytes = files.base_bytes + files.increment_bytes
        if not percent or files.increment_bytes < self._settings.rewrite_min_bytes:
            return False
        return log_bytes > self._engine.body_bytes * (1 + percent / 100)

    def _would_make_room(self) -> bool:
        """Whether the disk is full, and mostly of what is not needed any more."""
        if not self._storage.full or not self._is_worth_it():
            return False
        files = self._storage.statistics()
        free_bytes = (files.free_disk_bytes or 0) + files.reserve_bytes
        return 2 * self._engine.body_bytes < free_bytes

    def _is_worth_it(self) -> bool:
        """In aof+rdb a snapshot only saves replay: not worth it for a short tail on a big base."""
        if not self._storage.keeps_records:
            return True
        return self._storage.statistics().increment_bytes > self._engine.body_bytes * _WORTH

    async def _snapshot_by_rule(self) -> None:
        if self._snapshot_under_way.locked():
            return
        try:
            await self._snapshot()
        except SnapshotFailed as error:
            log.warning("snapshot failed; the old one and the log stay", reason=str(error))
            self._saved_at = trio.current_time()
            self._not_before = self._saved_at + _RETRY_SECONDS
            self._failed_bytes = self._engine.body_bytes

    async def _snapshot(self) -> SnapshotReport:
        """Cut the log and freeze the state in one step, then write what was frozen."""
        async with self._snapshot_under_way:
            await self._storage.prepare_snapshot()
            began = time.perf_counter()
            upto = self._storage.cut()
            frozen = self._engine.freeze()
            freeze_ms = (time.perf_counter() - began) * 1000
            decided = self._engine.records_decided
            probe = _PauseProbe(freeze_ms)
            report: SnapshotReport | SnapshotFailed
            async with trio.open_nursery() as nursery:
                nursery.start_soon(probe.run)
                try:
                    report = await self._storage.write_snapshot(upto, frozen)
                except SnapshotFailed as error:
                    report = error  # raised below: the nursery would make a group of it
                finally:
                    frozen.close()
                nursery.cancel_scope.cancel()
            if isinstance(report, SnapshotFailed):
                raise report
            await self._move(frozen, report.positions)
            await self._storage.release(report.retired)
        if report.left:
            log.warning("a snapshot counts, but what it covers is still there", reason=report.left)
        self._saved_records = decided
        self._saved_at = trio.current_time()
        self._last = {
            "bytes": report.bytes,
            "seconds": round(report.seconds, 3),
            "freeze_ms": round(freeze_ms, 2),
            "longest_pause_ms": round(probe.longest_ms, 2),
        }
        log.info("snapshot written", **self._last)
        return report

    async def _move(self, frozen: Frozen, positions: Sequence[Position]) -> None:
        """Read spilled batches from the new snapshot from now on, before the old files go."""
        until = time.perf_counter() + _STEP_SECONDS
        for _ in frozen.move(positions):
            if time.perf_counter() > until:
                await trio.lowlevel.checkpoint()
                until = time.perf_counter() + _STEP_SECONDS


class _PauseProbe:
    """Measures the longest time for which the loop did not come round, by sleeping a little."""

    def __init__(self, longest_ms: float) -> None:
        self.longest_ms = longest_ms

    async def run(self) -> None:
        while True:
            began = time.perf_counter()
            await trio.sleep(_PROBE_SECONDS)
            late_ms = (time.perf_counter() - began - _PROBE_SECONDS) * 1000
            self.longest_ms = max(self.longest_ms, late_ms)
