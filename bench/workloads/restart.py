"""How soon a server is back with what waited."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from ..process import resident_bytes
from ..rows import Figures
from ..stage import Stage
from ..workload import Request, Workload


def restart(request: Request) -> Figures:
    """Publish n messages, end the server in one way or the other, start it, and drain."""
    system = request.system
    with tempfile.TemporaryDirectory(prefix="bench-restart-") as directory:
        home = Path(directory)
        with system.serve("everysec", home) as server:
            system.prepare(server, "queue")
            first = Stage(system, server, request.n, request.body_bytes)
            first.play("produce_batches")
            first.close()
            if request.case == "after a kill":
                server.process.kill()
                server.process.wait()
        before = time.monotonic()
        with system.serve("everysec", home) as server:
            ready_seconds = time.monotonic() - before
            resident = resident_bytes(server.process.pid)
            second = Stage(system, server, request.n, request.body_bytes)
            second.play("consume_batches")
            second.close()
            system.check_drained(server, request.n)
    return {"ready_s": ready_seconds, "resident_bytes": resident}


RESTART = Workload(
    "restart",
    "From starting the process to accepting connections, with n messages waiting.",
    1_000_000,
    restart,
    figure="ready_s",
    more_is_better=False,
)
