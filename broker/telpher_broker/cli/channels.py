"""The commands about channels and their subscriptions."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from .network import json_option, url_option, with_bus
from .output import print_json, print_table
from .parameters import SECONDS, SIZE, START

if TYPE_CHECKING:
    from telpher import Bus
    from telpher.admin import ChannelInfo

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command()
@click.argument("prefix", default="")
@url_option
@json_option
def channels(prefix: str, url: str | None, as_json: bool) -> None:
    """List the channels whose names begin with PREFIX."""
    found = with_bus(url, lambda bus: _channels(bus, prefix))
    if as_json:
        for channel in found:
            print_json(dict(channel.raw))
    else:
        titles = ("name", "kind", "messages", "bytes", "ready", "leased", "subscriptions")
        print_table(titles, map(_channel_row, found))


async def _channels(bus: Bus, prefix: str) -> list[ChannelInfo]:
    return [channel async for channel in bus.channels(prefix)]


def _channel_row(channel: ChannelInfo) -> tuple[object, ...]:
    is_queue = channel.kind == "queue"
    ready = sum(row.ready for row in channel.subscriptions)
    leased = sum(row.leased for row in channel.subscriptions)
    count = None if is_queue else len(channel.subscriptions)
    return channel.name, channel.kind, channel.messages, channel.bytes, ready, leased, count


@click.command()
@click.argument("channel")
@url_option
@json_option
def subscriptions(channel: str, url: str | None, as_json: bool) -> None:
    """List the subscriptions of CHANNEL. A queue has one, without a name."""
    found = with_bus(url, lambda bus: bus.inspect(channel)).subscriptions
    if as_json:
        for row in found:
            print_json(dict(row.raw))
    else:
        titles = ("name", "durable", "ready", "delayed", "leased", "consumers", "next", "missed")
        print_table(titles, ([getattr(row, title) for title in titles] for row in found))


@click.command()
@click.argument("channel")
@click.option("--topic", is_flag=True, help="A topic; otherwise a queue.")
@click.option(
    "--subscription", metavar="NAME", help="Make a durable subscription of the topic too."
)
@click.option("--start", type=START, default="latest", help="Where a new subscription begins.")
@click.option("--retain-seconds", type=SECONDS, help="Keep for replay for so long.")
@click.option("--retain-bytes", type=SIZE, help="Keep so much for replay.")
@click.option("--retain-count", type=click.IntRange(0), help="Keep so many messages for replay.")
@click.option("--limit-seconds", type=SECONDS, help="Drop what is older, read or not.")
@click.option("--limit-bytes", type=SIZE, help="Drop the oldest beyond this, read or not.")
@click.option("--limit-count", type=click.IntRange(1), help="Drop the oldest beyond this many.")
@url_option
def declare(
    channel: str,
    topic: bool,
    subscription: str | None,
    start: str | int | datetime,
    url: str | None,
    **config: Any,
) -> None:
    """Make CHANNEL, or check that it exists with this kind and configuration.

    Retention and limits are for topics; times and sizes may have units: 7d, 1GiB.
    """
    given = {
        name: int(value) if name.endswith("_seconds") else value
        for name, value in config.items()
        if value is not None
    }
    if not topic and (given or subscription is not None):
        raise click.UsageError("retention, limits and subscriptions are for topics: give --topic")

    async def work(bus: Bus) -> None:
        make = bus.declare_topic if topic else bus.declare
        await make(channel, **given)
        if subscription is not None:
            await bus.create_subscription(channel, subscription, start=start)

    with_bus(url, work)
    click.echo(f"{'topic' if topic else 'queue'} {channel}")


@click.command()
@click.argument("channel")
@click.option("--subscription", metavar="NAME", help="Delete this subscription, not the channel.")
@click.option("--if-empty", is_flag=True, help="Only if it holds no messages.")
@click.option("--if-unused", is_flag=True, help="Only if it has no consumers.")
@yes_option
@url_option
def delete(
    channel: str,
    subscription: str | None,
    if_empty: bool,
    if_unused: bool,
    yes: bool,
    url: str | None,
) -> None:
    """Delete CHANNEL with all its messages, or one subscription of it."""
    what = channel if subscription is None else f"subscription {subscription} of {channel}"
    ask(yes, f"Delete {what}?")
    if subscription is None:
        with_bus(url, lambda bus: bus.delete(channel, if_empty=if_empty, if_unused=if_unused))
    else:
        with_bus(url, lambda bus: bus.delete_subscription(channel, subscription))
    click.echo(f"deleted {what}")


@click.command()
@click.argument("channel")
@click.option("--subscription", metavar="NAME", help="Of a topic: which one.")
@yes_option
@url_option
def purge(channel: str, subscription: str | None, yes: bool, url: str | None) -> None:
    """Drop what waits in CHANNEL. What is with consumers stays."""
    ask(yes, f"Drop all waiting messages of {channel}?")
    count = with_bus(url, lambda bus: bus.purge(channel, subscription=subscription))
    click.echo(f"dropped {count} message{'' if count == 1 else 's'}")


@click.command()
@click.argument("channel")
@click.argument("subscription")
@click.argument("to", type=START)
@url_option
def seek(channel: str, subscription: str, to: str | int | datetime, url: str | None) -> None:
    """Move SUBSCRIPTION of the topic CHANNEL to TO.

    TO is earliest, latest, an offset, or a time. Everything from there on is delivered (again),
    everything before it is settled.
    """
    offset = with_bus(url, lambda bus: bus.seek(channel, subscription, to))
    click.echo(f"{subscription} continues at offset {offset}")


def ask(yes: bool, question: str) -> None:
    """Before what cannot be undone, a person is asked; a script is taken at its word."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True)
