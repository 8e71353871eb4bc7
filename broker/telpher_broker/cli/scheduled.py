"""The commands about delayed messages: `telpher scheduled`, `reschedule`, `cancel`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from telpher_broker.escape import escape_bytes

from .network import json_option, url_option, with_bus
from .output import local_time, print_json, print_table
from .parameters import OFFSETS, SECONDS, TIME, Whole

if TYPE_CHECKING:
    from telpher import Bus
    from telpher.admin.delays import Changed, Scheduled

_BODY_BYTES = 60

offsets_argument = click.argument("offsets", nargs=-1, required=True, type=OFFSETS)
subscription_option = click.option(
    "--subscription", metavar="NAME", help="Of a topic: this one, not all of them."
)


@click.command()
@click.argument("channel")
@click.option("--subscription", metavar="NAME", help="Of a topic: which one.")
@click.option("-n", "--count", type=Whole(1), help="Stop after so many messages.")
@url_option
@json_option
def scheduled(
    channel: str, subscription: str | None, count: int | None, url: str | None, as_json: bool
) -> None:
    """List what waits in CHANNEL for its time, what is due first before all."""
    found = with_bus(url, lambda bus: _scheduled(bus, channel, subscription, count))
    if as_json:
        for message in found:
            print_json(message._asdict())
    else:
        print_table(("due", "offset", "attempt", "key", "body"), map(_row, found))


async def _scheduled(
    bus: Bus, channel: str, subscription: str | None, count: int | None
) -> list[Scheduled]:
    found: list[Scheduled] = []
    async for message in bus.scheduled(channel, subscription=subscription):
        found.append(message)
        if len(found) == count:
            break
    return found


def _row(message: Scheduled) -> tuple[object, ...]:
    body = escape_bytes(message.body[:_BODY_BYTES])
    return local_time(message.due_at), message.offset, message.attempt, message.key, body


@click.command()
@click.argument("channel")
@offsets_argument
@click.option("--delay", type=SECONDS, help="Due so long from now: 30, 5min.")
@click.option("--due", type=TIME, help="Due at this time; local time without a zone.")
@subscription_option
@url_option
@json_option
def reschedule(
    channel: str,
    offsets: tuple[range, ...],
    delay: float | None,
    due: datetime | None,
    subscription: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Give delayed messages of CHANNEL another time.

    OFFSETS are numbers and ranges: 17, 20-29. What is due already is left alone, and told.
    """
    if (delay is None) == (due is None):
        raise click.UsageError("give either --delay or --due")
    options: dict[str, Any] = {"delay": delay, "due": due, "subscription": subscription}
    work = with_bus(url, lambda bus: bus.reschedule(channel, offsets, **options))
    _show("rescheduled", work, as_json)


@click.command()
@click.argument("channel")
@offsets_argument
@subscription_option
@url_option
@json_option
def cancel(
    channel: str,
    offsets: tuple[range, ...],
    subscription: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Have delayed messages of CHANNEL never delivered.

    OFFSETS are numbers and ranges: 17, 20-29. What is due already is left alone, and told.
    """
    options = {"subscription": subscription}
    work = with_bus(url, lambda bus: bus.cancel_scheduled(channel, offsets, **options))
    _show("cancelled", work, as_json)


def _show(what: str, changed: Changed, as_json: bool) -> None:
    rest = [[offsets.start, offsets.stop - 1] for offsets in changed.not_scheduled]
    if as_json:
        print_json({what: changed.messages, "not_scheduled": rest})
        return
    click.echo(f"{what} {changed.messages} message{'' if changed.messages == 1 else 's'}")
    if rest:
        texts = (str(first) if first == last else f"{first}-{last}" for first, last in rest)
        click.echo(f"not scheduled: {', '.join(texts)}", err=True)
