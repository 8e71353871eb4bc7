"""T18: the wall clock of a running daemon is set by a day to ten years, forth and back.

The daemon runs under libfaketime, which gives it the clock that a file names; monotonic time is
left alone, as it is when somebody sets a clock. A unit is one such step, in the midst of a lease, a
delay and a time to live, with a schedule that fires each second beside and, where there are steps
enough, a peer that has fallen silent. What each of them took is measured from outside. Then the
daemon is killed and started under another clock, once ten years on and once ten years back, where
it counts as docs/decisions/0004 says.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import trio

import telpher
from telpher.protocol import frames as f
from tests.broker.harness import Peer, batch
from tests.daemon.process import DaemonProcess, serving

from ..place import folder
from ..programme import Figures, Programme

TEN_YEARS_SECONDS: Final = 10 * 365 * 86_400
LEASE_SECONDS: Final = 1.0
TTL_SECONDS: Final = 1.2
DELAY_SECONDS: Final = 1.5
SILENCE_SECONDS: Final = 10.0
SILENCE_STEPS: Final = 6  # they take about as long
DAY_SECONDS: Final = 86_400  # the least that the clock is set by
# What comes early is never right; what comes late by less than any step does so on a busy machine.
LATE_SECONDS_MAX: Final = 10.0
EARLY_SECONDS_MAX: Final = 0.02
_LIBRARY: Final = "libfaketime.so.1"
_PLACES: Final = ("/usr/lib", "/usr/local/lib", "/opt/homebrew/lib")


def library() -> Path | None:
    """Where libfaketime is, if it is anywhere."""
    for place in _PLACES:
        for pattern in (f"*/faketime/{_LIBRARY}", f"faketime/{_LIBRARY}", _LIBRARY):
            for found in Path(place).glob(pattern):
                return found
    return None


def missing() -> str | None:
    """What is not there, and what is not proven then."""
    if library() is not None:
        return None
    return (
        "libfaketime is not installed (Debian: faketime); that a whole process keeps time when its "
        "clock is set is not proven, only its core in virtual time (tests/broker/test_clock.py)"
    )


class Clock:
    """The wall clock that a daemon is given."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, seconds: int) -> None:
        """So many seconds off the machine's."""
        self._file.write_text(f"{seconds:+d}s\n")

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process see it."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@dataclass
class Findings:
    """The largest errors in seconds, and what was out of bounds."""

    errors: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def measured(self, what: str, seconds: float, expected: float, where: str) -> None:
        """Note how long something took, and how long it should have."""
        error = seconds - expected
        self.errors[what] = max(self.errors.get(what, 0.0), abs(error))
        if not -EARLY_SECONDS_MAX <= error <= LATE_SECONDS_MAX:
            self.violations.append(f"{where}: {what} took {seconds:.3f} s and not {expected:g}")

    def hold(self, is_so: bool, text: str) -> None:
        """Note what is not so."""
        if not is_so:
            self.violations.append(text)


def run(size: int, seed: int) -> Figures:
    """So many steps of the clock, and two starts under another one."""
    rng, findings = random.Random(seed), Findings()
    with folder() as place:
        clock = Clock(place / "clock")
        with _serving(place, clock) as daemon:
            trio.run(_run, daemon, clock, size, rng, findings)
        for seconds in (TEN_YEARS_SECONDS, -TEN_YEARS_SECONDS):
            trio.run(_restart, place, clock, seconds, findings)
    counts: dict[str, int | float | str] = {"steps": size, "starts under another clock": 2}
    counts |= {f"s off at most, {what}": error for what, error in findings.errors.items()}
    return Figures(counts, findings.violations)


# -- while it runs


async def _run(
    daemon: DaemonProcess, clock: Clock, size: int, rng: random.Random, findings: Findings
) -> None:
    async with trio.open_nursery() as nursery:
        if size >= SILENCE_STEPS:
            nursery.start_soon(_fall_silent, daemon, findings)
        async with telpher.connect(daemon.unix_url, heartbeat_seconds=5) as bus:
            await bus.set_schedule("beat", "* * * * * *", "beats", b"beat")
            for number in range(size):
                await _step(daemon, bus, clock, rng, f"step {number}", findings)
            await _judge_beats(bus, size, findings)
            findings.hold(bus.reconnects == 0, f"a step broke {bus.reconnects} connections")


async def _fall_silent(daemon: DaemonProcess, findings: Findings) -> None:
    peer = await _peer(daemon, heartbeat_ms=5000)
    began = trio.current_time()
    goaway = await peer.hear()
    assert isinstance(goaway, f.Goaway), goaway
    findings.measured("silence", trio.current_time() - began, SILENCE_SECONDS, "a silent peer")


async def _step(
    daemon: DaemonProcess,
    bus: telpher.Bus,
    clock: Clock,
    rng: random.Random,
    where: str,
    findings: Findings,
) -> None:
    """One step of the clock, at a random moment of a lease, a delay and a time to live."""
    seconds = rng.choice([-1, 1]) * rng.randint(DAY_SECONDS, TEN_YEARS_SECONDS)
    where = f"{where}, by {seconds:+} s"

    async def set_clock() -> None:
        await trio.sleep(rng.uniform(0.1, LEASE_SECONDS - 0.1))
        clock.set(seconds)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(set_clock)
        nursery.start_soon(_lease, daemon, where, findings)
        nursery.start_soon(_delay, bus, where, findings)
        nursery.start_soon(_expire, bus, where, findings)


