"""Rounds: take what has arrived, decide, write one block, and only then speak.

Readers put frames into the inbox; a round hands them to the engine, appends the records as one
block, and releases the effects. Where the fsync policy or a publish asks for it, effects wait in
line for a sync; while that runs in its thread, the next rounds gather behind it: that is the
group commit, and it needs no timer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Final

import trio

from telpher.protocol import frames as f
from telpher.protocol.frames import ClientFrame
from telpher_storage import Storage

from .engine.engine import Engine
from .engine.security.acts import Act
from .engine.turn import Effect
from .logs import get_logger

log = get_logger()

Speak = Callable[[list[Effect]], None]

# With more to say than this, others are under way too, and gather while a thread syncs.
_FEW_EFFECTS: Final = 4
# A clock that is set each hour by its server may be that much behind what it was before.
_BEHIND_MS: Final = 1000
# What a request takes beside the batches that it brings, and its answer until it is said, about.
_FRAME_BYTES: Final = 512
# What one connection may take of a round, and what all others have before it goes on.
_SHARE_SECONDS: Final = 0.02
_OTHERS_SECONDS: Final = 0.002


class Gone:
    """In the inbox in a frame's place: the connection has ended."""

    def __init__(self, orderly: bool) -> None:
        self.orderly = orderly


def _bytes_of(frame: ClientFrame | Gone) -> int:
    """What a request takes until it is answered, about."""
    if type(frame) is f.Publish:
        return _FRAME_BYTES + len(frame.batch)
    if type(frame) is f.Transact:
        return _FRAME_BYTES + sum([len(batch) for _, batch in frame.publishes])
    return _FRAME_BYTES


