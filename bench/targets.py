"""What Telpher is to reach, as data, and whether the recorded rows reach it.

A bound is on one figure of one of Telpher's cases: absolute, or over the same figure of another
row, mostly a peer's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .rows import Row


@dataclass(frozen=True)
class Target:
    """One bound: at least, or with `is_most` at most. `over` is (system, case) of the row that the
    figure is divided by; without it the figure itself is bounded, in units of `unit`.
    """

    what: str
    workload: str
    case: str
    body_bytes: int
    figure: str
    bound: float
    is_most: bool = False
    over: tuple[str, str] | None = None
    unit: tuple[float, str] = (1, "")

    def to_text(self) -> str:
        """The bound."""
        return f"{'≤' if self.is_most else '≥'} {self._shown(self.bound)}"

    def shown(self, value: float) -> str:
        """A figure in the bound's unit."""
        return self._shown(value)

    def _shown(self, value: float) -> str:
        if self.over is not None:
            return f"{value:,.3g}×"
        return f"{value:,.0f}{self.unit[1]}" if value >= 100 else f"{value:,.3g}{self.unit[1]}"


@dataclass(frozen=True)
class Result:
    """A target and what is recorded; `value` is None while a row of it is missing."""

    target: Target
    value: float | None

    @property
    def verdict(self) -> str:
        """In words."""
        if self.value is None:
            return "not measured"
        bound = self.target.bound
        is_met = self.value <= bound if self.target.is_most else self.value >= bound
        return "met" if is_met else "not met"

    @property
    def measured(self) -> str:
        """The figure."""
        return "" if self.value is None else self.target.shown(self.value)

    def to_text(self) -> str:
        """One line for a person."""
        target = self.target
        return f"{self.verdict:12} {self.measured:>14}  {target.to_text():14} {target.what}"


_B = (1.0, " B")
_KB = (1e3, " KB")
_MB = (1e6, " MB")
_S = (1.0, " s")
_MS = (1.0, " ms")
_REDIS = ("redis", "batches")

TARGETS = (
    Target("queue, against Redis streams", "queue", "batches", 100, "msgs_per_s", 18, over=_REDIS),
    Target("queue, messages a second", "queue", "batches", 100, "msgs_per_s", 1e6, unit=(1, "/s")),
    Target(
        "queue, against the bare relay",
        "queue",
        "batches",
        100,
        "msgs_per_s",
        0.6,
        over=("limit", "batches"),
    ),
    Target("queue, against Redis streams", "queue", "batches", 1024, "msgs_per_s", 5, over=_REDIS),
    Target(
        "broker's ingest, confirmed, against redis-benchmark XADD -P 100",
        "ingest",
        "confirmed",
        100,
        "msgs_per_s",
        1.5,
        over=("redis", "confirmed"),
    ),
    Target("backlog, draining", "backlog", "batches", 100, "drain_msgs_per_s", 10, over=_REDIS),
    Target(
        "round trip, async client, p50 against Redis",
        "rtt",
        "async client",
        100,
        "p50_us",
        0.75,
        True,
        ("redis", "async client"),
    ),
    Target(
        "round trip, client without await, p50 against Redis",
        "rtt",
        "sync client",
        100,
        "p50_us",
        1.5,
        True,
        ("redis", "sync client"),
    ),
    Target(
        "sync, 1 in flight, against Redis with appendfsync always",
        "sync",
        "1 in flight",
        100,
        "msgs_per_s",
        1,
        over=("redis", "1 in flight"),
    ),
    Target(
        "sync, 4,096 in flight, against Redis with appendfsync always",
        "sync",
        "4096 in flight",
        100,
        "msgs_per_s",
        5,
        over=("redis", "4096 in flight"),
    ),
    Target(
        "small, 100 connections, unbatched, against RabbitMQ",
        "small",
        "100 connections",
        100,
        "msgs_per_s",
        1.5,
        over=("rabbitmq", "100 connections"),
    ),
    Target(
        "workers, prefetch 1, 100 workers, against RabbitMQ",
        "workers",
        "100 workers",
        100,
        "msgs_per_s",
        1.5,
        over=("rabbitmq", "100 workers"),
    ),
    Target(
        "restart with 1,000,000 waiting, time against Redis loading its AOF",
        "restart",
        "after a kill",
        100,
        "ready_s",
        0.2,
        True,
        ("redis", "after a kill"),
    ),
    Target(
        "restart with 10 GB waiting", "large", "after a kill", 1024, "ready_s", 10, True, unit=_S
    ),
    Target(
        "memory of a waiting message, batched",
        "backlog",
        "batches",
        100,
        "waiting_bytes",
        115,
        True,
        unit=_B,
    ),
    Target(
        "memory of a waiting message, unbatched",
        "backlog",
        "messages",
        100,
        "waiting_bytes",
        350,
        True,
        unit=_B,
    ),
    Target(
        "resident memory, 10 GB waiting, memory_limit 256 MiB",
        "large",
        "after a kill",
        1024,
        "resident_bytes",
        512,
        True,
        unit=_MB,
    ),
    Target(
        "draining 10 GB, memory_limit 256 MiB",
        "large",
        "after a kill",
        1024,
        "drain_mb_per_s",
        100,
        unit=(1, " MB/s"),
    ),
    Target(
        "memory of an idle connection",
        "memory",
        "idle connection",
        100,
        "each_bytes",
        25,
        True,
        unit=_KB,
    ),
    Target("memory of an idle queue", "memory", "idle queue", 100, "each_bytes", 2, True, unit=_KB),
    Target(
        "processor time of a message with 100,000 queues, against one",
        "channels",
        "100000 queues",
        100,
        "broker_cpu_us",
        1.3,
        True,
        ("telpher", "1 queue"),
    ),
    Target(
        "processor time of a message behind 10 GB, against an empty queue",
        "depth",
        "10 GB waiting",
        1024,
        "broker_cpu_us",
        1.3,
        True,
        ("telpher", "0 GB waiting"),
    ),
    Target(
        "longest pause of the loop, snapshot of 1 GB",
        "snapshot",
        "snapshot",
        1024,
        "longest_pause_ms",
        20,
        True,
        unit=_MS,
    ),
    Target(
        "longest pause of the loop, rewrite of 1 GB",
        "snapshot",
        "rewrite",
        1024,
        "longest_pause_ms",
        20,
        True,
        unit=_MS,
    ),
    Target(
        "longest pause of the loop, rewrite of 1 GB of single messages",
        "snapshot",
        "rewrite, each a batch",
        1024,
        "longest_pause_ms",
        20,
        True,
        unit=_MS,
    ),
    Target(
        "log over the live content, constant depth",
        "aof",
        "constant depth",
        1024,
        "log_times_live",
        2.2,
        True,
        unit=(1, "×"),
    ),
)


def results(rows: Sequence[Row], targets: Sequence[Target] = TARGETS) -> Iterator[Result]:
    """Each target beside the recorded figure."""
    known = {row.key: row for row in rows}
    for target in targets:
        yield Result(target, _value(target, known))


def _value(target: Target, known: dict[tuple[str, str, int, str], Row]) -> float | None:
    mine = known.get((target.workload, target.case, target.body_bytes, "telpher"))
    if mine is None or target.figure not in mine.figures:
        return None
    value = mine.figures[target.figure]
    if target.over is None:
        return value / target.unit[0]
    system, case = target.over
    other = known.get((target.workload, case, target.body_bytes, system))
    theirs = other.figures.get(target.figure) if other is not None else None
    return value / theirs if theirs else None
