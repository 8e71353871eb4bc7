"""One connection over a real socket: what is said comes out whole and in order, however slowly."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from telpher.protocol import frames as f
from telpher.protocol.connection import Connection, Role
from telpher_broker.connection import ClientConnection
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
