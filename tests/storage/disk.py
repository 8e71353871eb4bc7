"""A disk in memory that knows what may be left of it.

The fault model.

*The process is killed*: nothing is lost. What was written is with the system, synced or not, and
what was not synced may still be lost with the power, by the next process too: `restarted`.

*The power goes*: `power_cuts` gives states in order, `power_cut` draws one at random. Of every file
and of every directory by itself:

- What it was at its last sync is there.
- Of the bytes that were written since, any prefix is there, to the byte; and in that prefix any of
  the 512-byte sectors may be zeros instead, each by itself: the length came to the disk and the
  content did not. A sector is old, new or zeros, never a mix; bytes that were synced stay when
  more of their sector is written.
- Of a sector that was overwritten since, what it was or what it is.
- A truncation since the last sync has happened or has not; what was written behind it is there
  only if it has.
- Of the names that were made, renamed or removed since the sync of their directory, any may be as
  they are now and any as they were, those of one name in order. A name may survive without its
  content: the file is then empty, short or zeros. A rename is one change: the target is the old
  file or the new one. Between directories the file may be under both names, never under neither.
- A directory is a name in its parent; if that is lost, so is all that is in it.

*A sync fails*: what it should have written is lost to the disk for good. The system takes the pages
for clean, so the next sync succeeds and leaves it out, and whoever reads still sees it.

*A write fails*: half of it is there. *The disk is full*: a write stops short, and the next fails.

Not modelled: sectors with the former content of deleted files (ext4 with data=writeback), a drive
that lies about flushes, permissions. Bits that rot are another matter: see `cuts`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from telpher_storage.files import Files

SECTOR_BYTES = 512


@dataclass(eq=False)
class Inode:
    """A file. Of what was synced, the first `kept_bytes` were not truncated since, and the ranges
    in `over` were overwritten; those in `lost` a failed sync left out, until they are written anew.
    """

    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    kept_bytes: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)
    over: list[tuple[int, int]] = field(default_factory=list)
    overwritten_bytes: int = 0

    @classmethod
    def at_rest(cls, content: bytes) -> Inode:
        return cls(bytearray(content), bytes(content), len(content))

    def copy(self) -> Inode:
        ranges = list(self.lost), list(self.over)
        return Inode(bytearray(self.content), self.synced, self.kept_bytes, *ranges)

    @property
    def is_synced(self) -> bool:
        return self.kept_bytes == len(self.synced) == len(self.content) and not self.over

    def reaching(self) -> bytes:
        """The most that can come to the disk."""
        if not self.lost:
            return bytes(self.content)
        found = bytearray(self.content)
        for start, end in self.lost:
            end = min(end, len(found))
            found[start:end] = bytes(max(0, end - start))
        return bytes(found)

    def sync(self) -> None:
        self.synced = self.reaching()
        self.kept_bytes = len(self.synced)
        self.over.clear()

    def lose(self) -> None:
        self.lost += self.over
        self.over.clear()
        if len(self.content) > self.kept_bytes:
            self.lost.append((self.kept_bytes, len(self.content)))

    def overwrite(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        self.content[offset:end] = data
        self.over.append((offset, end))
        self.overwritten_bytes += len(data)
        outside = []
        for low, high in self.lost:
            outside += [(low, min(high, offset)), (max(low, end), high)]
        self.lost = [(low, high) for low, high in outside if low < high]

    def truncate(self, length_bytes: int) -> None:
        del self.content[length_bytes:]
        self.kept_bytes = min(self.kept_bytes, length_bytes)
        self.lost = [(start, end) for start, end in self.lost if start < length_bytes]
        self.over = [
            (start, min(end, length_bytes)) for start, end in self.over if start < length_bytes
        ]


Names = dict[str, Inode]


@dataclass(eq=False)
class Change:
    """One change of names that its directory's next sync makes durable.

    `target` now names `inode` (None: nothing any more), and `source` does not. `needs` is another
    that is there if this one is.
    """

    directory: str
    target: str
    inode: Inode | None
    source: str | None = None
    needs: Change | None = None
    makes_directory: bool = False


class Disk(Files):
    """A file system in memory. Paths are absolute; a directory in `directories` is there for good.

    `calls` names every call that can fail, `fail_at` and `fail_from` make some fail by their number
    there, `failed` are the numbers of those that did, and `before_call` is called before each and
    may raise.
    """

    def __init__(self, content: Mapping[str, bytes] | None = None) -> None:
        self.names: Names = {name: Inode.at_rest(data) for name, data in (content or {}).items()}
        self.directories: set[str] = {str(Path(name).parent) for name in self.names}
        self.open_files: dict[int, Inode] = {}
        self.calls: list[str] = []
        self.failed: list[int] = []
        self.fail_at: dict[int, int] = {}
        self.fail_from: tuple[int, int] | None = None
        self.before_call: Callable[[str], None] | None = None
        self.total_bytes = 1 << 30
        self.used_bytes_extra = 0
        self._durable: Names = dict(self.names)
        self._changes: list[Change] = []
        self._next_fd = 100

    # Faults

    def _call(self, name: str) -> None:
        """Count a call that can fail, and fail it if this one is to."""
        index = len(self.calls)
        self.calls.append(name)
        if self.before_call is not None:
            self.before_call(name)
        code = self.fail_at.get(index)
        if self.fail_from is not None and index >= self.fail_from[0]:
            code = self.fail_from[1]
        if code is not None:
            self.failed.append(index)
            raise OSError(code, os.strerror(code))

    def used_bytes(self) -> int:
        inodes = set(self.names.values()) | set(self.open_files.values())
        return self.used_bytes_extra + sum(len(inode.content) for inode in inodes)

    def content(self) -> dict[str, bytes]:
        """Every file, as it reads now."""
        return {name: bytes(inode.content) for name, inode in sorted(self.names.items())}

    # The calls

    def open(self, path: Path, flags: int) -> int:
        name = str(path)
        inode = self.names.get(name)
        if inode is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "no such file", name)
            self._call(f"create {path.name}")
            inode = self._name(path, Inode())
        elif flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, "file exists", name)
        else:
            self._call(f"open {path.name}")
        self._next_fd += 1
        self.open_files[self._next_fd] = inode
        return self._next_fd

    def _name(self, path: Path, inode: Inode) -> Inode:
        if str(path.parent) not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(path.parent))
        self._change(Change(str(path.parent), str(path), inode))
        return inode

    def _change(self, change: Change) -> None:
        self._changes.append(change)
        _apply(change, self.names)

    def close(self, fd: int) -> None:
        del self.open_files[fd]

    def write(self, fd: int, data: bytes) -> int:
        room = self.total_bytes - self.used_bytes()
        content = self.open_files[fd].content
        try:
            self._call("write")
        except OSError:
            content += data[: len(data) // 2]
            raise
        if room <= 0 and data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        content += data[:room]
        return min(len(data), room)

    def write_parts(self, fd: int, parts: Sequence[bytes]) -> int:
        return self.write(fd, b"".join(parts))

    def overwrite(self, fd: int, data: bytes, offset: int) -> int:
        self._call("overwrite")
        self.open_files[fd].overwrite(data, offset)
        return len(data)

    def read(self, fd: int, length_bytes: int, offset: int) -> bytes:
        self._call("read")
        return bytes(self.open_files[fd].content[offset : offset + length_bytes])

    def size(self, fd: int) -> int:
        return len(self.open_files[fd].content)

    def truncate(self, fd: int, length_bytes: int) -> None:
        self._call("truncate")
        self.open_files[fd].truncate(length_bytes)

    def allocate(self, fd: int, length_bytes: int) -> None:
        self._call("allocate")
        if length_bytes > self.total_bytes - self.used_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.open_files[fd].content += bytes(length_bytes)

    def sync_data(self, fd: int) -> None:
        inode = self.open_files[fd]
        try:
            self._call("sync")
        except OSError:
            inode.lose()
            raise
        inode.sync()

    def sync_directory(self, directory: Path) -> None:
        self._call("sync directory")
        if str(directory) not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(directory))
        settled = _with_needs([one for one in self._changes if one.directory == str(directory)])
        for change in settled:
            _apply(change, self._durable)
        self._changes = [change for change in self._changes if change not in settled]

    def rename(self, source: Path, target: Path) -> None:
        if str(source) not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(source))
        self._call(f"rename {target.name}")
        inode = self.names[str(source)]
        if source.parent == target.parent:
            self._change(Change(str(target.parent), str(target), inode, str(source)))
            return
        self._name(target, inode)
        gone = Change(str(source.parent), str(source), None, needs=self._changes[-1])
        self._change(gone)

    def unlink(self, path: Path) -> None:
        if str(path) not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        self._call(f"unlink {path.name}")
        self._change(Change(str(path.parent), str(path), None))

    def list(self, directory: Path) -> list[str]:
        self._call("list")
        prefix = f"{directory}/"
        found = [name for name in (*self.names, *self.directories) if name.startswith(prefix)]
        return sorted({name[len(prefix) :].split("/")[0] for name in found})

    def make_directory(self, directory: Path) -> None:
        self._call("make directory")
        self._changes.append(
            Change(str(directory.parent), str(directory), None, makes_directory=True)
        )
        self.directories.add(str(directory))

    def directory_mode(self, directory: Path) -> int | None:
        return 0o700 if str(directory) in self.directories else None

    def restrict(self, path: Path, mode: int) -> None:
        raise AssertionError("the model's directories are always 0700")

    def try_lock(self, fd: int) -> bool:
        inode = self.open_files[fd]
        return sum(other is inode for other in self.open_files.values()) == 1

    def space(self, directory: Path) -> tuple[int, int]:
        self._call("space")
        return max(0, self.total_bytes - self.used_bytes()), self.total_bytes

    # What is left

    def restarted(self) -> Disk:
        """After the process was killed: everything is there, and what was not synced still is not.

        Files that were deleted and open are gone.
        """
        disk = self._like()
        copies: dict[Inode, Inode] = {}

        def copy_of(inode: Inode) -> Inode:
            if inode not in copies:
                copies[inode] = inode.copy()
            return copies[inode]

        disk.names = {name: copy_of(inode) for name, inode in self.names.items()}
        disk._durable = {name: copy_of(inode) for name, inode in self._durable.items()}
        changed: dict[Change, Change] = {}
        for one in self._changes:
            inode = None if one.inode is None else copy_of(one.inode)
            needs = None if one.needs is None else changed.get(one.needs)
            fields = (one.directory, one.target, inode, one.source, needs, one.makes_directory)
            changed[one] = Change(*fields)
        disk._changes = list(changed.values())
        return disk

    def _like(self) -> Disk:
        disk = Disk()
        disk.directories = set(self.directories)
        disk.total_bytes = self.total_bytes
        disk.used_bytes_extra = self.used_bytes_extra
        return disk

    def power_cuts(self) -> Iterator[Disk]:
        """The systematic states: the first changes of names, or all but one, times for each file
        in turn a number of prefixes and each sector zero, with all else least and most survived.
        """
        count = len(self._changes)
        survivors: list[Sequence[int]] = [range(kept) for kept in range(count + 1)]
        survivors += [[*range(lost), *range(lost + 1, count)] for lost in range(count - 1)]
        for kept in survivors:
            yield from self._contents(self._surviving([self._changes[index] for index in kept]))

    def power_cut(self, random: Random) -> Disk:
        """One state of the model, drawn at random: any of them may come."""
        count = len(self._changes)
        kind = random.randrange(3)
        if kind == 0:
            kept = self._changes
        elif kind == 1:
            kept = self._changes[: random.randint(0, count)]
        else:
            kept = [change for change in self._changes if random.random() < 0.5]
        names, directories = self._surviving(kept)
        drawn = {inode: _drawn(inode, random) for inode in names.values()}
        return self._left({name: drawn[inode] for name, inode in names.items()}, directories)

    def _surviving(self, kept: Iterable[Change]) -> tuple[Names, set[str]]:
        """The names and directories that are there if these changes are and no other is."""
        names = dict(self._durable)
        lost = {change.target for change in self._changes if change.makes_directory}
        for change in _with_needs(kept):
            _apply(change, names)
            if change.makes_directory:
                lost.discard(change.target)
        directories = {one for one in self.directories if not _is_below(one, lost)}
        return {name: names[name] for name in names if not _is_below(name, lost)}, directories

    def _left(self, content: dict[str, bytes], directories: set[str]) -> Disk:
        disk = self._like()
        disk.directories = directories
        disk.names = {name: Inode.at_rest(data) for name, data in content.items()}
        disk._durable = dict(disk.names)
        return disk

    def _contents(self, surviving: tuple[Names, set[str]]) -> Iterator[Disk]:
        """Each unsynced file in each of its states, with the others least and most survived."""
        names, directories = surviving
        unsynced = [name for name, inode in names.items() if not inode.is_synced]
        for least in (True, False):
            base = {
                name: inode.synced if least else inode.reaching() for name, inode in names.items()
            }
            yield self._left(base, directories)
            for name in unsynced:
                for state in _states(names[name]):
                    yield self._left({**base, name: state}, directories)


def _apply(change: Change, names: Names) -> None:
    if change.makes_directory:
        return
    if change.source is not None:
        names.pop(change.source, None)
    if change.inode is None:
        names.pop(change.target, None)
    else:
        names[change.target] = change.inode


def _with_needs(changes: Iterable[Change]) -> list[Change]:
    """These, each behind the one that it needs."""
    found: dict[Change, None] = {}
    for change in changes:
        if change.needs is not None:
            found.setdefault(change.needs)
        found.setdefault(change)
    return list(found)


def _is_below(name: str, directories: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}/") for one in directories)


def _sectors(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a range of bytes that lie in one sector each."""
    while start < end:
        following = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        yield start, following
        start = following


