"""SIGKILL while a schedule fires each second: every second has its message, and only one."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path

import pytest
import trio

import telpher

from .process import DaemonProcess

KILLS = int(os.environ.get("TELPHER_KILLS", "4"))
SEED = int(os.environ.get("TELPHER_SEED", "1"))


@pytest.mark.trio
async def test_kills_neither_lose_a_time_nor_double_one(tmp_path: Path) -> None:
    """With `all`, what was missed between a kill and the next start comes as well."""
    rng = random.Random(SEED)
    flags = ["--rewrite-min-bytes=64KiB"]
    daemon = DaemonProcess(tmp_path, *flags).ready()
    async with telpher.connect(daemon.unix_url) as bus:
        await bus.set_schedule("beat", "* * * * * *", "beats", b"beat", catch_up="all")
        for _ in range(KILLS):
            # Around the full second, where it fires.
            await trio.sleep(rng.choice([0.2, 0.97, 1.0, 1.03]))
            daemon.kill()
            daemon = await trio.to_thread.run_sync(DaemonProcess(tmp_path, *flags).ready)
        fired = (await bus.pause_schedule("beat")).fired
        times = [message.about["scheduled_ms"] for message in await bus.fetch("beats", max=1000)]
    assert daemon.stop() == 0
    assert len(times) == fired > 0
    assert all(later - sooner == 1000 for sooner, later in pairwise(times))
