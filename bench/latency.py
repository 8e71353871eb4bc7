"""Percentiles of times taken, as figures."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and p99.9 in microseconds."""
    ascending = sorted(seconds)
    return {
        "p50_us": percentile(ascending, 0.5) * 1e6,
        "p99_us": percentile(ascending, 0.99) * 1e6,
        "p999_us": percentile(ascending, 0.999) * 1e6,
    }
