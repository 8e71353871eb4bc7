"""SIGKILL of the broker while an exchange, a pattern and a filter share out what is published.

Each number reaches each queue and each subscription that it belongs to, once and in order, whatever
is killed and when. `TELPHER_KILLS` and `TELPHER_SEED` make the run longer and repeatable.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import trio

import telpher

from .process import DaemonProcess

KILLS = int(os.environ.get("TELPHER_KILLS", "4"))
SEED = int(os.environ.get("TELPHER_SEED", "1"))
KEYS = ("eu.paid", "us.paid", "eu.open", "us.open")


async def _prepare(bus: telpher.Bus) -> None:
    for queue in ("paid", "all"):
        await bus.declare(queue)
    await bus.declare_exchange("orders", "topic")
    await bus.bind("orders", "paid", "*.paid")
    await bus.bind("orders", "all", "#")
    for region in ("eu", "us"):
        await bus.declare_topic(f"orders.{region}")
        await bus.bind("orders", f"orders.{region}", f"{region}.#")
    await bus.create_subscription("orders.*", "every")
    await bus.create_subscription("orders.*", "odd", filter={"odd": True})


async def _send(bus: telpher.Bus, first: int, count: int) -> None:
    async with bus.producer("orders", batch_messages=20) as producer:
        for number in range(first, first + count):
            await producer.send(
                b"%d" % number, key=KEYS[number % 4], headers={"odd": bool(number % 2)}
            )
            if number % 50 == 0:
                await trio.lowlevel.checkpoint()


async def _numbers(bus: telpher.Bus, channel: str, subscription: str | None = None) -> list[int]:
    numbers: list[int] = []
    while batch := await bus.fetch(channel, max=1000, subscription=subscription):
        numbers += map(int, batch.bodies)
        await batch.ack()
    return numbers


@pytest.mark.trio
async def test_each_number_gets_where_it_belongs_once_and_in_order(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    flags = ["--rewrite-min-bytes=64KiB"]
    daemon = DaemonProcess(tmp_path, *flags).ready()
    sent = 0
    try:
        async with telpher.connect(daemon.unix_url) as bus:
            await _prepare(bus)
            for _ in range(KILLS):
                count = rng.randint(500, 1500)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_send, bus, sent, count)
                    await trio.sleep(rng.uniform(0, 0.05))  # when to kill, at random
                    daemon.kill()
                    daemon = await trio.to_thread.run_sync(DaemonProcess(tmp_path, *flags).ready)
                sent += count
            everything = list(range(sent))
            assert await _numbers(bus, "all") == everything
            assert await _numbers(bus, "paid") == [n for n in everything if n % 4 < 2]
            assert await _numbers(bus, "orders.*", "every") == everything
            assert await _numbers(bus, "orders.*", "odd") == everything[1::2]
    finally:
        daemon.kill()
