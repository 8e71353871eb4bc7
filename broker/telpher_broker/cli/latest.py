"""`telpher latest`: one value of a compacted topic."""

from __future__ import annotations

import click

from telpher_broker.exit_codes import ExitCode

from .errors import CommandError
from .network import json_option, url_option, with_bus
from .output import print_body, print_json


@click.command()
@click.argument("topic")
@click.argument("key")
@click.option("--raw", is_flag=True, help="The body as it is, nothing behind it.")
@url_option
@json_option
def latest(topic: str, key: str, raw: bool, url: str | None, as_json: bool) -> None:
    """Show the last message of KEY in the compacted topic TOPIC."""
    if as_json and raw:
        raise click.UsageError("give either --json or --raw")
    found = with_bus(url, lambda bus: bus.latest(topic, key))
    if found is None:
        raise CommandError(ExitCode.REFUSED, f"{topic} has no value of {key!r}")
    if as_json:
        print_json(found._asdict())
    else:
        print_body(found.body, raw=raw)
