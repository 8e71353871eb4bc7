"""One connection over a real socket: what is said comes out whole and in order, however slowly."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing

from telpher.protocol import frames as f
from telpher.protocol.connection import Connection, Role
from telpher_broker.connection import FRAMES_AT_ONCE, READ_BYTES, ClientConnection
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
    async with open_pair() as (connection, client, theirs):
        large = client.send(f.Publish(1, "orders", None, 0, None, bytes(2 * READ_BYTES)))
        small = client.send(f.Settle(2, 1, 0, (0, 1), 0))
        counts = []
        for sent in (large, large, small, large):
            theirs.sendall(sent)
            count = 1
            while not await connection.receive():
                count += 1
            counts.append(count)
    assert counts[0] > 1
    assert counts[1:] == [1, 1, 1]


async def test_others_have_their_turn_between_the_many_small_frames_of_a_read() -> None:
    turns: list[int] = []

    async def another(count: list[int]) -> None:
        while True:
            turns.append(sum(count))
            await trio.lowlevel.checkpoint()

    async with open_pair() as (connection, client, theirs), trio.open_nursery() as nursery:
        large = client.send(f.Publish(1, "orders", None, 0, None, bytes(2 * READ_BYTES)))
        theirs.sendall(large)
        while not await connection.receive():
            pass
        requests = range(2, 10_002)
        theirs.sendall(b"".join(client.send(f.Ping(request)) for request in requests))
        heard: list[int] = []
        counts: list[int] = []
        nursery.start_soon(another, counts)
        while len(heard) < len(requests):
            frames = await connection.receive() or ()
            counts.append(len(frames))
            heard += [frame.request for frame in frames]
        nursery.cancel_scope.cancel()
    assert heard == list(requests)
    steps = [after - before for before, after in pairwise(turns)]
    # Of two turns one may be before, and the next behind, what the connection has its turn for.
    assert 0 < max(steps) <= 2 * FRAMES_AT_ONCE


@asynccontextmanager
async def open_pair() -> AsyncIterator[tuple[ClientConnection, Connection, socket.socket]]:
    """A connection whose session is open, the client's protocol, and the client's socket."""
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    output = Output(1 << 30)
    connection = ClientConnection(1, stream, Peer("test"), 1 << 20, 5000, lambda *_: None, output)
    client = Connection(Role.CLIENT, 1 << 24)
    connection.protocol.receive_data(client.send(f.Hello(0, (1,), "test", {})))
    client.receive_data(connection.protocol.send(f.Welcome(0, 1, "test", {})))
    with theirs, trio.fail_after(10):
        yield connection, client, theirs
    await stream.aclose()


class Clogged(trio.abc.Stream):
    """A peer that takes nothing until it is closed, and then at once."""

    def __init__(self) -> None:
        self._closed = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._closed.wait()

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise NotImplementedError

    async def aclose(self) -> None:
        self._closed.set()
        await trio.lowlevel.checkpoint()


async def test_what_leaves_while_the_connection_is_closed_is_counted_once() -> None:
    """Which task goes first is drawn by trio: so it is tried until it has been both."""
    for _ in range(20):
        output = Output(100)
        connection = ClientConnection(
            1, Clogged(), Peer("test"), 1 << 20, 5000, lambda *_: None, output
        )
        connection.dismiss("draining", "x" * 1000)
        assert output.is_full
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.drain)
            await trio.testing.wait_all_tasks_blocked()
            connection.break_off()
            await connection.close()
            nursery.cancel_scope.cancel()
        assert output.bytes == 0
