"""The broker leaves no cyclic garbage, so that the collector need not make full passes."""

from __future__ import annotations

import gc
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from telpher.protocol import frames as f

from .harness import MEMORY, House, Peer, batch, house


@contextmanager
def collecting(found: Counter[str]) -> Iterator[None]:
    """What only the collector could free, by type, of what was made in the block."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        found.update(type(item).__name__ for item in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def converse(stream: trio.SocketStream, end: str) -> None:
    """Publish, consume, settle, delete; and end in one of the ways in which connections end."""
    peer = Peer(stream)
    if end != "unwelcome":
        await peer.open()
        await peer.ask(f.Consume(1, "jobs", None, {"prefetch": 10}))
        await peer.say(f.Publish(2, "jobs", None, 0, None, batch(b"x")))
        heard = [await peer.hear(), await peer.hear()]
        (confirm,) = (frame for frame in heard if isinstance(frame, f.Confirm))
        await peer.ask(f.Settle(3, 1, 0, (confirm.first, confirm.first + 1), 0))
        await peer.ask(f.Call(4, "declare", {"channel": "other", "kind": "queue"}))
        await peer.ask(f.Call(5, "delete", {"channel": "other"}))
    if end == "reset":
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if end in ("unwelcome", "nonsense"):
        await stream.send_all(b"\xff" * 20)
        while await stream.receive_some():
            pass
    if end == "goodbye":
        await peer.say(f.Goodbye(6))
        assert await stream.receive_some() == b""
    await stream.aclose()


async def connect(home: House, end: str) -> None:
    ours, theirs = map(trio.socket.from_stdlib_socket, socket.socketpair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(home.broker.serve, trio.SocketStream(theirs), MEMORY)
        await converse(trio.SocketStream(ours), end)


@pytest.mark.trio
@pytest.mark.parametrize("end", ["eof", "reset", "goodbye", "nonsense", "unwelcome"])
async def test_a_connection_leaves_nothing_for_the_collector(end: str) -> None:
    found: Counter[str] = Counter()
    async with house(resume_ms=0) as home:
        for _ in range(3):
            await connect(home, end)
        with collecting(found):
            for _ in range(20):
                await connect(home, end)
    assert found == {}
