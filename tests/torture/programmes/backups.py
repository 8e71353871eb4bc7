"""T6: backups of a daemon under load, while it, or the command, is killed at random instants.

Each completed backup must be an exact prefix: a broker's state out of it is byte for byte that of
replaying the journal from its first record on up to there, and what was confirmed before the
command was given is in it. So must be what is restored to a record or a time, and it must be the
last block that the point allows. The journal is a backup of its own, which the log is kept long
enough for: it may never have a gap. What a killed command leaves must be backups as before.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

import telpher.sync
from telpher.protocol.batch import decode
from telpher_broker.engine.dump import Frozen
from telpher_broker.engine.engine import Engine
from telpher_broker.engine.settings import EngineSettings
from telpher_storage import FileStorage, StorageSettings
from telpher_storage.backup import backup, bases
from telpher_storage.check import check
from telpher_storage.held import View
from telpher_storage.restore import ALL, Target, restore
from tests.daemon.process import DaemonProcess, environment, serving
from tests.storage.stored import digest, load

from ..programme import Figures, Programme

BACKUPS_PER_LIFE = 12
CONNECT_SECONDS = 60.0
LEAVE_SECONDS = 10.0
PAUSE_SECONDS = 0.01
FLAGS = (
    *("--rewrite-min-bytes=32KiB", "--rewrite-growth-percent=20", "--reserve-bytes=1MiB"),
    *("--retired-log-bytes=1GiB", "--resume-ms=100"),
)


class Violated(Exception):
    """What was promised of a backup does not hold."""


class Load:
    """A publisher whose messages stay, and a client that does all kinds of things."""

    def __init__(self, url: str, seed: str) -> None:
        self.confirmed = 0
        self.failure: BaseException | None = None
        self._url = url
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), daemon=True)
            for work in (self._keep, self._churn)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Unless there is no broker any more: a client waits for one to come back."""
        self._stop.set()
        for thread in self._threads:
            thread.join(LEAVE_SECONDS)

    def _run(self, work: Any) -> None:
        try:
            with telpher.sync.connect(self._url, connect_seconds=CONNECT_SECONDS) as bus:
                work(bus)
        except telpher.LeaseLost:
            pass  # of what was acknowledged last, told when the bus is closed
        except BaseException as error:  # noqa: BLE001 - told by the programme, which looks at it
            self.failure = error

    def _keep(self, bus: telpher.sync.Bus) -> None:
        with bus.producer("kept") as producer:
            while not self._stop.wait(PAUSE_SECONDS):
                sent = self.confirmed
                for _ in range(20):
                    producer.send(b"%d" % sent)
                    sent += 1
                producer.flush()
                self.confirmed = sent

    def _churn(self, bus: telpher.sync.Bus) -> None:
        rng = self._rng
        while not self._stop.wait(PAUSE_SECONDS):
            options: dict[str, Any] = {"priority": rng.randint(0, 3)}
            options |= {"delay": rng.random()} if rng.random() < 0.2 else {}
            options |= {"confirm": "fsynced"} if rng.random() < 0.05 else {}
            bus.publish("jobs", rng.randbytes(rng.randint(0, 300)), **options)
            with suppress(telpher.LeaseLost):  # by a kill, before the client was back
                for message in bus.fetch("jobs", max=rng.randint(1, 3), wait=0):
                    message.ack() if rng.random() < 0.7 else message.nack()


class Written(NamedTuple):
    """A block of the journal: the number that comes after it, when it was written, its records."""

    end: int
    time_ms: int
    records: list[bytes]


