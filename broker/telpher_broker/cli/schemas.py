"""`telpher schemas` and `telpher schema …`: what the messages of a channel must be like."""

from __future__ import annotations

import json
from typing import TextIO

import click

from .channels import ask, yes_option
from .groups import Group
from .network import json_option, url_option, with_bus
from .output import local_time, print_json, print_table
from .parameters import Whole

version_option = click.option(
    "--version", type=Whole(1), help="This version; the newest if not given."
)
file_argument = click.argument("file", type=click.File("r", "utf-8"))


@click.command()
@click.argument("channel")
@url_option
@json_option
def schemas(channel: str, url: str | None, as_json: bool) -> None:
    """List the versions of the schema of CHANNEL. The last one is what messages are checked by."""
    found = with_bus(url, lambda bus: bus.schemas(channel))
    if as_json:
        for row in found:
            print_json(dict(row.raw))
    else:
        titles = ("version", "set", "bytes")
        print_table(titles, ((row.version, local_time(row.set_at), row.bytes) for row in found))


@click.group(cls=Group)
def schema() -> None:
    """Check the messages of a channel by a JSON Schema.

    A new version must go with the one before, as `schema_compatibility` of the channel says. What
    becomes of messages that break the schema is `on_invalid`: refuse, or dead_letter.
    """


@schema.command("set")
@click.argument("channel")
@file_argument
@url_option
def set_(channel: str, file: TextIO, url: str | None) -> None:
    """Make the JSON Schema in FILE (-: standard input) the newest version for CHANNEL."""
    text = file.read()
    version = with_bus(url, lambda bus: bus.set_schema(channel, text))
    click.echo(f"version {version}")


@schema.command()
@click.argument("channel")
@file_argument
@url_option
def check(channel: str, file: TextIO, url: str | None) -> int:
    """Check whether the JSON Schema in FILE could be set. Exits with 1 if it could not."""
    text = file.read()
    found = with_bus(url, lambda bus: bus.check_schema(channel, text))
    for problem in found:
        click.echo(f"{problem.pointer or 'the root'}: {problem.reason}")
    if not found:
        click.echo("it goes with the version before")
    return 1 if found else 0


@schema.command()
@click.argument("channel")
@version_option
@url_option
def show(channel: str, version: int | None, url: str | None) -> None:
    """Show the schema of CHANNEL."""
    found = with_bus(url, lambda bus: bus.schema(channel, version))
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


@schema.command()
@click.argument("channel")
@click.option("--version", type=Whole(1), help="This version; all if not given.")
@yes_option
@url_option
def delete(channel: str, version: int | None, yes: bool, url: str | None) -> None:
    """Delete the schema of CHANNEL, or one version of it."""
    what = f"the schema of {channel}" if version is None else f"version {version} of {channel}"
    ask(yes, f"Delete {what}?")
    count = with_bus(url, lambda bus: bus.delete_schema(channel, version))
    click.echo(f"deleted {count} version{'' if count == 1 else 's'}")
