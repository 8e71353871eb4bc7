"""The disk of the broker's machine, over kills and losses of power.

The fault model is that of tests/storage/disk.py, and what chance makes of it: a loss of power
leaves one legal state, drawn. Beside that:

- A call takes its time. One from a thread lets everybody else go on meanwhile, one from the event
  loop does not.
- Any call can be the last of its process, and of the machine: it has happened in part or not at
  all.
- A write may take less than it was given. A write or a sync can fail.
- The disk fills and empties by what others put on it.

Not modelled: bits that rot, lies about what was synced, more than one machine.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from telpher_storage.files import NO_SPACE
from tests.storage.disk import Disk

MIB = 1 << 20
SHORT_WRITES = 0.02


class Killed(BaseException):
    """The process is dead: nothing that it still does reaches the world."""


@dataclass
class Arm:
    """A fault that waits for its call: the `after`-th from now among those named so (all if "").

    `code` is an error to raise; None: the process dies in the call, with its machine if
    `power_lost`.
    """

    among: str
    after: int
    code: int | None = None
    power_lost: bool = False


@dataclass(frozen=True)
class Surroundings:
    """What a disk needs of the world: its chance, how long a call takes, to let that pass, to tell
    of a call, to be told when the process dies in one, and the clock."""

    chance: random.Random
    cost_seconds: Callable[[str], float]
    pass_time: Callable[[float], None]
    trace: Callable[[str], None]
    on_death: Callable[[bool], None]
    now: Callable[[], float]


class SimulatedDisk(Disk):
    """One life of the disk: from a start of the process until that dies.

    `failed` is the first call that failed for good, `failed_at` when.
    """

    def __init__(self, around: Surroundings) -> None:
        super().__init__()
        self.total_bytes = 64 * MIB
        self.around = around
        self.is_dead = False
        self.failed: str | None = None
        self.failed_at = 0.0
        self.arms: list[Arm] = []

    def _like(self) -> Disk:
        disk = SimulatedDisk(self.around)
        disk.directories = set(self.directories)
        disk.total_bytes, disk.used_bytes_extra = self.total_bytes, self.used_bytes_extra
        return disk

    def next_life(self, *, power_lost: bool) -> SimulatedDisk:
        """What the next process finds; this one reaches nothing any more."""
        self.is_dead = True
        found = self.power_cut(self.around.chance) if power_lost else self.restarted()
        return cast(SimulatedDisk, found)

    # What may go wrong in a call

    def _call(self, name: str, dying: Callable[[], None] | None = None) -> None:
        """A call that takes time, can fail, and can be the last: `dying` is what it does then."""
        self._alive()
        self.around.pass_time(self.around.cost_seconds(name))
        self._alive()
        self.around.trace(f"disk {name}")
        for arm in [arm for arm in self.arms if arm.among in name]:
            arm.after -= 1
            if arm.after > 0:
                continue
            self.arms.remove(arm)
            if arm.code is None:
                if dying is not None:
                    dying()
                self.is_dead = True
                self.around.on_death(arm.power_lost)
                raise Killed
            if arm.code not in NO_SPACE:
                self.failed, self.failed_at = self.failed or name, self.around.now()
            raise OSError(arm.code, os.strerror(arm.code))

    def _alive(self) -> None:
        if self.is_dead:
            raise Killed

    def close(self, fd: int) -> None:
        self._alive()
        super().close(fd)

    def write(self, fd: int, data: bytes) -> int:
        """A write may take less than it was given, or be cut short by the end of the process."""
        self._alive()
        chance, content = self.around.chance, self.open_files[fd].content
        if chance.random() < SHORT_WRITES and len(data) > 1:
            data = data[: chance.randrange(1, len(data))]
        partly = data[: chance.randrange(len(data) + 1)] if self.arms else b""

        def write_partly() -> None:
            content.extend(partly[: max(self._room(), 0)])

        try:
            self._call("write", write_partly)
        except OSError:
            write_partly()
            raise
        room = self._room()
        if room <= 0 and data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        content += data[:room]
        return min(len(data), room)

    def _room(self) -> int:
        return self.total_bytes - self.used_bytes()
