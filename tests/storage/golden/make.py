"""Makes the golden directories of the version that is checked out, and their texts.

    python -m tests.storage.golden.make

Run it before a format is changed; what is there is never made anew, for no later code can write
it. A directory is named after the file version and how it came to be: `clean` after an orderly
stop, `killed` with a torn tail, `rdb` with a snapshot and no log. All kinds of records and chunks
are in it. The text beside it has what it held when it was made: its entries as `telpher dump`
shows them, and the state that comes of them, chunk by chunk. A text that is missing is written;
delete one to do so where only the way of showing has changed, and read the diff.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

from telpher_broker.cli.describe import describe
from telpher_broker.engine.dump import Frozen
from telpher_broker.engine.settings import EngineSettings
from telpher_storage.entries import entries
from telpher_storage.file_header import VERSION

from ..disk import Disk
from ..everything import SETTINGS, Life, everything
from ..stored import HOME, StoredDriver, determined, load, new_disk
from ..worlds import make as open_storage

FOLDER = Path(__file__).parent
TORN_BYTES = 5


def clean(driver: StoredDriver) -> None:
    everything(driver)
    driver.close(clean=True)


def killed(driver: StoredDriver) -> None:
    """In the middle of the last block, which nothing says was ever synced."""
    everything(driver)
    driver.close(clean=False)
    last = max(name for name in driver.disk.names if "/increment-" in name)
    del driver.disk.names[last].content[-TORN_BYTES:]


def rdb(driver: StoredDriver) -> None:
    life = Life(driver, "a")
    life.some()
    life.others()
    driver.snapshot()
    driver.close(clean=False)


KINDS: dict[str, tuple[str, Callable[[StoredDriver], None]]] = {
    "clean": ("aof+rdb", clean),
    "killed": ("aof+rdb", killed),
    "rdb": ("rdb", rdb),
}


def names() -> list[str]:
    """The directories that there are."""
    return sorted(path.name for path in FOLDER.iterdir() if (path / "manifest").exists())


def make(name: str, mode: str, live: Callable[[StoredDriver], None]) -> None:
    directory = FOLDER / name
    if directory.exists():
        return
    settings = SETTINGS if mode != "rdb" else {**SETTINGS, "memory_limit_bytes": 1 << 40}
    with determined(0):
        driver = StoredDriver(new_disk(), mode, **settings)
        live(driver)
    directory.mkdir()
    for path, content in files_of(driver.disk):
        (directory / path).write_bytes(content)


def files_of(disk: Disk) -> Iterator[tuple[str, bytes]]:
    """What matters of a data directory in memory."""
    for name, inode in disk.names.items():
        path = Path(name)
        if path.parent == HOME and path.name not in ("lock", "reserve"):
            yield path.name, bytes(inode.content)


def text_of(copy: Path) -> str:
    """What a directory holds, and the state that it means. Opens it, so give it a copy."""
    lines = [
        _line(describe(entry.kind, entry.data, bodies=True), entry.kind) for entry in entries(copy)
    ]
    storage = open_storage(copy, "aof+rdb")
    engine, _ = load(storage, EngineSettings(**SETTINGS))
    for chunk in Frozen(engine.state):
        lines.append(_line(describe("chunk", chunk, bodies=True), "state"))
    storage.close(clean=False)
    return "".join(lines)


def _line(found: dict[str, Any], kind: str) -> str:
    return f"{kind} {json.dumps(found, default=repr, ensure_ascii=True)}\n"


def main() -> None:
    for kind, (mode, live) in KINDS.items():
        make(f"{VERSION}-{kind}", mode, live)
    for name in names():
        text = FOLDER / f"{name}.txt"
        if not text.exists():
            with TemporaryDirectory() as scratch:
                text.write_text(text_of(Path(copytree(FOLDER / name, f"{scratch}/data"))))


if __name__ == "__main__":
    main()
