"""The commands about channels and their subscriptions."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from telpher.protocol.channel_options import why_not_config

from .channel_flags import channel_flags, config_of
from .network import json_option, url_option, with_bus
from .output import print_json, print_table
from .parameters import START

if TYPE_CHECKING:
    from telpher import Bus
    from telpher.admin import ChannelInfo

CHANNEL_TITLES = ("name", "kind", "messages", "bytes", "ready", "leased", "subscriptions")
yes_option = click.option(
    "--yes", is_flag=True, help="Do not ask. Where there is no terminal nobody is asked."
)


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
        print_table(CHANNEL_TITLES, map(channel_row, found))


async def _channels(bus: Bus, prefix: str) -> list[ChannelInfo]:
    return [channel async for channel in bus.channels(prefix)]


def channel_row(channel: ChannelInfo) -> tuple[object, ...]:
    """What the list of channels shows of one."""
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
        titles = ["name", "durable", "ready", "delayed", "leased", "consumers", "next", "missed"]
        rows = [[getattr(row, title) for title in titles] for row in found]
        if any("breaker" in row.raw for row in found):
            titles.append("breaker")
            for cells, row in zip(rows, found, strict=True):
                cells.append(row.raw.get("breaker", {}).get("state"))
        print_table(titles, rows)


@click.command()
@click.argument("channel")
@click.option("--topic", is_flag=True, help="A topic; otherwise a queue.")
@click.option(
    "--subscription", metavar="NAME", help="Make a durable subscription of the topic too."
)
@click.option("--start", type=START, default="latest", help="Where a new subscription begins.")
@channel_flags
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

    Times and sizes may have units: 7d, 1GiB.
    """
    if not topic and subscription is not None:
        raise click.UsageError("subscriptions are for topics: give --topic")
    given = config_of(config)
    fault = why_not_config("topic" if topic else "queue", given)
    if fault is not None:
        raise click.UsageError(fault)

    async def work(bus: Bus) -> None:
        make = bus.declare_topic if topic else bus.declare
        await make(channel, **given)
        if subscription is not None:
            await bus.create_subscription(channel, subscription, start=start)

    with_bus(url, work)
    click.echo(f"{'topic' if topic else 'queue'} {channel}")


@click.command()
@click.argument("channel")
@click.option("--unset", multiple=True, metavar="OPTION", help="No longer have this option.")
@channel_flags
@url_option
def configure(channel: str, unset: tuple[str, ...], url: str | None, **config: Any) -> None:
    """Change options of CHANNEL while it lives; those not named stay as they are.

    Options are named in --unset as their flags or as in the protocol: retain-seconds,
    retain_seconds.
    """
    changes = dict.fromkeys(name.replace("-", "_") for name in unset) | config_of(config)
    if not changes:
        raise click.UsageError("name an option to change, or --unset one")
    found = with_bus(url, lambda bus: bus.configure(channel, **changes))
    told = ", ".join(f"{name}={value}" for name, value in found.config.items())
    click.echo(f"{found.kind} {channel}: {told or 'no options'}")


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
    """Move SUBSCRIPTION of the topic CHANNEL to TO; of a queue that retains, '-' is its own.

    TO is earliest, latest, an offset, or a time. Everything from there on is delivered (again),
    everything before it is settled.
    """
    name = None if subscription == "-" else subscription
    offset = with_bus(url, lambda bus: bus.seek(channel, name, to))
    click.echo(f"{name or channel} continues at offset {offset}")


def ask(yes: bool, question: str) -> None:
    """Before what cannot be undone, a person is asked; a script is taken at its word."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True)
