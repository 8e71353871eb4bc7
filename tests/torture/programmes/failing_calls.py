"""The k-th call to the file system fails, for every k: once, from then on, or on a full disk.

The production broker runs in virtual time on a disk in memory: a client publishes, asks for syncs,
consumes and settles, takes a snapshot with publishes in between, stops it in order and starts it
again. One call fails, of any kind: a write, a sync, a rename, an open, a read, a list.

The laws. After EIO nothing is confirmed or settled any more, the broker ends within a second, and
no call that changes anything is made again. After ENOSPC it ends like that, or it goes on: then
publishes may be refused and acknowledgements may not. Whatever happened, the next start has an
exact prefix with all that the client was told, also when the power goes before it, or goes after a
while in which the restarted broker has gone on and confirmed more.
"""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass
from random import Random

import trio
import trio.testing

from telpher.protocol import frames as f
from telpher_storage import StorageError, StorageFailed
from telpher_storage.reserve import RESERVE
from tests.broker.harness import House
from tests.storage.damages import Judge, open_disk
from tests.storage.disk import Disk
from tests.storage.pieces import REFUSED
from tests.storage.served import SERVED_RESERVE_BYTES, Client, Served, Told, no_threads
from tests.storage.stored import HOME, History, determined, load, new_disk, new_storage

from ..programme import Figures, Programme

CHANGES = (
    "write",
    "overwrite",
    "sync",
    "truncate",
    "allocate",
    "create",
    "rename",
    "unlink",
    "make directory",
)
DRAWN = 4
POLICIES = ("everysec", "always")
LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Point:
    """Which call fails, how, and for how long. `code` 0: the disk is full from then on, for a
    while."""

    policy: str
    call: int
    code: int
    once: bool

    def __str__(self) -> str:
        name = errno.errorcode.get(self.code, "the disk full")
        return (
            f"fsync {self.policy}, call {self.call}: {name}{'' if self.once else ' from then on'}"
        )


