"""T1: kill -9 of the real daemon at random instants under load, and of the clients now and then.

Each profile has a daemon, a load (`load.py`) and a ledger (`ledger.py`), three processes. A kill
comes a random number of confirms after the last one, or while a snapshot is being written, or while
the daemon is still starting. Every so many kills everything is drained, and the ledger judges: all
that was confirmed must have come. What was violated keeps its directory.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from tests.daemon.process import DaemonProcess, environment

from ..ledger import ROOT, Ledger, judged
from ..programme import Figures, Programme

CONFIRMS_BETWEEN_KILLS = 10_000  # at most; half as many on average
KILLS_BETWEEN_DRAINS = 25
PATIENCE_SECONDS = 60.0
_KINDS = ("increment", "snapshot")
_COMMON = ["--resume-ms=100", "--reserve-bytes=1MiB", "--rewrite-growth-percent=20"]


class Profile(NamedTuple):
    """A configuration of the daemon, and whether its consumers are slow."""

    name: str
    flags: list[str]
    slow: bool = False


PROFILES = (
    Profile("everysec", ["--rewrite-min-bytes=256KiB"]),
    Profile("always", ["--persistence=aof", "--fsync=always", "--rewrite-min-bytes=4MiB"]),
    Profile("spilling", ["--fsync=no", "--memory-limit=64KiB", "--rewrite-min-bytes=1MiB"], True),
)


class Violated(Exception):
    """A promise was broken in a way that no ledger shows."""


class Judged(Violated):
    """The ledger has found something, and says it better."""


class Siege:
    """One profile's processes, and the kills."""

    def __init__(self, profile: Profile, directory: Path, seed: str) -> None:
        self.counts: Counter[str] = Counter()
        self._profile = profile
        self._directory = directory
        self._seed = seed
        self._rng = random.Random(f"{seed} {profile.name}")
        self._loads = 0
        self._confirmed = 0
        self._newest_at_start = 0
        (directory / "ledger.d").mkdir()
        self._ledger = Ledger(directory / "ledger.d")
        self._daemon = self._start()
        self._load = self._start_load()

    # --- processes

    def _start(self) -> DaemonProcess:
        flags = [*_COMMON, *self._profile.flags]
        started = DaemonProcess(self._directory, *flags)
        if self._rng.random() < 0.1:
            time.sleep(self._rng.uniform(0, 0.5))
            self._kill(started)
            self.counts["kills"] += 1
            self.counts["while starting"] += 1
            started = DaemonProcess(self._directory, *flags)
        try:
            started.ready()
        except AssertionError as error:
            raise Violated(f"the daemon did not start: {_last_line(str(error))}") from None
        self._newest_at_start = _Files.of(self._directory / "data").newest
        return started

    def _start_load(self) -> subprocess.Popen[str]:
        self._loads += 1
        words = [f"telpher+unix://{self._directory / 'sock'}", self._directory / "ledger.d"]
        words += [f"p{self._loads}", self._seed, *(["--slow"] if self._profile.slow else [])]
        with (self._directory / "load.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.torture.load", *map(str, words)],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
            )

    def _kill(self, daemon: DaemonProcess) -> None:
        daemon.process.kill()
        code = daemon.process.wait()
        assert daemon.process.stdout is not None
        daemon.process.stdout.close()
        if code != -9:
            raise Violated(f"the daemon had ended by itself, with exit code {code}")

    # --- the siege

    def kill(self) -> None:
        """Wait for the instant, kill, and start again."""
        rng = self._rng
        self._wait_for_confirms(rng.randint(1, CONFIRMS_BETWEEN_KILLS))
        if rng.random() < 0.4:
            self._wait_for_snapshot()
        time.sleep(rng.uniform(0, 0.005))
        if rng.random() < 0.05:
            self._kill_load()
            self.counts["clients killed"] += 1
            if rng.random() < 0.5:
                self._kill_daemon()
            self._load = self._start_load()
        else:
            self._kill_daemon()

    def _kill_load(self) -> None:
        self._load.kill()
        self._load.communicate()

    def _kill_daemon(self) -> None:
        self._kill(self._daemon)
        self.counts["kills"] += 1
        self.counts["during a snapshot"] += self._is_in_snapshot()
        self._daemon = self._start()

    def drain(self) -> None:
        """Let everything be consumed, and judge; raises Violated when it takes too long."""
        drained = self._ledger.counts().drained
        self._say("drain")
        self._wait(lambda: self._ledger.counts().drained > drained, "everything to be consumed")
        self._say("go on")

    def _say(self, command: str) -> None:
        assert self._load.stdin is not None
        self._load.stdin.write(command + "\n")
        self._load.stdin.flush()

    def end(self) -> dict[str, Any]:
        """An orderly end of all; what the ledger found."""
        assert self._load.stdin is not None
        self._load.stdin.close()
        self._wait(lambda: self._load.poll() is not None, "the clients to leave")
        verdict = self._ledger.close()
        if self._load.returncode:
            raise Violated("the clients failed: see load.log")
        if self._daemon.stop():
            raise Violated("the daemon did not stop in order: see log")
        return verdict

    def clear(self) -> None:
        """Leave no process behind."""
        self._ledger.clear()
        for process in (self._load, self._daemon.process):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _wait_for_confirms(self, count: int) -> None:
        wanted = self._confirmed + count
        self._wait(lambda: self._ledger.counts().confirmed >= wanted, f"{count} confirms")
        self._confirmed = self._ledger.counts().confirmed

    def _wait_for_snapshot(self) -> None:
        until = time.monotonic() + 1.0
        while time.monotonic() < until and not self._is_in_snapshot():
            time.sleep(0.0005)

    def _wait(self, condition: Any, what: str) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if self._ledger.counts().findings:
                raise Judged
            if self._daemon.process.poll() is not None:
                raise Violated(f"the daemon ended by itself: {_last_line(self._log())}")
            if self._load.poll():
                raise Violated("the clients failed: see load.log")
            if time.monotonic() > until:
                raise Violated(f"waited {PATIENCE_SECONDS:.0f} s in vain for {what}")
            time.sleep(0.001)

    def _is_in_snapshot(self) -> bool:
        """Whether there are files that only a snapshot explains which this daemon has not ended."""
        files = _Files.of(self._directory / "data")
        return files.unlisted or files.newest > max(files.snapshot, self._newest_at_start)

    def _log(self) -> str:
        return self._daemon.log.read_text()


