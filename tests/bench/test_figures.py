"""The arithmetic of the benchmarks: medians, percentiles, ratios and the guard's verdict."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

import bench.__main__
from bench import guard
from bench.book import record, recorded
from bench.drive import drive
from bench.latency import latencies, percentile
from bench.measure import Skipped, measure
from bench.ratios import ratios
from bench.rows import Row, middle
from bench.systems.registry import SYSTEMS
from bench.targets import TARGETS, Target, results
from bench.workloads import ALL
from telpher_broker.engine.engine import Engine


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


def test_what_a_peer_does_not_play_has_a_reason() -> None:
    for system in SYSTEMS.values():
        for workload, cases in SYSTEMS["telpher"].cases.items():
            played = [case for case in cases if system.why_not(workload, case) is None]
            assert played or system.why_not(workload, cases[0])


def test_a_case_that_a_peer_lacks_is_named_as_skipped() -> None:
    workload = replace(ALL["workers"], measure=lambda _: {"msgs_per_s": 1.0})
    systems = [SYSTEMS["telpher"], SYSTEMS["beanstalkd"]]
    found = list(measure(workload, systems, 10, 100, 1))
    skipped = [one.to_text() for one in found if isinstance(one, Skipped)]
    assert skipped[0].startswith("beanstalkd, workers, 100 workers: ")
    assert [one.system for one in found if isinstance(one, Row)] == ["telpher", "telpher"]


def test_what_takes_minutes_is_not_run_again_and_again() -> None:
    assert ALL["large"].runs(3) == 1
    assert ALL["queue"].runs(3) == 3


def test_a_row_replaces_the_one_that_it_is_the_figure_of(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    record(
        [row("telpher", "batches", msgs_per_s=1.0), row("redis", "batches", msgs_per_s=2.0)], file
    )
    record([row("telpher", "batches", msgs_per_s=3.0)], file)
    assert [(one.system, one.figures["msgs_per_s"]) for one in recorded(file)] == [
        ("telpher", 3.0),
        ("redis", 2.0),
    ]


def test_a_target_is_met_from_its_bound_on() -> None:
    over = Target("q", "queue", "batches", 100, "msgs_per_s", 18, over=("redis", "batches"))
    most = Target("p", "queue", "batches", 100, "p50_us", 5, True, unit=(1000, " ms"))
    mine = row("telpher", "batches", msgs_per_s=180.0, p50_us=5001.0)
    met, missed = results([mine, row("redis", "batches", msgs_per_s=10.0)], [over, most])
    assert (met.verdict, met.measured) == ("met", "18×")
    assert (missed.verdict, missed.measured) == ("not met", "5 ms")
    assert [one.verdict for one in results([mine], [over])] == ["not measured"]


def test_every_target_is_of_rows_that_can_be_measured() -> None:
    for target in TARGETS:
        workload = ALL[target.workload]
        assert target.body_bytes in workload.sizes
        for system, case in [("telpher", target.case), *filter(None, [target.over])]:
            assert SYSTEMS[system].why_not(workload.name, case) is None, target


def test_the_guard_fails_at_more_than_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "FILE", tmp_path / "guard.json")
    assert "no ratio is recorded" in str(guard.verdict({"ratio": 1.0}))
    guard.record({"ratio": 2.0})
    assert guard.verdict({"ratio": 2.09}) is None
    assert "2.11 times" in str(guard.verdict({"ratio": 2.11}))


def test_the_guard_fails_when_the_broker_costs_a_tenth_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost() -> float:
        return min(trio.run(drive, "telpher", 200) for _ in range(3))

    monkeypatch.setattr(guard, "FILE", tmp_path / "guard.json")
    plain = cost()
    guard.record({"ratio": plain})
    handle = Engine.handle

    def slow_handle(engine: Engine, session: int, frame: Any) -> None:
        # Less than a tenth of all, for a part of all is the client's; PUBLISH and SETTLE each half.
        until = time.process_time() + plain * 1e-6 * 0.075 / 2
        while time.process_time() < until:
            pass
        handle(engine, session, frame)

    monkeypatch.setattr(Engine, "handle", slow_handle)
    assert guard.verdict({"ratio": cost()}) is not None


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
