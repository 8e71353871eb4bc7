"""Who is let in: members up to the limit, strangers only for a while, an administrator always."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol.codec import LENGTH_BYTES, decode
from telpher.protocol.frames import Goaway
from telpher_broker.admission import UNIX_RESERVE, Admission
from telpher_broker.listeners import Listeners, Peer, accept
from telpher_broker.options import Settings
from telpher_broker.strangers import Arrival, Strangers
from telpher_broker.values import Address

pytestmark = pytest.mark.trio

pytestmark = pytest.mark.trio


class Door:
    """A listening Admission, whose peers are members as soon as they have said something."""

    def __init__(self, nursery: trio.Nursery, options: Settings) -> None:
        self.admission = Admission(nursery, self._serve, options)
        self.listeners = Listeners.bind(options)
        self.streams: list[trio.SocketStream] = []
        for listener in self.listeners.listen():
            nursery.start_soon(accept, listener, self.admission.admit)

    async def _serve(self, stream: trio.SocketStream, _peer: Peer, arrival: Arrival) -> None:
        async for data in stream:
            arrival.leave()
            await stream.send_all(data)

    async def stranger(self) -> trio.SocketStream:
        port = self.listeners.tcp[0].getsockname()[1]
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        return await self._settled(stream)

    async def unix(self) -> trio.SocketStream:
        stream = await trio.open_unix_socket(self.listeners.unix_name)
        return await self._settled(stream)

    async def member(self) -> trio.SocketStream:
        stream = await self.stranger()
        assert await lives(stream)
        return stream

    async def _settled(self, stream: trio.SocketStream) -> trio.SocketStream:
        self.streams.append(stream)
        await trio.testing.wait_all_tasks_blocked(0.01)
        return stream

    def close(self) -> None:
        self.listeners.close()
        for stream in self.streams:
            stream.socket.close()


async def lives(stream: trio.SocketStream) -> bool:
    try:
        await stream.send_all(b"hello")
        return bool(await stream.receive_some())
    except trio.BrokenResourceError:
        return False


@asynccontextmanager
async def door(directory: Path, **options: Any) -> AsyncIterator[Door]:
    listen = (Address("127.0.0.1", 0),)
    async with trio.open_nursery() as nursery:
        found = Door(nursery, Settings(listen=listen, unix_socket=directory / "s", **options))
        with closing(found):
            yield found
            nursery.cancel_scope.cancel()


async def test_one_member_too_many_is_told_so_until_there_is_room(tmp_path: Path) -> None:
    async with door(tmp_path, connections_max=2) as found:
        first, second = await found.member(), await found.member()
        third = await found.stranger()
        frame = decode(b"".join([part async for part in third])[LENGTH_BYTES:])
        assert isinstance(frame, Goaway)
        assert frame.code == "limit_reached"
        await second.aclose()
        assert await lives(await found.stranger())
        assert await lives(first)


async def test_a_full_broker_lets_an_administrator_in_by_the_unix_socket(tmp_path: Path) -> None:
    async with door(tmp_path, connections_max=1) as found:
        await found.member()
        there = [await found.unix() for _ in range(UNIX_RESERVE)]
        assert [await lives(stream) for stream in there] == [True] * UNIX_RESERVE
        one_more = await found.unix()
        assert b"connections_max" in b"".join([part async for part in one_more])


async def test_who_only_sits_there_goes_when_others_come(tmp_path: Path) -> None:
    async with door(tmp_path, strangers_per_address_max=3) as found:
        member = await found.member()
        strangers = [await found.stranger() for _ in range(5)]
        assert [await lives(stream) for stream in strangers] == [False, False, True, True, True]
        assert await lives(member)
        assert (len(found.admission.strangers), found.admission.strangers.dropped) == (0, 2)


async def test_strangers_do_not_take_the_places_of_members(tmp_path: Path) -> None:
    async with door(tmp_path, connections_max=3) as found:
        sitting = [await found.stranger() for _ in range(3)]
        members = [await found.member() for _ in range(3)]
        assert [await lives(stream) for stream in sitting] == [False] * 3
        assert [await lives(stream) for stream in members] == [True] * 3


async def test_a_hundred_thousand_addresses_are_bounded_too() -> None:
    strangers = Strangers(most=10, most_per_address=3)
    arrivals = [strangers.arrive(f"10.0.{n >> 8}.{n & 255}") for n in range(1000)]
    assert len(strangers) == 10
    assert [one.scope.cancel_called for one in arrivals] == [True] * 990 + [False] * 10
    for arrival in arrivals:
        arrival.leave()
        arrival.leave()
    assert len(strangers) == 0
    assert not strangers._by_address


async def test_whoever_comes_and_goes_the_bounds_hold_and_the_newest_stays() -> None:
    @settings(deadline=None, derandomize=True, max_examples=100)
    @given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
    def law(visits: list[tuple[str, bool]]) -> None:
        strangers, there = Strangers(4, 2), []
        for address, is_welcome in visits:
            newest = strangers.arrive(address)
            there.append(newest)
            assert not newest.scope.cancel_called
            waiting = [one for one in there if one._strangers is not None]
            assert len(strangers) == len(waiting) <= 4
            assert sum(one.address == address for one in waiting) <= 2
            if is_welcome:
                waiting[0].leave()
                assert not waiting[0].scope.cancel_called

    law()
