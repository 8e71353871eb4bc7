"""T17: a side that says nothing any more is found out by the other, and what it held comes back.

A unit is a client process that is stopped by SIGSTOP while it holds leases, at heartbeats of 5 s,
the least there are. Half of them have a daemon without grace to resume in, so that what they held
comes to another consumer the moment they are dropped; the other half have the usual grace of a
second. When they go on they must have noticed, and know that their leases are lost. Beside, a third
daemon is stopped itself under clients of all three kinds: they must notice, go on when it does, and
have nothing stored twice. All of that at once, twenty clients at a time.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import trio

import telpher
import telpher.sync
from tests.daemon.process import DaemonProcess, environment, serving

from ..place import folder
from ..programme import Figures, Programme
from ..traffic import HEARTBEAT_SECONDS, KINDS, Ledger, Pair

AT_ONCE: Final = 20
HELD: Final = 5
RESUME_SECONDS: Final = 1.0
DROPPED_SECONDS_MAX: Final = 2 * HEARTBEAT_SECONDS
REDELIVERED_SECONDS_MAX: Final = 1.0  # after the drop and the grace
BUSY_SECONDS_MAX: Final = 1.0  # what a busy machine may add to any of it
STOPPED_SECONDS: Final = DROPPED_SECONDS_MAX + BUSY_SECONDS_MAX + 0.2

CLIENT: Final = f"""
import json, sys, trio, telpher

async def main():
    async with telpher.connect(sys.argv[1], heartbeat_seconds={HEARTBEAT_SECONDS}) as bus:
        async with bus.consume(sys.argv[2], prefetch=100) as messages:
            held = await messages.next_batch()
            print(len(held), flush=True)
            while not bus.reconnects:
                await trio.sleep(0.01)
            try:
                await held.ack()
                lost = ()
            except telpher.LeaseLost as error:
                lost = error.offsets
            print(json.dumps(lost), flush=True)

trio.run(main)
"""


@dataclass
class Findings:
    """How long things took at most, and what was wrong."""

    most: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def took(self, what: str, seconds: float, most: float, who: str) -> None:
        """Note how long it took, and how long it may take."""
        self.most[what] = max(self.most.get(what, 0.0), seconds)
        if seconds > most + BUSY_SECONDS_MAX:
            self.violations.append(f"{who}: {what} after {seconds:.2f} s, and not {most:g}")

    def count(self, what: str, count: int) -> None:
        """Add to a count."""
        self.counts[what] = self.counts.get(what, 0) + count

    def hold(self, is_so: bool, text: str) -> None:
        """Note what is not so."""
        if not is_so:
            self.violations.append(text)


def run(size: int, seed: int) -> Figures:
    """Stop so many clients, and one daemon under others."""
    findings, rng = Findings(), random.Random(seed)
    trio.run(_run, size, rng, findings)
    return Figures(
        {"clients stopped": size, **findings.counts, **findings.most}, findings.violations
    )


async def _run(size: int, rng: random.Random, findings: Findings) -> None:
    with folder() as place:
        paths = [place / name for name in ("graceless", "usual", "stopped")]
        for path in paths:
            path.mkdir()
        with (
            serving(paths[0], "--resume-ms", "0") as graceless,
            serving(paths[1]) as usual,
            serving(paths[2]) as stopped,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_daemon, stopped, rng, findings)
                for first in range(0, size, AT_ONCE):
                    async with trio.open_nursery() as clients:
                        for number in range(first, min(first + AT_ONCE, size)):
                            daemon = (graceless, usual)[number % 2]
                            name = f"held-{number}"
                            clients.start_soon(
                                _stop_client, daemon, name, number % 2, rng, findings
                            )


# -- a client is stopped


async def _stop_client(
    daemon: DaemonProcess, queue: str, has_grace: int, rng: random.Random, findings: Findings
) -> None:
    async with telpher.connect(daemon.unix_url) as bus:
        async with bus.producer(queue) as producer:
            await producer.send_many([b"%d" % n for n in range(HELD)])
        process = await trio.to_thread.run_sync(_holding, daemon.url, queue)
        try:
            async with bus.consume(queue, prefetch=100) as messages:
                # Anywhere between two of its PINGs.
                await trio.sleep(rng.uniform(0, HEARTBEAT_SECONDS / 2))
                process.send_signal(signal.SIGSTOP)
                began = trio.current_time()
                seen = await _take(messages, HELD)
            seconds = trio.current_time() - began
            if has_grace:
                most = DROPPED_SECONDS_MAX + RESUME_SECONDS + REDELIVERED_SECONDS_MAX
                findings.took("s at most until redelivered", seconds, most, queue)
            else:
                findings.took("s at most until dropped", seconds, DROPPED_SECONDS_MAX, queue)
            all_again = dict.fromkeys(range(HELD), 2)
            findings.hold(seen == all_again, f"{queue}: {seen} came, by number and attempt")
            process.send_signal(signal.SIGCONT)
            lost = await trio.to_thread.run_sync(_last_words, process)
            findings.hold(lost == [0, HELD], f"{queue}: the client knew of {lost} that it had lost")
            findings.hold(not (await bus.inspect(queue)).messages, f"{queue}: messages are left")
            findings.count("leases redelivered", len(seen))
        finally:
            process.kill()
            process.wait()


async def _take(messages: telpher.Consumer, count: int) -> dict[int, int]:
    """Take and acknowledge so many; their attempts by number."""
    seen: dict[int, int] = {}
    async for batch in messages.batches():
        for message in batch:
            seen[int(message.body)] = message.attempt
        await batch.ack()
        if len(seen) >= count:
            break
    return seen


def _holding(url: str, queue: str) -> subprocess.Popen[str]:
    """A client process that holds all messages of a queue."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, url, queue],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"{HELD}\n"
    return process


