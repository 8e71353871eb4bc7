"""T2: the daemon is killed at every storage call of a scripted run, and every call fails once.

Four phases are traced: the start on an empty directory, after a crash that left a torn tail, and
after an orderly stop; and serving: appends small and large, syncs, two snapshots, an orderly stop.
A first run of each lists its calls (`strace.py`). Then, for each of them, the phase is run again,
and the call kills the process, or fails with EIO or ENOSPC. After each, a daemon is started that
nobody traces: everything confirmed must be there, as the checker of histories says.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import trio

import telpher
from telpher_broker.exit_codes import ExitCode
from tests.daemon.process import DaemonProcess

from .. import strace
from ..bodies import bodies_of, runs_in
from ..history import FSYNCED, WRITTEN, History
from ..programme import Figures, Programme

QUEUE, PUBLISHER = "jobs", "ann"
FLAGS = ("--resume-ms=0", "--reserve-bytes=64KiB", "--rewrite-growth-percent=0")
KILL, EIO, ENOSPC = "signal=KILL", "error=EIO", "error=ENOSPC"
EXIT_SECONDS = 1.0
PATIENCE_SECONDS = 20.0


Act = Callable[[telpher.Bus], Awaitable[None]]


class Point(NamedTuple):
    """What happens at which call of which phase; `role` is its file as seen from the manifest."""

    phase: str
    what: str
    call: str
    role: str
    number: int

    def __str__(self) -> str:
        return f"{self.what} at {self.call} {self.number} of {self.role} while {self.phase}"


# --- which file is which


def _next_file(data: Path) -> int:
    manifest = data / "manifest"
    if not manifest.exists():
        return 1
    line = next(line for line in manifest.read_text().splitlines() if line.startswith("next-file"))
    return int(line.split()[1])


def _role(path: Path, data: Path, next_file: int) -> str:
    """A name that means the same in the next run: `increment -2` is the second last there was."""
    if path == data:
        return "."
    kind, _, generation = path.name.partition("-")
    is_numbered = kind in ("increment", "snapshot")
    return f"{kind} {int(generation) - next_file:+d}" if is_numbered else path.name


def _path(role: str, data: Path, next_file: int) -> Path:
    kind, _, distance = role.partition(" ")
    return data / (f"{kind}-{next_file + int(distance):010d}" if distance else kind)


# --- the clients of the script


class Script:
    """Publishes and consumes, one thing after the other, and keeps the history."""

    def __init__(self) -> None:
        self.history = History()
        self.history.reads(QUEUE)
        self.last_sent_at = 0.0
        self.confirms: list[tuple[float, float]] = []
        self._next = 0
        self._consumer = 0

    def serve(self, url: str) -> bool:
        """The traced run; False if the daemon ended on the way."""
        return trio.run(self._connected, url, self._script)

    def drain(self, url: str) -> None:
        """Consume everything."""
        trio.run(self._connected, url, self._rest)

    def settle(self, url: str) -> None:
        """Bring the files into the state that every traced run begins with."""
        trio.run(self._connected, url, self._normalise)

    async def _connected(self, url: str, act: Act) -> bool:
        self._consumer += 1
        try:
            async with telpher.connect(url, reconnect_seconds=0.0) as bus:
                await act(bus)
        except telpher.Broken:
            return False  # what was not answered is unknown
        return True

    async def _script(self, bus: telpher.Bus) -> None:
        await self._publish(bus, 1, "fsynced")
        await self._publish(bus, 5, None)
        await self._publish(bus, 600, None)  # more than is joined for one write
        await self._consume(bus, 100)
        await self._snapshot(bus)
        await self._publish(bus, 20, "fsynced")
        await self._consume(bus, 300)
        await self._snapshot(bus)
        await self._publish(bus, 1, None)

    async def _normalise(self, bus: telpher.Bus) -> None:
        await self._publish(bus, 10, None)
        await bus.snapshot()
        await self._publish(bus, 10, None)
        await self._consume(bus, 5)

    async def _publish(self, bus: telpher.Bus, count: int, confirm: object) -> None:
        first, self._next = self._next, self._next + count
        history = self.history
        history.sent(PUBLISHER, QUEUE, first, count)
        sent_at = time.time()
        try:
            async with bus.producer(QUEUE, confirm=confirm) as producer:
                await producer.send_many(bodies_of(PUBLISHER, QUEUE, first, count))
        except telpher.PublishFailed as error:
            if not isinstance(error.reason, telpher.DiskFull):
                raise error.reason from None
            history.refused(PUBLISHER, QUEUE, first, count)
            return
        level = WRITTEN if confirm is None else FSYNCED
        history.confirmed(PUBLISHER, QUEUE, first, count, level=level)
        self.confirms.append((sent_at, time.time()))

    async def _snapshot(self, bus: telpher.Bus) -> None:
        try:
            await bus.snapshot()
        except telpher.DiskFull:
            return  # the old one and the log stay

    async def _consume(self, bus: telpher.Bus, most: int) -> int:
        """Take some: most are acknowledged, some nacked, some left in hand."""
        batch = await bus.fetch(QUEUE, max=most, wait=1.0)
        for part in batch.parts:
            for run in runs_in(part.bodies):
                self.history.delivered(
                    *(QUEUE, f"c{self._consumer}", run.publisher, run.first, run.count),
                    offset=part.first + run.index,
                    attempt=part.attempt,
                    channel=run.channel,
                    intact=run.intact,
                )
        messages = list(batch)
        if len(messages) > 4:
            messages.pop(3).nack()
        settled = messages[: max(1, most - 10)]
        numbers = [int(message.body.split(b"/")[2]) for message in settled]
        for number, message in zip(numbers, settled, strict=True):
            self.history.acked(QUEUE, PUBLISHER, number)
            message.ack()
        if settled:
            await batch.consumer.flush_acks()
        for number in numbers:
            self.history.settled(QUEUE, PUBLISHER, number)
        return len(batch)

    async def _rest(self, bus: telpher.Bus) -> None:
        await bus.declare(QUEUE)
        while sum(one.ready + one.leased for one in (await bus.inspect(QUEUE)).subscriptions):
            await self._consume(bus, 10_000)


# --- the phases


class Faulty(Exception):
    """A promise was broken; the text says how."""


class Field:
    """A directory with its daemon and its history, from one point to the next."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.trace = directory / "trace"
        self.script = Script()
        self.exit_seconds = 0.0
        self.outcomes: Counter[str] = Counter()

    # One run of a phase, under a tracer

    def run(self, phase: str, arguments: list[str]) -> tuple[int, float]:
        """Run a phase, traced: how the daemon ended, and when."""
        self.trace.write_text("")
        if phase == "serving":
            return self._serve(arguments)
        daemon = DaemonProcess(self.directory, *FLAGS, tracer=strace.starting(arguments))
        assert daemon.process.stdout is not None
        if daemon.process.stdout.readline().startswith("telpher ready"):
            daemon.process.kill()
        daemon.process.wait(PATIENCE_SECONDS)
        ended_at = time.time()
        daemon.process.stdout.close()
        return daemon.process.returncode, ended_at

    def _serve(self, arguments: list[str]) -> tuple[int, float]:
        daemon = self._start()
        tracer = strace.attach(daemon.process.pid, arguments)
        try:
            if self.script.serve(daemon.unix_url):
                daemon.signal(signal.SIGTERM)
            code = daemon.process.wait(PATIENCE_SECONDS)
            return code, time.time()
        except subprocess.TimeoutExpired:
            daemon.process.kill()
            raise Faulty("the daemon did not end") from None
        finally:
            tracer.wait(PATIENCE_SECONDS)
            assert tracer.stderr is not None
            tracer.stderr.close()
            assert daemon.process.stdout is not None
            daemon.process.stdout.close()

    def _start(self) -> DaemonProcess:
        try:
            return DaemonProcess(self.directory, *FLAGS).ready()
        except AssertionError as error:
            raise Faulty(f"the next start failed: {_last_line(str(error))}") from None

    # Before and after

    def prepare(self, phase: str) -> None:
        """Bring the files into the state that the phase begins with."""
        if phase == "starting anew":
            shutil.rmtree(self.data, ignore_errors=True)
            self.script = Script()
            return
        daemon = self._start()
        self.script.settle(daemon.unix_url)
        if phase == "starting after a crash":
            daemon.kill()
            self._tear()
        else:
            daemon.stop()

    def _tear(self) -> None:
        """What a crash may leave: half a block, and a file that the manifest does not name."""
        next_file = _next_file(self.data)
        with max(self.data.glob("increment-*")).open("ab") as increment:
            increment.write(b"\xf5TB\x01 and not much more")
        (self.data / f"snapshot-{next_file:010d}").touch(0o600)

    def verify(self) -> None:
        """Start untraced, consume everything, and let the checker judge."""
        daemon = self._start()
        try:
            self.script.drain(daemon.unix_url)
            findings = self.script.history.end()
        finally:
            code = daemon.stop()
        if findings:
            raise Faulty("; ".join(map(str, findings[:3])))
        if code:
            raise Faulty(f"the next stop had exit code {code}")

    # A point

    def calls(self, phase: str) -> list[tuple[str, str, int]]:
        """Which calls a phase makes, by name, role and how often, undisturbed."""
        self.prepare(phase)
        next_file = _next_file(self.data)
        self.run(phase, strace.watching(self.trace))
        calls = strace.calls_under(self.trace, self.data)
        self.verify()
        calls = [call for call in calls if not call.path.name.startswith(".writable")]  # has a pid
        return [(call.name, _role(call.path, self.data, next_file), call.times) for call in calls]

    def strike(self, point: Point) -> None:
        """Run a phase and strike at one of its calls; raises Faulty."""
        self.prepare(point.phase)
        path = _path(point.role, self.data, _next_file(self.data))
        self.script.confirms.clear()
        log_bytes = self._log_bytes()
        meddling = strace.meddling(self.trace, point.call, path, point.number, point.what)
        code, ended_at = self.run(point.phase, meddling)
        if point.what == KILL:
            self._judge_kill(point, code)
        else:
            self._judge_failure(point, code, ended_at, log_bytes)
        self.verify()

    def _judge_kill(self, point: Point, code: int) -> None:
        was_reached = code == -signal.SIGKILL and (
            point.phase == "serving" or not self._became_ready()
        )
        self.outcomes["killed" if was_reached else "not reached"] += 1
        if code not in (0, -signal.SIGKILL):
            raise Faulty(f"it ended with exit code {code}")

    def _judge_failure(self, point: Point, code: int, ended_at: float, log_bytes: int) -> None:
        failed_at = strace.injected_at(self.trace)
        if failed_at is None:
            self.outcomes["not reached"] += 1
            return
        if code in (0, -signal.SIGKILL):  # killed here, after the start had succeeded all the same
            self.outcomes["went on"] += 1
            return
        self.outcomes["stopped"] += 1
        self._judge_last_words(code, log_bytes)
        if point.phase == "serving":
            self.exit_seconds = max(self.exit_seconds, ended_at - failed_at)
            if ended_at - failed_at > EXIT_SECONDS:
                raise Faulty(f"it ended {ended_at - failed_at:.1f} s after the failure")
            for sent_at, confirmed_at in self.script.confirms:
                if sent_at > failed_at:
                    late = confirmed_at - failed_at
                    raise Faulty(f"a publish was confirmed {late:.3f} s after the failure")

    def _judge_last_words(self, code: int, log_bytes: int) -> None:
        text = self._log_since(log_bytes)
        if code not in (ExitCode.DISK_FAILED, ExitCode.DATA_DIR) or "Traceback" in text:
            raise Faulty(f"it ended with exit code {code}: {_last_line(text)}")
        last = json.loads(_last_line(text))
        if last["level"] != "error" or last.get("exit_code") != code:
            raise Faulty(f"with exit code {code}, the last line of the log is {last}")

    def _log_bytes(self) -> int:
        log = self.directory / "log"
        return log.stat().st_size if log.exists() else 0

    def _log_since(self, log_bytes: int) -> str:
        with (self.directory / "log").open() as log:
            log.seek(log_bytes)
            return log.read()

    def _became_ready(self) -> bool:
        lines = (self.directory / "log").read_text().splitlines()
        return bool(lines) and json.loads(lines[-1])["event"] == "ready"


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "(it said nothing)"


