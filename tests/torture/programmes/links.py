"""T16: a real link that loses packets and goes down, between a daemon and its clients.

The daemon has a network namespace of its own, which a pair of virtual interfaces connects with the
clients. A twentieth of all packets is lost on the way, and they are late and out of order where the
kernel has netem. A unit is an outage: each second one is short, and TCP survives it; the others
last until both sides must have noticed. Clients of all three kinds go on through all of it, and are
judged by a history.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Final

import trio

import telpher
from tests.daemon.process import DaemonProcess, serving

from ..place import folder
from ..programme import Figures, Programme
from ..traffic import HEARTBEAT_SECONDS, KINDS, Ledger, Pair

PORT: Final = 7400
LOSS: Final = 0.05
SHORT_SECONDS: Final = (0.1, 1.5)
LONG_SECONDS: Final = 2 * HEARTBEAT_SECONDS + 1.5
NOTICED_SECONDS_MAX: Final = 2 * HEARTBEAT_SECONDS + 1.0  # of a busy machine
BETWEEN_SECONDS: Final = 1.0
_TOOLS: Final = ("ip", "iptables")


def missing() -> str | None:
    """What is not there, and what is not proven then."""
    lack = [tool for tool in _TOOLS if shutil.which(tool) is None]
    lack += [] if os.geteuid() == 0 else ["the rights of root"]
    if not lack:
        with suppress(subprocess.CalledProcessError), Net():
            return None
        lack = ["the right to make network namespaces"]
    return (
        f"there is no {', no '.join(lack)}: how clients do on a real link that loses packets and "
        "goes down is not proven, only what a proxy can do to them (programme proxy)"
    )


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Net:
    """A namespace `name`, reached at `address` over a link that can be taken down."""

    def __init__(self) -> None:
        self.name = f"telpher-{os.getpid()}"
        self._here, self._there = f"tp{os.getpid()}a"[-15:], f"tp{os.getpid()}b"[-15:]
        subnet = f"10.213.{os.getpid() % 250}"
        self.address = f"{subnet}.2"
        self._here_address = f"{subnet}.1"
        self.weather = "loss"

    def __enter__(self) -> Net:
        _do("ip", "netns", "add", self.name)
        try:
            self._connect()
        except subprocess.CalledProcessError:
            self.__exit__()
            raise
        return self

    def _connect(self) -> None:
        here, there = self._here, self._there
        _do("ip", "link", "add", here, "type", "veth", "peer", "name", there)
        _do("ip", "link", "set", there, "netns", self.name)
        _do("ip", "addr", "add", f"{self._here_address}/24", "dev", here)
        _do("ip", "link", "set", here, "up")
        self.inside("ip", "addr", "add", f"{self.address}/24", "dev", there)
        self.inside("ip", "link", "set", there, "up")
        self.inside("ip", "link", "set", "lo", "up")
        for chain in ("INPUT", "OUTPUT"):
            lossy = ("-m", "statistic", "--mode", "random", "--probability", str(LOSS))
            self.inside("iptables", "-A", chain, *lossy, "-j", "DROP")
        with suppress(subprocess.CalledProcessError, FileNotFoundError):
            netem = ("netem", "delay", "10ms", "5ms", "reorder", "20%")
            _do("tc", "qdisc", "add", "dev", here, "root", *netem)
            self.weather = "loss, delay and reordering"

    def inside(self, *command: str) -> None:
        """Run a command in the namespace."""
        _do("ip", "netns", "exec", self.name, *command)

    def down(self) -> None:
        """Nothing passes any more, in either direction."""
        self.inside("ip", "link", "set", self._there, "down")

    def up(self) -> None:
        """The link is there again."""
        self.inside("ip", "link", "set", self._there, "up")

    def __exit__(self, *_: object) -> None:
        for command in (("link", "del", self._here), ("netns", "del", self.name)):
            subprocess.run(("ip", *command), check=False, capture_output=True)


@contextmanager
def _serving(net: Net, place: Path) -> Iterator[DaemonProcess]:
    flags = ("--listen", f"{net.address}:{PORT}", "--insecure-listen")
    with serving(place, *flags, tracer=("ip", "netns", "exec", net.name)) as daemon:
        yield daemon


def run(size: int, seed: int) -> Figures:
    """So many outages."""
    with (
        folder() as place,
        Net() as net,
        _serving(net, place) as daemon,
    ):
        return trio.run(_run, net, daemon, size, random.Random(seed))


async def _run(net: Net, daemon: DaemonProcess, size: int, rng: random.Random) -> Figures:
    ledger, stop, violations = Ledger(), threading.Event(), list[str]()
    pairs = [Pair(kind, kind, ledger, random.Random(rng.random()), stop) for kind in KINDS]
    with ledger.open() as history:
        for pair in pairs:
            history.reads(pair.name)
    url = f"telpher://{net.address}:{PORT}"
    noticed: dict[str, list[float]] = {"client": [], "broker": []}
    back: list[float] = []
    async with trio.open_nursery() as nursery:
        for pair in pairs:
            nursery.start_soon(pair.run, url, url)
        async with telpher.connect(daemon.unix_url) as control:
            for number in range(size):
                await trio.sleep(BETWEEN_SECONDS)
                if number % 2:
                    await _short_outage(net, rng)
                else:
                    back.append(await _long_outage(net, url, control, noticed, len(back) + 1))
        stop.set()
    violations += [str(finding) for finding in ledger.end()]
    for side, times in noticed.items():
        late = [seconds for seconds in times if seconds > NOTICED_SECONDS_MAX]
        violations += [f"the {side} noticed after {seconds:.2f} s" for seconds in late]
    async with telpher.connect(daemon.unix_url) as bus:
        counters = (await bus.stats())["engine"]
    sent = sum(pair.sent for pair in pairs)
    if counters["published"] != sent:
        violations.append(f"{sent} messages were sent and {counters['published']} are stored")
    counts = {
        "outages": size,
        "messages": sent,
        "batches sent again": counters["duplicates"],
        "duplicates stored": max(counters["published"] - sent, 0),
        "s at most until the client noticed": max(noticed["client"]),
        "s until the broker did": max(noticed["broker"]),
        "s at most to reconnect": max(back),
        "on the link": net.weather,
    }
    return Figures(counts, violations)


async def _short_outage(net: Net, rng: random.Random) -> None:
    net.down()
    await trio.sleep(rng.uniform(*SHORT_SECONDS))
    net.up()


async def _long_outage(
    net: Net, url: str, control: telpher.Bus, noticed: dict[str, list[float]], count: int
) -> float:
    """Both sides must notice; how long after its end a client was there again."""
    async with telpher.connect(url, heartbeat_seconds=HEARTBEAT_SECONDS) as bus:
        before = (await control.stats())["connections"]
        net.down()
        began = trio.current_time()

        async def broker() -> None:
            while (await control.stats())["connections"] > 1:  # noqa: ASYNC110 - it is counted
                await trio.sleep(0.02)
            noticed["broker"].append(trio.current_time() - began)

        async def client() -> None:
            while bus.is_connected:  # noqa: ASYNC110 - as an application looks at it
                await trio.sleep(0.01)
            noticed["client"].append(trio.current_time() - began)

        with trio.move_on_at(began + LONG_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(broker)
                nursery.start_soon(client)
            await trio.sleep_forever()
        for times in noticed.values():
            times += [inf] * (len(times) < count)
        net.up()
        ended = trio.current_time()
        while not bus.is_connected:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert before > 1
        return trio.current_time() - ended


PROGRAMME = Programme(
    name="links",
    id="T16",
    title="a link that loses packets and goes down, under clients of all three kinds",
    unit="outages",
    short=1,
    long=40,
    run=run,
    promises=("G1", "G4", "G5", "G6", "G7", "G14"),
    missing=missing,
)
