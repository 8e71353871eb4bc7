"""`telpher version`: which Telpher this is."""

from __future__ import annotations

import json
import platform

import click

from telpher_broker.version import VERSION


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def version(as_json: bool) -> None:
    """Show the version of Telpher, and of the Python it runs on."""
    ours, python = VERSION, platform.python_version()
    if as_json:
        click.echo(json.dumps({"telpher": ours, "python": python}))
    else:
        click.echo(f"telpher {ours} (Python {python})")
