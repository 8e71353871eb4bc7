"""The commands about exchanges and bindings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .channels import ask, yes_option
from .groups import Group
from .network import json_option, url_option, with_bus
from .output import print_json, print_table
from .parameters import CRITERION, Whole

if TYPE_CHECKING:
    from telpher.admin import BindingInfo, ExchangeInfo

F = TypeVar("F", bound=Callable[..., Any])
KINDS = ("direct", "topic", "fanout", "headers", "consistent-hash")


@click.command()
@click.argument("prefix", default="")
@url_option
@json_option
def exchanges(prefix: str, url: str | None, as_json: bool) -> None:
    """List the exchanges whose names begin with PREFIX."""
    found = with_bus(url, lambda bus: bus.exchanges(prefix))
    if as_json:
        for exchange in found:
            print_json(dict(exchange.raw))
    else:
        titles = ("name", "kind", "bindings", "published", "alternate", "header")
        print_table(titles, map(_exchange_row, found))


def _exchange_row(exchange: ExchangeInfo) -> tuple[object, ...]:
    config = exchange.config
    counts = (exchange.bindings, exchange.published)
    return exchange.name, exchange.kind, *counts, config.get("alternate"), config.get("header")


@click.command()
@click.argument("exchange")
@url_option
@json_option
def bindings(exchange: str, url: str | None, as_json: bool) -> None:
    """List what EXCHANGE leads to."""
    found = with_bus(url, lambda bus: bus.bindings(exchange))
    if as_json:
        for binding in found:
            print_json({name: value for name, value in binding._asdict().items() if value})
    else:
        print_table(("target", "key", "headers", "match", "weight"), map(_binding_row, found))


def _binding_row(binding: BindingInfo) -> tuple[object, ...]:
    headers = " ".join(
        name if value is None else f"{name}={value}"
        for name, value in (binding.headers or {}).items()
    )
    return binding.target, binding.key, headers, binding.match, binding.weight


@click.group(cls=Group)
def exchange() -> None:
    """Declare or delete an exchange: a router from what is published to it to channels."""


@exchange.command()
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(KINDS), default="topic", show_default=True, help="How it routes."
)
@click.option("--alternate", metavar="NAME", help="Who gets what nothing is bound for.")
@click.option("--by-header", "header", metavar="HEADER", help="Take this header for the key.")
@url_option
def declare(
    name: str, kind: Any, alternate: str | None, header: str | None, url: str | None
) -> None:
    """Make the exchange NAME, or check that it exists like this."""
    with_bus(url, lambda bus: bus.declare_exchange(name, kind, alternate=alternate, header=header))
    click.echo(f"{kind} exchange {name}")


@exchange.command()
@click.argument("name")
@click.option("--if-unused", is_flag=True, help="Only if it has no bindings.")
@yes_option
@url_option
def delete(name: str, if_unused: bool, yes: bool, url: str | None) -> None:
    """Delete the exchange NAME and its bindings. The channels stay."""
    ask(yes, f"Delete exchange {name}?")
    with_bus(url, lambda bus: bus.delete_exchange(name, if_unused=if_unused))
    click.echo(f"deleted exchange {name}")


def binding_options(command: F) -> F:
    """What bind and unbind are told of a binding."""
    for option in (
        click.option("--weight", type=Whole(1, 100), help="Its share, by hash."),
        click.option("--any", "is_any", is_flag=True, help="Any of the headers, not all."),
        click.option(
            "--header", "headers", multiple=True, type=CRITERION, help="A header it asks for."
        ),
        click.argument("keys", nargs=-1),
        click.argument("target"),
        click.argument("exchange"),
    ):
        command = option(command)
    return command


def _options(
    headers: tuple[tuple[str, Any], ...], is_any: bool, weight: int | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"headers": dict(headers) or None, "weight": weight}
    return found | {"match": "any"} if is_any else found


@click.command()
@binding_options
@url_option
def bind(
    exchange: str,
    target: str,
    keys: tuple[str, ...],
    headers: tuple[tuple[str, Any], ...],
    is_any: bool,
    weight: int | None,
    url: str | None,
) -> None:
    """Let EXCHANGE lead to TARGET, a channel or another exchange.

    KEYS are for a direct exchange; for a topic exchange they are patterns, quoted for the shell:
    'orders.*.paid', '#'. A header is NAME=TEXT, NAME:=JSON for a number, true or false, or NAME
    alone for any value.
    """
    options = _options(headers, is_any, weight)
    count = with_bus(url, lambda bus: bus.bind(exchange, target, *keys, **options))
    click.echo(f"{count} new binding{'' if count == 1 else 's'} from {exchange} to {target}")


@click.command()
@binding_options
@url_option
def unbind(
    exchange: str,
    target: str,
    keys: tuple[str, ...],
    headers: tuple[tuple[str, Any], ...],
    is_any: bool,
    weight: int | None,
    url: str | None,
) -> None:
    """Take bindings from EXCHANGE to TARGET away, each given as it was bound."""
    options = _options(headers, is_any, weight)
    count = with_bus(url, lambda bus: bus.unbind(exchange, target, *keys, **options))
    click.echo(f"took away {count} binding{'' if count == 1 else 's'}")


@click.command()
@click.argument("exchange")
@click.argument("key", required=False)
@click.option("--header", "headers", multiple=True, type=CRITERION, help="A header of the message.")
@url_option
@json_option
def route(
    exchange: str,
    key: str | None,
    headers: tuple[tuple[str, Any], ...],
    url: str | None,
    as_json: bool,
) -> None:
    """Show the channels that a message to EXCHANGE would go to. Nothing is published."""
    found = with_bus(url, lambda bus: bus.route(exchange, key, dict(headers) or None))
    if as_json:
        print_json({"channels": found})
    else:
        for name in found:
            click.echo(name)
