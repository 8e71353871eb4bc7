"""Draws rows as bars, one plot a workload; the only module that needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .rows import Row
from .workload import Workload

_COLOURS = {
    "telpher": "#1b6ca8",
    "limit": "#b0b0b0",
    "redis": "#c0392b",
    "rabbitmq": "#e67e22",
    "nats": "#27ae60",
    "beanstalkd": "#8e6e53",
}
_BAR_INCHES = 0.26


def plot(workload: Workload, rows: Sequence[Row], file: Path) -> None:
    """Write the workload's figure for each case and system to a PNG or SVG file."""
    import matplotlib as mpl

    mpl.use("Agg")
    # Text stays text and ids stay the same: small files, and small differences between them.
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "telpher"
    from matplotlib import pyplot

    shown = [row for row in rows if workload.figure in row.figures]
    figure, axes = pyplot.subplots(figsize=(7, 0.9 + _BAR_INCHES * len(shown)))
    labels = [f"{row.system}: {row.case}, {_size(row.body_bytes)}" for row in shown]
    values = [row.figures[workload.figure] for row in shown]
    bars = axes.barh(
        range(len(shown)), values, color=[_COLOURS.get(row.system, "#555555") for row in shown]
    )
    axes.bar_label(bars, list(map(_number, values)), fontsize=8)
    _dress(axes, workload, labels, values)
    metadata = {"Date": None} if file.suffix == ".svg" else None
    figure.savefig(file, bbox_inches="tight", dpi=80, metadata=metadata)
    pyplot.close(figure)


def _dress(axes: Any, workload: Workload, labels: list[str], values: list[float]) -> None:
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    if max(values) > 30 * min(values) > 0:
        axes.set_xscale("log")
    axes.margins(x=0.18)
    better = "more" if workload.more_is_better else "less"
    axes.set_title(f"{workload.name}: {workload.figure} ({better} is better)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _number(value: float) -> str:
    return f" {value:,.3g}" if value < 1000 else f" {value:,.0f}"


def _size(body_bytes: int) -> str:
    for unit, least in (("MB", 1 << 20), ("KB", 1 << 10)):
        if body_bytes >= least:
            return f"{body_bytes // least} {unit}"
    return f"{body_bytes} B"
