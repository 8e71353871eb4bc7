"""The power goes at every call to the file system, and leaves any state that it may leave.

The production engine and storage live through a story drawn by the seed: publishes small and large,
acknowledgements, syncs, snapshots with work in between, orderly stops, kills, and losses of power
after which life goes on in what was left. Before every call states of the disk are drawn (its fault
model heads tests/storage/disk.py) and recovered. In one of four of them the power goes once more
during that recovery. Now and then a bit of a synced block is flipped, and the power goes during the
repair.

The law, for each state: it is never refused; what is recovered is an exact prefix, to the byte, of
what was accepted, in whole blocks, and the engine's state is what it was after it; nothing is
missing that anybody was told is synced; a message that was confirmed in that prefix is there, and
unsettled exactly if it was not settled in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from random import Random

from telpher.protocol import frames as f
from telpher_broker.engine.engine import Engine
from telpher_storage import StorageDamaged
from telpher_storage.repair import repair
from tests.engine.driver import answer_of, delivered, make_batch
from tests.engine.invariants import unsettled
from tests.storage.damages import Judge, disk_of, open_disk
from tests.storage.disk import Disk
from tests.storage.pieces import CUT, REFUSED, Original, state_of
from tests.storage.stored import HOME, StoredDriver, determined, new_disk

from ..programme import Figures, Programme

STEPS = 40
DRAWN = 12
QUEUES = ("jobs", "tasks")


class Killed(BaseException):
    """The process ends here."""


class Ended(Exception):
    """The story cannot go on."""


class Ledger:
    """What clients were told, each with how many records there were then."""

    def __init__(self) -> None:
        self.published: list[tuple[int, str, int]] = []
        self.settled: list[tuple[int, str, int]] = []

    def cut(self, count: int) -> None:
        self.published = [one for one in self.published if one[0] <= count]
        self.settled = [one for one in self.settled if one[0] <= count]

    def wrong(self, engine: Engine, count: int) -> str | None:
        """What an engine that has so many records knows otherwise."""
        settled = {(name, offset) for at, name, offset in self.settled if at <= count}
        for at, name, offset in self.published:
            if at > count:
                continue
            channel = engine.state.channels[name]
            is_there = offset < channel.log.next and offset in unsettled(channel.subscriptions[""])
            if is_there == ((name, offset) in settled):
                return f"{name} {offset} is {'' if is_there else 'not '}to be delivered"
        return None


class Story:
    """One broker's life, and the power that goes at every call of it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        # What each state that was seen came to: how many records.
        self.seen: dict[int, int] = {}
        self.points = self.states = self.again = self.cut = self.repairs = 0
        self.ledger = Ledger()
        self.driver = StoredDriver(new_disk(), memory_limit_bytes=2000)
        self.judge = Judge(self.driver.history)
        self.judge.look = self.ledger.wrong
        self.driver.disk.before_call = self._power_goes
        self._greet()

    # -- the story

    def tell(self) -> None:
        steps = (
            (30, self._publish),
            (12, self._ask_for_a_sync),
            (16, self._settle),
            (10, self.driver.sync),
            (6, self._snapshot),
            (3, self._rotate),
            (2, self._stop),
            (2, self._kill),
            (3, self._lose_power),
            (2, self._damage),
        )
        for _ in range(STEPS):
            (step,) = self.random.choices(
                [one for _, one in steps], [weight for weight, _ in steps]
            )
            step()
        self.driver.disk.before_call = None
        self.driver.close(clean=False)

    def _greet(self) -> None:
        """A client comes, and takes what there is."""
        self.session = self.driver.connect()
        self.held: list[tuple[int, int]] = []
        self.consumers = {name: self._consume(name) for name in QUEUES}

    def _consume(self, name: str) -> int:
        consumer = self.driver.request()
        frame = f.Consume(consumer, name, None, {"prefetch": 50})
        self._hear(self.driver.send(self.session, frame))
        return consumer

    def _hear(self, said: list[tuple[int, f.ServerFrame]]) -> None:
        for _, frame in said:
            if isinstance(frame, f.Deliver):
                offsets = [offset for offset, _, _ in delivered([(self.session, frame)])]
                self.held += [(frame.request, offset) for offset in offsets]

    def _publish(self, confirm: f.Level | None = None) -> None:
        name = self.random.choice(QUEUES)
        size = self.random.choice((0, 1, 40, 500, 513, 3000))
        bodies = [self.random.randbytes(size) for _ in range(self.random.choice((1, 1, 3)))]
        request = self.driver.request()
        said = self.driver.send(
            self.session, f.Publish(request, name, None, 0, confirm, make_batch(bodies))
        )
        self._hear(said)
        answer = answer_of(said, self.session, request)
        count = len(self.driver.history.records)
        for offset in range(answer.first, answer.first + len(bodies)):
            self.ledger.published.append((count, name, offset))

    def _ask_for_a_sync(self) -> None:
        self._publish(f.Level.FSYNCED)
        assert self.driver.claimed == len(self.driver.history.records)

    def _settle(self) -> None:
        names = {consumer: name for name, consumer in self.consumers.items()}
        self.random.shuffle(self.held)
        for _ in range(min(len(self.held), 3)):
            consumer, offset = self.held.pop()
            outcome = self.random.choice((0, 0, 1))
            said = self.driver.settle_offsets(self.session, consumer, outcome, (offset, offset + 1))
            if outcome == 0:
                count = len(self.driver.history.records)
                self.ledger.settled.append((count, names[consumer], offset))
            self._hear(said)

    def _snapshot(self) -> None:
        self.driver.snapshot(self._meanwhile)

    def _meanwhile(self) -> None:
        for _ in range(self.random.randrange(3)):
            self._publish()
        if self.random.random() < 0.5:
            self.driver.sync()

    def _rotate(self) -> None:
        """As a snapshot that comes to nothing."""
        self.driver.rotate()

    def _stop(self) -> None:
        self._go_on(clean=True)

    def _kill(self) -> None:
        self._go_on(clean=False)

    def _lose_power(self) -> None:
        self._go_on(clean=False, left=self.driver.disk.power_cut(self.random))

    def _go_on(self, clean: bool, left: Disk | None = None) -> None:
        disk = left or self.driver.disk.restarted()
        if clean:
            self.driver.close(clean)
            disk = self.driver.disk.restarted()
        disk.before_call = self._power_goes
        try:
            report = self.driver.reopen(disk=disk)
        except StorageDamaged as refusal:
            raise Ended(f"refused needlessly: {refusal}") from refusal
        count = len(self.driver.history.records)
        if left is not None:
            self.cut += bool(report.bytes_cut)
            self.judge.forget(count)
            self.ledger.cut(count)
            self.seen = {key: at for key, at in self.seen.items() if at <= count}
        self._greet()

    def _damage(self) -> None:
        """A synced block rots; the power goes during the repair, and it is repaired again."""
        content = state_of(self.driver.disk.content())
        original = Original.of(disk_of(content))
        synced = [
            (name, block)
            for name in original.increments
            for block in original.blocks[name]
            if block.end_record < self.driver.claimed
        ]
        if not synced:
            return
        name, block = self.random.choice(synced)
        rotten = bytearray(content[name])
        rotten[self.random.randrange(block.start, block.end)] ^= 1 << self.random.randrange(8)
        self._repair({**content, name: bytes(rotten)}, block.first_record)

    def _repair(self, content: dict[str, bytes], keeps: int) -> None:
        disk = disk_of(content)
        left: list[Disk] = []
        disk.before_call = lambda call: left.append(disk.power_cut(self.random))
        repair(HOME, disk)
        disk.before_call = None
        done = [disk.power_cut(self.random) for _ in range(DRAWN)]
        for state in [*left, *done]:
            self.repairs += 1
            opened = open_disk(state.restarted())
            if opened.outcome == REFUSED and state not in done:
                repair(HOME, state)
                opened = open_disk(state)
            what = f"seed {self.seed}: power lost in a repair"
            count = self.judge.number_of(opened, what) if opened.outcome != REFUSED else -1
            if count != keeps:
                self.judge.say(what, f"{count} records are there, and not {keeps}")

    # -- the power

    def _power_goes(self, call: str) -> None:
        self.points += 1
        what = f"seed {self.seed}, point {self.points} ({call})"
        for state in self._drawn():
            key = hash(frozenset(state_of(state.content()).items()))
            count = self.seen.get(key)
            if count is None:
                count = self.seen[key] = self._recover(state, what)
                self.states += 1
            if count < self.driver.claimed:
                self.judge.say(what, f"{count} records, and {self.driver.claimed} were claimed")

    def _drawn(self) -> Iterator[Disk]:
        for _ in range(DRAWN):
            yield self.driver.disk.power_cut(self.random)

    def _recover(self, state: Disk, what: str) -> int:
        again = state.restarted() if self.random.random() < 0.25 else None
        opened = open_disk(state)
        if opened.outcome == REFUSED:
            self.judge.say(what, f"refused needlessly: {opened.refusal}")
            return len(self.driver.history.records)
        self.cut += opened.outcome == CUT
        count = self.judge.number_of(opened, what)
        if again is not None:
            self._recover_twice(again, len(state.calls), count, what)
        return count

    def _recover_twice(self, disk: Disk, calls: int, count: int, what: str) -> None:
        """The power goes again while recovery is at work: it comes to the same."""
        self.again += 1
        last = self.random.randrange(calls)

        def kill(call: str) -> None:
            if len(disk.calls) > last:
                raise Killed

        disk.before_call = kill
        with contextlib.suppress(Killed):
            open_disk(disk)
        disk.before_call = None
        opened = open_disk(disk.power_cut(self.random))
        what = f"{what}, again at {last}"
        if opened.outcome == REFUSED:
            self.judge.say(what, f"refused needlessly: {opened.refusal}")
        elif self.judge.number_of(opened, what) != count:
            self.judge.say(what, f"{len(opened.records)} records, and {count} in all before")


def run(size: int, seed: int) -> Figures:
    """Tell stories until so many different states were recovered."""
    totals = dict.fromkeys(("points", "states", "again", "cut", "repairs"), 0)
    violations: list[str] = []
    stories = 0
    while totals["states"] < size and len(violations) < 100:
        with determined(seed + stories):
            story = Story(seed + stories)
            try:
                story.tell()
            except Ended as end:
                story.judge.say(f"seed {story.seed}, point {story.points}", str(end))
        stories += 1
        for name in totals:
            totals[name] += getattr(story, name)
        violations += story.judge.violations
    counts = {
        "states of the disk": totals["states"],
        "points": totals["points"],
        "stories": stories,
        "cut in recovery again": totals["again"],
        "tails cut": totals["cut"],
        "cut in a repair": totals["repairs"],
        "violations": len(violations),
    }
    return Figures(counts, violations)


PROGRAMME = Programme(
    name="power",
    id="T5",
    title="the power goes at every call to the file system of a broker's life with publishes, "
    "acknowledgements, snapshots, stops, kills and repairs, also during recovery; any state "
    "that the disk may be left in is recovered",
    unit="states",
    short=2000,
    long=100_000,
    run=run,
    promises=("G2", "G3", "G4", "G9", "G12"),
)