class Life:
    """One daemon on one directory, and the backups of it."""

    def __init__(self, directory: Path, seed: str, counts: Counter[str]) -> None:
        self._directory = directory
        self._rng = random.Random(seed)
        self._counts = counts
        self._roots = (directory / "backups", directory / "journal")
        self._daemon = DaemonProcess(directory, *FLAGS).ready()
        self._journal: list[Written] = []
        self._read_journal()  # from the first record on, so before there is one
        self._load = Load(self._daemon.unix_url, seed)

    # --- what happens

    def back_up(self) -> None:
        """A backup, in one of the ways, which is killed or not; and what is promised of it."""
        rng = self._rng
        full = rng.random() < 0.3
        self._run(full, rng.random() < 0.5, rng.random() < 0.3)
        before = self._load.confirmed
        report = self._run(full=False, kill=False, kill_daemon=rng.random() < 0.2)
        assert report is not None
        self._counts["backups"] += 1
        self._read_journal()
        base, record = Path(report["base"]), report["record"]
        kept = self._judge(base, ALL, record)
        if kept < before:
            raise Violated(f"{before} were confirmed before it, and {kept} are in it")
        self._counts["confirmed"] = max(self._counts["confirmed"], kept)
        for target, end in self._points(base):
            self._judge(base, target, end)
            self._counts["points"] += 1

    def _run(self, full: bool, kill: bool, kill_daemon: bool) -> dict[str, Any] | None:
        root, data = self._roots[0], self._daemon.data
        before = _shape(root)
        command = [sys.executable, "-m", "telpher_broker", "backup", str(root), "--json"]
        command += ["--data-dir", str(data), *(["--full"] if full else [])]
        process = subprocess.Popen(
            command,
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if kill or kill_daemon:
            while process.poll() is None and _shape(root) == before:
                time.sleep(0.0005)
            time.sleep(self._rng.uniform(0, 0.03))
        if kill_daemon:
            self._kill_daemon()
        if kill:
            process.kill()
        out, _ = process.communicate()
        if process.returncode == -9:
            self._counts["killed"] += 1
            self._judge_remains(root)
            return None
        if process.returncode:
            raise Violated(f"the command ended with {process.returncode}: {out}")
        found: dict[str, Any] = json.loads(out)
        return found

    def _kill_daemon(self) -> None:
        self._daemon.kill()
        self._counts["daemons killed"] += 1
        self._daemon = DaemonProcess(self._directory, *FLAGS).ready()

    def _points(self, base: Path) -> Iterator[tuple[Target, int]]:
        """A record and a time in a base, and where each is to end."""
        first = bases(self._roots[0])[-1].runs[0].base_record
        known = [block for block in self._journal if first < block.end]
        last = self._end_of(base)
        record = self._rng.randrange(first, last)
        ends = [first, *(block.end for block in known if block.end <= record + 1)]
        yield Target(record=record), ends[-1]
        times = [block.time_ms for block in known if block.end <= last]
        time_ms = self._rng.randint(times[0], times[-1])
        ends = [block.end for block in known if block.end <= last and block.time_ms <= time_ms]
        yield Target(time_ms=time_ms), ends[-1]

    def _end_of(self, base: Path) -> int:
        return next(found.runs[-1].record for found in bases(base.parent) if found.path == base)

    # --- what must hold

    def _read_journal(self) -> None:
        root = self._roots[1]
        report = backup(self._daemon.data, root, time.time_ns() // 1_000_000)
        if report.base.name != "base-1":
            raise Violated(f"the journal has a gap: {report.because}")
        with View(report.base) as view:
            self._journal = [
                Written(block.header.end, block.header.time_ms, [data for data, _ in block.entries])
                for block in view.log().blocks()
            ]
        self._counts["records"] = max(self._counts["records"], report.record)

    def _judge(self, base: Path, target: Target, end: int) -> int:
        """Restore, start, and compare; how many messages of the publisher are there."""
        directory = self._directory / "restored"
        report = restore(base, directory, target)
        try:
            if report.record != end:
                raise Violated(f"{target} of {base.name} ends at {report.record}, and not {end}")
            if check(directory).verdict != "sound":
                raise Violated(f"{target} of {base.name} is not sound")
            storage = FileStorage(StorageSettings(directory, reserve_bytes=0), journal=True)
            engine, _ = load(storage, EngineSettings())
            storage.close(clean=False)
            if digest(engine) != self._state_at(end):
                raise Violated(f"{target} of {base.name} is another state than that of {end}")
            return _kept(engine)
        finally:
            shutil.rmtree(directory)

    def _state_at(self, end: int) -> bytes:
        engine = Engine(EngineSettings())
        for block in self._journal:
            if block.end <= end:
                for record in block.records:
                    engine.replay(record)
        return digest(engine)

    def _judge_remains(self, root: Path) -> None:
        """Of a command that was killed."""
        for base in bases(root) if root.exists() else ():
            verdict = check(base.path).verdict
            if verdict != "sound":
                raise Violated(f"{base.path.name} is {verdict} after a kill of the command")

    def end(self) -> None:
        """A broker on the last base delivers what the publisher had confirmed then."""
        self._load.stop()
        self._daemon.kill()
        if self._load.failure is not None:
            raise Violated(f"the clients failed: {self._load.failure!r}")
        backup(self._daemon.data, self._roots[0], time.time_ns() // 1_000_000)
        base = bases(self._roots[0])[-1].path
        with serving(self._directory, "--data-dir", str(base)) as daemon:
            found = _drained(daemon.unix_url, self._load.confirmed)
        if found[: self._load.confirmed] != [b"%d" % each for each in range(self._load.confirmed)]:
            raise Violated(f"a broker on {base.name} delivers {len(found)} messages otherwise")

    def clear(self) -> None:
        self._load.stop()
        self._daemon.process.kill()
        self._daemon.process.wait()


def _drained(url: str, count: int) -> list[bytes]:
    """What the publisher's queue delivers, up to so many messages."""
    found: list[bytes] = []
    with telpher.sync.connect(url) as bus:
        while len(found) < count:
            messages = bus.fetch("kept", max=1000, wait=5)
            if not messages:
                break
            found += [message.body for message in messages]
    return found


def _kept(engine: Engine) -> int:
    """How many messages the publisher has in a state; raises Violated unless they are the first."""
    bodies: list[bytes] = []
    number = None
    for chunk in Frozen(engine.state):
        kind, *fields = msgpack.unpackb(chunk, use_list=False, strict_map_key=False)
        if kind == 2 and fields[1] == "kept":
            number = fields[0]
        elif kind == 3 and fields[0] == number:
            for row in fields[1]:
                bodies += decode(row[4]).bodies
    if bodies != [b"%d" % each for each in range(len(bodies))]:
        raise Violated(f"{len(bodies)} messages are there, and not those that were sent first")
    return len(bodies)


def _shape(root: Path) -> list[tuple[str, int]]:
    """Changes when something in a backup root does."""
    with suppress(FileNotFoundError):
        return sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*"))
    return []


def run(size: int, seed: int) -> Figures:
    """So many backups, a dozen in the life of a daemon."""
    counts: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    violations: list[str] = []
    done = 0
    while done < size and not violations:
        life_seed = f"{seed} {done}"
        directory = Path(tempfile.mkdtemp(prefix="telpher-backups-"))
        counts.clear()
        life = Life(directory, life_seed, counts)
        try:
            for _ in range(min(BACKUPS_PER_LIFE, size - done)):
                done += 1
                life.back_up()
            life.end()
        except Violated as error:
            violations.append(f"seed {seed}, backup {done}, in {directory}: {error}")
        finally:
            life.clear()
        totals += counts
        if not violations:
            shutil.rmtree(directory)
    names = {
        "backups": "backups",
        "points": "points restored",
        "killed": "commands killed",
        "daemons killed": "daemons killed",
        "records": "records",
        "confirmed": "confirmed messages in them",
    }
    figures = {shown: totals[name] for name, shown in names.items()}
    return Figures({**figures, "gaps or other states": len(violations)}, violations)


PROGRAMME = Programme(
    name="backups",
    id="T6",
    title="backups under load, with kills of the daemon and of the command",
    unit="backups",
    short=4,
    long=200,
    run=run,
    promises=("G48",),
)
