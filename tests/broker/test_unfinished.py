"""Frames that nobody finishes share one budget, and who holds the most for the longest goes."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from telpher.protocol import frames as f
from telpher.protocol.codec import LENGTH, encode
from telpher_broker.unfinished import Unfinished

from .harness import Peer, batch, house

KIB = 1024


class Holder:
    """What the budget looks at of a connection."""

    def __init__(self, size: int, is_member: bool) -> None:
        self.unfinished_bytes = size
        self.is_member = is_member


def holder(size: int, *, is_member: bool = True) -> Any:
    return Holder(size, is_member)


def test_at_the_budget_all_stay_and_one_past_it_somebody_goes() -> None:
    unfinished, one, other = Unfinished(800), holder(500), holder(300)
    assert unfinished.note(one, 1.0) == []
    assert unfinished.note(other, 2.0) == []
    other.unfinished_bytes = 301
    assert unfinished.note(other, 3.0) == [one]
    assert unfinished.bytes == 301
    assert one not in unfinished


def test_who_has_not_come_in_goes_first() -> None:
    unfinished, stranger, member = Unfinished(1000), holder(10, is_member=False), holder(700)
    assert unfinished.note(stranger, 1.0) == []
    assert unfinished.note(member, 1.0) == []
    late = holder(300)
    assert unfinished.note(late, 50.0) == [stranger, member]


def test_a_frame_that_came_whole_starts_the_count_anew() -> None:
    unfinished, busy, idle = Unfinished(1000), holder(600), holder(300)
    unfinished.note(busy, 0.0)
    unfinished.note(idle, 0.0)
    busy.unfinished_bytes = 500  # of the next frame
    unfinished.note(busy, 99.0)
    late = holder(300)
    assert unfinished.note(late, 100.0) == [idle]
    busy.unfinished_bytes = 0
    assert unfinished.note(busy, 101.0) == []
    assert busy not in unfinished
    assert unfinished.bytes == 300


def begun(size: int) -> bytes:
    """A PUBLISH of which the last byte is missing."""
    whole = encode(f.Publish(1, "jobs", None, 0, None, bytes(size)))
    return whole[:-1]


@pytest.mark.trio
async def test_a_connection_that_holds_too_much_is_closed_and_told_why() -> None:
    limits = {"input_bytes_max": 64 * KIB, "frame_bytes_max": 64 * KIB}
    async with house(message_bytes_max=32 * KIB, **limits) as running:
        hoarder, honest = await running.peer(), await running.peer()
        await hoarder.stream.send_all(begun(60 * KIB))
        await trio.testing.wait_all_tasks_blocked()
        whole = encode(f.Publish(7, "jobs", None, 0, None, batch(bytes(20 * KIB))))
        await honest.stream.send_all(whole[:-1])
        goaway = await hoarder.hear()
        assert isinstance(goaway, f.Goaway)
        assert goaway.code == "limit_reached"
        assert "input_bytes_max = 65536" in goaway.text
        with pytest.raises(EOFError):
            await hoarder.hear()
        await honest.stream.send_all(whole[-1:])
        assert isinstance(await honest.hear(), f.Confirm)


@pytest.mark.trio
async def test_a_frame_without_a_batch_is_refused_by_its_head() -> None:
    async with house() as running:
        for number, is_refused in ((15, True), (8, True), (3, False), (24, False)):
            peer: Peer = await running.peer()
            await peer.stream.send_all(LENGTH.pack(f.REQUEST_BYTES_MAX + 1) + bytes((0x98, number)))
            await trio.testing.wait_all_tasks_blocked()
            if is_refused:
                goaway = await peer.hear()
                assert isinstance(goaway, f.Goaway)
                assert goaway.code == "frame_too_large"
                assert "request_bytes_max" in goaway.text
            else:
                await peer.stream.send_all(bytes(100))
                await trio.testing.wait_all_tasks_blocked()
                assert len(running.broker._unfinished._frames) >= 1
