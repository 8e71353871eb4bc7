"""A disk in memory that knows what a power cut may leave of it.

The fault model. A file's content is on the disk up to its last sync; of what was written since,
any byte prefix may have survived, with any of its 512-byte sectors zeroed. Names made, renamed
and removed in a directory are on the disk after a sync of the directory; of those changed since,
the first k survive, for any k, as on file systems that journal them in order, or all but any one.
A truncation is like a write. Only names and contents matter; permissions are not modelled.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from telpher_storage.files import Files

SECTOR_BYTES = 512


@dataclass(eq=False)
class Inode:
    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


Names = dict[str, Inode]


class Disk(Files):
    """One directory at a time is enough: names are full paths, directories sync as one."""

    def __init__(self) -> None:
        self.names: Names = {}
        self.directories: set[str] = set()
        self.open_files: dict[int, Inode] = {}
        self.calls: list[str] = []
        self.fail_at: dict[int, int] = {}
        self.fail_from: tuple[int, int] | None = None
        self.total_bytes = 1 << 30
        self.used_bytes_extra = 0
        self._durable: Names = {}
        self._changes: list[tuple[str, Inode | None]] = []
        self._next_fd = 100

    # Faults

    def _call(self, name: str) -> None:
        """Count a call that can fail, and fail it if this one is to."""
        index = len(self.calls)
        self.calls.append(name)
        code = self.fail_at.get(index)
        if self.fail_from is not None and index >= self.fail_from[0]:
            code = self.fail_from[1]
        if code is not None:
            raise OSError(code, os.strerror(code))

    def used_bytes(self) -> int:
        inodes = set(self.names.values()) | set(self.open_files.values())
        return self.used_bytes_extra + sum(len(inode.content) for inode in inodes)

    # The calls

    def open(self, path: Path, flags: int) -> int:
        name = str(path)
        if flags & os.O_CREAT:
            self._call(f"create {path.name}")
        inode = self.names.get(name)
        if inode is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "no such file", name)
            inode = Inode()
            self._name(name, inode)
        elif flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, "file exists", name)
        self._next_fd += 1
        self.open_files[self._next_fd] = inode
        return self._next_fd

    def _name(self, name: str, inode: Inode | None) -> None:
        self._changes.append((name, inode))
        if inode is None:
            del self.names[name]
        else:
            self.names[name] = inode

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

    def read(self, fd: int, length_bytes: int, offset: int) -> bytes:
        return bytes(self.open_files[fd].content[offset : offset + length_bytes])

    def size(self, fd: int) -> int:
        return len(self.open_files[fd].content)

    def truncate(self, fd: int, length_bytes: int) -> None:
        self._call("truncate")
        del self.open_files[fd].content[length_bytes:]

    def allocate(self, fd: int, length_bytes: int) -> None:
        self._call("allocate")
        if length_bytes > self.total_bytes - self.used_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.open_files[fd].content += bytes(length_bytes)

    def sync_data(self, fd: int) -> None:
        self._call("sync")
        inode = self.open_files[fd]
        inode.synced = bytes(inode.content)

    def sync_directory(self, directory: Path) -> None:
        self._call("sync directory")
        self._durable = dict(self.names)
        self._changes.clear()

    def rename(self, source: Path, target: Path) -> None:
        self._call(f"rename {target.name}")
        inode = self.names[str(source)]
        self._name(str(target), inode)
        self._changes[-1:] = [(f"{source}\n{target}", inode)]
        del self.names[str(source)]

    def unlink(self, path: Path) -> None:
        if str(path) not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        self._call(f"unlink {path.name}")
        self._name(str(path), None)

    def list(self, directory: Path) -> list[str]:
        prefix = f"{directory}/"
        found = [*self.names, *self.directories]
        return sorted({name[len(prefix) :].split("/")[0] for name in found if prefix in name})

    def make_directory(self, directory: Path) -> None:
        self._call("make directory")
        self.directories.add(str(directory))

    def directory_mode(self, directory: Path) -> int | None:
        return 0o700 if str(directory) in self.directories else None

    def restrict(self, path: Path, mode: int) -> None:
        raise AssertionError("the model's directories are always 0700")

    def try_lock(self, fd: int) -> bool:
        inode = self.open_files[fd]
        return sum(other is inode for other in self.open_files.values()) == 1

    def space(self, directory: Path) -> tuple[int, int]:
        return max(0, self.total_bytes - self.used_bytes()), self.total_bytes

    # What a power cut may leave

    def restarted(self, names: Names | None = None) -> Disk:
        """A disk with the same content after the process died; with `names`, after the machine."""
        disk = Disk()
        disk.directories = set(self.directories)
        disk.total_bytes = self.total_bytes
        disk.used_bytes_extra = self.used_bytes_extra
        copies: dict[Inode, Inode] = {}
        for name, inode in (self.names if names is None else names).items():
            content = bytearray(inode.content)
            copies.setdefault(inode, Inode(content, bytes(content)))
            disk.names[name] = copies[inode]
        disk._durable = dict(disk.names)
        return disk

    def power_cuts(self) -> Iterator[Disk]:
        """Every state of the model: the names' survivors times the contents' states."""
        count = len(self._changes)
        survivors: list[Sequence[int]] = [range(kept) for kept in range(count + 1)]
        survivors += [[*range(lost), *range(lost + 1, count)] for lost in range(count - 1)]
        for kept in survivors:
            names = dict(self._durable)
            for index in kept:
                _replay(names, *self._changes[index])
            yield from self._contents(names)

    def _contents(self, names: Names) -> Iterator[Disk]:
        """Each unsynced file in each of its states, with the others least and most survived."""
        unsynced = [name for name, inode in names.items() if inode.content != inode.synced]
        for others in (0, 1):
            base = {name: _least_or_all(inode, others) for name, inode in names.items()}
            yield self.restarted({name: Inode(bytearray(base[name])) for name in names})
            for name in unsynced:
                for state in _states(names[name]):
                    chosen = {**base, name: state}
                    yield self.restarted(
                        {each: Inode(bytearray(content)) for each, content in chosen.items()}
                    )


def _replay(names: Names, name: str, inode: Inode | None) -> None:
    if "\n" in name and inode is not None:
        source, target = name.split("\n")
        names.pop(source, None)
        names[target] = inode
    elif inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


def _least_or_all(inode: Inode, all_of_it: int) -> bytes:
    return bytes(inode.content) if all_of_it else inode.synced


def _states(inode: Inode) -> Iterator[bytes]:
    """What may be on the disk of a file whose content is not its synced content."""
    content, start = bytes(inode.content), len(inode.synced)
    if not content.startswith(inode.synced):  # truncated since
        yield inode.synced
        yield content
        return
    lengths = range(start, len(content) + 1, max(1, (len(content) - start) // 10))
    yield from (content[:length] for length in lengths)
    for sector in range(start // SECTOR_BYTES, len(content) // SECTOR_BYTES + 1):
        low = max(start, sector * SECTOR_BYTES)
        high = min(len(content), (sector + 1) * SECTOR_BYTES)
        yield content[:low] + bytes(high - low) + content[high:]
