"""Every way of damaging a directory that is tried, and the judge of what is made of it.

A `Damage` is applied to the files of an `Original` and says what must come of it. `Judge` opens the
damaged copy with the production storage and holds it to that: refused with the right file and byte
and nothing changed; or cut with the right count; or whole. What is recovered must be records that
were accepted, byte by byte, up to the end of a block; and the production engine must make of them
the state that it had after them. What is refused must open after a repair, with all before the
damage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from telpher_broker.engine.engine import Engine
from telpher_storage import RecoveryReport, StorageDamaged
from telpher_storage.check import check
from telpher_storage.repair import repair

from .disk import SECTOR_BYTES, Disk
from .pieces import CUT, REFUSED, WHOLE, Block, Content, Original, Verdict
from .stored import HOME, History, digest, new_storage


@dataclass(frozen=True, slots=True)
class Damage:
    """What is done to `file`: `at` and `more` are bits, bytes or numbers of blocks, by kind."""

    kind: str
    file: str
    at: int = 0
    more: int = 0
    other: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.file} {self.at} {self.more} {self.other}".rstrip()


def cuts(original: Original) -> Iterator[Damage]:
    for name, data in original.content.items():
        for length in range(len(data)):
            yield Damage("cut", name, length)


def flips(original: Original) -> Iterator[Damage]:
    for name, data in original.content.items():
        for bit in range(8 * len(data)):
            yield Damage("flip", name, bit)


def zeros(original: Original) -> Iterator[Damage]:
    for name, data in original.content.items():
        for start in range(0, len(data), SECTOR_BYTES):
            if any(data[start : start + SECTOR_BYTES]):
                yield Damage("zero", name, start)


def removals(original: Original) -> Iterator[Damage]:
    names = list(original.content)
    for index, name in enumerate(names):
        for other in names[index:]:
            yield Damage("remove", name, other=other)


def moved_blocks(original: Original) -> Iterator[Damage]:
    """Any two blocks of a file swapped; any block put in before any, or over any, of any file."""
    for name, blocks in original.blocks.items():
        for one in range(len(blocks)):
            for two in range(one + 1, len(blocks)):
                yield Damage("swap", name, one, two)
        for other, sources in original.blocks.items():
            for source in range(len(sources)):
                for place in range(len(blocks) + 1):
                    if (name, place) == (other, source):
                        continue  # before itself it is in its place, and over itself no damage
                    yield Damage("insert", name, place, source, other)
                    if place < len(blocks):
                        yield Damage("overwrite", name, place, source, other)


def damaged(original: Original, damage: Damage) -> tuple[dict[str, bytes], Verdict]:
    """The files after the damage, and what must come of it."""
    content = dict(original.content)
    data = content[damage.file]
    if damage.kind == "cut":
        content[damage.file] = data[: damage.at]
    elif damage.kind == "flip":
        flipped = bytearray(data)
        flipped[damage.at // 8] ^= 1 << damage.at % 8
        content[damage.file] = bytes(flipped)
    elif damage.kind == "zero":
        end = min(len(data), damage.at + SECTOR_BYTES)
        content[damage.file] = data[: damage.at] + bytes(end - damage.at) + data[end:]
    elif damage.kind == "remove":
        del content[damage.file]
        content.pop(damage.other, None)
        return content, _removed(original, content)
    else:
        content[damage.file], at = _moved(original, damage, data)
        return content, _misplaced(original, damage.file, at)
    return content, original.expected(content)


def _removed(original: Original, content: Content) -> Verdict:
    if not content:
        return Verdict(WHOLE, 0)
    return original.expected(content)


def _moved(original: Original, damage: Damage, data: bytes) -> tuple[bytes, int]:
    """The file with a block where it does not belong, and where that is."""
    blocks = original.blocks[damage.file]
    if damage.kind == "swap":
        one, two = blocks[damage.at], blocks[damage.more]
        between = data[one.end : two.start]
        swapped = data[two.start : two.end] + between + data[one.start : one.end]
        return data[: one.start] + swapped + data[two.end :], one.start
    source = original.blocks[damage.other][damage.more]
    piece = original.content[damage.other][source.start : source.end]
    start = blocks[damage.at].start if damage.at < len(blocks) else _end(blocks, data)
    end = start if damage.kind == "insert" else start + len(piece)
    return data[:start] + piece + data[end:], start


def _end(blocks: list[Block], data: bytes) -> int:
    return blocks[-1].end if blocks else len(data)


def _misplaced(original: Original, name: str, at: int) -> Verdict:
    """No crash leaves an intact block in a place that is not its own."""
    if name == original.snapshot:
        return Verdict(REFUSED, 0)
    before = [one for one in original.blocks[name] if one.end <= at]
    record = before[-1].end_record if before else original.first_of(name)
    return Verdict(REFUSED, record, name, at)


@dataclass
class Opened:
    """What an open came to."""

    outcome: str
    chunks: list[bytes]
    records: list[bytes]
    report: RecoveryReport | None = None
    refusal: StorageDamaged | None = None


def open_disk(disk: Disk, mode: str = "aof+rdb") -> Opened:
    """Recover what is there; the process then ends as if killed."""
    storage = new_storage(disk, mode)
    try:
        recovery = storage.open()
        chunks = [data for data, _ in recovery.snapshot]
        records = [data for data, _ in recovery.records]
    except StorageDamaged as refusal:
        return Opened(REFUSED, [], [], refusal=refusal)
    finally:
        storage.close(clean=False)
    report = recovery.report
    return Opened(CUT if report.bytes_cut else WHOLE, chunks, records, report)


def disk_of(content: Content) -> Disk:
    return Disk({f"{HOME}/{name}": data for name, data in content.items()})


class Judge:
    """Holds every open to the law. `counts` are of outcomes, `violations` of what broke it."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        # What else is asked of an engine.
        self.look: Callable[[Engine, int], str | None] = lambda engine, count: None
        self._replayed: set[tuple[int, int]] = set()

    def say(self, what: str, text: str) -> None:
        self.counts[f"violated: {what}"] += 1
        self.violations.append(f"{what}: {text}")

    def number_of(self, opened: Opened, what: str) -> int:
        """How many of the accepted records it stands for; says so if they are no exact prefix."""
        assert opened.report is not None
        upto = opened.report.snapshot_upto
        count = upto + len(opened.records)
        if opened.chunks != self.history.chunks.get(upto):
            self.say(what, f"the snapshot up to record {upto} is none that was written")
        elif opened.records != self.history.records[upto:count]:
            self.say(what, f"records {upto} to {count} are not those that were accepted")
        elif count not in self.history.blocks and upto != count:
            self.say(what, f"it ends within a block, at record {count}")
        else:
            self._replay(upto, count, opened, what)
        return count

    def _replay(self, upto: int, count: int, opened: Opened, what: str) -> None:
        """Byte-equal records make equal states: so once for each count."""
        if (upto, count) in self._replayed:
            return
        self._replayed.add((upto, count))
        engine = Engine(self.history.settings)
        for chunk in opened.chunks:
            engine.load(chunk)
        engine.loaded()
        for record in opened.records:
            engine.replay(record)
        engine.recovered()
        if digest(engine) != self.history.digests[count]:
            self.say(what, f"the engine's state after record {count} is another")
        wrong = self.look(engine, count)
        if wrong is not None:
            self.say(what, f"after record {count} {wrong}")

    def forget(self, count: int) -> None:
        """Behind so many records something else will stand."""
        self._replayed = {one for one in self._replayed if one[1] <= count}

    def judge(
        self,
        content: Content,
        verdict: Verdict,
        what: str,
        *,
        thorough: bool = False,
        repairs: bool = False,
    ) -> None:
        disk = disk_of(content)
        told = check(HOME, disk).verdict if thorough else None
        opened = open_disk(disk)
        self.counts[opened.outcome] += 1
        if opened.outcome == REFUSED:
            self._judge_refusal(opened, verdict, disk, content, what)
        else:
            self._judge_recovery(opened, verdict, what)
        if thorough:
            self._judge_check(opened, told, disk, what)
        if repairs and opened.outcome == REFUSED:
            self._judge_repair(disk, verdict, what)

    def _judge_refusal(
        self, opened: Opened, verdict: Verdict, disk: Disk, content: Content, what: str
    ) -> None:
        refusal = opened.refusal
        assert refusal is not None
        if verdict.outcome != REFUSED:
            self.say(what, f"refused needlessly: {refusal}")
        elif verdict.file not in (None, refusal.file):
            self.say(what, f"{verdict.file} is damaged, and {refusal.file} is named")
        elif verdict.offset not in (None, refusal.offset):
            self.say(what, f"byte {verdict.offset} is damaged, and {refusal.offset} is named")
        elif f"telpher repair {HOME}" not in str(refusal):
            self.say(what, "the repair command is not named")
        left = {name: bytes(inode.content) for name, inode in disk.names.items()}
        left.pop(f"{HOME}/lock", None)
        if left != {f"{HOME}/{name}": data for name, data in content.items()}:
            self.say(what, "a refused directory was changed")

    def _judge_recovery(self, opened: Opened, verdict: Verdict, what: str) -> None:
        assert opened.report is not None
        if verdict.outcome == REFUSED:
            self.say(what, f"accepted wrongly ({opened.outcome})")
            return
        count = self.number_of(opened, what)
        found = (opened.outcome, count, opened.report.bytes_cut)
        if found != (verdict.outcome, verdict.record, verdict.bytes_cut):
            self.say(what, f"{found} and not {verdict}")
        if verdict.outcome == CUT:
            where = (opened.report.cut_file, opened.report.cut_offset)
            if where != (verdict.file, verdict.offset):
                self.say(what, f"cut at {where} and not {verdict}")

    def _judge_check(self, opened: Opened, told: str | None, disk: Disk, what: str) -> None:
        """`telpher check` says what opening does, and what was opened once opens again."""
        expected = {REFUSED: "damaged", CUT: "torn", WHOLE: "sound"}[opened.outcome]
        if told != expected and (told, opened.outcome) != ("empty", WHOLE):
            self.say(what, f"check says {told}, and opening it is {opened.outcome}")
        if opened.outcome != REFUSED:
            again = open_disk(disk.restarted())
            if again.outcome != WHOLE or again.records != opened.records:
                self.say(what, f"opened again it is {again.outcome}")

    def _judge_repair(self, disk: Disk, verdict: Verdict, what: str) -> None:
        """It opens, with everything before the damage."""
        self.counts["repaired"] += 1
        report = repair(HOME, disk)
        opened = open_disk(disk)
        if opened.outcome != WHOLE:
            self.say(what, f"after a repair it is {opened.outcome}: {opened.refusal}")
            return
        count = self.number_of(opened, what)
        if count != report.lost_from:
            self.say(what, f"{count} records after a repair that reports {report.lost_from}")
        if count != verdict.record:
            self.say(what, f"{count} records after a repair, {verdict.record} before the damage")