async def _lease(daemon: DaemonProcess, where: str, findings: Findings) -> None:
    peer = await _peer(daemon)
    await _published(peer, "leased")
    began = trio.current_time()
    options = {"prefetch": 1, "lease_ms": round(LEASE_SECONDS * 1000)}
    assert isinstance(await peer.ask(f.Consume(2, "leased", None, options)), f.Reply)
    assert isinstance(await peer.hear(), f.Deliver)
    assert isinstance(await peer.hear(), f.Lost)
    findings.measured("lease", trio.current_time() - began, LEASE_SECONDS, where)
    assert isinstance(await peer.hear(), f.Deliver)
    await peer.ask(f.Settle(3, 2, f.Outcome.ACK, (0, 1 << 40), 0))
    await peer.stream.aclose()


async def _delay(bus: telpher.Bus, where: str, findings: Findings) -> None:
    began = trio.current_time()
    await bus.publish("delayed", b"x", delay=DELAY_SECONDS)
    (message,) = await bus.fetch("delayed", wait=DELAY_SECONDS + 5)
    findings.measured("delay", trio.current_time() - began, DELAY_SECONDS, where)
    await message.ack()


async def _expire(bus: telpher.Bus, where: str, findings: Findings) -> None:
    began = trio.current_time()
    await bus.publish("short", b"x", ttl=TTL_SECONDS)
    while (await bus.inspect("short")).messages:  # noqa: ASYNC110 - nobody tells of it
        await trio.sleep(0.01)
    findings.measured("time to live", trio.current_time() - began, TTL_SECONDS, where)


async def _judge_beats(bus: telpher.Bus, size: int, findings: Findings) -> None:
    """One message for each second, whatever the wall clock showed meanwhile."""
    await bus.delete_schedule("beat")
    beats = [message.about["scheduled_ms"] for message in await bus.fetch("beats", max=1000)]
    gaps = {later - sooner for sooner, later in pairwise(beats)}
    findings.hold(gaps <= {1000}, f"a schedule of each second fired at distances {gaps} ms")
    findings.hold(len(beats) >= size, f"a schedule fired {len(beats)} times in {size} steps")


# -- a start under another clock


async def _restart(place: Path, clock: Clock, seconds: int, findings: Findings) -> None:
    """Ten years on all that had a time is over it; ten years back time goes on from the log."""
    clock.set(0)
    (place / "data").rename(place / f"data-before{seconds:+}")
    with _serving(place, clock) as daemon:
        async with telpher.connect(daemon.unix_url) as bus:
            await bus.publish("short", b"x", ttl=60)
            await bus.publish("delayed", b"x", delay=2.0)
        daemon.kill()
    clock.set(seconds)
    asked = trio.current_time()
    with _serving(place, clock) as daemon:
        ready = trio.current_time()
        async with telpher.connect(daemon.unix_url) as bus:
            (message,) = await bus.fetch("delayed", wait=30)
            came = trio.current_time()
            left = (await bus.inspect("short")).messages
    where = f"a start under a clock {seconds:+} s off"
    due = 0.0 if seconds > 0 else 2.0
    # The broker's time went on some time between these two.
    least, most = came - ready, came - asked
    is_right = most >= due - EARLY_SECONDS_MAX and least <= due + LATE_SECONDS_MAX
    findings.hold(is_right, f"{where}: {due:g} s of a delay took {least:.3f} to {most:.3f} s")
    findings.hold(left == (0 if seconds > 0 else 1), f"{where}: {left} messages with 60 s to live")
    behind = [row for row in daemon.events() if "behind_seconds" in row]
    findings.hold(bool(behind) == (seconds < 0), f"{where}: {len(behind)} warnings of it")
    assert message.body == b"x"


@contextmanager
def _serving(place: Path, clock: Clock) -> Iterator[DaemonProcess]:
    (place / "log").unlink(missing_ok=True)
    with serving(place, extra=clock.environment) as daemon:
        yield daemon
    # Of a process that is killed libfaketime leaves what its children would have shared with it.
    for name in (f"faketime_shm_{daemon.process.pid}", f"sem.faketime_sem_{daemon.process.pid}"):
        (Path("/dev/shm") / name).unlink(missing_ok=True)


# -- clients that say no more than they are told to


async def _peer(daemon: DaemonProcess, **options: Any) -> Peer:
    peer = Peer(await trio.open_unix_socket(daemon.unix))
    await peer.open(**{"heartbeat_ms": 120_000, **options})
    return peer


async def _published(peer: Peer, channel: str) -> None:
    answer = await peer.ask(f.Publish(1, channel, None, 0, None, batch(b"x")))
    assert isinstance(answer, f.Confirm), answer


PROGRAMME = Programme(
    name="clock",
    id="T18",
    title="the wall clock is set by a day to ten years under leases, delays, lives and schedules",
    unit="steps",
    short=2,
    long=250,
    run=run,
    promises=("G15",),
    missing=missing,
)