class _Files(NamedTuple):
    """What lies in a data directory: files that its manifest does not name, and generations."""

    unlisted: bool
    snapshot: int
    newest: int

    @classmethod
    def of(cls, data: Path) -> _Files:
        """As it is now, while a daemon may be changing it."""
        try:
            words = [line.split() for line in (data / "manifest").read_text().splitlines()]
            names = {path.name for path in data.iterdir()}
        except OSError:
            return cls(False, 0, 0)
        numbers = {kind: [int(line[1]) for line in words if line[0] == kind] for kind in _KINDS}
        listed = {f"{kind}-{number:010d}" for kind in _KINDS for number in numbers[kind]}
        newest = max(numbers["increment"], default=0)
        ours = {name for name in names if name.partition("-")[0] in (*_KINDS, "manifest.new")}
        return cls(bool(ours - listed), max(numbers["snapshot"], default=0), newest)


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "(it said nothing)"


def run(size: int, seed: int) -> Figures:
    """So many kills, shared out among the profiles."""
    sums: Counter[str] = Counter()
    violations: list[str] = []
    for index, profile in enumerate(PROFILES):
        kills = size // len(PROFILES) + (index < size % len(PROFILES))
        if kills:
            directory = Path(tempfile.mkdtemp(prefix=f"telpher-kills-{profile.name}-"))
            violations += besiege(profile, directory, kills, f"{seed}", sums)
    names = ("kills", "during a snapshot", "while starting", "clients killed", "confirmed")
    counts = {name: sums[name] for name in names}
    counts |= {name: sums[name] for name in ("lost", "phantom", "settled again")}
    counts["other faults"] = sum(sums[name] for name in _OTHER)
    return Figures(counts, violations)


_OTHER = ("stored twice", "unmarked duplicate", "reordered", "skipped", "stuck")


def besiege(
    profile: Profile, directory: Path, kills: int, seed: str, sums: Counter[str]
) -> list[str]:
    """So many kills of one profile; adds up the counts, and says what was violated."""
    siege = Siege(profile, directory, seed)
    faults: list[str] = []
    verdict: dict[str, Any] = {}
    try:
        drained_at = 0
        while siege.counts["kills"] < kills:
            siege.kill()
            if siege.counts["kills"] - drained_at >= KILLS_BETWEEN_DRAINS:
                siege.drain()
                drained_at = siege.counts["kills"]
        siege.drain()
        verdict = siege.end()
    except Judged:
        pass
    except Violated as error:
        faults.append(str(error))
    finally:
        siege.clear()
    if not verdict:
        verdict = judged(directory / "ledger.d")
    sums.update(siege.counts)
    sums.update(verdict["counts"])
    sums["confirmed"] += verdict["confirmed"]
    faults += verdict["findings"]
    if not faults:
        shutil.rmtree(directory)
        return []
    after = f"after {siege.counts['kills']} kills of {profile.name}; kept in {directory}"
    again = f"judge again: python -m tests.torture.ledger {directory / 'ledger.d'}"
    return [*(f"{fault} ({after})" for fault in faults), again]


PROGRAMME = Programme(
    name="kills",
    id="T1",
    title="kill -9 of the daemon and its clients at random instants under load",
    unit="kills",
    short=9,
    long=2_100,
    run=run,
    promises=("G1", "G3", "G4", "G5", "G6", "G7", "G19", "G40"),
)
