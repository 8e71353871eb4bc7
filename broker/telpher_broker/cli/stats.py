"""`telpher stats`: the counters of a running broker."""

from __future__ import annotations

import click

from .network import url_option, with_bus
from .output import flat, print_json, print_table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@url_option
def stats(url: str | None, as_json: bool) -> None:
    """Show the counters and sizes of the broker."""
    found = with_bus(url, lambda bus: bus.stats())
    if as_json:
        print_json(found)
    else:
        print_table(("name", "value"), flat(found))
