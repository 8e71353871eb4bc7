"""SIGKILL at random instants under load: what was confirmed is delivered, what was settled is not.

The clients live in this process and survive every kill, so they are the ledger of what the daemon
said. `TELPHER_KILLS` and `TELPHER_SEED` make the run longer and repeatable.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress
from pathlib import Path

import pytest
import trio

import telpher

from .process import DaemonProcess

KILLS = int(os.environ.get("TELPHER_KILLS", "3"))
SEED = int(os.environ.get("TELPHER_SEED", "1"))
QUEUE = "ledger"


class Ledger:
    """What was said, and the faults found by it."""

    def __init__(self) -> None:
        self.sent = 0
        self.confirmed: set[int] = set()
        self.settled: set[int] = set()
        self.delivered: dict[int, int] = {}
        self.first_deliveries: set[int] = set()
        self.faults: list[str] = []
        self._kill_at = 0
        self._time_to_kill = trio.Event()

    def confirm(self, number: int) -> None:
        """Note a confirm."""
        self.confirmed.add(number)
        if len(self.confirmed) >= self._kill_at:
            self._time_to_kill.set()

    async def confirms(self, count: int) -> None:
        """Wait for so many more confirms."""
        self._kill_at = len(self.confirmed) + count
        self._time_to_kill = trio.Event()
        await self._time_to_kill.wait()

    def receive(self, message: telpher.Message) -> int:
        """Note a delivery and judge it."""
        number = int(message.body.partition(b".")[0])
        if number >= self.sent:
            self.faults.append(f"{number} was never sent")
        if number in self.settled:
            self.faults.append(f"{number} was settled and came again")
        if self.delivered.setdefault(number, message.offset) != message.offset:
            self.faults.append(f"{number} was stored twice")
        elif not message.redelivered and number in self.first_deliveries:
            self.faults.append(f"{number} came again and is not marked")
        if not message.redelivered:
            self.first_deliveries.add(number)
        return number


async def _publish(bus: telpher.Bus, ledger: Ledger, rng: random.Random) -> None:
    async def one(number: int) -> None:
        await bus.publish(QUEUE, b"%d" % number + b"." * rng.choice([1, 100, 10_000]))
        ledger.confirm(number)

    while True:
        async with trio.open_nursery() as nursery:
            for _ in range(rng.randint(1, 50)):
                nursery.start_soon(one, ledger.sent)
                ledger.sent += 1


async def _consume(bus: telpher.Bus, ledger: Ledger, rng: random.Random) -> None:
    async with bus.consume(QUEUE, prefetch=100) as messages:
        async for message in messages:
            number = ledger.receive(message)
            choice = rng.random()
            if choice < 0.05:
                message.nack(delay=rng.choice([0.0, 0.1]))
            elif choice < 0.1:
                with suppress(telpher.LeaseLost):
                    await message.ack()
                    ledger.settled.add(number)
            else:
                message.ack()


async def _rest(bus: telpher.Bus, ledger: Ledger) -> None:
    """Consume what is left until nothing comes for longer than any delay or grace."""
    while len(batch := await bus.fetch(QUEUE, max=1000, wait=2.0)):
        for message in batch:
            ledger.receive(message)
        await batch.ack()


@pytest.mark.trio
@pytest.mark.parametrize(
    ("fsync", "options"),
    [("everysec", ["--rewrite-min-bytes=64KiB"]), ("always", ["--persistence=aof"])],
)
async def test_kills_lose_nothing_and_settle_nothing_twice(
    tmp_path: Path, fsync: str, options: list[str]
) -> None:
    rng = random.Random(f"{SEED} {fsync}")
    ledger = Ledger()
    flags = ["--fsync", fsync, *options]
    daemon = DaemonProcess(tmp_path, *flags).ready()
    url = daemon.unix_url
    async with telpher.connect(url) as first, telpher.connect(url) as second:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_publish, first, ledger, rng)
            nursery.start_soon(_consume, first, ledger, rng)
            nursery.start_soon(_consume, second, ledger, rng)
            for _ in range(KILLS):
                await ledger.confirms(rng.randint(1, 500))
                daemon.kill()
                daemon = await trio.to_thread.run_sync(DaemonProcess(tmp_path, *flags).ready)
            nursery.cancel_scope.cancel()
        await _rest(first, ledger)
    assert daemon.stop() == 0
    lost = ledger.confirmed - ledger.delivered.keys()
    print(
        f"{KILLS} kills, {len(ledger.confirmed)} confirmed, {len(lost)} lost, {ledger.faults[:3]}"
    )
    assert ledger.confirmed
    assert not lost
    assert not ledger.faults
