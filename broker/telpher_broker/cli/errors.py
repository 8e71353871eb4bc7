"""How a command fails: with one line and an exit code."""

from __future__ import annotations

import click

from telpher_broker.escape import escape
from telpher_broker.exit_codes import ExitCode


class CommandError(click.ClickException):
    """Ends the command; the text goes to standard error, safe for a terminal."""

    def __init__(self, code: ExitCode, text: str) -> None:
        super().__init__("\n".join(map(escape, text.split("\n"))))
        self.code = code
