"""python -m bench: see the package."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import click

from . import guard
from .book import record, record_machine, recorded
from .measure import Failure, Skipped, measure
from .plot import plot
from .process import allow_many_files
from .ratios import ratios
from .report import measure_all, write_page
from .rows import Row
from .systems.registry import PEERS, SYSTEMS
from .systems.system import System
from .targets import results
from .workload import Workload
from .workloads import ALL


def chosen(against: str) -> list[System]:
    """Telpher and those peers that can be measured; the others are named as skipped."""
    systems = [SYSTEMS["telpher"]]
    for name in filter(None, against.split(",")):
        if name not in PEERS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(PEERS)}")
        reason = SYSTEMS[name].missing()
        if reason is None:
            systems.append(SYSTEMS[name])
        else:
            click.echo(f"skipped: {name}: {reason}", err=True)
    return systems


def show(workload: Workload, rows: Sequence[Row], as_json: bool) -> None:
    """The rows, and for people the ratios."""
    for row in rows:
        click.echo(row.to_json() if as_json else row.to_text())
    if not as_json:
        for ratio in ratios(workload, rows):
            click.echo(f"telpher, {ratio.to_text()}")


@click.command()
@click.argument("workload", type=click.Choice([*ALL, "all", "report", "targets", "guard"]))
@click.option("--n", type=click.IntRange(1), help="Messages; each workload has its own number.")
@click.option("--size", type=click.IntRange(1), help="Bytes of a body; most workloads have 100.")
@click.option("--runs", default=3, show_default=True, help="Runs; the medians are shown.")
@click.option("--against", default="", metavar="PEER,PEER", help=f"Of {', '.join(PEERS)}.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Draw the rows (needs matplotlib)."
)
@click.option(
    "--record",
    "is_recorded",
    is_flag=True,
    help="Put the rows in the place of those in docs/benchmarks/rows.jsonl; guard: its figure.",
)
def main(
    workload: str,
    n: int | None,
    size: int | None,
    runs: int,
    against: str,
    as_json: bool,
    plot_file: Path | None,
    is_recorded: bool,
) -> None:
    """Measure one WORKLOAD; `all` for docs/benchmarks.md, `report` to write it from its rows,
    `targets` to see what of it is reached, `guard` to compare the plain path with the recorded
    figure.
    """
    allow_many_files()
    if workload == "guard":
        watch(runs, is_recorded)
    elif workload == "targets":
        for result in results(recorded()):
            click.echo(result.to_text())
    elif workload == "report":
        write_page()
    elif workload == "all":
        end_with(measure_all(chosen(against or ",".join(PEERS)), n, runs, click.echo))
    else:
        measure_one(ALL[workload], against, n, size, runs, as_json, plot_file, is_recorded)


def measure_one(
    workload: Workload,
    against: str,
    n: int | None,
    size: int | None,
    runs: int,
    as_json: bool,
    plot_file: Path | None,
    is_recorded: bool,
) -> None:
    """One workload with bodies of one size."""
    # The limit workload is the relay's own, and has no Telpher in it.
    systems = chosen("limit" if workload.name == "limit" else against)
    if workload.name == "limit":
        del systems[0]
    found = list(measure(workload, systems, n, size or workload.sizes[0], runs))
    rows = [one for one in found if isinstance(one, Row)]
    show(workload, rows, as_json)
    for one in found:
        if isinstance(one, Skipped):
            click.echo(f"skipped: {one.to_text()}", err=True)
    if plot_file is not None:
        plot(workload, rows, plot_file)
    if is_recorded:
        record_machine()
        record(rows)
    end_with([one for one in found if isinstance(one, Failure)])


def end_with(failures: Sequence[Failure]) -> None:
    """Name what failed; exit code 1 if anything did."""
    for failure in failures:
        click.echo(f"failed: {failure.to_text()}", err=True)
    if failures:
        raise SystemExit(1)


def watch(runs: int, is_recorded: bool) -> None:
    """The guard: exit code 1 when the plain path has become dearer."""
    measured = guard.cost(runs)
    click.echo("  ".join(f"{name}={value:,.4g}" for name, value in measured.items()))
    if is_recorded:
        guard.record(measured)
    elif (wrong := guard.verdict(measured)) is not None:
        click.echo(wrong, err=True)
        raise SystemExit(1)


if __name__ == "__main__":
    # Ended by SIGTERM it ends as by Ctrl-C, and takes the servers with it that it has started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    main()
