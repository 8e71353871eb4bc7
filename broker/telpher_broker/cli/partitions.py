"""The commands about partitioned channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from telpher.protocol.channel_options import PARTITIONS_MAX

from .channel_flags import channel_flags, config_of
from .channels import CHANNEL_TITLES, channel_row
from .network import json_option, url_option, with_bus
from .output import print_json, print_table
from .parameters import Whole

if TYPE_CHECKING:
    from telpher import Bus
    from telpher.admin import ChannelInfo


@click.command()
@click.argument("channel")
@click.argument("count", type=Whole(1, PARTITIONS_MAX))
@click.option("--topic", is_flag=True, help="Topics; otherwise queues.")
@channel_flags
@url_option
def partition(channel: str, count: int, topic: bool, url: str | None, **config: Any) -> None:
    """Make CHANNEL in COUNT partitions, or let it grow to so many.

    CHANNEL is published to by key. Its partitions, CHANNEL.0 and so on, all have the options that
    are given here; give them again to let it grow.
    """
    kind: Any = "topic" if topic else "queue"
    given = config_of(config)
    made = with_bus(
        url, lambda bus: bus.declare_partitioned(channel, partitions=count, kind=kind, **given)
    )
    click.echo(f"{channel} in {made.partitions} {kind}s")


@click.command()
@click.argument("channel")
@url_option
@json_option
def partitions(channel: str, url: str | None, as_json: bool) -> None:
    """List the partitions of CHANNEL."""
    found = with_bus(url, lambda bus: _partitions(bus, channel))
    if as_json:
        for part in found:
            print_json(dict(part.raw))
    else:
        print_table(CHANNEL_TITLES, map(channel_row, found))


async def _partitions(bus: Bus, channel: str) -> list[ChannelInfo]:
    return [await bus.inspect(name) for name in (await bus.partitions(channel)).names]
