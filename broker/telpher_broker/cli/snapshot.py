"""`telpher snapshot` and `telpher rewrite`: write the state down now."""

from __future__ import annotations

from typing import Any

import click

from .network import url_option, with_bus
from .output import print_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@url_option
def snapshot(url: str | None, as_json: bool) -> None:
    """Have the broker write a snapshot; ends when it is on the disk."""
    _report("snapshot written", with_bus(url, lambda bus: bus.snapshot()), as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@url_option
def rewrite(url: str | None, as_json: bool) -> None:
    """Have the broker rewrite its log to what is live; ends when it is on the disk."""
    _report("log rewritten", with_bus(url, lambda bus: bus.rewrite()), as_json)


def _report(what: str, result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    seconds, size = result["seconds"], result["bytes"]
    click.echo(f"{what}: {size} bytes in {seconds:.2f} s, all records below {result['records']}")
