"""The commands about a data directory, whether or not a broker runs: check, repair, dump."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from telpher_broker.escape import escape
from telpher_broker.exit_codes import ExitCode, storage_code

from .channels import ask, yes_option
from .errors import CommandError
from .network import json_option
from .output import print_json

if TYPE_CHECKING:
    from telpher_storage.check import CheckReport
    from telpher_storage.repair import RepairReport

_VERDICTS = {
    "empty": "empty: a broker would start with nothing",
    "sound": "sound",
    "torn": "torn at the end, as after a crash: a broker starts by itself and cuts the tail",
    "damaged": "damaged: a broker refuses to start",
}
directory_argument = click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


@click.command()
@directory_argument
@json_option
def check(directory: Path, as_json: bool) -> int:
    """Read all of the data directory DIR and say what is wrong with it. Changes nothing.

    The exit code is 6 if a broker would refuse to start. Beside a running broker, what it is just
    writing may look like a torn tail.
    """
    from telpher_storage.check import check as check_directory

    with storage_errors():
        report = check_directory(directory)
    if as_json:
        print_json(asdict(report) | {"foreseen": _foreseen(report)})
    else:
        _print_check(report)
    return ExitCode.DAMAGED if report.verdict == "damaged" else ExitCode.OK


def _print_check(report: CheckReport) -> None:
    read = report.recovery
    for finding in report.findings:
        click.echo(
            f"{escape(finding.file)} at byte {finding.offset}: {finding.kind}: "
            f"{escape(finding.text)}"
        )
    if report.locked_by is not None:
        click.echo(f"a broker has it open: {escape(report.locked_by)}")
    if report.verdict != "damaged":
        click.echo(f"{read.snapshot_chunks} chunks of a snapshot, {read.records} records after it")
    click.echo(f"{report.directory} is {_VERDICTS[report.verdict]}")
    if report.verdict == "damaged":
        _print_foreseen(report.directory)
        click.echo(f"keep a copy, then run: telpher repair {report.directory}")


def _foreseen(report: CheckReport) -> dict[str, Any] | None:
    """What would be lost, under the names that `telpher repair --json` has for what was."""
    from telpher_storage.repair import foresee

    if report.verdict != "damaged":
        return None
    with storage_errors():
        found = asdict(foresee(report.directory))
    return {name: found[name] for name in ("lost_from", "lost_to", "snapshot_lost", "missing")}


def _print_foreseen(directory: Path) -> None:
    from telpher_storage.repair import foresee

    with storage_errors():
        report = foresee(directory)
    lost = list(_lost(report))
    for line in lost:
        click.echo(f"if it is repaired: {line}")
    if not lost:
        click.echo(f"if it is repaired, nothing is lost: {report.lost_from} records stay")


@click.command()
@directory_argument
@yes_option
@json_option
def repair(directory: Path, yes: bool, as_json: bool) -> None:
    """Make the damaged data directory DIR usable again, and say what is lost.

    What comes before the first damage stays; what comes after it is moved into a folder
    "damaged-N" of the directory. Nothing is deleted. Keep a copy of the directory all the same.
    """
    from telpher_storage.repair import repair as repair_directory

    ask(yes, f"Cut the damage out of {directory}? Keep a copy of it first.")
    with storage_errors():
        report = repair_directory(directory)
    if as_json:
        print_json(asdict(report))
    else:
        _print_repair(report)


def _print_repair(report: RepairReport) -> None:
    if report.folder is None:
        click.echo(f"{report.directory} needs no repair: a broker can start")
        return
    for piece in report.dropped:
        click.echo(
            f"{escape(piece.file)} from byte {piece.offset}: {piece.bytes} bytes moved aside: "
            f"{escape(piece.reason)}"
        )
    for line in _lost(report):
        click.echo(line)
    if report.dropped:
        click.echo(f"what was moved aside is in {report.folder}")
    click.echo(f"{report.directory} is repaired: a broker can start")


def _lost(report: RepairReport) -> Iterator[str]:
    for name in report.missing:
        yield f"{escape(name)} is missing: what was in it is lost"
    if report.snapshot_lost:
        yield "the snapshot is lost, and with it everything before it"
    if report.lost_to > report.lost_from:
        yield f"records {report.lost_from} to {report.lost_to - 1} are lost"


@click.command()
@directory_argument
@click.option("--bodies", is_flag=True, help="Show the messages too.")
@json_option
def dump(directory: Path, bodies: bool, as_json: bool) -> None:
    """Show what the data directory DIR holds: the chunks of its snapshot, then its records.

    Stops where a broker would cut a torn tail, and fails where it would refuse to start.
    """
    from telpher_storage.entries import entries

    from .describe import describe

    with storage_errors():
        for entry in entries(directory):
            found = describe(entry.kind, entry.data, bodies=bodies)
            if as_json:
                place = {"kind": entry.kind, "number": entry.number}
                print_json({**place, "file": entry.file, "offset": entry.offset, **found})
            else:
                name, *rest = found.items()
                fields = "".join(f"  {key}={value}" for key, value in rest)
                place_text = f"{entry.kind} {entry.number}  {entry.file}@{entry.offset}"
                click.echo(escape(f"{place_text}  {name[1]}{fields}"))


@contextmanager
def storage_errors() -> Iterator[None]:
    """Errors of the storage end the command with one line and the exit code of `serve`."""
    from telpher_storage.api import StorageError

    try:
        yield
    except StorageError as error:
        raise CommandError(storage_code(error), str(error)) from None
