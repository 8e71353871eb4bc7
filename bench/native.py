"""The peers' own load tools, for scale: what their servers do without a Python client."""

from __future__ import annotations

import csv
import math
import shutil

from .job import QUEUE
from .rows import Figures, Row
from .systems.redis import Redis
from .systems.system import Server, output_of


def native(name: str, n: int, body_bytes: int) -> list[Row]:
    """The rows of a peer's own tool; empty where its Debian package brings none."""
    if name == "redis" and shutil.which("redis-benchmark"):
        return [_redis(n, body_bytes, pipeline) for pipeline in (1, 100)]
    return []


def xadd(
    server: Server, n: int, body_bytes: int, pipeline: int = 100, connections: int = 4
) -> Figures:
    """XADD to the queue's stream by redis-benchmark; it only publishes."""
    port = server.address.rpartition(":")[2]
    flags = ["-h", "127.0.0.1", "-p", port, "-c", str(connections)]
    flags += ["-n", str(n), "-P", str(pipeline)]
    # The body by standard input: an argument may not have a megabyte.
    command = ["redis-benchmark", *flags, "--csv", "-x", "XADD", QUEUE, "*", "b"]
    told = output_of(*command, given="x" * body_bytes)
    line = list(csv.DictReader(told.splitlines()))[-1]
    assert math.isfinite(float(line["rps"])), "redis-benchmark measures nothing with so few"
    return {
        "msgs_per_s": float(line["rps"]),
        "p50_us": float(line["p50_latency_ms"]) * 1000,
        "p99_us": float(line["p99_latency_ms"]) * 1000,
    }


def _redis(n: int, body_bytes: int, pipeline: int) -> Row:
    system = Redis()
    with system.serve("everysec") as server:
        figures = xadd(server, n, body_bytes, pipeline, connections=1)
    case = f"redis-benchmark XADD -P {pipeline}"
    settings = {"appendfsync": "everysec", "connections": 1, "publishes only": True}
    return Row("redis", "native", case, n, body_bytes, figures, settings, system.versions())
