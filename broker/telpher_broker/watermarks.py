"""Watermarks: an alarm when memory or disk runs short, until there is clearly enough again.

An alarm is raised at one mark and cleared at another, so that it does not flap; in between it stays
what it is. While one is up, publishes are refused or wait (`when_full`), and everything that makes
room goes on. The last of the disk is the storage's own affair (its reserve), and comes on top.

What counts is resident memory, as that is what the system ends processes for: whatever is counted
otherwise leaves something out. The C library keeps what was freed, so it is told to give back what
nobody uses: an alarm would stay up over that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import trio

from telpher_storage import Storage, StorageStatistics

from . import collector
from .engine.engine import Engine
from .engine.limits.shortage import DISK_FULL, MEMORY_FULL
from .logs import get_logger
from .options import MIB, Settings
from .resident import default_high_bytes, resident_bytes

log = get_logger()

# So many bytes may be published before memory is looked at again, within the second.
_LOOK_EVERY_BYTES: Final = 16 * MIB
# So much is worth to be given back while there is no alarm, when it was not used for so many looks:
# what comes and goes would be taken and cleared anew each time.
_WORTH_BYTES: Final = 64 * MIB
_UNUSED_LOOKS: Final = 10
# To give back takes at most this part of the time.
_ONE_PART_IN: Final = 50
_LOW_OF_HIGH: Final = 0.8


class Watermark:
    """An alarm over a figure that must not grow (`raised_at` above `cleared_at`) or not shrink."""

    def __init__(self, raised_at: int, cleared_at: int) -> None:
        self.raised_at = raised_at
        self.cleared_at = cleared_at
        self.is_raised = False
        self._sign = 1 if raised_at > cleared_at else -1

    def look(self, figure: int) -> None:
        """Raise or clear the alarm by what the figure is now."""
        if self.is_raised:
            self.is_raised = (figure - self.cleared_at) * self._sign > 0
        else:
            self.is_raised = (figure - self.raised_at) * self._sign >= 0


def memory_marks(settings: Settings) -> tuple[int, int] | None:
    """Where the alarm of memory is raised and cleared; None where there is nothing to go by."""
    high = settings.memory_high_bytes or default_high_bytes()
    if high is None:
        return None
    return high, settings.memory_low_bytes or int(high * _LOW_OF_HIGH)


class _Alarm:
    """One alarm as others see it: since when, and how often."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_raised = False
        self.raised = 0
        self.since = 0.0

    def set(self, is_raised: bool) -> bool:
        """Whether that is a change."""
        if is_raised is self.is_raised:
            return False
        self.is_raised = is_raised
        self.raised += is_raised
        self.since = trio.current_time()
        return True

    @property
    def seconds(self) -> float:
        """For how long it has been what it is."""
        return round(trio.current_time() - self.since, 1)


