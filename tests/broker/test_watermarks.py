"""Alarms over memory and disk: raised at one mark, cleared at another, told to everybody once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from telpher.protocol import frames as f
from telpher_broker import watermarks
from telpher_broker.options import MIB, Settings
from telpher_broker.resident import machine_bytes, resident_bytes
from telpher_broker.watermarks import Watermark, memory_marks
from telpher_storage import MemoryRecordsStorage, StorageStatistics

from .harness import Peer, batch, house

MARKS = {"memory_high_bytes": 800 * MIB, "memory_low_bytes": 600 * MIB}


class Machine:
    """How much memory is in use and how much disk is free, as a test says."""

    def __init__(self) -> None:
        self.resident_bytes = 100 * MIB
        self.given_back = 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(watermarks, "resident_bytes", lambda: found.resident_bytes)
    return found


class Disk(MemoryRecordsStorage):
    """A storage that says how much is free."""

    def __init__(self) -> None:
        super().__init__()
        self.free_bytes = 1000 * MIB
        self.kept_bytes = 0
        self.full_below_bytes: int | None = None
        self.room_from_bytes: int | None = None

    async def make_room(self) -> None:
        await super().make_room()
        self.free_bytes += self.kept_bytes
        self.kept_bytes = 0

    def statistics(self) -> StorageStatistics:
        return replace(
            super().statistics(),
            free_disk_bytes=self.free_bytes,
            full_below_bytes=self.full_below_bytes,
            room_from_bytes=self.room_from_bytes,
        )


def publish(request: int, body: bytes = b"x") -> f.Publish:
    return f.Publish(request, "jobs", None, 0, None, batch(body))


async def stats(peer: Peer, request: int) -> dict[str, Any]:
    reply = await peer.ask(f.Call(request, "stats", {}))
    assert isinstance(reply, f.Reply)
    found: dict[str, Any] = reply.result["alarms"]
    return found


@pytest.mark.parametrize(("raised_at", "cleared_at", "sign"), [(80, 60, 1), (20, 40, -1)])
def test_between_its_marks_an_alarm_stays_what_it_is(
    raised_at: int, cleared_at: int, sign: int
) -> None:
    mark = Watermark(raised_at, cleared_at)
    middle = (raised_at + cleared_at) // 2
    seen = []
    for figure in (middle, raised_at - sign, raised_at, middle, cleared_at + sign, cleared_at):
        mark.look(figure)
        seen.append(mark.is_raised)
    assert seen == [False, False, True, True, True, False]
    mark.look(middle)
    assert not mark.is_raised


@pytest.mark.trio
async def test_memory_that_runs_short_stops_publishes_until_it_is_clearly_enough(
    machine: Machine, capfd: pytest.CaptureFixture[str], autojump_clock: trio.abc.Clock
) -> None:
    async with house(**MARKS) as place:
        peer = await place.peer()
        await peer.ask(publish(1))
        for resident, code in ((799, ""), (800, "memory_full"), (601, "memory_full"), (600, "")):
            machine.resident_bytes = resident * MIB
            await trio.sleep(1.5)
            answer = await peer.ask(publish(2))
            assert getattr(answer, "code", "") == code, resident
            found = (await stats(peer, 3))["memory"]
            assert found["alarm"] is bool(code)
            assert found["resident_bytes"] == resident * MIB
        assert found["alarms"] == 1
        assert found["raised_at_bytes"] == 800 * MIB
    assert capfd.readouterr().err.count("memory alarm raised: publishes are refused") == 1


@pytest.mark.trio
async def test_a_refusal_says_how_much_there_is_and_what_to_do(
    machine: Machine, autojump_clock: trio.abc.Clock
) -> None:
    async with house(**MARKS) as place:
        machine.resident_bytes = 801 * MIB
        await trio.sleep(1.5)
        peer = await place.peer()
        refused = await peer.ask(publish(1))
        machine.resident_bytes = 750 * MIB
        await trio.sleep(1.5)
        later = await peer.ask(publish(2))
    assert later.text.startswith(  # type: ignore[union-attr]
        "'jobs' takes no messages now: 750 MiB of memory are in use"
    )
    assert refused.text == (  # type: ignore[union-attr]
        "'jobs' takes no messages now: 801 MiB of memory are in use, memory_high_bytes is 800 MiB; "
        "it takes some again below 600 MiB: let consumers run, or raise memory_high_bytes"
    )


@pytest.mark.trio
async def test_a_disk_that_is_full_says_what_is_free_and_from_where_on_it_is_not(
    autojump_clock: trio.abc.Clock,
) -> None:
    disk, other = Disk(), Disk()
    for one in (disk, other):
        one.full_below_bytes, one.room_from_bytes = 32 * MIB, 64 * MIB
    async with house(disk, disk_free_low_bytes=60 * MIB) as place:
        peer, texts = await place.peer(), []
        for disk.free_bytes, disk.full in ((50 * MIB, False), (20 * MIB, True), (21 * MIB, True)):
            await trio.sleep(1.5)
            texts.append((await peer.ask(publish(1))).text)  # type: ignore[union-attr]
        told = (await stats(peer, 2))["disk"]
        assert (told["raised_at_bytes"], told["cleared_at_bytes"]) == (60 * MIB, 75 * MIB)
    begin, end = "'jobs' takes no messages now: ", " on: let consumers run, or make space"
    kept = "of the disk are free, the last of it is kept for consuming (reserve_bytes)"
    assert texts == [
        f"{begin}50 MiB of the disk are free, disk_free_low_bytes is 60 MiB; it takes some again "
        f"from 75 MiB{end}",
        f"{begin}20 MiB {kept}; it takes some again from 75 MiB{end}",
        f"{begin}21 MiB {kept}; it takes some again from 75 MiB{end}",
    ]
    async with house(other) as place:
        other.full = True
        await trio.sleep(1.5)
        peer = await place.peer()
        assert "from 64 MiB on" in (await peer.ask(publish(1))).text  # type: ignore[union-attr]
        told = (await stats(peer, 2))["disk"]
        assert (told["raised_at_bytes"], told["cleared_at_bytes"]) == (32 * MIB, 64 * MIB)


@pytest.mark.trio
@pytest.mark.parametrize(("low_mib", "is_said"), [(99, True), (100, True), (101, False)])
async def test_an_alarm_that_would_never_end_is_told_at_the_start(
    machine: Machine, low_mib: int, is_said: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    async with house(memory_high_bytes=800 * MIB, memory_low_bytes=low_mib * MIB):
        pass
    text = (
        f"an empty broker takes 100 MiB already, and the alarm of memory is cleared below {low_mib}"
    )
    assert machine.resident_bytes == 100 * MIB
    assert (text in capfd.readouterr().err) is is_said


@pytest.mark.trio
async def test_who_waits_is_answered_when_the_alarm_is_cleared(
    machine: Machine, autojump_clock: trio.abc.Clock
) -> None:
    async with house(when_full="wait", **MARKS) as place:
        peer, consumer = await place.peer(), await place.peer()
        await peer.ask(publish(1))
        machine.resident_bytes = 900 * MIB
        await trio.sleep(1.5)
        await peer.say(publish(2))
        await consumer.ask(f.Consume(1, "jobs", None, {"prefetch": 5}))
        assert isinstance(await consumer.hear(), f.Deliver)
        began = trio.current_time()
        machine.resident_bytes = 100 * MIB
        assert isinstance(await peer.hear(), f.Confirm)
        assert trio.current_time() - began <= 1.0


@pytest.mark.trio
async def test_much_that_comes_at_once_is_noticed_within_the_second(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermarks.Alarms, "look", lambda _: None)  # what a second would bring
    async with house(**MARKS) as place:
        peer = await place.peer()
        machine.resident_bytes = 900 * MIB
        codes = []
        for request in range(1, 7):
            answer = await peer.ask(publish(request, bytes(4 * MIB - 100)))
            codes.append(getattr(answer, "code", "confirmed"))
        assert codes[:3] == ["confirmed"] * 3
        assert codes[-1] == "memory_full"


@pytest.mark.trio
async def test_a_disk_that_runs_short_stops_publishes_until_there_is_clearly_enough(
    autojump_clock: trio.abc.Clock,
) -> None:
    disk = Disk()
    marks = {"disk_free_low_bytes": 200 * MIB, "disk_free_high_bytes": 300 * MIB}
    async with house(disk, **marks) as place:
        peer = await place.peer()
        seen = []
        for free in (201, 200, 299, 300, 250):
            disk.free_bytes = free * MIB
            await trio.sleep(1.5)
            seen.append(getattr(await peer.ask(publish(1)), "code", ""))
        assert seen == ["", "disk_full", "disk_full", "", ""]
        disk.full = True  # the last of it, whatever the marks say
        await trio.sleep(1.5)
        assert getattr(await peer.ask(publish(1)), "code", "") == "disk_full"
        assert (await stats(peer, 2))["disk"]["alarms"] == 2


@pytest.mark.trio
async def test_room_is_made_before_the_disk_is_said_to_be_short(
    autojump_clock: trio.abc.Clock,
) -> None:
    disk = Disk()
    async with house(disk, disk_free_low_bytes=200 * MIB) as place:
        disk.free_bytes, disk.kept_bytes = 100 * MIB, 300 * MIB
        await trio.sleep(1.5)
        peer = await place.peer()
        assert (await stats(peer, 1))["disk"]["alarms"] == 0


@pytest.mark.trio
async def test_what_was_freed_is_given_back_but_not_all_the_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    """The C library keeps what is freed: an alarm would stay up over memory that nobody uses."""

    def give_back() -> None:
        machine.given_back += 1
        machine.resident_bytes = 100 * MIB

    monkeypatch.setattr(watermarks.collector, "give_back", give_back)
    async with house(**MARKS) as place:
        await trio.sleep(100.5)
        assert machine.given_back == 0
        machine.resident_bytes = 900 * MIB
        await trio.sleep(1)
        assert machine.given_back == 0  # there was no alarm before this look
        await trio.sleep(1)
        assert machine.given_back == 1
        peer = await place.peer()
        assert isinstance(await peer.ask(publish(1)), f.Confirm)


def test_the_marks_follow_from_the_machine_unless_they_are_set() -> None:
    machine = machine_bytes()
    assert machine is not None
    assert memory_marks(Settings()) == (int(machine * 0.6), int(int(machine * 0.6) * 0.8))
    high = {"memory_high_bytes": 1000}
    assert memory_marks(Settings(**high)) == (1000, 800)
    assert memory_marks(Settings(**high, memory_low_bytes=500)) == (1000, 500)


def test_resident_memory_grows_with_what_is_kept() -> None:
    before = resident_bytes()
    kept = bytearray(b"x") * (64 * MIB)
    after = resident_bytes()
    assert before is not None
    assert after is not None
    assert after - before > 0.9 * len(kept)
