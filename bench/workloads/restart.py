"""How soon a server is back with what waited, and how it is with more than fits into memory."""

from __future__ import annotations

import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

from ..rows import Figures
from ..stage import Stage, seconds
from ..systems.system import Server
from ..workload import GIGABYTE, Request, Workload

STARTS = 3


def restart(request: Request) -> Figures:
    """Publish n messages, end the server in one way or the other and start it again, three times
    on the same files; then drain.
    """
    ready: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bench-restart-") as directory:
        home = Path(directory)
        with _serve(request, home) as server:
            request.system.prepare(server, "queue")
            _play(request, server, "produce_batches")
            _end(request, server)
        for start in range(STARTS):
            before = time.monotonic()
            with _serve(request, home) as server:
                request.system.answer(server)
                ready.append(time.monotonic() - before)
                resident = server.resident_bytes()
                if start == STARTS - 1:
                    _play(request, server, "consume_batches")
                    request.system.check_drained(server, request.n)
                _end(request, server)
    return {"ready_s": median(ready), "resident_bytes": resident}


def large(request: Request) -> Figures:
    """Publish n messages, far more than memory_limit; kill the server, start it, and drain."""
    megabytes = request.n * request.body_bytes / 1e6
    with tempfile.TemporaryDirectory(prefix="bench-large-") as directory:
        home = Path(directory)
        with _serve(request, home) as server:
            publishing = _play(request, server, "produce_batches")
            waiting = server.peak_resident_bytes()
            server.kill()
        before = time.monotonic()
        with _serve(request, home) as server:
            request.system.answer(server)
            ready = time.monotonic() - before
            draining = _play(request, server, "consume_batches")
            drained = server.peak_resident_bytes()
            request.system.check_drained(server, request.n)
            server.kill()
    return {
        "publish_mb_per_s": megabytes / publishing,
        "resident_bytes": max(waiting, drained),
        "ready_s": ready,
        "drain_mb_per_s": megabytes / draining,
    }


def _serve(request: Request, home: Path) -> AbstractContextManager[Server]:
    options = request.system.options.get(request.workload, {})
    return request.system.serve("everysec", home, **options)


def _play(request: Request, server: Server, role: str) -> float:
    one = Stage(request.system, server, request.n, request.body_bytes)
    try:
        return seconds(one.play(role))
    finally:
        one.close()


def _end(request: Request, server: Server) -> None:
    """Kill it, if that is the case; leaving its context stops it otherwise."""
    if request.case == "after a kill":
        server.kill()


RESTART = Workload(
    "restart",
    "From starting the process to its first answer, with n messages waiting; "
    f"the median of {STARTS} starts on the same files.",
    1_000_000,
    restart,
    figure="ready_s",
    more_is_better=False,
    runs_max=1,
)
LARGE = Workload(
    "large",
    "10 GB waiting under a memory_limit of 256 MiB: publishing, the most resident memory while "
    "publishing and draining, from starting after SIGKILL to the first answer, and draining.",
    10 * GIGABYTE,
    large,
    figure="drain_mb_per_s",
    sizes=(1024,),
    bytes_max=10 * GIGABYTE,
    runs_max=1,
)
