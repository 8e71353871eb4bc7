"""T8: a disk of 32 MB fills and empties in cycles, and the daemon is killed while it is full.

A cycle: publish until it is refused with disk_full; or leave room, and let another program fill the
disk. Full, everything else must go on: some is consumed and acknowledged, a snapshot is asked for,
every third time the daemon is killed and started. Then all is consumed, or the other program's file
goes, and publishing must resume by itself within seconds. In the end nothing may be missing.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

import telpher
from tests.daemon.process import DaemonProcess

from ..bodies import bodies_of, runs_in
from ..history import History
from ..programme import Figures, Programme

DISK = "32m"
QUEUE, PUBLISHER = "jobs", "ann"
BATCH = 1000
FLAGS = ("--resume-ms=0", "--rewrite-min-bytes=1MiB")
RESUME_SECONDS = 20.0
PATIENCE_SECONDS = 60.0


class Faulty(Exception):
    """A promise was broken; the text says how."""


@contextmanager
def small_disk() -> Iterator[Path]:
    """A directory with a file system of its own. Raises OSError where that is not allowed."""
    directory = Path(tempfile.mkdtemp(prefix="telpher-disk-"))
    try:
        _call("mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(directory))
        try:
            yield directory
        finally:
            _call("umount", str(directory))
    finally:
        directory.rmdir()


def _call(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise OSError(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())


def missing() -> str | None:
    """Whether a small file system can be mounted here."""
    try:
        with small_disk():
            return None
    except OSError as error:
        return f"no small disk can be mounted ({error}): nothing of a full disk on a real daemon"


class Siege:
    """The daemon on its small disk, and one client, which comes back by itself."""

    def __init__(self, directory: Path) -> None:
        self.history = History()
        self.history.reads(QUEUE)
        self.counts: Counter[str] = Counter()
        self.resume_seconds = 0.0
        self._directory = directory
        self._ballast = directory / "ballast"
        self._daemon = DaemonProcess(directory, *FLAGS).ready()
        self._next = 0

    async def run(self, cycles: int) -> None:
        """So many cycles, and an end; raises Faulty."""
        async with telpher.connect(self._daemon.unix_url) as bus:
            for cycle in range(cycles):
                with trio.fail_after(PATIENCE_SECONDS):
                    await self._cycle(bus, cycle)
            await self._consume(bus)
        code = await trio.to_thread.run_sync(self._daemon.stop)
        if code:
            raise Faulty(f"the daemon did not stop in order: exit code {code}")
        self.history.end()

    def clear(self) -> None:
        """Leave no process behind."""
        self._daemon.process.kill()
        self._daemon.process.wait()

    async def _cycle(self, bus: telpher.Bus, cycle: int) -> None:
        by_another = cycle % 2 == 1
        if by_another:
            await self._publish(bus)
            self._fill()
            await self._publish_until_refused(bus)
        else:
            await self._publish_until_refused(bus)
        self.counts["cycles"] += 1
        await self._consume(bus, 10 * BATCH)
        if await self._publish(bus):
            self.counts["published while full"] += 1  # what was consumed may have made room
        await self._ask_for_snapshot(bus)
        if cycle % 3 == 0:
            await self._kill()
        if by_another:
            await self._consume(bus, 10 * BATCH)
            self._ballast.unlink()
        else:
            await self._consume(bus)
        await self._resume(bus)

    def _fill(self) -> None:
        """Another program takes what is left."""
        block = bytes(1 << 16)
        with self._ballast.open("wb", buffering=0) as ballast:
            try:
                while ballast.write(block) == len(block):
                    pass
            except OSError:
                return

    async def _kill(self) -> None:
        self._daemon.kill()
        self.counts["kills while full"] += 1
        start = partial(DaemonProcess, self._directory, *FLAGS)
        self._daemon = await trio.to_thread.run_sync(lambda: start().ready())

    # --- the client

    async def _publish(self, bus: telpher.Bus) -> bool:
        """A batch; whether it was taken. Anything but disk_full is a fault."""
        first, self._next = self._next, self._next + BATCH
        self.history.sent(PUBLISHER, QUEUE, first, BATCH)
        try:
            async with bus.producer(QUEUE, batch_messages=BATCH) as producer:
                await producer.send_many(bodies_of(PUBLISHER, QUEUE, first, BATCH))
        except telpher.PublishFailed as error:
            if not isinstance(error.reason, telpher.DiskFull):
                raise Faulty(f"a publish was refused, but with: {error.reason}") from None
            self.history.refused(PUBLISHER, QUEUE, first, BATCH)
            self.counts["refused"] += BATCH
            return False
        self.history.confirmed(PUBLISHER, QUEUE, first, BATCH)
        return True

    async def _publish_until_refused(self, bus: telpher.Bus) -> None:
        while await self._publish(bus):
            pass

    async def _resume(self, bus: telpher.Bus) -> None:
        began = time.monotonic()
        while not await self._publish(bus):
            if time.monotonic() - began > RESUME_SECONDS:
                raise Faulty(f"publishing did not resume within {RESUME_SECONDS:.0f} s")
            await trio.sleep(0.02)
        self.resume_seconds = max(self.resume_seconds, time.monotonic() - began)

    async def _consume(self, bus: telpher.Bus, count: int | None = None) -> None:
        """Consume and acknowledge so many, or all; each answer is awaited."""
        taken = 0
        while count is None or taken < count:
            batch = await bus.fetch(QUEUE, max=BATCH)
            if not batch:
                return
            taken += len(batch)
            for part in batch.parts:
                for run in runs_in(part.bodies):
                    place = (run.publisher, run.first, run.count)
                    self.history.delivered(
                        *(QUEUE, "c", *place),
                        offset=part.first + run.index,
                        attempt=part.attempt,
                        channel=run.channel,
                        intact=run.intact,
                    )
                    self.history.acked(QUEUE, *place)
            await batch.ack()
            for run in runs_in(batch.bodies):
                self.history.settled(QUEUE, run.publisher, run.first, run.count)

    async def _ask_for_snapshot(self, bus: telpher.Bus) -> None:
        try:
            await bus.snapshot()
            self.counts["snapshots while full"] += 1
        except telpher.DiskFull:
            self.counts["snapshots refused"] += 1
        except telpher.Refused as error:
            if error.code != "busy":
                raise Faulty(f"a snapshot was refused with: {error}") from None


def run(size: int, seed: int) -> Figures:
    """So many cycles. The seed is not needed: nothing is left to chance but the kernel's timing."""
    violations: list[str] = []
    with small_disk() as directory:
        siege = Siege(directory)
        try:
            trio.run(siege.run, size)
        except* Faulty as group:
            violations += [str(error) for error in group.exceptions]
        except* trio.TooSlowError:
            violations.append(f"a cycle took longer than {PATIENCE_SECONDS:.0f} s")
        finally:
            siege.clear()
            if violations or siege.history.findings:
                kept = tempfile.mkdtemp(prefix="telpher-full-disk-")
                shutil.copytree(directory, kept, dirs_exist_ok=True, ignore=_sockets)
                violations.append(f"the files are kept in {kept}")
    history = siege.history
    names = ("cycles", "refused", "kills while full", "snapshots while full", "snapshots refused")
    counts: dict[str, int | float | str] = {name: siege.counts[name] for name in names}
    counts |= {"confirmed": history.confirmed_messages, "lost": history.counts["lost"]}
    counts |= {"s to resume at most": round(siege.resume_seconds, 2)}
    return Figures(counts, [*map(str, history.findings), *violations])


def _sockets(folder: str, names: list[str]) -> set[str]:
    """What is not to be copied."""
    return {name for name in names if (Path(folder) / name).is_socket()}


PROGRAMME = Programme(
    name="full-disk",
    id="T8",
    title="a disk of 32 MB fills and empties in cycles, with kills while it is full",
    unit="cycles",
    short=4,
    long=200,
    run=run,
    promises=("G1", "G4", "G11"),
    missing=missing,
)
