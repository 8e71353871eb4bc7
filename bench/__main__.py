"""python -m bench: see the package."""

from __future__ import annotations

import click

from .rows import Row, middle
from .workloads import WORKLOADS


@click.command()
@click.argument("workload", type=click.Choice([*WORKLOADS, "all"]))
@click.option("--n", default=1_000_000, show_default=True, help="Messages.")
@click.option("--size", default=100, show_default=True, help="Bytes of a body.")
@click.option("--runs", default=3, show_default=True, help="Runs; the medians are shown.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def main(workload: str, n: int, size: int, runs: int, as_json: bool) -> None:
    """Measure one WORKLOAD, or all."""
    for name in WORKLOADS if workload == "all" else [workload]:
        cases: dict[str, list[Row]] = {}
        for _ in range(runs):
            for row in WORKLOADS[name](n, size):
                cases.setdefault(row.case, []).append(row)
        for rows in cases.values():
            row = middle(rows)
            click.echo(row.json() if as_json else row.text())


main()
