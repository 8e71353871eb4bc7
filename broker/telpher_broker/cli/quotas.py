"""The commands about quotas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .channels import ask, yes_option
from .groups import Group
from .network import json_option, url_option, with_bus
from .output import print_json, print_table
from .parameters import SECONDS, SIZE

if TYPE_CHECKING:
    from telpher.admin import QuotaInfo

ALGORITHMS = ("token_bucket", "leaky_bucket", "fixed_window", "sliding_window")


@click.command()
@url_option
@json_option
def quotas(url: str | None, as_json: bool) -> None:
    """List the quotas, with who is nearest to the limit and how much is left there."""
    found = with_bus(url, lambda bus: bus.quotas())
    if as_json:
        for one in found:
            print_json(dict(one.raw))
    else:
        titles = ("name", "subject", "limit", "per", "algorithm", "burst", "at limit")
        print_table((*titles, "subjects", "waiting", "least left"), map(_row, found))


def _row(one: QuotaInfo) -> tuple[object, ...]:
    is_bucket = one.algorithm == "token_bucket"
    least = min(one.levels, key=lambda level: level.room, default=None)
    return (
        one.name,
        one.subject,
        f"{one.limit} {one.unit}",
        f"{one.window_seconds:g} s",
        one.algorithm,
        one.burst if is_bucket else None,
        one.at_limit,
        one.subjects,
        sum(level.waiting for level in one.levels),
        None if least is None else f"{least.room} of {least.subject}",
    )


@click.group(cls=Group)
def quota() -> None:
    """Set or delete a quota: how much may be published in a time, by whom or into what."""


@quota.command(name="set")
@click.argument("name")
@click.argument("subject")
@click.option("--limit", type=SIZE, required=True, help="How much; sizes may have units: 10MiB.")
@click.option(
    "--per", "window_seconds", type=SECONDS, default=1.0, help="In how long; 1s unless given."
)
@click.option("--bytes", "is_bytes", is_flag=True, help="Count bytes, not messages.")
@click.option(
    "--algorithm", type=click.Choice(ALGORITHMS), default=ALGORITHMS[0], show_default=True
)
@click.option("--burst", type=SIZE, help="How much at once  [token_bucket]; LIMIT unless given.")
@click.option(
    "--at-limit",
    type=click.Choice(("wait", "refuse", "drop")),
    default="wait",
    show_default=True,
    help="What happens beyond it. Only topics that nothing outlives drop.",
)
@url_option
def set_quota(name: str, subject: str, is_bytes: bool, url: str | None, **options: Any) -> None:
    """Make the quota NAME, or put this in place of it; it holds at once.

    SUBJECT is connection, channel:NAME, user:NAME or namespace:NAME. It is for each connection, or
    for each that the NAME matches, a pattern of * (one word) and # (any number), quoted for the
    shell.
    """
    unit: Any = "bytes" if is_bytes else "messages"
    found = with_bus(url, lambda bus: bus.set_quota(name, subject, unit=unit, **options))
    click.echo(
        f"quota {name}: {found.limit} {unit} in {found.window_seconds:g} s for {subject}, "
        f"then {found.at_limit}"
    )


@quota.command()
@click.argument("name")
@yes_option
@url_option
def delete(name: str, yes: bool, url: str | None) -> None:
    """Delete the quota NAME. Who waits for it goes on."""
    ask(yes, f"Delete quota {name}?")
    with_bus(url, lambda bus: bus.delete_quota(name))
    click.echo(f"deleted quota {name}")
