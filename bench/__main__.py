"""python -m bench: see the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .guard import cost, record, verdict
from .measure import Failure, measure
from .plot import plot
from .ratios import ratios
from .report import measure_all, write_page
from .rows import Row
from .systems.registry import PEERS, SYSTEMS
from .systems.system import System
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
@click.argument("workload", type=click.Choice([*ALL, "all", "report", "guard"]))
@click.option("--n", type=click.IntRange(1), help="Messages; each workload has its own number.")
@click.option("--size", type=click.IntRange(1), default=100, show_default=True, help="Bytes.")
@click.option("--runs", default=3, show_default=True, help="Runs; the medians are shown.")
@click.option("--against", default="", metavar="PEER,PEER", help=f"Of {', '.join(PEERS)}.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Draw the rows (needs matplotlib)."
)
@click.option("--record", "is_recorded", is_flag=True, help="With guard: record the figure anew.")
def main(
    workload: str,
    n: int | None,
    size: int,
    runs: int,
    against: str,
    as_json: bool,
    plot_file: Path | None,
    is_recorded: bool,
) -> None:
    """Measure one WORKLOAD; `all` for docs/benchmarks.md, `report` to write it from its rows,
    `guard` to compare the plain path with the recorded figure.
    """
    if workload == "guard":
        watch(runs, is_recorded)
    elif workload == "report":
        write_page()
    elif workload == "all":
        end_with(measure_all(chosen(against or ",".join(PEERS)), n, runs, click.echo))
    else:
        # The limit workload is the relay's own, and has no Telpher in it.
        systems = chosen("limit" if workload == "limit" else against)
        found = list(measure(ALL[workload], systems, n, size, runs))
        rows = [one for one in found if isinstance(one, Row)]
        show(ALL[workload], rows, as_json)
        if plot_file is not None:
            plot(ALL[workload], rows, plot_file)
        end_with([one for one in found if isinstance(one, Failure)])


def end_with(failures: Sequence[Failure]) -> None:
    """Name what failed; exit code 1 if anything did."""
    for failure in failures:
        click.echo(f"failed: {failure.to_text()}", err=True)
    if failures:
        raise SystemExit(1)


def watch(runs: int, is_recorded: bool) -> None:
    """The guard: exit code 1 when the plain path has become dearer."""
    measured = cost(runs)
    click.echo("  ".join(f"{name}={value:,.4g}" for name, value in measured.items()))
    if is_recorded:
        record(measured)
    elif (wrong := verdict(measured)) is not None:
        click.echo(wrong, err=True)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