class Rounds:
    """The one writer of the engine and its journal.

    `speak` gets the effects of a round when they may be said. With `sync_always` that is after
    a sync, for all of them. `came` is told how many bytes each round has taken, `appended` is
    called after each block, and `noted` with the acts in it before anything is said of them. A
    round is synchronous: between two awaits of any task, the state and the journal agree.
    """

    def __init__(
        self,
        engine: Engine,
        storage: Storage,
        *,
        sync_always: bool,
        speak: Speak,
        came: Callable[[int], None],
        appended: Callable[[], None],
        noted: Callable[[list[Act]], None],
    ) -> None:
        self._engine = engine
        self._storage = storage
        self._sync_always = sync_always
        self._speak = speak
        self._came = came
        self._appended = appended
        self._noted = noted
        self._inbox: dict[int, list[ClientFrame | Gone]] = {}
        # What a share of a round was not enough for, and when it goes on.
        self.behind: dict[int, list[ClientFrame | Gone]] = {}
        self._behind_bytes = 0
        self._resume_at = 0.0
        self._work = trio.Event()
        self._moved: trio.Event | None = None
        self._unsynced: list[Effect] = []
        self._unsynced_bytes = self._syncing_bytes = 0
        # How many groups have had their sync and were said.
        self.groups_said = 0
        self._sync_wanted = trio.Event()
        self._is_syncing = False
        self._failure: Exception | None = None
        self._stopping = False
        self._timer = trio.CancelScope()
        self._wall_ms = 0
        self._began = 0.0
        self._inbox_bytes = 0

    # -- from the connections

    def put(self, session: int, frame: ClientFrame | Gone) -> None:
        """Something has arrived; a round must follow, by `wake` or `at_once`."""
        if session in self.behind:
            self._behind_bytes += _bytes_of(frame)
            self.behind[session].append(frame)
        else:
            self._inbox_bytes += _bytes_of(frame)
            self._inbox.setdefault(session, []).append(frame)

    def wake(self) -> None:
        """Let the core task make a round soon, with all that arrives until then."""
        self._work.set()

    def at_once(self) -> None:
        """Make a round in the caller's task, for what the caller has put.

        A failure is handed to the core task: it concerns the broker, and not the connection whose
        task this is.
        """
        if self._failure is not None:
            return
        try:
            self._round()
        except Exception as error:  # noqa: BLE001 (handed on, not swallowed)
            self._failure = error
            self.wake()

    @property
    def pending_bytes(self) -> int:
        """What has arrived and has not been answered, as its round or the sync is still to come."""
        arrived_bytes = self._inbox_bytes + self._behind_bytes
        return arrived_bytes + self._unsynced_bytes + self._syncing_bytes

    @property
    def last_group(self) -> int:
        """The number of the last group of effects that waits for a sync; `groups_said`: none."""
        return self.groups_said + self._is_syncing + bool(self._unsynced)

    async def moved(self) -> None:
        """Wait until some of what is pending has moved on."""
        if self._moved is None:
            self._moved = trio.Event()
        await self._moved.wait()

    def _has_moved(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    # -- the core task

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Make rounds until `stop`; raises StorageFailed when the disk has failed."""
        self._wall_ms = self._start_ms()
        self._began = trio.current_time()
        self._engine.at(self._wall_ms)
        self._engine.started()
        self._engine.hold_for_resume()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sync_in_line)
            nursery.start_soon(self._wake_for_alarms)
            self.wake()
            task_status.started()
            await self._until_stopped()
            nursery.cancel_scope.cancel()

    def _start_ms(self) -> int:
        """What time it is at the start.

        A wall clock that stands before what is in the log must not hold time still.
        """
        wall_ms, newest_ms = time.time_ns() // 1_000_000, self._engine.now_ms
        if newest_ms > wall_ms + _BEHIND_MS:
            log.warning(
                "the wall clock is behind the end of the log; time goes on from that",
                behind_seconds=(newest_ms - wall_ms) // 1000,
            )
        return max(wall_ms, newest_ms)

    def stop(self) -> None:
        """Let `run` return after what has arrived is done."""
        self._stopping = True
        self.wake()

    def now_ms(self) -> int:
        """Milliseconds since 1970 that never step: the wall clock at the start, and time since."""
        return self._wall_ms + int((trio.current_time() - self._began) * 1000)

    async def _until_stopped(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            if self._failure is not None:
                raise self._failure
            if self.behind and trio.current_time() >= self._resume_at:
                self._resume()
            self._round()
            if self._stopping and not (self._inbox or self.behind):
                return

    def _resume(self) -> None:
        """Let those go on that are behind: in a round of the core task, and not of a reader that
        asks for something else."""
        self._inbox, self.behind = self.behind | self._inbox, {}
        self._inbox_bytes, self._behind_bytes = self._inbox_bytes + self._behind_bytes, 0

    def _round(self) -> None:
        engine = self._engine
        engine.at(self.now_ms())
        came_bytes = self._hand_over()
        engine.tick()
        taken = engine.take_round()
        if taken.records:
            engine.written(self._storage.append(taken.records, engine.now_ms))
            self._appended()
        if taken.acts:
            self._noted(taken.acts)
        self._came(came_bytes)
        if self._sync_always:
            self._line_up(taken.effects + taken.synced_effects, came_bytes)
        else:
            self._speak(taken.effects)
            self._line_up(taken.synced_effects, came_bytes)
        if taken.more or not engine.is_idle:
            self.wake()
        self._set_timer()

    def _hand_over(self) -> int:
        """Give the engine what has arrived, of each its share; how many bytes that was."""
        inbox, self._inbox = self._inbox, {}
        came_bytes, self._inbox_bytes = self._inbox_bytes, 0
        for session, frames in inbox.items():
            if len(frames) == 1:
                self._handle(session, frames[0])
            elif left := self._handle_share(session, frames):
                left_bytes = sum(map(_bytes_of, left))
                self.behind[session] = left
                self._behind_bytes += left_bytes
                came_bytes -= left_bytes
        self._has_moved()
        return came_bytes

    def _handle_share(
        self, session: int, frames: list[ClientFrame | Gone]
    ) -> list[ClientFrame | Gone]:
        """Give the engine what one session has asked, for as long as its share lasts; the rest."""
        until = trio.current_time() + _SHARE_SECONDS
        for index, frame in enumerate(frames, 1):
            self._handle(session, frame)
            now = trio.current_time()
            if now > until and index < len(frames):
                self._resume_at = now + _OTHERS_SECONDS
                return frames[index:]
        return []

    def _handle(self, session: int, frame: ClientFrame | Gone) -> None:
        if type(frame) is Gone:
            self._engine.disconnect(session, frame.orderly)
        else:
            self._engine.handle(session, frame)  # type: ignore[arg-type]

    def _line_up(self, effects: list[Effect], came_bytes: int) -> None:
        if not effects:
            return
        # Never past others who wait: what is said keeps its order.
        is_alone = not (self._is_syncing or self._unsynced) and len(effects) <= _FEW_EFFECTS
        if is_alone and self._storage.sync_if_quick():
            self._speak(effects)
            return
        self._unsynced += effects
        self._unsynced_bytes += came_bytes
        self._sync_wanted.set()

    async def _sync_in_line(self) -> None:
        """Sync for the effects that wait for it, a group at a time."""
        while True:
            await self._sync_wanted.wait()
            self._sync_wanted = trio.Event()
            effects, self._unsynced = self._unsynced, []
            self._syncing_bytes, self._unsynced_bytes = self._unsynced_bytes, 0
            self._is_syncing = True
            await self._storage.sync()
            self._is_syncing = False
            self._syncing_bytes = 0
            self.groups_said += 1
            self._speak(effects)
            self._has_moved()

    def _set_timer(self) -> None:
        alarm_ms = self._engine.next_alarm_ms()
        at = inf if alarm_ms is None else self._began + (alarm_ms - self._wall_ms + 1) / 1000
        if self.behind:
            at = min(at, self._resume_at)
        if at < self._timer.deadline:
            self._timer.deadline = at

    async def _wake_for_alarms(self) -> None:
        while True:
            with trio.CancelScope() as self._timer:
                self._set_timer()
                await trio.sleep_forever()
            self.wake()
