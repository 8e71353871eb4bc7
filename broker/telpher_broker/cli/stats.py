"""`telpher stats`: the counters of a running broker."""

from __future__ import annotations

import click

from .metrics import exposition
from .network import url_option, with_bus
from .output import flat, print_json, print_table

FORMATS = ("table", "json", "prometheus")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(FORMATS),
    default="table",
    help="For people, as one JSON object, or as metrics for Prometheus' textfile collector.",
)
@url_option
def stats(url: str | None, as_json: bool, shape: str) -> None:
    """Show the counters, sizes and alarms of the broker."""
    found = with_bus(url, lambda bus: bus.stats())
    if as_json or shape == "json":
        print_json(found)
    elif shape == "prometheus":
        click.echo(exposition(found), nl=False)
    else:
        print_table(("name", "value"), flat(found))
