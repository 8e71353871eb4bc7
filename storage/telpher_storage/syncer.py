"""Syncing: one round at a time in a worker thread; whoever comes meanwhile shares the next one.

Invariant: a round that began after an append covers it. So a call that finds a round under way
waits for it to end and, unless that covered it, for one more.

A thread is for disks that take their time. Where a sync takes a fraction of a millisecond, the way
to the thread and back costs more than the sync, and `sync_if_quick` makes it on the spot.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

import trio

from .files import Files

QUICK_US = 1000


class Syncer:
    """`dirty`: descriptors written to since their last sync began. `upto`: records synced."""

    def __init__(self, files: Files) -> None:
        self.dirty: list[int] = []
        self.upto = 0
        self.rounds = 0
        self.last_us = 0
        self.max_us = 0
        self._files = files
        self._round: trio.Event | None = None
        self._thread = trio.CapacityLimiter(1)

    def written(self, fd: int) -> None:
        if fd not in self.dirty:
            self.dirty.append(fd)

    async def sync(self, target: int, next_record: Callable[[], int]) -> None:
        """Return when records below `target` are on the disk. Raises OSError in one caller.

        The others find `upto` too low and no round under way: they look at what their owner
        knows of the failure before they call again.
        """
        if self._round is not None:
            await self._round.wait()
        elif self.upto < target:
            await self._lead(next_record())
        else:
            await trio.lowlevel.checkpoint()

    async def _lead(self, upto: int) -> None:
        self._round = trio.Event()
        fds, self.dirty = self.dirty, []
        done = False
        try:
            await trio.to_thread.run_sync(self._sync_all, fds, limiter=self._thread)
            done = True
            self.upto = max(self.upto, upto)
        finally:
            if not done:
                self.dirty = fds + [fd for fd in self.dirty if fd not in fds]
            self._end_round()

    def _end_round(self) -> None:
        if self._round is not None:
            self._round.set()
            self._round = None

    def _sync_all(self, fds: list[int]) -> None:
        started = perf_counter_ns()
        for fd in fds:
            self._files.sync_data(fd)
        self.last_us = (perf_counter_ns() - started) // 1000
        self.max_us = max(self.max_us, self.last_us)
        self.rounds += 1

    def sync_if_quick(self, upto: int) -> bool:
        """Sync on the spot if the last round was quick and none is under way; whether it was done.

        Blocks. Raises OSError.
        """
        if self._round is not None or not self.rounds or self.last_us > QUICK_US:
            return False
        self.sync_now(upto)
        return True

    def sync_now(self, upto: int) -> None:
        """Without a thread, for open and close. Raises OSError."""
        fds, self.dirty = self.dirty, []
        self._sync_all(fds)
        self.upto = max(self.upto, upto)

    def forget(self, fd: int) -> None:
        """What was written to this descriptor need not be synced any more."""
        self.dirty = [dirty for dirty in self.dirty if dirty != fd]

    async def idle(self) -> None:
        """Return when no round is under way that may be using a descriptor forgotten before."""
        while self._round is not None:
            await self._round.wait()
