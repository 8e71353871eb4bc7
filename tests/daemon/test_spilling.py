"""More waiting than memory may hold: read back from the log, from a snapshot, and if damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import telpher
from telpher.sync import Bus, connect

from .process import DaemonProcess, serving

QUEUE = "deep"
COUNT = 40
FLAGS = ("--memory-limit", "0", "--rewrite-min-bytes", "0", "--resume-ms", "0")


def body(number: int) -> bytes:
    return b"%d:" % number + b"x" * 3000


def publish(bus: Bus, numbers: range) -> None:
    for number in numbers:
        bus.publish(QUEUE, body(number))


def in_memory(bus: Bus) -> int:
    engine: dict[str, int] = bus.stats()["engine"]
    assert engine["body_bytes"] > 0
    return engine["memory_bytes"]


def take(bus: Bus, count: int) -> list[bytes]:
    taken = []
    while len(taken) < count:
        batch = bus.fetch(QUEUE, max=count - len(taken), wait=5.0)
        taken += [message.body for message in batch]
        batch.ack()
    return taken


@pytest.mark.parametrize("mode", ["aof", "aof+rdb"])
def test_what_does_not_fit_into_memory_is_delivered_all_the_same(tmp_path: Path, mode: str) -> None:
    """From the log, from a snapshot, after a kill, and from what came after the snapshot."""
    flags = (*FLAGS, "--persistence", mode)
    expected = [body(number) for number in range(2 * COUNT)]
    with serving(tmp_path, *flags) as daemon:
        with connect(daemon.url) as bus:
            publish(bus, range(COUNT))
            assert in_memory(bus) == 0
            assert take(bus, 5) == expected[:5]
            bus.snapshot()
            assert take(bus, 5) == expected[5:10]
            publish(bus, range(COUNT, 2 * COUNT))
            assert take(bus, 5) == expected[10:15]
        daemon.kill()
    with serving(tmp_path, *flags) as daemon, connect(daemon.url) as bus:
        assert in_memory(bus) == 0
        assert take(bus, 5) == expected[15:20]
        bus.snapshot()
        bus.snapshot()
        assert take(bus, 2 * COUNT - 20) == expected[20:]


def test_damage_under_a_running_broker_stops_it_and_names_the_place(tmp_path: Path) -> None:
    with serving(tmp_path, *FLAGS) as daemon:
        with connect(daemon.url) as bus:
            publish(bus, range(3))
            spoil(daemon, body(1))
            assert take(bus, 1) == [body(0)]
        assert trio.run(fetch_until_it_ends, daemon) == 6
        event = daemon.events()[-1]
        assert event["level"] == "error"
        assert "telpher repair" in event["event"]


async def fetch_until_it_ends(daemon: DaemonProcess) -> int:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch, daemon.url)
        code = await trio.to_thread.run_sync(daemon.ended)
        nursery.cancel_scope.cancel()
    return code


async def fetch(url: str) -> None:
    async with telpher.connect(url) as bus:
        await bus.fetch(QUEUE, max=1, wait=5.0)


def spoil(daemon: DaemonProcess, content: bytes) -> None:
    """Flip a bit of it on the disk."""
    for path in daemon.data.iterdir():
        data = bytearray(path.read_bytes())
        at = data.find(content)
        if at >= 0:
            data[at + 1000] ^= 1
            path.write_bytes(data)
            return
    raise AssertionError("it is not on the disk")
