"""The flags that come out of the table of options, for the commands that take a configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import click

from telpher_broker.config import ConfigError, Configuration, load
from telpher_broker.exit_codes import ExitCode
from telpher_broker.options import OPTIONS, Option

from .errors import CommandError

F = TypeVar("F", bound=Callable[..., Any])


class SettingsCommand(click.Command):
    """A command whose many options are listed by their groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """First the command's own options, then those of the table."""
        rows = {row.name: row.get_help_record(ctx) for row in self.get_params(ctx)}
        own = [row for name, row in rows.items() if row and name not in _NAMES]
        with formatter.section("Options"):
            formatter.write_dl(own)
        for group, options in groupby(OPTIONS, key=lambda option: option.group):
            with formatter.section(group):
                found = [rows[option.name] for option in options]
                formatter.write_dl([row for row in found if row])


_NAMES = frozenset(option.name for option in OPTIONS)


def settings_flags(command: F) -> F:
    """Give a command `--config` and one flag for each option of the table."""
    for option in reversed(OPTIONS):
        command = _flag(option)(command)
    return click.option(
        "--config",
        "config_file",
        envvar="TELPHER_CONFIG",
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="Configuration file, in TOML.",
    )(command)


def _flag(option: Option) -> Callable[[F], F]:
    shown = option.kind.show(option.default) or "none"
    text = f"{option.help} [{shown}]".replace("\n", " ")
    if option.kind.switch:
        names = f"{option.flag}/--no-{option.flag[2:]}"
        return click.option(names, option.name, default=None, help=text)
    return click.option(
        option.flag,
        option.name,
        multiple=option.kind.plural,
        metavar=option.kind.metavar,
        help=text,
    )


def load_configuration(file: Path | None, flags: Mapping[str, Any]) -> Configuration:
    """The effective configuration. A faulty one ends the command, every fault listed."""
    try:
        return read_configuration(file, flags)
    except ConfigError as error:
        raise CommandError(ExitCode.USAGE, str(error)) from None


def read_configuration(file: Path | None, flags: Mapping[str, Any]) -> Configuration:
    """The same, but raises `ConfigError`. Flags that were not given are None or empty."""
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    return load(file, os.environ, given)
