"""The records of quotas.

`records` has what holds of all records, and their numbers.
"""

from __future__ import annotations

from typing import NamedTuple


class QuotaSet(NamedTuple):
    """A quota is made or changed; what it has let through before is forgotten."""

    name: str
    subject: str
    algorithm: str
    limit: int
    window_ms: int
    burst: int
    unit: str
    at_limit: str


class QuotaRemoved(NamedTuple):
    """A quota is gone."""

    name: str
