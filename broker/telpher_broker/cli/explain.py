"""`telpher explain CHANNEL OFFSET`: where one message is, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from telpher_broker.escape import escape

from .network import json_option, url_option, with_bus
from .output import local_time, print_json
from .parameters import Whole

if TYPE_CHECKING:
    from telpher.admin.explain import Explanation


@click.command()
@click.argument("channel")
@click.argument("offset", type=Whole(0))
@url_option
@json_option
def explain(channel: str, offset: int, url: str | None, as_json: bool) -> None:
    """Say where the message at OFFSET of CHANNEL is, and why, for each subscription.

    It is ready behind others, delayed, leased to a consumer, expired, a dead letter, or settled.
    When something was settled the broker remembers for a while, and not over its restart.
    """
    told = with_bus(url, lambda bus: bus.explain(channel, offset))
    if as_json:
        print_json(dict(told.raw))
    else:
        _show(told)


def _show(told: Explanation) -> None:
    published = "" if told.published_at is None else f", published {local_time(told.published_at)}"
    click.echo(escape(f"{told.channel} {told.offset}: {told.text}{published}"))
    for one in told.standings:
        name = f"subscription {one.subscription}: " if one.subscription else ""
        where, error = one.raw.get("dead_letter"), one.raw.get("last_error")
        more = f", in {where}" if where else f"; it failed last by: {error}" if error else ""
        click.echo(escape(f"  {name}{one.text}{more}"))