def _kept(inode: Inode, is_new: Callable[[], bool]) -> bytearray:
    """What was synced and is not truncated, with each overwritten sector old or new."""
    kept, content = bytearray(inode.synced[: inode.kept_bytes]), inode.reaching()
    for start, end in inode.over:
        for low, high in _sectors(start, min(end, inode.kept_bytes)):
            if is_new():
                kept[low:high] = content[low:high]
    return kept


def _states(inode: Inode) -> Iterator[bytes]:
    """What may be on the disk of a file whose content is not its synced content, in order."""
    start, content = inode.kept_bytes, inode.reaching()
    yield inode.synced
    for kept in (inode.synced[:start], bytes(_kept(inode, lambda: True))):
        lengths = range(start, len(content) + 1, max(1, (len(content) - start) // 10))
        yield from (kept + content[start:length] for length in lengths)
        for low, high in _sectors(start, len(content)):
            yield kept + content[start:low] + bytes(high - low) + content[high:]
        if not inode.over:
            return


def _drawn(inode: Inode, random: Random) -> bytes:
    """One of all the states of a file."""
    if inode.is_synced:
        return inode.synced
    start, content = inode.kept_bytes, bytearray(inode.reaching())
    if start < len(inode.synced) and random.random() < 0.5:
        return inode.synced  # the truncation has not happened
    content[:start] = _kept(inode, lambda: random.random() < 0.5)
    if random.random() < 0.6:
        del content[random.randint(start, len(content)) :]
    share = random.choice((0.0, 0.0, 0.1, 0.5, 0.9, 1.0))
    for low, high in _sectors(start, len(content)):
        if random.random() < share:
            content[low:high] = bytes(high - low)
    return bytes(content)
