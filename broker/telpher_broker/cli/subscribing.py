"""The commands that make subscriptions and set what they want."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from .network import url_option, with_bus
from .parameters import CRITERION, START

if TYPE_CHECKING:
    from telpher import Bus

F = TypeVar("F", bound=Callable[..., Any])

headers_option: Callable[[F], F] = click.option(
    "--header", "headers", multiple=True, type=CRITERION, help="Only messages with this header."
)
any_option: Callable[[F], F] = click.option(
    "--any", "is_any", is_flag=True, help="Any of the headers, not all."
)
Headers = tuple[tuple[str, Any], ...]


@click.command()
@click.argument("topic")
@click.argument("name")
@click.option("--start", type=START, default="latest", help="Where it begins, if it is new.")
@headers_option
@any_option
@url_option
def subscribe(
    topic: str,
    name: str,
    start: str | int | datetime,
    headers: Headers,
    is_any: bool,
    url: str | None,
) -> None:
    """Make the durable subscription NAME of TOPIC, or check that it is there.

    TOPIC may be a pattern, quoted for the shell, of topics that exist or will be made: 'prices.*'
    for one word more, 'prices.#' for any number. A header is NAME=TEXT, NAME:=JSON for a number,
    true or false, or NAME alone for any value.
    """
    wanted = dict(headers) or None
    match = _match(is_any)
    found = with_bus(
        url,
        lambda bus: bus.create_subscription(topic, name, start=start, filter=wanted, match=match),
    )
    click.echo(f"subscription {name} of {topic}, {found.ready} ready")


def _match(is_any: bool) -> Literal["all", "any"]:
    return "any" if is_any else "all"


@click.command()
@click.argument("topic")
@click.argument("name")
@headers_option
@any_option
@url_option
def filter(topic: str, name: str, headers: Headers, is_any: bool, url: str | None) -> None:
    """Let the subscription NAME of TOPIC want only messages with these headers, or without --header
    all messages.

    Headers are written as for subscribe. What was passed over before does not come back.
    """
    wanted = dict(headers) or None

    async def work(bus: Bus) -> None:
        await bus.set_filter(topic, name, wanted, match=_match(is_any))

    with_bus(url, work)
    joint = " or " if is_any else " and "
    told = "all messages" if wanted is None else f"messages with {joint.join(map(_told, headers))}"
    click.echo(f"{name} wants {told}")


def _told(header: tuple[str, Any]) -> str:
    """A header as it is written at the command line."""
    name, value = header
    if value is None:
        return name
    return f"{name}={value}" if isinstance(value, str) else f"{name}:={json.dumps(value)}"
