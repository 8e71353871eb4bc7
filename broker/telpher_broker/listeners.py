"""The sockets on which clients come in: bound early, so that a port in use stops the start at
once; listening late, so that nobody is let in before the data has been recovered.

A Unix socket of a broker that died is replaced, one that still answers is not; it is removed at
the end if it is still ours. Two brokers that start at the same moment would both find it dead, and
the second would remove the first one's; so who takes a path holds the lock of a file beside it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

import trio

from .logs import get_logger
from .options import Settings
from .values import Address

BACKLOG: Final = 1024
ACCEPT_PAUSE_SECONDS: Final = 0.1
_UNAVAILABLE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_NO_CAPACITY: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:192.0.2.1
_CREDENTIALS: Final = Struct("iII")  # process, user, group: struct ucred

log = get_logger()


class ListenError(Exception):
    """An address cannot be listened on; the text says which, why, and what to do."""


class Listeners:
    """All bound sockets of a broker."""

    def __init__(self) -> None:
        self.tcp: list[socket.socket] = []
        self.unix: socket.socket | None = None
        self._unix_file: tuple[Path, int] | None = None  # the path, and the inode that is ours
        self._unix_lock = -1

    @classmethod
    def bind(cls, settings: Settings) -> Listeners:
        """Bind what the settings name, without letting anybody in. Raises `ListenError`."""
        listeners = cls()
        try:
            for address in settings.listen:
                listeners.tcp += _bind_tcp(address, settings.may_be_reached)
            if settings.unix_socket is not None:
                listeners._bind_unix(settings.unix_socket)
        except BaseException:
            listeners.close()
            raise
        return listeners

    def listen(self) -> list[trio.SocketListener]:
        """Let clients in. Raises `ListenError` if another process was faster."""
        opened = []
        for sock in [*self.tcp, *([self.unix] if self.unix else [])]:
            try:
                sock.listen(BACKLOG)
            except OSError as error:
                raise ListenError(_explained(_name(sock), error)) from None
            sock.setblocking(False)
            opened.append(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
        return opened

    @property
    def tcp_names(self) -> list[str]:
        """`HOST:PORT` of each TCP socket, with the port that the system picked for 0."""
        return [_name(sock) for sock in self.tcp]

    @property
    def unix_name(self) -> str | None:
        """The full path of the Unix socket."""
        return None if self._unix_file is None else str(self._unix_file[0])

    def close(self) -> None:
        """Let go of the sockets, and remove the Unix socket's file if it is still ours."""
        if self._unix_file is not None:
            path, inode = self._unix_file
            with suppress(OSError):
                if path.stat(follow_symlinks=False).st_ino == inode:
                    path.unlink()
            self._unix_file = None
        if self._unix_lock >= 0:
            os.close(self._unix_lock)
            self._unix_lock = -1
        for sock in [*self.tcp, *([self.unix] if self.unix else [])]:
            sock.close()

    def _bind_unix(self, path: Path) -> None:
        path = path.absolute()
        _refuse_shared(path.parent)
        self._unix_lock = _lock_beside(path)
        _clear_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.unix = sock
        former = os.umask(0o177)  # there is no moment in which others could connect
        try:
            sock.bind(str(path))
            self._unix_file = (path, path.stat(follow_symlinks=False).st_ino)
        except OSError as error:
            raise ListenError(_explained(str(path), error)) from None
        finally:
            os.umask(former)


def _bind_tcp(address: Address, may_be_reached: bool) -> list[socket.socket]:
    """One socket for each IP address of the host. Names may have some that this machine lacks."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror}") from None
    bound: list[socket.socket] = []
    missing: OSError | None = None
    for family, kind, protocol, _, target in found:
        if not may_be_reached and not Address(str(target[0]), 0).is_loopback:
            raise ListenError(
                f"cannot listen on {address}: it is {target[0]}, which other machines can reach"
            )
        try:
            bound.append(_bound(family, kind, protocol, target))
        except OSError as error:
            if error.errno not in _UNAVAILABLE:
                raise ListenError(_explained(str(address), error)) from None
            missing = error
    if missing is not None and not bound:
        raise ListenError(_explained(str(address), missing))
    return bound


def _bound(family: int, kind: int, protocol: int, target: object) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(target)  # type: ignore[arg-type]  # what getaddrinfo gave
    except BaseException:
        sock.close()
        raise
    return sock


def _refuse_shared(directory: Path) -> None:
    """Raise `ListenError` for a directory where others could put a socket of their own in place of
    ours."""
    try:
        found = directory.stat()
    except OSError as error:
        raise ListenError(f"cannot listen in {directory}: {error.strerror}") from None
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise ListenError(
            f"cannot listen in {directory}: everybody may write there, and could put another "
            f"socket in place of the broker's; chmod o-w {directory}, or take another directory"
        )


def _lock_beside(path: Path) -> int:
    """The lock of a Unix socket's path, held for as long as the descriptor is open."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(f"{path}.lock", flags, 0o600)
    except OSError as error:
        raise ListenError(f"cannot listen on {path}: {path}.lock: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ListenError(f"cannot listen on {path}: another process listens there") from None
    return descriptor


def _clear_stale(path: Path) -> None:
    """Remove the socket of a dead broker. Raises `ListenError` if it lives, or is no socket."""
    try:
        mode = path.stat(follow_symlinks=False).st_mode
    except OSError:
        return  # not there, or bind() will say why not
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on {path}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                path.unlink()
            return
        except OSError as error:
            raise ListenError(_explained(str(path), error)) from None
    raise ListenError(f"cannot listen on {path}: another process listens there")


def _explained(name: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {name}: another process listens there"
    if error.errno == errno.EACCES and "/" not in name:
        return f"cannot listen on {name}: ports below 1024 need a privilege; take a higher one"
    return f"cannot listen on {name}: {error.strerror}"


def _name(sock: socket.socket) -> str:
    name = sock.getsockname()
    return name if isinstance(name, str) else str(Address(name[0], name[1]))


class Peer(NamedTuple):
    """Who is at the other end.

    `name` is for logs: `127.0.0.1:40312`, or `unix:pid=123,uid=1000`. `address` is what it comes
    from, without the port; of IPv6 the network (/64), in which one has as many addresses as one
    likes.
    `uid` is the system's user at a Unix socket, `subject` that of a certificate that was checked.
    """

    name: str
    address: str = ""
    uid: int | None = None
    subject: str | None = None


def peer_of(sock: trio.socket.SocketType) -> Peer:
    """Who is at the other end of a socket."""
    try:
        if sock.family == socket.AF_UNIX:
            data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            process, user, _ = _CREDENTIALS.unpack(data)
            return Peer(f"unix:pid={process},uid={user}", f"unix:uid={user}", user)
        host, port, *_ = sock.getpeername()
        return Peer(str(Address(host, port)), _origin(host))
    except OSError:
        return Peer("gone")


def _origin(host: str) -> str:
    """An IPv4 address as it is, of an IPv6 address its network: `2001:db8::/64`."""
    if ":" not in host:
        return host
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    if packed.startswith(_IPV4_MAPPED):
        return host
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8)) + "/64"


async def accept(listener: trio.SocketListener, admit: Callable[[trio.SocketStream], None]) -> None:
    """Hand every connection to `admit`, for ever. Without file descriptors it waits and says so."""
    short = False
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno not in _NO_CAPACITY:
                raise
            if not short:
                text = os.strerror(error.errno or 0)
                log.seldom("warning", "connections have to wait", reason=text)
            short = True
            await trio.sleep(ACCEPT_PAUSE_SECONDS)
        else:
            short = False
            admit(stream)
