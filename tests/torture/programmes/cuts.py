"""Every file cut at every byte, every bit flipped; sectors, blocks and files taken or moved about.

The directory was written by the production engine and has every kind of record and chunk. Copies of
it are damaged, one blow at a time: as a killed process left it, as an orderly stop left it, and as
a snapshot alone; and, one bit of each byte, as the first version of the format was left, and as it
went on in this one. What must come of each is in tests/storage/damages.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from random import Random

from telpher_storage.clean import CLEAN, decode_clean
from telpher_storage.file_header import parse_name
from telpher_storage.manifest import MANIFEST
from tests.storage.damages import (
    Damage,
    Judge,
    cuts,
    damaged,
    flips,
    moved_blocks,
    removals,
    zeros,
)
from tests.storage.disk import Disk
from tests.storage.everything import SETTINGS, Life, everything, missing
from tests.storage.golden.make import FOLDER
from tests.storage.pieces import REFUSED, WHOLE, Content, Original, Verdict
from tests.storage.stored import HOME, History, StoredDriver, determined, new_disk

from ..programme import Figures, Programme

# One in so many is looked at again by `check` and a second open; and repaired.
THOROUGH = 64
REPAIRED = {"flip": 8, "insert": 8, "overwrite": 8, "swap": 8}


class World:
    """One history, and the directories that came of it."""

    def __init__(self, seed: int) -> None:
        looks: list[dict[str, bytes]] = []
        with determined(seed):
            driver = StoredDriver(new_disk(), **SETTINGS)
            everything(driver, lambda: looks.append(driver.disk.content()))
            self.killed = Original.of(driver.disk)
            driver.close(clean=True)
            self.clean = Original.of(driver.disk)
            driver.mode = "rdb"
            driver.reopen()
            driver.snapshot()
            driver.close(clean=True)
            self.rdb = Original.of(driver.disk)
        lacking = missing(self.killed.records, self.rdb.chunks)
        assert not lacking, f"the directory has no {lacking}"
        self.history = driver.history
        assert self.killed.end_record == len(self.history.records)
        self.older = [Original.of(Disk(content)) for content in (*looks, *driver.left)]
        self.originals = {"killed": self.killed, "clean": self.clean, "rdb": self.rdb}


class OldWorld:
    """A directory of version 1, without its marker, and as it was gone on with."""

    def __init__(self) -> None:
        files = [path for path in (FOLDER / "1-clean").iterdir() if path.name != CLEAN]
        disk = Disk({f"{HOME}/{path.name}": path.read_bytes() for path in files})
        self.old = Original.of(disk)
        with determined(0):
            driver = StoredDriver(disk.restarted(), **SETTINGS)
            upto = self.old.manifest.upto
            self.history = History.since(driver.settings, upto, self.old.chunks)
            for block in (one for name in self.old.increments for one in self.old.blocks[name]):
                records = self.old.records[block.first_record - upto : block.end_record - upto]
                self.history.add(records)
            driver.history = self.history
            Life(driver, "c").some()
            driver.close(clean=False)
        self.originals = {"version 1": self.old, "both versions": Original.of(driver.disk)}


def run(size: int, seed: int) -> Figures:
    """Try so many damages, of each kind some; all of them if there are no more."""
    world, old, random = World(seed), OldWorld(), Random(seed)
    judge, old_judge = Judge(world.history), Judge(old.history)
    kinds: Counter[str] = Counter()
    share = size // 4
    for state, original in world.originals.items():
        every = [removals(original), zeros(original), cuts(original), moved_blocks(original)]
        chosen = _chosen([*map(list, every), list(flips(original))], share, random)
        kinds += _damage(state, original, chosen, judge, random)
    for state, original in old.originals.items():
        few = [one for one in flips(original) if one.at % 8 == one.at // 8 % 8]
        every = [removals(original), zeros(original), cuts(original)]
        chosen = _chosen([*map(list, every), few], share // 2, random)
        kinds += _damage(state, original, chosen, old_judge, random)
    kinds["put back"] = _put_back(world, judge, seed)
    judge.counts += old_judge.counts
    judge.violations += old_judge.violations
    judge.violations[:] = [f"{text}, seed {seed}" for text in judge.violations]
    return _figures(kinds, judge)


def _damage(
    state: str, original: Original, damages: Iterable[Damage], judge: Judge, random: Random
) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for damage in damages:
        content, verdict = damaged(original, damage)
        kinds[damage.kind] += 1
        judge.judge(
            content,
            verdict,
            f"{state}: {damage}",
            thorough=random.randrange(THOROUGH) == 0,
            repairs=random.randrange(REPAIRED.get(damage.kind, 1)) == 0,
        )
    return kinds


def _chosen(every: list[list[Damage]], size: int, random: Random) -> Iterator[Damage]:
    """So many in all, of each kind as many as of the others, as far as there are."""
    left = size
    for index, damages in enumerate(every):
        share = left // (len(every) - index)
        chosen = damages if len(damages) <= share else random.sample(damages, share)
        left -= len(chosen)
        yield from chosen


def _put_back(world: World, judge: Judge, seed: int) -> int:
    """Older directories, whole; each file of them, and of another directory, in a newer one."""
    count = 0
    for index, older in enumerate(world.older):
        verdict = Verdict(WHOLE, older.end_record)
        judge.judge(older.content, verdict, f"older directory {index}", thorough=True)
        count += 1
    stranger = World(seed + 1)
    for state, original in world.originals.items():
        for index, older in enumerate([*world.older, stranger.killed, stranger.clean]):
            for name, data in older.content.items():
                if original.content.get(name) == data:
                    continue
                content = {**original.content, name: data}
                what = f"{state}: {name} of directory {index} put back"
                verdict = _of_mixture(original, older, name, content)
                judge.judge(content, verdict, what, thorough=True, repairs=True)
                count += 1
    return count


def _of_mixture(original: Original, older: Original, name: str, content: Content) -> Verdict:
    """What must come of a file that was put into another directory than its own."""
    everything = Verdict(REFUSED, original.end_record)
    if name == MANIFEST:
        return everything
    if name == CLEAN:
        return _of_marker(original, content) or everything
    if name not in original.content:
        parsed = parse_name(name)
        is_newer = parsed is not None and parsed[1] >= original.manifest.next_file
        return everything if is_newer else Verdict(WHOLE, original.end_record)
    return original.expected(content)


def _of_marker(original: Original, content: Content) -> Verdict | None:
    """One of an earlier epoch is void, and one of the same end is right."""
    marker = decode_clean(content[CLEAN])
    assert marker is not None
    if marker.directory != original.manifest.directory or marker.epoch > original.manifest.epoch:
        return None
    without = {name: data for name, data in content.items() if name != CLEAN}
    if marker.epoch < original.manifest.epoch or marker.next_record == original.end_record:
        return original.expected(without)
    return None


def _figures(kinds: Counter[str], judge: Judge) -> Figures:
    counts = {
        "cuts": kinds["cut"],
        "flipped bits": kinds["flip"],
        "zeroed sectors": kinds["zero"],
        "moved blocks": kinds["swap"] + kinds["insert"] + kinds["overwrite"],
        "files removed or put back": kinds["remove"] + kinds["put back"],
        "refused": judge.counts["refused"],
        "tails cut": judge.counts["cut"],
        "whole": judge.counts["whole"],
        "repaired": judge.counts["repaired"],
        "violations": len(judge.violations),
    }
    return Figures(counts, judge.violations)


PROGRAMME = Programme(
    name="cuts",
    id="T3",
    title="a directory with all kinds of records and chunks is damaged: each file cut at every "
    "byte, every bit flipped, sectors zeroed, blocks swapped, duplicated and overwritten, files "
    "removed, older and foreign ones put back; then repaired",
    unit="damages",
    short=2000,
    long=1_000_000,
    run=run,
    promises=("G3", "G8", "G9"),
)
