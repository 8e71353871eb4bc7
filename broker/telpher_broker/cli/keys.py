"""`telpher keys`: which keys of a channel with key order have the most to do."""

from __future__ import annotations

import click

from telpher.admin.keys import KeyInfo

from .network import json_option, url_option, with_bus
from .output import local_time, print_json, print_table
from .parameters import Whole


@click.command()
@click.argument("channel")
@click.option("--subscription", metavar="NAME", help="Of a topic: which one.")
@click.option("-n", "--count", type=Whole(1, 1000), default=20, show_default=True)
@url_option
@json_option
def keys(
    channel: str, subscription: str | None, count: int, url: str | None, as_json: bool
) -> None:
    """List the keys of CHANNEL that have most messages, which needs key order.

    Messages without a key are one row, with `-` for the key.
    """
    rows = with_bus(url, lambda bus: bus.keys(channel, subscription=subscription, count=count))
    if as_json:
        for row in rows:
            print_json(row._asdict())
    else:
        names = ("key", "ready", "delayed", "in flight", "weight", "next")
        print_table(names, map(_cells, rows))


def _cells(row: KeyInfo) -> tuple[object, ...]:
    next_at = None if row.next_at is None else local_time(row.next_at)
    return *row[:5], next_at
