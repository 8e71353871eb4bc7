"""T16: connections that are late, torn, cut, reset and silent, under clients that go on working.

A unit is a trouble: the end of one connection at a proxy between a client and a real daemon
(weather.py). One in four is a silence, which each side must notice by itself within two heartbeats
of 5 s; the clock of that begins when the proxy stops passing on. Clients of all three kinds go on
through all of it and are judged by a history; beside, the broker may have stored no more than was
sent.
"""

from __future__ import annotations

import random
import threading
from math import inf
from typing import Any, Final

import trio

import telpher
from tests.daemon.process import DaemonProcess, serving

from ..place import folder
from ..programme import Figures, Programme
from ..traffic import HEARTBEAT_SECONDS, KINDS, Ledger, Pair
from ..weather import DEAF, MUTE, SILENT, SLOW_ENDS, Link, fates

PAIRS: Final = 6
DETECTED_SECONDS_MAX: Final = 2 * HEARTBEAT_SECONDS + 1.0  # of a busy machine


def run(size: int, seed: int) -> Figures:
    """So many troubles, shared out among the connections of all pairs."""
    with folder() as place, serving(place) as daemon:
        return trio.run(_run, daemon, size, seed)


async def _run(daemon: DaemonProcess, size: int, seed: int) -> Figures:
    ledger, stop = Ledger(), threading.Event()
    pairs = [
        Pair(f"{kind}-{n}", kind, ledger, random.Random(f"{seed} {kind} {n}"), stop)
        for n in range(PAIRS // len(KINDS))
        for kind in KINDS
    ]
    with ledger.open() as history:
        for pair in pairs:
            history.reads(pair.name)
    links = _links(daemon, pairs, size, seed)
    async with trio.open_nursery() as nursery:
        for link in links:
            await nursery.start(link.run)
        async with trio.open_nursery() as clients:
            for index, pair in enumerate(pairs):
                clients.start_soon(pair.run, links[2 * index].url, links[2 * index + 1].url)
            clients.start_soon(_stop_when_calm, links, stop)
        with trio.move_on_after(DETECTED_SECONDS_MAX):
            await _all_over(links)
        counters = await _counters(daemon)
        nursery.cancel_scope.cancel()
    return _judge(ledger, pairs, links, counters)


def _links(daemon: DaemonProcess, pairs: list[Pair], size: int, seed: int) -> list[Link]:
    names = [f"{pair.name} {side}" for pair in pairs for side in ("publisher", "consumer")]
    rng = random.Random(seed)
    shares = [size // len(names) + (index < size % len(names)) for index in range(len(names))]
    rng.shuffle(shares)
    return [
        Link(name, daemon.tcp, fates(random.Random(f"{seed} {name}"), share, first_slow=index % 4))
        for index, (name, share) in enumerate(zip(names, shares, strict=True))
    ]


async def _stop_when_calm(links: list[Link], stop: threading.Event) -> None:
    """Let the publishers stop when all that was fated has happened."""
    for link in links:
        await link.calm.wait()
    stop.set()


async def _all_over(links: list[Link]) -> None:
    """Wait until both sides of each connection that was struck have left."""
    for link in links:
        for passage in link.passages:
            if passage.struck is not None:
                await passage.over.wait()


async def _counters(daemon: DaemonProcess) -> dict[str, Any]:
    async with telpher.connect(daemon.unix_url) as bus:
        counters: dict[str, Any] = (await bus.stats())["engine"]
        return counters


def _judge(
    ledger: Ledger, pairs: list[Pair], links: list[Link], counters: dict[str, Any]
) -> Figures:
    violations = [str(finding) for finding in ledger.end()]
    sent = sum(pair.sent for pair in pairs)
    surplus = counters["published"] - sent
    if surplus:
        violations.append(f"{sent} messages were sent and {counters['published']} are stored")
    client, daemon = _detected(links, "client"), _detected(links, "daemon")
    for side, found in (("client", client), ("daemon", daemon)):
        violations += [
            f"the {side} of {name} noticed a silence after {seconds:.2f} s"
            for name, seconds in found
            if seconds > DETECTED_SECONDS_MAX
        ]
    struck = [p for link in links for p in link.passages if p.struck is not None]
    reconnects = sorted(seconds for link in links for seconds in link.reconnect_seconds)
    counts = {
        "troubles": len(struck),
        "messages": sent,
        "batches sent again": counters["duplicates"],
        "duplicates stored": max(surplus, 0),
        "lost": max(-surplus, 0),
        "silences": sum(passage.fate.end in SLOW_ENDS for passage in struck),
        "s at most until the client noticed": max((s for _, s in client), default=0.0),
        "s until the broker did": max((s for _, s in daemon), default=0.0),
        "s median to reconnect": reconnects[len(reconnects) // 2] if reconnects else 0.0,
        "s at most": reconnects[-1] if reconnects else 0.0,
    }
    return Figures(counts, violations)


def _detected(links: list[Link], side: str) -> list[tuple[str, float]]:
    """How long each side that heard nothing any more took to leave; for ever if it did not."""
    deaf = (SILENT, DEAF) if side == "client" else (SILENT, MUTE)
    found = []
    for link in links:
        for passage in link.passages:
            if passage.fate.end in deaf and passage.struck is not None:
                left = passage.client_left if side == "client" else passage.daemon_left
                found.append((link.name, inf if left is None else left - passage.struck))
    return found


PROGRAMME = Programme(
    name="proxy",
    id="T16",
    title="connections late, torn, cut, reset and silent, under clients of all three kinds",
    unit="troubles",
    short=12,
    long=2400,
    run=run,
    promises=("G1", "G4", "G5", "G6", "G7", "G14"),
)
