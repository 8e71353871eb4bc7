"""`telpher config`: what the broker would run with, as a configuration file, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from telpher_broker.config import Configuration
from telpher_broker.exit_codes import ExitCode

from .errors import CommandError
from .settings_flags import SettingsCommand, load_configuration, settings_flags


@click.command(cls=SettingsCommand, name="config")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with value and source.")
@click.option("--check", is_flag=True, help="Open the certificates, too, as the broker would.")
@settings_flags
def config(config_file: Path | None, as_json: bool, check: bool, **flags: Any) -> None:
    """Show the effective configuration and where each value comes from.

    What is printed is itself a configuration file. Takes the same flags, variables and file as
    "telpher serve", and reports the same faults.
    """
    configuration = load_configuration(config_file, flags)
    if as_json:
        rows = {
            option.name: {"value": value, "source": source}
            for option, value, source in configuration.rows()
        }
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo("\n".join(toml_lines(configuration)))
    if check:
        _check_certificates(configuration)


def _check_certificates(configuration: Configuration) -> None:
    """Say until when they hold; what cannot be used ends the command."""
    from telpher_broker.tls import TlsError, read_certificates

    try:
        found = read_certificates(configuration.settings)
    except TlsError as error:
        raise CommandError(ExitCode.USAGE, str(error)) from None
    if found is None:
        return
    for name, days in found.days_left().items():
        left = f"{days} days left" if days >= 0 else "it has ended"
        click.echo(f"{name} holds until {found.ends[name]:%Y-%m-%d}: {left}", err=True)


def toml_lines(configuration: Configuration) -> Iterator[str]:
    """The configuration as TOML, with the source of each value beside it."""
    for option, value, source in configuration.rows():
        bare = option.kind.switch or value.isdecimal()
        written = value if bare else json.dumps(value, ensure_ascii=False)
        yield f"{f'{option.name} = {written}':<44} # {source}"
