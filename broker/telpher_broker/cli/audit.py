"""`telpher audit`: whether an audit log is whole."""

from __future__ import annotations

from pathlib import Path

import click

from telpher_broker.escape import escape
from telpher_broker.exit_codes import ExitCode

from .network import json_option
from .output import print_json


@click.group()
def audit() -> None:
    """Check audit logs (`audit_log` of the configuration)."""


@audit.command("check")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@json_option
def audit_check(files: tuple[Path, ...], as_json: bool) -> int:
    """Read FILE, or several of one log with the oldest first, and follow the chain of lines.

    The exit code is 6 if a line was changed, taken out or put in. Lines that were taken from the
    end do not show by themselves: compare the number and the chain with what the broker's log says
    at its start and its end.
    """
    from telpher_broker.audit_check import check

    report = check(files)
    if as_json:
        print_json(report._asdict())
    else:
        for fault in report.faults:
            click.echo(escape(fault))
        verdict = "is broken" if report.faults else "is whole"
        click.echo(f"lines {report.first} to {report.last}: the chain {verdict}")
        click.echo(f"it ends with {report.chain}" if report.chain else "it ends in nothing of ours")
    return ExitCode.DAMAGED if report.faults else ExitCode.OK
