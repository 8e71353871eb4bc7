"""Every call that touches the file system, so that tests can record them or make them fail.

Nothing here decides anything. Each method is one system call or the closest thing to it, and
raises OSError as the system does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path

F_FULLFSYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)

WRITE = os.O_RDWR | os.O_CLOEXEC
APPEND = WRITE | os.O_APPEND
CREATE = APPEND | os.O_CREAT | os.O_EXCL
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

READ = os.O_RDONLY | os.O_CLOEXEC
LOCK = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


class Files:
    """The real file system."""

    def open(self, path: Path, flags: int) -> int:
        """Open or create a file, readable by its owner only; returns its descriptor."""
        return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, data: bytes) -> int:
        """Returns how many bytes were written, which may be fewer than asked."""
        return os.write(fd, data)

    def write_parts(self, fd: int, parts: Sequence[bytes]) -> int:
        """Like `write`, of at most IOV_MAX parts in one call."""
        return os.writev(fd, parts)

    def overwrite(self, fd: int, data: bytes, offset: int) -> int:
        """Returns how many bytes were written. Not with APPEND, where Linux ignores the offset."""
        return os.pwrite(fd, data, offset)

    def read(self, fd: int, length_bytes: int, offset: int) -> bytes:
        """Returns fewer bytes only at the end of the file."""
        data = os.pread(fd, length_bytes, offset)
        while data and len(data) < length_bytes:
            more = os.pread(fd, length_bytes - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def truncate(self, fd: int, length_bytes: int) -> None:
        os.ftruncate(fd, length_bytes)

    def allocate(self, fd: int, length_bytes: int) -> None:
        """Give a new file that many bytes of disk."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, length_bytes)
            return
        block = bytes(1024 * 1024)
        for at in range(0, length_bytes, len(block)):
            os.write(fd, block[: length_bytes - at])

    def sync_data(self, fd: int) -> None:
        """Content and length are on the disk. Other metadata, such as times, may not be.

        fdatasync writes out whatever metadata is needed to read the data back, length included.
        macOS keeps data in the drive's own cache unless asked by F_FULLFSYNC.
        """
        if F_FULLFSYNC is not None:
            fcntl.fcntl(fd, F_FULLFSYNC)
        elif hasattr(os, "fdatasync"):
            os.fdatasync(fd)
        else:
            os.fsync(fd)

    def sync_directory(self, directory: Path) -> None:
        """Names made, renamed and removed in the directory are on the disk."""
        fd = os.open(directory, READ | os.O_DIRECTORY)
        try:
            self._sync_directory_fd(fd)
        finally:
            os.close(fd)

    def _sync_directory_fd(self, fd: int) -> None:
        if F_FULLFSYNC is not None:
            fcntl.fcntl(fd, F_FULLFSYNC)
        else:
            os.fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def list(self, directory: Path) -> list[str]:
        """The names in a directory, sorted."""
        return sorted(os.listdir(directory))

    def make_directory(self, directory: Path) -> None:
        os.mkdir(directory, 0o700)

    def remove_directory(self, directory: Path) -> None:
        """An empty one."""
        os.rmdir(directory)

    def directory_mode(self, directory: Path) -> int | None:
        """Its permission bits, or None when there is no such directory."""
        try:
            status = os.stat(directory)
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(20, "not a directory", str(directory))
        return stat.S_IMODE(status.st_mode)

    def owner(self, path: Path) -> tuple[int, int]:
        """The user and the group of a file or directory."""
        status = os.stat(path)
        return status.st_uid, status.st_gid

    def give(self, path: Path, user: int, group: int) -> None:
        """Make it another's, which root may."""
        os.chown(path, user, group)

    def restrict(self, path: Path, mode: int) -> None:
        os.chmod(path, mode)

    def try_lock(self, fd: int) -> bool:
        """Take the exclusive lock of an open file, which ends with the descriptor."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def space(self, directory: Path) -> tuple[int, int]:
        """Bytes free to us and bytes in all on the file system of a directory."""
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
