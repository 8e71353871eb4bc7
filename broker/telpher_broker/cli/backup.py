"""`telpher backup`, `backups` and `restore`: copies of a data directory, and back.

They read the directory itself and not through a broker: so they work the same while one runs and
while none does, and no client can make a broker write anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from telpher_broker.escape import escape
from telpher_broker.exit_codes import ExitCode

from .errors import CommandError
from .network import json_option
from .output import local_time, print_json, print_table
from .parameters import TIME, Whole
from .settings_flags import load_configuration
from .storage import storage_errors

if TYPE_CHECKING:
    from telpher_storage.backup import BackupReport, Base
    from telpher_storage.restore import RestoreReport

root_argument = click.argument("root", metavar="ROOT", type=click.Path(path_type=Path))


@click.command()
@root_argument
@click.option(
    "--data-dir",
    metavar="DIR",
    help="The data directory. [that of the configuration, as for telpher serve]",
)
@click.option(
    "--config",
    "config_file",
    envvar="TELPHER_CONFIG",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Configuration file, in TOML.",
)
@click.option("--full", is_flag=True, help="Begin a new base, even if the newest could go on.")
@json_option
def backup(
    root: Path, data_dir: str | None, config_file: Path | None, full: bool, as_json: bool
) -> None:
    """Bring the backups in the directory ROOT up to date, whether or not a broker runs.

    ROOT holds bases: base-1, base-2, ... Each is a data directory that a broker could start on. A
    run adds what is new to the newest base; it begins another when the log was rewritten since or
    the newest cannot be used, or with --full. All that was confirmed before the command was given
    is in the backup, and what it adds is read back before it counts. Nothing else of ROOT is
    looked at, so older bases may be removed at any time. Run it as the user who runs the broker,
    or as root.
    """
    from telpher_storage.backup import backup as back_up

    source = load_configuration(config_file, {"data_dir": data_dir}).settings.data_dir
    with storage_errors():
        report = back_up(source, root, time.time_ns() // 1_000_000, full=full)
    if as_json:
        print_json(asdict(report))
    else:
        _print_backup(report)


def _print_backup(report: BackupReport) -> None:
    if report.damage:  # for who reads nothing but what went wrong
        click.echo(f"warning: {escape(f'{report.because}: {report.damage}')}", err=True)
    if report.because:
        click.echo(f"a new base: {report.because}")
    base = escape(str(report.base))
    if report.files == 0:
        click.echo(f"{base} has all records below {report.record}: nothing is new")
        return
    click.echo(
        f"{base} has all records below {report.record}{_of(report.time_ms)}: "
        f"{report.bytes} bytes more in {report.seconds:.2f} s"
    )


def _of(time_ms: int) -> str:
    return f", the last of {local_time(time_ms / 1000)}" if time_ms else ""


@click.command()
@root_argument
@json_option
def backups(root: Path, as_json: bool) -> None:
    """List the bases in ROOT, oldest first, and which points each can be restored to.

    Of a base, "from" and "from time" are the earliest point, "to" and "to time" the latest;
    "taken" is when the last run looked, which the base holds the state of, too. Of a base that
    cannot be used, "unusable" says why; whether files are what was written is seen by who restores
    them, and by telpher check.
    """
    from telpher_storage.backup import bases

    with storage_errors():
        rows = list(map(_row, bases(root)))
    if not rows:
        raise CommandError(ExitCode.DATA_DIR, _why_none(root))
    if as_json:
        for row in rows:
            print_json(row)
        return
    shown = ([_shown(name, value) for name, value in row.items()] for row in rows)
    print_table([name.replace("_", " ") for name in _ROW], shown)


def _why_none(root: Path) -> str:
    from telpher_storage.manifest import MANIFEST

    if not (root / MANIFEST).exists():
        return f"there is no backup in {root}"
    parent = root.absolute().parent
    return f"{root} is one data directory; if it is a base, see: telpher backups {parent}"


_ROW = ("base", "from", "to", "from_time", "to_time", "taken", "runs", "bytes", "unusable")


def _row(base: Base) -> dict[str, Any]:
    if base.unusable:
        return dict.fromkeys(_ROW) | {"base": base.path, "unusable": base.unusable}
    first, last = base.runs[0], base.runs[-1]
    size = sum(file.bytes for run in base.runs for file in run.files)
    points = (max(first.base_record - 1, 0), last.record - 1)
    times = (time_ms or None for time_ms in (first.base_ms, last.time_ms, last.taken_ms))
    return dict(zip(_ROW, (base.path, *points, *times, len(base.runs), size, None), strict=True))


def _shown(name: str, value: Any) -> object:
    if name in ("from_time", "to_time", "taken"):
        return value and local_time(value / 1000)
    return value


@click.command()
@click.argument(
    "backup", metavar="BACKUP", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--to-record",
    metavar="NUMBER",
    type=Whole(0),
    help="The last record to restore, as telpher dump numbers them.",
)
@click.option(
    "--to-time", type=TIME, help="Restore nothing that was written later, such as 2026-01-31T12:00."
)
@json_option
def restore(
    backup: Path, directory: Path, to_record: int | None, to_time: datetime | None, as_json: bool
) -> None:
    """Make the data directory DIR out of BACKUP, and say what is given up.

    BACKUP is a ROOT of backups, or one base of it, or any data directory. DIR must not be there,
    or be empty; then it may be a mount point, and its owner owns what is restored. A point lies
    between two blocks: what the broker did at one stroke, such as a transaction, is restored whole
    or not at all. A time is by the broker's clock. What is restored goes on as a history of its
    own.
    """
    from telpher_storage.restore import Target
    from telpher_storage.restore import restore as make

    if to_record is not None and to_time is not None:
        raise click.UsageError("give --to-record or --to-time, not both")
    time_ms = None if to_time is None else int(to_time.timestamp() * 1000)
    with storage_errors():
        report = make(backup, directory, Target(to_record, time_ms))
    if as_json:
        print_json(asdict(report))
    else:
        for line in _restored(report):
            click.echo(line)


def _restored(report: RestoreReport) -> Iterator[str]:
    directory, base = escape(str(report.directory)), escape(str(report.base))
    times = _of(report.time_ms)
    yield f"{directory} has all records below {report.record}{times}, out of {base}"
    if report.given_up:
        last = report.record + report.given_up - 1
        yield f"given up: the records from {report.record} to {last} of that backup"
    yield f"start a broker on it by: telpher serve --data-dir {directory}"
