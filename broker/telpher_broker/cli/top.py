"""`telpher top`: the channels of a running broker, with their rates, again and again."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from telpher_broker.escape import escape

from .network import url_option, with_bus
from .parameters import Whole

if TYPE_CHECKING:
    from rich.table import Table

    from telpher import Bus
    from telpher.admin import ChannelInfo


class _Sample(NamedTuple):
    """The channels at one moment, in seconds."""

    at: float
    channels: dict[str, ChannelInfo]


class _Rates(NamedTuple):
    """Messages a second of one channel, in and out."""

    published: float
    settled: float


@click.command()
@click.option("--interval", default=1.0, type=click.FloatRange(0.05), help="Seconds between looks.")
@click.option("-n", "--count", type=Whole(1), help="Stop after so many looks.")
@click.option("--limit", default=30, type=Whole(1), help="How many channels to show.")
@url_option
def top(interval: float, count: int | None, limit: int, url: str | None) -> None:
    """Watch the busiest channels: what comes in, what is settled, what waits. Ctrl-C ends."""
    with_bus(url, lambda bus: _watch(bus, interval, count, limit))


async def _watch(bus: Bus, interval: float, count: int | None, limit: int) -> None:
    import trio
    from rich.console import Console
    from rich.live import Live

    console = Console()
    live = Live(console=console, auto_refresh=False)
    before = await _sample(bus)
    with live if console.is_terminal else nullcontext():
        looks = 0
        while count is None or looks < count:
            await trio.sleep(interval)
            now = await _sample(bus)
            table = _table(before, now, limit, await bus.stats())
            if console.is_terminal:
                live.update(table, refresh=True)
            else:
                console.print(table)
            before = now
            looks += 1


async def _sample(bus: Bus) -> _Sample:
    found = {channel.name: channel async for channel in bus.channels()}
    return _Sample(time.monotonic(), found)


def rates(before: _Sample, now: _Sample) -> dict[str, _Rates]:
    """For each channel that is there now; a queue's messages are settled when they leave it."""
    seconds = max(now.at - before.at, 1e-9)
    found = {}
    for name, channel in now.channels.items():
        then = before.channels.get(name, channel)
        published = max(channel.next - then.next, 0)
        settled = max(published - _waiting(channel) + _waiting(then), 0)
        found[name] = _Rates(published / seconds, settled / seconds)
    return found


def _waiting(channel: ChannelInfo) -> int:
    """Messages not settled yet; of a topic, by its slowest subscription."""
    rows = channel.subscriptions
    return max((row.ready + row.delayed + row.leased for row in rows), default=0)


def _table(before: _Sample, now: _Sample, limit: int, stats: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    found = rates(before, now)
    busiest = sorted(found, key=lambda name: (-sum(found[name]), name))[:limit]
    connections = stats.get("connections", "?")
    title = f"channels: {len(found)}  connections: {connections}{_alarms(stats)}"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("channel")
    for name in ("in/s", "settled/s", "ready", "delayed", "leased", "consumers", "bytes"):
        table.add_column(name, justify="right")
    for name in busiest:
        channel = now.channels[name]
        rows = channel.subscriptions
        sums = [sum(getattr(row, field) for row in rows) for field in _SUMMED]
        figures = [*map("{:,.0f}".format, found[name]), *map("{:,}".format, sums)]
        table.add_row(Text(escape(name)), *figures, f"{channel.bytes:,}")
    return table


def _alarms(stats: dict[str, Any]) -> str:
    """Which alarms are up, and for how long."""
    return "".join(
        f"  ALARM: {name}, {alarm['alarm_seconds']:.0f} s"
        for name, alarm in stats.get("alarms", {}).items()
        if alarm["alarm"]
    )


_SUMMED = ("ready", "delayed", "leased", "consumers")