PHASES = ("serving", "starting after a crash", "starting in order", "starting anew")


def _points(field: Field) -> list[Point]:
    """Every call of every phase, three ways."""
    points = []
    for phase in PHASES:
        for call, role, times in field.calls(phase):
            for number in range(1, times + 1):
                whats = [KILL, EIO, *([ENOSPC] if call not in ("pread64", "statfs") else [])]
                points += [Point(phase, what, call, role, number) for what in whats]
    return points


def run(size: int, seed: int) -> Figures:
    """Strike at so many points, or at all there are."""
    directory = Path(tempfile.mkdtemp(prefix="telpher-syscalls-"))
    field = Field(directory)
    points = _points(field)
    random.Random(seed).shuffle(points)
    chosen = _spread(points, size)
    violations = []
    for point in chosen:
        try:
            field.strike(point)
        except Faulty as error:
            violations.append(f"{point}: {error} (kept in {directory})")
            field = _fresh(field)
            directory = field.directory
    outcomes = field.outcomes
    if not violations:
        shutil.rmtree(directory)
    counts = {"points": len(chosen), "of": len(points)}
    names = ("killed", "stopped", "went on", "not reached")
    counts |= {name: outcomes[name] for name in names}
    return Figures({**counts, "s to exit at most": round(field.exit_seconds, 2)}, violations)


def _fresh(field: Field) -> Field:
    """A new directory, for what is in the old one is evidence."""
    fresh = Field(Path(tempfile.mkdtemp(prefix="telpher-syscalls-")))
    fresh.outcomes, fresh.exit_seconds = field.outcomes, field.exit_seconds
    fresh.prepare("starting in order")
    return fresh


def _spread(points: list[Point], size: int) -> list[Point]:
    """So many, of as many different calls as there are, and serving more than starting."""
    seen: Counter[tuple[str, str]] = Counter()
    rank = {}
    for point in points:
        key = (point.call, point.what)
        rank[point] = (seen[key], PHASES.index(point.phase))
        seen[key] += 1
    return sorted(points, key=lambda point: rank[point])[:size]


PROGRAMME = Programme(
    name="syscall-kills",
    id="T2",
    title="the daemon is killed at each storage call of a scripted run, and each fails once",
    unit="points",
    short=8,
    long=600,
    run=run,
    promises=("G1", "G3", "G4", "G10", "G12"),
    missing=strace.missing,
)
