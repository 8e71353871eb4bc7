"""`telpher serve`: the broker, in the foreground."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from telpher_broker import collector

from .settings_flags import (
    SettingsCommand,
    load_configuration,
    read_configuration,
    settings_flags,
)


@click.command(cls=SettingsCommand)
@settings_flags
def serve(config_file: Path | None, **flags: Any) -> int:
    """Run the broker in the foreground, until SIGTERM or Ctrl-C.

    A flag beats its environment variable (TELPHER_ and its name in capitals), which beats the
    configuration file, which beats the default (in brackets). When clients may connect, one line
    on standard output says so: "telpher ready tcp=... unix=... pid=...". Logs go to standard
    error.
    """
    configuration = load_configuration(config_file, flags)
    collector.pause()
    from telpher_broker import daemon

    return daemon.run(configuration, partial(read_configuration, config_file, flags))
