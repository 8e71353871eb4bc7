"""`telpher audit`: whether an audit log is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from telpher_broker.escape import escape
from telpher_broker.exit_codes import ExitCode

from .groups import Group
from .network import json_option
from .output import print_json

if TYPE_CHECKING:
    from telpher_broker.audit_check import AuditReport


@click.group(cls=Group)
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

    The exit code is 6 if a line was changed, taken out or put in. At the ends that does not show by
    itself: compare the number and the chain of the last line with what the broker's log says at its
    start and its end, and look for the file that the first line follows.
    """
    from telpher_broker.audit_check import check

    report = check(files)
    if as_json:
        print_json(report._asdict())
    else:
        for fault in report.faults:
            click.echo(escape(fault))
        for line in _verdict(report):
            click.echo(line)
    return ExitCode.DAMAGED if report.faults else ExitCode.OK


def _verdict(report: AuditReport) -> Iterator[str]:
    if not report.first:
        if not report.faults:
            yield "there is no line: nothing can be said of it"
        return
    verdict = "is broken" if report.faults else "is whole"
    yield f"lines {report.first} to {report.last}: the chain {verdict}"
    if report.first > 1:
        yield f"lines 1 to {report.first - 1} are missing: give the older files before these"
    yield f"it ends with {report.chain}" if report.chain else "it ends in nothing of ours"
