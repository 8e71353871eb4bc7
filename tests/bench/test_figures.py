"""The arithmetic of the benchmarks: medians, percentiles, ratios and the guard's verdict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import bench.__main__
from bench import guard
from bench.latency import latencies, percentile
from bench.ratios import ratios
from bench.rows import Row, middle
from bench.systems.registry import SYSTEMS
from bench.workloads import ALL


def row(system: str, case: str, **figures: float) -> Row:
    return Row(system, "queue", case, 10, 100, figures)


def test_the_medians_are_of_each_figure() -> None:
    assert middle([{"a": 1, "b": 9}, {"a": 2, "b": 8}, {"a": 9, "b": 7}]) == {"a": 2, "b": 8}


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([7.0], 0.999) == 7
    assert latencies([3e-6])["p50_us"] == pytest.approx(3)


def test_a_ratio_is_above_one_when_telpher_is_better() -> None:
    rows = [
        row("telpher", "batches", msgs_per_s=100.0),
        row("telpher", "messages", msgs_per_s=50.0),
        row("redis", "batches", msgs_per_s=10.0),
    ]
    found = {ratio.case: ratio.times for ratio in ratios(ALL["queue"], rows)}
    assert found == {"batches": 10.0, "messages": 5.0}


def test_a_ratio_of_times_is_turned_round() -> None:
    rows = [
        Row("telpher", "rtt", "async client", 10, 100, {"p50_us": 50.0}),
        Row("nats", "rtt", "async client", 10, 100, {"p50_us": 100.0}),
    ]
    assert [ratio.times for ratio in ratios(ALL["rtt"], rows)] == [2.0]


def test_every_case_of_every_system_is_of_a_workload() -> None:
    for system in SYSTEMS.values():
        assert set(system.cases) <= set(ALL)


def test_the_guard_fails_at_more_than_ten_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "FILE", tmp_path / "guard.json")
    assert "no ratio_cpu_us is recorded" in str(guard.verdict({"ratio_cpu_us": 1.0}))
    guard.record({"ratio_cpu_us": 2.0})
    guard.record({"ratio_instructions": 6.0})
    assert guard.verdict({"ratio_cpu_us": 2.19}) is None
    assert "2.21 times" in str(guard.verdict({"ratio_cpu_us": 2.21}))


def test_a_peer_that_is_not_installed_is_named_as_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(SYSTEMS["nats"]), "programs", ("no-such-program",))
    monkeypatch.setattr(bench.__main__, "measure", lambda *_: [])
    result = CliRunner().invoke(bench.__main__.main, ["queue", "--against", "nats"])
    assert result.exit_code == 0, result.output
    assert "skipped: nats: no-such-program is not installed" in result.output


def test_the_command_needs_no_peer() -> None:
    """Nothing of the peers is imported until a peer is measured."""
    program = (
        "import sys, bench.__main__; "
        "print([m for m in ('redis', 'pika', 'nats', 'greenstalk', 'matplotlib') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
