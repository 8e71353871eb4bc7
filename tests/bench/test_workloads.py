"""Every workload plays on Telpher, with few messages and one case each, and gives whole rows."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from bench.measure import Failure, measure
from bench.rows import Row
from bench.systems.limit import Limit
from bench.systems.telpher import Telpher
from bench.workloads import ALL

MESSAGES = 200
AT_ONCE = 4


class Briefly(Telpher):
    """Telpher, with the first case of each workload."""

    cases: ClassVar[Mapping[str, tuple[str, ...]]] = {
        workload: cases[:1] for workload, cases in Telpher.cases.items()
    } | {
        "snapshot": ("rewrite, each a batch",),
        "memory": ("idle queue",),
        "workers": ("100 workers, answered",),
        "depth": ("10 GB waiting",),
        "channels": ("100000 queues",),
        "flat": ("1000 waiting",),
    }


class BriefLimit(Limit):
    """The relay, with the first case of its own workload."""

    cases: ClassVar[Mapping[str, tuple[str, ...]]] = {"limit": Limit.cases["limit"][:1]}


def rows_of(name: str) -> list[Row | Failure]:
    systems = [BriefLimit() if name == "limit" else Briefly()]
    found = list(measure(ALL[name], systems, MESSAGES, 64, runs=1))
    assert all(isinstance(one, Row) for one in found), found
    return found


@pytest.fixture(scope="module")
def measured() -> dict[str, list[Row | Failure]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(ALL, pool.map(rows_of, ALL), strict=True))


@pytest.mark.parametrize("name", ALL)
def test_a_workload_gives_a_whole_row(measured: dict[str, list[Row | Failure]], name: str) -> None:
    (row,) = measured[name]
    assert row.workload == name
    assert row.system == ("limit" if name == "limit" else "telpher")
    assert 0 < row.n <= MESSAGES
    assert row.body_bytes == 64
    assert row.figures[ALL[name].figure] > 0
    assert all(value >= 0 for key, value in row.figures.items() if key != "waiting_bytes")
    assert row.versions["server"]
    assert row.settings["runs"] == 1
    assert Row.from_json(row.to_json()) == row