class Trial:
    """One run with one failing call, or none."""

    def __init__(self, point: Point | None, policy: str, seed: int) -> None:
        self.point = point
        self.policy = policy
        self.random = Random(seed)
        self.disk = new_disk()
        self.told = Told()
        self.served: Served | None = None
        self.history = History(self._process(self.disk).engine_settings)
        self.judge = Judge(self.history)
        self.failed_at = 0.0
        self.has_reserve = False
        self.outcome = ""
        self.refused_settles = 0

    def _process(self, disk: Disk, history: History | None = None) -> Served:
        return Served(disk, history, fsync=self.policy, memory_limit=2000)

    # -- the run

    def run(self) -> None:
        self._break()
        clock = trio.testing.MockClock(autojump_threshold=0)
        try:
            trio.run(self._live, clock=clock)
            self.outcome = "done"
        except* StorageFailed:
            self.outcome = "failed"
        except* StorageError:
            self.outcome = "not opened"

    def _break(self) -> None:
        point = self.point
        if point is None:
            return
        if point.code == 0:
            self.disk.before_call = self._fill
        else:
            self.disk.before_call = self._note
            if point.once:
                self.disk.fail_at = {point.call: point.code}
            else:
                self.disk.fail_from = (point.call, point.code)

    def _note(self, call: str) -> None:
        assert self.point is not None
        if len(self.disk.calls) == self.point.call + 1:
            self.failed_at = trio.current_time()

    def _fill(self, call: str) -> None:
        assert self.point is not None
        if len(self.disk.calls) == self.point.call + 1:
            self.disk.used_bytes_extra = self.disk.total_bytes - self.disk.used_bytes()
            reserve = self.disk.content().get(f"{HOME}/{RESERVE}", b"")
            self.has_reserve = len(reserve) == SERVED_RESERVE_BYTES

    async def _live(self) -> None:
        with trio.fail_after(LIMIT_SECONDS):
            for script in (self._first, self._second):
                self.served = self._process(self.disk, self.history)
                self.served.has_failed = self._has_failed
                try:
                    async with self.served.open() as house:
                        await script(house)
                finally:
                    self.served.storage.close(clean=False)

    def _has_failed(self) -> bool:
        """Whether nothing may be confirmed any more."""
        assert self.served is not None
        is_final = self.point is not None and self.point.code == errno.EIO
        return self.served.storage._failure is not None or (is_final and bool(self.disk.failed))

    async def _client(self, house: House) -> Client:
        client = Client(await house.peer(), self.told, is_synced=self.policy == "always")
        await client.consume()
        return client

    async def _first(self, house: House) -> None:
        client = await self._client(house)
        await client.publish(b"one")
        await client.publish(b"two", b"three", confirm=f.Level.FSYNCED)
        await self._settle(client, 1)
        await trio.sleep(1.2)
        await client.publish(b"long" * 700)
        other = await self._client(house)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.call, "snapshot")
            for number in range(6):
                await client.publish(b"meanwhile %d" % number)
        await self._settle(client, 3)
        await client.publish(b"four", confirm=f.Level.FSYNCED)
        await self._relieve(client)
        await client.publish(b"five")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.broker.drain, 1.0)
            for one in (client, other):
                await one.peer.say(f.Goodbye(1))

    async def _second(self, house: House) -> None:
        client = await self._client(house)
        await client.publish(b"six")
        await self._settle(client, 2)
        await trio.sleep(1.2)
        await self._relieve(client)
        await client.publish(b"seven", confirm=f.Level.FSYNCED)

    async def _settle(self, client: Client, count: int) -> None:
        answer = await client.settle(count)
        self.refused_settles += isinstance(answer, f.Refused)

    async def _relieve(self, client: Client) -> None:
        """There is space again: publishing goes on by itself."""
        if self.disk.used_bytes_extra == 0:
            return
        await self._settle(client, 1)
        self.disk.before_call = None
        self.disk.used_bytes_extra = 0
        await trio.sleep(2.5)
        answer = await client.publish(b"after the full disk")
        if not isinstance(answer, f.Confirm):
            self.say(f"publishing does not go on after a full disk: {answer}")

    # -- the laws

    def say(self, text: str) -> None:
        self.judge.say(str(self.point), text)

    def check(self) -> None:
        """Hold the run to the laws."""
        point, served = self.point, self.served
        assert point is not None
        assert served is not None
        if served.spoken:
            self.say(f"{served.spoken} answers after the failure")
        if point.code == 0 and self.has_reserve and self.outcome != "done":
            self.say(f"a full disk came to this: {self.outcome}")
        if self.refused_settles:
            self.say(f"{self.refused_settles} acknowledgements were refused")
        if point.code == errno.EIO and self.disk.failed:
            self._check_end(point, served)
        self.disk.fail_at, self.disk.fail_from, self.disk.before_call = {}, None, None
        self.disk.used_bytes_extra = 0
        self._check_left("after the process", self.disk.restarted(), f.Level.WRITTEN)
        for _ in range(DRAWN):
            left = self.disk.power_cut(self.random)
            self._check_left("after the power", left, f.Level.FSYNCED)
        self._check_next_life()

    def _check_end(self, point: Point, served: Served) -> None:
        if self.outcome == "done":
            self.say("it went on as if nothing had happened")
        elif served.ended_at > self.failed_at:
            self.say(f"it ran for {served.ended_at - self.failed_at:.1f} s after the failure")
        after = [call for call in self.disk.calls[point.call + 1 :] if call.startswith(CHANGES)]
        if after:
            self.say(f"after {self.disk.calls[point.call]} failed came {after[:5]}")

    def _check_left(self, when: str, disk: Disk, level: int) -> None:
        opened = open_disk(disk.restarted())
        if opened.outcome == REFUSED:
            self.say(f"{when}: refused needlessly: {opened.refusal}")
            return
        self.judge.number_of(opened, f"{self.point}: {when}")
        engine, _ = load(new_storage(disk), self.history.settings)
        wrong = self.told.wrong(engine, level)
        if wrong is not None:
            self.say(f"{when}: {wrong}")

    def _check_next_life(self) -> None:
        """The supervisor starts it again, on the same machine; then the power goes."""
        disk = self.disk.restarted()
        trio.run(self._go_on, disk, clock=trio.testing.MockClock(autojump_threshold=0))
        for _ in range(DRAWN):
            left = disk.power_cut(self.random)
            self._check_left("after the next process and the power", left, f.Level.FSYNCED)

    async def _go_on(self, disk: Disk) -> None:
        history = History(self.history.settings)
        served = self._process(disk, history)
        recovery = open_disk(disk.restarted())
        assert recovery.report is not None
        count = recovery.report.snapshot_upto + len(recovery.records)
        self.history.cut(count)
        self.judge.forget(count)
        served.storage.history = self.history
        async with served.open() as house:
            client = await self._client(house)
            await client.publish(b"in the next life", confirm=f.Level.FSYNCED)
            await self._settle(client, 2)
            await client.publish(b"and one more", confirm=f.Level.FSYNCED)
            await client.publish(b"not synced")
        served.storage.close(clean=False)


def points(seed: int) -> list[Point]:
    """Every one."""
    found = []
    for policy in POLICIES:
        trial = Trial(None, policy, seed)
        trial.run()
        assert trial.outcome == "done", trial.outcome
        for call in range(len(trial.disk.calls)):
            found += [
                Point(policy, call, code, once)
                for code in (errno.EIO, errno.ENOSPC)
                for once in (True, False)
            ]
            found.append(Point(policy, call, 0, False))
    return found


def run(size: int, seed: int) -> Figures:
    """Try so many points, or all of them."""
    random, outcomes = Random(seed), Counter[str]()
    violations: list[str] = []
    confirmed = 0
    with determined(seed), no_threads():
        every = points(seed)
        chosen = every if len(every) <= size else random.sample(every, size)
        for point in chosen:
            trial = Trial(point, point.policy, seed)
            trial.run()
            trial.check()
            outcomes[trial.outcome] += 1
            confirmed += len(trial.told.confirmed)
            violations += trial.judge.violations
    counts = {
        "points": len(chosen),
        "calls": len(every) // 5,
        "ended": outcomes["failed"],
        "did not start": outcomes["not opened"],
        "went on": outcomes["done"],
        "confirmed": confirmed,
        "violations": len(violations),
    }
    return Figures(counts, violations)


PROGRAMME = Programme(
    name="failing-calls",
    id="T7",
    title="the k-th call to the file system fails, for every k: once and from then on, with EIO "
    "and ENOSPC, or the disk is full for a while",
    unit="points",
    short=150,
    long=100_000,
    run=run,
    promises=("G1", "G2", "G3", "G10", "G11", "G12"),
)
