"""What a workload is: a name, what it tells, and how to measure one case of it on one system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .rows import Figures
from .systems.system import System

# What one measurement moves at most, however large the bodies are.
BYTES_MAX = 256 * 1024 * 1024
USUAL_BYTES = 100
GIGABYTE = 1_000_000_000


@dataclass(frozen=True)
class Request:
    """One case on one system."""

    system: System
    workload: str
    case: str
    n: int
    body_bytes: int

    @property
    def number(self) -> int:
        """The number that the case begins with or ends with: 64 of `64 in flight`."""
        return next(int(word) for word in reversed(self.case.split()) if word.isdigit())


@dataclass(frozen=True)
class Workload:
    """`n` is its usual number of messages; `figure` the one to compare, `more_is_better` or not."""

    name: str
    tells: str
    n: int
    measure: Callable[[Request], Figures]
    figure: str = "msgs_per_s"
    more_is_better: bool = True
    fsync: str = "everysec"
    # Throughput, where a slow system is given only its share of n.
    is_bulk: bool = False
    # The sizes that `all` measures; the first is the usual one.
    sizes: tuple[int, ...] = (USUAL_BYTES,)
    bytes_max: int = BYTES_MAX
    # For what takes minutes: no more runs than that, whatever is asked for.
    runs_max: int | None = None

    def request(self, system: System, case: str, n: int | None, body_bytes: int) -> Request:
        """A case with its n: as asked for, less for slow systems and large bodies."""
        count = (n or self.n) * (system.share if self.is_bulk else 1)
        bounded = min(int(count), self.bytes_max // max(1, body_bytes))
        return Request(system, self.name, case, max(10, bounded), body_bytes)

    def runs(self, asked: int) -> int:
        """How often it is measured."""
        return asked if self.runs_max is None else min(asked, self.runs_max)
