"""Sockets: bound before anybody is let in, never stolen from the living, taken from the dead."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from telpher_broker import logs
from telpher_broker.listeners import ListenError, Listeners, accept, peer_of
from telpher_broker.options import Settings
from telpher_broker.sparing import LINES_MAX
from telpher_broker.values import Address

ANY_PORT = (Address("127.0.0.1", 0),)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def settings(**changes: Any) -> Settings:
    return Settings(**{"listen": (), **changes})


def test_a_port_in_use_is_found_before_listening(taken_port: int) -> None:
    address = Address("127.0.0.1", taken_port)
    with pytest.raises(ListenError, match=f"{taken_port}: another process listens there"):
        Listeners.bind(settings(listen=(*ANY_PORT, address)))


def test_nobody_is_let_in_before_listen() -> None:
    with closing(Listeners.bind(settings(listen=ANY_PORT))) as listeners:
        host, port = listeners.tcp_names[0].split(":")
        assert int(port) > 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))


def test_a_name_that_leads_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: elsewhere)
    with pytest.raises(ListenError, match=r"it is 10\.1\.2\.3"):
        Listeners.bind(settings(listen=(Address("localhost", 0),)))


@pytest.mark.parametrize(
    ("host", "reason"),
    [("203.0.113.1", "Cannot assign"), ("no.such.host.invalid", "cannot listen")],
)
def test_an_address_that_is_not_ours(host: str, reason: str) -> None:
    with pytest.raises(ListenError, match=reason):
        Listeners.bind(settings(listen=(Address(host, 0),), insecure_listen=True))


def test_the_unix_socket_is_ours_alone_and_goes_with_us(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listeners = Listeners.bind(settings(unix_socket=path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert listeners.unix_name == str(path)
    listeners.close()
    assert not path.exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_umask_has_no_say_in_the_mode_of_the_unix_socket(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "s"
    with closing(Listeners.bind(settings(unix_socket=path))):
        pass  # its lock is there
    former = os.umask(umask)
    try:
        with closing(Listeners.bind(settings(unix_socket=path))):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        assert os.umask(former) == umask


def test_of_two_that_find_a_dead_unix_socket_only_one_takes_it(tmp_path: Path) -> None:
    """The second one looks while the first has not listened yet, so that it seems dead."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with closing(Listeners.bind(settings(unix_socket=path))) as first:
        inode = path.stat().st_ino
        with pytest.raises(ListenError, match="another process listens there"):
            Listeners.bind(settings(unix_socket=path))
        assert path.stat().st_ino == inode
        assert first.unix_name == str(path)
    with closing(Listeners.bind(settings(unix_socket=path))):
        assert path.exists()


def test_where_everybody_may_write_no_unix_socket_is_made(tmp_path: Path) -> None:
    for mode, is_taken in ((0o777, False), (0o1777, True), (0o775, True)):
        tmp_path.chmod(mode)
        if is_taken:
            with closing(Listeners.bind(settings(unix_socket=tmp_path / "s"))):
                pass
        else:
            with pytest.raises(ListenError, match="everybody may write there"):
                Listeners.bind(settings(unix_socket=tmp_path / "s"))


def test_the_lock_of_a_unix_socket_follows_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (tmp_path / "s.lock").symlink_to(precious)
    with pytest.raises(ListenError, match=r"s\.lock"):
        Listeners.bind(settings(unix_socket=tmp_path / "s"))
    assert not precious.exists()


def test_a_dead_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with closing(Listeners.bind(settings(unix_socket=path))) as listeners:
        assert listeners.unix_name == str(path)


def test_a_living_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(ListenError, match="another process listens there"):
            Listeners.bind(settings(unix_socket=path))
        assert path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="no socket"):
        Listeners.bind(settings(unix_socket=path))
    assert path.read_text() == "precious"


def test_a_successors_unix_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listeners = Listeners.bind(settings(unix_socket=path))
    path.rename(tmp_path / "old")
    path.write_text("the successor's")
    listeners.close()
    assert path.exists()


@pytest.mark.trio
async def test_connections_come_with_a_name_and_without_delay(tmp_path: Path) -> None:
    path = tmp_path / "s"
    both = settings(listen=ANY_PORT, unix_socket=path)
    with closing(Listeners.bind(both)) as listeners:
        tcp, unix = listeners.listen()
        client = await trio.open_tcp_stream("127.0.0.1", tcp.socket.getsockname()[1])
        async with client, await tcp.accept() as served:
            assert peer_of(served.socket).name == str(Address(*client.socket.getsockname()))
            assert served.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        async with await trio.open_unix_socket(str(path)), await unix.accept() as served:
            assert peer_of(served.socket).name == f"unix:pid={os.getpid()},uid={os.getuid()}"


class Named:
    """A socket that is connected to this address."""

    family = socket.AF_INET6

    def __init__(self, host: str) -> None:
        self._host = host

    def getpeername(self) -> tuple[str, int, int, int]:
        return self._host, 40312, 0, 0


@pytest.mark.parametrize("network", ["2001:db8::", "2001:db8:0:1::", "2a01:4f8:0:1::", "fe80::"])
@hypothesis.settings(deadline=None, derandomize=True)
@given(host=st.integers(0, 2**64 - 1))
@example(host=1)
def test_of_ipv6_it_is_the_network_that_counts(network: str, host: int) -> None:
    """However its text is shortened: in a network of one's own one has every address."""
    packed = socket.inet_pton(socket.AF_INET6, network)[:8] + host.to_bytes(8, "big")
    text = socket.inet_ntop(socket.AF_INET6, packed)
    scoped = f"{text}%eth0" if network == "fe80::" else text
    assert peer_of(Named(scoped)).address == f"{network}/64"  # type: ignore[arg-type]


def test_an_ipv4_address_is_itself_in_whatever_family() -> None:
    for host in ("192.0.2.1", "::ffff:192.0.2.1"):
        assert peer_of(Named(host)).address == host  # type: ignore[arg-type]


@pytest.mark.trio
async def test_who_takes_the_last_descriptors_does_not_fill_the_log(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Exhausted:
        """Has a descriptor for every other connection."""

        calls = 0

        async def accept(self) -> None:
            self.calls += 1
            if self.calls % 2:
                raise OSError(errno.EMFILE, "Too many open files")

    stream = StringIO()
    logs.configure("info", "json", stream)
    listener = Exhausted()
    try:
        with trio.move_on_after(50):
            await accept(listener, lambda _: None)  # type: ignore[arg-type]
    finally:
        logs.configure("info", "auto")
    assert listener.calls > 500
    assert len(stream.getvalue().splitlines()) == LINES_MAX