def _last_words(process: subprocess.Popen[str]) -> Any:
    """What it says it has lost, once it has ended."""
    said, _ = process.communicate(timeout=30)
    return json.loads(said)


# -- the daemon is stopped


async def _stop_daemon(daemon: DaemonProcess, rng: random.Random, findings: Findings) -> None:
    ledger, stop = Ledger(), threading.Event()
    pairs = [Pair(kind, kind, ledger, random.Random(rng.random()), stop) for kind in KINDS]
    with ledger.open() as history:
        for pair in pairs:
            history.reads(pair.name)
    async with trio.open_nursery() as nursery:
        for pair in pairs:
            nursery.start_soon(pair.run, daemon.url, daemon.url)
        await trio.sleep(0.3)
        noticed: dict[str, float] = {}
        async with trio.open_nursery() as watchers:
            for watch in (_watch, _watch_sync):
                await watchers.start(watch, daemon.url, noticed)
            daemon.signal(signal.SIGSTOP)
            began = time.monotonic()
            await trio.sleep(STOPPED_SECONDS)
            daemon.signal(signal.SIGCONT)
        for kind in ("with await", "without"):
            seconds = noticed.get(kind, float("inf")) - began
            findings.took("s at most until clients noticed", seconds, DROPPED_SECONDS_MAX, kind)
        await trio.sleep(0.3)
        stop.set()
    findings.violations += [str(finding) for finding in ledger.end()]
    async with telpher.connect(daemon.unix_url) as bus:
        counters = (await bus.stats())["engine"]
    sent = sum(pair.sent for pair in pairs)
    findings.count("messages under a stopped daemon", sent)
    findings.count("duplicates stored", max(counters["published"] - sent, 0))
    findings.hold(counters["published"] == sent, f"{sent} sent, {counters['published']} stored")


async def _watch(
    url: str,
    noticed: dict[str, float],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with telpher.connect(url, heartbeat_seconds=HEARTBEAT_SECONDS) as bus:
        task_status.started()
        while bus.is_connected:  # noqa: ASYNC110 - as an application looks at it
            await trio.sleep(0.01)
        noticed["with await"] = time.monotonic()
        while not bus.is_connected:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def _watch_sync(
    url: str,
    noticed: dict[str, float],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    opened = threading.Event()

    def watch() -> None:
        with telpher.sync.connect(url, heartbeat_seconds=HEARTBEAT_SECONDS) as bus:
            opened.set()
            while bus.is_connected:
                time.sleep(0.01)
            noticed["without"] = time.monotonic()
            while not bus.is_connected:
                time.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, watch)
        await trio.to_thread.run_sync(opened.wait)
        task_status.started()


PROGRAMME = Programme(
    name="silence",
    id="T17",
    title="clients are stopped while they hold leases, and a daemon under its clients",
    unit="clients",
    short=4,
    long=200,
    run=run,
    promises=("G5", "G7", "G14"),
)
