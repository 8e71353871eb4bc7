"""SIGKILL of the broker and of the worker while it consumes and publishes by transactions.

Each number that is put into one queue comes out of another exactly once, whatever is killed and
when. `TELPHER_KILLS` and `TELPHER_SEED` make the run longer and repeatable.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import telpher

from .process import DaemonProcess, environment

KILLS = int(os.environ.get("TELPHER_KILLS", "3"))
SEED = int(os.environ.get("TELPHER_SEED", "1"))
SOURCE, TARGET, ODD = "in", "out", "out.odd"

WORKER = f"""
import sys, trio, telpher

async def move(messages, bus):
    async for message in messages:
        async with message, bus.transaction() as work:
            work.publish({TARGET!r}, message.body)
            if int(message.body) % 2:
                work.publish({ODD!r}, message.body)
            work.ack(message)

async def main():
    async with telpher.connect(sys.argv[1]) as bus:
        async with bus.consume({SOURCE!r}, prefetch=50) as messages:
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(move, messages, bus)

trio.run(main)
"""


class Worker:
    """A process that moves numbers from one queue to two others."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", WORKER, url], env=environment())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


async def _wait_for(bus: telpher.Bus, channel: str, least: int, most: int) -> None:
    """Until a queue holds so many messages."""
    with trio.fail_after(60):
        while not least <= (await bus.inspect(channel)).messages <= most:  # noqa: ASYNC110
            await trio.sleep(0.01)  # what is waited for is done by another process


async def _numbers(bus: telpher.Bus, channel: str) -> list[int]:
    numbers: list[int] = []
    while batch := await bus.fetch(channel, max=1000):
        numbers += map(int, batch.bodies)
        await batch.ack()
    return numbers


async def _run(tmp_path: Path, fsync: str, rng: random.Random) -> tuple[int, list[int], list[int]]:
    """How many numbers were put in, and those that came out."""
    flags = ["--fsync", fsync, "--rewrite-min-bytes=64KiB"]
    daemon = DaemonProcess(tmp_path, *flags).ready()
    worker = Worker(daemon.unix_url)
    sent = 0
    try:
        async with telpher.connect(daemon.unix_url) as bus:
            await bus.declare(TARGET)
            for _ in range(KILLS):
                count = rng.randint(50, 300)
                async with bus.producer(SOURCE) as producer:
                    await producer.send_many([b"%d" % (sent + index) for index in range(count)])
                await _wait_for(bus, TARGET, sent + rng.randint(1, count), sent + count)
                sent += count
                if rng.random() < 0.5:
                    daemon.kill()
                    daemon = await trio.to_thread.run_sync(DaemonProcess(tmp_path, *flags).ready)
                else:
                    worker.kill()
                    worker = Worker(daemon.unix_url)
            await _wait_for(bus, TARGET, sent, sent)
            await _wait_for(bus, SOURCE, 0, 0)
            return sent, await _numbers(bus, TARGET), await _numbers(bus, ODD)
    finally:
        worker.kill()
        daemon.kill()


@pytest.mark.trio
@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_each_number_comes_out_exactly_once(tmp_path: Path, fsync: str) -> None:
    sent, moved, odd = await _run(tmp_path, fsync, random.Random(f"{SEED} {fsync}"))
    print(f"{KILLS} kills, {sent} numbers, {len(moved) - sent} more or less")
    assert sorted(moved) == list(range(sent))
    assert sorted(odd) == list(range(1, sent, 2))