class Alarms:
    """Looks at memory and disk, and tells the engine, the log and who asks.

    `look` is called each second, `came` and `appended` with each round. `changed`: the engine has
    something to say.
    """

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        engine: Engine,
        changed: Callable[[], None],
    ) -> None:
        self._storage = storage
        self._engine = engine
        self._changed = changed
        self._then = "wait" if settings.when_full == "wait" else "are refused"
        marks = memory_marks(settings)
        self._memory_mark = None if marks is None else Watermark(*marks)
        self._memory = _Alarm("memory")
        self._disk_mark: Watermark | None = None
        if settings.disk_free_low_bytes:
            low, high = settings.disk_free_low_bytes, settings.disk_free_high_bytes
            self._disk_mark = Watermark(low, high or low + low // 4)
        self._disk = _Alarm("disk")
        self._came_bytes = 0
        # The most that was in use since memory was given back, and in the looks since then.
        self._most_bytes = self._lately_bytes = 0
        self._looks = 0
        self._give_back_at = 0.0

    def warn_if_endless(self) -> None:
        """Before there is anything in the broker: say so if the alarm of memory would never end."""
        mark, empty_bytes = self._memory_mark, resident_bytes()
        if mark is not None and empty_bytes is not None and empty_bytes >= mark.cleared_at:
            log.warning(
                f"an empty broker takes {_mib(empty_bytes)} already, and the alarm of memory is "
                f"cleared below {_mib(mark.cleared_at)}: it would never end",
                memory_high_bytes=mark.raised_at,
                memory_low_bytes=mark.cleared_at,
                next="raise memory_high_bytes",
            )

    def look(self) -> None:
        """Look at everything."""
        self._storage.poll_space()
        self._look_at_disk()
        self._give_back()
        self._look_at_memory()

    def came(self, body_bytes: int) -> None:
        """So much was published by a round; when it is much, memory is looked at at once."""
        self._came_bytes += body_bytes
        if self._came_bytes >= _LOOK_EVERY_BYTES:
            self._look_at_memory()

    def appended(self) -> None:
        """A block was written, which may have taken the last of the disk."""
        if self._storage.full is not self._disk.is_raised:
            self._look_at_disk()

    def statistics(self) -> dict[str, Any]:
        """For `stats`: each alarm, the figure that it is about, and its marks."""
        memory, disk = self._memory_mark, self._storage.statistics()
        raised_at, cleared_at = self._disk_marks(disk)
        return {
            "memory": {
                **_told(self._memory),
                "resident_bytes": resident_bytes(),
                "raised_at_bytes": None if memory is None else memory.raised_at,
                "cleared_at_bytes": None if memory is None else memory.cleared_at,
            },
            "disk": {
                **_told(self._disk),
                "free_bytes": disk.free_disk_bytes,
                "raised_at_bytes": raised_at,
                "cleared_at_bytes": cleared_at,
            },
        }

    def _look_at_memory(self) -> None:
        self._came_bytes = 0
        mark, figure = self._memory_mark, resident_bytes()
        if mark is None or figure is None:
            return
        mark.look(figure)
        text = (
            f"{_mib(figure)} of memory are in use, memory_high_bytes is {_mib(mark.raised_at)}; "
            f"it takes some again below {_mib(mark.cleared_at)}: let consumers run, or raise "
            "memory_high_bytes"
        )
        self._set(self._memory, MEMORY_FULL, mark.is_raised, text, resident_bytes=figure)

    def _look_at_disk(self) -> None:
        mark, disk = self._disk_mark, self._storage.statistics()
        is_raised = self._storage.full
        if mark is not None and disk.free_disk_bytes is not None:
            mark.look(disk.free_disk_bytes)
            is_raised = is_raised or mark.is_raised
        text = self._why_disk(disk) if is_raised else ""
        self._set(self._disk, DISK_FULL, is_raised, text, free_bytes=disk.free_disk_bytes)

    def _why_disk(self, disk: StorageStatistics) -> str:
        _, cleared_at = self._disk_marks(disk)
        if disk.free_disk_bytes is None or cleared_at is None:
            return "the disk is full; it takes some again when there is space: make some"
        if self._storage.full:
            bound = "the last of it is kept for consuming (reserve_bytes)"
        else:
            assert self._disk_mark is not None
            bound = f"disk_free_low_bytes is {_mib(self._disk_mark.raised_at)}"
        return (
            f"{_mib(disk.free_disk_bytes)} of the disk are free, {bound}; it takes some again from "
            f"{_mib(cleared_at)} on: let consumers run, or make space"
        )

    def _disk_marks(self, disk: StorageStatistics) -> tuple[int | None, int | None]:
        """With how much free disk the alarm is raised and cleared: two may keep it up."""
        mark = self._disk_mark
        raised_at = [disk.full_below_bytes, None if mark is None else mark.raised_at]
        cleared_at = [disk.room_from_bytes, None if mark is None else mark.cleared_at]
        return _most(raised_at), _most(cleared_at)

    def _set(self, alarm: _Alarm, code: str, is_raised: bool, text: str, **figure: Any) -> None:
        seconds = alarm.seconds
        is_change = alarm.set(is_raised)
        if is_change or is_raised:
            # With the figure of now, while it is up.
            self._engine.set_shortage(code, text if is_raised else None)
        if not is_change:
            return
        if is_raised:
            log.warning(f"{alarm.name} alarm raised: publishes {self._then}", **figure)
        else:
            log.warning(f"{alarm.name} alarm cleared", after_seconds=seconds, **figure)
        self._changed()

    def _give_back(self) -> None:
        """Let the system have what was freed: much of it, or whatever there is during an alarm."""
        self._looks += 1
        self._lately_bytes = max(self._lately_bytes, self._engine.memory_bytes)
        is_worth_it = False
        if self._looks >= _UNUSED_LOOKS:
            self._most_bytes = max(self._most_bytes, self._lately_bytes)
            is_worth_it = self._most_bytes - self._lately_bytes >= _WORTH_BYTES
            self._looks = self._lately_bytes = 0
        now = trio.current_time()
        if now < self._give_back_at or not (is_worth_it or self._memory.is_raised):
            return
        began = time.perf_counter()
        collector.give_back()
        self._give_back_at = now + (time.perf_counter() - began) * _ONE_PART_IN
        self._most_bytes = self._engine.memory_bytes


def _told(alarm: _Alarm) -> dict[str, Any]:
    seconds = alarm.seconds if alarm.is_raised else 0.0
    return {"alarm": alarm.is_raised, "alarm_seconds": seconds, "alarms": alarm.raised}


def _most(figures: list[int | None]) -> int | None:
    return max((one for one in figures if one is not None), default=None)


def _mib(figure: int) -> str:
    return f"{figure / MIB:,.0f} MiB"
