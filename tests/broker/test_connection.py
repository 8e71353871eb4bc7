"""One connection over a real socket: what is said comes out whole and in order, however slowly."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from telpher.protocol import frames as f
from telpher.protocol.connection import Connection, Role
from telpher_broker.connection import READ_BYTES, ClientConnection
from telpher_broker.listeners import Peer
from telpher_broker.output import Output

pytestmark = pytest.mark.trio
SMALL_BYTES = 4096


async def test_what_is_said_behind_an_unfinished_send_does_not_overtake_it() -> None:
    """The kernel takes a piece of a large answer; then it has room again, and more is said."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    output = Output(1 << 30)
    connection = ClientConnection(1, stream, Peer("test"), 1 << 20, 5000, lambda *_: None, output)
    client = Connection(Role.CLIENT, 1 << 24)
    connection.protocol.receive_data(client.send(f.Hello(0, (1,), "test", {})))
    connection.say(f.Welcome(0, 1, "telpher", {}))
    connection.flush()
    frames = client.receive_data(theirs.recv(SMALL_BYTES))
    connection.say(f.Reply(1, {"large": os.urandom(500_000)}))
    connection.flush()
    assert connection.is_sending
    frames += client.receive_data(theirs.recv(100_000))
    for request in range(2, 50):
        connection.say(f.Reply(request, {}))
        connection.flush()
    reader = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.drain)
        with trio.fail_after(10):
            while len(frames) < 50:
                frames += client.receive_data(bytes(await reader.receive_some(100_000)))
        nursery.cancel_scope.cancel()
    assert [frame.request for frame in frames] == list(range(50))
    await reader.aclose()
    await stream.aclose()


async def test_large_frames_are_read_whole_also_between_small_ones() -> None:
    """The kernel has all of what was sent at once: so how much comes is up to the reader."""
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    output = Output(1 << 30)
    connection = ClientConnection(1, stream, Peer("test"), 1 << 20, 5000, lambda *_: None, output)
    client = Connection(Role.CLIENT, 1 << 24)
    connection.protocol.receive_data(client.send(f.Hello(0, (1,), "test", {})))
    client.receive_data(connection.protocol.send(f.Welcome(0, 1, "telpher", {})))
    large = client.send(f.Publish(1, "orders", None, 0, None, bytes(2 * READ_BYTES)))
    small = client.send(f.Settle(2, 1, 0, (0, 1), 0))
    many = small * (2 * READ_BYTES // len(small))

    async def reads(sent: bytes) -> int:
        theirs.sendall(sent)
        frames, count = 0, 0
        while frames < 1 or connection.unfinished_bytes:
            frames += len(await connection.receive() or ())
            count += 1
        return count

    with theirs, trio.fail_after(10):
        assert await reads(large) > 1
        assert await reads(large) == 1
        assert await reads(small) == 1
        assert await reads(large) == 1
        theirs.sendall(many)
        assert len(await connection.receive() or ()) * len(small) == len(many)
        theirs.sendall(many)
        assert len(await connection.receive() or ()) * len(small) <= READ_BYTES
    await stream.aclose()
