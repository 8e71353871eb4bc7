"""The work on files beside the messages: snapshots, rewrites, and how large the log gets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..rows import Figures
from ..stage import Stage, stage
from ..workload import GIGABYTE, Request, Workload

QUIET_SECONDS = 2.0
SAMPLE_SECONDS = 0.01
# How many times the content that waits passes through.
PASSES = 5


def snapshot(request: Request) -> Figures:
    """A client asks something every millisecond: its longest wait while nothing else happens, and
    while the state is written.
    """
    verb, _, published = request.case.partition(", ")
    with stage(request.system, "snapshot", request.n, request.body_bytes) as one:
        one.play("produce_unbatched" if published else "produce_batches")
        quiet = _pinged(one, lambda: time.sleep(QUIET_SECONDS))
        told: Figures = {}
        busy = _pinged(one, lambda: told.update(request.system.snapshot(one.server, verb)))
    return {"longest_wait_ms": busy, "quiet_longest_wait_ms": quiet, **told}


def _pinged(one: Stage, act: Callable[[], object]) -> float:
    client = one.player("ping")
    client.say()
    act()
    client.say("enough")
    return client.outcome()["longest_ms"]


def aof(request: Request) -> Figures:
    """A queue of constant depth, whose content passes several times: the files meanwhile."""
    depth = request.n // PASSES
    live_bytes = depth * request.body_bytes
    with stage(request.system, "aof", request.n, request.body_bytes) as one:
        one.play("produce_batches", depth)
        with Sampler(one.server.directory / "data") as sampler:
            one.play("pass_through", request.n - depth)
        one.play("consume_batches", depth)
        request.system.check_drained(one.server, request.n)
    return {
        "directory_times_live": sampler.most_bytes / live_bytes,
        "log_times_live": sampler.most_log_bytes / live_bytes,
    }


class Sampler:
    """Looks at a data directory again and again: the most bytes of all its files, and of the log,
    which is what the manifest names. The reserve is neither.
    """

    def __init__(self, directory: Path) -> None:
        self.most_bytes = self.most_log_bytes = 0
        self._directory = directory
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            sizes = {}
            for file in self._directory.iterdir():
                with suppress(FileNotFoundError):
                    sizes[file.name] = file.stat().st_size
            sizes.pop("reserve", None)
            named = self._named()
            self.most_bytes = max(self.most_bytes, sum(sizes.values()))
            log_bytes = sum(size for name, size in sizes.items() if name in named)
            self.most_log_bytes = max(self.most_log_bytes, log_bytes)

    def _named(self) -> set[str]:
        lines = (self._directory / "manifest").read_text().splitlines()
        words = [line.split() for line in lines]
        return {
            f"{kind}-{int(number):010}"
            for kind, number, *_ in words
            if kind in ("snapshot", "increment")
        }

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


SNAPSHOT = Workload(
    "snapshot",
    "A client asks something every millisecond while a state of 1 GB is written by a snapshot "
    "or a rewrite: its longest wait, the same with nothing else to do, and the loop's longest "
    "pause as the broker has measured it itself.",
    GIGABYTE,
    snapshot,
    figure="longest_wait_ms",
    more_is_better=False,
    sizes=(1024,),
    bytes_max=GIGABYTE,
    runs_max=1,
)
AOF = Workload(
    "aof",
    f"A queue of constant depth, a {PASSES}th of n, while the rest of n passes through it: the "
    "largest size of the files over that of the bodies that wait.",
    1_000_000,
    aof,
    figure="directory_times_live",
    more_is_better=False,
    sizes=(1024,),
    bytes_max=2 * GIGABYTE,
    runs_max=1,
)
